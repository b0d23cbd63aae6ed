"""Chapter 4's table of states of its lab: each shows what the words beside it say."""

import re
from urllib.parse import parse_qsl, urlsplit

import pytest
import torch
from bs4 import BeautifulSoup
from conftest import ROOT

from helpers import data, denoisers, lab
from press.chapters import read_notebook

torch.set_num_threads(1)
CELLS = {c.id: c.source for c in read_notebook(ROOT / "book/part1_plane/04_polynomial.ipynb").cells}
ROWS = {  # by the first statement named: the states where it holds, and where it is broken
    re.search(r"`([\w-]+)`", row)[1]: [
        dict(parse_qsl(urlsplit(a["href"]).query))
        for a in BeautifulSoup(row, "html.parser").find_all("a")
    ]
    for row in re.findall(r"^\| \{.*", CELLS["lab-polynomial-text"], re.M)
}


@pytest.fixture(scope="module")
def polynomial():
    names = {k: v for m in (data, denoisers, lab) for k, v in vars(m).items()} | {"torch": torch}
    exec(CELLS["lab-laws"] + "\nshown = " + CELLS["lab-polynomial"], names)
    return names["shown"]


def shown(polynomial, link):
    """The state of a link, and where both sides end, (particles, 2)."""
    state = {**polynomial.start, **{k: v for k, v in link.items() if k != "lab"}}
    state |= {side: state[side].split("~") for side in ("left", "right")}
    return state, [polynomial.sample(state, side)[-1] for side in ("left", "right")]


def diverged(polynomial, link, side=0):
    return int((~shown(polynomial, link)[1][side].isfinite().all(1)).sum())


def test_every_row_is_a_pair_of_states():
    assert all(len(pair) == 2 and pair[0] != pair[1] for pair in ROWS.values())
    assert set(ROWS) == {"prop-moments", "prop-affine", "ex-polynomial-1", "prop-cumulant",
                         "prop-escape", "prop-support", "prop-first-order"}  # fmt: skip


@pytest.mark.parametrize("label", ["prop-moments", "prop-affine", "ex-polynomial-1"])
def test_equal_denoisers_end_alike_and_others_apart(polynomial, label):
    holds, broken = (
        float((left - right).norm(dim=1).nan_to_num(torch.inf).max())
        for _, (left, right) in (shown(polynomial, link) for link in ROWS[label])
    )
    assert holds < 1e-9 and broken > 0.1


def test_who_diverges(polynomial):
    (leaves, stays), (safe, some), (rim, none) = (
        ROWS[label] for label in ("prop-cumulant", "prop-escape", "prop-support")
    )
    assert diverged(polynomial, leaves) > 0 == diverged(polynomial, stays)
    assert diverged(polynomial, safe) == 0 < diverged(polynomial, some)
    assert diverged(polynomial, some, side=1) == 0
    _, (bounded, gaussian) = shown(polynomial, rim)
    assert float(bounded.norm(dim=1).max()) < 3 < float(gaussian.norm(dim=1).max())
    assert diverged(polynomial, none) > 0


def test_the_next_order_helps_a_law_near_a_gaussian_only(polynomial):
    for link, better in zip(ROWS["prop-first-order"], (True, False), strict=True):
        state, (_, four) = shown(polynomial, link)
        two, four_apart = (
            polynomial.densities(
                state["target"], state["count"], *state[side][:2], state["schedule"]
            )[1]
            for side in ("left", "right")
        )
        assert (four_apart < two) == better and bool(four.isfinite().all()) == better
