r"""Flow through a porous square (Darcy): a law of pairs of fields that obey an equation, and how
samples are judged.

The equation is discretised in finite volumes, so that it has as many equations as unknowns and data
satisfy it exactly:

    sum over the faces of cell i of k_ij (p_i - p_j) / h^2 = f_i,   k_ij = (K_i + K_j) / 2,
    no flux at the walls,

on size x size cells of width h = 1 / size. In matrix form A(K) p = f. A sample is a pair of fields
(p, K), pressure and
permeability, standardised as channels: x (batch, 2, size, size).
"""

import functools
import math

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from ...checks import positive_int
from ...data import ImageSet
from ...denoisers import Denoiser
from ...metrics import sliced_w2

DENSE = 32  # largest size whose systems are solved as dense batches
SEEDS = {"train": 0, "test": 1}


class Darcy:
    r"""The law of the pairs: log K a Gaussian field, p the pressure that K and the wells leave.

    log K has covariance exp(-|x - y| / length) between cell centres, cut to its `modes` leading
    eigenvectors. f is +10 in the corner [0, 1/8]^2, -10 in the opposite one, 0 elsewhere; p has
    mean zero. Channels are standardised without
    data: K by its exact mean and deviation, p by the deviation of the pressure in a homogeneous
    square.

    size: a multiple of 8. Fields K and p are (batch, size, size), in the units of the equation.
    Source: the paper's released code, with 64 modes at size 64 and another discretisation; 24 modes
    suffice at size 16.
    """

    def __init__(self, size: int = 16, modes: int = 24, length: float = 0.1):
        if positive_int("size", size) % 8:
            raise ValueError(
                f"size is {size}: the wells are an eighth of the side, take a multiple of 8"
            )
        if positive_int("modes", modes) > size**2:
            raise ValueError(
                f"modes is {modes}: a field of {size} x {size} cells has at most {size**2}"
            )
        if not 0 < length < math.inf:
            raise ValueError(
                f"length is {length}: a correlation length is positive and finite, the paper takes 0.1"
            )
        self.size, self.modes, self.length = size, modes, length
        well = size // 8
        self.f = torch.zeros(size, size, dtype=torch.float64)
        self.f[:well, :well], self.f[-well:, -well:] = 10.0, -10.0
        cells = torch.arange(size**2).view(size, size)
        across, down = (cells[:, :-1], cells[:, 1:]), (cells[:-1], cells[1:])
        self.faces = torch.stack(
            [torch.cat([a.flatten(), b.flatten()]) for a, b in zip(across, down, strict=True)]
        )

    # The equation ---------------------------------------------------------------------------------

    def flow(self, K: Tensor, p: Tensor) -> Tensor:
        """A(K) p, what leaves each cell through its faces, (batch, size, size); linear in K and in
        p."""
        across = (K[..., 1:] + K[..., :-1]) / 2 * (p[..., 1:] - p[..., :-1]) * self.size**2
        down = (
            (K[..., 1:, :] + K[..., :-1, :]) / 2 * (p[..., 1:, :] - p[..., :-1, :]) * self.size**2
        )
        pad = torch.nn.functional.pad
        return (
            pad(across, (1, 0))
            - pad(across, (0, 1))
            + pad(down, (0, 0, 1, 0))
            - pad(down, (0, 0, 0, 1))
        )

    def matrix(self, K: Tensor) -> Tensor:
        """A(K), (batch, cells, cells), put together face by face: symmetric, and its rows sum to
        zero."""
        i, j = self.faces
        flat = self._checked(K).flatten(1)
        k = (flat[:, i] + flat[:, j]) / 2 * self.size**2
        A = K.new_zeros(len(K), self.size**2, self.size**2)
        A[:, i, j] = A[:, j, i] = -k
        return A - torch.diag_embed(A.sum(2))

    def solve(self, K: Tensor) -> Tensor:
        """The pressure of mean zero with A(K) p = f, (batch, size, size) float64. Needs no positive
        K, only a solution.

        Raises ValueError for a K of another size, and for one whose system is singular: cells that
        nothing connects.
        """
        K = self._checked(K).double()
        if self.size > DENSE:
            return torch.stack([self._solve_sparse(one) for one in K])
        one = K.new_full((self.size**2, self.size**2), self.size**2)  # lifts the constants
        try:
            parts = [
                torch.linalg.solve(self.matrix(part) + one, self.f.flatten().to(K))
                for part in K.split(250)
            ]
        except torch.linalg.LinAlgError:
            raise ValueError(
                "A(K) is singular: K must connect all cells, as any positive K does"
            ) from None
        return torch.cat(parts).view_as(K)

    def _solve_sparse(self, K: Tensor) -> Tensor:
        (i, j), flat, n = self.faces.numpy(), K.flatten().numpy(force=True), self.size**2
        k = (flat[i] + flat[j]) / 2 * self.size**2
        A = scipy.sparse.coo_matrix(
            (np.tile(-k, 2), (np.r_[i, j], np.r_[j, i])), shape=(n, n)
        ).tocsc()
        A = A - scipy.sparse.diags(np.asarray(A.sum(1)).ravel())
        p = np.zeros(n)  # the first cell is held at zero
        p[1:] = scipy.sparse.linalg.spsolve(A[1:, 1:], self.f.flatten().numpy()[1:])
        if not np.isfinite(p).all():
            raise ValueError("A(K) is singular: K must connect all cells, as any positive K does")
        return torch.from_numpy(p - p.mean()).view(self.size, self.size).to(K)

    def _checked(self, K: Tensor) -> Tensor:
        if K.ndim != 3 or K.shape[1:] != (self.size, self.size):
            raise ValueError(
                f"K has shape {tuple(K.shape)}: pass (batch, {self.size}, {self.size})"
            )
        return K

    # The law --------------------------------------------------------------------------------------

    @functools.cached_property
    def root(self) -> Tensor:
        """The square root of the covariance of log K, (cells, cells): eigenvectors of a pair may
        turn, it does not."""
        at = (torch.arange(self.size, dtype=torch.float64) + 0.5) / self.size
        at = torch.cartesian_prod(at, at)
        values, vectors = torch.linalg.eigh((-torch.cdist(at, at) / self.length).exp())
        lead = vectors[:, -self.modes :]
        return (lead * values[-self.modes :].sqrt()) @ lead.T

    @functools.cached_property
    def centre_and_scale(self) -> tuple[Tensor, Tensor]:
        """(2, 1, 1) each, float64: of p and of K."""
        v = self.root.square().sum(1)  # the variance of log K in each cell
        mean = (v / 2).exp().mean()
        spread = ((2 * v).exp().mean() - mean**2).sqrt()
        homogeneous = self.solve(torch.ones(1, self.size, self.size)).std(correction=0)
        return torch.stack([0 * mean, mean]).view(2, 1, 1), torch.stack([homogeneous, spread]).view(
            2, 1, 1
        )

    def permeability(self, n: int, seed: int = 0) -> Tensor:
        """n fields K (n, size, size), float64, from the seed."""
        g = torch.Generator().manual_seed(seed)
        z = torch.randn(positive_int("n", n), self.size**2, generator=g, dtype=torch.float64)
        return (z @ self.root).exp().view(n, self.size, self.size)

    def sample(self, n: int, seed: int = 0) -> Tensor:
        """n pairs x (n, 2, size, size), float32."""
        K = self.permeability(n, seed)
        return self.channels(self.solve(K), K).float()

    def channels(self, p: Tensor, K: Tensor) -> Tensor:
        """x of fields, in their dtype; the inverse of `fields`."""
        centre, scale = (t.to(K) for t in self.centre_and_scale)
        return (torch.stack([p, K], 1) - centre) / scale

    def fields(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """p and K (batch, size, size) of x (batch, 2, size, size), in its dtype."""
        if x.ndim != 4 or x.shape[1:] != (2, self.size, self.size):
            raise ValueError(
                f"x has shape {tuple(x.shape)}: pass (batch, 2, {self.size}, {self.size})"
            )
        centre, scale = (t.to(x) for t in self.centre_and_scale)
        p, K = (x * scale + centre).unbind(1)
        return p, K

    def residual(self, x: Tensor) -> Tensor:
        """A(K) p - f of x, (batch, size, size), differentiable, in the units of f.

        Proved: `prop-darcy`, `prop-covariance`, `prop-squeeze`.
        """
        p, K = self.fields(x)
        return self.flow(K, p) - self.f.to(x)


def darcy(split: str = "train", n: int | None = None, size: int = 16, modes: int = 24) -> ImageSet:
    """n pairs (1000 unless told) as a data set; "train" and "test" come from seeds of their own."""
    if split not in SEEDS:
        raise ValueError(f"split is {split!r}: choose one of {', '.join(SEEDS)}")
    x = Darcy(size, modes).sample(n or 1000, SEEDS[split])
    return ImageSet(
        x, "darcy", split, size, "pressure and permeability", f"generated, {modes} modes"
    )


# Correction of samples ----------------------------------------------------------------------------


class Corrected(Denoiser):
    r"""A denoiser of pairs whose pressure is moved down the squared residual, in the manner of
    CoCoGen:

        p <- p - A (A p - f) / L^2,   L = 8 max |K| / h^2 >= |A|,
        `steps` times, at levels of at most `below`.

    The error of p along an eigenvector of A with eigenvalue s shrinks by 1 - (s / L)^2 at each
    step, so never grows. CoCoGen (Jacobsen, Zhuang & Duraisamy 2023) moves the noisy sample
    instead, and by a step of its own. Proved: `prop-descent`.
    """

    def __init__(self, denoiser: Denoiser, flow: Darcy, steps: int, below: float = math.inf):
        super().__init__()
        self.denoiser, self.law, self.below = denoiser, flow, below
        self.steps = positive_int("steps", steps)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        x_hat = self.denoiser(y, sigma.flatten() if sigma.ndim else sigma)
        (p, K), f = self.law.fields(x_hat), self.law.f.to(y)
        largest = 8 * self.law.size**2 * K.abs().amax((1, 2), keepdim=True)
        moved = p
        for _ in range(self.steps):
            moved = moved - self.law.flow(K, self.law.flow(K, moved) - f) / largest**2
        return torch.where(sigma <= self.below, self.law.channels(moved, K), x_hat)


# Judging ------------------------------------------------------------------------------------------


def re_solve_error(flow: Darcy, x: Tensor) -> Tensor:
    r"""|p - solve(K)| / |solve(K)| of each pair x, (batch,) float64: p against the pressure of its
    own K."""
    p, K = flow.fields(x.double())
    exact = flow.solve(K)
    return (p - exact).flatten(1).norm(dim=1) / exact.flatten(1).norm(dim=1)


def report(flow: Darcy, x: Tensor, held_out: Tensor) -> dict[str, float]:
    """Residual, distribution and re-solve error of generated pairs x, against pairs that were not
    trained on.

    residual: mean |A(K) p - f| over cells and pairs. std p, std K, mean K: over cells and pairs, in
    the equation's units. sliced W2: of the channels; a finite sample never comes to 0, compare with
    fresh data as many. re-solve: the median over pairs. not positive: share of the pairs that have
    a cell with K <= 0.
    """
    p, K = flow.fields(x.double())
    return {
        "residual": float(flow.residual(x.double()).abs().mean()),
        "re-solve": float(re_solve_error(flow, x).median()),
        "sliced W2": sliced_w2(x.flatten(1), held_out.flatten(1)),
        "std p": float(p.std()),
        "std K": float(K.std()),
        "mean K": float(K.mean()),
        "not positive": float((K.flatten(1).amin(1) <= 0).double().mean()),
    }


def error_spectrum(flow: Darcy, x: Tensor) -> tuple[Tensor, Tensor]:
    r"""Where the pressures of x are wrong: squared errors along the eigenvectors of each A(K), and
    the eigenvalues.

        p - mean p - solve(K) = sum_k e_k v_k,   A(K) v_k = s_k v_k,   so that
        |A p - f|^2 = sum_k s_k^2 e_k^2.

    e_k^2 and s_k (batch, cells - 1), float64, by ascending |s_k|; the constant, whose eigenvalue is
    0, is left out. Proved: `prop-darcy`.
    """
    p, K = flow.fields(x.double())
    error = (p - flow.solve(K)).flatten(1)
    values, vectors = torch.linalg.eigh(flow.matrix(K))
    along = (vectors.mT @ (error - error.mean(1, keepdim=True))[..., None]).squeeze(-1).square()
    order = values.abs().argsort(1)[:, 1:]
    return along.gather(1, order), values.gather(1, order)
