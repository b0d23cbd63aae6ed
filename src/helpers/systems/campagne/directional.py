"""Bases that follow edges: curvelets, and an orthonormal basis that is chosen for the image.

Curvelets (Candes & Donoho 2004): the uniform discrete transform (Nguyen & Chauris 2010) of the
package `curvelets`. Directional Haar: in each square of a dyadic partition the pixels are put in
the order of one direction and transformed by Haar's wavelets, bandelets (Le Pennec & Mallat 2005,
Peyre & Mallat 2008) on pixels, on Donoho's (1999) tree of squares.
"""

import math
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import torch
from curvelets.numpy import UDCT
from torch import Tensor

from ...checks import as_array, as_tensor, checked_points, positive, positive_int
from ...denoisers.base import Denoiser, per_level

LEAST, MOST = 4, 32  # side of the smallest square; directions of a square at most


def horizons(n: int, alpha: float, size: int = 256, seed: int = 0) -> Tensor:
    r"""Images that are 0 above a contour of regularity alpha and 1 below it, float64 (n, size,
    size).

    The contour's height is size / 2 + size / 10 sum_k k^(-alpha - 1/2) (a_k cos + b_k sin)(2 pi k
    column / size), a and b standard normal: just not in the Sobolev space H^alpha. A pixel is the
    share of it that lies below, by the height in the middle of its column. Proved: `prop-squares`.
    """
    size = positive_int("size", size)
    positive("alpha", alpha, "a regularity is positive and finite")
    k = torch.arange(1, size // 2, dtype=torch.float64)
    g = torch.Generator().manual_seed(seed)
    waves = 0.1 * torch.randn(positive_int("n", n), 2, len(k), generator=g, dtype=torch.float64)
    turn = 2 * math.pi / size * k[:, None] * torch.arange(size)
    a, b = (waves * k ** (-alpha - 0.5)).unbind(1)
    height = size * (0.5 + a @ turn.cos() + b @ turn.sin())
    return (torch.arange(1, size + 1)[:, None] - height[:, None]).clamp(0, 1)


# Curvelets ----------------------------------------------------------------------------------------


@lru_cache(8)
def curvelet_frame(shape: tuple[int, int], scales: int = 4) -> tuple[UDCT, list[float]]:
    r"""The transform of periodic images of that shape, and the norm of the atoms of each band.

    A tight frame, sum_k |<x, e_k>|^2 = ||x||^2, with twice as many complex coefficients as pixels;
    the directions double at every second scale, so that the length of an atom is the root of its width.
    The atoms of a band are shifts of one another, so its coefficients v of an image of one white
    pixel tell their norm, ||e||^2 = pixels mean |v|^2, and sigma ||e|| is what noise adds to such a
    coefficient. Proved: `prop-frame`.
    """
    pixel = np.zeros(shape)
    pixel[0, 0] = 1
    wedges = [[3 * 2 ** (i // 2)] * 2 for i in range(scales - 1)]  # the library's own would double
    transform = UDCT(shape, angular_wedges_config=np.array(wedges))  # at every scale
    forward: Any = transform.forward(pixel)
    bands = (v for scale in forward for axis in scale for v in axis)
    return transform, [float(np.sqrt(pixel.size * np.mean(np.abs(v) ** 2))) for v in bands]


def curvelets_kept(
    y: np.ndarray, least: float, scales: int = 4, clean: np.ndarray | None = None
) -> np.ndarray:
    """One periodic image after hard thresholding: coefficients of more than `least` norms stay, and
    the coarse scale.

    clean: an oracle's image, float64 as y, whose coefficients decide instead (at every scale).
    """
    transform, norms = curvelet_frame(y.shape, scales)
    bands: Any = transform.forward(y)  # arrays in lists of lists
    judged: Any = bands if clean is None else transform.forward(clean)
    level = iter(norms)
    for scale, (kept, by) in enumerate(zip(bands, judged, strict=True)):
        for values, sizes in zip(kept, by, strict=True):
            for i, size in enumerate(sizes):
                bound = least * next(level)
                if scale or clean is not None:
                    values[i] = np.where(np.abs(size) > bound, values[i], 0)
    return np.asarray(transform.backward(bands))


def mirrored(x: np.ndarray) -> np.ndarray:
    """Images (n, H, W) continued evenly to (n, 2 H, 2 W), of which the periodic continuation has no
    seam."""
    return np.pad(x, ((0, 0), (0, x.shape[1]), (0, x.shape[2])), "symmetric")


class Curvelets(Denoiser):
    """Hard thresholding of curvelet coefficients, each against its own noise level; the coarse
    scale stays.

    y (batch, H, W), sides that 2^scales / 4 divides (twice that without mirror), even. threshold in
    noise levels. mirror: of the image continued evenly; otherwise periodically, with a seam. shifts:
    the mean over so many along each axis. Proved: `prop-units`, `prop-frame`.
    """

    def __init__(
        self, threshold: float = 2.5, scales: int = 4, mirror: bool = True, shifts: int = 1
    ):
        super().__init__()
        self.threshold, self.mirror = _threshold(threshold), mirror
        self.scales, self.shifts = positive_int("scales", scales), positive_int("shifts", shifts)
        if scales < 2:
            raise ValueError("scales is 1: take at least 2, a coarse one and one of curvelets")

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        part = max(2 ** (self.scales - 1), 4) // (1 + self.mirror)
        if y.ndim != 3 or y.shape[1] % part or y.shape[2] % part:
            raise ValueError(
                f"y has shape {tuple(y.shape)}: pass gray images (batch, H, W) with sides divisible by {part}"
            )
        return per_level(y, sigma, self._images)

    def _images(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        x = as_array(y)
        x, out = mirrored(x) if self.mirror else x, np.zeros_like(x)
        least = self.threshold * float(sigma)
        steps = [i * 2 ** (self.scales - 1) // self.shifts for i in range(self.shifts)]
        for image, mean in zip(x, out, strict=True):
            total = np.zeros_like(image)
            for shift in product(steps, steps):
                kept = curvelets_kept(np.roll(image, shift, (0, 1)), least, self.scales)
                total += np.roll(kept, (-shift[0], -shift[1]), (0, 1))
            mean[:] = total[: mean.shape[0], : mean.shape[1]] / self.shifts**2
        return as_tensor(out, y)


# Haar along directions ----------------------------------------------------------------------------


def haar(v: Tensor) -> Tensor:
    """Coefficients of signals (..., n) in Haar's orthonormal basis, n a power of two, the mean
    first."""
    details = []
    while v.shape[-1] > 1:
        a, b = v[..., ::2], v[..., 1::2]
        details.append((a - b) * math.sqrt(0.5))
        v = (a + b) * math.sqrt(0.5)
    return torch.cat([v, *reversed(details)], -1)


def signals(c: Tensor) -> Tensor:
    """The inverse of `haar`."""
    v = c[..., :1]
    while (n := v.shape[-1]) < c.shape[-1]:
        d = c[..., n : 2 * n]
        v = torch.stack([v + d, v - d], -1).flatten(-2) * math.sqrt(0.5)
    return v


@lru_cache(32)
def orders(side: int) -> Tensor:
    """The pixels of a square in the order of each of its directions, min(2 side, 32) of them,
    (directions, side^2).

    In direction theta by row sin(theta) + column cos(theta), and where that is equal along the
    line.
    """
    at = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    theta = torch.arange(min(2 * side, MOST), dtype=torch.float64)[:, None, None]
    theta = theta * math.pi / len(theta)
    across = theta.sin() * at[:, None] + theta.cos() * at
    along = theta.cos() * at[:, None] - theta.sin() * at
    # ties are decided by `along`, not by the last bit
    return (1e4 * (1e6 * across).round() + along).flatten(1).argsort(dim=1, stable=True)


def directional(
    x: Tensor, least: float, most: int = 16, price: float = 1.0, smallest: int = LEAST
) -> tuple[Tensor, Tensor]:
    r"""The best of all partitions of images (n, H, W) into dyadic squares with a direction each:

        min sum_k min(c_k^2, least^2) + price least^2 for each square,

    c the coefficients by Haar's wavelets along the direction, and the image of those with |c_k| >
    least: (n,) and (n, H, W). Squares have sides `smallest`, twice that, ..., at most `most`; the
    largest must divide H and W. For x + sigma noise, least = t sigma it is a denoiser; for the
    clean x, least = sigma, price 0 the minimum is the least of the oracle's m(x) over all bases.
    Every partition with its directions is an orthonormal basis. Proved: `prop-squares`.
    """
    height, width = checked_points(x, "x").shape[1:]
    if x.ndim != 3 or height % most or width % most or not _dyadic(most, smallest):
        raise ValueError(
            f"x has shape {tuple(x.shape)}: pass images (n, H, W) with sides divisible by {most}, {smallest} times "
            "a power of two"
        )
    side, best, kept = smallest, torch.zeros(()), x
    while side <= most:
        squares = x.unfold(1, side, side).unfold(2, side, side).flatten(3)
        cost = squares.new_full(squares.shape[:3], math.inf)
        choice = torch.zeros_like(cost, dtype=torch.long)
        for i, order in enumerate(orders(side)):
            found = haar(squares[..., order]).square_().clamp_(max=least**2).sum(-1)
            choice[found < cost] = i
            cost = torch.minimum(cost, found)
        cost += price * least**2
        order = orders(side)[choice]
        c = haar(squares.gather(-1, order))
        c[c.abs() <= least] = 0
        c = torch.empty_like(c).scatter_(-1, order, signals(c))
        whole = c.unflatten(-1, (side, side)).transpose(2, 3).reshape(x.shape)
        if side > smallest:
            best = best.unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).sum((2, 4))
            larger = cost <= best
            where = larger.repeat_interleave(side, 1).repeat_interleave(side, 2)
            cost, whole = torch.minimum(cost, best), torch.where(where, whole, kept)
        best, kept, side = cost, whole, 2 * side
    return best.sum((1, 2)), kept


class DirectionalHaar(Denoiser):
    """The image of `directional`, its mean over shifts x shifts shifts of the squares (at the frame
    the image is mirrored).

    y (batch, H, W). threshold in noise levels. Proved: `prop-units`.
    """

    def __init__(self, threshold: float = 4.0, shifts: int = 3, most: int = 16):
        super().__init__()
        self.threshold, self.shifts = _threshold(threshold), positive_int("shifts", shifts)
        self.most = positive_int("most", most)
        if not _dyadic(most, LEAST):
            raise ValueError(f"most is {most}: take {LEAST} times a power of two")

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        if y.ndim != 3:
            raise ValueError(f"y has shape {tuple(y.shape)}: pass gray images (batch, H, W)")
        return per_level(y, sigma, self._images)

    def _images(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        x, (height, width) = as_array(y), y.shape[1:]
        total = np.zeros_like(x)
        for shift in product(range(0, self.most, -(-self.most // self.shifts)), repeat=2):
            ends = [
                (a, -(side + a) % self.most) for a, side in zip(shift, (height, width), strict=True)
            ]
            z = torch.from_numpy(np.pad(x, ((0, 0), *ends), "symmetric"))
            kept = directional(z, self.threshold * float(sigma), self.most)[1]
            total += kept[:, shift[0] :, shift[1] :][:, :height, :width].numpy()
        return as_tensor(total / self.shifts**2, y)


def _threshold(value: float) -> float:
    if not 0 <= value < math.inf:
        raise ValueError(f"threshold is {value}: give it in noise levels, from 0 on")
    return value


def _dyadic(most: int, smallest: int) -> bool:
    return (
        most >= smallest > 0
        and (most // smallest * smallest == most)
        and ((most // smallest) & (most // smallest - 1) == 0 and smallest & (smallest - 1) == 0)
    )
