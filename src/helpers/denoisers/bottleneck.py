"""A denoiser with a narrow middle: a linear encoder and decoder with the best map between them."""

import torch
from torch import Tensor

from ..checks import checked_points
from .base import HALF, Denoiser
from .gaussian_mixture import GaussianMixture
from .linear import checked_rank
from .posterior_mean import PosteriorMean


class ProjectedDenoiser(Denoiser):
    r"""Linear encoder and decoder with the best map between them (proposition P4b).

        D(y, sigma) = mu + U g( U^T (y - mu), sigma ),
        g the Bayes denoiser of the projected target U^T (x - mu).

    Its flow generates the law of the projected target exactly. U (d, r) has orthonormal columns, by
    default the leading principal axes. target: a GaussianMixture or a training set (N, *event).
    Proved: `prop-bottleneck-projected`, `thm-project`.

    >>> points, axis = torch.tensor([[0.0, 1.0], [4.0, -1.0]]), torch.tensor([[1.0], [0.0]])
    >>> ProjectedDenoiser(points, 1, axis)(torch.tensor([[3.0, 9.0]]), 0.1)
    tensor([[4., 0.]])
    """

    def __init__(self, target: GaussianMixture | Tensor, rank: int, basis: Tensor | None = None):
        super().__init__()
        if isinstance(target, GaussianMixture):
            mean, covariance = target.mean, target.covariance
        else:
            target = checked_points(target)
            target = target.float() if target.dtype in HALF else target  # has no eigenvectors
            mean = target.mean(0)
            covariance = torch.cov(target.flatten(1).T, correction=0).reshape(mean.numel(), -1)
        rank = checked_rank(rank, mean.numel())
        if basis is None:
            basis = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :rank]
        elif basis.shape != (mean.numel(), rank) or not torch.allclose(
            basis.T @ basis, torch.eye(rank).to(basis), atol=1e-6
        ):
            raise ValueError(
                f"basis has shape {tuple(basis.shape)}: pass ({mean.numel()}, {rank}), orthonormal columns"
            )
        self.event_shape = tuple(mean.shape)
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis.to(mean))
        if isinstance(target, GaussianMixture):
            self.inner: Denoiser = target.projected(self.basis, mean)
        else:
            self.inner = PosteriorMean((target - mean).flatten(1) @ self.basis)

    mean: Tensor
    basis: Tensor

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        basis = self.basis.to(y)
        code = (y - self.mean.to(y)).flatten(1) @ basis
        return self.mean.to(y) + (
            self.inner(code, sigma.flatten() if sigma.ndim else sigma) @ basis.T
        ).view_as(y)
