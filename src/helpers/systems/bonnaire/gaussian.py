"""The Gaussian, exactly: a denoiser that is not told the noise level, what stochastic ascent makes
of it, its flow."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ...checks import transformed, widened
from ...denoisers.linear import LinearDenoiser


class BlindGaussian(LinearDenoiser):
    r"""Wiener's filter for a noise level that it reads from y: the exact blind denoiser of a
    Gaussian, many pixels.

    The level is the most probable one: with z the coordinates of y - mu along the principal axes,
    the root of

        sum_j z_j^2 / (lambda_j + s^2)^2 = sum_j 1 / (lambda_j + s^2).

    In many dimensions the posterior of s has no width and this is E[x | y]. All axes are needed. A
    point so close to mu that the equation has no root above `floor` is at level `floor`. sigma is
    ignored. Proved: `prop-blind-level`.
    """

    floor = 1e-6

    def level(self, y: Tensor) -> Tensor:
        """The level s of each row of y (batch, *event), (batch,)."""
        if self.axes.shape[0] != self.axes.shape[1]:
            raise ValueError(
                f"only {self.axes.shape[1]} of {self.axes.shape[0]} axes: the level is read from all"
            )
        z2 = (widened((y - self.mean.to(y)).flatten(1)) @ widened(self.axes)).square()
        return most_likely_level(z2, widened(self.variances), self.floor)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return super().estimate(y, self.level(y).to(y).view(-1, *[1] * (y.ndim - 1)))


def most_likely_level(squares: Tensor, variances: Tensor, floor: float = 1e-6) -> Tensor:
    """A root s of sum_j [ squares_j / (variances_j + s^2)^2 - 1 / (variances_j + s^2) ] = 0, to
    1e-9 of itself.

    Newton's method in log s^2, halving the bracket where it would leave it. squares (batch, D),
    variances (D,); (batch,). Where there is no root above `floor`, `floor`.
    """
    low = torch.full_like(squares[:, 0], 2 * math.log(floor))
    # above it every term is negative
    high = torch.maximum((4 * squares.amax(1).clamp(min=floor**2)).log(), low)
    u = torch.maximum(squares.mean(1).clamp(min=floor**2).log(), low)
    for _ in range(60):
        t = u.exp()[:, None]
        share = t / (variances + t)
        ratio = squares / (variances + t)
        value = (share * (ratio - 1)).sum(1)
        slope = (share * ((1 - share) * (ratio - 1) - share * ratio)).sum(1)
        low, high = torch.where(value > 0, u, low), torch.where(value > 0, high, u)
        newton = u - value / slope
        # at the root itself rounding may step over an end
        inside = (newton > low - 1e-9) & (newton < high + 1e-9)
        before, u = u, torch.where(inside, newton, (low + high) / 2)
        if not transformed(u) and bool(((u - before).abs() < 1e-9).all()):
            break
    return (u / 2).exp()


class Ascent(NamedTuple):
    """Stochastic ascent on a Gaussian: its steps, where it stopped, and what it generates along
    each axis."""

    steps: int
    sigma: float  # the level that the sampler reads at the end, and
    level: float  # the level that is there
    variances: Tensor  # of y, (D,)
    denoised: Tensor  # of the last answer, (D,)


def ascent_variances(
    variances: Tensor,
    sigma: float,
    sigma_stop: float = 0.05,
    h: float = 0.01,
    beta: float = 0.1,
    max_steps: int = 10**5,
) -> Ascent:
    r"""What `sampling.stochastic_ascent` with `BlindGaussian` generates from N(mu, sigma^2 I), per
    principal axis.

    With many axes levels do not fluctuate and the variances v_j of y obey a recursion: s the most
    likely level of v,

        l^2 = mean_j v_j s^4 / (lambda_j + s^2)^2 = s^2 (1 - df(s) / D),
        df(s) = sum_j lambda_j / (lambda_j + s^2),
        v_j <- (1 - h s^2 / (lambda_j + s^2))^2 v_j + [ (1 - beta h)^2 - (1 - h)^2 ] l^2,
        until l <= sigma_stop.

    l is the level that the sampler reads from |D - y|: too small by the degrees of freedom that the
    filter keeps. Proved: `prop-ascent`.
    """
    if not (0 < h <= 1 and 0 < beta <= 1 and 0 < sigma_stop < sigma):
        raise ValueError(
            f"h={h}, beta={beta}, sigma={sigma}, sigma_stop={sigma_stop}: take h and beta in (0, 1], 0 < stop < sigma"
        )
    lam = variances.double()
    v, fresh = torch.full_like(lam, sigma**2), (1 - beta * h) ** 2 - (1 - h) ** 2
    for step in range(1, max_steps + 1):
        s2 = float(most_likely_level(v[None], lam)) ** 2
        kept = s2 / (lam + s2)
        level2 = float((v * kept**2).mean())
        if level2 <= sigma_stop**2:
            return Ascent(step, math.sqrt(level2), math.sqrt(s2), v, v * (1 - kept) ** 2)
        v = (1 - h * kept) ** 2 * v + fresh * level2
    raise ValueError(
        f"the level is still above {sigma_stop} after {max_steps} steps: raise sigma_stop, h or max_steps"
    )


def ascent_limit(variances: Tensor, sigma: float, sigma_stop: float, beta: float) -> Tensor:
    r"""The same for h -> 0 and df/D -> 0, in closed form:

        v_j = lambda_j + s^2 - lambda_j ((lambda_j + s^2) / (lambda_j + sigma^2))^(1/beta),
        s = sigma_stop.

    Small steps would be exact from a start of variance lambda_j + sigma^2; the start lacks
    lambda_j, and a share of that is never forgotten. beta = 1 is the probability-flow ODE, beta ->
    0 forgets the start. Same shape as variances. Proved: `prop-ascent-limit`.
    """
    lam = variances.double()
    return lam + sigma_stop**2 - lam * ((lam + sigma_stop**2) / (lam + sigma**2)) ** (1 / beta)


def gaussian_flow(denoiser: LinearDenoiser, y: Tensor, sigma: float, after: float) -> Tensor:
    r"""The probability-flow ODE of a Gaussian from level `sigma` to `after` in one exact step (Wang
    & Vastola 2024).

    y' = mu + U diag( sqrt((lambda + after^2) / (lambda + sigma^2)) ) U^T (y - mu) + (after / sigma)
    (rest of y).
    """
    if not 0 <= after <= sigma or not sigma > 0:
        raise ValueError(f"from level {sigma} to {after}: take 0 <= after <= sigma, sigma > 0")
    axes, lam, mean = denoiser.axes.to(y), denoiser.variances.to(y), denoiser.mean.to(y)
    z = (y - mean).flatten(1)
    gain = torch.sqrt((lam + after**2) / (lam + sigma**2)) - after / sigma
    return mean + (after / sigma * z + (z @ axes * gain) @ axes.T).view_as(y)
