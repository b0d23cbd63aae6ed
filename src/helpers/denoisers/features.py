"""Denoisers that are linear in fixed features: polynomials and random features, fitted in closed
form at every sigma.

The best denoiser of such a class solves the normal equations E[ phi (D - x) ] = 0 (proposition P1).
The expectation over the noise is taken with Gauss-Hermite nodes, exact for polynomials, and the
least squares problem is solved by QR
in float64: the condition number is that of the features, not of their Gram matrix.
"""

import functools
import itertools
import math

import torch
from torch import Tensor

from ..checks import exact, positive_int
from .base import Denoiser, nearest_level, per_level
from .gaussian_mixture import GaussianMixture

# smallest / largest diagonal entry of R under which float64 has no digit left in the coefficients
SINGULAR = 1e-11


class FeatureRegression(Denoiser):
    """D(y, sigma) = A_sigma phi(z), z = (y - mean) / sqrt(mean variance + sigma^2), A_sigma of
    least squared error.

    target: a GaussianMixture, or a training set (N, d). Subclasses give `features(z) -> (batch,
    m)`, `affine(sigma, gain)`, the coefficients of mean + gain (y - mean) in them, and `order`, the
    number of Gauss-Hermite nodes per axis. A ridge penalises what is added to Wiener's filter for a
    round target, gain v / (v + sigma^2) with v the mean variance. The fit of a noise level is kept,
    so that a sampler pays for it once. Raises ValueError when the least squares problem is singular
    in float64. Proved: `prop-p1`.
    """

    def __init__(self, target: GaussianMixture | Tensor, order: int, ridge: float = 0.0):
        super().__init__()
        if not ridge >= 0:
            raise ValueError(f"ridge is {ridge}: it cannot be negative, 0 switches it off")
        self.target = target if isinstance(target, GaussianMixture) else GaussianMixture(target)
        self.order, self.ridge = order, ridge
        self.event_shape = self.target.event_shape
        self.register_buffer("centre", self.target.mean)
        self.register_buffer("variance", self.target.covariance.trace() / len(self.target.mean))

    centre: Tensor
    variance: Tensor

    levels: Tensor
    table: Tensor

    def features(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def affine(self, sigma: float, gain: float = 1.0) -> Tensor:
        raise NotImplementedError

    def standardised(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        return (y - self.centre.to(y)) / torch.sqrt(self.variance.to(y) + sigma**2)

    def coefficients(self, sigma: float | Tensor) -> Tensor:
        """A_sigma^T, (m, d), float64. A 0-d tensor sigma, inside an exported graph, is looked up in
        the table."""
        if isinstance(sigma, Tensor):
            if "table" not in self._buffers:
                raise ValueError(
                    "no table of fits: call tabulate(sigmas) with the levels at which the graph will run"
                )
            return self.table[nearest_level(self.levels, sigma)]
        return self.kept(sigma, lambda: self._fit(sigma))

    def _fit(self, sigma: float) -> Tensor:
        y, weights, residual = self.target.nodes(sigma, self.order)
        # Fitted is the small part, D less Wiener's filter: large coefficients that cancel cost
        # float32 its digits.
        gain = float(self.variance / (self.variance + sigma**2))
        residual = residual + (1 - gain) * (y - exact(self.centre))
        return self._solve(y, weights, residual, sigma) + self.affine(sigma, gain)

    def tabulate(self, sigmas: Tensor, fitted: "FeatureRegression") -> None:
        """Keep the fits of `fitted`, this denoiser or one that it is a copy of, at all of `sigmas`
        (L,): for a graph to be exported."""
        table = torch.stack([fitted.coefficients(s) for s in sigmas.tolist()])
        self.keep(levels=sigmas, table=table)

    def _solve(self, y: Tensor, weights: Tensor, residual: Tensor, sigma: float) -> Tensor:
        phi, root = self.features(self.standardised(y, sigma)), weights.sqrt()[:, None]
        return least_squares(root * phi, root * residual, self.ridge, sigma)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return per_level(y, sigma, self._estimate)

    def _estimate(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        return self.features(self.standardised(y, sigma)) @ self.coefficients(sigma).to(y)


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


class RandomFeatures(FeatureRegression):
    """Two-layer network with random first layer: phi(z) = [1, z, relu(W z + b)], output layer by
    ridge regression.

    W (width, d) with rows uniform on the sphere times sqrt(d), b uniform in [-3, 3], from the seed
    (Rahimi & Recht 2007). The noise is averaged over with as many Gauss-Hermite nodes as give 20
    nodes per feature, at least 5 per axis; ridge is relative to weights of sum 1.
    """

    def __init__(
        self, target: GaussianMixture | Tensor, width: int, ridge: float = 1e-6, seed: int = 0
    ):
        if not ridge > 0:
            raise ValueError(
                f"ridge is {ridge}: random features are nearly dependent, choose a positive ridge like 1e-6"
            )
        super().__init__(target, 5, ridge)
        g, d = torch.Generator().manual_seed(seed), len(self.centre)
        self.order = max(5, math.ceil((20 * (width + d + 1) / len(self.target.means)) ** (1 / d)))
        w = torch.randn(positive_int("width", width), d, generator=g, dtype=torch.float64)
        self.register_buffer("w", w / w.norm(dim=1, keepdim=True) * math.sqrt(d))
        self.register_buffer("b", 6 * torch.rand(width, generator=g, dtype=torch.float64) - 3)

    w: Tensor
    b: Tensor

    def affine(self, sigma: float, gain: float = 1.0) -> Tensor:
        d, centre = len(self.centre), exact(self.centre)
        linear = gain * torch.sqrt(exact(self.variance) + sigma**2) * torch.eye(d).to(centre)
        return torch.cat([centre[None], linear, linear.new_zeros(len(self.b), d)])

    def features(self, z: Tensor) -> Tensor:
        relu = torch.relu(z @ self.w.to(z).T + self.b.to(z))
        return torch.cat([torch.ones_like(z[:, :1]), z, relu], dim=1)


def hermite(z: Tensor, degree: int) -> Tensor:
    """Orthonormal Hermite polynomials h_0 ... h_degree under N(0, 1), (degree + 1, *z.shape)."""
    h = [torch.ones_like(z), z]
    for n in range(1, degree):
        h.append((z * h[n] - math.sqrt(n) * h[n - 1]) / math.sqrt(n + 1))
    return torch.stack(h[: degree + 1])


def least_squares(a: Tensor, b: Tensor, ridge: float, sigma: float) -> Tensor:
    """argmin ||a x - b||^2 + ridge ||x||^2 by QR of the columns scaled to norm 1; ValueError when
    it is singular."""
    if ridge:
        eye = torch.eye(a.shape[1]).to(a)
        a, b = (
            torch.cat([a, math.sqrt(ridge) * eye]),
            torch.cat([b, b.new_zeros(len(eye), b.shape[1])]),
        )
    scale = a.norm(dim=0)
    q, r = torch.linalg.qr(a / scale)
    diagonal = r.diagonal().abs()
    if not bool(diagonal.min() > SINGULAR * diagonal.max()):
        raise ValueError(
            f"the moment matrix of {a.shape[1]} features is singular at sigma = {sigma:.3g}: lower the "
            "degree, raise the smallest noise level, or use more distinct training points"
        )
    return torch.linalg.solve_triangular(r, q.T @ b, upper=True) / scale[:, None]
