"""Bottlenecks of which one half is linear and the other is free."""

import torch
from torch import Tensor

from .bottleneck import ProjectedDenoiser
from .gaussian_mixture import GaussianMixture
from .posterior_mean import PosteriorMean


class FreeDecoder(ProjectedDenoiser):
    r"""Linear encoder and the best decoder of all, which may bend (proposition P4c).

        D(y, sigma) = E[ x | c ],   c = U^T (y - mu),

    x ~ target, y = x + sigma n. The code follows the flow of the projected target, and a sample is
    the decoder's image of its code. For a training set with distinct codes, however narrow,

        D(y, sigma) = sum_i w_i x_i,   w = softmax_i( -||c - U^T (x_i - mu)||^2 / (2 sigma^2) ),

    and every sample is a copy. For a GaussianMixture, with r_k(c) the posterior probability of its
    component k,

        E[x | c] = sum_k r_k(c) [ mu_k + C_k U (U^T C_k U + sigma^2 I)^{-1} (c - U^T (mu_k - mu)) ].

    target, rank and basis as for ProjectedDenoiser. Proved: `prop-bottleneck-decoder`.

    >>> points, axis = torch.tensor([[0.0, 1.0], [4.0, -1.0]]), torch.tensor([[1.0], [0.0]])
    >>> FreeDecoder(points, 1, axis)(torch.tensor([[3.0, 9.0]]), 0.1)
    tensor([[ 4., -1.]])
    """

    def __init__(self, target: GaussianMixture | Tensor, rank: int, basis: Tensor | None = None):
        super().__init__(target, rank, basis)
        if isinstance(target, GaussianMixture):
            basis = self.basis.to(target.means)
            lift = target.axes * target.variances[:, None] @ (target.axes.mT @ basis)  # C_k U
            self.keep(points=target.means - target.mean, lift=lift @ self.inner.axes)
        else:
            points = (target - self.mean).flatten(1)
            self.keep(points=points, codes=points @ self.basis)

    points: Tensor
    codes: Tensor
    lift: Tensor

    def decode(self, code: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x | c] of codes (batch, r), (batch, *event): where samples with these codes lie."""
        level = torch.as_tensor(sigma).to(code)
        level = level[:, None] if level.ndim else level
        if isinstance(self.inner, GaussianMixture):
            log_joint, z = self.inner._components(code, level)
            r, v = torch.softmax(log_joint, dim=1), self.inner.variances.to(code)
            slopes = r[..., None] * z / (v + (level**2)[..., None])
            off = torch.einsum("kdr,bkr->bd", self.lift.to(code), slopes)
        else:
            codes, off = self.codes.to(code), 0.0
            apart = sum((code[:, i, None] - codes[:, i]).square() for i in range(code.shape[1]))
            r = torch.softmax(-0.5 * apart / level**2, dim=1)
        mean, points = self.mean.to(code), self.points.to(code)
        return mean + (r @ points + off).view(-1, *mean.shape)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        code = (y - self.mean.to(y)).flatten(1) @ self.basis.to(y)
        return self.decode(code, sigma.flatten() if sigma.ndim else sigma)


class FreeEncoder(ProjectedDenoiser):
    r"""The best encoder of all, which sees all of y, and a linear decoder (proposition P4d).

        D(y, sigma) = mu + U U^T ( E[x | y] - mu ).

    Samples lie on the plane of the decoder. For a training set they are projections of those points
    that are the nearest to their own projection.
    target, rank and basis as for ProjectedDenoiser. Proved: `prop-bottleneck-encoder`.

    >>> points, axis = torch.tensor([[0.0, 1.0], [4.0, -1.0]]), torch.tensor([[1.0], [0.0]])
    >>> FreeEncoder(points, 1, axis)(torch.tensor([[3.0, 0.0]]), 0.1)
    tensor([[4., 0.]])
    """

    def __init__(self, target: GaussianMixture | Tensor, rank: int, basis: Tensor | None = None):
        super().__init__(target, rank, basis)
        self.inner = target if isinstance(target, GaussianMixture) else PosteriorMean(target)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        basis, mean = self.basis.to(y), self.mean.to(y)
        x_hat = self.inner(y, sigma.flatten() if sigma.ndim else sigma)
        return mean + ((x_hat - mean).flatten(1) @ basis @ basis.T).view_as(y)
