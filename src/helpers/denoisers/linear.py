"""The best linear (affine) denoiser: Wiener's filter along the principal axes of the target."""

import torch
from torch import Tensor

from ..checks import checked_points, positive_int
from .base import Denoiser


class LinearDenoiser(Denoiser):
    r"""The affine denoiser of least mean squared error, of full rank or confined to the r leading
    axes.

        D(y, sigma) = mu + U diag( lambda / (lambda + sigma^2) ) U^T (y - mu),

    mu, U, lambda: mean, principal axes and variances of the target. Its flow generates N(mu, U
    diag(lambda) U^T) whatever the target is (propositions P2 and P4a). Source: Wiener 1949; Levine
    & Weiss 2026 use it on CelebA.

    mean (*event), axes (D, r) with orthonormal columns, variances (r,), D the size of the event.
    Proved: `lem-wiener`, `prop-linear`.

    >>> wiener = LinearDenoiser.from_moments(torch.zeros(2), torch.diag(torch.tensor([4.0, 1.0])))
    >>> wiener(torch.ones(1, 2), 1.0)
    tensor([[0.8000, 0.5000]])
    """

    def __init__(self, mean: Tensor, axes: Tensor, variances: Tensor):
        super().__init__()
        if axes.shape != (mean.numel(), len(variances)):
            raise ValueError(
                f"axes have shape {tuple(axes.shape)}: for this mean and variances it must be "
                f"({mean.numel()}, {len(variances)})"
            )
        if not bool((variances >= 0).all()):
            raise ValueError(
                f"a variance is {variances.min().item()}: variances cannot be negative"
            )
        self.event_shape = tuple(mean.shape)
        self.keep(mean=mean, axes=axes, variances=variances)

    mean: Tensor
    axes: Tensor
    variances: Tensor

    @classmethod
    def from_moments(
        cls, mean: Tensor, covariance: Tensor, rank: int | None = None
    ) -> "LinearDenoiser":
        """From mean (d,) and covariance (d, d); `rank` keeps that many leading axes."""
        if covariance.shape != (len(mean), len(mean)):
            raise ValueError(
                f"covariance has shape {tuple(covariance.shape)}: it must be ({len(mean)}, {len(mean)})"
            )
        values, axes = torch.linalg.eigh(covariance)
        if values[0] < -1e-4 * values.abs().max():
            raise ValueError(
                f"covariance has eigenvalue {values[0].item():.3g}: it must be positive semi-definite"
            )
        rank, values = checked_rank(rank, len(mean)), values.clamp(min=0.0)  # rounding below 0
        return cls(mean, axes.flip(1)[:, :rank], values.flip(0)[:rank])

    @classmethod
    def from_points(cls, points: Tensor, rank: int | None = None) -> "LinearDenoiser":
        """From a training set (N, *event), through its singular value decomposition (population
        variance, 1/N)."""
        points = checked_points(points)
        points = points if points.element_size() > 2 else points.float()  # which LAPACK has not
        mean = points.mean(0)
        flat = (points - mean).flatten(1)
        rank = checked_rank(rank, flat.shape[1])
        _, s, vt = torch.linalg.svd(flat, full_matrices=False)
        return cls(mean, vt[:rank].T.contiguous(), s[:rank] ** 2 / len(points))

    def truncated(self, rank: int) -> "LinearDenoiser":
        """The same denoiser confined to its `rank` axes. Proved: `prop-bottleneck-linear`."""
        rank = checked_rank(rank, len(self.variances))
        return LinearDenoiser(self.mean, self.axes[:, :rank], self.variances[:rank])

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        axes, variances, mean = self.axes.to(y), self.variances.to(y), self.mean.to(y)
        level = sigma.flatten()[:, None] if sigma.ndim else sigma
        coordinates = (y - mean).flatten(1) @ axes * (variances / (variances + level**2))
        return mean + (coordinates @ axes.T).view_as(y)


def checked_rank(rank: int | None, dimension: int) -> int:
    """`rank` between 1 and `dimension` (None: all of it); ValueError naming both otherwise."""
    rank = dimension if rank is None else positive_int("rank", rank)
    if rank > dimension:
        raise ValueError(
            f"rank is {rank}, above the dimension {dimension}: choose 1 to {dimension}"
        )
    return rank


def flow_variance(variances: Tensor, sigmas: Tensor) -> Tensor:
    r"""Variance that Euler's flow (DDIM) generates per mode from N(0, sigma_0^2), same shape as
    `variances` (P2):

    sigma_0^2 prod_i [ 1 - (sigma_i - sigma_{i+1}) sigma_i / (lambda + sigma_i^2) ]^2.
    Proved: `prop-linear-steps`, `prop-07-strip`.
    """
    s, t = sigmas[:-1, None].to(variances), sigmas[1:, None].to(variances)
    gain = (1 - (s - t) * s / (variances.flatten() + s**2)).prod(0)
    return (sigmas[0].to(variances) * gain).view_as(variances) ** 2
