"""Other people's machines: no home, none of it writable or executable, a Python in parts, other
file systems."""

import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from conftest import ROOT
from press_fixtures import Scratch

from helpers.files import cache_folder
from helpers.kernels import native

NOBODY = ["unshare", "--user", "--map-user=12345"]
NO_PROGRAMS = [
    *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
    'mount -t tmpfs -o noexec none "$0" && exec "$@"',
]


def python(code: str, *before: str, **environment: str | None) -> str:
    """What this Python prints, run with other variables; None takes one away."""
    changed = {"XDG_CACHE_HOME": None, "OMP_NUM_THREADS": "1", **environment}
    known = {k: v for k, v in (os.environ | changed).items() if v is not None}
    done = subprocess.run(
        [*before, sys.executable, "-c", code], capture_output=True, text=True, env=known
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def needs(*before: str) -> None:
    if not shutil.which(before[0]) or subprocess.run([*before, "true"]).returncode:
        pytest.skip(
            "this system lets nobody but its administrator become another user or mount anything"
        )


# A home -------------------------------------------------------------------------------------------

CACHE = "from helpers.files import cache_folder; print(cache_folder())"
LIBRARY = "from helpers.kernels import native; print(native.library('plane') is not None)"


@pytest.mark.parametrize("home", ["/dev/null", None])
def test_without_a_home_the_cache_is_temporary(home, tmp_path):
    """None: the variable is not set, and the system knows nothing of the user."""
    if home is None:
        needs(*NOBODY)
    before = NOBODY if home is None else []
    tmp_path.chmod(0o777)
    found = Path(python(CACHE, *before, HOME=home, TMPDIR=str(tmp_path)))
    assert found.parent == tmp_path and found.name.startswith("creative-denoiser-")
    assert stat.S_IMODE(found.stat().st_mode) == 0o700


def test_where_nothing_may_be_written_at_all_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    monkeypatch.setattr(tempfile, "tempdir", "/dev/null")
    with pytest.raises(
        ValueError, match="nothing may be written .*: set XDG_CACHE_HOME to a folder that may"
    ):
        cache_folder()
    # a link that another user has left among the temporary files leads to what is theirs
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"creative-denoiser-{os.getuid()}").symlink_to(tmp_path)
    with pytest.raises(ValueError, match="nothing may be written"):
        cache_folder()


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler on this machine")
def test_what_may_not_run_in_the_cache_runs_from_the_temporary_files_or_not_at_all(tmp_path):
    held, free = tmp_path / "held", tmp_path / "free"
    for folder in (held, free):
        folder.mkdir()
    before = [*NO_PROGRAMS, str(held)]
    needs(*before)
    assert python(LIBRARY, *before, XDG_CACHE_HOME=str(held), TMPDIR=str(free)) == "True"
    assert python(LIBRARY, *before, XDG_CACHE_HOME=str(held), TMPDIR=str(held)) == "False"


def test_a_home_that_may_not_be_written_shows_on_no_page(tmp_path, monkeypatch):
    """In a folder whose name has a space and letters of three alphabets."""
    (tmp_path / "Ünï côde Жя 木").mkdir()
    scratch = Scratch(tmp_path / "Ünï côde Жя 木")
    monkeypatch.setenv("HOME", "/dev/null")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    scratch.chapter("01_draws", "import matplotlib.pyplot as plt", "print('Ж')")
    done = scratch.apart("execute")
    assert done.returncode == 0, done.stdout + done.stderr
    outputs = [
        o
        for cell in nbformat.read(scratch.executed("01_draws"), 4).cells
        for o in cell.get("outputs", [])
    ]
    assert [output.text for output in outputs] == ["Ж\n"]
    assert scratch("store").returncode == 0


# A Python in parts --------------------------------------------------------------------------------


def test_a_python_in_parts_and_beside_other_frameworks(tmp_path):
    """Without optional modules all works but the embedded images, which say so; and POT imports
    nobody else's."""
    for name in ("tensorflow", "jax", "cupy"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} is imported')")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
for name in ("lzma", "_lzma", "bz2", "_bz2", "sqlite3", "_sqlite3", "readline", "_curses"):
    sys.modules[name] = None
from helpers import data, metrics, realism
x = data.moons().sample(9)
print(max(metrics.sliced_w2(x, x), metrics.exact_w2(x, x), abs(realism.frechet(x, x))) < 1e-6)
try:
    data.fashion_mnist()
except ValueError as error:
    print(error)
"""
    no_distance, said = python(code).splitlines()
    assert no_distance == "True" and "without which this Python was built" in said


# Other file systems, and no make ------------------------------------------------------------------


def test_the_repository_fits_the_file_systems_of_others():
    """No links, no names that Windows refuses or takes for one, and the same ends of lines
    everywhere."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--format=%(objectmode) %(eolattr) %(path)"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split("\0")[
        :-1
    ]
    modes, *_, names = zip(*(line.split(maxsplit=3) for line in listed), strict=True)
    assert not {mode for mode in modes if mode == "120000"}
    assert all(" text=auto eol=lf " in line for line in listed)
    assert len({name.lower() for name in names}) == len(names)
    odd = r'[<>:"|?*\\]|[ .](/|$)|(^|/)(con|prn|aux|nul|com\d|lpt\d)(\.|/|$)'
    assert not [name for name in names if re.search(odd, name, re.I)]


def test_what_make_does_is_done_without_make(scratch):
    scratch.chapter("01_bad", "raise RuntimeError('no such luck')")
    stopped = scratch.apart("book")
    assert (
        stopped.returncode == 1
        and "no such luck" in stopped.stdout
        and "up to date" not in stopped.stdout
    )
    made = (ROOT / "Makefile").read_text("utf-8").partition("touch $@")[2]
    recipes = re.findall(r"(?m)^\t(.+)", made)
    plain = {"$(PYTHON) tests/colab.py $(CHAPTERS)", "rm -rf build"}
    assert len(recipes) > 4 and not [
        r for r in recipes if not re.search(r"\$\(PRESS\) |-m helpers\.", r) and r not in plain
    ]
    said = scratch("--help").stdout
    named = re.search(r"(?m)^(book .*): \$\(READY\)", made)[1].split()
    assert len(named) > 4 and not [name for name in named if f" {name} " not in said]
