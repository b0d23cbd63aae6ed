"""Sphinx without Jupyter Book makes the same book of the same sources."""

import json
import re
import shutil

import pytest
from conftest import ROOT
from filelock import FileLock
from press_fixtures import BOOK, PAGES, SITE

from press import plain

pytestmark = pytest.mark.site


@pytest.fixture(scope="module")
def built(tmp_path_factory, fresh_site):
    """The book by plain Sphinx, on a machine where Jupyter Book cannot be imported."""
    folder = tmp_path_factory.mktemp("plain")
    (folder / "absent").mkdir()
    (folder / "absent/jupyter_book.py").write_text(
        "raise ImportError('there is no Jupyter Book here')"
    )
    with FileLock(ROOT / "build/prepare.lock"):
        shutil.copytree(
            ROOT / "build/src", folder / "source", ignore=shutil.ignore_patterns("_build")
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "absent"))
        plain.build(BOOK, folder / "source", folder / "site")
    return folder / "site"


def article(site, page):
    return re.search("<article.*</article>", (site / page).read_text(encoding="utf-8"), re.S)[0]


def test_every_page_is_the_one_that_jupyter_book_makes(built):
    assert [page for page in PAGES if article(built, page) != article(SITE, page)] == []


def test_labs_styles_and_search_are_there(built):
    manifests = [path.relative_to(built) for path in built.glob("_static/labs/*/manifest.json")]
    assert manifests and all(
        (SITE / path).read_bytes() == (built / path).read_bytes() for path in manifests
    )
    for path in manifests:
        for entry in json.loads((built / path).read_text())["models"].values():
            assert (built / path).with_name(entry["file"]).is_file()
    assert "bottleneck" in (built / "searchindex.js").read_text(encoding="utf-8")
    assert (built / "_static/mathjax/tex-chtml.js").is_file() and (built / "index.html").is_file()
    assert "Content-Security-Policy" in (built / PAGES[0]).read_text(encoding="utf-8")
