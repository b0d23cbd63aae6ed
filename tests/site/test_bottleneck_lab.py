"""Chapter 5's table of states of its lab: each shows what the words beside it say."""

import re
from urllib.parse import parse_qsl, urlsplit

import pytest
import torch
from bs4 import BeautifulSoup
from conftest import ROOT

from helpers import data, denoisers, lab, metrics, sampling, training
from press.chapters import read_notebook

torch.set_num_threads(1)
CELLS = {c.id: c.source for c in read_notebook(ROOT / "book/part1_plane/05_bottleneck.ipynb").cells}
ROWS = {  # by the statement named: the states where it holds, and the last, where it is broken
    row.split("|")[1].strip(" `").removeprefix("{prf:ref}`"): [
        dict(parse_qsl(urlsplit(a["href"]).query))
        for a in BeautifulSoup(row, "html.parser").find_all("a")
    ]
    for row in re.findall(r"^\| \S.*<a .*", CELLS["lab-bottleneck-text"], re.M)
}
WIDTH = "the width of the code decides nothing"


@pytest.fixture(scope="module")
def bottleneck():
    """The lab of the chapter, with no network trained before it is asked for."""
    names = {k: v for m in (data, denoisers, lab) for k, v in vars(m).items()}
    names |= {"torch": torch, "sampling": sampling, "training": training, "runs": {}}
    exec(CELLS["parameters"], names)
    names["device"] = "cpu"
    exec(CELLS["networks"].partition("\n\n\nbends")[0], names)
    exec(CELLS["lab-kinds"] + "\nshown = " + CELLS["lab-bottleneck"], names)
    return names["shown"]


def ends(bottleneck, link):
    """Where both sides end, (particles, 2)."""
    state = {**bottleneck.start, **{k: v for k, v in link.items() if k != "lab"}}
    state |= {side: state[side].split("~") for side in ("left", "right")}
    return [bottleneck.sample(state, side)[-1] for side in ("left", "right")]


def line(bottleneck, link):
    """The training points or the law that a state shows, and a tied bottleneck of it."""
    known = bottleneck.training(link["target"], link["count"])
    known = bottleneck.targets[link["target"]] if known is None else known
    return known, denoisers.ProjectedDenoiser(known, 1)


def off(y, tied):
    """Distances to the line."""
    z = y - tied.mean
    return (z - z @ tied.basis @ tied.basis.T).norm(dim=1)


def copies(bottleneck, link):
    points, _ = line(bottleneck, link)
    return [metrics.share_of_copies(y, points) for y in ends(bottleneck, link)]


def test_every_row_has_states_for_both():
    kinds = "projected", "decoder", "encoder", "both"
    assert set(ROWS) == {WIDTH, *(f"prop-bottleneck-{kind}" for kind in kinds)}
    assert all(len(states) >= 2 and states[0] != states[-1] for states in ROWS.values())


def test_two_linear_halves(bottleneck):
    holds, broken = ROWS["prop-bottleneck-projected"]
    points, tied = line(bottleneck, holds)
    feet = tied.mean + (points - tied.mean) @ tied.basis @ tied.basis.T
    distance, foot = metrics.nearest(ends(bottleneck, holds)[0], feet, k=1)
    assert distance.max() < 0.01 and len(foot.unique()) == 12
    law, tied = line(bottleneck, broken)
    one, three = (metrics.kurtosis(y @ tied.basis[:, 0]) for y in ends(bottleneck, broken))
    assert off(ends(bottleneck, broken)[0], tied).max() < 1e-6
    assert three < 2 < 2.5 < one  # a Gaussian has 3, heaps apart have less


def test_a_free_decoder(bottleneck):
    points, skewed, shared = ROWS["prop-bottleneck-decoder"]
    left, right = copies(bottleneck, points)
    assert left == 1.0 and right < 0.2
    law, tied = line(bottleneck, skewed)
    y, on_line = ends(bottleneck, skewed)
    bent = denoisers.FreeDecoder(law, 1)
    assert (y - bent.decode((y - bent.mean) @ bent.basis, 0.002)).norm(dim=1).median() < 1e-3
    assert off(on_line, tied).max() < 1e-6 < 0.3 < off(y, tied).std()
    law, _ = line(bottleneck, shared)
    y, tied_ends = ends(bottleneck, shared)
    assert (y - tied_ends).abs().max() < 1e-6
    assert metrics.nearest(y, law.means, k=1)[0].min() > 0.4


def test_a_free_encoder(bottleneck):
    holds, broken = ROWS["prop-bottleneck-encoder"]
    points, tied = line(bottleneck, holds)
    feet = tied.mean + (points - tied.mean) @ tied.basis @ tied.basis.T
    own = metrics.nearest(feet, points, k=1)[1][:, 0] == torch.arange(12)
    reached = [metrics.nearest(y, feet, k=1)[1].unique() for y in ends(bottleneck, holds)]
    assert set(own.nonzero()[:, 0].tolist()) <= set(reached[0].tolist())
    assert len(reached[0]) < len(reached[1]) == 12
    y, on_line = ends(bottleneck, broken)
    assert off(on_line, tied).max() < 1e-6 < 1e-3 < off(y, tied).min()


def test_both_free_and_the_width_of_the_code(bottleneck):
    holds, broken = ROWS["prop-bottleneck-both"]
    assert copies(bottleneck, holds)[0] == 1.0
    assert copies(bottleneck, broken)[0] < 0.6 < copies(bottleneck, broken)[1]
    free, linear = ROWS[WIDTH]
    assert copies(bottleneck, free) == [1.0, 1.0]
    assert copies(bottleneck, linear)[0] < 0.2 < copies(bottleneck, linear)[1] == 1.0
