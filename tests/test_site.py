"""The built pages: complete, self-contained, described in words, and alive in a browser."""

import gzip
import os
import re
import shutil
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest
from bs4 import BeautifulSoup
from conftest import ROOT

from helpers.pipeline.chapters import Book
from helpers.pipeline.site import fetch_scripts, prepare

pytestmark = pytest.mark.site
BOOK, SITE = Book(ROOT), ROOT / "build/site"
PAGES = [page.with_suffix(".html").as_posix() for page in BOOK.pages]
PREFIXES = ["", "/under/a/prefix"]  # as on a domain of its own, and as on GitHub Pages
WEIGHT = 1_000_000  # bytes, gzip: what a page loads before the reader scrolls; pictures, its content, are not counted
FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking
--disable-component-update --disable-sync""".split()
TEX = re.compile(r"\$\$|\\(begin|end|frac|sigma|hat|mathbb|mathbf|operatorname|left|label|eqref)\b")


@pytest.fixture(scope="session", autouse=True)
def fresh_site():
    stamp, state = SITE / "built", ""
    try:
        state = prepare(BOOK)[1]
    except ValueError as error:
        pytest.fail(str(error), pytrace=False)
    if not stamp.is_file() or stamp.read_text() != state:
        pytest.fail("no site of this state of the book: run `python -m helpers.pipeline build`", pytrace=False)


@pytest.fixture(scope="session")
def soup(fresh_site):
    return {page: BeautifulSoup((SITE / page).read_text(encoding="utf-8"), "html.parser") for page in PAGES}


def test_every_page_of_the_contents_is_there(fresh_site):
    assert [page for page in ["index.html", *PAGES] if not (SITE / page).is_file()] == []


@pytest.mark.parametrize("page", PAGES)
def test_no_page_loads_anything_from_elsewhere(soup, page):
    loads = [tag.get("src") for tag in soup[page].find_all(src=True)]
    loads += [tag["href"] for tag in soup[page].find_all("link", href=True)]
    assert [url for url in loads if re.match(r"(https?:)?//", url)] == []


def test_no_style_loads_anything_from_elsewhere(fresh_site):
    styles = {file.name: file.read_text(encoding="utf-8") for file in (SITE / "_static").rglob("*.css")}
    outside = re.compile(r"(url\(\s*['\"]?|@import\s+['\"])(https?:)?//")
    assert [name for name, text in styles.items() if outside.search(text)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_described_and_captioned(soup, page):
    article = soup[page].find("article") or soup[page]
    for image in article.find_all("img"):
        alt = image.get("alt", "").strip()
        assert alt and alt != image["src"] and not re.search(r"\.(png|svg|jpe?g)$|_images/", alt), image
    for image in article.select(".cell_output img"):
        assert image.find_parent("figure") and image.find_parent("figure").find("figcaption"), image
    for figure in article.select("figure.plotly-lab"):
        assert figure.select_one("[aria-label]")["aria-label"].strip() and figure.find("figcaption").text.strip()


@pytest.mark.parametrize("page", PAGES)
def test_no_tex_is_left_in_the_text(soup, page):
    article = BeautifulSoup(str(soup[page].find("article")), "html.parser")
    for tag in article.select("pre, code, script, style, .math"):
        tag.decompose()
    assert [text for text in article.find_all(string=TEX)] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_internal_link_leads_somewhere(soup, page):
    broken = []
    for link in soup[page].find_all("a", href=True):
        path, anchor = urldefrag(unquote(link["href"]))
        if re.match(r"[a-z]+:|//", path):
            continue
        target = (SITE / page).parent / path if path else SITE / page
        inside = target.resolve().is_relative_to(SITE.resolve()) and target.is_file()
        name = target.resolve().relative_to(SITE.resolve()).as_posix() if inside else ""
        known = not anchor or name not in soup or soup[name].find(id=anchor) or soup[name].find(attrs={"name": anchor})
        if not inside or not known:
            broken.append(link["href"])
    assert broken == []


# In a browser ---------------------------------------------------------------------------------------------------------


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


@pytest.fixture
def opened(browser, address, request):
    """Opens a page with a fresh profile, waits for its mathematics, and reports all that it asked for."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(120_000)  # a loaded machine is slow, not wrong; what never comes must fail all the same
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
        tab.evaluate("async () => { if (window.MathJax) await MathJax.startup.promise; await document.fonts.ready }")
        return tab

    yield go
    context.close()


@pytest.mark.parametrize("prefix", PREFIXES, ids=["root", "prefix"])
@pytest.mark.parametrize("page", PAGES)
def test_page_in_a_browser(opened, address, page, prefix):
    tab = opened(page, prefix)
    loaded = [response for response in list(tab.received) if response.request.resource_type != "image"]
    weight = sum(len(gzip.compress(response.body())) for response in loaded)
    formulas, typeset = tab.locator(".math:not(.nohighlight .math)").count(), tab.locator("mjx-container").count()
    assert typeset >= formulas, f"{formulas} formulas, {typeset} typeset"
    assert tab.locator("mjx-merror, [data-mjx-error]").count() == 0
    assert tab.locator("mjx-assistive-mml").count() == typeset, "a formula that a screen reader cannot read"

    for lab in tab.locator(".plotly-lab").all():
        lab.scroll_into_view_if_needed()
        lab.locator(".main-svg").first.wait_for()
        rail = lab.locator(".slider-rail-touch-rect")
        if rail.count():
            traces = lab.locator(".cartesianlayer").first
            before, box = traces.inner_html(), rail.first.bounding_box()
            moved = lab.locator(".plotly-target").evaluate("target => target.layout.sliders[0].active > 0")
            rail.first.click(position={"x": 2 if moved else box["width"] - 2, "y": box["height"] / 2}, force=True)
            tab.wait_for_timeout(500)
            assert traces.inner_html() != before, "the slider moves nothing"
    for image in tab.locator("article img").all():
        image.scroll_into_view_if_needed()
        assert image.evaluate("async i => { await i.decode(); return i.naturalWidth }") > 0

    assert [url for url in tab.requested if not url.startswith((f"{address}{prefix}/", "data:", "blob:"))] == []
    assert tab.problems == []
    assert weight < WEIGHT, f"{page} loads {weight} bytes"


# Faults of the theme, not of a page: rule -> the only elements in which it is tolerated.
TOLERATED: dict[str, str] = {
    "label-content-name-mismatch": "search-button",  # reads "Search", shows "Search Ctrl+K"
    "aria-required-children": "citation-list",  # docutils marks a bibliography's entries as such, not as list items
}


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_page_is_accessible(opened, page, theme):
    tab = opened(page)
    tab.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    tab.add_script_tag(path=fetch_scripts(BOOK) / "axe-core/axe.min.js")
    violations = tab.evaluate("async () => (await axe.run()).violations")
    serious = [
        f"{violation['id']}: {node['html'][:200]} ({node['failureSummary'].splitlines()[-1].strip()})"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
        if not re.search(TOLERATED.get(violation["id"], "(?!)"), node["html"])
    ]
    assert not serious, "\n".join(serious)
