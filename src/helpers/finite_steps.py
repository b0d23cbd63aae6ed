r"""What each sampler makes of a Gaussian in finitely many steps, exactly.

The denoiser of a Gaussian is linear, and so is every sampler's step: along a principal axis of
variance lambda it multiplies the deviation from the mean and adds independent noise. Here are the
resulting variances, from the start N(0, sigma_0^2), same shape as `variances`; those of Euler are
`helpers.denoisers.linear.flow_variance`. In the limit of many steps the flow leaves lambda
sigma_0^2 / (lambda + sigma_0^2), the others lambda.

On geometric levels, each e^-delta of the one before, all directions change alike: the variance over
lambda is 1 + c delta + O(delta^2) with c = -1/2 for Euler, 0 for Heun, gamma - 3/2 for gradient
estimation and -1 for the reverse SDE.

A step goes from s to t < s; m(s) = s^2 / (lambda + s^2) is the share of y that the denoiser takes
away, y - D = m y.
"""

import torch
from torch import Tensor

from .checks import positive, positive_int
from .sampling import _levels


def heun_variance(variances: Tensor, sigmas: Tensor) -> Tensor:
    r"""Heun's: sigma_0^2 prod [ 1 - (s - t)/2 (m(s)/s + m(t)/t (1 - (s - t) m(s)/s)) ]^2, Euler's
    factor where t = 0. Proved: `prop-07-samplers`, `prop-07-alike`.

    >>> heun_variance(torch.ones(1).double(), torch.tensor([2.0, 1.0, 0.0]).double())
    tensor([0.4225], dtype=torch.float64)
    """
    gain = torch.ones_like(variances)
    for s, t in _steps(sigmas, variances):
        first = 1 - (s - t) * s / (variances + s**2)
        second = t / (variances + t**2) * first if t > 0 else s / (variances + s**2)
        gain = gain * (1 - (s - t) / 2 * (s / (variances + s**2) + second))
    return (sigmas[0].to(variances) * gain) ** 2


def reverse_sde_variance(variances: Tensor, sigmas: Tensor) -> Tensor:
    r"""Ancestral sampling's (DDPM), with r = t^2 / s^2:

        v <- (1 - (1 - r) m(s))^2 v + (1 - r) t^2.

    Exact sampling would give lambda + t^2 from lambda + s^2; the step loses (1 - r)^2 lambda m(s)
    of it. Proved: `prop-07-samplers`, `prop-07-alike`.

    >>> reverse_sde_variance(torch.ones(1).double(), torch.tensor([1.0, 0.0]).double())
    tensor([0.2500], dtype=torch.float64)
    """
    return langevin_variance(variances, sigmas, corrections=0)


def langevin_variance(
    variances: Tensor, sigmas: Tensor, corrections: int = 10, rate: float = 0.1
) -> Tensor:
    r"""`helpers.sampling.langevin`'s: at each level `corrections` times

        v <- (1 - rate m(s))^2 v + 2 rate s^2,

    which tends to (lambda + s^2) / (1 - rate m(s) / 2), too wide; then a step of
    `reverse_sde_variance`. Proved: `prop-07-samplers`.
    """
    if positive("rate", rate, "take 0 < rate < 1") >= 1:
        raise ValueError(f"rate is {rate}: take 0 < rate < 1")
    if corrections != 0:
        positive_int("corrections", corrections, "0 leaves the predictor alone")
    steps = _steps(sigmas, variances)
    v = torch.full_like(variances, float(sigmas[0]) ** 2)
    for s, t in steps:
        m, r = s**2 / (variances + s**2), (t / s) ** 2
        for _ in range(corrections):
            v = (1 - rate * m) ** 2 * v + 2 * rate * s**2
        v = (1 - (1 - r) * m) ** 2 * v + (1 - r) * t**2
    return v


def gradient_estimation_variance(variances: Tensor, sigmas: Tensor, gamma: float = 2.0) -> Tensor:
    r"""Gradient estimation's: the square of sigma_0 prod_i M_i (1, 0) in its first entry, where the
    pair (y, previous noise) takes the matrix

        M = [[ 1 - gamma (s - t) m(s)/s, -(1 - gamma) (s - t) ], [ m(s)/s, 0 ]],

    Euler's factor in the first step. Proved: `prop-07-samplers`, `prop-07-alike`, `prop-gamma`.

    >>> gradient_estimation_variance(torch.ones(1).double(), torch.tensor([2.0, 1.0, 0.0]).double())
    tensor([0.6400], dtype=torch.float64)
    """
    y, previous = torch.full_like(variances, float(sigmas[0])), None
    for s, t in _steps(sigmas, variances):
        noise = s / (variances + s**2) * y
        seen = noise if previous is None else gamma * noise + (1 - gamma) * previous
        y, previous = y - (s - t) * seen, noise
    return y**2


def _steps(sigmas: Tensor, variances: Tensor) -> list[tuple[Tensor, Tensor]]:
    if variances.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"variances are {variances.dtype}: pass float32 or float64")
    if not bool((variances >= 0).all()):
        raise ValueError(f"a variance is {variances.min().item()}: variances cannot be negative")
    list(_levels(sigmas))  # refuses what samplers refuse
    levels = sigmas.to(variances).unbind()
    return list(zip(levels, levels[1:], strict=False))
