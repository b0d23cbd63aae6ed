"""Bottlenecks of which one half or both are free."""

import torch
from torch import Tensor

from ..checks import checked_sigma, positive, widened
from .base import HALF, Denoiser
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
            self.keep(points=(target - self.mean).flatten(1))
            self.inner = GaussianMixture(self.points @ self.basis)  # knows the weights of points

    inner: GaussianMixture
    points: Tensor
    lift: Tensor

    def decode(self, code: Tensor, sigma: float | Tensor) -> Tensor:
        """E[x | c] of codes (batch, r), (batch, *event): where samples with these codes lie."""
        if code.dtype in HALF:
            return self.decode(code.float(), sigma).to(code.dtype)
        level = checked_sigma(code, sigma, (self.basis.shape[1],))
        log_joint, z = self.inner._components(code, level)
        r, mean = torch.softmax(log_joint, dim=1), self.mean.to(code)
        x_hat = r @ self.points.to(code)
        if not self.inner.isotropic:
            slopes = r[..., None] * z / (self.inner.variances.to(code) + (level**2)[..., None])
            x_hat = x_hat + torch.einsum("kdr,bkr->bd", self.lift.to(code), slopes)
        return mean + x_hat.view(-1, *mean.shape)

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
        if isinstance(target, GaussianMixture):
            self.inner = target.copied()
        else:
            self.inner = PosteriorMean(target.to(self.mean))

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        basis, mean = self.basis.to(y), self.mean.to(y)
        x_hat = self.inner(y, sigma.flatten() if sigma.ndim else sigma)
        return mean + ((x_hat - mean).flatten(1) @ basis @ basis.T).view_as(y)


class Zigzag(Denoiser):
    r"""Encoder and decoder free, a code of one number: as near as one likes to E[x | y]
    (proposition P4e), in the plane.

        D(y, sigma) = f( e(y) ),

    f runs to and fro along rows that lie `spacing` apart, a link of that length between each two,
    and e goes to the row nearest to E[x | y]. So |D - E[x | y]| is at most spacing / 2 where
    E[x | y] lies within `extent`, the half length of a row. The code has float64's digits, where
    the device has them, for it must tell all rows apart.
    target: a GaussianMixture or a training set (N, 2). Proved: `prop-bottleneck-both`.

    >>> Zigzag(torch.tensor([[0.0, 1.0], [4.0, -1.0]]), 0.3)(torch.tensor([[3.0, 0.0]]), 0.1)
    tensor([[ 4.0000, -0.9000]])
    """

    def __init__(self, target: GaussianMixture | Tensor, spacing: float, extent: float = 8.0):
        super().__init__()
        for name, value in (("spacing", spacing), ("extent", extent)):
            positive(name, value, "pass a length, a positive number")
        self.inner = (
            target.copied() if isinstance(target, GaussianMixture) else PosteriorMean(target)
        )
        if self.inner.event_shape != (2,):
            raise ValueError(
                f"the target has points of shape {self.inner.event_shape}: pass one in the plane"
            )
        self.event_shape, self.spacing, self.extent = (2,), spacing, extent
        self.period = 2 * extent + spacing  # of the curve: a row and a link

    def encode(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        """One number for each y, (batch,): how far along the curve, from the middle of row 0."""
        x_hat = widened(self.inner(y, sigma))
        row = torch.round(x_hat[:, 1] / self.spacing)
        along = x_hat[:, 0].clamp(-self.extent, self.extent)
        return self.period * row + _direction(row) * along

    def decode(self, code: Tensor) -> Tensor:
        """The place on the curve, (batch, 2)."""
        row = torch.round(code / self.period)
        rest = code - self.period * row
        along = rest.clamp(-self.extent, self.extent)
        return torch.stack([_direction(row) * along, self.spacing * row + rest - along], dim=1)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return self.decode(self.encode(y, sigma.flatten() if sigma.ndim else sigma))


def _direction(row: Tensor) -> Tensor:
    """1 on even rows and -1 on odd ones."""
    return 1 - 2 * torch.remainder(row, 2)
