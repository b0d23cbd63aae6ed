"""Samplers of the library diffusers on the book's denoisers, the rivals of Permenter & Yuan 2024
(chapter 8).

PNDM (Liu et al. 2022), DPM-Solver++ (Lu et al. 2022), DEIS (Zhang & Chen 2023) and UniPC (Zhao et
al. 2023) are there as schedulers. They live in x_t = sqrt(a) x + sqrt(1 - a) n and ask for the
noise; our denoisers live in y = x_t / sqrt(a) at sigma = sqrt((1 - a) / a) and return the image.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...checks import positive, positive_int
from ...denoisers.base import Denoiser
from ...sampling import State, vp_to_ve


@torch.no_grad()
def scheduled(
    scheduler: Any, denoiser: Denoiser, noise: Tensor, evaluations: int, unit: float = 1.0
) -> Iterator[State]:
    """A scheduler of diffusers that predicts the noise, as a sampler: `evaluations` calls of the
    denoiser, a `State` after each.

    It starts at sigma_0 noise, noise (batch, *event) standard normal and sigma_0 the scheduler's
    highest level. unit: of our intensities in theirs, 1/2 where ours span 1 and theirs 2; levels
    shrink alike. Raises ValueError where the scheduler cannot take that number of evaluations, or
    predicts something else.
    """
    if scheduler.config.prediction_type != "epsilon":
        raise ValueError(
            f"the scheduler takes {scheduler.config.prediction_type!r}: build it with "
            'prediction_type="epsilon"'
        )
    unit = positive("unit", unit, "take the ratio of our intensities to theirs")
    scheduler.set_timesteps(positive_int("evaluations", evaluations))
    if more := len(scheduler.timesteps) - evaluations:  # PNDM asks twice at one level
        scheduler.set_timesteps(positive_int("evaluations, less the one twice", evaluations - more))
    times = scheduler.timesteps
    if len(times) != evaluations:
        raise ValueError(
            f"evaluations is {evaluations}: this scheduler calls {len(times)} times, take that"
        )
    if hasattr(scheduler, "sigmas"):
        levels = scheduler.sigmas.double()
    else:
        a = torch.cat([scheduler.alphas_cumprod[times], scheduler.final_alpha_cumprod.view(1)])
        levels = vp_to_ve(a.double())
    shrink = 1 / torch.sqrt(1 + levels**2)
    x = (shrink[0] * levels[0]).to(noise) * noise
    for i, t in enumerate(times):
        sigma, y = levels[i].to(x), x / shrink[i].to(x)
        x_hat = denoiser(unit * y, unit * sigma) / unit
        x = scheduler.step((y - x_hat) / sigma, t, x).prev_sample.to(x)
        yield State(
            i + 1, unit * float(levels[i + 1]), unit * x / shrink[i + 1].to(x), unit * x_hat
        )
