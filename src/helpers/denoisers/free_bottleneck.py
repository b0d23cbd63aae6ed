"""Bottlenecks of which one half or both are free."""

import torch
from torch import Tensor

from ..checks import checked_sigma, positive
from .base import Denoiser
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
        level = checked_sigma(code, sigma, (self.basis.shape[1],))
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


class Zigzag(Denoiser):
    r"""Encoder and decoder free, a code of one number: as near as one likes to E[x | y]
    (proposition P4e), in the plane.

        D(y, sigma) = f( e(y) ),

    f runs to and fro along rows that lie `spacing` apart, and e goes to the row nearest to
    E[x | y]. So |D - E[x | y]| is at most spacing / 2 where E[x | y] lies within `extent`, the
    half length of a row; the links between the rows, where no code lies, are left out.
    target: a GaussianMixture or a training set (N, 2). Proved: `prop-bottleneck-both`.

    >>> Zigzag(torch.tensor([[0.0, 1.0], [4.0, -1.0]]), 0.3)(torch.tensor([[3.0, 0.0]]), 0.1)
    tensor([[ 4.0000, -0.9000]])
    """

    def __init__(self, target: GaussianMixture | Tensor, spacing: float, extent: float = 8.0):
        super().__init__()
        for name, value in (("spacing", spacing), ("extent", extent)):
            positive(name, value, "pass a length, a positive number")
        self.inner = target if isinstance(target, GaussianMixture) else PosteriorMean(target)
        if self.inner.event_shape != (2,):
            raise ValueError(
                f"the target has points of shape {self.inner.event_shape}: pass one in the plane"
            )
        self.event_shape, self.spacing, self.extent = (2,), spacing, extent

    def encode(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        """One number for each y, (batch,): how far along the curve, from the middle of row 0."""
        x_hat = self.inner(y, sigma)
        row = torch.round(x_hat[:, 1] / self.spacing)
        along = x_hat[:, 0].clamp(-self.extent, self.extent)
        return 2 * self.extent * row + _direction(row) * along

    def decode(self, code: Tensor) -> Tensor:
        """The place on the curve, (batch, 2)."""
        row = torch.round(code / (2 * self.extent))
        along = _direction(row) * (code - 2 * self.extent * row)
        return torch.stack([along, self.spacing * row], dim=1)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return self.decode(self.encode(y, sigma.flatten() if sigma.ndim else sigma))


def _direction(row: Tensor) -> Tensor:
    """1 on even rows and -1 on odd ones."""
    return 1 - 2 * torch.remainder(row, 2)
