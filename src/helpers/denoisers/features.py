"""Denoisers that are linear in fixed features, fitted in closed form at every sigma.

The best denoiser of such a class solves the normal equations E[ phi (D - x) ] = 0 (proposition P1).
The expectation over the noise is taken with Gauss-Hermite nodes, exact for polynomials, and the
least squares problem is solved by QR in float64: the condition number is that of the features, not
of their Gram matrix.
"""

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
        self.target = (
            target.copied() if isinstance(target, GaussianMixture) else GaussianMixture(target)
        )
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
