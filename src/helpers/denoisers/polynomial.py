"""The best polynomial of each degree, and the best that is a gradient."""

import functools
import itertools
import math

import torch
from torch import Tensor

from ..checks import exact, positive_int
from .features import FeatureRegression, hermite, least_squares
from .gaussian_mixture import GaussianMixture


class Polynomial(FeatureRegression):
    r"""The best polynomial denoiser of total degree at most k, unconstrained or the gradient of a
    potential (P3).

    Features: products of orthonormal Hermite polynomials of z, so that the basis is close to
    orthonormal under p_sigma. gradient=False: every coordinate of D is a polynomial of degree k.
    gradient=True:  D = y + sigma^2 grad psi, psi a polynomial of degree k + 1. Then the score is
    that of the exponential family exp(psi), fitted by score matching (Hyvarinen 2007, eq. 10);
    `potential` returns psi. In one dimension the two agree. Degree 1 is the affine Wiener filter.
    Proved: `prop-moments`, `prop-affine`.

    >>> target, y = GaussianMixture([[-1.0], [1.0]]), torch.tensor([[0.3]])
    >>> [round(float(Polynomial(target, k)(y, 0.5)), 2) for k in (1, 3, 9)]
    [0.24, 0.36, 0.58]
    """

    def __init__(self, target: GaussianMixture | Tensor, degree: int, gradient: bool = False):
        self.degree = positive_int("degree", degree, "degree 1 is the affine denoiser")
        # G needs moments of order 2k (2k of the gradient of degree k + 1 potentials too): k + 1
        # nodes integrate 2k + 1
        super().__init__(target, order=self.degree + 1)
        d, self.gradient = len(self.centre), gradient
        top = self.degree + gradient
        if math.comb(d + top, top) > 2000:
            raise ValueError(
                f"degree {top} in dimension {d} has {math.comb(d + top, top)} monomials: reduce the dimension"
            )
        axes = (
            c for n in range(top + 1) for c in itertools.combinations_with_replacement(range(d), n)
        )
        powers = [tuple(c.count(i) for i in range(d)) for c in axes]
        self.powers = sorted(powers, key=lambda p: (sum(p), p))  # graded, the constant first

    def features(self, z: Tensor) -> Tensor:
        h = hermite(z, self.degree + self.gradient)  # (degree + 1, batch, d)
        axes = range(z.shape[1])
        return functools.reduce(
            torch.mul, (h[:, :, i][[p[i] for p in self.powers]] for i in axes)
        ).T

    def _gradient_features(self, z: Tensor) -> Tensor:
        """d phi_j / d z_i for all features but the constant, (batch, m - 1, d); h_n' = sqrt(n)
        h_{n-1}."""
        h, axes, powers = hermite(z, self.degree + 1), range(z.shape[1]), self.powers[1:]

        def partial(i: int) -> Tensor:
            root = z.new_tensor([math.sqrt(p[i]) for p in powers])[:, None]
            slope = root * h[:, :, i][[max(p[i] - 1, 0) for p in powers]]
            return math.prod(
                (h[:, :, j][[p[j] for p in powers]] for j in axes if j != i), start=slope
            ).T

        return torch.stack([partial(i) for i in axes], dim=2)

    def affine(self, sigma: float, gain: float = 1.0) -> Tensor:
        """centre + gain scale z among the features, or among their gradients: h_1(z) = z, grad
        h_2(z) = sqrt(2) z."""
        centre, scale = exact(self.centre), gain * torch.sqrt(exact(self.variance) + sigma**2)
        c = centre.new_zeros(len(self.powers), 1 if self.gradient else len(centre))
        for i in range(len(centre)):
            once = tuple(int(j == i) for j in range(len(centre)))
            if self.gradient:
                c[self.powers.index(once), 0] = centre[i]
                c[self.powers.index(tuple(2 * n for n in once)), 0] = scale / math.sqrt(2)
            else:
                c[0, i], c[self.powers.index(once), i] = centre[i], scale
        return c[1:] if self.gradient else c

    def _solve(self, y: Tensor, weights: Tensor, residual: Tensor, sigma: float) -> Tensor:
        if not self.gradient:
            return super()._solve(y, weights, residual, sigma)
        g = self._gradient_features(self.standardised(y, sigma)) * weights.sqrt()[:, None, None]
        target = residual * weights.sqrt()[:, None]
        return least_squares(
            g.transpose(1, 2).flatten(0, 1), target.flatten()[:, None], self.ridge, sigma
        )

    def _estimate(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        if not self.gradient:
            return super()._estimate(y, sigma)
        g = self._gradient_features(self.standardised(y, sigma))
        return torch.einsum("bmd,m->bd", g, self.coefficients(sigma)[:, 0].to(y))

    def potential(self, y: Tensor, sigma: float) -> Tensor:
        """psi(y), the log-density of the fitted exponential family up to a constant, shape
        (batch,). Proved: `prop-family`, `prop-heat`."""
        self._needs_gradient("potential")
        # D - y = sum_j c_j grad_z phi_j, and grad_y = grad_z / scale
        scale = torch.sqrt(self.variance + sigma**2).to(y)
        phi = self.features(self.standardised(y, sigma))[:, 1:]
        return phi @ self._of_residual(sigma).to(y) * scale / sigma**2

    def _of_residual(self, sigma: float) -> Tensor:
        """The coefficients of D - y, (m - 1,)."""
        return (self.coefficients(sigma) - self.affine(sigma))[:, 0]

    def normalisable(self, sigma: float) -> bool:
        """Whether exp(psi) has a finite integral: its leading form must be negative in every
        direction. Proved: `prop-family`."""
        self._needs_gradient("normalisable")
        return self.degree % 2 == 1 and float(self.leading_form(sigma).max()) < 0

    def leading_form(self, sigma: float, directions: int = 720) -> Tensor:
        """The part of psi of degree k + 1 on the unit sphere in y: at -1 and 1, in the plane at
        `directions` angles."""
        self._needs_gradient("leading_form")
        d, top = len(self.centre), self.degree + 1
        if d > 2:
            raise ValueError(
                f"the target has dimension {d}: the leading form is evaluated in dimensions 1 and 2 only"
            )
        angle = torch.linspace(0, 2 * math.pi, directions + 1, dtype=torch.float64)[:-1]
        u = (
            torch.stack([angle.cos(), angle.sin()], 1)
            if d == 2
            else torch.tensor([[-1.0], [1.0]]).double()
        )
        c, scale = self._of_residual(sigma), torch.sqrt(exact(self.variance) + sigma**2)
        u, form = u.to(c), c.new_zeros(len(u))
        for p, cj in zip(self.powers[1:], c, strict=True):
            if sum(p) == top:  # h_n(z) = z^n / sqrt(n!) + lower powers
                monomial = math.prod(
                    u[:, i] ** p[i] / math.sqrt(math.factorial(p[i])) for i in range(d)
                )
                form += cj * monomial
        return form * scale ** (1 - top) / sigma**2

    def _needs_gradient(self, name: str) -> None:
        if not self.gradient:
            raise ValueError(
                f"{name} needs a potential, this denoiser has none: build it with gradient=True"
            )
