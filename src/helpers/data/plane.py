"""Two-dimensional targets. Each samples from a seed and knows its density; most know their Bayes
denoiser.

A target has `sample(n, seed) -> (n, 2)` float64, also its training sets, and `log_prob(y, sigma=0)
-> (batch,)`, the log-density at noise sigma where that is known. Curves with Gaussian width are
mixtures on quadrature nodes of the
curve: the nodes lie so close for the width that the mixture equals the continuous law to 2e-6 in
total variation.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import checked_sigma, exporting, positive_int
from ..denoisers import Denoiser, GaussianMixture


def ring(components: int = 8, radius: float = 1.5, std: float = 0.12) -> GaussianMixture:
    """`components` equal Gaussians evenly on a circle."""
    angle = (
        2
        * math.pi
        * torch.arange(positive_int("components", components), dtype=torch.float64)
        / components
    )
    return GaussianMixture(radius * torch.stack([angle.cos(), angle.sin()], 1), std)


def two_gaussians(distance: float = 2.0, std: float = 0.3) -> GaussianMixture:
    """Two equal Gaussians on the first axis, means `distance` apart."""
    return GaussianMixture([[-distance / 2, 0.0], [distance / 2, 0.0]], std)


def three_points() -> GaussianMixture:
    """Three point masses with unequal weights, a target with skewness and no density."""
    return GaussianMixture([[-1.0, -0.6], [1.2, -0.3], [0.2, 1.4]], weights=[0.6, 0.3, 0.1])


def moons(std: float = 0.1) -> GaussianMixture:
    """Two interlocking half circles of radius 1.2 with Gaussian width."""
    t, w = _legendre(64, 0, math.pi)
    upper = torch.stack([t.cos() - 0.5, t.sin() - 0.25], 1)
    return GaussianMixture(1.2 * torch.cat([upper, -upper]), std, torch.cat([w, w]))


def swiss_roll(std: float = 0.1) -> GaussianMixture:
    """One and a half turns of an Archimedean spiral with Gaussian width, uniform in angle, radius
    .7 to 2.1."""
    t, w = _legendre(192, 1.5 * math.pi, 4.5 * math.pi)
    return GaussianMixture(0.15 * t[:, None] * torch.stack([t.cos(), t.sin()], 1), std, w)


def spiral(arms: int = 2, std: float = 0.08) -> GaussianMixture:
    """`arms` rotated arms of one turn each, uniform in radius from .2 to 2, with Gaussian width."""
    r, w = _legendre(128, 0.2, 2.0)
    parts = []
    for arm in range(positive_int("arms", arms)):
        angle = 2 * math.pi * ((r - 0.2) / 1.8 + arm / arms)
        parts.append(r[:, None] * torch.stack([angle.cos(), angle.sin()], 1))
    return GaussianMixture(torch.cat(parts), std, w.repeat(arms))


def star(points: int = 5, std: float = 0.06) -> GaussianMixture:
    """The closed curve of radius 1.4 + .5 cos(points t), uniform in angle, with Gaussian width."""
    # periodic: equal weights are the best quadrature
    t = 2 * math.pi * torch.arange(256, dtype=torch.float64) / 256
    r = 1.4 + 0.5 * (positive_int("points", points) * t).cos()
    return GaussianMixture(r[:, None] * torch.stack([t.cos(), t.sin()], 1), std)


def checkerboard() -> "Checkerboard":
    """Uniform on the dark squares of a 4 x 4 board of side 4."""
    return Checkerboard()


def pinwheel() -> "Pinwheel":
    """Five Gaussian blades, twisted by an angle that grows with the radius."""
    return Pinwheel()


class Checkerboard(Denoiser):
    r"""Uniform law on the squares [a, a+1] x [b, b+1], a, b in {-2, ..., 1}, a + b even, and its
    exact Bayes denoiser.

    Per square and axis, with alpha = (a - y)/sigma and beta = (a + 1 - y)/sigma: mass Phi(beta) -
    Phi(alpha) and mean y - sigma (phi(beta) - phi(alpha)) / mass, the truncated normal's (Johnson,
    Kotz & Balakrishnan 1994, section 10.1).
    """

    event_shape = (2,)
    corners = torch.tensor(
        [[a, b] for a in range(-2, 2) for b in range(-2, 2) if (a + b) % 2 == 0]
    ).double()

    def _log_mass(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low = (self.corners.to(y) - y[:, None]) / sigma[..., None]
        high = low + 1 / sigma[..., None]
        # far right of an edge both cdf values round to 1: use the mirror image, where they are tiny
        # and exact
        flip = low > 0
        a, b = torch.where(flip, -high, low), torch.where(flip, -low, high)
        log_a, log_b = torch.special.log_ndtr(a), torch.special.log_ndtr(b)
        return log_b + torch.log(-torch.expm1(log_a - log_b)), low, high

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        # graphs have no log Phi: quadrature in every square, to 1e-6 for sigma >= .02
        if exporting():
            t, w = (v.to(y) for v in _legendre(96, 0, 1))
            x = self.corners.to(y)[..., None] + t
            log_joint = w.log() - 0.5 * ((y[:, None, :, None] - x) / sigma) ** 2
            r = torch.softmax(log_joint.logsumexp(-1).sum(-1), dim=1)[..., None]
            return (r * (torch.softmax(log_joint, dim=-1) * x).sum(-1)).sum(1)
        log_mass, low, high = self._log_mass(y, sigma)  # (batch, 8, 2)
        r = torch.softmax(log_mass.sum(-1), dim=1)[..., None]
        # (phi(high) - phi(low)) / mass in logarithms, from the end nearer to y: far from the square
        # all three are tiny
        near, gap = torch.minimum(low.square(), high.square()), (high.square() - low.square()) / 2
        log_phi = -0.5 * near - 0.5 * math.log(2 * math.pi)
        change = torch.exp(log_phi - log_mass) * gap.sign() * torch.expm1(-gap.abs())
        return (r * (y[:, None] - sigma[..., None] * change)).sum(1)

    def log_prob(self, y: Tensor, sigma: float = 0.0) -> Tensor:
        """log p_sigma(y), (batch,): log 1/8 or -inf at sigma = 0."""
        level = checked_sigma(y, sigma or 1.0, self.event_shape)
        if sigma != 0:
            return torch.logsumexp(self._log_mass(y, level)[0].sum(-1), dim=1) - math.log(8)
        cell = y.floor()
        inside = ((y >= -2) & (y < 2)).all(1) & (cell.sum(1) % 2 == 0)
        return torch.where(inside, -math.log(8.0), -math.inf).to(y)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n independent draws (n, 2)."""
        g = torch.Generator().manual_seed(seed)
        square = torch.randint(8, (positive_int("n", n),), generator=g)
        return self.corners[square] + torch.rand(n, 2, generator=g, dtype=torch.float64)


class Pinwheel:
    """Five Gaussian blades x = R(1.1 |z|) z, z from a mixture of elongated Gaussians at radius 1.2.

    The twist turns every circle rigidly, so it keeps areas: the density is that of the blades at
    the point turned back. At sigma > 0 no closed form is known. After Johnson et al. 2016, whose
    twist depends on one coordinate and keeps no area.
    """

    rate = 1.1  # radians of twist per unit of radius

    def __init__(self) -> None:
        angle = 2 * math.pi * torch.arange(5, dtype=torch.float64) / 5
        radial = torch.stack([angle.cos(), angle.sin()], 1)
        across = torch.stack([-angle.sin(), angle.cos()], 1)
        outer = radial[:, :, None] * radial[:, None], across[:, :, None] * across[:, None]
        self.blades = GaussianMixture(
            1.2 * radial, covariances=0.35**2 * outer[0] + 0.08**2 * outer[1]
        )

    def _turned(self, x: Tensor, sign: int) -> Tensor:
        angle = sign * self.rate * x.norm(dim=1)
        c, s = angle.cos(), angle.sin()
        return torch.stack([c * x[:, 0] - s * x[:, 1], s * x[:, 0] + c * x[:, 1]], 1)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n independent draws (n, 2)."""
        return self._turned(self.blades.sample(n, seed), 1)

    def log_prob(self, y: Tensor, sigma: float = 0.0) -> Tensor:
        """log p(y), (batch,); ValueError at sigma > 0, where it is not known in closed form."""
        if sigma != 0:
            raise ValueError(f"sigma is {sigma}: the pinwheel's density is known at sigma = 0 only")
        return self.blades.log_prob(self._turned(y, -1))


def _legendre(n: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    import numpy as np

    t, w = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy(low + (high - low) * (t + 1) / 2), torch.from_numpy(w / 2)


_ALL: tuple[Callable, ...] = (
    ring,
    two_gaussians,
    three_points,
    moons,
    swiss_roll,
    spiral,
    star,
    checkerboard,
    pinwheel,
)
TARGETS: dict[str, Callable] = {f.__name__: f for f in _ALL}
"""All targets by name: TARGETS["moons"]()."""
