"""Noise schedules and samplers.

A schedule is a decreasing tensor of `steps` + 1 noise levels that ends in 0. A sampler is a
generator: it takes a denoiser, starting points y = sigmas[0] n of shape (batch, *event) and a
schedule, and yields a `State` after every step; the caller draws, stops or records. The denoiser is
called at every level but the last, so `steps` times (Heun: twice a step).

A particle that leaves every plausible region (not finite, or beyond DIVERGED sigmas[0]) is set to
NaN and stays NaN: `metrics.diverged` counts it. Nothing is clamped.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .checks import checked_seed, is_positive, ordered, positive, positive_int
from .denoisers.base import Denoiser

MOST = 10**6  # steps, or corrections of a step
DIVERGED = 1e3  # in units of the largest noise level, a thousand standard deviations of the start


class State(NamedTuple):
    """After a step: its number from 1, the level reached, the point there, and the estimate it was
    made with."""

    step: int
    sigma: float
    y: Tensor
    x_hat: Tensor


# Schedules ----------------------------------------------------------------------------------------


def edm(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> Tensor:
    """sigma_i = (sigma_max^(1/rho) + i/(n-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho, then 0
    (EDM, eq. 5).

    >>> [round(sigma, 3) for sigma in edm(3).tolist()]
    [80.0, 2.515, 0.002, 0.0]
    """
    _checked(steps, sigma_min, sigma_max)
    positive("rho", rho, "it must be positive, EDM takes 7")
    ends = (sigma_max ** (1 / rho), sigma_min ** (1 / rho))
    roots = torch.linspace(*ends, steps, dtype=torch.float64)
    return _ending_in_zero(roots**rho if steps > 1 else roots.new_tensor([sigma_max]))


def log_linear(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> Tensor:
    """Geometric levels from sigma_max to sigma_min, then 0 (Permenter & Yuan 2024; smalldiffusion)."""
    _checked(steps, sigma_min, sigma_max)
    return _ending_in_zero(
        torch.logspace(math.log10(sigma_max), math.log10(sigma_min), steps, dtype=torch.float64)
    )


def cosine_vp(steps: int, sigma_max: float = 80.0) -> Tensor:
    """Cosine schedule converted: a = cos^2(pi t / 2), so sigma = tan(pi t / 2), t evenly from
    sigma_max's to 0."""
    _checked(steps, sigma_max / 2 if is_positive(sigma_max) else sigma_max, sigma_max)
    t = torch.linspace(2 / math.pi * math.atan(sigma_max), 0, steps + 1, dtype=torch.float64)
    return _ending_in_zero(torch.tan(math.pi / 2 * t[:-1]))


def ddim_linear(
    steps: int, beta_1: float = 1e-4, beta_n: float = 0.02, train_steps: int = 1000
) -> Tensor:
    """DDPM's linear betas converted, sigma = sqrt((1 - a) / a), at the training steps floor(i T /
    steps), T of them.

    DDIM's "leading" spacing where steps divides T; where it does not, libraries round T / steps
    first and miss the noisiest steps.
    """
    _checked(steps, beta_1, beta_n)
    if steps > positive_int("train_steps", train_steps, most=MOST):
        raise ValueError(
            f"steps is {steps}, above the {train_steps} training steps: choose at most {train_steps}"
        )
    a = torch.cumprod(1 - torch.linspace(beta_1, beta_n, train_steps, dtype=torch.float64), 0)
    times = (torch.arange(steps) * train_steps // steps).flip(0)
    return _ending_in_zero(vp_to_ve(a)[times])


def vp_to_ve(a: Tensor) -> Tensor:
    """Noise level sigma = sqrt((1 - a)/a) of x_t = sqrt(a) x + sqrt(1 - a) eps, after y = x_t /
    sqrt(a)."""
    return torch.sqrt((1 - a) / a)


def _checked(steps: int, sigma_min: float, sigma_max: float) -> None:
    positive_int("steps", steps, most=MOST)
    ordered(sigma_min, sigma_max)


def _ending_in_zero(levels: Tensor) -> Tensor:
    return torch.cat([levels, levels.new_zeros(1)])


# Starting points and what to do with a generator --------------------------------------------------


def initial_noise(
    n: int, *event: int, sigma: float, seed: int = 0, dtype: torch.dtype = torch.float64
) -> Tensor:
    """n starting points sigma * N(0, I), shape (n, *event): the same noise for every architecture
    at equal seed."""
    if not 0 < sigma < math.inf:
        raise ValueError(f"sigma is {sigma}: the level of the start must be positive and finite")
    g = torch.Generator().manual_seed(checked_seed(seed))
    noise = torch.randn(positive_int("n", n), *event, generator=g, dtype=torch.float64)
    return (sigma * noise).to(dtype)


def last(states: Iterable[State]) -> Tensor:
    """The final points of a sampler, (batch, *event); diverged ones are NaN."""
    state = None
    for state in states:  # noqa: B007
        pass
    if state is None:
        raise ValueError("the sampler took no step: its schedule needs at least two levels")
    return state.y


def trajectory(start: Tensor, states: Iterable[State]) -> Tensor:
    """Start and every later point, (steps + 1, batch, *event)."""
    return torch.stack([start, *(s.y for s in states)])


# Samplers -----------------------------------------------------------------------------------------


@torch.no_grad()
def euler(denoiser: Denoiser, y: Tensor, sigmas: Tensor) -> Iterator[State]:
    """Euler on the probability-flow ODE dy/dsigma = (y - D)/sigma; this is DDIM (Song, Meng & Ermon
    2021, eq. 13). Proved: `prop-ddim`, `prop-no-unit`."""
    for i, sigma, after in _levels(sigmas):
        x_hat = _denoise(denoiser, y, sigma)
        y = _settle(x_hat + after / sigma * (y - x_hat), sigmas)
        yield State(i, after, y, x_hat)


@torch.no_grad()
def heun(denoiser: Denoiser, y: Tensor, sigmas: Tensor) -> Iterator[State]:
    """Heun's second-order rule on the same ODE, Euler for the step to 0 (EDM, algorithm 1).
    Proved: `prop-flow`.

    >>> from helpers.denoisers import PosteriorMean
    >>> denoiser = PosteriorMean(torch.tensor([[0.0], [1.0]]))
    >>> last(heun(denoiser, torch.tensor([[-50.0], [60.0]]), edm(20))).round(decimals=4)
    tensor([[0.], [1.]])
    """
    for i, sigma, after in _levels(sigmas):
        x_hat = _denoise(denoiser, y, sigma)
        slope = (y - x_hat) / sigma
        ahead = _settle(y + (after - sigma) * slope, sigmas)
        if after > 0:
            slope = (slope + (ahead - _denoise(denoiser, ahead, after)) / after) / 2
            ahead = _settle(y + (after - sigma) * slope, sigmas)
        y = ahead
        yield State(i, after, y, x_hat)


@torch.no_grad()
def reverse_sde(
    denoiser: Denoiser,
    y: Tensor,
    sigmas: Tensor,
    seed: int = 0,
    normal: Callable[..., Tensor] | None = None,
) -> Iterator[State]:
    """Reverse diffusion by ancestral steps: the law of y_after given y and x = D exactly (DDPM, Ho
    et al. 2020, eq. 7).

    y_after = D + (s'/s)^2 (y - D) + s' sqrt(1 - (s'/s)^2) z.

    z comes from torch's generator. With normal=`helpers.noise.normal`, step i takes normal(*shape,
    seed, stream=i): the same bits as in the browser.
    """
    g = _on_the_way(seed)
    for i, sigma, after in _levels(sigmas):
        z = normal(*y.shape, seed=seed, stream=i).to(y) if normal else _normal(y, g)
        y, x_hat = _ancestral(denoiser, y, sigma, after, z)
        y = _settle(y, sigmas)
        yield State(i, after, y, x_hat)


@torch.no_grad()
def langevin(
    denoiser: Denoiser,
    y: Tensor,
    sigmas: Tensor,
    corrections: int = 10,
    rate: float = 0.1,
    seed: int = 0,
) -> Iterator[State]:
    """Annealed Langevin with predictor and corrector (Song & Ermon 2019, algorithm 1; Song et al.
    2021, algorithm 2).

    At each level, `corrections` Langevin steps of size rate sigma^2, y <- y + rate (D - y) + sigma
    sqrt(2 rate) z, then an ancestral step to the next level as the predictor. rate in (0, 1). A
    call that goes on from another needs another seed, or it meets the same noise again.
    """
    if not positive("rate", rate, "take 0 < rate < 1") < 1:
        raise ValueError(f"rate is {rate}: Langevin steps of size rate sigma^2 need 0 < rate < 1")
    if corrections != 0:
        positive_int("corrections", corrections, "0 leaves the predictor alone", most=MOST)
    g = _on_the_way(seed)
    for i, sigma, after in _levels(sigmas):
        for _ in range(corrections):
            step = rate * (_denoise(denoiser, y, sigma) - y)
            y = _settle(y + step + sigma * math.sqrt(2 * rate) * _normal(y, g), sigmas)
        y, x_hat = _ancestral(denoiser, y, sigma, after, _normal(y, g))
        y = _settle(y, sigmas)
        yield State(i, after, y, x_hat)


@torch.no_grad()
def stochastic_ascent(
    denoiser: Denoiser,
    y: Tensor,
    sigma: float,
    sigma_stop: float = 0.05,
    h: float = 0.01,
    beta: float = 0.1,
    growing: bool = False,
    max_steps: int = 100_000,
    seed: int = 0,
) -> Iterator[State]:
    """Kadkhodaie & Simoncelli's sampler (Algorithm 1 of Kadkhodaie et al. 2024): coarse-to-fine
    stochastic ascent.

        d = D(y) - y,   sigma_t = ||d|| / sqrt(dim),   y <- y + h d + gamma z,
        gamma^2 = [ (1 - beta h)^2 - (1 - h)^2 ] sigma_t^2,   until sigma_t <= sigma_stop.

    beta = 1 adds no noise. Constants of the paper: h = .01 fixed, beta = .1, sigma_stop = .05.
    Those of the released code: growing=True, h_t = h t / (1 + h (t - 1)), beta = .01,
    sigma_stop = .01, and a last denoising. `sigma` is the level of the start y. Each point follows
    its own level; one that has reached the end waits for the rest. A blind denoiser ignores the
    level it is given; any other is asked at the last estimate of its own. The yielded sigma is the
    largest level still running.
    """
    if not (0 < h <= 1 and 0 < beta <= 1 and 0 < sigma_stop < sigma):
        raise ValueError(
            f"h={h}, beta={beta}, sigma={sigma}, sigma_stop={sigma_stop}: take h and beta in (0, 1] and "
            "0 < sigma_stop < sigma"
        )
    g, level = _on_the_way(seed), torch.full((len(y),), float(sigma)).to(y)
    sigmas = torch.tensor([sigma])
    running, x_hat = torch.ones_like(level, dtype=torch.bool), y.clone()
    for t in range(1, max_steps + 1):
        x_hat = x_hat.clone()
        x_hat[running] = _denoise(denoiser, y[running], level[running])
        d = x_hat - y
        level = torch.where(running, d.flatten(1).square().mean(1).sqrt(), level)
        running = running & (level > sigma_stop)  # False for NaN
        if not running.any():
            yield State(t, _largest(level[level.isfinite()]), x_hat if growing else y, x_hat)
            return
        rate = h * t / (1 + h * (t - 1)) if growing else h
        gamma = math.sqrt((1 - beta * rate) ** 2 - (1 - rate) ** 2) * _column(level, y)
        moved = _settle(y + rate * d + gamma * _normal(y, g), sigmas)
        y = torch.where(_column(running, y), moved, y)
        running = running & y.flatten(1).isfinite().all(1)
        yield State(t, _largest(level[running]), y, x_hat)
    raise ValueError(
        f"{int(running.sum())} points still above sigma_stop = {sigma_stop} after {max_steps} steps: raise "
        "sigma_stop, h or max_steps"
    )


@torch.no_grad()
def gradient_estimation(
    denoiser: Denoiser, y: Tensor, sigmas: Tensor, gamma: float = 2.0
) -> Iterator[State]:
    """Permenter & Yuan's sampler (2024, algorithm 2): Euler along an extrapolated noise direction.

    eps = (y - D)/sigma; step along gamma eps + (1 - gamma) eps_previous, the first step plain;
    gamma = 1 is Euler. Proved: `prop-gamma`."""
    if not abs(gamma) < math.inf:
        raise ValueError(f"gamma is {gamma}: it must be finite, 1 is Euler and 2 the paper's")
    previous = None
    for i, sigma, after in _levels(sigmas):
        x_hat = _denoise(denoiser, y, sigma)
        eps = (y - x_hat) / sigma
        direction = eps if previous is None else gamma * eps + (1 - gamma) * previous
        y, previous = _settle(y + (after - sigma) * direction, sigmas), eps
        yield State(i, after, y, x_hat)


def _levels(sigmas: Tensor) -> Iterator[tuple[int, float, float]]:
    levels = sigmas.tolist()
    steps = list(zip(levels, levels[1:], strict=False))
    if not steps or not all(math.inf > a > b >= 0 for a, b in steps):
        raise ValueError(
            f"sigmas {[round(s, 4) for s in levels[:6]]}: a schedule decreases strictly to a level >= 0"
        )
    for i, (sigma, after) in enumerate(steps, start=1):
        yield i, sigma, after


def _denoise(denoiser: Denoiser, y: Tensor, sigma: float | Tensor) -> Tensor:
    """D on the particles that are still finite; NaN on the rest."""
    alive = y.flatten(1).isfinite().all(1)
    if alive.all():
        return denoiser(y, sigma)
    x_hat = torch.full_like(y, torch.nan)
    if alive.any():
        own = isinstance(sigma, Tensor) and sigma.ndim
        x_hat[alive] = denoiser(y[alive], sigma[alive] if own else sigma)
    return x_hat


def _settle(y: Tensor, sigmas: Tensor) -> Tensor:
    gone = ~(y.flatten(1).abs().amax(1) <= DIVERGED * float(sigmas[0]))
    return y.masked_fill(_column(gone, y), torch.nan)


def _column(rows: Tensor, y: Tensor) -> Tensor:
    """One number a row, (batch,), against y, (batch, *event)."""
    return rows.view(-1, *[1] * (y.ndim - 1))


def _largest(levels: Tensor) -> float:
    return float(levels.max()) if len(levels) else math.nan


def _ancestral(
    denoiser: Denoiser, y: Tensor, sigma: float, after: float, z: Tensor
) -> tuple[Tensor, Tensor]:
    x_hat, ratio = _denoise(denoiser, y, sigma), (after / sigma) ** 2
    return x_hat + ratio * (y - x_hat) + after * math.sqrt(1 - ratio) * z, x_hat


def _on_the_way(seed: int) -> torch.Generator:
    """A stream of its own: that of `initial_noise` would give the first step the noise of the start
    again."""
    return torch.Generator().manual_seed(checked_seed(seed) ^ 0x9E3779B9)


def _normal(y: Tensor, g: torch.Generator) -> Tensor:
    # on the CPU in float64: a seed means the same noise on every device and in every precision
    return torch.randn(y.shape, generator=g, dtype=torch.float64).to(y)
