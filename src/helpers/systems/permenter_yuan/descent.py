r"""Samplers as descent on a distance (Permenter & Yuan 2024), beyond DDIM: data on a manifold, DDPM as
a perturbed descent, and gradient estimation. The proofs are in chapter 8, ours.
"""

import torch
from torch import Tensor

from .projection import _steps


def reach_bound(
    sigma: float, distance: Tensor, reach: float, k: int, ratio: float = 1.0, within: float = 0.0
) -> Tensor:
    r"""A bound of the relative error of the exact denoiser of a law on a k-dimensional manifold,
    shape of `distance` = dist(y) < reach:

        (sigma / dist) sqrt( ratio (k + 2) (1 + q)^(k/2) / ((1 - q)^(k/2 + 1) P) ),   q = dist / reach,
        P = P(k/2 + 1, (1 + q) within^2 / (2 sigma^2)), the regularised incomplete gamma function.

    The law gives a ball of radius s around any of its points at least a s^k, for s up to `within`,
    and at most ratio a s^k; within 0 means all s, P = 1. Times dist the bound is one of the root
    mean square of |x - proj(y)| given y. Raises ValueError for a distance not below the reach.
    Proved: `thm-reach`.

    >>> reach_bound(0.01, torch.tensor([0.1]).double(), reach=1.0, k=2).round(decimals=3)
    tensor([0.2330], dtype=torch.float64)
    """
    q = distance / reach
    if not bool(((q > 0) & (q < 1)).all()):
        raise ValueError(
            f"the largest distance is {float(distance.max()):.3g} and the reach {reach}: the bound "
            "holds at distances above 0 and below the reach"
        )
    seen = torch.ones_like(q)
    if within:
        half = torch.full_like(q, k / 2 + 1)
        seen = torch.special.gammainc(half, (1 + q) * within**2 / (2 * sigma**2))
    return (
        sigma
        / distance
        * (ratio * (k + 2) * (1 + q) ** (k / 2) / ((1 - q) ** (k / 2 + 1) * seen)).sqrt()
    )


def mean_square_bounds(sigmas: Tensor, eta: float | Tensor) -> Tensor:
    r"""Above E dist(y_t)^2 / (d sigma_t^2) of ancestral sampling (DDPM), (steps + 1,), 1 at the start:

        u' = ((r + eta (1 - r))^2 / r) u + 1 - r,   r = (sigma_{t+1} / sigma_t)^2,

    for a denoiser of relative error at most eta wherever it is called. Small steps end at most at
    1 / (1 - 2 eta), however many there are. Raises as `projection.step_bounds`. Proved: `thm-ddpm`.

    >>> mean_square_bounds(torch.tensor([4.0, 2.0, 1.0]), 0.0)
    tensor([1., 1., 1.], dtype=torch.float64)
    """
    beta, eta = _steps(sigmas, eta)
    r, u = (1 - beta) ** 2, [beta.new_ones(())]
    for ratio, error in zip(r, eta, strict=True):
        u.append((ratio + error * (1 - ratio)) ** 2 / ratio * u[-1] + 1 - ratio)
    return torch.stack(u)


def estimation_bounds(
    sigmas: Tensor, eta: float | Tensor, gamma: float = 2.0
) -> tuple[Tensor, Tensor]:
    r"""What gradient estimation leaves of dist(y_t) / sigma_t relative to the start, at least and at
    most, (steps + 1,) each, while one point of K stays the nearest:

        1 -+ sum_j |c_tj| eta_j u_j,   u the upper bound,
        c_{t+1} = c_t - k_t (1_t + (gamma - 1)(c_t - c_{t-1} + 1_t - 1_{t-1})),

    with k_t = sigma_t / sigma_{t+1} - 1 and 1_t the unit vector of step t: c_tj is the answer at
    level t to the error of step j. The first step is plain. gamma = 1 is DDIM's upper bound. Raises
    as `projection.step_bounds`. Proved: `thm-estimation`.
    """
    beta, eta = _steps(sigmas, eta)
    answer = before = beta.new_zeros(len(beta))
    unit, u, low = torch.eye(len(beta), dtype=beta.dtype), beta.new_ones(1), beta.new_ones(1)
    for t, k in enumerate(beta / (1 - beta)):
        seen = answer + unit[t]  # of the noise that the step sees
        change = unit[t] + ((gamma - 1) * (seen - before) if t else 0)
        answer, before = answer - k * change, seen
        strayed = (answer[: t + 1].abs() * eta[: t + 1] * u).sum()
        u = torch.cat([u, 1 + strayed.view(1)])
        low = torch.cat([low, (1 - strayed).clamp(min=0).view(1)])
    return low, u


def best_gamma(now: Tensor, before: Tensor) -> float:
    r"""The gamma of least mean square of gamma e + (1 - gamma) e_before, over all rows of the errors
    `now` and `before` (batch, *event):

        gamma = (v_before - c) / (v + v_before - 2 c),

    v, v_before and c their mean squares and mean product. It minimises the norm of (e, e_before) in
    the weight W = [[v, c], [c, v_before]]^-1. Proved: `prop-weighted`.

    >>> best_gamma(torch.tensor([[1.0]]), torch.tensor([[2.0]]))  # an error that halves
    2.0
    """
    if now.shape != before.shape or torch.equal(now, before):
        raise ValueError(
            f"errors of shapes {tuple(now.shape)} and {tuple(before.shape)}: pass two that differ, "
            "of the same points"
        )
    v, w, c = (float((a * b).mean()) for a, b in ((now, now), (before, before), (now, before)))
    return (w - c) / (v + w - 2 * c)


def high_noise_gamma(ratio: float) -> float:
    r"""The gamma that is exact to first order in 1 / sigma^2 on geometric levels, each `ratio` times
    the one before: 1 + 1 / (ratio (1 + ratio)).

    2 where the ratio is the golden one, 3/2 in the limit of small steps. Proved: `prop-golden`.

    >>> round(high_noise_gamma((5**0.5 - 1) / 2), 12)
    2.0
    """
    if not 0 < ratio < 1:
        raise ValueError(f"ratio is {ratio}: levels fall, take a number between 0 and 1")
    return 1 + 1 / (ratio * (1 + ratio))
