"""Denoising as projection on the data (Permenter & Yuan 2024): a smoothed distance, and what errors
do to a sampler.

K is a set of points x_i in R^d, dist(y) = min_i |y - x_i| its distance, proj(y) the nearest of
them. For a schedule sigmas[0] > ... > sigmas[steps], a step of Euler (DDIM) is y - beta (y - D)
with beta_i = 1 - sigmas[i + 1] / sigmas[i].
"""

import math

import torch
from torch import Tensor

from ...checks import checked_points, positive_int
from ...denoisers.base import Denoiser
from ...kernels.posterior import plain_mean, posterior_mean
from ...metrics import nearest
from ...sampling import ddim_linear, euler, log_linear


def smoothed_distance(points: Tensor, y: Tensor, sigma: float | Tensor) -> Tensor:
    r"""Smoothed squared distance to points (N, *event), (batch,), float64, in squared units of y;
    it may be negative.

        d^2(y, sigma) = -2 sigma^2 log sum_i exp( -|y - x_i|^2 / (2 sigma^2) ),

    so that dist^2 - 2 sigma^2 log N <= d^2 <= dist^2, and half its gradient is y - D with D the
    posterior mean. The talk of Permenter & Yuan prints the factor -sigma^2: half the gradient needs
    -2 sigma^2. Not differentiable here: the gradient is known. Raises ValueError as
    `helpers.kernels.posterior.posterior_mean`. Proved: `prop-smoothed`.

    >>> smoothed_distance(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]), 1.0)
    tensor([25.], dtype=torch.float64)
    """
    level = torch.as_tensor(sigma, dtype=torch.float64, device=y.device)
    return -2 * level**2 * posterior_mean(points, y, sigma).log_normaliser


class Projection(Denoiser):
    r"""The nearest of points (N, *event), at every noise level, or a projection with a known
    relative error:

        D(y) = proj(y) + error (y - proj(y)),   so that |D - proj| = |error| dist exactly.

    error in (-1, 1): below 0 it goes too far, above 0 not far enough, the two worst cases of the
    error model. Proved: `prop-straight`.
    """

    def __init__(self, points: Tensor, error: float = 0.0):
        super().__init__()
        if not -1 < error < 1:
            raise ValueError(
                f"error is {error}: a projection with a relative error takes a number between -1 and 1"
            )
        self.event_shape, self.error = tuple(checked_points(points).shape[1:]), error
        self.register_buffer("points", points)

    points: Tensor

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        closest = self.points.to(y)[nearest(y.detach(), self.points, 1)[1][:, 0]]
        return closest + self.error * (y - closest)


class KernelDensity(Denoiser):
    r"""Posterior mean of sum_i N(x_i, width^2 I) / N: the points (N, *event) with a ball of fog
    around each.

        D(y, sigma) = y + sigma^2 / t^2 ( m(y, t) - y ),   t^2 = sigma^2 + width^2,

    m the posterior mean of the points themselves: given x_i, y is N(x_i, t^2). width > 0 in the
    units of y. Equals `GaussianMixture(points, width)` at a cost of one matrix product; memory
    O(batch N), precision that of y.
    """

    def __init__(self, points: Tensor, width: float):
        super().__init__()
        if not 0 < width < math.inf:
            raise ValueError(
                f"width is {width}: take a positive number; PosteriorMean is the limit 0"
            )
        self.event_shape, self.width = tuple(checked_points(points).shape[1:]), width
        self.register_buffer("points", points)

    points: Tensor

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        total, centre = torch.sqrt(sigma**2 + self.width**2), self.points.mean(0).to(y)
        # squares cancel less around the centre
        mean = plain_mean(self.points.to(y) - centre, y - centre, total.flatten().expand(len(y)))
        return y + (sigma / total) ** 2 * (mean + centre - y)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n independent draws (n, *event), in the dtype of the points, from the seed."""
        g = torch.Generator().manual_seed(seed)
        chosen = torch.randint(len(self.points), (positive_int("n", n),), generator=g)
        noise = torch.randn(n, *self.event_shape, generator=g, dtype=torch.float64).to(self.points)
        return self.points[chosen] + self.width * noise


def relative_error(x_hat: Tensor, y: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    r"""|x_hat - proj(y)| / dist(y) and dist(y), both (batch,), for estimates x_hat of y (batch,
    *event).

    The eta of the error model of Permenter & Yuan 2024, with the points (N, *event) as K. A y that
    is one of the points
    has no relative error: NaN. Proved: `prop-ends`.
    """
    if x_hat.shape != y.shape:
        raise ValueError(
            f"x_hat has shape {tuple(x_hat.shape)}, y has {tuple(y.shape)}: pass the estimate of each y"
        )
    distance, index = (found[:, 0] for found in nearest(y, points, 1))
    miss = (x_hat - points.to(y)[index]).flatten(1).norm(dim=1)
    return torch.where(distance > 0, miss / distance, torch.nan), distance


def errors_along(
    denoiser: Denoiser, points: Tensor, start: Tensor, sigmas: Tensor
) -> tuple[Tensor, Tensor]:
    """`relative_error` along Euler's trajectories from `start` (batch, *event): eta of each step,
    (steps, batch), and the distance at every level, (steps + 1, batch)."""
    y, found = start, []
    for state in euler(denoiser, start, sigmas):
        found.append(relative_error(state.x_hat, y, points))
        y = state.y
    eta, distance = (torch.stack(rows) for rows in zip(*found, strict=True))
    return eta, torch.cat([distance, nearest(y, points, 1)[0].T])


# Admissible schedules -----------------------------------------------------------------------------


def step_bounds(sigmas: Tensor, eta: float | Tensor) -> tuple[Tensor, Tensor]:
    r"""What a relative error eta leaves of the distance after each step, (steps + 1,) each, 1 at
    the start:

        prod_i (1 - (1 + eta_i) beta_i) <= dist(y_t) / dist(y_0) <= prod_i (1 - (1 - eta_i) beta_i).

    eta: one number in [0, 1) or one for each step, (steps,). The lower bound is 0 from the first
    step that may reach K.
    Source: Permenter & Yuan 2024, theorem on admissible schedules; the proof is in the chapter and
    needs no convexity. Raises ValueError for an eta outside [0, 1) and for a schedule that ends in
    0, where beta = 1. Proved: `thm-admissible`.
    """
    beta, eta = _steps(sigmas, eta)
    one = beta.new_ones(1)
    low, high = (1 - (1 + eta) * beta).clamp(min=0), 1 - (1 - eta) * beta
    return torch.cat([one, low]).cumprod(0), torch.cat([one, high]).cumprod(0)


def least_nu(sigmas: Tensor, eta: float | Tensor) -> float:
    r"""The smallest nu for which the schedule is (eta, nu)-admissible: prod_i (1 - beta_i) / (1 -
    (1 + eta_i) beta_i).

    Then dist / nu <= sqrt(d) sigma <= nu dist at every level, if they are equal at the first.
    Infinite where a step may overshoot, (1 + eta) beta >= 1. Raises as `step_bounds`.
    Proved: `thm-admissible`.
    """
    beta, eta = _steps(sigmas, eta)
    left = 1 - (1 + eta) * beta
    return float(((1 - beta) / left).prod()) if bool((left > 0).all()) else math.inf


def largest_step(eta: float, nu: float, steps: int) -> float:
    r"""The largest beta that `steps` equal factors 1 - beta may have: c / (eta + c) with c = 1 -
    nu^(-1 / steps).

    All `steps` together divide the noise level by (1 + c / eta)^steps, which tends to nu^(1 / eta).
    """
    if not (0 < eta < 1 and 1 < nu < math.inf):
        raise ValueError(f"eta is {eta} and nu is {nu}: take eta between 0 and 1, nu above 1")
    c = -math.expm1(-math.log(nu) / positive_int("steps", steps))
    return c / (eta + c)


def permenter_yuan(steps: int, sigma_max: float = 40.0, sigma_last: float = 0.01) -> Tensor:
    """Their schedule: geometric from sigma_max to the geometric mean of the last two levels of
    DDIM, then sigma_last.

    In units in which intensities lie in [-1, 1]; halve it for [0, 1]. steps at least 2.
    Source: the released code (smalldiffusion's authors), sigma_max 40 for CIFAR-10 and 5 or 10
    steps.
    """
    if positive_int("steps", steps) < 2:
        raise ValueError(f"steps is {steps}: the schedule needs two or more")
    smallest = float(ddim_linear(steps)[-3:-1].prod().sqrt())
    levels = log_linear(steps, smallest, sigma_max)
    levels[-1] = sigma_last
    return levels


def _steps(sigmas: Tensor, eta: float | Tensor) -> tuple[Tensor, Tensor]:
    """beta and eta of each step, (steps,), float64."""
    levels = sigmas.double()
    if (
        levels.ndim != 1
        or len(levels) < 2
        or not bool((levels[1:] < levels[:-1]).all() and levels[-1] > 0)
    ):
        raise ValueError(
            f"sigmas {levels.flatten()[-3:].tolist()} at the end: pass levels that decrease and stay above 0; a last "
            "step to 0 returns the denoiser's answer, drop it with sigmas[:-1]"
        )
    beta, eta = 1 - levels[1:] / levels[:-1], torch.as_tensor(eta, dtype=torch.float64)
    if eta.shape not in ((), beta.shape) or not bool(((eta >= 0) & (eta < 1)).all()):
        raise ValueError(
            f"eta is {eta.tolist()} for {len(beta)} steps: pass one number in [0, 1), or one for each step"
        )
    return beta, eta.expand(beta.shape)
