"""What tests share: a browser, and a scratch book, the real pipeline on chapters of a few lines."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

if not torch.cuda.is_available():  # before anything imports Triton: its kernels run in its interpreter then
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parents[1]
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()


class Scratch:
    """A book of tiny chapters beside its own `helpers`, driven through the command line like the real one."""

    def __init__(self, root: Path):
        self.root, self.chapters = root, []
        package = root / "src" / "helpers"
        shutil.copytree(
            ROOT / "src/helpers/pipeline", package / "pipeline", ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(ROOT / "src/helpers/files.py", package)
        for name in ("__init__", "inner", "other"):
            (package / f"{name}.py").write_text("")
        (package / "toy.py").write_text("from .inner import *\n")
        for name in ("_config.yml", "requirements.txt"):
            shutil.copy(ROOT / name, root)
        (root / "pytest.ini").write_text("[pytest]\n")
        (root / "book").mkdir()

    def path(self, name: str) -> Path:
        return self.root / "book" / f"{name}.ipynb"

    def executed(self, name: str) -> Path:
        return self.root / "build/run/book" / f"{name}.ipynb"

    def chapter(self, name: str, *code: str) -> None:
        """Writes a chapter: title, parameters, then the given code cells, with ids that do not change."""
        new = nbformat.v4
        parameters = new.new_code_cell('profile = "quick"', id="parameters", metadata={"tags": ["parameters"]})
        cells = [new.new_markdown_cell(f"# {name}", id="title"), parameters]
        cells += [new.new_code_cell(source, id=f"code-{i}") for i, source in enumerate(code)]
        nbformat.write(new.new_notebook(cells=cells), self.path(name))
        self.chapters += [] if name in self.chapters else [name]
        first, *others = [f"book/{chapter}" for chapter in self.chapters]
        toc = ["format: jb-book", f"root: {first}", "chapters:" if others else "", *(f"- file: {c}" for c in others)]
        (self.root / "_toc.yml").write_text("\n".join(toc))

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root / "src"), "COLUMNS": "300"}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "helpers.pipeline", *arguments]
        return subprocess.run(command, cwd=self.root, env=self.environment(), capture_output=True, text=True)


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path.resolve())


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
        found = [os.environ.get("CHROMIUM"), *map(shutil.which, names), playwright.chromium.executable_path]
        executable = next((path for path in found if path and Path(path).is_file()), None)
        if executable is None:
            pytest.skip("no Chromium in $CHROMIUM, on the PATH or of playwright's own: pages not opened in a browser")
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()
