"""Images of known geometry: the parts of C^alpha images, fixed bases to denoise them in, vectors
along their contours.

After Kadkhodaie et al. 2024, section 3.2 and appendix E; the errors of shrinkage in a basis are
those of Mallat, *A Wavelet Tour of Signal Processing* (2009), chapter 11.
"""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pywt
import torch
from scipy.fft import dctn
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from .checks import as_array, as_tensor, checked_points, positive_int, widened
from .data.synthetic import c_alpha_drawn
from .realism import radii

# The class ----------------------------------------------------------------------------------------


class Parts(NamedTuple):
    """What `c_alpha` puts together.

    rows (n, size): in each column the first row that belongs to background 0. In the released
    variant the mask is 1/2 there. backgrounds (n, 2, size, size) over the whole frame: 0 below the
    contour, 1 above it. powers (n, 2): the expected power of either background in the orthonormal
    Fourier transform, at |k| <= 1; elsewhere |k|^(-2 beta) of it.
    """

    rows: Tensor
    backgrounds: Tensor
    powers: Tensor


def c_alpha_parts(
    n: int,
    alpha: float,
    beta: float | None = None,
    size: int = 80,
    variant: str = "released",
    seed: int = 0,
) -> Parts:
    """Contours and backgrounds of `c_alpha` with the same arguments, from the same random numbers."""
    size = positive_int("size", size)
    numbers = [size, 2 * size**2, 2]

    def parts(rows: Tensor, backgrounds: Tensor, stretch: Tensor) -> Tensor:
        power = stretch.flatten(1).square() / 12  # 1/12: of U[-1/2, 1/2]
        return torch.cat([rows.float(), backgrounds.flatten(1), power], 1)

    drawn = c_alpha_drawn(parts, (sum(numbers),), n, alpha, beta, size, variant, seed, "cpu")
    rows, backgrounds, powers = drawn.split(numbers, 1)
    return Parts(rows.long(), backgrounds.unflatten(1, (2, size, size)), powers)


def informed_risk(parts: Parts, beta: float, sigma: float) -> Tensor:
    r"""Squared error of a denoiser that is told the contour and sees both backgrounds whole, each
    under noise, (n,).

        sum_i share_i sum_k S_i(k) sigma^2 / (S_i(k) + sigma^2),
        S_i(k) = powers_i max(|k|, 1)^(-2 beta),

    Wiener's filter, the best linear one, on each background; share_i of the pixels show it. A
    denoiser of the image knows less. So this is a floor for its error, but for what a non-linear
    denoiser could make of backgrounds that are not quite Gaussian, and of the pixels at the contour
    that mix both. Proved: `prop-filtered`.
    """
    size = parts.rows.shape[1]
    power = parts.powers.double()[..., None] * radii(size).clamp(min=1).flatten() ** (-2 * beta)
    errors = (power * sigma**2 / (power + sigma**2)).sum(-1)
    below = (size - parts.rows.clamp(0, size)).double().mean(1) / size
    return below * errors[:, 0] + (1 - below) * errors[:, 1]


# Fixed bases --------------------------------------------------------------------------------------


def risk(coefficients: Tensor, factors: Tensor, sigma: float) -> Tensor:
    r"""Expected squared error of shrinkage in an orthonormal basis, for each row of coefficients
    (n, *event), (n,):

        sum_k (1 - factor_k)^2 c_k^2 + factor_k^2 sigma^2,

    c the coefficients of the clean image. factors broadcast against c and must not depend on the
    noise.
    """
    c2 = widened(checked_points(coefficients, "coefficients")).square()
    return ((1 - factors) ** 2 * c2 + factors**2 * _level(sigma) ** 2).flatten(1).sum(1)


def oracle_risk(coefficients: Tensor, sigma: float) -> Tensor:
    r"""The least `risk` of all factors, (n,): sum_k sigma^2 c_k^2 / (c_k^2 + sigma^2), at c_k^2 /
    (c_k^2 + sigma^2).

    It lies between half of sum_k min(c_k^2, sigma^2) and the whole of it. No denoiser knows these
    factors. Proved: `thm-terms`, `prop-oracle`, `thm-power`.

    >>> oracle_risk(torch.tensor([[3.0, 0.0]]), 1.0)  # 9 / (9 + 1)
    tensor([0.9000], dtype=torch.float64)
    """
    c2 = widened(checked_points(coefficients, "coefficients")).square()
    return risk(coefficients, c2 / (c2 + _level(sigma) ** 2), sigma)


def cosines(images: Tensor) -> Tensor:
    """Coefficients of images (n, H, W) in the orthonormal cosine basis (DCT-II), float64 (n, H, W).

    Fourier's basis for images that do not go on periodically beyond their frame.
    """
    return as_tensor(dctn(_squares(images), axes=(1, 2), norm="ortho"), images)


def wavelets(images: Tensor, wavelet: str = "db2", levels: int = 4) -> Tensor:
    """Coefficients of images (n, H, W) in an orthonormal basis of periodic wavelets (PyWavelets),
    float64 (n, H W).

    Raises ValueError for a wavelet that is not orthogonal, and sides that 2^levels does not divide.
    Proved: `prop-sparse`.
    """
    x = _divisible(images, wavelet, levels)
    with warnings.catch_warnings():
        # that the coarsest wavelets are wider than the frame: they are periodic
        warnings.simplefilter("ignore")
        coarse, *details = pywt.wavedec2(x, wavelet, "periodization", levels, axes=(1, 2))
    parts = [coarse, *(band for bands in details for band in bands)]
    return as_tensor(np.concatenate([p.reshape(len(x), -1) for p in parts], 1), images)


def cycle_spun(
    y: Tensor, sigma: float, wavelet: str = "db2", levels: int = 4, threshold: float = 3.0
) -> Tensor:
    r"""Noisy images y (n, H, W) denoised by setting wavelet coefficients below threshold sigma to
    zero, float64.

    The mean over all 2^levels x 2^levels shifts of: shift, threshold the details in the basis of
    `wavelets`, shift back (Coifman & Donoho 1995), computed as one undecimated transform.
    """
    x = _divisible(y, wavelet, levels)
    coarse, *details = pywt.swt2(x, wavelet, levels, axes=(1, 2), trim_approx=True)
    least = threshold * _level(sigma)
    kept = [tuple(np.where(np.abs(band) > least, band, 0) for band in bands) for bands in details]
    return as_tensor(pywt.iswt2([coarse, *kept], wavelet, axes=(1, 2)), y)


def slope(x: Tensor, y: Tensor) -> Tensor:
    """Least-squares slope of each row of y (n, m) on x (m,), (n,)."""
    if x.ndim != 1 or len(x) < 2 or y.ndim != 2 or y.shape[1] != len(x):
        raise ValueError(
            f"x {tuple(x.shape)}, y {tuple(y.shape)}: pass (m,) with m >= 2 and (n, m)"
        )
    centred = widened(x) - widened(x).mean()
    return (widened(y) * centred).sum(1) / centred.square().sum()


# Along a contour ----------------------------------------------------------------------------------


def near(rows: Tensor, reach: float = 2.0) -> Tensor:
    """The pixels of a square image at most `reach` pixels from the contour `rows` (size,), boolean
    (size, size).

    The contour is one pixel in each column, and where the next column's is more than one row away
    also those between.
    """
    size = len(_rows(rows))
    low, high = torch.minimum(rows[:-1], rows[1:]), torch.maximum(rows[:-1], rows[1:])
    row = torch.arange(size, device=rows.device)[:, None]
    shown = torch.zeros(size, size, dtype=torch.bool, device=rows.device)
    shown[:, :-1] = (row >= low) & (row < high)
    shown |= row == rows
    if not shown.any():
        raise ValueError(
            "the contour lies outside of the frame: there is nothing near it, choose another image"
        )
    return torch.from_numpy(distance_transform_edt(~shown.numpy(force=True)) <= reach).to(
        rows.device
    )


def oscillation(vectors: Tensor, rows: Tensor, reach: int = 2) -> tuple[Tensor, Tensor]:
    r"""Frequencies of images (k, size, size) along and across a contour, `rows` (size,), in periods
    an image: two (k,).

    The band of 2 reach + 1 rows around the contour is straightened, E(d, c) = e(rows[c] + d, c).
    Over the pairs (a, b) of neighbours in c (along), or in d (across),

        frequency = size / pi arcsin( sqrt(R) / 2 ),   R = sum (a - b)^2 / sum (a^2 + b^2) / 2:

    w for a wave of w periods, size / 4 for white noise, at most size / 2. Pixels outside of the
    frame are left out.
    """
    x, size = widened(checked_points(vectors, "vectors")), len(_rows(rows))
    if x.shape[1:] != (size, size):
        raise ValueError(
            f"vectors have shape {tuple(x.shape)}: pass (k, {size}, {size}), as the contour"
        )
    at = rows + torch.arange(-positive_int("reach", reach), reach + 1, device=rows.device)[:, None]
    inside = (at >= 0) & (at < size)
    band = x[:, at.clamp(0, size - 1), torch.arange(size, device=rows.device)]

    def frequency(a: Tensor, b: Tensor, both: Tensor) -> Tensor:
        differences, squares = (
            ((a - b).square() * both).sum((1, 2)),
            ((a.square() + b.square()) * both).sum((1, 2)),
        )
        return size / math.pi * torch.asin((differences / squares / 2).sqrt())

    along = frequency(band[:, :, 1:], band[:, :, :-1], inside[:, 1:] & inside[:, :-1])
    return along, frequency(band[:, 1:], band[:, :-1], inside[1:] & inside[:-1])


# ColorBrewer's RdBu: white at zero, where Plotly's scale of that name is gray
SIGNED = [[0, "#2166ac"], [0.5, "#f7f7f7"], [1, "#b2182b"]]


def walk(
    vectors: Sequence[Tensor], contours: Sequence[Tensor], levels: int = 9
) -> list[list[dict]]:
    """Frames for `plots.Slider`: in frame k the k-th of each stack of `vectors`, the contour drawn
    over it.

    vectors: stacks (count, size, size), a panel each; contours: rows (size,) for each. Values are
    rounded to `levels` steps on either side of zero, so that a page stays light. Panel i, from 1,
    has Plotly's axes i: see `plots.panel_layout`.
    """
    frames: list[list[dict]] = [[] for _ in vectors[0]]
    for i, (stack, rows) in enumerate(zip(vectors, contours, strict=True), 1):
        axes = {"xaxis": f"x{i}", "yaxis": f"y{i}", "showlegend": False, "hoverinfo": "skip"}
        colours = {"zmin": -levels, "zmax": levels, "colorscale": SIGNED, "showscale": False}
        line = {"type": "scatter", "mode": "lines", "line": {"color": "#222222", "width": 1}}
        shown = rows.clamp(0, len(rows) - 1).tolist()
        for frame, e in zip(frames, stack, strict=True):
            z = (levels * e / e.abs().max()).round().int().tolist()
            frame.append({"type": "heatmap", "z": z, **colours, **axes})
            frame.append({**line, "x": list(range(len(rows))), "y": shown, **axes})
    return frames


def _level(sigma: float) -> float:
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma is {sigma}: the noise level must be positive and finite")
    return sigma


def _squares(images: Tensor) -> np.ndarray:
    x = checked_points(images, "images")
    if x.ndim != 3:
        raise ValueError(f"images has shape {tuple(x.shape)}: pass gray images (n, H, W)")
    return as_array(x)


def _divisible(images: Tensor, wavelet: str, levels: int) -> np.ndarray:
    x, part = _squares(images), 2 ** positive_int("levels", levels)
    if wavelet not in pywt.wavelist(kind="discrete") or not pywt.Wavelet(wavelet).orthogonal:
        raise ValueError(f"wavelet is {wavelet!r}: choose an orthogonal one, as haar, db2 or sym4")
    if x.shape[1] % part or x.shape[2] % part:
        raise ValueError(
            f"images are {x.shape[1]} x {x.shape[2]}: {levels} levels need sides divisible by {part}"
        )
    return x


def _rows(rows: Tensor) -> Tensor:
    if rows.ndim != 1 or rows.is_floating_point() or len(rows) < 2:
        raise ValueError(
            f"rows has shape {tuple(rows.shape)}, {rows.dtype}: pass one contour (size,) of whole rows"
        )
    return rows
