"""The panel of flows: its script computes what `helpers.systems.bastek.darcy` computes."""

import re

import pytest
import torch
from nets import noise
from press_fixtures import serious_faults, show_panel

from helpers.denoisers import Denoiser
from helpers.lab import Flows
from helpers.systems.bastek.darcy import Corrected, Darcy, re_solve_error

FLOW = Darcy(8, 12)
K = FLOW.permeability(3, seed=1)
P = FLOW.solve(K) + 0.02 * noise(3, 8, 8).double()
FIELDS = {"none": (P, K), "strong": (P / 2, K - 0.3)}  # the last has cells that are not positive


def panel(**start):
    return Flows(FIELDS, FLOW.f, "A caption.", "What it shows.", **start)


def said(tab):
    text = tab.inner_text(".flows [role=status]").replace("−", "-")
    found = re.match(
        r"Mean size of the residual ([\d.]+); a field of zeros has ([\d.]+)\. .* is ([\d]+) %", text
    )
    return *(float(v) for v in found.groups()), "not positive" in text


class Given(Denoiser):
    """Answers what it was given."""

    def estimate(self, y, sigma):
        return y


def expected(p, k, steps=0):
    x = FLOW.channels(p[None], k[None])
    if steps:
        x = Corrected(Given(), FLOW, steps)(x, 0.1)
    residual = float(FLOW.residual(x).abs().mean())
    return pytest.approx(residual, abs=0.006), 100 * float(re_solve_error(FLOW, x))


def test_the_panel_says_what_python_says(tab):
    show_panel(tab, panel(), ".flows canvas")
    tab.set_viewport_size({"width": 1000, "height": 700})
    residual, error = expected(P[0], K[0])
    assert said(tab) == (residual, pytest.approx(0.31), pytest.approx(error, abs=0.6), False)
    # 0 of the pressure: the residual is that of a field of zeros, and nothing is solved
    tab.get_by_label("pressure times").press("Home")
    assert said(tab) == (pytest.approx(0.31), pytest.approx(0.31), 100, False)
    tab.get_by_label("pressure times").press("End")
    assert said(tab)[2] == pytest.approx(expected(1.25 * P[0], K[0])[1], abs=0.6)
    tab.get_by_label("pressure times").press("ArrowLeft")
    tab.get_by_label("steps down the residual").press("End")
    residual, error = expected(P[0], K[0], 300)
    assert said(tab)[::2] == (residual, pytest.approx(error, abs=0.6))
    assert expected(P[0], K[0], 300)[0] != expected(P[0], K[0])[0]
    tab.get_by_label("physics in training").press("End")
    tab.get_by_role("combobox", name="noise").select_option("number 2")
    assert bool((FIELDS["strong"][1][1] <= 0).any()) and said(tab)[3]
    assert serious_faults(tab, "light", ".flows") == []
    assert tab.problems == []


def test_a_picture_stands_where_no_script_runs(tab):
    tab.set_content(panel(network="strong", picture=2, amplitude=0.5, descent=3).html())
    assert tab.locator("img").get_attribute("alt") == "What it shows."
    width = "async i => { await i.decode(); return i.naturalWidth }"
    assert tab.locator("img").evaluate(width) > 300


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: panel(picture=3), r"start has picture = 3: choose picture from range\(0, 3\)"),
        (lambda: panel(weight=1), "start has weight = 1: choose weight from .*network"),
        (
            lambda: Flows({"a": (P, K[:2])}, FLOW.f, "", ""),
            r"fields have shapes .*\(2, 8, 8\).* pass p and K as \(pictures, n, n\)",
        ),
        (
            lambda: Flows({"a": (P, K)}, torch.zeros(4, 4), "", ""),
            r"the source \(4, 4\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
