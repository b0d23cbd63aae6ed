r"""Physics as a virtual observation in the loss of a denoiser (Bastek, Sun & Kochmann, ICLR 2025),
and an exact toy.

To the loss of a denoiser D is added what a constraint says of an estimate x* of the clean sample:
the squared residual of an equation, the square of what violates an inequality, or an objective.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...checks import exact, positive_int, widened
from ...denoisers import Denoiser
from ...recipe import SNR, Recipe

LEVELS, OFFSET = 100, 0.008  # T and s of the paper's process
STEP = math.pi / 2 / (1 + OFFSET) / LEVELS  # of its angle
FIRST = LEVELS * OFFSET * STEP  # the angle at t = 0


def _level(angle: Tensor) -> Tensor:
    """sigma^2 = cos^2(first) / cos^2(angle) - 1."""
    return (math.cos(FIRST) / angle.cos()).square() - 1


def levels() -> Tensor:
    r"""The paper's noise levels, sigma_99 > ... > sigma_1 > 0 and then 0, (100,) float64.

        sigma_t^2 = 1 / abar_t - 1,   abar_t = cos^2(a_t) / cos^2(a_0),
        a_t = pi / 2 (t / 100 + s) / (1 + s),  s = .008.

    At t = 100 no signal is left, sigma is infinite. Source: Nichol & Dhariwal 2021, and the released
    code, which stops short of it by beta <= .999.
    """
    t = torch.arange(LEVELS - 1, -1, -1, dtype=torch.float64)
    sigma = _level(FIRST + STEP * t).clamp(min=0).sqrt()
    return torch.where(t > 0, sigma, 0.0)


LOWEST, HIGHEST = float(levels()[-2]), float(levels()[0])


def posterior_variance(sigma: Tensor) -> Tensor:
    r"""The variance S by which the paper divides a residual, at noise levels of our coordinates;
    shape of sigma.

        S = s'^2 (1 - s'^2 / sigma^2) / (1 + s'^2),  s' the level one step before sigma,

    the law of x_{t-1} given x_t and x in the process of `levels`, in its own, variance preserving
    units. Below two steps S is that of two steps, as in the released code.
    """
    share = math.cos(FIRST) / (1 + widened(sigma).square()).sqrt()
    angle = share.acos().clamp(min=FIRST + 2 * STEP)
    before = _level(angle - STEP)
    return (before * (1 - before / _level(angle)) / (1 + before)).to(sigma)


def data_weight(sigma: Tensor) -> Tensor:
    """The paper's weight of the squared error, min(1 / sigma^2, 5), the loss "min-snr"."""
    return (sigma**-2).clamp(max=SNR["min-snr"])


# Of what a constraint returns and of the variance S, what the loss pays
KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "equality": lambda r, S: r.square().mean(1) / (2 * S),
    "inequality": lambda g, S: g.clamp(min=0).square().mean(1) / (2 * S),
    "objective": lambda J, S: J.mean(1),
}


@dataclass(frozen=True)
class VirtualObservation:
    r"""The penalty of a batch: weight times the mean over it of

        "equality"    mean R(x*)^2 / (2 S),          a residual R that is to be 0,
        "inequality"  mean max(0, R(x*))^2 / (2 S),  an R that is to be at most 0,
        "objective"   mean R(x*),                    an R that is to be small,

    with S the `posterior_variance`; means are over the numbers that R returns for a sample.

    residual: x (batch, *event) -> (batch, ...), differentiable. estimate: "mean", x* = D(y, sigma),
    a mean of all x that y may come from; or "sample", a step of DDIM from y to the lowest level s_1
    and the denoiser again, x* = D( x_hat + s_1 / sigma (y - x_hat), s_1 ). below: levels above it are
    not penalised, which is ours. Source: Bastek, Sun & Kochmann 2025 and their released code.

    >>> outside = VirtualObservation(lambda x: 1 - x.norm(dim=1), 1e-3, "inequality")
    >>> outside(None, torch.zeros(1, 2), torch.ones(1), torch.tensor([[2.0, 0.0]]))
    tensor(0.)
    """

    residual: Callable[[Tensor], Tensor]
    weight: float
    kind: str = "equality"
    estimate: str = "mean"
    below: float | None = None

    def __post_init__(self) -> None:
        for name, choices in (("kind", tuple(KINDS)), ("estimate", ("mean", "sample"))):
            if getattr(self, name) not in choices:
                raise ValueError(
                    f"{name} is {getattr(self, name)!r}: choose one of {', '.join(choices)}"
                )
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"weight is {self.weight}: take a number of at least 0")
        if self.below is not None and not self.below > 0:
            raise ValueError(f"below is {self.below}: take a noise level, or None for all levels")

    def __call__(self, denoiser: Callable, y: Tensor, sigma: Tensor, x_hat: Tensor) -> Tensor:
        """The penalty of a batch y (batch, *event) at levels sigma (batch,) with x_hat = D(y,
        sigma), a scalar."""
        if self.estimate == "sample":
            lowest = torch.full_like(sigma, LOWEST).minimum(sigma)
            ratio = (lowest / sigma).view(-1, *[1] * (y.ndim - 1))
            x_hat = denoiser(x_hat + ratio * (y - x_hat), lowest)
        observed = KINDS[self.kind](self._seen(x_hat), posterior_variance(sigma))
        if self.below is not None:
            observed = observed * (sigma <= self.below)
        return self.weight * observed.mean()

    def tried_on(self, points: Tensor) -> "VirtualObservation":
        """Itself, after a look at what the constraint says of data (N, *event) that obey it.

        Raises ValueError where a row has no finite number of its own or no gradient, where an
        equation is further from 0 on the data than on noise of their size, and where most of the
        data violate an inequality.
        """
        seen = self._seen(points.detach().float().requires_grad_())
        if not seen.requires_grad or not bool(seen.isfinite().all()):
            raise ValueError(
                "the constraint has no gradient, or holds NaN or infinity, on the data: compute it "
                "from x by operations of torch that are finite there"
            )
        g = torch.Generator().manual_seed(0)
        noise = points.mean(0) + points.std() * torch.randn(points.shape, generator=g).to(points)
        off, other = float(seen.detach().abs().mean()), float(self._seen(noise).abs().mean())
        if self.kind == "equality" and not off < other:
            raise ValueError(
                f"the residual of the data is {off:.3g} in the mean and that of noise {other:.3g}: "
                "pass an equation that the data obey"
            )
        violating = float((seen > 0).flatten(1).any(1).double().mean())
        if self.kind == "inequality" and violating > 0.5:
            raise ValueError(
                f"{violating:.0%} of the data violate the inequality, a number above 0: what is "
                "allowed must be at most 0, so perhaps the sign is to be turned"
            )
        return self

    def _seen(self, x: Tensor) -> Tensor:
        seen = self.residual(x)
        if not isinstance(seen, Tensor) or seen.ndim == 0 or len(seen) != len(x):
            shape = tuple(seen.shape) if isinstance(seen, Tensor) else type(seen).__name__
            raise ValueError(
                f"the constraint returned {shape} for x of shape {tuple(x.shape)}: return numbers for "
                f"each sample, ({len(x)}, ...)"
            )
        return seen.reshape(len(x), -1)


@dataclass(frozen=True)
class PhysicsRecipe(Recipe):
    """A recipe with a virtual observation, whose fields these are; stored with the weights of the
    network."""

    weight: float = 0.0
    kind: str = "equality"
    estimate: str = "mean"
    below: float | None = None

    def penalty(self, residual: Callable[[Tensor], Tensor]) -> VirtualObservation | None:
        """What `training.train` adds to its loss; None without weight."""
        told = residual, self.weight, self.kind, self.estimate, self.below
        return VirtualObservation(*told) if self.weight else None


class Guided:
    r"""A denoiser that hears of the virtual observation only when it samples:

        D(y) - sigma^2 weight grad_y |R(D(y))|^2 / (2 S),

    the posterior mean given y and a residual that was seen to be 0 with the variance S / weight, if
    x is taken for its mean (Chung et al. 2023). It costs a passage back through the network at each
    step. Called as a denoiser is, by the samplers; it has no derivative itself.
    """

    def __init__(self, denoiser: Denoiser, residual: Callable[[Tensor], Tensor], weight: float):
        self.denoiser, self.residual, self.weight = denoiser, residual, weight

    def __call__(self, y: Tensor, sigma: float) -> Tensor:
        with torch.enable_grad():
            given = y.detach().requires_grad_()
            x_hat = self.denoiser(given, sigma)
            squares = self.residual(x_hat).square().sum()
            pull = torch.autograd.grad(squares, given)[0]
        S = float(posterior_variance(torch.tensor(float(sigma), dtype=torch.float64)))
        return x_hat.detach() - sigma**2 * self.weight / (2 * S) * pull


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
