"""Gaussian mixtures: targets whose Bayes denoiser, density at every noise level, and moments are
exact."""

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..checks import checked_points, checked_sigma, exact, positive_int
from .base import Denoiser


class GaussianMixture(Denoiser):
    r"""The law p = sum_k w_k N(mu_k, C_k) and, as a denoiser, its exact posterior mean.

    At noise sigma, y ~ sum_k w_k N(mu_k, C_k + sigma^2 I), and with r_k(y) the posterior
    probability of component k,

        D(y, sigma) = sum_k r_k(y) [ mu_k + C_k (C_k + sigma^2 I)^{-1} (y - mu_k) ].

    means (K, d); std: common standard deviation, (K,) or (K, d, d) covariances through
    `covariances`; weights (K,), positive, normalised here. std = 0 gives point masses: then the law
    has a density only at sigma > 0.
    Source: Bayes' rule for conjugate Gaussians (e.g. Bishop 2006, eq. 2.116).
    Proved: `lem-orthogonality`.

    >>> target = GaussianMixture([[-1.0], [1.0]])
    >>> target(torch.tensor([[0.3]]), 0.5)  # tanh(.3 / .5^2)
    tensor([[0.8337]])
    >>> target.sample(3, seed=0).abs()
    tensor([[1.],
            [1.],
            [1.]], dtype=torch.float64)
    >>> widths = torch.tensor([1.0, 0.4])  # in the plane, skewed
    >>> skewed = GaussianMixture([[0.0, 0.0], [1.5, 0.5]], widths, weights=[0.8, 0.2])
    >>> skewed.mean
    tensor([0.3000, 0.1000], dtype=torch.float64)
    """

    def __init__(
        self,
        means: Tensor | Sequence,
        std: float | Tensor = 0.0,
        weights: Tensor | Sequence | None = None,
        covariances: Tensor | None = None,
    ):
        super().__init__()
        means = checked_points(exact(means), "means")
        k, d = means.shape
        weights = means.new_ones(k) if weights is None else exact(weights).to(means)
        if weights.shape != (k,) or not bool((weights > 0).all() and weights.isfinite().all()):
            raise ValueError(
                f"weights {weights.tolist()} for {k} components: pass {k} positive numbers"
            )
        if covariances is None:
            std = exact(std).to(means)
            if std.shape not in ((), (k,)):
                raise ValueError(
                    f"std has shape {tuple(std.shape)} for {k} components: pass one number or {k}"
                )
            std = std.expand(k)
            if not bool((std >= 0).all()):
                raise ValueError(
                    f"std is {std.min().item()}: a standard deviation cannot be negative"
                )
            variances, axes = (std**2)[:, None].expand(k, d), torch.eye(d).to(means).expand(k, d, d)
        else:
            variances, axes = _eigen(exact(covariances).to(means), (k, d, d))
        self.event_shape = (d,)
        self.isotropic = covariances is None
        self.keep(
            means=means,
            weights=weights / weights.sum(),
            variances=variances.contiguous(),  # (K, d), along the columns of axes
            axes=axes.contiguous(),  # (K, d, d)
        )

    means: Tensor
    weights: Tensor
    variances: Tensor
    axes: Tensor

    def _components(self, y: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """log w_k N(y; mu_k, C_k + sigma^2 I), (batch, K), and the residuals along the axes,
        (batch, K, d) or none."""
        means, level = self.means.to(y), sigma**2
        if self.isotropic:  # no (batch, K, d) array: the plane's curves have hundreds of components
            v = self.variances.to(y)[:, 0] + level
            distance = sum((y[:, i, None] - means[:, i]).square() for i in range(y.shape[1]))
            return self.weights.to(y).log() - 0.5 * (
                distance / v + y.shape[1] * torch.log(2 * math.pi * v)
            ), y
        z = torch.einsum("kde,bkd->bke", self.axes.to(y), y[:, None] - means)
        v = self.variances.to(y) + level[..., None]
        return self.weights.to(y).log() - 0.5 * (z**2 / v + torch.log(2 * math.pi * v)).sum(-1), z

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        log_joint, z = self._components(y, sigma)
        r, means, v = torch.softmax(log_joint, dim=1), self.means.to(y), self.variances.to(y)
        if self.isotropic:
            a = r * (v[:, 0] / (v[:, 0] + sigma**2))
            return r @ means - a @ means + a.sum(1, keepdim=True) * y
        shrunk = r[..., None] * (v / (v + (sigma**2)[..., None])) * z
        return r @ means + torch.einsum("kde,bke->bd", self.axes.to(y), shrunk)

    def log_prob(self, y: Tensor, sigma: float = 0.0) -> Tensor:
        """log p_sigma(y), the log-density of the target blurred by noise sigma, shape (batch,),
        natural log.

        Raises ValueError when point masses are asked for a density at sigma = 0.
        """
        if sigma < 0 or (sigma == 0 and bool((self.variances == 0).any())):
            raise ValueError(f"sigma is {sigma}: point masses have a density only at sigma > 0")
        level = checked_sigma(y, sigma or 1.0, self.event_shape) * (sigma > 0)
        return torch.logsumexp(self._components(y, level)[0], dim=1)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n independent draws (n, d) where the means are, from the seed: drawn on the CPU and
        moved."""
        g = torch.Generator().manual_seed(seed)
        k = torch.multinomial(
            self.weights.cpu(), positive_int("n", n), replacement=True, generator=g
        )
        noise = torch.randn(n, self.means.shape[1], generator=g, dtype=torch.float64).to(self.means)
        k = k.to(noise.device)
        scaled = self.variances[k].sqrt() * noise
        return self.means[k] + torch.einsum("nde,ne->nd", self.axes[k], scaled)

    @property
    def mean(self) -> Tensor:
        """E[x], shape (d,)."""
        return self.weights @ self.means

    @property
    def covariance(self) -> Tensor:
        """Cov[x], shape (d, d)."""
        centred = self.means - self.mean
        within = torch.einsum(
            "k,kde,ke,kfe->df", self.weights, self.axes, self.variances, self.axes
        )
        return within + centred.T @ (self.weights[:, None] * centred)

    def nodes(self, sigma: float, order: int) -> tuple[Tensor, Tensor, Tensor]:
        """Gauss-Hermite nodes of p_sigma: (y, weights, residual), shapes (M, d), (M,), (M, d), M =
        K order^d, float64.

        sum_m weights_m f(y_m) = E[f(y)] exactly for every polynomial f of degree <= 2 order - 1;
        the residual at a node of component k is E[x | y, k] - y, so the same sum with residual_m
        f(y_m) is E[(x - y) f(y)].
        """
        k, d = self.means.shape
        if k * order**d > 4_000_000:
            raise ValueError(
                f"{k} components x {order}^{d} nodes do not fit: use fewer points, a lower degree or a lower dimension"
            )
        means, weights, variances, axes = map(
            exact, (self.means, self.weights, self.variances, self.axes)
        )
        t, w = torch.from_numpy(_gauss_hermite(order)).to(means)
        grid = torch.cartesian_prod(*[t] * d).reshape(-1, d)
        weight = torch.cartesian_prod(*[w] * d).reshape(-1, d).prod(1)
        total = variances + sigma**2
        z = total.sqrt()[:, None] * grid  # (K, order^d, d), along the axes
        shrunk = -(sigma**2) * z / total[:, None]  # E[x | y, k] - y
        y = means[:, None] + torch.einsum("kde,kme->kmd", axes, z)
        residual = torch.einsum("kde,kme->kmd", axes, shrunk)
        return y.reshape(-1, d), (weights[:, None] * weight).flatten(), residual.reshape(-1, d)

    def copied(self) -> "GaussianMixture":
        """The same law, with tensors of its own: what keeps it may change its precision."""
        found = copy.copy(self)
        found._buffers = {name: t.clone() for name, t in self.named_buffers()}
        return found

    def projected(self, basis: Tensor, offset: Tensor) -> "GaussianMixture":
        """The law of basis^T (x - offset), again a mixture; basis (d, r) with orthonormal columns."""
        covariances = torch.einsum("kde,ke,kfe->kdf", self.axes, self.variances, self.axes)
        basis, offset = basis.to(self.means), offset.to(self.means)
        small = basis.T @ covariances @ basis
        return GaussianMixture(
            (self.means - offset) @ basis, weights=self.weights, covariances=small
        )


def _eigen(covariances: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    if covariances.shape != shape:
        raise ValueError(
            f"covariances have shape {tuple(covariances.shape)}: pass {shape}, one matrix per component"
        )
    values, axes = torch.linalg.eigh(covariances)
    if values.min() < -1e-10 * values.abs().max():
        raise ValueError(
            f"a covariance has eigenvalue {values.min().item():.3g}: it must be positive semi-definite"
        )
    return values.clamp(min=0.0), axes  # rounding leaves -1e-17 where the truth is 0


def _gauss_hermite(order: int):
    import numpy as np

    t, w = np.polynomial.hermite_e.hermegauss(order)
    return np.stack([t, w / w.sum()])
