"""The labs on the built pages: the numbers of Python, their controls, their faults, a phone."""

import gzip
import io
import json
import math
import re

import pytest
from conftest import ROOT
from PIL import Image
from press_fixtures import BOOK, PAGES, PREFIXES, SITE, serious_faults, show_theme

from press.chapters import read_notebook

pytestmark = pytest.mark.site
LABS = [  # (page, name), one for each `Lab("name", ...)` of the chapters
    (chapter.with_suffix(".html").as_posix(), name)
    for chapter in BOOK.chapters
    for cell in read_notebook(ROOT / chapter).cells
    for name in re.findall(
        r'^Lab\(\s*"([^"]+)"', cell.source if cell.cell_type == "code" else "", re.M
    )
]
LAB_WEIGHT = 70_000  # bytes, gzip: what a lab adds to its page before the first press, with the scripts of all
FIRST_PRESS = 1_500_000  # bytes that the first press may fetch beside the runtime
SHOTS = ROOT / "build/screenshots"
PRESS, LAB = "Press to run", "polynomial"  # the lab on which the controls and the faults are tried
LAB_PAGE = dict((name, page) for page, name in LABS)[LAB]


def press(tab, name):
    """Presses and waits for samples or a message; returns the lab. What a link asks for begins by
    itself when it is seen, so that the button may be gone a moment later."""
    lab = tab.locator(f"#lab-{name}")
    tab.evaluate("name => document.querySelector(`#lab-${name}`).panel.press.click()", name)
    lab.scroll_into_view_if_needed()
    settled(tab, name)
    return lab


def settled(tab, name):
    tab.wait_for_function(
        "name => { const { panel } = document.querySelector(`#lab-${name}`), { status, press } = panel;"
        " return !panel.soon && !press.disabled && (panel.results || status.hasAttribute('data-bad')) }",
        arg=name,
    )


def apart(python, page):
    """Distance of two numbers in units of the larger of 1 and Python's; infinite where only one of
    them is there."""
    python, page = (math.nan if v is None else v for v in (python, page))
    if math.isnan(python) or math.isnan(page):
        return 0.0 if math.isnan(python) and math.isnan(page) else math.inf
    return abs(python - page) / max(1.0, abs(python))


@pytest.mark.parametrize(
    "page, name, prefix",
    [*((page, name, "") for page, name in LABS), (LAB_PAGE, LAB, PREFIXES[1])],
    ids=[*(name for _, name in LABS), "under a prefix"],
)
def test_lab_shows_the_numbers_of_python(opened, address, soup, page, name, prefix):
    tab, element = opened(page, prefix), str(soup[page].select_one(f"#lab-{name}"))
    script = b"".join((SITE / "_static" / name).read_bytes() for name in ("lab.js", "lab.css"))
    assert len(gzip.compress(element.encode())) + len(gzip.compress(script)) < LAB_WEIGHT
    # but for pictures, of which a map of the page is made
    early = [url for url in tab.requested if "/ort/" in url or "/labs/" in url]
    assert [url for url in early if ".webp" not in url] == [], "loaded before the first press"
    lab = press(tab, name)
    first = [url for url in tab.requested if "/labs/" in url]
    assert lab.locator(".lab-status[data-bad]").count() == 0, lab.locator(
        ".lab-status"
    ).inner_text()
    spec = tab.evaluate("name => document.querySelector(`#lab-${name}`).panel.spec", name)
    order = ["distance", "copies", "diverged", "total variation"]
    for side in ("left", "right"):
        shown = lab.locator(f".lab-{side} dd").evaluate_all(
            "list => list.map(dd => dd.dataset.value)"
        )
        for key, text in zip(order, shown, strict=False):
            assert apart(spec["numbers"][side][key], float(text) if text else None) < 1e-4, (
                side,
                key,
            )
    # what does not depend on the address is tried once, on the lab that is pressed already
    if not prefix:
        assert_every_denoiser_samples_as_in_python(tab, name)
    assert [
        url
        for url in tab.requested
        if not url.startswith((f"{address}{prefix}/", "data:", "blob:"))
    ] == []
    assert tab.problems == []
    # what the first press fetches beside the runtime
    files = [url.partition("/labs/")[2].partition("?")[0] for url in set(first)]
    assert sum((SITE / "_static/labs" / file).stat().st_size for file in files) < FIRST_PRESS
    if not prefix:
        assert_accessible_and_fits_a_phone(tab, lab, name)


def assert_every_denoiser_samples_as_in_python(tab, name):
    check = json.loads((SITE / "_static/labs" / name / "check.json").read_text())
    assert check["found"]
    for key, python in check["found"].items():
        target, count, family, value = key.split("/")
        state = check["state"] | {
            "target": target,
            "count": count,
            "left": [family, value, "Heun"],
        }
        found = tab.evaluate(
            """async ([name, state]) => {
              const { end, numbers } = await document.querySelector(`#lab-${name}`).panel.sample(state, "left");
              return { ...numbers, end: [...end].map((v) => (Number.isNaN(v) ? null : v)) };
            }""",
            [name, state],
        )
        gaps = [apart(a, b) for a, b in zip(python["end"], found["end"], strict=False)]
        gaps += [apart(python[k], found[k]) for k in ("distance", "diverged")]
        # A copy is a yes or a no: a particle on the edge may fall to either side in float32.
        assert apart(python["copies"], found["copies"]) <= 2 / int(state["particles"]), (
            key,
            python["copies"],
            found,
        )
        assert max(gaps) < 1e-4, (
            key,
            python,
            {k: found[k] for k in ("distance", "copies", "diverged")},
        )


def assert_accessible_and_fits_a_phone(tab, lab, name):
    for theme in ("light", "dark"):
        serious = serious_faults(tab, theme, f"#lab-{name}")
        assert not serious, "\n".join(serious)
    tab.set_viewport_size({"width": 390, "height": 844})
    right = lab.evaluate(
        "lab => Math.max(...[...lab.querySelectorAll('*')].map(e => e.getBoundingClientRect().right))"
    )
    assert right <= 390
    # Last, since for a picture of something tall Chromium resizes the window, and the theme answers
    # every resize.
    SHOTS.mkdir(parents=True, exist_ok=True)
    for width, theme in ((390, "dark"), (1280, "dark"), (1280, "light")):
        tab.set_viewport_size({"width": width, "height": 900})
        show_theme(tab, theme)
        lab.screenshot(path=SHOTS / f"{name}-{width}-{theme}.png")


def test_lab_follows_its_controls_and_its_link(opened):
    tab = opened(f"{LAB_PAGE}?lab={LAB}&target=swiss%20roll&left=polynomial~5~Heun&seed=7")
    lab = tab.locator(f"#lab-{LAB}")

    def state():
        return tab.evaluate("name => document.querySelector(`#lab-${name}`).panel.state", LAB)

    def numbers():
        return lab.locator("dd").evaluate_all("list => list.map(dd => dd.dataset.value)")

    assert (state()["target"], state()["left"], state()["seed"]) == (
        "swiss roll",
        ["polynomial", "5", "Heun"],
        7,
    )
    assert lab.locator("svg:visible").count() == 0, "the still picture shows another state"
    press(tab, LAB)
    linked = numbers()
    tab.evaluate(
        """name => {
          const { panel } = document.querySelector(`#lab-${name}`), { sample } = panel;
          panel.asked = [];
          panel.sample = (state, side, working) => {
            panel.asked.push(side);
            return sample.call(panel, state, side, working);
          };
        }""",
        LAB,
    )
    lab.get_by_label("degree, left panel").press("ArrowLeft")
    settled(tab, LAB)
    asked = tab.evaluate("name => document.querySelector(`#lab-${name}`).panel.asked", LAB)
    assert asked == ["left"], "the right side did not change"
    assert (
        state()["left"][1] == "4"
        and numbers() != linked
        and "left=polynomial%7E4%7EHeun" in tab.url
    )
    tab.reload()
    assert state()["left"][1] == "4"
    press(tab, LAB)
    lab.get_by_role("button", name="Reset").click()
    settled(tab, LAB)
    assert state() == tab.evaluate(
        "name => document.querySelector(`#lab-${name}`).panel.spec.start", LAB
    )
    assert "?" not in tab.url
    lab.locator(".lab-left canvas").click()
    number = lab.get_by_label("particle number")
    assert (
        number.input_value()
        and f"Particle {number.input_value()}," in lab.locator(".lab-detail").inner_text()
    )
    slider = lab.get_by_label("step of the sampler")
    slider.press("Home")
    assert "step 0 of" in lab.locator("output").inner_text()
    play = lab.get_by_role("button", name="Play")
    play.press("Enter")
    lab.get_by_role("button", name="Pause").press("Enter")
    assert play.is_visible()
    tab.wait_for_function(
        "name => document.querySelector(`#lab-${name}`).panel.time.playing === 0", arg=LAB
    )
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
    assert (
        tab.locator("article h1").first.is_visible()
        and lab.get_by_role("button", name=PRESS).is_enabled()
    )
    tab.context.unroute(pattern)
    if "prefix" not in answer:  # what was missing is there now: the same button works
        press(tab, LAB)
        assert lab.locator(".lab-status[data-bad]").count() == 0


def test_lab_tells_how_many_particles_diverged(opened):
    tab = opened(
        f"{LAB_PAGE}?lab={LAB}&target=three%20points%2C%20skewed&count=all&left=polynomial~2~Heun"
    )
    lab = press(tab, LAB)
    lost = int(lab.locator(".lab-left dd").nth(2).get_attribute("data-value"))
    assert lost > 0, "an even degree loses particles"
    assert f"{lost} of" in lab.locator(".lab-status").inner_text()


WALKS = {"8": ("Eight points, copied", 0.9, 1.0), "512": ("Five hundred points, created", 0.0, 0.2)}


@pytest.mark.parametrize("count", WALKS)
def test_the_reader_trains_to_copying_and_to_creating(opened, address, count):
    """Pictures of the way, side by side, are left in build/screenshots."""
    name, low, high = WALKS[count]
    tab = opened("book/train.html")
    lab, ready = tab.locator("#lab-train"), "document.querySelector('#lab-train').panel"
    assert lab.locator("svg:visible").count() == 2, "a still until the first press"
    assert [url for url in tab.requested if "/ort/" in url or "/labs/" in url] == []
    tab.get_by_label("experiment").select_option(name)
    shots = []
    for step in (1, 300, 1000, 2000):
        tab.wait_for_function(
            f"() => {ready}.sides.left.step >= {step} && {ready}.sides.left.found && "
            f"({step} < 2000 || !{ready}.running)"
        )
        shots.append(lab.locator(".train-stage").screenshot())
    copies = lab.locator(".lab-left dd").nth(3).get_attribute("data-value")
    assert low <= float(copies) <= high
    SHOTS.mkdir(parents=True, exist_ok=True)
    images = [Image.open(io.BytesIO(shot)) for shot in shots]
    sheet = Image.new("RGB", (sum(i.width for i in images), max(i.height for i in images)), "white")
    for k, image in enumerate(images):
        sheet.paste(image, (sum(i.width for i in images[:k]), 0))
    sheet.save(SHOTS / f"train-{count}.png")
    assert [
        url for url in tab.requested if not url.startswith((f"{address}/", "data:", "blob:"))
    ] == []
    assert tab.problems == []
    if count == "8":
        assert_accessible_and_fits_a_phone(tab, lab, "train")
        assert min(lab.locator("canvas").first.evaluate("e => e.clientWidth"), 321) > 320


def test_lab_without_javascript_is_a_picture_with_words(browser, address):
    context = browser.new_context(java_script_enabled=False)
    plain = context.new_page()
    plain.goto(f"{address}/{LAB_PAGE}")
    lab = plain.locator(f"#lab-{LAB}")
    assert PRESS in lab.inner_text() and "needs JavaScript" in lab.inner_text()
    assert lab.locator("svg").count() == 3 and lab.locator("svg").first.is_visible()
    context.close()
