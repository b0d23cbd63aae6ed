r"""Physics as a virtual observation in the loss of a denoiser (Bastek, Sun & Kochmann, ICLR 2025),
and an exact toy.

To the loss of a denoiser D is added the squared residual of an equation R(x) = 0 at an estimate x*
of the clean sample, as if the residual had been observed to be zero with the variance S that the
sampler has at that noise level.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...checks import exact, positive_int
from ...denoisers import Denoiser
from ...recipe import Recipe

LEVELS = 100  # of the discrete process whose weights are translated


def posterior_variance(sigma: Tensor, levels: int = LEVELS) -> Tensor:
    r"""The variance S by which the paper divides a residual, at noise levels of our coordinates;
    shape of sigma.

        S = s'^2 (1 - s'^2 / s^2) / (1 + s'^2),
        s = tan(a), s' = tan(a - step), step = pi / (2 levels),

    the law of x_{t-1} given x_t and x in DDPM with a cosine schedule of `levels` steps, in its own,
    variance preserving units. Below two steps S is that of two steps, as in the released code.
    """
    step = math.pi / (2 * levels)
    angle = sigma.atan().clamp(min=2 * step)
    before = (angle - step).tan().square()
    return before * (1 - before / angle.tan().square()) / (1 + before)


def data_weight(sigma: Tensor) -> Tensor:
    """The paper's weight of the squared error, min(1 / sigma^2, 5): the signal-to-noise ratio,
    capped."""
    return (sigma**-2).clamp(max=5.0)


@dataclass(frozen=True)
class VirtualObservation:
    r"""The penalty of a batch, for a residual R that is observed to be zero with variance S, the
    `posterior_variance`:

        weight * mean g(sigma) R(x*)^2 / (2 S),   g = max(1, 1 / (5 sigma^2)).

    The paper has g = 1, beside the data term min(1/sigma^2, 5) e. Ours, loss "snr", is e / sigma^2:
    both terms of each level are multiplied by g, so that what is best at a level stays best and low
    levels are not forgotten.

    residual: x (batch, *event) -> (batch, ...), differentiable. estimate: "mean", x* = D(y, sigma),
    a mean of all x that y may come from; or "sample", a step of DDIM from y to the lowest level s_1
    and the denoiser again, x* = D( x_hat + s_1 / sigma (y - x_hat), s_1 ). Source: Bastek, Sun &
    Kochmann 2025 and their released code. below: levels above it are not penalised, which is ours.
    """

    residual: Callable[[Tensor], Tensor]
    weight: float
    estimate: str = "mean"
    below: float | None = None

    def __post_init__(self) -> None:
        if self.estimate not in ("mean", "sample"):
            raise ValueError(f"estimate is {self.estimate!r}: choose 'mean' or 'sample'")
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight is {self.weight}: take a number of at least 0")
        if self.below is not None and not self.below > 0:
            raise ValueError(f"below is {self.below}: take a noise level, or None for all levels")

    def __call__(self, denoiser: Callable, y: Tensor, sigma: Tensor, x_hat: Tensor) -> Tensor:
        """The penalty of a batch y (batch, *event) at levels sigma (batch,) with x_hat = D(y,
        sigma), a scalar."""
        if self.estimate == "sample":
            lowest = torch.full_like(sigma, math.tan(math.pi / (2 * LEVELS))).minimum(sigma)
            ratio = (lowest / sigma).view(-1, *[1] * (y.ndim - 1))
            x_hat = denoiser(x_hat + ratio * (y - x_hat), lowest)
        squares = self.residual(x_hat).view(len(y), -1).square().mean(1)
        observed = squares / (2 * posterior_variance(sigma)) / data_weight(sigma) / sigma**2
        if self.below is not None:
            observed = observed * (sigma <= self.below)
        return self.weight * observed.mean()


@dataclass(frozen=True)
class PhysicsRecipe(Recipe):
    """A recipe with a virtual observation, whose fields these are; stored with the weights of the
    network."""

    weight: float = 0.0
    estimate: str = "mean"
    below: float | None = None

    def penalty(self, residual: Callable[[Tensor], Tensor]) -> VirtualObservation | None:
        """What `training.train` adds to its loss; None without weight."""
        return (
            VirtualObservation(residual, self.weight, self.estimate, self.below)
            if self.weight
            else None
        )


# The circle, where everything is known ------------------------------------------------------------


class CircleLaw:
    r"""A mixture of von Mises laws on the unit circle.

        density of the angle t:  sum_j w_j exp( kappa_j cos(t - t_j) ) / (2 pi I_0(kappa_j)),

    angles t_j, concentrations kappa_j >= 0 (0 is uniform) and weights w_j, which are divided by
    their sum. The circle is the zero set of the residual R(x) = |x|^2 - 1.
    """

    def __init__(self, angles: list[float], concentrations: list[float], weights: list[float]):
        if not len(angles) == len(concentrations) == len(weights) > 0:
            raise ValueError(
                f"{len(angles)} angles, {len(concentrations)} concentrations, {len(weights)} weights: pass one of each "
                "for every component"
            )
        if min(concentrations) < 0 or not min(weights) > 0:
            raise ValueError(
                f"concentrations {concentrations}, weights {weights}: take none negative, weights positive"
            )
        t = torch.tensor(angles, dtype=torch.float64)
        self.kappa = torch.tensor(concentrations, dtype=torch.float64)
        self.poles = self.kappa[:, None] * torch.stack([t.cos(), t.sin()], 1)
        self.weights = torch.tensor(weights, dtype=torch.float64) / sum(weights)

    def density(self, t: Tensor) -> Tensor:
        """The density of the angles t (batch,), (batch,)."""
        at = exact(torch.stack([t.cos(), t.sin()], 1))
        poles, kappa, weights = (v.to(at) for v in (self.poles, self.kappa, self.weights))
        return ((at @ poles.T).exp() / (2 * math.pi * torch.special.i0(kappa))) @ weights

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n points (n, 2) on the circle, float64, from the seed."""
        g = np.random.default_rng(seed)
        j = g.choice(len(self.weights), positive_int("n", n), p=self.weights.numpy())
        t = torch.from_numpy(
            g.vonmises(torch.atan2(self.poles[:, 1], self.poles[:, 0])[j], self.kappa[j])
        )
        return torch.stack([t.cos(), t.sin()], 1)

    @staticmethod
    def residual(x: Tensor) -> Tensor:
        """|x|^2 - 1 of x (batch, 2), (batch,)."""
        return x.square().sum(1) - 1


class CircleDenoiser(Denoiser):
    r"""The best denoiser there is for a `CircleLaw`, without or with a virtual observation of its
    mean estimate.

    Without (weight 0) it is the posterior mean m. Given y, component j has the natural parameter
    e_j = y / sigma^2 + kappa_j u_j and the mean A(|e_j|) e_j / |e_j|, A = I_1 / I_0; its weight is
    in proportion to w_j I_0(|e_j|) / I_0(kappa_j).
    With weight c it minimises, at every y by itself,

        w |v - m|^2 / 2 + c ( |v|^2 - 1 )^2 / (2 S):   v = rho m / |m|,
        rho - |m| + b rho (rho^2 - 1) = 0,

    b = 2 c / (w S), w the `data_weight`, S the `posterior_variance`: the cubic has one root in
    [|m|, 1], which Newton's method finds. Proved: `prop-best-mean`.
    """

    def __init__(self, law: CircleLaw, weight: float = 0.0):
        super().__init__()
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight is {weight}: take a number of at least 0")
        self.event_shape, self.weight = (2,), weight
        self.keep(poles=law.poles, weights=law.weights, kappa=law.kappa)

    poles: Tensor
    weights: Tensor
    kappa: Tensor

    def posterior_mean(self, y: Tensor, sigma: Tensor) -> Tensor:
        e = (y / sigma**2)[:, None] + self.poles.to(y)  # (batch, components, 2)
        size = e.norm(dim=2)

        def log_bessel(z: Tensor) -> Tensor:
            return torch.special.i0e(z).log() + z

        w = (self.weights.to(y).log() + log_bessel(size) - log_bessel(self.kappa.to(y))).softmax(1)
        ratio = torch.special.i1e(size) / torch.special.i0e(size) / size.clamp(min=1e-30)
        return ((w * ratio)[..., None] * e).sum(1)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        m = self.posterior_mean(y, sigma)
        if self.weight == 0:
            return m
        length = m.norm(dim=1, keepdim=True)
        b = 2 * self.weight / data_weight(sigma) / posterior_variance(sigma)
        rho = torch.ones_like(length)
        # convex and increasing from the root on: from 1 Newton comes down to it, never past it
        for _ in range(60):
            rho = rho - (rho - length + b * rho * (rho**2 - 1)) / (1 + b * (3 * rho**2 - 1))
        return rho * m / length.clamp(min=1e-30)
