"""The voters of *Local machines* in a browser: clicks and keys give the numbers of Python, on a
page of its own."""

import re

import pytest
from press_fixtures import show_panel

from helpers import noise
from helpers.data import load
from helpers.denoisers import LocalMean, PosteriorMean
from helpers.lab import Voters
from helpers.lab.voters import votes

POINTS, CLEAN = (
    load("fashion-mnist", n=20, size=28).images,
    load("fashion-mnist", "test", 2, size=28).images,
)
NOISE = noise.normal(28, 28).float()


def opened(tab):
    figure = Voters(
        POINTS, CLEAN, NOISE, [0.2, 0.5], [3, 7, 55], "A caption.", "What it shows.", row=9, side=7
    )
    show_panel(tab, figure, ".voters-list li")


def shown(tab):
    """Row, column (from 1) and the estimate that the figure tells."""
    found = re.match(
        r"Row (\d+), column (\d+): estimate ([\d.]+),", tab.inner_text(".voters [role=status]")
    )
    return int(found[1]), int(found[2]), float(found[3])


def estimate(row, column, patch, machine="local"):
    y = (CLEAN[0] + 0.2 * NOISE).double()
    denoiser = (
        PosteriorMean(POINTS.double())
        if patch == 55
        else LocalMean(POINTS.double(), patch, machine)
    )
    return float(denoiser(y[None], 0.2)[0, row, column])


def test_clicks_and_keys_give_the_numbers_of_python(tab):
    opened(tab)
    assert shown(tab) == (10, 15, pytest.approx(estimate(9, 14, 7), abs=6e-4))
    box = tab.locator(".voters-noisy").bounding_box()
    tab.locator(".voters-noisy").click(
        position={"x": 20.5 * box["width"] / 28, "y": 17.5 * box["height"] / 28}
    )
    assert shown(tab) == (18, 21, pytest.approx(estimate(17, 20, 7), abs=6e-4))
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowLeft")
    assert shown(tab) == (19, 20, pytest.approx(estimate(18, 19, 7), abs=6e-4))
    side = tab.get_by_label("window side")
    side.press("ArrowRight")
    assert "whole image" in tab.inner_text(".voters .lab-controls")
    assert shown(tab)[2] == pytest.approx(estimate(18, 19, 55), abs=6e-4)
    # which has no window as wide: the widest that fits
    tab.get_by_role("combobox", name="machine").select_option("equivariant (ELS)")
    assert shown(tab)[2] == pytest.approx(estimate(18, 19, 7, "equivariant"), abs=6e-4)
    weights = votes(POINTS, CLEAN[0] + 0.2 * NOISE, 0.2, (18, 19), 7, "equivariant")
    first = tab.locator(".voters-list canvas").first.get_attribute("aria-label")
    index, row, column = (int(v) - 1 for v in re.findall(r"\d+", first)[:3])
    assert float(weights[index, row, column]) == pytest.approx(float(weights.max()))
    assert tab.problems == []


def test_it_fits_a_phone(tab):
    opened(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert (
        tab.locator("img").count() == 0 and tab.locator("figcaption").inner_text() == "A caption."
    )


def test_a_picture_stands_where_no_script_runs(tab):
    figure = Voters(POINTS, CLEAN, NOISE, [0.2], [3], "A caption.", "What it shows.")
    tab.set_content(figure.html())
    assert tab.locator("img").get_attribute("alt") == "What it shows."
    assert (
        tab.locator("img").evaluate("async i => { await i.decode(); return i.naturalWidth }") > 500
    )
    assert tab.locator("figcaption").inner_text() == "A caption."
