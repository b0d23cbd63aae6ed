"""The structure of the package: arrows point down, no circle, and the library runs without all that
stands on it."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from library import ABOVE, copied

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src/helpers"
# what knows the library, and what the library does not know
MAY = {"experiments": {"systems"}}  # know each other
EVENING = 1300  # lines at most of what README names for one evening


def dotted(file: Path) -> tuple[str, ...]:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {dotted(file): file for file in PACKAGE.rglob("*.py")}


def imported(file: Path) -> set[tuple[str, ...]]:
    """The modules of the package that a module names when it is imported."""
    here, found = file.relative_to(PACKAGE).parts[:-1], set()
    for node in ast.parse(file.read_text("utf-8")).body:
        if not isinstance(node, ast.ImportFrom):
            continue
        name = tuple(node.module.split(".")) if node.module else ()
        if node.level:
            base = here[: len(here) - node.level + 1] + name
        elif name[:1] == ("helpers",):
            base = name[1:]
        else:
            continue
        for alias in node.names:
            found.add((*base, alias.name) if (*base, alias.name) in MODULES else base)
    return found - {()}


def room(module: tuple[str, ...]) -> str:
    return module[0] if module and module[0] in ABOVE else "library"


def test_arrows_point_down():
    """The library knows nothing that stands on it; a wing knows the library, and no other wing."""
    for module, file in MODULES.items():
        for other in imported(file):
            above = room(other)
            if above == "library" or above == room(module):
                wings = module[:1] == ("systems",) and len(module) > 1 and other[1:2] != module[1:2]
                assert not (above == "systems" and wings), (
                    f"{file}: one wing knows another, {other}"
                )
            else:
                assert above in MAY.get(room(module), ()), (
                    f"{file}: {room(module)} knows {above}, {other}"
                )


def test_no_circle():
    graph = {
        module: {m for m in imported(file) if len(MODULES[m].parent.parts)}
        for module, file in MODULES.items()
    }
    packages = {module for module, file in MODULES.items() if file.name == "__init__.py"}
    done: set = set()

    def walk(module, path):
        assert module not in path, " -> ".join(
            ".".join(m) for m in (*path[path.index(module) :], module)
        )
        if module not in done:
            # a package imports its own modules, which may name it
            for other in graph[module] - packages:
                walk(other, [*path, module])
            done.add(module)

    for module in graph:
        walk(module, [])


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A folder with the package and its tests, without what stands on it."""
    root = tmp_path_factory.mktemp("library")
    return root, copied(root)


def test_the_library_runs_alone(library):
    """Every module is imported, and images are made and judged, without systems, experiments, labs
    and press."""
    root, environment = library
    names = sorted(".".join(("helpers", *m)) for m in MODULES if m and room(m) == "library")
    code = f"""
import importlib, sys
for name in {names}:
    importlib.import_module(name)
assert "torch._dynamo" not in sys.modules  # the compiler, which takes longer than all else
import helpers, torch
from helpers import data, metrics, sampling
from helpers.denoisers import PosteriorMean
assert helpers.__path__ == [{str(root / "src/helpers")!r}]
x = data.three_points().sample(64)
start = sampling.initial_noise(64, 2, sigma=20.0)
made = sampling.last(sampling.heun(PosteriorMean(x), start, sampling.edm(12, 0.01, 20.0)))
print(metrics.share_of_copies(made, x))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.9


def test_its_tests_need_nothing_else(library):
    """They are collected; `python tests/library.py` runs them so."""
    root, environment = library
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only"]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) tests collected", done.stdout)[1]) > 1000


def test_every_package_is_installed():
    """pyproject.toml lists them, since weights and claims stand outside of src."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    source = ROOT / "src"
    there = {".".join(f.parent.relative_to(source).parts) for f in source.rglob("__init__.py")}
    assert there | {"helpers.claims", "helpers.weights"} == set(settings["packages"])


def test_a_wing_names_its_source_and_chapters():
    for init in (PACKAGE / "systems").glob("*/__init__.py"):
        words = ast.get_docstring(ast.parse(init.read_text("utf-8")))
        numbers = {int(n) for n in re.findall(r"\b\d{1,2}\b", words.partition("(chapter")[2])}
        used = {
            int(chapter.name[:2])
            for chapter in ROOT.glob("book/*/*.ipynb")
            if f"helpers.systems.{init.parent.name}" in chapter.read_text("utf-8")
        }
        assert numbers == used and re.search(r"\b(19|20)\d\d\b|^Campagne", words), init


def test_the_evening_is_short():
    """README names what to read first, in order: all of it exists, and together it is short."""
    named = re.search(
        r"Read it in this order: (.*?)\.\n", (ROOT / "README.md").read_text("utf-8"), re.S
    )[1]
    files = [PACKAGE / name for name in re.findall(r"`([\w/]+\.py)`", named)]
    assert (
        len(files) >= 8
        and sum(len(file.read_text("utf-8").splitlines()) for file in files) <= EVENING
    )
