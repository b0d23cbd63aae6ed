"""The pipeline: what is executed again and why, what a failure or a kill leaves behind, what replay
catches."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version

import nbformat
import numpy as np
import pytest
import yaml
from conftest import ROOT
from matplotlib import colormaps
from PIL import Image, ImageChops, ImageDraw

from helpers import plots
from press.chapters import lighter


def lines(result, *names):
    """The pipeline's word on each chapter: the first line that begins with its name."""
    return [
        next(line for line in result.stdout.splitlines() if line.startswith(name + ":"))
        for name in names
    ]


def test_only_what_changed_is_executed_again_and_the_reason_is_named(scratch):
    scratch.chapter("01_plain", "print(1 + 1)")
    scratch.chapter("02_toy", "from helpers import toy", "print(toy.__name__)")
    first = scratch("execute")
    assert first.returncode == 0, first.stdout + first.stderr
    assert lines(first, "01_plain", "02_toy") == [
        "01_plain: not executed yet",
        "02_toy: not executed yet",
    ]
    # imported by toy, not by the chapter
    (scratch.root / "src/helpers/inner.py").write_text("x = 1\n")
    (scratch.root / "src/helpers/other.py").write_text("x = 1\n")  # imported by nobody
    third = scratch("execute")
    assert lines(third, "01_plain", "02_toy") == [
        "01_plain: up to date",
        "02_toy: helpers/inner.py changed",
    ]

    scratch.chapter("01_plain", "print(1 + 2)")
    fourth = scratch("execute")
    assert lines(fourth, "01_plain", "02_toy") == [
        "01_plain: the chapter changed",
        "02_toy: up to date",
    ]
    assert nbformat.read(scratch.executed("01_plain"), 4).cells[-1].outputs[0].text == "3\n"

    (scratch.root / "src/helpers/points.bin").write_bytes(b"data beside the modules")
    (scratch.root / "requirements.txt").write_text("numpy\n")
    fifth = (
        lines(scratch("execute", "2", "02"), "error") if scratch("execute", "2").returncode else []
    )
    assert fifth == ["error: no chapter '2'; there are: 01_plain, 02_toy"]
    sixth = scratch("execute", "02")
    assert lines(sixth, "02_toy") == ["02_toy: requirements.txt changed"], "nobody reads the data"


def test_a_failing_chapter_is_named_left_to_read_and_does_not_stop_the_others(scratch):
    scratch.chapter("01_bad", "print('before')", "raise RuntimeError('no such luck')")
    scratch.chapter("02_good", "print('fine')")
    scratch.chapter("ledger", "print('rows')")
    result = scratch("execute")
    assert result.returncode == 1
    assert "01_bad: cell code-1: RuntimeError: no such luck" in result.stdout
    assert "to read it: build/run/book/01_bad.ipynb" in result.stdout
    assert "ledger: not executed: it lists the claims of 01_bad" in result.stdout
    left = nbformat.read(scratch.executed("01_bad"), 4)
    assert any(o.output_type == "error" for cell in left.cells for o in cell.get("outputs", []))
    assert nbformat.read(scratch.executed("02_good"), 4).cells[-1].outputs[0].text == "fine\n"
    again = scratch("execute")
    assert again.returncode == 1
    assert lines(again, "01_bad", "02_good") == ["01_bad: failed last time", "02_good: up to date"]
    for command in ("compare", "build", "store"):
        refused = scratch(command)
        assert refused.returncode == 1 and "to be executed first" in refused.stdout, command


def test_a_kernel_that_dies_is_a_failure_like_any_other(scratch):
    scratch.chapter("01_dead", "import os", "os._exit(3)")
    scratch.chapter("02_good", "print('fine')")
    result = scratch("execute", "--jobs", "1")
    assert result.returncode == 1
    assert "DeadKernelError" in result.stdout and "02_good: done" in result.stdout


def test_the_ledger_runs_last_and_again_when_a_claim_changes(scratch):
    results = (
        "import json, os, pathlib\nfolder = pathlib.Path(os.environ['CREATIVE_DENOISER_RESULTS'])\n"
    )
    write = "(folder / '%s').mkdir(exist_ok=True, parents=True)\n(folder / '%s/01_claims.json').write_text('%s')\n"
    claim, lab = results + write % ("claims", "claims", "[1]"), write % ("labs", "labs", "{}")
    scratch.chapter("ledger", results + "print((folder / 'claims/01_claims.json').read_text())")
    scratch.chapter("01_claims", claim)
    assert scratch("execute").returncode == 0
    scratch.chapter("01_claims", claim + lab)
    assert lines(scratch("execute"), "ledger") == ["ledger: up to date"], "a lab is no claim"
    scratch.chapter("01_claims", claim.replace("[1]", "[2]") + lab)
    assert lines(scratch("execute"), "ledger") == [
        "ledger: build/results/claims/01_claims.json changed"
    ]
    assert nbformat.read(scratch.executed("ledger"), 4).cells[-1].outputs[0].text == "[2]\n"
    assert scratch("store").returncode == 0
    assert json.loads((scratch.root / "results/claims/01_claims.json").read_text()) == [2]
    assert not (scratch.root / "results/labs").exists(), "every build exports the labs anew"


def test_profiles(scratch):
    scratch.chapter("01_plain", "print(profile)")
    assert scratch("execute").returncode == 0
    assert len(nbformat.read(scratch.executed("01_plain"), 4).cells) == 3, "quick injects no cell"
    full = scratch("execute", "--profile", "full")
    assert lines(full, "01_plain") == ["01_plain: profile changed"]
    assert nbformat.read(scratch.executed("01_plain"), 4).cells[-1].outputs[0].text == "full\n"
    refused = scratch("store")
    assert refused.returncode == 1 and "profile changed" in refused.stdout

    notebook = nbformat.read(scratch.path("01_plain"), 4)
    notebook.cells[1].source = "size = 3"
    nbformat.write(notebook, scratch.path("01_plain"))
    unknown = scratch("execute", "--profile", "full")
    assert unknown.returncode == 1 and "01_plain has no parameter 'profile'" in unknown.stdout
    for wrong in (("--profile", "slow"), ("--jobs", "0"), ("9",)):
        result = scratch("execute", *wrong)
        assert (
            result.returncode == 1
            and result.stdout.startswith("error:")
            and wrong[-1] in result.stdout
        )


def test_a_killed_run_leaves_nothing_half_written_and_the_next_one_goes_on(scratch):
    scratch.chapter("01_first", "print('first')")
    scratch.chapter(
        "02_waits",
        "import pathlib, time",
        "while not pathlib.Path('go').exists():\n    time.sleep(0.02)",
    )
    command = [sys.executable, "-m", "press", "execute", "--jobs", "1"]
    process = subprocess.Popen(
        command, cwd=scratch.root, env=scratch.environment(), stdout=subprocess.DEVNULL
    )
    while not scratch.executed("01_first").with_suffix(".json").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not scratch.executed("02_waits").exists()
    for file in scratch.executed("01_first").parent.glob("*.ipynb"):
        nbformat.validate(nbformat.read(file, 4))
    # as a kill while writing
    (scratch.executed("01_first").parent / ".01_first.ipynb.xyz.tmp").write_text("half a fi")
    (scratch.root / "book/go").touch()
    again = scratch("execute")
    assert again.returncode == 0, again.stdout + again.stderr
    assert lines(again, "01_first", "02_waits") == [
        "01_first: up to date",
        "02_waits: not executed yet",
    ]
    assert not list((scratch.root / "build").rglob("*.tmp"))


def edit(path, change):
    notebook = nbformat.read(path, 4)
    change(notebook)
    nbformat.write(notebook, path)


def test_replay_passes_what_was_stored_and_catches_drift(scratch):
    figure = "from IPython.display import HTML, display\nimport os\n"
    figure += (
        "display(HTML('<b>seen</b><script type=\"application/json\">%d</script>' % os.getpid()))"
    )
    scratch.chapter("01_plain", "print('twelve', 12)", figure, "import os; os.getpid()")

    def ignore_process_id(notebook):
        notebook.cells[-1].metadata.tags = ["nbval-ignore-output"]

    edit(scratch.path("01_plain"), ignore_process_id)
    assert scratch("execute").returncode == 0
    never_stored = scratch.apart("compare")
    assert never_stored.returncode == 1 and "2 failed" in never_stored.stdout
    # newer than the run, and no reason for another
    edit(scratch.path("01_plain"), lambda notebook: notebook.metadata.update(description="twelve"))
    assert scratch("store").returncode == 0
    stored = scratch.path("01_plain").read_text()
    assert (
        '"description": "twelve"' in stored
        and "papermill" not in stored
        and "iopub" not in stored
        and [c.id for c in nbformat.read(scratch.path("01_plain"), 4).cells]
        == [
            "title",
            "parameters",
            "code-0",
            "code-1",
            "code-2",
        ]
    )
    assert "01_plain: up to date" in scratch("execute").stdout, (
        "storing outputs does not make a chapter stale"
    )
    assert scratch("execute", "--force").returncode == 0
    assert scratch.apart("compare").returncode == 0, (
        "another process id, in an ignored cell and in a figure's data"
    )

    def number(notebook):
        notebook.cells[2].outputs[0].text = "twelve 13\n"

    edit(scratch.path("01_plain"), number)
    drift = scratch.apart("compare")
    assert drift.returncode == 1 and "twelve 13" in drift.stdout and "1 failed" in drift.stdout

    scratch.path("01_plain").write_text(stored)
    edit(scratch.executed("01_plain"), lambda notebook: notebook.cells.pop(2))
    missing = scratch.apart("compare")
    assert (
        missing.returncode == 1
        and "stored and executed cells differ (code-0): run `make store`" in missing.stdout
    )

    edit(scratch.path("01_plain"), lambda notebook: notebook.cells.pop(2))
    edited = scratch.apart("compare")
    assert edited.returncode == 1 and "01_plain (the chapter changed)" in edited.stdout
    plugin = ["-p", "press.replay", "--replay", "build/run", "book"]
    direct = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin],
        cwd=scratch.root,
        env=scratch.environment(),
        capture_output=True,
        text=True,
    )
    assert direct.returncode == 1 and "no fresh outputs (the chapter changed)" in direct.stdout


def test_a_page_that_the_contents_list_and_nobody_wrote(scratch):
    scratch.chapter("01_plain")
    scratch.path("01_plain").unlink()
    result = scratch("execute")
    assert result.returncode == 1 and "_toc.yml lists 'book/01_plain'" in result.stdout


def test_outside_a_book(tmp_path):
    command = [sys.executable, "-m", "press", "execute"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 1 and "no _toc.yml" in result.stdout


def test_jupyter_book_is_the_pinned_one():
    assert version("jupyter-book").startswith("1.0."), (
        "an open bound installs 0.6.5 or 2.x, which are other programs"
    )


def test_the_public_address_stands_in_one_file():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    config = yaml.safe_load((ROOT / "_config.yml").read_text())
    owner_and_name = config["repository"]["url"].removeprefix("https://")
    command = ["git", "grep", "--untracked", "-lI", "-e", owner_and_name]
    found = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "LC_ALL": "C"}
    )
    assert found.stdout.split() == ["_config.yml"]


def test_the_lock_names_no_registry():
    lock = json.loads((ROOT / "package-lock.json").read_text())
    assert not [name for name, package in lock["packages"].items() if "resolved" in package]


def test_pictures_are_kept_with_a_palette():
    def png(picture):
        data = io.BytesIO()
        picture.save(data, "PNG")
        return data.getvalue()

    def opened(data):
        return Image.open(io.BytesIO(data))

    gray = Image.linear_gradient("L")
    half = gray.point(lambda value: value // 2)  # 128 grays
    few = Image.merge("RGB", [half, half, half])
    assert ImageChops.difference(opened(lighter(png(few))).convert("RGB"), few).getbbox() is None
    field = Image.fromarray(
        (255 * colormaps["viridis"](np.linspace(0, 1, 256 * 200).reshape(200, 256))).astype("u1")
    )
    figure = field.convert("RGB").resize((500, 400))
    # each on a line of its own: a thousandth of the picture
    for i, colour in enumerate(plots.CYCLE):
        ImageDraw.Draw(figure).line([(20, 20 + 60 * i), (200, 20 + 60 * i)], colour)
    made = lighter(png(figure))
    worst = np.abs(np.asarray(opened(made).convert("RGB"), int) - np.asarray(figure, int)).max(2)
    assert opened(made).mode == "P" and worst.max() <= 12 and len(made) < len(png(figure))
    noise = Image.merge("RGB", [Image.effect_noise((300, 300), 90) for _ in range(3)])
    assert lighter(png(noise)) == png(noise)  # no palette keeps such colours
    assert lighter(made) == made
