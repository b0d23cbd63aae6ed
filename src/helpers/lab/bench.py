"""What a workbench can choose: every architecture for images, its options, and one network in
training."""

import copy
import inspect
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import looks, metrics, models
from ..checks import positive
from ..data import ImageSet
from ..denoisers import Denoiser, PerLevel
from ..denoisers.known import classes
from ..denoisers.networks.unet import OPTIONS
from ..recipe import Recipe
from ..training import Progress, train

TOLD = ("size", "image_channels", "data_std", "seed")  # what the data say of a network
CONVOLUTIONS = {"channels": 8, "normalisation": "none", "bias": True, "blind": False}
STARTS: dict[str, dict[str, Any]] = {  # from what a reader begins: quick to train, and generates
    "UNet": {**CONVOLUTIONS, "level": "scale"},
    "AttentionUNet": {**CONVOLUTIONS, "level": "scale"},
    "CNN": {**CONVOLUTIONS, "depth": 8},
    "ImageMLP": {"blind": False, "depth": 3},
    "PerLevel": {"levels": [0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6], "options": {}},
}
SHOWN, MEASURED = 16, 100  # samples of a sheet; images on which the PSNR is measured
LEVEL = 100  # of 255, its noise: where what a network knows of its images shows
LOOKING = 0.2  # the part of the time that goes into looks
KEPT = 5.0  # seconds of work that a kernel that dies may lose
STEPS = 18  # of the sampler in a look: a sheet costs less than a second of one core


class Control(NamedTuple):
    """An option of an architecture: its value at first, and its choices where it has some."""

    name: str
    value: Any
    choices: Sequence | None = None


def architectures() -> dict[str, type[Denoiser]]:
    """Every network for images by name: ours, and subclasses of `Denoiser` from the reader's cells."""
    found = classes(Denoiser)
    ours = {name for name, cls in found.items() if cls.__module__.startswith("helpers.")}
    return {name: found[name] for name in sorted(found, key=lambda n: (n != "UNet", n not in ours))}


def known(network: str) -> type[Denoiser]:
    """The class of that name; ValueError, with all names, where there is none."""
    found = architectures()
    if network not in found:
        raise ValueError(
            f"network is {network!r}: choose one of {', '.join(found)}, or run the cell with its class"
        )
    return found[network]


def controls(network: str) -> list[Control]:
    """The options of an architecture, from the signature of its class.

    What the data say (`TOLD`) is left out. Choices: of a bool, of a word among `unet.OPTIONS`, and
    of an annotation such as `Literal["one", "two"]`.
    """
    cls, found = known(network), []
    starts = STARTS.get(network, {})
    for name, takes in inspect.signature(cls).parameters.items():
        if name in TOLD or (takes.kind is takes.VAR_KEYWORD and name not in starts):
            continue
        value = starts.get(name, takes.default)
        value = cls.small.get(name) if value is takes.empty else value
        choices: Sequence | None = OPTIONS[name] if value in OPTIONS.get(name, ()) else None
        if typing.get_origin(takes.annotation) is typing.Literal:
            choices = typing.get_args(takes.annotation)
        found.append(Control(name, value, (False, True) if isinstance(value, bool) else choices))
    return found


def built(network: str, options: dict[str, Any], data: ImageSet, seed: int = 0) -> Denoiser:
    """An untrained network, which is told what it must know of its data.

    Raises ValueError for a network or an option that is not there, and for one that answers images
    by another shape.
    """
    cls, images = known(network), data.images
    asked = {c.name: options.get(c.name, c.value) for c in controls(network)}
    if unknown := set(options) - set(asked):
        raise ValueError(f"{network} has no {', '.join(unknown)}: it has {', '.join(asked)}")
    inner = inspect.signature(known(asked["network"])).parameters if cls is PerLevel else {}
    if cls is PerLevel:
        starts = {c.name: c.value for c in controls(asked["network"])}
        asked |= {**starts, **asked.pop("options")}
    about = {
        "size": images.shape[-1],
        "image_channels": 3 if images.ndim == 4 else 1,
        "data_std": round(float(images.std()), 3),
        "seed": seed,
    }
    takes = {**inspect.signature(cls).parameters, **inner}
    denoiser = cls(**asked, **{k: v for k, v in about.items() if k in takes}).eval()
    with torch.no_grad():
        answer = denoiser(images[:2], getattr(denoiser, "levels", [0.5])[0])
    if answer.shape != images[:2].shape:
        raise ValueError(
            f"{network} answers images {tuple(images[:2].shape)} by {tuple(answer.shape)}: its estimate "
            "must return the shape of y"
        )
    return denoiser


def recipe_for(denoiser: Denoiser, **changes: Any) -> Recipe:
    """The recipe of which a network of its kind learns to generate, as chapter 10's trials chose it:
    EDM's where it hears the noise level, else all levels alike, from where nothing is seen."""
    blind = getattr(denoiser, "arguments", {}).get("blind", True)
    noise: tuple = ("log-uniform", 0.01, 5.0) if blind else ("log-normal", -1.2, 1.4)
    noise = ("levels", *denoiser.levels) if isinstance(denoiser, PerLevel) else noise
    loss = "edm" if hasattr(denoiser, "data_std") and not blind else "level"
    made = {
        "batch": 16,
        "rate": 3e-3,
        "warmup": 50,
        "clip": 1.0,
        "ema": 0.999,
        "precision": "mixed",
    }
    return Recipe(**{**made, "noise": noise, "loss": loss, **changes})


def seconds_a_step(denoiser: Denoiser, images: Tensor, recipe: Recipe) -> float:
    """Measured in half a second on a copy: a GPU's first steps, which load its code, left out."""
    trial = replace(recipe, steps=10**6)
    left_out = 40 if next(denoiser.parameters()).device.type == "cuda" else 2
    for now in train(copy.deepcopy(denoiser), images, trial):
        if now.step == left_out:
            begun = now.seconds
        elif now.step > left_out + 2 and now.seconds - begun > 0.5:
            break
    return (now.seconds - begun) / (now.step - left_out)


@dataclass
class Run:
    """One network in training: where it stands, what it makes, and what was measured on the way.

    history: a row for each look, `seconds` of its training, `images` seen, `loss`, `psnr` on
    training and on test images at LEVEL of 255, shares of `copies` and of `quadrants` that are one
    of a training image, and of samples `lost`. sheet (SHOWN, *event): samples from the same noise
    at each look; near: the index of the training image nearest to each. film: the first eight of
    each look.
    """

    name: str
    denoiser: Denoiser
    recipe: Recipe
    data: ImageSet
    test: ImageSet
    checkpoint: Path | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    film: list[Tensor] = field(default_factory=list)
    sheet: Tensor | None = None
    near: list[int] = field(default_factory=list)
    progress: Progress | None = None
    ended: bool = False

    def __post_init__(self) -> None:
        self.start = copy.deepcopy(self.denoiser).eval()  # as it was before the first step

    def plan(self, steps: int) -> None:
        """Train for so many steps, from the checkpoint where there is one."""
        self.recipe = replace(self.recipe, steps=steps)
        self._steps = train(self.denoiser, self.data.images, self.recipe, self.checkpoint, KEPT)
        if self.checkpoint and self.checkpoint.exists():
            try:
                self.advance()  # which takes no step: it says what was reached
            except RuntimeError as error:  # each kind of device has its own state of the draws
                raise ValueError(
                    f"{self.checkpoint} was begun on another kind of device than {self.device.type}: "
                    f"go on there, or take another folder ({error})"
                ) from None

    @property
    def step(self) -> int:
        return self.progress.step if self.progress else 0

    @property
    def network(self) -> Denoiser:
        """What would be delivered now: the running average of the weights."""
        return self.progress.denoiser if self.progress else self.denoiser

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters()).device

    @property
    def delivered(self) -> Denoiser:
        """A copy of it on the CPU, which further training does not change."""
        return copy.deepcopy(self.network).cpu().eval()

    def advance(self) -> None:
        """One step; ValueError where the loss is not finite."""
        self.progress = next(self._steps, self.progress)
        self.ended = self.step >= self.recipe.steps
        if self.ended:  # the loop's end, where the averaged weights become the network's
            next(self._steps, None)

    def look(self) -> dict[str, Any]:
        """Samples from the fixed noise, and the row that is entered in the history."""
        network, images, step = self.network.eval(), self.data.images, self.progress
        made = looks.samples(network, images, self.device, SHOWN, looks.levels(network, STEPS))
        kept = metrics.finite(made)
        row: dict[str, Any] = {
            "seconds": step.seconds if step else 0.0,
            "images": self.step * self.recipe.batch,
            "loss": step.loss if step and math.isfinite(step.loss) else None,
            "psnr": [psnr(network, part.images, self.device) for part in (self.data, self.test)],
            "lost": 1 - len(kept) / len(made),
            "copies": None,
            "quadrants": None,
        }
        if len(kept) and len(images) > 1:
            row["copies"] = metrics.share_of_copies(kept, images)
            if not any(side % 2 for side in images.shape[-2:]):
                row["quadrants"] = looks.quadrants(kept, images)
        self.show(made)
        self.film.append(made[: looks.SHOWN])
        self.history.append(row)
        return row

    def show(self, made: Tensor) -> None:
        """Make these samples the sheet, and find the training images nearest to them."""
        self.sheet = made
        near = metrics.nearest(made.nan_to_num().clamp(-10, 10), self.data.images, k=1)
        self.near = near[1][:, 0].tolist()


@torch.no_grad()
def psnr(denoiser: Denoiser, images: Tensor, device: torch.device, level: int = LEVEL) -> float:
    """In dB at noise of that level of 255, on MEASURED images or on a smaller set as often as it
    takes."""
    shown = models.repeated(images[:MEASURED], MEASURED)[:MEASURED].to(device)
    return models.psnr_table(denoiser, shown, levels=(level,))["psnr"][0]


def planned(runs: Sequence[Run], minutes: float) -> int:
    """Steps of each of the networks in so many minutes, looks included, as fast as they are here."""
    positive("minutes", minutes, "take a time in minutes, or pass steps")
    cost = sum(seconds_a_step(run.denoiser, run.data.images, run.recipe) for run in runs)
    return max(1, int(60 * minutes * (1 - LOOKING) / cost))
