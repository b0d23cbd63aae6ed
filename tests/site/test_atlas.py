"""The map of creativity: what a cell says is what was measured, and the panel shows the cell that is
asked for."""

import re
from dataclasses import replace

import pytest
import torch
from press_fixtures import STATIC, serious_faults

from helpers import looks, models
from helpers.data import load
from helpers.denoisers import LinearDenoiser, PosteriorMean
from helpers.lab import Atlas, Family, Lab, atlas
from helpers.lab.scripts import joined

DATA, TEST = load("fashion-mnist", n=100, size=32), load("fashion-mnist", "test", 100, 32)
OTHER = load("fashion-mnist", "disjoint", 100, 32).images
CALLED = "three poolings"
NETWORK = "clothes-blocks-3-n{}"


def first(n):
    return replace(DATA, images=DATA.images[:n])


@pytest.fixture(scope="module")
def places():
    forms = {"copier": PosteriorMean, "linear": LinearDenoiser.from_points}
    found = {
        (name, n): atlas.closed(make(DATA.images[:n]), first(n), TEST)
        for name, make in forms.items()
        for n in (10, 100)
    }
    return found | {(CALLED, n): atlas.trained(NETWORK.format(n)) for n in (10, 100)}


@pytest.fixture(scope="module")
def panel(places):
    lab = Lab("live", {"clothes": DATA.images}, [Family("copier", lambda x, _: PosteriorMean(x))],
              counts=[100], caption="", alt="")  # fmt: skip
    faces = {("one pooling", 1000): atlas.trained("colour-blocks-1")}
    known = {"clothes": {"unseen images": looks.judged(OTHER[:96], DATA, TEST)}}
    pair = {"clothes": (DATA.images, OTHER)}
    maps = {"clothes": places, "faces": faces}
    return lambda **start: Atlas(
        "map", maps, pair, known, lab, "clothes", "Caption.", "Alt.", **start
    )


def test_the_copier_copies_and_the_linear_denoiser_does_not(places, panel):
    copier, linear = places["copier", 10].said[0], places["linear", 100].said[0]
    assert copier["copies"] == 1 and copier["closeness"] < 0.01
    assert linear["copies"] == 0 and linear["closeness"] > 0.8
    which, ratio = panel().nearest("clothes", "copier", 10)
    assert which.shape == (1, looks.SHOWN) and bool((which < 10).all())
    assert bool((ratio < 0.2).all())  # not 0: sheets are stored as they ship, with losses
    assert bool((panel().nearest("clothes", "linear", 100)[1] > 0.5).all())


def test_sheets_come_back_as_the_images_that_they_hold(places):
    images = DATA.images[:11]
    sheet = atlas.Place(looks.mosaic(images), [{}], 32)
    assert (sheet.samples().flatten(0, 1)[:11] - images).abs().mean() < 0.02
    colour = torch.rand(8, 3, 16, 16).round()
    colour = torch.nn.functional.interpolate(colour[..., :2, :2], size=16)
    back = atlas.Place(looks.mosaic(colour), [{}], 16, True).samples()
    assert back.shape == (1, 8, 3, 16, 16) and (back[0] - colour).abs().mean() < 0.1
    cards, name = models.manifest(), NETWORK.format(10)
    place = places[CALLED, 10]
    assert place.said == cards[name]["looks"] and len(place.samples()) == len(place.said)


def test_what_a_map_does_not_have_is_said(places, panel):
    with pytest.raises(ValueError, match="no network 'sine' was looked at in training: .*colour"):
        atlas.trained("sine")
    gaps = {key: place for key, place in places.items() if key != ("linear", 10)}
    with pytest.raises(ValueError, match=r"clothes has no \[\('linear', 10\)\]"):
        Atlas("map", {"clothes": gaps}, {}, {}, None, "", "", "")
    for start, words in (
        ({"kind": "shoes"}, "kind = 'shoes': choose among .*clothes"),
        ({"column": 7}, r"column = 7: choose among \[10, 100\]"),
        ({"size": 7}, "size = 7: choose among .*kind"),
    ):
        with pytest.raises(ValueError, match=words):
            panel(**start)


@pytest.fixture
def shown(tab, panel):
    """The panel by itself, with its pictures in it."""

    def show(**start):
        made = panel(**start)
        page = f"<!doctype html><html lang=en><head><title>Map</title></head>{made.tag(made.carried())}</html>"
        tab.set_content(page)
        tab.add_style_tag(content=(STATIC / "lab.css").read_text("utf-8"))
        tab.add_script_tag(content=joined(), type="module")
        tab.wait_for_selector(".atlas-samples canvas")
        return made

    return show


def said(tab):
    return tab.inner_text(".atlas [role=status]")


def test_the_panel_says_what_was_measured(tab, shown, places):
    shown(row="copier", column=10)
    assert re.match(
        r"copier, 10 clothes .* in closed form: 100 % of 96 samples are copies", said(tab)
    )
    tab.locator(".atlas-cells [aria-pressed=true]").focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    of = places["linear", 100].said[0]
    assert said(tab).startswith("linear, 100 clothes") and f"KID {of['kid']:.2f}" in said(tab)
    tab.keyboard.press("ArrowDown")
    last, tenth = places[CALLED, 100].said[-1], places[CALLED, 100].said[0]
    assert f"after {last['images']:,} images" in said(tab) and f"KID {last['kid']:.2f}" in said(tab)
    tab.get_by_label("of its training").press("Home")
    assert f"after {tenth['images']:,} images" in said(tab) and f"KID {tenth['kid']:.2f}" in said(
        tab
    )
    tab.locator(".atlas-samples button").first.click()
    assert "the nearest training image is number" in tab.inner_text(".atlas")
    tab.get_by_role("combobox", name="images of").select_option("faces")
    assert said(tab).startswith("one pooling, 1,000 faces")
    assert not tab.locator(".atlas svg").is_visible()  # their closeness was not measured
    tab.wait_for_function("() => document.querySelectorAll('.atlas-samples canvas').length === 8")
    assert (
        tab.locator(".atlas-samples button").count() == 0
    )  # faces that were learned from are not shown
    assert serious_faults(tab, "light", ".atlas") == []
    assert tab.problems == []


def test_a_drag_goes_through_the_cells(tab, shown):
    shown()
    boxes = [tab.locator(".atlas-cells button").nth(k).bounding_box() for k in (0, 3)]
    (x0, y0), (x1, y1) = ((b["x"] + b["width"] / 2, b["y"] + b["height"] / 2) for b in boxes)
    tab.mouse.move(x0, y0)
    tab.mouse.down()
    tab.mouse.move(x1, y1, steps=6)
    tab.mouse.up()
    assert said(tab).startswith("linear, 100 clothes")
    first_cell = "document.querySelector('.atlas-cells canvas')"
    assert tab.evaluate(f"() => {first_cell}.width") == 4 * 32
    assert tab.problems == []
