"""A lab in which the reader trains two networks of the plane, in the page or beside a kernel."""

import hashlib
import html
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import plots
from ..checks import checked_seed
from ..data import TARGETS
from ..denoisers.mlp import ACTIVATIONS
from ..files import results_folder, write_atomically
from . import graphs, page, steps, stills
from .trained import (
    BLUR,
    CELLS,
    DENSITY_STEPS,
    EXTENT,
    LEVELS,
    PARTICLES,
    RECENT,
    REFERENCE,
    SIGMAS,
    SIZE,
    Training,
    pictured,
)

# the pinwheel has no density at a level of noise
LAWS = {k.replace("_", " "): make for k, make in TARGETS.items() if k != "pinwheel"}
OWN, POINTS, DEPTHS, DEGREES = "your own", 512, range(1, 6), range(1, 7)
SIDE = {"kind": "network", "degree": "3", "width": "64", "depth": "3", "activation": "silu",
        "narrow": "none", "level": "told", "skip": "yes"}  # fmt: skip
CHOICES = {
    "target": [*LAWS, OWN],
    "count": [str(2**k) for k in range(1, 10)],
    "steps": ["500", "1000", "2000", "4000", "8000", "16000"],
    "rate": ["0.001", "0.003", "0.01", "0.03"],
    "kind": ["network", "polynomial"],
    "degree": [str(k) for k in DEGREES],
    "width": ["1", "2", "4", "8", "16", "32", "64", "128"],
    "depth": [str(k) for k in DEPTHS],
    "activation": sorted(ACTIVATIONS),
    "narrow": ["none", "1", "2"],
    "level": ["told", "not told", "one each"],
    "skip": ["yes", "no"],
}
# what the menus say, where that is not the choice itself
WORDS = {"one each": "a network for each"}


class Preset(NamedTuple):
    """An experiment of the trainer: what it changes of eight points of the star and two networks of
    width 64, depth 3, and the sentence that says what to look at."""

    name: str
    text: str
    state: dict[str, Any]


class Trainer:
    """Choose points, two networks and a recipe, train, and watch what each generates while it learns.

    On the page steps of training are ONNX graphs in the reader's browser; beside a kernel the
    kernel trains. Batches, start and noise are the same (`helpers.lab.steps`), and so are the
    networks, up to rounding, which a large one at a high rate magnifies. The sampler is Heun's, 20
    steps from sigma = 8; densities are those of the flow at the noise 0.1, on 48 x 48 points.
    name: unique in the book, part of addresses. start: the first state where it is not
    the first choice, as target, count, steps, rate, seed, and left and right, dictionaries with the
    keys of SIDE. networks: in place of left and right, such dictionaries by the names that the lab
    shows; they have no menus. Raises ValueError for what is not among the choices.
    """

    def __init__(
        self,
        name: str,
        caption: str,
        alt: str,
        presets: Sequence[Preset] = (),
        networks: Mapping[str, dict[str, str]] | None = None,
        **start: Any,
    ):
        self.name, self.caption, self.alt, self.presets = name, caption, alt, presets
        plain = {"target": "star", "count": "8", "steps": "2000", "rate": "0.01", "seed": 0}
        sides = dict.fromkeys(networks or ("left", "right"), SIDE)
        self._plain = plain | {"points": []} | sides
        start = start | dict(networks or {})
        self.start, self.sides = _changed(self._plain, start), tuple(sides)
        for preset in presets:
            self.state(preset)

    def state(self, preset: Preset) -> dict[str, Any]:
        """The state that the preset takes."""
        return _changed(self._plain, preset.state)

    def checked(self, state: Any) -> dict[str, Any]:
        """A state that may come from anywhere."""
        if not isinstance(state, dict) or not {*state} <= {*self.start}:
            raise ValueError(f"the state is {state!r}: pass choices by name, as in {self.start}")
        return _changed(self.start, state)

    def points(self, state: dict[str, Any]) -> Tensor:
        """The training points, (N, 2) float64."""
        if state["target"] == OWN:
            return torch.tensor(state["points"], dtype=torch.float64).view(-1, 2)
        return target(state["target"]).sample(POINTS).double()[: int(state["count"])]

    def data(self, state: dict[str, Any]) -> dict[str, Tensor]:
        """What the pictures lie on: training points, and the density of a target that is known."""
        law, found = target(state["target"]), {"training": self.points(state).float()}
        if law is not None:
            found["target"] = pictured(law.log_prob(CELLS.points, BLUR), 1.0)
        return found

    def training(self, state: dict[str, Any], side: str) -> "Training":
        """The side's training from its start, as on the page."""
        return Training(self.points(state), state | state[side], target(state["target"]))

    def spec(self) -> dict[str, Any]:
        """All that the front end needs."""
        return {
            "name": self.name,
            "event": [2],
            "extent": EXTENT,
            "blur": BLUR,
            "cells": CELLS.n,
            "density_steps": DENSITY_STEPS,
            "low": steps.LOW,
            "high": steps.HIGH,
            "size": SIZE,
            "levels": LEVELS,
            "own": OWN,
            "recent": RECENT,
            "particles": PARTICLES,
            "sigmas": SIGMAS,
            "choices": CHOICES,
            "words": WORDS,
            "presets": [p._asdict() | {"state": self.state(p)} for p in self.presets],
            "start": self.start,
        }

    def write(self, folder: Path) -> str:
        """The files of the page in `folder`, which is replaced when complete; their hash."""
        new = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(new, ignore_errors=True)
        files = {
            "graphs": {
                k: torch.frombuffer(bytearray(v), dtype=torch.uint8)
                for k, v in graphs.every(DEPTHS, DEGREES).items()
            }
        }
        for name, make in LAWS.items():
            law = make()
            files[name.replace(" ", "_")] = {
                "points": law.sample(POINTS).float(),
                "reference": law.sample(REFERENCE, seed=1).float(),
                "log_p": law.log_prob(CELLS.points, BLUR).float(),
            }
        digest = hashlib.sha256()
        for name, arrays in files.items():
            data = page.packed(arrays)
            digest.update(data)
            write_atomically(new / f"{name}.safetensors.gz", data)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
        return digest.hexdigest()[:12]

    def html(self) -> str:
        """The custom element of the page, whose files it writes to <results>/labs/<name>, and itself
        beside them, for a page without a kernel's cells."""
        folder = results_folder() / "labs" / self.name
        spec = json.dumps(self.spec() | {"version": self.write(folder)}, separators=(",", ":"))
        text, caption = spec.replace("</", "<\\/"), html.escape(self.caption)
        element = (
            f'<train-lab id="lab-{html.escape(self.name)}"><script type="application/json">{text}</script>'
            f'<figure class="lab-still">{self.still()}<figcaption>{caption}</figcaption></figure>'
            "<noscript><p>The lab needs JavaScript; the picture shows the end of its first training.</p></noscript>"
            "</train-lab>"
        )
        write_atomically(folder / "element.html", element)
        return element

    def still(self) -> str:
        """The end of the first training: points, exact density and particles of both sides."""
        panels = []
        for side in self.sides:
            training = self.training(self.start, side)
            training.run()
            drawn = pictured(training.log_density()), training.frames(), training.points
            title = f"{side} network" if side in ("left", "right") else side
            panels.append((title, stills.plane(EXTENT, *drawn)))
        return stills.row(self.alt, panels)

    def _repr_mimebundle_(self, **arguments: Any) -> Any:
        if os.environ.get(plots.SITE):
            return {"text/html": self.html(), "text/plain": f"{self.caption} {self.alt}"}
        from .widget import TrainWidget

        return TrainWidget(self)._repr_mimebundle_(**arguments)


def target(name: str) -> Any:
    """The law behind a choice of the menu, None for the reader's own points."""
    return None if name == OWN else LAWS[name]()


def _sides(state: dict[str, Any]) -> list[str]:
    """The names of a state's networks."""
    return [key for key, part in state.items() if isinstance(part, dict)]


def _changed(first: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A state with some of its parts changed, each of which must be among the choices."""
    sides = {side: changes.get(side, {}) for side in _sides(first)}
    for side, part in sides.items():
        if not isinstance(part, dict):
            raise ValueError(f"{side} is {part!r}: pass a dictionary")
    state = first | changes | {side: first[side] | part for side, part in sides.items()}
    for where, known in ((state, first), *((state[side], SIDE) for side in sides)):
        for key, value in where.items():
            if key not in known:
                raise ValueError(f"a trainer has no {key!r}: it has {', '.join(known)}")
            if key in CHOICES and value not in CHOICES[key]:
                raise ValueError(f"{key} is {value!r}: choose from {', '.join(CHOICES[key])}")
    points = state["points"]
    good = isinstance(points, list) and len(points) % 2 == 0
    if not (good and all(isinstance(v, int | float) and math.isfinite(v) for v in points)):
        raise ValueError(f"points are {points!r}: pass a list of numbers, x and y in turns")
    return state | {"seed": checked_seed(state["seed"])}
