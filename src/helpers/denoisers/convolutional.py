"""The best linear filter of limited support: how a receptive field shapes the generated spectrum
(proposition P5)."""

import math

import numpy as np
import torch
from torch import Tensor

from ..checks import accumulate_dtype, checked_points, exporting, ordered, positive_int, widened
from .base import Denoiser, per_level


class _Filter(Denoiser):
    """The taps of a linear filter, right (gram + sigma^2 I)^-1, at any sigma from one
    eigendecomposition.

    gram (K, K) is the covariance of the K values that the filter sees, right (..., K) theirs with
    what it estimates.
    """

    def __init__(self, offsets: Tensor, gram: Tensor, right: Tensor, mean: Tensor):
        super().__init__()
        values, vectors = torch.linalg.eigh(gram)
        if values[0] < -1e-8 * values[-1]:
            raise ValueError(
                f"covariance has eigenvalue {values[0].item():.3g}: it must be that of a random image"
            )
        self.keep(
            offsets=offsets.to(gram.device),
            values=values.clamp(min=0.0),  # rounding below 0
            vectors=vectors,
            right=right @ vectors,
            mean=mean,
        )

    offsets: Tensor
    values: Tensor
    vectors: Tensor
    right: Tensor
    mean: Tensor

    def taps(self, sigma: float | Tensor) -> Tensor:
        """The filter at one level, shape of `right`; at levels (batch, 1), right being (K,), a row
        for each."""
        # A pixel of no variance is 0 / 0 at its zero eigenvalues and no noise: sigma > 0 keeps the
        # quotient at 0.
        right, values, vectors = map(widened, (self.right, self.values, self.vectors))
        return (right / (values + sigma**2)) @ vectors.T


class LinearConvolution(_Filter):
    r"""The best convolution with support Omega for a stationary target on a circle or a torus.

        D(y, sigma) = mu + h * (y - mu),
        sum_{t' in Omega} h(t') ( R(t - t') + sigma^2 [t = t'] ) = R(t), t in Omega,

    R the autocovariance of the target, the inverse Fourier transform of its power spectrum S. With
    all of the circle as support this is Wiener's filter, H = S / (S + sigma^2). y (batch, n) or
    (batch, n, m), circular boundary.

    spectrum, (n,) or (n, m) in the order of torch.fft: S >= 0, the variance of each coefficient of
    the orthonormal transform, so that its mean is the variance of a pixel. support: an odd width,
    the same along every axis, or a boolean mask of the spectrum's shape with the output pixel at
    index 0. mean: mu, a number. Proved: `prop-field`.

    >>> pixel = LinearConvolution(torch.tensor([4.0, 1.0, 0.0, 1.0]), support=1)
    >>> pixel(torch.ones(1, 4), 1.0)  # of the variance of a pixel, 1.5, over 1.5 + 1
    tensor([[0.6000, 0.6000, 0.6000, 0.6000]])
    """

    def __init__(self, spectrum: Tensor, support: int | Tensor, mean: float = 0.0):
        if spectrum.ndim not in (1, 2) or spectrum.numel() == 0 or not bool((spectrum >= 0).all()):
            raise ValueError(
                f"spectrum has shape {tuple(spectrum.shape)}: pass variances >= 0 of shape (n,) or (n, m)"
            )
        event, axes = tuple(spectrum.shape), tuple(range(-spectrum.ndim, 0))
        mask = _window(support, event) if isinstance(support, int) else support
        if mask.shape != spectrum.shape or mask.dtype != torch.bool or not mask.any():
            raise ValueError(
                f"support has shape {tuple(mask.shape)} and dtype {mask.dtype}: pass an odd width, or a boolean mask "
                f"of shape {event} with at least one pixel"
            )
        covariance = torch.fft.ifftn(spectrum.double()).real
        offsets = mask.nonzero()
        lags = (offsets[:, None] - offsets) % torch.tensor(event)
        gram, gray = covariance[tuple(lags.unbind(-1))], torch.tensor(mean, dtype=torch.float64)
        super().__init__(offsets, gram, covariance[mask], gray)
        self.event_shape, self.axes = event, axes
        self.keep(sources=_sources(offsets, event))

    sources: Tensor

    @classmethod
    def from_points(cls, points: Tensor, support: int | Tensor) -> "LinearConvolution":
        """From a training set (N, n) or (N, n, m): one mean of all pixels and the mean periodogram."""
        mean = checked_points(points).double().mean()
        axes = tuple(range(1, points.ndim))
        power = (
            torch.fft.fftn(points.double() - mean, dim=axes, norm="ortho").abs().square().mean(0)
        )
        return cls(power, support, float(mean))

    def response(self, sigma: float | Tensor) -> Tensor:
        """H_sigma(w), the filter's Fourier transform: complex, (n,) or (n, m), with a row per level
        for sigma (batch,).

        Its imaginary part is 0 when the support is symmetric.
        """
        device = self.values.device
        level = torch.as_tensor(sigma, dtype=accumulate_dtype(device), device=device)[..., None]
        taps = self.taps(level)
        kernel = taps.new_zeros(*taps.shape[:-1], *self.event_shape)
        kernel[(..., *self.offsets.unbind(-1))] = taps
        return torch.fft.fftn(kernel, dim=self.axes)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        if exporting():  # a graph has no complex numbers: the sum over the support instead
            return self.mean + (
                (y.flatten(1) - self.mean)[:, self.sources] @ self.taps(sigma).to(y)
            ).view_as(y)
        h = self.response(sigma.flatten() if sigma.ndim else sigma)
        transformed = torch.fft.fftn(y - self.mean.to(y), dim=self.axes)
        return (
            self.mean.to(y) + torch.fft.ifftn(h.to(transformed) * transformed, dim=self.axes).real
        )

    def generated_spectrum(
        self, sigma_min: float = 1e-4, sigma_max: float = 80.0, nodes: int = 200
    ) -> Tensor:
        r"""Power of every frequency at the end of the exact flow from N(0, sigma_max^2 I), shape of
        the spectrum:

            sigma_max^2 exp( -2 int_{sigma_min}^{sigma_max} (1 - Re H_sigma(w)) dsigma / sigma ),

        by Gauss-Legendre quadrature in log sigma. Proved: `prop-field`.
        """
        ordered(sigma_min, sigma_max)
        t, w = map(torch.from_numpy, np.polynomial.legendre.leggauss(positive_int("nodes", nodes)))
        half = math.log(sigma_max / sigma_min) / 2
        levels = torch.exp(math.log(sigma_min) + half * (t + 1))
        lost = 1 - self.response(levels).real
        integral = torch.tensordot(half * w.to(lost), lost, dims=1)
        return sigma_max**2 * torch.exp(-2 * integral)


class PooledConvolution(_Filter):
    r"""The best linear filter that commutes only with shifts by `stride` pixels: what pooling
    leaves of convolution.

    The torus is cut into cells of stride x stride pixels; X_c holds the P = stride^2 pixels of cell
    c, its phases. Every phase has a filter of its own, on the `cells` x `cells` cells around its
    cell:

        D(y)_c = mu + sum_{o in Omega} h(o) (Y_{c-o} - mu),   h(o) a matrix P x P,
        sum_{o'} h(o') ( R(o - o') + sigma^2 [o = o'] I ) = R(o), o in Omega,
        R(o) = E[ (X_{c+o} - mu)(X_c - mu)^T ].

    The response at a coarse frequency is a matrix, which couples the stride^2 frequencies that
    pooling folds into one. stride 1 is LinearConvolution; one cell as large as the image is
    LinearDenoiser.

    covariance: R, (n/stride, m/stride, P, P), offsets in the order of torch.fft, phases row by row.
    mean (stride, stride). cells: odd, or None for all. y (batch, n, m). Proved: `prop-pooled`.
    """

    def __init__(self, covariance: Tensor, mean: Tensor, cells: int | None):
        grid, stride = tuple(covariance.shape[:2]), len(mean)
        if (
            mean.shape != (stride, stride)
            or covariance.shape != (*grid, stride**2, stride**2)
            or 0 in grid + (stride,)
        ):
            raise ValueError(
                f"covariance has shape {tuple(covariance.shape)} and mean {tuple(mean.shape)}: pass "
                "(n / stride, m / stride, stride^2, stride^2) and (stride, stride)"
            )
        covariance = covariance.double()
        mask = torch.ones(grid, dtype=torch.bool) if cells is None else _window(cells, grid)
        offsets = mask.nonzero()
        lags = (offsets - offsets[:, None]) % torch.tensor(grid)  # of o - o', o' first
        gram = (
            covariance[tuple(lags.unbind(-1))]
            .permute(0, 2, 1, 3)
            .reshape(2 * [len(offsets) * stride**2])
        )
        right = covariance[mask].permute(1, 0, 2).flatten(1)  # (P, |Omega| P)
        super().__init__(offsets, (gram + gram.T) / 2, right, mean.double())
        self.grid, self.stride = grid, stride
        self.event_shape = (grid[0] * stride, grid[1] * stride)

    @classmethod
    def from_points(cls, points: Tensor, stride: int, cells: int | None = 3) -> "PooledConvolution":
        """From a training set (N, n, m): moments averaged over shifts by whole cells."""
        points = checked_points(points).double()
        stride = _checked_stride(stride, tuple(points.shape[1:]))
        X = _cells(points, stride)
        mean = X.mean((0, 1, 2))
        Z = torch.fft.fft2(X - mean, dim=(1, 2), norm="ortho")
        spectrum = torch.einsum("bxyp,bxyq->xypq", Z, Z.conj()) / len(points)
        covariance = torch.fft.ifft2(spectrum, dim=(0, 1)).real
        return cls(covariance, mean.view(stride, stride), cells)

    @classmethod
    def from_spectrum(
        cls, spectrum: Tensor, stride: int, cells: int | None = 3, mean: float = 0.0
    ) -> "PooledConvolution":
        """For a stationary target with the power spectrum (n, m) of `LinearConvolution`."""
        if spectrum.ndim != 2 or spectrum.numel() == 0 or not bool((spectrum >= 0).all()):
            raise ValueError(
                f"spectrum has shape {tuple(spectrum.shape)}: pass variances >= 0 of shape (n, m)"
            )
        stride = _checked_stride(stride, tuple(spectrum.shape))
        R = torch.fft.ifft2(spectrum.double()).real
        phases = torch.cartesian_prod(torch.arange(stride), torch.arange(stride))
        # of X_o against phase q of X_0: the covariance seen from pixel q
        columns = [_cells(R.roll((int(a), int(b)), (0, 1))[None], stride)[0] for a, b in phases]
        return cls(
            torch.stack(columns, dim=-1),
            torch.full((stride, stride), mean, dtype=torch.float64),
            cells,
        )

    def response(self, sigma: float) -> Tensor:
        """H_sigma at every coarse frequency, complex (n/stride, m/stride, P, P)."""
        P = self.stride**2
        taps = self.taps(sigma)
        kernel = taps.new_zeros(*self.grid, P, P)
        kernel[tuple(self.offsets.unbind(-1))] = taps.view(P, -1, P).transpose(0, 1)
        return torch.fft.fft2(kernel, dim=(0, 1))

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        if exporting():
            raise NotImplementedError(
                "PooledConvolution cannot be exported as a graph: export LinearConvolution"
            )
        return per_level(y, sigma, lambda rows, level: self._estimate(rows, float(level)))

    def _estimate(self, y: Tensor, sigma: float) -> Tensor:
        mean = self.mean.to(y).flatten()
        Z = torch.fft.fft2(_cells(y, self.stride) - mean, dim=(1, 2))
        X = torch.einsum("xypq,bxyq->bxyp", self.response(sigma).to(Z), Z)
        return _pixels(mean + torch.fft.ifft2(X, dim=(1, 2)).real, self.stride)

    def generated_covariance(
        self, sigma_min: float = 1e-4, sigma_max: float = 80.0, nodes: int = 100
    ) -> Tensor:
        r"""Cov(y_q, y_{q+t}) at the end of the exact flow from N(0, sigma_max^2 I): (stride,
        stride, n, m).

        First two axes the phase of q, last two t on the torus. Per coarse frequency dy / dlog sigma
        = (I - H_sigma) y; the matrices of different sigma do not commute, so `nodes` steps of
        Magnus' expansion of order 4. The mean over phases is the covariance of a random pixel, its
        Fourier transform the generated spectrum. Proved: `prop-pooled`.
        """
        ordered(sigma_min, sigma_max)
        step = math.log(sigma_min / sigma_max) / positive_int("nodes", nodes)
        P, s = self.stride**2, self.stride
        identity = torch.eye(P).to(self.response(sigma_max))
        gain = identity.expand(*self.grid, P, P)
        for i in range(nodes):
            middle = math.log(sigma_max) + (i + 0.5) * step
            a, b = (
                identity - self.response(math.exp(middle + c * step * math.sqrt(3) / 6))
                for c in (-1, 1)
            )
            commutator = math.sqrt(3) / 12 * step**2 * (b @ a - a @ b)
            gain = torch.linalg.matrix_exp(step / 2 * (a + b) + commutator) @ gain
        R = torch.fft.ifft2(sigma_max**2 * gain @ gain.mH, dim=(0, 1)).real
        seen = [
            _pixels(R[..., p][None], s)[0].roll((-(p // s), -(p % s)), (0, 1)) for p in range(P)
        ]
        return torch.stack(seen).view(s, s, *self.event_shape)


def _checked_stride(stride: int, event: tuple[int, ...]) -> int:
    stride = positive_int("stride", stride)
    if len(event) != 2 or any(n % stride for n in event):
        raise ValueError(
            f"stride is {stride} on {event} pixels: choose a divisor of both sides of a gray image"
        )
    return stride


def _cells(y: Tensor, stride: int) -> Tensor:
    """(B, n, m) -> (B, n/stride, m/stride, stride^2)."""
    return y.unflatten(2, (-1, stride)).unflatten(1, (-1, stride)).transpose(2, 3).flatten(3)


def _pixels(X: Tensor, stride: int) -> Tensor:
    """The inverse of `_cells`."""
    return X.unflatten(3, (stride, stride)).transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _window(width: int, event: tuple[int, ...]) -> Tensor:
    if not 1 <= width <= min(event) or width % 2 == 0:
        raise ValueError(
            f"support is {width} on {event} pixels: choose an odd width from 1 to {min(event)}"
        )
    inside = [(torch.arange(n) <= width // 2) | (torch.arange(n) >= n - width // 2) for n in event]
    return inside[0] if len(event) == 1 else inside[0][:, None] & inside[1]


def _sources(offsets: Tensor, event: tuple[int, ...]) -> Tensor:
    """Flat index of the pixel t - t' for every pixel t and offset t', (pixels, offsets)."""
    pixels = torch.cartesian_prod(*map(torch.arange, event)).reshape(-1, len(event))
    places = (pixels[:, None] - offsets) % torch.tensor(event)
    strides = torch.tensor([math.prod(event[i + 1 :]) for i in range(len(event))])
    return (places * strides).sum(-1)
