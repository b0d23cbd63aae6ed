"""Denoisers from before the networks, as denoisers of the book's protocol.

Fourier: a cut and Wiener's filter. Wavelets: thresholds (Donoho & Johnstone 1994), cycle spinning
(Coifman & Donoho 1995), BayesShrink (Chang, Yu & Vetterli 2000). Total variation (Rudin, Osher &
Fatemi 1992; Chambolle 2004), non-local means (Buades, Coll & Morel 2005), BM3D (Dabov et al. 2007).
The work is done by PyWavelets, scikit-image and bm3d on the CPU. Of all these only Wiener's filter
and the Fourier cut can be differentiated, and only the former exported.
"""

import importlib
import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pywt
import torch
from skimage import restoration
from torch import Tensor

from ... import geometry
from ...checks import as_array, as_tensor, checked_points, positive_int, widened
from ...denoisers.base import Denoiser, per_level
from .directional import Curvelets, DirectionalHaar
from .thresholds import shrunk, universal

# Denoisers ----------------------------------------------------------------------------------------


class FourierCut(Denoiser):
    """Frequencies from `keep` on set to zero. y (batch, n), periodic: a projection on 2 keep - 1
    dimensions. Proved: `thm-gibbs`."""

    def __init__(self, keep: int):
        super().__init__()
        self.frequencies = positive_int("keep", keep)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        if y.ndim != 2 or 2 * self.frequencies > y.shape[1]:
            raise ValueError(
                f"y has shape {tuple(y.shape)}: pass (batch, n) with n at least {2 * self.frequencies}"
            )
        spectrum = torch.fft.rfft(y)
        spectrum[:, self.frequencies :] = 0
        return torch.fft.irfft(spectrum, n=y.shape[1])


class Wiener(Denoiser):
    r"""Wiener's filter of a class in the cosine basis e_k, linear:

        D(y, sigma) = sum_k S_k / (S_k + sigma^2) <y, e_k> e_k,   S_k = E <x, e_k>^2,

    the best factors that may depend on the class and not on the image. y (batch, H, W). power: S
    (H, W), at least 0. Proved: `prop-class-wiener`.
    """

    def __init__(self, power: Tensor):
        super().__init__()
        if checked_points(power, "power").ndim != 2 or float(power.min()) < 0:
            raise ValueError(
                f"power has shape {tuple(power.shape)}, least {float(power.min())}: pass (H, W), >= 0"
            )
        self.event_shape = tuple(power.shape)
        self.keep(power=power, down=_cosines(power.shape[0]), across=_cosines(power.shape[1]))

    power: Tensor
    down: Tensor
    across: Tensor

    @classmethod
    def from_points(cls, points: Tensor) -> "Wiener":
        """From training images (N, H, W)."""
        return cls(geometry.cosines(points).square().mean(0))

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        down, across, power = self.down.to(y), self.across.to(y), self.power.to(y)
        return down.T @ (power / (power + sigma**2) * (down @ y @ across.T)) @ across


def images_from(
    coefficients: Tensor, shape: tuple[int, int], wavelet: str = "db2", levels: int = 4
) -> Tensor:
    """The inverse of `geometry.wavelets`: (n, H W) to images (n, *shape), float64. ValueError for
    another size."""
    c = as_array(checked_points(coefficients, "coefficients"))
    if c.ndim != 2 or c.shape[1] != math.prod(shape):
        raise ValueError(
            f"coefficients have shape {c.shape}: images of {shape} have (n, {math.prod(shape)})"
        )
    height, width = (side >> levels for side in shape)
    coarse, rest = np.split(c, [height * width], 1)
    bands: list = [coarse.reshape(-1, height, width)]
    for _ in range(levels):
        three, rest = np.split(rest, [3 * height * width], 1)
        bands.append(tuple(three.reshape(-1, 3, height, width).transpose(1, 0, 2, 3)))
        height, width = 2 * height, 2 * width
    return as_tensor(pywt.waverec2(bands, wavelet, "periodization", axes=(1, 2)), coefficients)


class WaveletThreshold(Denoiser):
    """Details in the periodic orthonormal basis of `geometry.wavelets` thresholded; the coarse
    scale stays as it is.

    y (batch, H, W), sides that 2^levels divides. threshold in noise levels; None: `universal` of
    the pixels. Proved: `prop-units`.
    """

    def __init__(
        self,
        kind: str = "soft",
        threshold: float | None = None,
        wavelet: str = "db2",
        levels: int = 4,
    ):
        super().__init__()
        shrunk(torch.zeros(1), 0.0, kind)
        if threshold is not None and not 0 <= threshold < math.inf:
            raise ValueError(
                f"threshold is {threshold}: give it in noise levels, from 0 on, or None"
            )
        self.kind, self.threshold, self.wavelet, self.levels = kind, threshold, wavelet, levels

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        c, shape = geometry.wavelets(y, self.wavelet, self.levels), (y.shape[1], y.shape[2])
        coarse = y[0].numel() >> 2 * self.levels
        t = universal(y[0].numel()) if self.threshold is None else self.threshold
        level = widened(sigma.flatten()[:, None] if sigma.ndim else sigma)
        c = torch.cat([c[:, :coarse], shrunk(c[:, coarse:], t * level, self.kind)], 1)
        return images_from(c, shape, self.wavelet, self.levels).to(y)


class CycleSpun(Denoiser):
    """Hard thresholding of wavelet details averaged over all shifts: `geometry.cycle_spun`, or the
    same for signals.

    y (batch, H, W) or (batch, n), sides that 2^levels divides. threshold in noise levels.
    """

    def __init__(self, threshold: float = 3.0, wavelet: str = "db2", levels: int = 4):
        super().__init__()
        if not 0 <= threshold < math.inf:
            raise ValueError(f"threshold is {threshold}: give it in noise levels, from 0 on")
        self.threshold, self.wavelet, self.levels = threshold, wavelet, levels

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return per_level(y, sigma, self._signals if y.ndim == 2 else self._images)

    def _images(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        return geometry.cycle_spun(y, float(sigma), self.wavelet, self.levels, self.threshold).to(y)

    def _signals(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        if y.shape[1] % 2**self.levels:
            raise ValueError(
                f"signals of length {y.shape[1]}: {self.levels} levels need one divisible by {2**self.levels}"
            )
        coarse, *details = pywt.swt(
            as_array(y), self.wavelet, self.levels, axis=1, trim_approx=True
        )
        kept = [
            shrunk(torch.from_numpy(d), self.threshold * float(sigma), "hard").numpy()
            for d in details
        ]
        return torch.from_numpy(pywt.iswt([coarse, *kept], self.wavelet, axis=1)).to(y)


class EachImage(Denoiser):
    """A function of one image, float64 (H, W), and its noise level, as a denoiser of batches
    (batch, H, W)."""

    def __init__(self, function: Callable[[np.ndarray, float], np.ndarray]):
        super().__init__()
        self.function = function

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        if y.ndim != 3:
            raise ValueError(
                f"y has shape {tuple(y.shape)}: this denoiser takes gray images (batch, H, W)"
            )
        rows, levels = as_array(y), as_array(sigma.flatten().expand(len(y)))
        parts = [
            np.asarray(self.function(row, float(s))) for row, s in zip(rows, levels, strict=True)
        ]
        return torch.from_numpy(np.stack(parts)).to(y)


def bayes_shrink(levels: int | None = 4, shifts: int = 1, wavelet: str = "db2") -> Denoiser:
    """Soft thresholds sigma^2 / std, one for each band from its own coefficients (scikit-image's
    `denoise_wavelet`).

    levels None takes scikit-image's default, three less than the greatest. shifts: averaged over so
    many along each axis (`cycle_spin`). Proved: `prop-units`.
    """
    positive_int("shifts", shifts)

    return EachImage(partial(_bayes_shrink, levels=levels, shifts=shifts, wavelet=wavelet))


def total_variation(weight: float = 1.1, tolerance: float = 1e-6, steps: int = 2000) -> Denoiser:
    r"""argmin_u ||u - y||^2 / 2 + weight sigma TV(u), Chambolle's projections (scikit-image's
    `denoise_tv_chambolle`).

    tolerance: on the relative change of the energy. scikit-image's own, 2e-4, stops far from the
    minimum. Proved: `prop-units`.
    """
    if not weight > 0:
        raise ValueError(f"weight is {weight}: pass a positive number of noise levels, about 1")
    return EachImage(partial(_chambolle, weight=weight, eps=tolerance, max_num_iter=steps))


def non_local_means(h: float = 0.8, patch: int = 5, reach: int = 6) -> Denoiser:
    """Weighted means of pixels whose patches look alike, scale h sigma (`denoise_nl_means` of
    scikit-image, fast). Proved: `prop-units`."""
    if not h > 0:
        raise ValueError(f"h is {h}: pass a positive number of noise levels, about 1")
    options = {
        "patch_size": positive_int("patch", patch),
        "patch_distance": positive_int("reach", reach),
    }
    return EachImage(partial(_means, h=h, fast_mode=True, **options))


def bm3d() -> Denoiser:
    """Patches that look alike filtered together (package `bm3d`, an optional extra). ValueError
    where it is missing."""
    try:
        function = importlib.import_module("bm3d").bm3d
    except ImportError:
        raise ValueError(
            "bm3d is not installed: pip install bm3d, and read its terms of use first"
        ) from None
    return EachImage(function)  # whose second argument is sigma


# Functions of a module: a process that is sent one of their denoisers finds them by name


def _bayes_shrink(
    image: np.ndarray, sigma: float, levels: int | None, shifts: int, wavelet: str
) -> np.ndarray:
    options = {"sigma": sigma, "wavelet": wavelet, "wavelet_levels": levels}
    if shifts == 1:
        return restoration.denoise_wavelet(image, **options)
    return restoration.cycle_spin(
        image, restoration.denoise_wavelet, shifts - 1, func_kw=options, workers=1
    )


def _chambolle(image: np.ndarray, sigma: float, weight: float, **options: float) -> np.ndarray:
    return restoration.denoise_tv_chambolle(image, weight * sigma, **options)


def _means(image: np.ndarray, sigma: float, h: float, **options: int) -> np.ndarray:
    return restoration.denoise_nl_means(image, h=h * sigma, sigma=sigma, **options)


def classics(training: Tensor) -> dict[str, Denoiser]:
    """The denoisers of the chapter's tables by name, the oldest idea first; Wiener's filter of
    these images."""
    return {
        "Wiener": Wiener.from_points(training),
        "hard": WaveletThreshold("hard"),
        "soft": WaveletThreshold("soft"),
        "BayesShrink": bayes_shrink(),
        "BayesShrink, spun": bayes_shrink(shifts=4),
        "hard, spun": CycleSpun(),
        "curvelets": Curvelets(),
        "directions": DirectionalHaar(),
        "total variation": total_variation(),
        "non-local means": non_local_means(),
    }


def _cosines(n: int) -> Tensor:
    """The orthonormal cosine basis (DCT-II) of signals of length n, in rows."""
    return geometry.cosines(torch.eye(n, dtype=torch.float64)[:, None])[:, 0].T
