"""Judges of generated images that do not compare pixels: distances of feature laws, spectra,
sharpness."""

import math

import torch
from torch import Tensor

from .checks import checked_points, widened
from .metrics import transport


def fid(real: Tensor, made: Tensor) -> float:
    r"""Frechet distance of two sets of features (N, d), (M, d), as Gaussians (Heusel et al. 2017,
    eq. 6):

        || m - m' ||^2 + tr( C + C' - 2 (C C')^{1/2} ),

    in units of the standard deviation of each real feature. On the features of this book: compare
    within it only.
    Biased upwards for few images: compare sets of one size.
    """
    return frechet(*_standardised(real, made))


def frechet(x: Tensor, y: Tensor) -> float:
    r"""|m - m'|^2 + tr( C + C' - 2 (C C')^{1/2} ) of points (N, *event), (M, *event): in squared
    units of the points.

    The squared 2-Wasserstein distance of Gaussians with these means and covariances (POT).
    """
    a, b = (checked_points(v, name).flatten(1).cpu().double() for v, name in ((x, "x"), (y, "y")))
    if a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise ValueError(
            f"shapes {tuple(x.shape)} and {tuple(y.shape)}: pass two or more points of one dimension each"
        )
    moments = a.mean(0), b.mean(0), torch.cov(a.T), torch.cov(b.T)
    return float(
        transport().gaussian.bures_wasserstein_distance(*(m.numpy() for m in moments)) ** 2
    )


def kid(real: Tensor, made: Tensor) -> float:
    """Kernel distance of two sets of features (N, d), (M, d): the unbiased MMD^2 with kernel (x.y /
    d + 1)^3.

    Binkowski et al. 2018, in units of the standard deviation of each real feature. Its mean is 0
    for equal laws at any number of images, so it may be slightly negative.
    """
    return kid_with_error(real, made)[0]


def kid_with_error(real: Tensor, made: Tensor) -> tuple[float, float]:
    """`kid` and its standard error by the choice of the made images, the real ones as they are: the
    jackknife,

    se^2 = (M - 1) / M sum_i ( kid without image i - their mean )^2;   NaN for two images or fewer.
    """
    x, y = _standardised(real, made)
    xx, yy, xy = ((a @ b.T / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    rows, across = yy.sum(1) - yy.diagonal(), xy.mean(0)
    reference = (xx.sum() - xx.trace()) / (n * (n - 1))
    value = reference + rows.sum() / (m * (m - 1)) - 2 * across.mean()
    if m <= 2:
        return float(value), math.nan
    # without image i its row and its column are gone
    without = (rows.sum() - 2 * rows) / ((m - 1) * (m - 2)) - 2 * (across.sum() - across) / (m - 1)
    return float(value), float(((m - 1) / m * (without - without.mean()).square().sum()).sqrt())


def radii(n: int) -> Tensor:
    """|k| of the coefficients of an n x n image, in periods an image and the order of torch.fft:
    (n, n), float64."""
    k = torch.fft.fftfreq(n, 1 / n, dtype=torch.float64)
    return torch.hypot(k[:, None], k)


def rings(spectrum: Tensor) -> Tensor:
    """Mean of a spectrum (n, n), in the order of torch.fft, over rings of radius 0, 1, ..., n // 2
    periods an image."""
    if spectrum.ndim != 2 or spectrum.shape[0] != spectrum.shape[1]:
        raise ValueError(
            f"spectrum has shape {tuple(spectrum.shape)}: pass that of gray squares, (n, n)"
        )
    n = len(spectrum)
    radius = radii(n).round()
    return torch.stack([spectrum[radius == r].mean() for r in range(n // 2 + 1)])


def radial_spectrum(images: Tensor) -> Tensor:
    """Mean power of the orthonormal Fourier transform in `rings` of images (N, n, n): (n // 2 +
    1,)."""
    x = widened(checked_points(images, "images"))
    return rings(torch.fft.fft2(x, norm="ortho").abs().square().mean(0))


def grain(images: Tensor) -> Tensor:
    """Power above a third of the frequencies of each image (N, n, n), the mean of those `rings`:
    (N,)."""
    x = widened(checked_points(images, "images"))
    n = x.shape[-1]
    radius, high = radii(n).round().to(x.device), range(n // 3, n // 2 + 1)
    weight = sum((radius == r) / (radius == r).sum() for r in high) / len(high)
    return (torch.fft.fft2(x, norm="ortho").abs().square() * weight).sum((1, 2))


def spectral_distance(real: Tensor, made: Tensor) -> float:
    """Root mean square over the rings |k| >= 1 of the difference of the two radial spectra, in dB."""
    ratio = radial_spectrum(made)[1:] / radial_spectrum(real)[1:]
    return float((10 * ratio.log10()).square().mean().sqrt())


def sharpness(images: Tensor) -> float:
    """Mean square of the discrete Laplacian inside images (N, H, W): what blur removes first and
    noise adds."""
    x = widened(checked_points(images, "images"))
    around = x[..., :-2, 1:-1] + x[..., 2:, 1:-1] + x[..., 1:-1, :-2] + x[..., 1:-1, 2:]
    return float((4 * x[..., 1:-1, 1:-1] - around).square().mean())


def _standardised(real: Tensor, made: Tensor) -> tuple[Tensor, Tensor]:
    x, y = widened(checked_points(real, "real")), widened(checked_points(made, "made"))
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"features have shapes {tuple(real.shape)}, {tuple(made.shape)}: pass (N, d) and (M, d) of two rows or more"
        )
    mean, std = x.mean(0), x.std(0)
    if not bool((std > 0).all()):
        raise ValueError(
            f"feature {int(std.argmin())} is the same for all real images: leave it out"
        )
    return (x - mean) / std, (y - mean) / std
