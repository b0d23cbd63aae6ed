"""The stage: a lab under each chapter's question, links in the text that set it, and what it does
in a browser."""

import base64
import gzip
import io
import json
import re
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from PIL import Image
from press_fixtures import BOOK, PAGES, serious_faults

from helpers import metrics, plots
from helpers.lab.page import DIRECTIONS
from press.chapters import read_notebook
from press.stage import staged
from press.still import NARROW, WIDE, still, stilled

pytestmark = pytest.mark.site
CHAPTERS = [c.with_suffix(".html").as_posix() for c in BOOK.chapters if "/part" in c.as_posix()]
PLANE = "book/part1_plane/04_polynomial.html"
BOX = re.compile(r"^(:{3,})\{prf:(?:theorem|proposition|lemma|corollary)\}", re.M)


def test_a_lab_moves_under_the_question_and_leaves_a_word():
    page = "<h1>Title</h1><p>Badges</p><p><strong>Why?</strong></p><h2>One</h2>{}<p>after</p>"
    lab = '<denoise-lab id="lab-a"><p>x</p></denoise-lab>'
    found = staged(page.format(lab))
    assert found.index("Why?") < found.index(lab) < found.index("<h2>") < found.index("stage-place")
    assert found.count(lab) == 1
    figure = '<figure class="plotly-lab">y</figure>'
    cell = f'<div class="cell tag_stage docutils">{figure}</div>'
    both = staged(page.format(cell + lab))  # a tag decides
    assert both.index(figure) < both.index("<h2>") < both.index(lab)
    # a page that begins with its lab keeps it, and one without is as it was
    opens = f"<h1>T</h1><p><em>Why?</em></p><p>text</p>{lab}<h2>One</h2>"
    assert "stage-place" not in staged(opens) and "text" in staged(opens).split("stage")[0]
    assert staged(page.format("")) == page.format("")


def test_a_figure_with_a_slider_has_a_still_of_its_start():
    """Of the frame it starts with: another one is another picture."""
    ramp = [[0.0, 1.0]] * 2  # dark on the left
    traces = [
        [
            {
                "type": "heatmap",
                "z": z,
                "zmin": 0,
                "zmax": 1,
                "showscale": False,
                "colorscale": [[0, "#000"], [1, "#f00"]],
            }
        ]
        for z in (ramp, [row[::-1] for row in ramp])
    ]
    kept = []
    for start in (0, 1):
        figure = plots.Slider(traces, ["a", "b"], "n", "Caption.", "Alt.", start).figure
        layout, packed = figure["layout"], gzip.compress(json.dumps(figure).encode())
        page = (
            '<div aria-label="Alt." class="plotly-target"></div>\n<script type="application/json">'
            f"{base64.b64encode(packed).decode()}</script>"
        )
        html = stilled(page, lambda picture: kept.append(picture) or "there.webp")
        image = BeautifulSoup(html, "html.parser").select_one(".plotly-target > picture > img")
        assert (
            image["alt"] == "Alt."
            and image["src"] == "there.webp"
            and f"{layout['height']}px" in image["style"]
        )
    pixels = [np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")) for picture in kept]
    assert [p.shape[1] for p in pixels] == 2 * [WIDE * 6 // 5, NARROW * 6 // 5]
    red = [p[..., 0] > p[..., 1].astype(int) + 100 for p in pixels]
    sides = [(r[:, : r.shape[1] // 2].sum(), r[:, r.shape[1] // 2 :].sum()) for r in red]
    for far, left, right in ((20, sides[0], sides[2]), (3, sides[1], sides[3])):  # laptop, phone
        assert left[1] > far * left[0] + 1000 and right[0] > far * right[1] + 1000
    assert stilled("<p>no figure</p>", kept.append) == "<p>no figure</p>"


def test_a_still_has_the_lines_and_the_legend_of_its_figure():
    def ink(points, **layout):
        line = plots.line_trace(*points, "a line", "#ff0000")
        figure = plots.Slider([[line]], ["a"], "n", "Caption.", "Alt.", **layout).figure
        opaque = np.asarray(Image.open(io.BytesIO(still(figure))))[..., 3] > 100
        return opaque[:40].sum(), np.flatnonzero(opaque.any(0))[0], opaque.sum()

    rising = [0.0, 1.0], [0.0, 1.0]
    legend, left, whole = ink(rising)
    assert ink(rising, showlegend=False)[0] < legend - 200
    assert min(left, ink(rising, yaxis={"title": "height"})[1]) > 2  # nothing is cut off
    assert ink(([0.0], [0.0]))[2] < whole - 1000
    named = {"type": "heatmap", "z": [[0.0]], "colorscale": "RdBu"}
    with pytest.raises(ValueError, match="RdBu"):
        still(plots.Slider([[named]], ["a"], "n", "Caption.", "Alt.").figure)


@pytest.mark.parametrize("page", CHAPTERS)
def test_every_chapter_opens_with_its_stage(soup, page):
    article = soup[page].find("article")
    stage, first = article.select_one("#stage"), article.find("h2")
    assert stage is not None and stage in first.find_all_previous(id="stage")
    assert stage.select_one("svg, canvas, .plotly-target, img") is not None
    ids = [tag["id"] for tag in article.find_all(id=re.compile("^lab-"))]
    assert len(ids) == len(set(ids))
    assert article.select_one('.stage-place a[href="#stage"]') is not None
    assert soup[page].select_one('#pst-skip-link a[href="#stage"]') is not None


@pytest.mark.parametrize("page", [p for p in CHAPTERS if "/part1" in p or "/part2" in p])
def test_every_theorem_sets_the_stage(soup, page):
    """Each box is followed by a link whose state the lab of the stage has, in all of its parts."""
    stage = soup[page].select_one("#stage [id^=lab-]")
    spec = json.loads(stage.find("script").string)
    chapter = next(c for c in BOOK.chapters if c.with_suffix(".html").as_posix() == page)
    boxes = 0
    for cell in read_notebook(BOOK.root / chapter).cells:
        for box in BOX.finditer(cell.source if cell.cell_type == "markdown" else ""):
            boxes += 1
            rest = cell.source[box.end() :]
            end = re.search(rf"^{box[1]}\s*$", rest, re.M).end()
            text = rest[end:].lstrip().split("\n\n")[0]
            link = re.match(r'\*On the stage:\* <a href="([^"]+)">[^<]+</a>\. \S', text)
            assert link, f"{cell.id}: nothing on the stage after {rest[:60]!r}"
            url = urlsplit(link[1].replace("&amp;", "&"))
            state = {key: value[0] for key, value in parse_qs(url.query).items()}
            assert url.path == page.rsplit("/", 1)[1] and url.fragment == "stage"
            assert state.pop("lab") == spec["name"] and state.keys() <= spec["start"].keys()
            families = {f["name"]: f["values"] for f in spec["families"]}
            for side in ("left", "right"):
                if side in state:
                    name, knob, sampler = state.pop(side).split("~")
                    assert knob in families[name] and sampler in spec["samplers"]
            lists = {"target": "targets", "count": "counts", "particles": "particles"}
            for key, value in state.items():
                schedule = spec["schedules"]
                known = spec[lists[key]] if key in lists else schedule
                steps = schedule[state.get("schedule", spec["start"]["schedule"])]
                assert value in (steps if key == "steps" else known), (cell.id, key, value)
    assert boxes or chapter.stem.startswith("06")


# In a browser -------------------------------------------------------------------------------------


@pytest.fixture
def window(browser, address):
    """Opens a page as a reader with a laptop or a phone, who saves no data."""
    contexts = []

    def go(page, width=1280, height=800):
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        contexts[-1].set_default_timeout(120_000)
        tab = contexts[-1].new_page()
        tab.problems = []
        tab.on("pageerror", lambda error: tab.problems.append(str(error)))
        tab.on("console", lambda m: tab.problems.append(m.text) if m.type == "error" else None)
        tab.goto(f"{address}/{page}", wait_until="load")
        return tab

    yield go
    for context in contexts:
        context.close()


def ran(tab, name="polynomial"):
    tab.wait_for_function(
        "name => { const { panel } = document.querySelector(`#lab-${name}`);"
        " return panel.started && !panel.press.disabled }",
        arg=name,
    )


def test_on_a_laptop_it_begins_by_itself_large_and_on_the_first_screen(window):
    tab = window(PLANE)
    tab.evaluate(
        """() => { window.shift = 0; new PerformanceObserver((list) => {
             for (const one of list.getEntries()) if (!one.hadRecentInput) window.shift += one.value;
           }).observe({ type: "layout-shift", buffered: true }) }"""
    )
    ran(tab)
    for side in ("left", "right"):
        box = tab.locator(f"#stage .lab-{side} canvas").bounding_box()
        assert box["width"] >= 360 and 0 < box["y"] < 500, box
    assert tab.evaluate("window.shift") < 0.05
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 1280
    assert tab.problems == []


def test_on_a_phone_it_waits_and_fits(window):
    tab = window(PLANE, 390, 844)
    tab.wait_for_timeout(1500)
    assert not tab.evaluate("document.querySelector('#lab-polynomial').panel.started")
    press = tab.get_by_role("button", name="Press to run")
    slide = tab.locator("#stage .lab-left input[type=range]").first
    over, under = press.bounding_box(), slide.bounding_box()
    assert over["y"] > under["y"] + under["height"], "the button covers a slider"
    assert tab.locator("#stage .lab-left canvas").bounding_box()["width"] > 330
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 390
    press.click()
    ran(tab)
    assert tab.problems == []


def test_a_link_in_the_text_sets_it_and_the_reader_stays(window):
    tab = window(PLANE)
    ran(tab)
    link = tab.locator('a[href*="left=polynomial~2~Heun"][href*="right=polynomial~3"]').first
    link.scroll_into_view_if_needed()
    tab.locator(".stage-way").wait_for()
    before = link.bounding_box()["y"]
    old = tab.evaluate("document.querySelector('#lab-polynomial').panel.state")
    link.click()
    sheet = tab.locator(".stage-docked")
    sheet.wait_for()
    ran(tab)
    state = tab.evaluate("document.querySelector('#lab-polynomial').panel.state")
    assert state["left"][:2] == ["polynomial", "2"] and state["right"][:2] == ["polynomial", "3"]
    assert abs(link.bounding_box()["y"] - before) < 2 and "right=polynomial" in tab.url
    assert sheet.bounding_box()["height"] < 800
    assert not serious_faults(tab, "light", "#stage") and not serious_faults(tab, "dark", "#stage")
    tab.keyboard.press("Escape")
    assert tab.locator(".stage-docked").count() == 0 and tab.locator(".stage-way").is_visible()
    assert link.evaluate("link => link === document.activeElement")
    assert abs(link.bounding_box()["y"] - before) < 2
    tab.go_back()  # the stage as it was, on the same page
    tab.wait_for_function("before => document.querySelector('#lab-polynomial').panel.state.left"
                          ".join() === before", arg=",".join(old["left"]))  # fmt: skip
    assert PLANE in tab.url and "right=polynomial" not in tab.url
    assert tab.problems == []


def test_one_key_fills_the_window_for_a_lecture(window):
    tab = window(PLANE, 1280, 900)
    ran(tab)
    tab.locator("article h1").click()
    tab.keyboard.press("p")
    sheet = tab.locator(".stage-projected")
    box = sheet.bounding_box()
    assert (box["width"], box["height"]) == (1280, 900)
    size = tab.locator("#stage dd").first.evaluate(
        "dd => parseFloat(getComputedStyle(dd).fontSize)"
    )
    assert size >= 24
    assert not serious_faults(tab, "light", "#stage")
    # what lies under it cannot be reached, and can afterwards
    assert not tab.evaluate("() => { const a = document.querySelector('article p a');"
                            " a.focus(); return document.activeElement === a }")  # fmt: skip
    tab.locator("#stage input[type=number]").first.focus()
    tab.keyboard.press("p")  # a reader who types is not interrupted
    assert tab.locator(".stage-projected").count() == 1
    tab.keyboard.press("Escape")
    assert tab.locator(".stage-projected").count() == 0
    assert tab.locator("[inert]").count() == 0
    assert tab.problems == []


def test_a_guess_is_drawn_before_the_answer_and_measured_against_it(window):
    tab = window(PLANE)
    ran(tab)
    tab.get_by_role("button", name="Predict first").click()
    assert tab.locator("#stage .lab-right dd").count() == 0  # nothing gives the answer away
    canvas = tab.locator("#stage .lab-right canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    extent = tab.evaluate("document.querySelector('#lab-polynomial').panel.spec.extent")
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tab.mouse.down()
    tab.mouse.up()
    # the answer waits, whatever else is chosen meanwhile
    left = tab.locator("#stage select[aria-label='architecture, left panel']")
    left.select_option("posterior mean")
    tab.wait_for_timeout(400)
    assert tab.evaluate("document.querySelector('#lab-polynomial').panel.sketch.open")
    tab.get_by_role("button", name="Show the answer").click()
    row = tab.locator("#stage .lab-right dt", has_text="your guess")
    row.wait_for()
    assert tab.locator("#stage .lab-left dt", has_text="your guess").count() == 0
    shown = float(row.evaluate("dt => dt.nextSibling.dataset.value"))
    points = "document.querySelector('#lab-polynomial').panel.sketch.points.right"
    ((x, y),) = tab.evaluate(points)
    assert abs(x) < 0.02 * extent and abs(y) < 0.02 * extent
    ends = tab.evaluate("""() => { const { panel } = document.querySelector('#lab-polynomial');
        return [...panel.results.right.frames.slice(-2 * panel.shown.particles)] }""")
    ends = torch.tensor(ends, dtype=torch.float64).view(-1, 2)
    ends = ends[ends.abs().amax(1) <= extent]
    guess = torch.tensor([[x, y]], dtype=torch.float64)
    assert shown == pytest.approx(metrics.sliced_w2(ends, guess, projections=DIRECTIONS), rel=1e-4)
    assert not serious_faults(tab, "light", "#stage")
    left.select_option("polynomial")  # another question
    ran(tab)
    tab.wait_for_function(
        "() => !document.querySelector('#stage').innerText.includes('your guess')"
    )
    assert tab.evaluate(points) == []
    assert tab.problems == []


def test_a_link_sets_the_map_and_a_cell_of_it_runs(window):
    tab = window("book/part3_images/13_ablations.html")
    said = tab.locator("#lab-creativity .atlas [role=status]")
    assert said.inner_text().startswith("three poolings, 10 clothes")
    assert not tab.locator("#lab-live").is_visible()
    link = tab.locator("a[href*='row=one+pooling']").first
    link.scroll_into_view_if_needed()
    link.click()
    assert tab.locator(".stage-docked").is_visible()
    assert said.inner_text().startswith("one pooling, 10 clothes")
    shown = tab.locator("#lab-creativity .atlas-samples canvas").first
    assert (
        len(set(shown.evaluate("c => [...c.getContext('2d').getImageData(0, 0, 32, 32).data]")))
        > 20
    )
    tab.get_by_role("button", name="Run this one in the lab").click()
    ran(tab, "live")
    state = tab.evaluate("document.querySelector('#lab-live').panel.state")
    assert state["left"] == ["one pooling", "10", "reverse SDE"]
    assert tab.locator("#lab-live .lab-bar").count() == 2
    assert not serious_faults(tab, "light", "#stage") and not serious_faults(tab, "dark", "#stage")
    assert tab.evaluate("document.scrollingElement.scrollWidth") <= 1280
    assert tab.problems == []


def test_images_are_shown_step_by_step(window):
    tab = window("book/part3_images/10_training.html")
    on_its_way = """() => { const { panel } = document.querySelector('#lab-counts');
        const { canvas } = panel.sides.left;
        if (panel.started || !panel.streamed) return false;
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.width / 4);
        return panel.over.hidden && new Set(data).size > 20 }"""
    tab.wait_for_function(on_its_way)
    ran(tab, "counts")
    assert tab.locator("#stage .lab-bar").count() == 2
    assert tab.problems == []


def test_the_first_page_trains_what_the_reader_draws(window):
    tab = window("book/intro.html")
    done = (
        "() => { const { panel } = document.querySelector('#lab-hero');"
        " return panel.names.every((n) => panel.sides[n].step > 0 && panel.sides[n].found) }"
    )
    tab.wait_for_function(done)
    names = tab.evaluate("document.querySelector('#lab-hero').panel.names")
    assert len(names) == 6 and tab.locator("#stage canvas:visible").count() == 6
    tab.locator("#stage select").first.select_option("your own")
    canvas = tab.locator("#stage canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    tab.mouse.move(box["x"] + 60, box["y"] + 60)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 200, box["y"] + 90, steps=12)
    tab.mouse.up()
    tab.wait_for_function(done)
    assert tab.evaluate("document.querySelector('#lab-hero').panel.state.points.length") >= 8
    assert not serious_faults(tab, "light", "#stage") and not serious_faults(tab, "dark", "#stage")
    assert tab.problems == []


def test_all_pages_with_a_stage_have_one(soup):
    assert [page for page in PAGES if len(soup[page].select("#stage")) > 1] == []
