"""Exact densities of what a denoiser generates in one or two dimensions (proposition P6), and their
distances."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import checked_sigma, ordered, positive_int
from .denoisers.base import Denoiser


class Grid(NamedTuple):
    """Cell centres of a regular grid: points (n^d, d) in row-major order, n cells per axis, area
    (length) of a cell."""

    points: Tensor
    n: int
    cell: float
    extent: float

    def to(self, device: torch.device) -> "Grid":
        """The same grid with its points on a device."""
        return self._replace(points=self.points.to(device))


def grid(extent: float = 3.0, n: int = 101, dimension: int = 2) -> Grid:
    """n^d cell centres that cover [-extent, extent]^d, d = 1 or 2; the last coordinate varies
    fastest."""
    if not (extent > 0 and dimension in (1, 2)):
        raise ValueError(
            f"extent {extent}, dimension {dimension}: take extent > 0, dimension 1 or 2"
        )
    width = 2 * extent / positive_int("n", n)
    axis = -extent + width * (torch.arange(n, dtype=torch.float64) + 0.5)
    points = torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension)
    return Grid(points, n, width**dimension, extent)


def generated_log_density(
    denoiser: Denoiser,
    y: Tensor,
    sigma_min: float = 0.02,
    sigma_max: float = 80.0,
    steps: int = 100,
    chunk: int = 4096,
) -> Tensor:
    r"""log q(y), (batch,), of the law q at sigma_min of the probability-flow ODE started from N(0,
    sigma_max^2 I).

    y is (batch, d). With u = log sigma the flow is dy/du = y - D, and along the path through y
    (instantaneous change of variables, Chen et al. 2018)

        log q(y) = log N( y(sigma_max); 0, sigma_max^2 I ) + int [ d - tr J_D ] du,

    integrated from sigma_min up by Runge-Kutta of order 4 with `steps` steps. The trace is exact,
    from the d rows of the Jacobian. A target with mean mu loses about ||mu|| / (sigma_max sqrt(2
    pi)) in total variation, because the start is centred at the origin: centre the target, or raise
    sigma_max. A path that reaches infinity on the way up gives -inf, exactly: no start comes there
    (`polynomial_law.support`; the mass is the share that arrives). Proved: `prop-p6`.

    >>> from helpers.denoisers import GaussianMixture
    >>> log_q = generated_log_density(GaussianMixture([[0.0, 0.0]], 1.0), torch.zeros(1, 2), 0.5)
    >>> round(float(log_q), 2)  # -log(2 pi (1 + .5^2))
    -2.06
    """
    ordered(sigma_min, sigma_max)
    checked_sigma(y, sigma_min, denoiser.event_shape)
    h = math.log(sigma_max / sigma_min) / positive_int("steps", steps)
    u = math.log(sigma_min)
    parts = y.split(chunk)
    return torch.cat([_log_density(denoiser, x, u, h, steps, sigma_max) for x in parts])


def _log_density(
    denoiser: Denoiser, y: Tensor, u: float, h: float, steps: int, sigma_max: float
) -> Tensor:
    change, rows = torch.zeros_like(y[:, 0]), torch.arange(len(y), device=y.device)
    log_q = torch.full_like(change, -math.inf)
    for _ in range(steps):
        k1, c1 = _slope(denoiser, y, u)
        k2, c2 = _slope(denoiser, y + h / 2 * k1, u + h / 2)
        k3, c3 = _slope(denoiser, y + h / 2 * k2, u + h / 2)
        k4, c4 = _slope(denoiser, y + h * k3, u + h)
        y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        change = change + h / 6 * (c1 + 2 * c2 + 2 * c3 + c4)
        u += h
        kept = y.abs().amax(1) < 1e3 * sigma_max  # False for NaN too
        y, change, rows = y[kept], change[kept], rows[kept]
    unit = y.shape[1] * math.log(sigma_max * math.sqrt(2 * math.pi))
    log_q[rows] = change - 0.5 * (y / sigma_max).square().sum(1) - unit
    return log_q


def _slope(denoiser: Denoiser, y: Tensor, u: float) -> tuple[Tensor, Tensor]:
    """dy/du = y - D and its divergence d - tr J_D, at log sigma = u, NaN where y is not finite."""
    alive = y.isfinite().all(1)
    slope, divergence = torch.full_like(y, torch.nan), torch.full_like(y[:, 0], torch.nan)
    if alive.any():
        jacobian, x_hat = jacobian_and_estimate(denoiser, y[alive], math.exp(u))
        slope[alive] = y[alive] - x_hat
        divergence[alive] = y.shape[1] - jacobian.diagonal(dim1=1, dim2=2).sum(1)
    return slope, divergence


def jacobian_and_estimate(denoiser: Denoiser, y: Tensor, sigma: float) -> tuple[Tensor, Tensor]:
    """The d x d Jacobian of D at every point, (batch, d, d) with [b, i, j] = dD_i/dy_j, and D,
    (batch, d)."""
    with torch.enable_grad():
        y = y.detach().requires_grad_()
        x_hat = denoiser(y, sigma)
        if not x_hat.requires_grad:  # a constant denoiser
            return y.new_zeros(len(y), y.shape[1], y.shape[1]), x_hat
        # rows of D do not mix, so the gradient of the summed coordinate is the per-point gradient
        sums = x_hat.sum(0)
        rows = [torch.autograd.grad(s, y, retain_graph=True)[0] for s in sums]
    return torch.stack(rows, dim=1), x_hat.detach()


def total_variation(log_p: Tensor, log_q: Tensor, cell: float) -> float:
    """1/2 int |p - q| by quadrature on grid cells of size `cell`; in [0, 1] for densities that the
    grid covers. Mass outside the grid is not seen: `mass` tells it. Proved: `prop-start`."""
    return float(0.5 * cell * (log_p.exp() - log_q.exp()).abs().sum())


def kullback_leibler(log_p: Tensor, log_q: Tensor, cell: float) -> float:
    """KL(p || q) = int p (log p - log q) in nats, by quadrature; infinite where q vanishes and p
    does not."""
    p = log_p.exp()
    return float(cell * torch.where(p > 0, p * (log_p - log_q), torch.zeros_like(p)).sum())


def mass(log_p: Tensor, cell: float) -> float:
    """int p over the grid: 1 when the grid covers and resolves p."""
    return float(cell * log_p.exp().sum())
