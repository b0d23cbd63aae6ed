"""Measures: distances between samples, copies of training points, divergence, PSNR."""

import math
import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .checks import checked_points, positive_int, widened


def finite(y: Tensor) -> Tensor:
    """The rows of y (batch, *event) that have not diverged."""
    return y[y.flatten(1).isfinite().all(1)]


def diverged(y: Tensor) -> int:
    """How many rows a sampler has marked as diverged (NaN). Proved: `prop-escape`."""
    return len(y) - len(finite(y))


def transport() -> Any:
    """POT, imported where it is used: it is slow to import, and little here needs it.

    Told to leave out TensorFlow, JAX and CuPy, which it would import wherever they are installed.
    """
    for name in ("TENSORFLOW", "JAX", "CUPY"):
        os.environ.setdefault(f"POT_BACKEND_DISABLE_{name}", "1")
    import ot

    return ot


def sliced_w2(x: Tensor, y: Tensor, projections: int | Tensor = 200, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance of two samples (n, d), (m, d), in their units (POT; Bonneel et
    al. 2015).

    projections: how many random directions, or the directions themselves as the columns (d, k) of
    unit length.
    """
    ot = transport()
    x, y = _both(x, y)
    if isinstance(projections, Tensor):
        return float(
            ot.sliced_wasserstein_distance(x, y, projections=projections.numpy(force=True), p=2)
        )
    return float(
        ot.sliced_wasserstein_distance(
            x, y, n_projections=positive_int("projections", projections), p=2, seed=seed
        )
    )


def exact_w2(x: Tensor, y: Tensor) -> float:
    """Exact 2-Wasserstein distance of two samples of at most a few thousand points, in their units
    (POT).

    In high dimension it is dominated by sampling noise: compare with the distance of two samples of
    the target. Proved: `prop-strangers`.
    """
    ot = transport()
    x, y = _both(x, y)
    if len(x) * len(y) > 25_000_000:
        raise ValueError(
            f"{len(x)} x {len(y)} points: exact transport is quadratic in memory, use sliced_w2"
        )
    plan_cost = ot.emd2(ot.unif(len(x)), ot.unif(len(y)), ot.dist(x, y), numItermax=2_000_000)
    return math.sqrt(max(float(plan_cost), 0.0))  # rounding of equal samples


def _both(x: Tensor, y: Tensor) -> tuple[np.ndarray, np.ndarray]:
    x, y = checked_points(x, "x").flatten(1).cpu(), checked_points(y, "y").flatten(1).cpu()
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x has dimension {x.shape[1]}, y has {y.shape[1]}: the samples must live in one space"
        )
    return x.double().numpy(force=True), y.double().numpy(force=True)


def nearest(samples: Tensor, training: Tensor, k: int = 2) -> tuple[Tensor, Tensor]:
    """Euclidean distances to the k nearest distinct training points, ascending, and their indices,
    both (batch, k).

    Equal training points count once, by the first of them: the second nearest is another point, not
    the same again.
    """
    samples, training = (
        checked_points(samples, "samples").flatten(1),
        checked_points(training, "training").flatten(1),
    )
    if samples.shape[1] != training.shape[1]:
        raise ValueError(
            f"samples have dimension {samples.shape[1]}, training {training.shape[1]}: they must live in one space"
        )
    kept = (
        torch.arange(len(training), device=samples.device)
        if k == 1
        else _first_of_equals(training).to(samples.device)
    )
    if not 1 <= k <= len(kept):
        raise ValueError(
            f"k is {k} with {len(kept)} distinct training points: choose 1 to {len(kept)}, or pass at least {max(k, 1)}"
        )
    exact = torch.cdist(
        samples, training.to(samples)[kept], compute_mode="donot_use_mm_for_euclid_dist"
    )
    distances, places = exact.topk(k, largest=False)
    return distances, kept[places]


def _first_of_equals(points: Tensor) -> Tensor:
    """Indices, ascending, of the rows that equal no earlier row; on the CPU."""
    distinct, group = torch.unique(points.cpu(), dim=0, return_inverse=True)
    first = torch.full((len(distinct),), len(points))
    return first.scatter_reduce(0, group, torch.arange(len(points)), "amin").sort().values


def is_copy(samples: Tensor, training: Tensor, ratio: float = 1 / 3) -> Tensor:
    """Which samples are copies: nearest distance < ratio x second-nearest distance (Yoon et al.
    2023; Gu et al. 2023).

    Boolean (batch,). Needs at least two distinct training points; `nearest` says how equal ones
    count. Its mean is the share of copies. Proved: `prop-chance`.
    """
    if not 0 < ratio <= 1:
        raise ValueError(f"ratio is {ratio}: choose a number in (0, 1], the papers take 1/3")
    distances, _ = nearest(samples, training, k=2)
    return distances[:, 0] < ratio * distances[:, 1]


def share_of_copies(samples: Tensor, training: Tensor, ratio: float = 1 / 3) -> float:
    """Share of the samples that did not diverge that are copies, in [0, 1]; NaN when all diverged.

    >>> training = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    >>> share_of_copies(torch.tensor([[0.1, 0.0], [0.5, 0.0]]), training)
    0.5
    """
    kept = finite(samples)
    return int(is_copy(kept, training, ratio).sum()) / len(kept) if len(kept) else math.nan


def kurtosis(x: Tensor) -> float:
    """Fourth standardised moment E[(x - m)^4] / Var^2 of one coordinate: 3 for a Gaussian, 1 for
    two points."""
    if x.numel() != len(x):
        raise ValueError(
            f"x has shape {tuple(x.shape)}: pass a one-dimensional sample, one column at a time"
        )
    z = widened(x).flatten() - widened(x).mean()
    return float((z**4).mean() / (z**2).mean() ** 2)


def psnr(x_hat: Tensor, x: Tensor) -> float:
    """Mean over images of 10 log10(1 / MSE) in dB, for intensities in [0, 1] (as in Kadkhodaie et
    al. 2024).

    >>> round(psnr(torch.full((1, 4, 4), 0.1), torch.zeros(1, 4, 4)), 2)
    20.0
    """
    if x_hat.shape != x.shape:
        raise ValueError(
            f"x_hat has shape {tuple(x_hat.shape)}, x has {tuple(x.shape)}: pass batches of the same shape"
        )
    mse = (x_hat - x).flatten(1).square().mean(1)
    return float((-10 * mse.log10()).mean())


def pearson(a: Tensor, b: Tensor) -> Tensor:
    r"""Pearson's r of the pixels of each pair of images, (batch,), in [-1, 1]; symmetric.

        r = <a - mean a, b - mean b> / (|a - mean a| |b - mean b|),
        the mean over all pixels of one image.

    The "correlation" of Kamb & Ganguli (ICML 2025). Their text calls it r^2, their released code
    computes r, unsquared, and r^2 is the smaller: square it before comparing with one. It does not
    see brightness and contrast: r = 1 for b = 2 a + 3. Images share their mean picture, so r of two
    unrelated images of one class is not 0: compare with that.
    NaN where an image is constant: it has no direction. a, b (batch, *event) of one shape.
    """
    x, y = _pairs(a, b)
    constant = (x.amin(1) == x.amax(1)) | (y.amin(1) == y.amax(1))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return torch.where(constant, torch.nan, (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1)))


def similarity(a: Tensor, b: Tensor, centred: bool = True) -> Tensor:
    r"""Cosine of the angle between every image of one batch and every image of another, (n, m), in
    [-1, 1].

        <a, b> / (|a| |b|),
        centred: after each image's own mean has been taken off, which makes it Pearson's r.

    Kadkhodaie et al. (2024) write the first ("normalized inner product", Fig. 2); their released
    code has both, and removes repeats by the second. Intensities are positive, so uncentred two
    unrelated images are alike already: say which one is meant. NaN where an image has no direction.
    a (n, *event), b (m, *event).
    """
    if a.shape[1:] != b.shape[1:] or a.ndim < 2:
        raise ValueError(
            f"shapes {tuple(a.shape)} and {tuple(b.shape)}: pass images of one shape, (n, ...) and (m, ...)"
        )
    x, y = (widened(t.flatten(1)) for t in (a, b))
    if centred:  # a constant image less its rounded mean is not quite 0
        x, y = (
            torch.where(t.amin(1) == t.amax(1), 0.0, (t - t.mean(1, keepdim=True)).T).T
            for t in (x, y)
        )
    return (x / x.norm(dim=1, keepdim=True)) @ (y / y.norm(dim=1, keepdim=True)).T


def patch_sources(
    samples: Tensor, training: Tensor, side: int, blank: float = 0.0
) -> tuple[Tensor, Tensor]:
    """From which training image does each patch come? Indices and similarities, both (n, patches).

    Patches of side x side pixels side by side, each compared (centred) with the patches at the same
    place of all training images. Patches whose standard deviation is at most `blank` show nothing
    that could come from anywhere: they are -1 and NaN. With all indices equal a sample is
    one training image; with several at similarities near 1 it is a mosaic. samples (n, h, w),
    training (N, h, w); after a helper in the released code of Kadkhodaie et al. (2024).
    """
    h, w = samples.shape[-2:]
    if not 2 <= side <= min(h, w) or h % side or w % side:
        raise ValueError(
            f"side is {side}: choose a divisor of the image's {h} x {w} pixels, at least 2"
        )
    # of equal ones rounding would choose
    kept = _first_of_equals(training.flatten(1)).to(training.device)
    patches = (t.unfold(-2, side, side).unfold(-2, side, side) for t in (samples, training[kept]))
    a, b = (t.flatten(1, 2).transpose(0, 1) for t in patches)
    alike = torch.stack([similarity(x, y) for x, y in zip(a, b, strict=True)], 1)  # (n, patches, N)
    best, index = alike.nan_to_num(-torch.inf).max(-1)
    empty = best.isinf() | (a.flatten(2).std(2).T <= blank)
    return kept[index].masked_fill(empty, -1), best.masked_fill(empty, torch.nan)


def determination(estimate: Tensor, reference: Tensor) -> Tensor:
    r"""Coefficient of determination of each estimate, (batch,), at most 1 and without lower bound;
    not symmetric.

        R^2 = 1 - sum_p (estimate_p - reference_p)^2 / (n Var reference),
        n Var = sum_p (reference_p - mean)^2.

    The measure of Lukoianov et al. (NeurIPS 2025), here for each image by itself, n pixels. It is
    not the square of `pearson`: it does see brightness and contrast, R^2 <= r^2 with equality only
    for the best affine map of one to the other, and it is negative where the reference's mean gray
    would be the better estimate. NaN where the reference is constant. estimate, reference (batch,
    *event) of one shape.
    """
    x, y = _pairs(estimate, reference)
    constant = y.amin(1) == y.amax(1)
    spread = (y - y.mean(1, keepdim=True)).square().sum(1)
    return torch.where(constant, torch.nan, 1 - (x - y).square().sum(1) / spread)


def _pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both as rows, float64 where there is float64."""
    if a.shape != b.shape or a.ndim < 2:
        raise ValueError(
            f"shapes {tuple(a.shape)} and {tuple(b.shape)}: pass two batches of one shape (batch, *event)"
        )
    return widened(a.flatten(1)), widened(b.flatten(1))
