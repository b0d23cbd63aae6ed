"""What a chapter depends on: all that may change its outputs, and little else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from press.chapters import Book
from press.reach import digest, reached

PACKAGE = {
    "__init__": "",
    "plots": "import matplotlib\nmatplotlib.rcParams['font.size'] = 9\n",
    "shapes/__init__": "from . import flat\nfrom .ring import Ring, ring\nsides = 3\ndef __getattr__(n): ...\n",
    "shapes/ring": "from ..tools import *\nclass Ring: ...\ndef ring(): return tool()\n",
    "shapes/flat": "def f():\n    from helpers.deep.well import water as w\n    return w\n",
    "deep/__init__": "from .well import *\n",
    "deep/well": "water = 1\n",
    "tools": "from helpers import shapes\nfrom . import deep\ndef tool(): ...\n",
}
REACHED = {
    "import numpy": "",
    "from helpers.shapes import Ring": "",  # what nothing uses decides nothing
    "from helpers.shapes import Ring as R\nR()": "shapes/ring tools",
    "from helpers.shapes import ring\nring()": "shapes/ring tools",
    "from helpers import shapes as s\ns.flat.f()": "shapes/flat deep/well",
    "import helpers.shapes\nhelpers.shapes.flat.f()": "shapes/flat deep/well",
    "import helpers.shapes as s\ns.sides": "shapes/__init__",
    "from helpers.shapes import sides\nsides": "shapes/__init__",
    "from helpers import shapes\nshapes.other": "shapes/__init__",  # of its __getattr__
    "from helpers import shapes\ngetattr(shapes, 'Ring')": "shapes/__init__ shapes/ring shapes/flat tools deep/well",
    "from helpers import shapes\nshapes.__dict__": "shapes/__init__ shapes/ring shapes/flat tools deep/well",
    "from helpers.deep import *\nwater": "deep/__init__ deep/well",
    "from helpers.deep import water\nwater": "deep/__init__ deep/well",
    "from helpers import tools\ntools.shapes.flat": "tools shapes/flat deep/well",
    "from helpers.tools import *\nshapes.flat": "tools shapes/flat deep/well",
    "from helpers.shapes import Ring\n%timeit Ring()": "shapes/ring tools",
    "from helpers.shapes import Ring\nprint(f'{Ring()!r}')": "shapes/ring tools",
}


@pytest.fixture
def package(scratch):
    for name, code in PACKAGE.items():
        (scratch.root / f"src/helpers/{name}.py").parent.mkdir(exist_ok=True)
        (scratch.root / f"src/helpers/{name}.py").write_text(code)
    return scratch


@pytest.mark.parametrize("code", REACHED)
def test_names_are_followed_to_the_files_that_define_them(package, code):
    package.chapter("01_plain", code)
    found = Book(package.root).dependencies(Path("book/01_plain.ipynb"), "quick")
    modules = {name[8:-3] for name in found if name.startswith("helpers/")}
    # what acts when it is imported counts wherever any is
    acting = {"plots"} if "numpy" not in code else set()
    assert modules == acting | set(REACHED[code].split())


def test_data_counts_where_the_last_run_opened_it(scratch):
    """Whatever computes the name, and of the manifest only the cards of what was opened, unless a
    chapter shows it."""
    (scratch.root / "models").mkdir()
    models, recorded = scratch.root / "models", scratch.root / "src/helpers/recorded"
    recorded.mkdir()
    cards = {"net-1": {"n": 1}, "net-2": {"n": 2}}
    for name in cards:
        (models / f"{name}.safetensors").write_text(name)
    for file in (
        recorded / "found.json",
        recorded / "other.json",
        scratch.root / "src/helpers/loop.c",
    ):
        file.write_text("{}")
    manifest = models / "manifest.json"
    manifest.write_text(json.dumps(cards))
    code = "from pathlib import Path\nimport helpers\nroot = Path(helpers.__file__).parents[2]"
    (scratch.root / "src/helpers/toy.py").write_text(
        f"{code}\ndef read(name):\n    return open(root / name).read()"
    )
    load = "for n in [1]:\n    toy.read('models/MANIFEST.json'.lower()), toy.read(f'models/net-{n}.safetensors')"
    scratch.chapter("01_net", "from helpers import toy", load)
    scratch.chapter(
        "02_all", "from helpers import toy", "print(len(toy.read('models/manifest.json')))"
    )
    scratch.chapter(
        "03_record", "from helpers import toy", "toy.read('src/helpers/recorded/found.json')"
    )
    names = ("01_net", "02_all", "03_record")

    def why():
        return [
            Book(scratch.root).why_run(scratch.path(name).relative_to(scratch.root))
            for name in names
        ]

    assert scratch("execute").returncode == 0
    assert why() == ["", "", ""]
    for file in (
        models / "net-2.safetensors",
        recorded / "other.json",
        scratch.root / "src/helpers/loop.c",
    ):
        file.write_text("another")
    assert why() == ["", "", ""]
    manifest.write_text(json.dumps({"net-1": {"n": 1}, "net-2": {"n": 9}}))
    assert why() == ["", "models/manifest.json changed", ""]
    manifest.write_text(json.dumps({**cards, "net-1": {"n": 9}}))
    (recorded / "found.json").write_text("[]")
    changed = (
        "models/net-1.safetensors changed",
        "models/manifest.json changed",
        "helpers/recorded/found.json changed",
    )
    assert why() == list(changed)


@pytest.fixture(scope="module")
def leads():
    """Of each chapter of the book, the modules on which it depends."""
    book = Book(ROOT)
    found = {chapter.stem: book.dependencies(chapter, "quick") for chapter in book.chapters}
    return {
        stem: {ROOT / "src" / n for n in names if n.endswith(".py")}
        for stem, names in found.items()
    }


def test_an_edit_makes_few_chapters_stale(leads):
    modules = list((ROOT / "src/helpers").rglob("*.py"))
    stale = {module: sum(module in files for files in leads.values()) for module in modules}
    assert 1 <= stale[ROOT / "src/helpers/denoisers/two_images.py"] <= 2
    assert all(
        stale[ROOT / f"src/helpers/{name}.py"] <= 3 for name in ("lab/voters", "kernels/local")
    )
    assert sum(stale.values()) / len(modules) <= 9
    for module in modules:
        code = module.read_bytes()
        remark = b'"""Another text."""\n# and a comment\n'
        assert digest(remark + code.partition(b'"""')[2].partition(b'"""')[2]) == digest(code), (
            module
        )
        assert digest(code + b"\nx = 1") != digest(code)


def test_only_the_models_themselves_read_cards_for_others():
    """`dependencies` looks for the word, and for the map's, in chapters only. A workbench does when
    it saves a network, which no chapter does."""
    asking = [
        m.name for m in (ROOT / "src/helpers").rglob("*.py") if "manifest()" in m.read_text("utf-8")
    ]
    assert sorted(asking) == ["atlas.py", "campaign.py", "cards.py", "models.py", "workbench.py"]


REAL = """
import torch
from helpers import data, jacobian, models, recorded, sampling
from helpers import denoisers as d
points = data.moons().sample(20)
for denoiser in (d.PosteriorMean(points), d.Polynomial(points, degree=3), d.LinearDenoiser.from_points(points)):
    sampling.last(sampling.heun(denoiser, sampling.initial_noise(5, 2, sigma=9.0), sampling.edm(3)))
jacobian.Jacobian(models.load("ray"), data.load("disks", n=1, size=40).images, 0.1)
recorded.load("kernels"), data.fashion_mnist(3)
"""
TRACED = """
import sys
ran = set()
def note(frame, event, argument):
    module = frame.f_code.co_filename
    while frame and event == "call" and "/helpers/" in module:
        if frame.f_code.co_name == "<module>" and "/helpers/" in frame.f_code.co_filename:
            return  # what a module does while it is imported is known from its text
        frame = frame.f_back
    if event == "call" and "/helpers/" in module:
        ran.add(module)
sys.setprofile(note)
"""


def test_all_that_runs_was_foreseen():
    """Every module of which a function ran is among those that names lead to."""
    code = f"{TRACED}{REAL}sys.setprofile(None)\nprint(*ran, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    ran = {Path(line) for line in done.stdout.splitlines()}
    assert len(ran) > 15, done.stderr
    assert not ran - reached(REAL, ROOT / "src")
