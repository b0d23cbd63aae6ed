"""What a workbench says of a network: against closed forms, in the plane of creativity, for the
ledger."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import looks, metrics, sampling
from ..denoisers import Denoiser, LinearDenoiser, LocalMean, PosteriorMean
from .bench import LEVEL, STEPS, Run, psnr

WINDOWS = (5, 9, 15)  # sides in pixels of the local machines that are compared with a network
BETTER = 0.5  # dB that a network must be ahead of closed forms, for a row of the ledger


def agreement(run: Run, count: int = 16) -> dict[str, float]:
    """Median Pearson's r of a network's `count` samples with those of closed forms fitted to the
    same images, all by Heun's ODE from the same noise at the same levels.

    linear: the best affine denoiser; local, w: the local machine with windows of w pixels; ideal:
    the posterior mean, which copies.
    """
    images, levels = run.data.images, looks.levels(run.network, STEPS)
    forms: dict[str, Denoiser] = {"linear": LinearDenoiser.from_points(images)}
    forms |= {f"local, {w}": LocalMean(images, w) for w in WINDOWS if w < images.shape[-1]}
    forms["ideal"] = PosteriorMean(images)

    def made(denoiser: Denoiser, device: torch.device | str) -> Tensor:
        return looks.samples(denoiser, images, device, count, levels, sampling.heun)

    ours = made(run.network, run.device)
    alike = {name: metrics.pearson(ours, made(form, "cpu")) for name, form in forms.items()}
    return {name: float(r.nanmedian()) for name, r in alike.items()}


def point(run: Run) -> dict[str, float]:
    """A network's place in the plane of creativity of chapter 13: what `helpers.looks.judged` says
    of its samples, "closeness" among it, and "kid" for clothes and faces."""
    return _placed(run, looks.samples(run.network, run.data.images, run.device))


def landmarks(run: Run) -> dict[str, dict[str, float]]:
    """What is known in that plane, as `point`: the copier, whose samples are training images, and
    the linear denoiser."""
    images = run.data.images
    levels = sampling.edm(
        looks.STEPS, 0.01, looks.SIGMA_MAX
    )  # from pure noise: it is told the level
    linear = looks.samples(LinearDenoiser.from_points(images), images, "cpu", sigmas=levels)
    return {"copier": _placed(run, images[: looks.JUDGED]), "linear": _placed(run, linear)}


def _placed(run: Run, made: Tensor) -> dict[str, float]:
    return looks.judged(made, run.data, run.test, run.recipe.flip)


def row(run: Run) -> dict[str, Any]:
    """What `helpers.experiments.ledger.Claim` takes: that the network denoises unseen images better
    than the best of what only copies and of what is linear, by BETTER dB at LEVEL of 255. The
    control is the network as it was before its first step: what it passes says nothing of the
    training, and `Claim` refuses it."""
    here, images = torch.device("cpu"), run.data.images
    forms = (PosteriorMean(images), LinearDenoiser.from_points(images))
    best = max(psnr(form, run.test.images, here) for form in forms)
    return {
        "source": "the workbench",
        "claim": f"{run.name} on {len(images)} images of {run.data.name}: PSNR at {LEVEL}/255 on "
        "unseen ones less that of the better of copier and linear denoiser, dB",
        "expected": (BETTER, math.inf),
        "measured": psnr(run.network, run.test.images, run.device) - best,
        "control": ("untrained", psnr(run.start, run.test.images, run.device) - best),
    }
