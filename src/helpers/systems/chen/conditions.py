"""Inverse problems with conditions at several scales: latents whose renders meet what is known of
them.

After Chen et al. 2024, section 4.3, who guide the diffusion through renders of patches. Only the pixels
that a condition speaks of are rendered, so memory is that of the windows and not of the picture.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from ...checks import checked_seed, positive, positive_int
from ...denoisers import Denoiser
from .field_training import reduced
from .fields import GRID, Coder, Renderer

Field = tuple[Tensor, Tensor]
Condition = tuple[
    Callable[[Field], Tensor], Tensor
]  # a view of a field, and what it is known to be


def hollow(side: int, hole: int) -> Tensor:
    """A window of side x side pixels, 1 where it is known and 0 in the hole x hole in its middle."""
    mask, edge = torch.ones(side, side), (side - hole) // 2
    mask[edge : edge + hole, edge : edge + hole] = 0
    return mask


def two_scales(
    renderer: Renderer, pictures: Tensor, noise: float, seed: int = 0, coarse: int = 8,
    top: int = 40, left: int = 40, side: int = 48, hole: int = 24,
) -> tuple[Condition, Condition]:  # fmt: skip
    """What is known of pictures (b, size, size): all of them at coarse x coarse pixels, and a window at
    full size with a hole in its middle, each with white noise."""
    size, mask = pictures.shape[-1], hollow(side, hole).to(pictures)
    small = reduced(reduced(pictures, GRID), coarse)
    window = pictures[:, top : top + side, left : left + side]
    g = Generator().manual_seed(checked_seed(seed))
    small, window = (x + noise * torch.randn(x.shape, generator=g).to(x) for x in (small, window))
    return (
        (lambda field: reduced(field[1], coarse), small),
        (lambda field: mask * renderer(field, size, top, left, side, side), mask * window),
    )


def misfit(
    coder: Coder, conditions: Sequence[Condition], noise: float
) -> Callable[[Tensor], Tensor]:
    """sum |view(field) - known|^2 / (2 noise^2), a scalar of latents: minus the log-likelihood under
    white noise.

    conditions: pairs of a view, which takes a field to some of its pixels (`Renderer` with a window, or
    the fixed picture reduced), and the pixels that are known there, noise included.
    """
    positive("noise", noise, "it is the standard deviation of what is known")

    def loss(z: Tensor) -> Tensor:
        field = coder.field(z)
        total = sum(
            ((view(field) - known).square().sum() for view, known in conditions), z.sum() * 0
        )
        return total / (2 * noise**2)

    return loss


def conditioned(
    denoiser: Denoiser | None,
    loss: Callable[[Tensor], Tensor],
    z: Tensor,
    sigmas: Tensor,
    steps: int = 10,
    rate: float = 0.15,
    seed: int = 0,
) -> Tensor:
    r"""Latents that are likely and meet a condition, from noise z (batch, *event) of the first level, by
    turns of three at each level:

        x_hat = D(z, sigma),
        x = argmin loss(x) + |x - x_hat|^2 / (2 r^2),   r^2 = sigma^2 / (1 + sigma^2),
        z = x + sigma' n,

    with n normal, sigma' the next level, and the minimum approached by `steps` of Adam from the x of the
    level before. r^2 is the variance of standardised Gaussian latents given a noisy one; for these and
    a linear view the mean of what is returned is the mean given the condition, and the spread is too small:
    an estimate, and no sample of the posterior. (DiffPIR of Zhu et al. 2023, in a latent space.)

    denoiser=None: the control without one, x_hat = 0 and r = 1 throughout. Raises ValueError for levels
    that do not end in zero.
    """
    positive_int("steps", steps)
    if len(sigmas) < 2 or float(sigmas[-1]) != 0:
        raise ValueError(f"sigmas end in {sigmas[-1:].tolist()}: take a schedule that ends in 0")
    g, levels = Generator().manual_seed(checked_seed(seed)), sigmas.tolist()
    x: Tensor | None = None
    for sigma, after in zip(levels, levels[1:], strict=False):
        with torch.no_grad():
            x_hat = denoiser(z, z.new_full(z.shape[:1], sigma)) if denoiser else torch.zeros_like(z)
        pace = sigma / (1 + sigma**2) ** 0.5
        r = pace if denoiser else 1.0
        x = (x_hat if x is None else x).clone().requires_grad_()
        optimiser = torch.optim.Adam([x], lr=rate * max(pace, 0.05))
        with torch.enable_grad():
            for _ in range(steps):
                optimiser.zero_grad()
                (loss(x) + (x - x_hat).square().sum() / (2 * r**2)).backward(inputs=[x])
                optimiser.step()
        x = x.detach()
        z = x + after * torch.randn(z.shape, generator=g).to(z)
    return z


def kept_bytes(function: Callable[[], Tensor]) -> int:
    """Bytes that torch keeps for the gradient of what a function returns, each storage once; weights
    count too."""
    there: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        there[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
        made = function()
    del made
    return sum(there.values())
