"""Colours that must be told apart are, by readers whose eyes lack a kind of cone too."""

import itertools
import re

import numpy as np
import pytest
from press_fixtures import ROOT

from helpers import plots
from helpers.lab import atlas

# Machado, Oliveira and Fernandes 2009, table 1, severity 1: linear RGB to linear RGB
EYES = {
    "all cones": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
                   [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
                     [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
                   [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
XYZ = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
WHITE = np.sum(XYZ, 1)
SEEN = 14  # CIELAB units, six times what is just noticed side by side


def lab(colour, eyes):
    """CIELAB of a hex colour as those eyes see it."""
    s = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)
    t = np.array(XYZ) @ np.clip(np.array(eyes) @ linear, 0, 1) / WHITE
    x, y, z = np.where(t > 0.008856, np.cbrt(t), 7.787 * t + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def nearest(colours, eyes):
    pairs = itertools.combinations(colours, 2)
    return min((np.linalg.norm(lab(a, eyes) - lab(b, eyes)), a, b) for a, b in pairs)


def of(path, pattern):
    return re.findall(pattern, (ROOT / path).read_text("utf-8"))


SETS = {
    "curves": lambda: [*plots.CYCLE, plots.TRAINING],
    "map of creativity": lambda: atlas.COLOURS,
    "verdicts": lambda: of("book/assets/book.css", r"verdict-[^{}]*\{[^}]*background: (#\w{6})"),
    "labs": lambda: (
        of("src/helpers/lab/static/dom.js", r'(?:target|particle|generated): "(#\w{6})"')
        + of("src/helpers/lab/static/sketch.js", r'strokeStyle = "(#\w{6})"')
    ),
}


@pytest.mark.parametrize("eyes", EYES)
@pytest.mark.parametrize("name", SETS)
def test_colours_are_told_apart(name, eyes):
    colours = SETS[name]()
    assert len(colours) > 2
    apart, *pair = nearest(colours, EYES[eyes])
    assert apart > SEEN, pair


def test_what_colour_blind_readers_confuse_is_found():
    assert nearest(["#4c72b0", "#7b5ea7"], EYES["all cones"])[0] > SEEN
    assert nearest(["#4c72b0", "#7b5ea7"], EYES["deuteranopia"])[0] < SEEN / 2
