"""The chapters' first code cell: on Colab installs the package from the badge's revision, elsewhere
does nothing."""

import json
import sys
import threading
import types
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import nbformat
import pytest
from conftest import ROOT
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

from press.colab import SETUP

CHAPTERS = sorted(
    p for p in (ROOT / "book").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts
)


def setup_cell(path):
    cells = nbformat.read(path, 4).cells
    return next((c for c in cells if c.get("id") == "setup"), None)


@pytest.fixture(scope="module")
def source():
    """As Colab opens it."""
    return setup_cell(ROOT / "colab" / CHAPTERS[0].name).source


@pytest.mark.parametrize("path", CHAPTERS, ids=lambda p: p.stem)
def test_every_chapter_begins_with_the_same_cell(path, source):
    cell = setup_cell(path)
    assert cell is not None and source == SETUP + cell.source
    assert "remove-cell" in cell.metadata.tags
    assert next(c for c in nbformat.read(path, 4).cells if c.cell_type == "code").id == "setup"


@pytest.fixture
def shell():
    """An IPython of its own, whose %pip keeps what it is asked for."""
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    shell.asked = []
    shell.register_magic_function(shell.asked.append, "line", "pip")
    yield shell
    shell.restore_sys_module_state()


@pytest.fixture
def colab(monkeypatch):
    """Looks like Colab: its module, its two variables, and a server that says which notebook is
    open."""
    answer = {}

    class Sessions(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/sessions" else 404)
            self.end_headers()
            self.wfile.write(json.dumps([answer]).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sessions)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setenv("COLAB_JUPYTER_IP", "127.0.0.1")
    monkeypatch.setenv("KMP_TARGET_PORT", str(server.server_port))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield answer
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("opened", "asked"),
    [
        (
            "https%3A//github.com/owner/name/blob/v1/colab/x.ipynb",
            "https://github.com/owner/name@v1",
        ),
        (
            "https://github.com/a/b/blob/0123abc/colab/01.ipynb",
            "https://github.com/a/b@0123abc",
        ),
    ],
)
def test_on_colab_it_installs_what_was_opened(source, shell, colab, opened, asked):
    colab["path"] = f"fileId={opened}"
    shell.run_cell(source).raise_error()
    assert [line.split() for line in shell.asked] == [["install", "-q", f'"git+{asked}"']]


@pytest.mark.parametrize(
    "path", ["fileId=1AbCdEf", "Untitled.ipynb", "fileId=https%3A//example.org/x.ipynb"]
)
def test_on_colab_without_the_badge_it_says_what_to_do(source, shell, colab, path, capsys):
    colab["path"] = path
    with pytest.warns(UserWarning, match="To exit"):  # IPython's word on SystemExit
        result = shell.run_cell(source)
    assert isinstance(result.error_in_exec, SystemExit)
    assert (
        str(result.error_in_exec)
        == "Open this notebook with its Colab badge, so that it knows where its package is."
    )
    assert shell.asked == []


def test_elsewhere_it_does_nothing(source, shell, monkeypatch):
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    shell.run_cell(source).raise_error()
    assert shell.asked == [] and "requests" not in shell.user_ns
