"""The built pages: complete, self-contained, described in words, and alive in a browser."""

import gzip
import json
import math
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urldefrag

import pytest
from bs4 import BeautifulSoup
from conftest import ROOT

from helpers.pipeline.chapters import Book, read_notebook
from helpers.pipeline.site import fetch_scripts, prepare

pytestmark = pytest.mark.site
BOOK, SITE = Book(ROOT), ROOT / "build/site"
PAGES = [page.with_suffix(".html").as_posix() for page in BOOK.pages]
PREFIXES = ["", "/under/a/prefix"]  # as on a domain of its own, and as on GitHub Pages
WEIGHT = 1_000_000  # bytes, gzip: what a page loads before the reader scrolls; pictures, its content, are not counted
LABS = [  # (page, name), one for each `Lab("name", ...)` of the chapters
    (chapter.with_suffix(".html").as_posix(), name)
    for chapter in BOOK.chapters
    for cell in read_notebook(ROOT / chapter).cells
    for name in re.findall(r'^Lab\(\s*"([^"]+)"', cell.source if cell.cell_type == "code" else "", re.M)
]
LAB_WEIGHT = 60_000  # bytes, gzip: what a lab adds to its page before the first press
SHOTS = ROOT / "build/screenshots"
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


def serious_faults(tab, theme):
    tab.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    tab.add_script_tag(path=fetch_scripts(BOOK) / "axe-core/axe.min.js")
    violations = tab.evaluate("async () => (await axe.run()).violations")
    return [
        f"{violation['id']}: {node['html'][:200]} ({node['failureSummary'].splitlines()[-1].strip()})"
        for violation in violations
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
        if not re.search(TOLERATED.get(violation["id"], "(?!)"), node["html"])
    ]


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", PAGES)
def test_page_is_accessible(opened, page, theme):
    serious = serious_faults(opened(page), theme)
    assert not serious, "\n".join(serious)


# The labs -------------------------------------------------------------------------------------------------------------

PRESS, LAB = "Press to run", "polynomial"  # the lab on which the controls and the faults are tried
LAB_PAGE = dict((name, page) for page, name in LABS)[LAB]


def press(tab, name):
    """Presses and waits for samples or a message; returns the lab."""
    lab = tab.locator(f"#lab-{name}")
    lab.scroll_into_view_if_needed()
    lab.get_by_role("button", name=PRESS).click()
    settled(tab, name)
    return lab


def settled(tab, name):
    tab.wait_for_function(
        "name => { const { panel } = document.querySelector(`#lab-${name}`), { status, press } = panel;"
        " return !panel.soon && !press.disabled && (panel.results || status.hasAttribute('data-bad')) }",
        arg=name,
    )


def apart(python, page):
    """Distance of two numbers in units of the larger of 1 and Python's; infinite where only one of them is there."""
    python, page = (math.nan if v is None else v for v in (python, page))
    if math.isnan(python) or math.isnan(page):
        return 0.0 if math.isnan(python) and math.isnan(page) else math.inf
    return abs(python - page) / max(1.0, abs(python))


@pytest.mark.parametrize("prefix", PREFIXES, ids=["root", "prefix"])
@pytest.mark.parametrize("page, name", LABS, ids=[name for _, name in LABS])
def test_lab_shows_the_numbers_of_python(opened, address, soup, page, name, prefix):
    tab, element = opened(page, prefix), str(soup[page].select_one(f"#lab-{name}"))
    script = (SITE / "_static/lab.js").read_bytes()
    assert len(gzip.compress(element.encode())) + len(gzip.compress(script)) < LAB_WEIGHT
    assert [url for url in tab.requested if "/ort/" in url or "/labs/" in url] == [], "loaded before the first press"
    lab = press(tab, name)
    assert lab.locator(".lab-status[data-bad]").count() == 0, lab.locator(".lab-status").inner_text()
    spec = tab.evaluate("name => document.querySelector(`#lab-${name}`).panel.spec", name)
    order = ["distance", "copies", "diverged", "total variation"]
    for side in ("left", "right"):
        shown = lab.locator(f".lab-{side} dd").evaluate_all("list => list.map(dd => dd.dataset.value)")
        for key, text in zip(order, shown, strict=False):
            assert apart(spec["numbers"][side][key], float(text) if text else None) < 1e-4, (side, key)
    if not prefix:
        assert_every_denoiser_samples_as_in_python(tab, name)
    assert [url for url in tab.requested if not url.startswith((f"{address}{prefix}/", "data:", "blob:"))] == []
    assert tab.problems == []


def assert_every_denoiser_samples_as_in_python(tab, name):
    manifest = json.loads((SITE / "_static/labs" / name / "manifest.json").read_text())
    assert manifest["models"]
    for key, entry in manifest["models"].items():
        target, count, family, value = key.split("/")
        state = manifest["check"] | {"target": target, "count": count, "left": [family, value, "Heun"]}
        found = tab.evaluate(
            """async ([name, state]) => {
              const { end, numbers } = await document.querySelector(`#lab-${name}`).sample(state);
              return { ...numbers, end: [...end].map((v) => (Number.isNaN(v) ? null : v)) };
            }""",
            [name, state],
        )
        python = entry["check"]
        gaps = [apart(a, b) for a, b in zip(python["end"], found["end"], strict=False)]
        gaps += [apart(python[k], found[k]) for k in ("distance", "diverged")]
        # A copy is a yes or a no: a particle on the edge may fall to either side in float32.
        assert apart(python["copies"], found["copies"]) <= 2 / int(state["particles"]), (key, python["copies"], found)
        assert max(gaps) < 1e-4, (key, python, {k: found[k] for k in ("distance", "copies", "diverged")})


def test_lab_follows_its_controls_and_its_link(opened):
    tab = opened(f"{LAB_PAGE}?lab={LAB}&target=ring&left=polynomial~5~Heun&seed=7")
    lab = tab.locator(f"#lab-{LAB}")

    def state():
        return tab.evaluate("name => document.querySelector(`#lab-${name}`).panel.state", LAB)

    def numbers():
        return lab.locator("dd").evaluate_all("list => list.map(dd => dd.dataset.value)")

    assert (state()["target"], state()["left"], state()["seed"]) == ("ring", ["polynomial", "5", "Heun"], 7)
    assert lab.locator("svg:visible").count() == 0, "the still picture shows another state"
    press(tab, LAB)
    linked = numbers()
    lab.get_by_label("degree, left panel").press("ArrowLeft")
    settled(tab, LAB)
    assert state()["left"][1] == "4" and numbers() != linked and "left=polynomial%7E4%7EHeun" in tab.url
    tab.reload()
    assert state()["left"][1] == "4"
    press(tab, LAB)
    lab.get_by_role("button", name="Reset").click()
    settled(tab, LAB)
    assert state() == tab.evaluate("name => document.querySelector(`#lab-${name}`).panel.spec.start", LAB)
    assert "?" not in tab.url
    lab.locator(".lab-left canvas").click()
    number = lab.get_by_label("particle number")
    assert number.input_value() and f"Particle {number.input_value()}," in lab.locator(".lab-detail").inner_text()
    slider = lab.get_by_label("step of the sampler")
    slider.press("Home")
    assert "step 0 of" in lab.locator("output").inner_text()
    play = lab.get_by_role("button", name="Play")
    play.press("Enter")
    lab.get_by_role("button", name="Pause").press("Enter")
    assert play.is_visible()
    tab.wait_for_function("name => document.querySelector(`#lab-${name}`).panel.playing === 0", arg=LAB)
    assert tab.problems == []


def test_lab_refuses_a_link_to_what_it_does_not_have(opened):
    tab = opened(f"{LAB_PAGE}?lab={LAB}&target=banana&left=polynomial~99~Heun&seed=-1")
    message = tab.locator(f"#lab-{LAB} .lab-status").inner_text()
    assert all(word in message for word in ("banana", "99", "-1"))
    lab = press(tab, LAB)
    assert lab.locator(".lab-status[data-bad]").count() == 0


FAULTS = {
    "missing": ("**/*.onnx*", {"status": 404}, "404"),
    "damaged": ("**/*.onnx*", {"body": b"not a model"}, "no denoiser that runs here"),
    "no manifest": ("**/manifest.json*", {"status": 404}, "manifest.json"),
    "no runtime": ("**/*.wasm.gz", {"status": 500}, "500"),
    "no WebAssembly": ("**/lab.js*", {"prefix": "delete globalThis.WebAssembly;\n"}, "WebAssembly"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_lab_says_what_is_wrong_and_goes_on(opened, fault):
    pattern, answer, words = FAULTS[fault]
    tab = opened(PAGES[0])

    def fulfil(route):
        if "prefix" in answer:
            route.fulfill(response=(found := route.fetch()), body=answer["prefix"] + found.text())
        else:
            route.fulfill(**answer)

    tab.context.route(pattern, fulfil)
    opened(LAB_PAGE)
    lab = press(tab, LAB)
    assert words in lab.locator(".lab-status[data-bad]").inner_text()
    assert tab.locator("article h1").first.is_visible() and lab.get_by_role("button", name=PRESS).is_enabled()
    tab.context.unroute(pattern)
    if "prefix" not in answer:  # what was missing is there now: the same button works
        press(tab, LAB)
        assert lab.locator(".lab-status[data-bad]").count() == 0


def test_lab_tells_how_many_particles_diverged(opened):
    tab = opened(f"{LAB_PAGE}?lab={LAB}&target=ring&count=64&left=polynomial~4~Heun&steps=5")
    lab = press(tab, LAB)
    lost = int(lab.locator(".lab-left dd").nth(2).get_attribute("data-value"))
    assert lost > 0, "an even degree loses particles"
    assert f"{lost} of" in lab.locator(".lab-status").inner_text()


def test_lab_without_javascript_is_a_picture_with_words(browser, address):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{address}/{LAB_PAGE}")
    lab = plain.locator(f"#lab-{LAB}")
    assert PRESS in lab.inner_text() and "needs JavaScript" in lab.inner_text()
    assert lab.locator("svg").count() == 3 and lab.locator("svg").first.is_visible()
    context.close()


@pytest.mark.parametrize("page, name", LABS, ids=[name for _, name in LABS])
def test_lab_is_accessible_and_fits_a_phone(opened, page, name):
    tab = opened(page)
    lab = press(tab, name)
    SHOTS.mkdir(parents=True, exist_ok=True)
    for theme in ("light", "dark"):
        serious = serious_faults(tab, theme)
        assert not serious, "\n".join(serious)
        lab.screenshot(path=SHOTS / f"{name}-{theme}.png")
    tab.set_viewport_size({"width": 390, "height": 844})
    right = lab.evaluate("lab => Math.max(...[...lab.querySelectorAll('*')].map(e => e.getBoundingClientRect().right))")
    assert right <= 390
    lab.screenshot(path=SHOTS / f"{name}-narrow.png")
