"""A scratch book: the real press on chapters of a few lines; a browser; and the built pages."""

import os
import re
import shutil
import subprocess
import sys
import threading
from contextlib import chdir
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from filelock import FileLock
from rich.console import Console
from typer.testing import CliRunner

from helpers.lab.scripts import STATIC, joined
from press.__main__ import app
from press.chapters import Book
from press.pdf import FLAGS, chromium
from press.site import build, fetch_scripts, prepare

ROOT = Path(__file__).resolve().parents[1]


class Scratch:
    """A book of tiny chapters beside its own `helpers`, driven through the command line like the
    real one."""

    def __init__(self, root: Path):
        self.root, self.chapters = root, []
        package, unwanted = root / "src" / "helpers", shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src/press", root / "src/press", ignore=unwanted)
        (package / "experiments").mkdir(parents=True)
        for name in ("files.py", "experiments/__init__.py", "experiments/console.py"):
            shutil.copy(ROOT / "src/helpers" / name, package / name)
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
        """Writes a chapter: title, parameters, then the given code cells, with ids that do not
        change."""
        new = nbformat.v4
        parameters = new.new_code_cell(
            'profile = "quick"', id="parameters", metadata={"tags": ["parameters"]}
        )
        cells = [new.new_markdown_cell(f"# {name}", id="title"), parameters]
        cells += [new.new_code_cell(source, id=f"code-{i}") for i, source in enumerate(code)]
        nbformat.write(new.new_notebook(cells=cells), self.path(name))
        self.chapters += [] if name in self.chapters else [name]
        first, *others = [f"book/{chapter}" for chapter in self.chapters]
        toc = [
            "format: jb-book",
            f"root: {first}",
            "chapters:" if others else "",
            *(f"- file: {c}" for c in others),
        ]
        (self.root / "_toc.yml").write_text("\n".join(toc))

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.root / "src"), "COLUMNS": "300"}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of the press, in this process, which saves the start of another."""
        with chdir(self.root):
            done = CliRunner().invoke(app, arguments, env=self.environment())
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)

    def apart(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The same in a process of its own, with the words of those that it starts."""
        command = [sys.executable, "-m", "press", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.environment(), capture_output=True, text=True
        )


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    return Scratch(tmp_path.resolve())


@pytest.fixture(scope="session")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        executable = chromium(playwright)
        if executable is None:
            pytest.skip(
                "no Chromium in $CHROMIUM, on the PATH or of playwright's own: pages not opened in a browser"
            )
        browser = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """A window of 390 px that keeps the errors of its page."""
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.problems = []
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))
    yield tab
    tab.close()


def show_panel(tab, panel, ready):
    """A panel by itself, allowed to load nothing; waits until there is an element `ready`."""
    policy = (
        "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; img-src data:;"
    )
    # no eval, and nothing from anywhere
    policy += " style-src 'unsafe-inline'; script-src 'unsafe-inline'\">"
    tab.set_content(f"<!doctype html><html lang=en><head>{policy}</head>{panel.html()}</html>")
    tab.add_style_tag(content=(STATIC / "lab.css").read_text("utf-8"))
    tab.add_script_tag(content=joined(), type="module")
    tab.wait_for_selector(ready)


# The built site -----------------------------------------------------------------------------------

BOOK, SITE = Book(ROOT), ROOT / "build/site"
PAGES = [page.with_suffix(".html").as_posix() for page in BOOK.pages]
PREFIXES = ["", "/under/a/prefix"]  # as on a domain of its own, and as on GitHub Pages


@pytest.fixture(scope="session")
def fresh_site(request):
    """The site of this state of the book. `make test` has it built here, on one core, while other
    tests have the others."""
    stamp, made = SITE / "built", request.config.getoption("replay", None)
    try:
        with FileLock(ROOT / "build/prepare.lock"):  # workers begin together
            state = prepare(BOOK)[1]
            if made and not (stamp.is_file() and stamp.read_text() == state):
                build(BOOK, "quick", Console(quiet=True))
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)
    if not stamp.is_file() or stamp.read_text() != state:
        pytest.fail(
            "no site of this state of the book: run `python -m press build`",
            pytrace=False,
        )


@pytest.fixture(scope="session")
def soup(fresh_site):
    return {
        page: BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser")
        for page in PAGES
    }


class Quiet(SimpleHTTPRequestHandler):
    """The site at the root and under every prefix."""

    def translate_path(self, path):
        for prefix in filter(None, PREFIXES):
            path = path.removeprefix(prefix)
        return super().translate_path(path)

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def address(fresh_site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


SAVES_DATA = "Object.defineProperty(navigator, 'connection', { value: { saveData: true } })"


@pytest.fixture
def opened(browser, address, request):
    """Opens a page with a fresh profile, waits for its mathematics, and reports all that it asked
    for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    # a reader who saves data: nothing begins by itself, and what a page loads unasked can be counted
    context.add_init_script(SAVES_DATA)
    # a loaded machine is slow, not wrong; what never comes must fail all the same
    context.set_default_timeout(120_000)
    tab = context.new_page()
    tab.requested, tab.problems, tab.received = [], [], []

    def received(response):
        if response.status >= 400:
            tab.problems.append(f"{response.status} {response.url}")
        elif response.url.startswith("http"):
            tab.received.append(response)

    tab.on("request", lambda r: tab.requested.append(r.url))
    tab.on("requestfailed", lambda r: tab.problems.append(f"failed: {r.url}"))
    tab.on("response", received)
    tab.on("console", lambda m: tab.problems.append(m.text) if m.type == "error" else None)
    tab.on("pageerror", lambda error: tab.problems.append(str(error)))

    def go(page, prefix=""):
        tab.goto(f"{address}{prefix}/{page}", wait_until="load")
        tab.evaluate(
            "async () => { if (window.MathJax) await MathJax.startup.promise; await document.fonts.ready }"
        )
        return tab

    yield go
    context.close()


# Faults of the theme, not of a page: rule -> the only elements in which it is tolerated.
TOLERATED: dict[str, str] = {
    "label-content-name-mismatch": "search-button",  # reads "Search", shows "Search Ctrl+K"
    # docutils marks a bibliography's entries as such, not as list items
    "aria-required-children": "citation-list",
}


def show_theme(tab, theme):
    tab.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)


def serious_faults(tab, theme, part="html"):
    """What axe finds in a theme, in the elements that the selector `part` names."""
    show_theme(tab, theme)
    # a script tag meets the policy
    tab.evaluate((fetch_scripts(BOOK) / "axe-core/axe.min.js").read_text("utf-8"))
    # of what passes nothing is described, which takes a fifth of the time
    run = "async part => (await axe.run(part, { resultTypes: ['violations'] })).violations"
    violations = tab.evaluate(run, part)
    return [
        f"{violation['id']}: {node['html'][:200]} ({node['failureSummary'].splitlines()[-1].strip()})"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
        if not re.search(TOLERATED.get(violation["id"], "(?!)"), node["html"])
    ]
