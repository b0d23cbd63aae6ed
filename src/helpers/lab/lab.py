"""The lab: two denoisers side by side, from the same noise, on a static page or beside a kernel."""

import copy
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import density, metrics, noise, plots, sampling
from ..denoisers import Denoiser
from ..files import results_folder
from . import page

SAMPLERS: dict[str, Callable] = {
    "Heun": sampling.heun,
    "Euler (DDIM)": sampling.euler,
    "reverse SDE": partial(sampling.reverse_sde, normal=noise.normal),
    "gradient estimation": sampling.gradient_estimation,
}
BLUR = 0.1  # noise level at which densities are drawn and compared: a grid cannot hold sharper ones
CELLS, DENSITY_STEPS = 48, 24  # total variation to 2e-3
REFERENCE = 2000


class Family(NamedTuple):
    """One architecture and its knob: build(data, value) -> Denoiser for each of `values`.

    data: a training set (N, *event), or the target itself where the lab's number of points is None.
    """

    name: str
    build: Callable[[Any, Any], Denoiser]
    knob: str = ""
    values: Sequence = ("",)


class Lab:
    """Choose target, training points, two architectures, sampler, steps and seed, and see what each
    generates.

    On the page the denoisers are ONNX files and run in the reader's browser (static/files.js);
    in Jupyter and Colab the kernel samples, and `families` may build anything.

    name: unique in the book, part of addresses. targets: by name, laws of the plane with `sample`
    and `log_prob`, or stacks of training images (N, *event). counts: numbers of training points;
    None is the target itself.
    schedules: by name, functions of the number of steps. caption: one sentence. alt: what the still
    picture shows.
    samplers_apart: each side has a sampler of its own. centre: the mean of the start, for networks
    that are not told their noise level and so must not begin far from the data's mean. start: the
    first state, where not the first of every choice: target, count, left and right as (family,
    value) or (family, value, sampler), schedule, seed, particles.
    Raises ValueError when a state asks for what the lab does not have, or when a name cannot be
    part of a file's.
    """

    def __init__(
        self,
        name: str,
        targets: Mapping[str, Any],
        families: Sequence[Family],
        counts: Sequence[int | None],
        caption: str,
        alt: str,
        steps: Sequence[int] = (20, 5, 10, 40),
        schedules: Mapping[str, Callable[[int], Tensor]] | None = None,
        extent: float = 3.0,
        samplers_apart: bool = False,
        centre: float = 0.0,
        **start: Any,
    ):
        self.name, self.caption, self.alt, self.extent = name, caption, alt, extent
        self.targets = {name: _here(target) for name, target in targets.items()}
        self.families = {f.name: f for f in families}
        self.counts = {"all" if n is None else str(n): n for n in counts}
        schedules = schedules or {"EDM": partial(sampling.edm, sigma_min=0.02)}
        # float32, which is what a denoiser on the page is given
        self.schedules = {
            k: {str(n): make(n).float().double() for n in steps} for k, make in schedules.items()
        }
        self.samplers_apart, self.centre = samplers_apart, centre
        first = next(iter(self.targets.values()))
        self.image = isinstance(first, Tensor)
        self.event: tuple[int, ...] = tuple(first.shape[1:]) if self.image else (2,)
        self.particles = ["16"] if self.image else ["1000", "250", "500", "2000"]
        self._denoisers: dict[tuple, Denoiser] = {}
        self._densities: dict[tuple, tuple[Tensor, float]] = {}
        names = [name, *self.targets, *self.families, *(str(v) for f in families for v in f.values)]
        for word in names:
            if not re.fullmatch(r"[\w.,' -]*", word):
                raise ValueError(
                    f"the name {word!r} becomes part of a file's: use letters, digits, spaces, . , - _ and '"
                )
        first_of = {key: next(iter(known)) for key, known in self._choices().items()}
        self.start: dict[str, Any] = {**first_of, "seed": 0}
        for key, value in start.items():
            if key not in {*self.start, "left", "right"}:
                known = ", ".join(self.start)
                raise ValueError(f"start has no {key!r}: it has {known}, left, right")
            every = key == "count" and value is None
            self.start[key] = "all" if every else value if key == "seed" else str(value)
        for side in ("left", "right"):
            family, value, *sampler = start.get(side, (families[0].name, families[0].values[0]))
            self.start[side] = [family, str(value), *(sampler or SAMPLERS)][:3]
        self._check(self.start)

    # States and what they generate ----------------------------------------------------------------

    def _choices(self) -> dict[str, Any]:
        steps = next(iter(self.schedules.values()))
        return {"target": self.targets, "count": self.counts, "schedule": self.schedules, "steps": steps,
                "particles": self.particles}  # fmt: skip

    def checked(self, state: Mapping[str, Any], key: str) -> str:
        """What the state has under the key, which must be among the lab's choices; it may come from
        anywhere."""
        value, known = state.get(key), self._choices()[key]
        if not isinstance(value, str) or value not in known:
            raise ValueError(f"{key} is {value!r}: this lab has {', '.join(known)}")
        return value

    def _check(self, state: Mapping[str, Any]) -> None:
        if not isinstance(state, Mapping):
            raise ValueError(f"the state is {state!r}: pass choices by name, as in {self.start}")
        for key in self._choices():
            self.checked(state, key)
        for side in ("left", "right"):
            chosen = state.get(side)
            words = isinstance(chosen, (list, tuple)) and [type(word) for word in chosen]
            if words != [str] * 3:
                asked = "pass names of architecture, value and sampler"
                raise ValueError(f"{side} is {chosen!r}: {asked}")
            family, value, sampler = chosen
            known = {f.name: [str(v) for v in f.values] for f in self.families.values()}
            if value not in known.get(family, ()):
                has = ", ".join(
                    f"{name} {'/'.join(values)}".strip() for name, values in known.items()
                )
                raise ValueError(f"architecture {family!r} {value!r}: this lab has {has}")
            if sampler not in SAMPLERS:
                raise ValueError(f"sampler is {sampler!r}: this lab has {', '.join(SAMPLERS)}")
        seed = state.get("seed")
        if not (re.fullmatch("[0-9]{1,10}", str(seed)) and int(seed) < 2**32):
            raise ValueError(f"seed is {seed}: choose a whole number from 0 to 2^32 - 1")

    def training(self, target: str, count: str) -> Tensor | None:
        """The training set (N, *event), or None where the denoiser sees the whole target."""
        law, n = self.targets[target], self.counts[count]
        if n is None:
            return None
        if self.image and n > len(law):
            raise ValueError(f"count is {n}, but {target} has {len(law)} training images")
        return (law if self.image else law.sample(max(c for c in self.counts.values() if c)))[:n]

    def denoiser(self, target: str, count: str, family: str, value: str) -> Denoiser:
        """Built when first asked for, then kept."""
        key = target, count, family, value
        if key not in self._denoisers:
            points = self.training(target, count)
            known = {str(v): v for v in self.families[family].values}
            data = self.targets[target] if points is None else points
            self._denoisers[key] = _here(self.families[family].build(data, known[value]).eval())
        return self._denoisers[key]

    def sample(self, state: Mapping[str, Any], side: str) -> Tensor:
        """Start and every later point, (steps + 1, particles, *event), by the samplers of
        `helpers.sampling`."""
        self._check(state)
        family, value, sampler = state[side]
        denoiser = self.denoiser(state["target"], state["count"], family, value)
        sigmas, seed = self.schedules[state["schedule"]][state["steps"]], int(state["seed"])
        z = noise.normal(int(state["particles"]), *self.event, seed=seed)
        start = self.centre + float(sigmas[0]) * z
        extra = {"seed": seed} if sampler == "reverse SDE" else {}
        return sampling.trajectory(start, SAMPLERS[sampler](denoiser, start, sigmas, **extra))

    def numbers(self, y: Tensor, target: str, count: str) -> dict[str, float | None]:
        """What the lab tells about final points y (n, *event): diverged, copies, and a distance.

        Plane: the sliced W2 distance to points of the target. Images: mean distance to the nearest
        training image.
        """
        kept, points = metrics.finite(y), self.training(target, count)
        found: dict[str, float | None] = {"copies": None, "distance": None}
        # two distinct ones, or more
        if len(kept) and points is not None and bool((points != points[0]).any()):
            found["copies"] = metrics.share_of_copies(kept, points.to(kept))
        if len(kept) and not self.image:
            reference = self.reference(target)
            found["distance"] = metrics.sliced_w2(kept, reference, projections=page.DIRECTIONS)
        elif len(kept) and points is not None:
            found["distance"] = float(metrics.nearest(kept, points.to(kept), k=1)[0].mean())
        return {"diverged": metrics.diverged(y), **found}

    def reference(self, target: str) -> Tensor:
        """Points of the target, (REFERENCE, 2), against which samples are measured."""
        # as the page stores them
        return self.targets[target].sample(REFERENCE, seed=1).float().double()

    def densities(
        self, target: str, count: str, family: str, value: str, schedule: str
    ) -> tuple[Tensor, float]:
        """The generated law at noise BLUR as a picture (CELLS, CELLS), and its total variation to
        the target's.

        Exact up to quadrature (proposition P6): it belongs to the ODE, not to a number of steps.
        """
        key = target, count, family, value, schedule
        if key not in self._densities:
            cells = density.grid(self.extent, CELLS)
            denoiser = self.denoiser(target, count, family, value)
            sigma_max = float(next(iter(self.schedules[schedule].values()))[0])
            points = cells.points.float()  # twice as fast, and a picture has 8 bits
            log_q = density.generated_log_density(denoiser, points, BLUR, sigma_max, DENSITY_STEPS)
            log_p = self.targets[target].log_prob(cells.points, BLUR)
            apart = density.total_variation(log_p, log_q.double(), cells.cell)
            self._densities[key] = _picture(log_q.double()), apart
        return self._densities[key]

    def target_picture(self, target: str) -> Tensor:
        """The target's density at noise BLUR, (CELLS, CELLS)."""
        points = density.grid(self.extent, CELLS).points
        return _picture(self.targets[target].log_prob(points, BLUR))

    # The page -------------------------------------------------------------------------------------

    def spec(self) -> dict[str, Any]:
        """All that the front end needs to draw its controls."""
        families = [
            {"name": f.name, "knob": f.knob, "values": [str(v) for v in f.values]}
            for f in self.families.values()
        ]
        sorted_steps = {
            k: sorted(v.items(), key=lambda item: int(item[0])) for k, v in self.schedules.items()
        }
        return {
            "name": self.name,
            "image": self.image,
            "event": list(self.event),
            "extent": self.extent,
            "centre": self.centre,
            "cells": CELLS,
            "targets": list(self.targets),
            "counts": list(self.counts),
            "families": families,
            "schedules": {k: {n: s.tolist() for n, s in v} for k, v in sorted_steps.items()},
            "samplers": list(SAMPLERS),
            "samplers_apart": self.samplers_apart,
            "particles": sorted(self.particles, key=int),
            "scales": page.scales(self),
            "start": self.start,
        }

    def write(self, folder: Path) -> dict[str, Any]:
        """The files of the page, see `page.write`; the manifest."""
        return page.write(self, folder)

    def html(self) -> str:
        """The custom element of the page, whose files it writes to <results>/labs/<name>."""
        return page.element(self, self.write(results_folder() / "labs" / self.name))

    def _repr_mimebundle_(self, **arguments: Any) -> Any:
        if os.environ.get(plots.SITE):
            return {"text/html": self.html(), "text/plain": f"{self.caption} {self.alt}"}
        from .widget import Widget

        return Widget(self)._repr_mimebundle_(**arguments)  # Jupyter and Colab: this kernel answers


def _here(value: Any) -> Any:
    """A stack of images, a law or a denoiser on the CPU, where the lab's noise is; what lies
    elsewhere stays there."""
    if isinstance(value, Tensor):
        return value.cpu()
    away = isinstance(value, nn.Module) and any(
        t.device.type != "cpu" for t in value.state_dict().values()
    )
    return copy.deepcopy(value).cpu() if away else value


def _picture(log_p: Tensor) -> Tensor:
    """A density as 8-bit rows from the top, brightest at its own peak."""
    p = log_p.exp().view(CELLS, CELLS).T.flip(0)
    return (255 * p / p.max().clamp(min=1e-300)).round().to(torch.uint8).contiguous()
