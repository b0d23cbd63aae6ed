"""Tables that compare denoisers, and whether a denoiser can be a score."""

from collections.abc import Mapping, Sequence

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from ...checks import as_array, positive, positive_int, widened
from ...denoisers.base import Denoiser

SEVERAL = 1.959964  # standard errors in half a 95 % interval


def psnr(x_hat: Tensor, x: Tensor) -> Tensor:
    """-10 log10 of the mean squared error of images (n, H, W), in dB, (n,)."""
    return -10 * widened(x_hat - x).square().mean((1, 2)).log10()


def ssim(x_hat: Tensor, x: Tensor) -> Tensor:
    """The structural similarity of Wang et al. (2004) of images (n, H, W) in [0, 1], (n,).

    Their weights, a Gaussian of 1.5 pixels, by scikit-image; x_hat is taken as it is.
    """
    how = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pairs = zip(as_array(x_hat), as_array(x), strict=True)
    return torch.tensor([structural_similarity(a, b, data_range=1.0, **how) for a, b in pairs])


@torch.no_grad()
def scores(
    denoisers: Mapping[str, Denoiser], x: Tensor, sigmas: Sequence[float], seed: int
) -> dict[str, Tensor]:
    """PSNR in dB and SSIM of every denoiser on images x (n, H, W), each (2, n, levels), and of
    "noisy"; the noise from `seed`."""
    g = torch.Generator().manual_seed(seed)
    found: dict[str, list[Tensor]] = {}
    for sigma in sigmas:
        y = x + sigma * torch.randn(x.shape, generator=g).to(x)
        answers = {"noisy": y} | {name: denoiser(y, sigma) for name, denoiser in denoisers.items()}
        for name, x_hat in answers.items():
            pair = torch.stack([psnr(x_hat, x).cpu(), ssim(x_hat, x)])
            found.setdefault(name, []).append(pair)
    return {name: torch.stack(rows, 2) for name, rows in found.items()}


def compare(
    denoisers: Mapping[str, Denoiser], x: Tensor, sigmas: Sequence[float], seed: int
) -> dict[str, Tensor]:
    """The PSNR of `scores` alone, each (n, levels)."""
    return {name: pair[0] for name, pair in scores(denoisers, x, sigmas, seed).items()}


def interval(values: Tensor) -> tuple[float, float]:
    """Mean of independent values (n,), n >= 2, and half the width of its 95 % interval."""
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"values have shape {tuple(values.shape)}: pass (n,) with n >= 2")
    return float(values.mean()), float(SEVERAL * values.std() / len(values) ** 0.5)


@torch.no_grad()
def no_gradient(
    denoiser: Denoiser, y: Tensor, sigma: float, pairs: int = 32, step: float = 1e-4, seed: int = 0
) -> float:
    r"""|J - J^T| / |J| of the Jacobian J at one image y (1, H, W), Frobenius norms, estimated.

    With u, v standard normal the means of (u J v - v J u)^2 and of (u J v)^2 are the two norms
    squared; J v is a central difference of length `step` sigma, so that what cannot be
    differentiated counts by its slope over that distance. 0 where D is a gradient, as a score must
    be; about sqrt(2) for a matrix of independent entries. Proved: `prop-prox`.
    """
    positive("step", step, "pass a positive share of the noise level")
    g = torch.Generator().manual_seed(seed)
    y, h = widened(y), step * sigma
    skew, size = 0.0, 0.0
    for _ in range(positive_int("pairs", pairs)):
        u, v = torch.randn((2, *y.shape), generator=g, dtype=y.dtype).to(y)
        jv, ju = (
            (denoiser(y + h * w, sigma) - denoiser(y - h * w, sigma)) / (2 * h) for w in (v, u)
        )
        one, other = float((u * jv).sum()), float((v * ju).sum())
        skew, size = skew + (one - other) ** 2, size + (one**2 + other**2) / 2
    return (skew / size) ** 0.5
