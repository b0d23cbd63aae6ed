"""Polynomial denoisers of images: random projections of an image or of its windows, and a
regression in closed form."""

import math
import zlib
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...checks import checked_points, exact, exporting, positive_int, widened
from ...denoisers.base import Denoiser, nearest_level, per_level

# of 64 pixels
PATCHES = {64: 1024, 55: 1024, 45: 512, 35: 256, 27: 128, 21: 128, 15: 64, 11: 32, 7: 16, 3: 8}
EVERYWHERE = 1e-2  # of the intensities: a window in which nothing varies has projections too


class Fit(NamedTuple):
    """x_hat = constant + (y - centre) linear + phi A on one window; F projections of k pixels, m
    output pixels."""

    projections: Tensor  # (F, k)
    scales: Tensor  # (F,), empty where the features are not scaled
    centre: Tensor  # (k,)
    constant: Tensor  # (m,)
    linear: Tensor | None  # (k, m)
    A: Tensor  # (features, m)


class WindowRegression(Denoiser):
    """Every pixel q by a regression on features of one window: x_hat(q) = affine map of phi(R
    y_P(q)).

    P(q): the window of side x side pixels around q, from q - side // 2 on, moved where it would
    leave the image (so that pixels at the border share one). Subclasses say what R (F, side^2) and
    phi are, drawn from `seed`, and fit the map at each noise level to the training set; fits are
    kept.

    points (N, H, W), intensities in [0, 1]. patch: None, the whole image; a side; or a table
    {sigma: (side, F)}, from which the level nearest in log sigma is taken (`patch_table`). All sums
    are float64, for any dtype of y.
    """

    def __init__(
        self,
        points: Tensor,
        features: int = 1024,
        degree: int = 3,
        ridge: float = 1e-5,
        patch: int | None | dict[float, tuple[int, int]] = None,
        seed: int = 0,
    ):
        super().__init__()
        points = checked_points(points)
        if points.ndim != 3:
            raise ValueError(f"points have shape {tuple(points.shape)}: pass gray images (N, H, W)")
        if not 0 < ridge < math.inf:
            raise ValueError(
                f"ridge is {ridge}: with more features than images it must be positive, choose 1e-5"
            )
        self.event_shape, self.ridge, self.seed = tuple(points.shape[1:]), ridge, seed
        self.degree = positive_int("degree", degree)
        table = patch if isinstance(patch, dict) else {1.0: (patch, features)}
        if not table or not all(0 < level < math.inf for level in table):
            raise ValueError(
                f"patch has levels {list(table)}: pass {{sigma: (side, features)}}, sigma positive, finite"
            )
        self.windows = [
            (self._window(side), positive_int("features", F)) for side, F in table.values()
        ]
        self.register_buffer("levels", torch.tensor(list(table), dtype=torch.float64))
        self.register_buffer("points", points)

    levels: Tensor
    points: Tensor

    def _window(self, side: int | None) -> tuple[int, int]:
        height, width = self.event_shape
        if side is None:
            return height, width
        if positive_int("patch", side) > min(height, width):
            raise ValueError(
                f"patch is {side} on {height} x {width} pixels: choose 1 to {min(height, width)}"
            )
        return side, side

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        if exporting():
            name = type(self).__name__
            raise NotImplementedError(
                f"{name} cannot be exported as a graph: export LinearDenoiser or a network"
            )
        return per_level(y, sigma, lambda rows, level: self._estimate(rows, float(level)))

    def _estimate(self, y: Tensor, sigma: float) -> Tensor:
        (h, w), _ = self._at(sigma)
        z = widened(y)
        parts = [  # the output pixels of a window are a rectangle
            torch.cat(
                [
                    self._evaluate(fit, z[:, top : top + h, left : left + w].flatten(1)).view(
                        -1, len(rows), len(columns)
                    )
                    for fit, (left, columns) in zip(
                        fits, _outputs(self.event_shape[1], w), strict=True
                    )
                ],
                dim=2,
            )
            for fits, (top, rows) in zip(
                self.fits(sigma), _outputs(self.event_shape[0], h), strict=True
            )
        ]
        return torch.cat(parts, dim=1).to(y)

    def _at(self, sigma: float) -> tuple[tuple[int, int], int]:
        """The window and the number of projections at noise sigma."""
        return self.windows[
            int(nearest_level(self.levels, torch.tensor(sigma, dtype=torch.float64)))
        ]

    def fits(self, sigma: float) -> list[list[Fit]]:
        """The regressions at one noise level, by row and column of windows."""
        sigma = float(np.float32(sigma))  # one fit for float32 and float64 input
        return self.kept(sigma, lambda: self._all_fits(sigma))

    def _all_fits(self, sigma: float) -> list[list[Fit]]:
        (h, w), F = self._at(sigma)
        points, images, random = exact(self.points), self._images(sigma), self._random(F, h * w)
        like = widened(self.points[:0])

        def fit(top: int, rows: list[int], left: int, columns: list[int]) -> Fit:
            window = images[:, top : top + h, left : left + w].flatten(1)
            found = self._fit(window, points[:, rows][:, :, columns].flatten(1), random, sigma)
            return Fit(*(t if t is None else t.to(like) for t in found))

        across = _outputs(self.event_shape[1], w)
        return [[fit(*down, *at) for at in across] for down in _outputs(self.event_shape[0], h)]

    def _images(self, sigma: float) -> Tensor:
        """What the windows of the regression are cut from."""
        return exact(self.points)

    def _random(self, F: int, k: int) -> Tensor:
        """Random numbers that all windows of k pixels share."""
        raise NotImplementedError

    def _drawn(self, what: str, *shape: int) -> Tensor:
        """N(0, 1) for one purpose: not the stream of the plain seed, from which a caller may draw
        the noise of y."""
        g = torch.Generator().manual_seed(zlib.crc32(f"{what} {self.seed}".encode()))
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(exact(self.points[:0]))

    def _fit(self, windows: Tensor, targets: Tensor, random: Tensor, sigma: float) -> Fit:
        """Regression of targets (N, m) on windows (N, k)."""
        raise NotImplementedError

    def _evaluate(self, fit: Fit, y: Tensor) -> Tensor:
        """x_hat (batch, m) from windows y (batch, k)."""
        raise NotImplementedError


class ReleasedPolynomial(WindowRegression):
    r"""The polynomial denoiser of Levine & Weiss 2026, as in their released code.

        v = R (2 y - 1),   R_ij ~ N(0, 1) / sqrt(k),   phi_j = ( v_j / max_i |v_i| )^p / std,
        x_hat = A phi + b,
        A = Cov(x, phi) ( Cov(phi) + ridge I )^{-1},   b = mean(x) - A mean(phi),

    with the moments of *one* noisy copy of the training set (`draws` takes more), std the standard
    deviation of the data in their range [-1, 1]. Only the power p is kept, none below. The maximum
    is taken over each y by itself, so D(1/2 + c (y - 1/2)) = D(y) for every c > 0: contrast is
    lost, and it does not matter that they add noise to sqrt(1 - t) x; at y = 1/2 exactly D is 0 /
    0. With N <= F images Cov(phi) is singular: the ridge decides. With a table `patch` this is
    their patch denoiser (degree 3, `patch_table`); that all windows share one R is ours.
    Proved: `prop-contrast`, `prop-one-copy`.
    """

    def __init__(self, points: Tensor, *arguments, draws: int = 1, **options):
        super().__init__(points, *arguments, **options)
        self.draws = positive_int("draws", draws)
        if bool((self.points == self.points[0, 0, 0]).all()):
            raise ValueError(
                "points are all of one gray: their standard deviation is 0; pass different images"
            )
        self.register_buffer("std", 2 * exact(self.points).std(correction=0))

    std: Tensor

    def _images(self, sigma: float) -> Tensor:
        points = exact(self.points).repeat(self.draws, 1, 1)
        # fresh at each level, and the same whatever was called before
        return points + sigma * self._drawn(f"noise at {float(np.float32(sigma))}", *points.shape)

    def _random(self, F: int, k: int) -> Tensor:
        return self._drawn("projections", F, k) / math.sqrt(k)

    def _features(self, y: Tensor, R: Tensor) -> Tensor:
        v = (2 * y - 1) @ R.T
        return (v / v.abs().amax(1, keepdim=True)) ** self.degree / self.std.to(v)

    def _fit(self, windows: Tensor, targets: Tensor, random: Tensor, sigma: float) -> Fit:
        phi, x = self._features(windows, random), targets.repeat(self.draws, 1)
        mean, centre = phi.mean(0), x.mean(0)
        phi = phi - mean
        covariance, cross = phi.T @ phi / len(x), phi.T @ (x - centre) / len(x)
        A = _ridge(covariance, cross, self.ridge)
        return Fit(random, mean[:0], windows.mean(0), centre - mean @ A, None, A)

    def _evaluate(self, fit: Fit, y: Tensor) -> Tensor:
        return fit.constant + self._features(y, fit.projections) @ fit.A


class HermitePolynomial(WindowRegression):
    r"""A polynomial denoiser that is well posed: Wiener's filter plus Hermite polynomials of random
    projections.

        x_hat = W(y) + A phi',   phi' = phi less its best affine estimate,
        A = Cov(x, phi') (Cov(phi') + ridge)^-1,
        phi_(n,j) = h_n(z_j), n = 2 ... degree,   z_j = r_j (y - mu) / tau_j,
        tau_j^2 = r_j Cov(y) r_j^T,

    W Wiener's filter of the window, h_n = He_n / sqrt(n!) orthonormal under N(0, 1). All orders are
    kept; projections point where the images vary, r_j ~ N(0, Cov(x) + EVERYWHERE^2 I / k), and are
    measured in their standard deviation over the population; the ridge penalises only what is added
    to W; the mean over the noise is exact. With u = R (x - mu), s_j^2 = mean u_j^2 and W_(n+1) = u
    W_n - n s^2 W_(n-1), by Mehler's formula,

        tau_i^n tau_j^m E[ He_n(z_i) He_m(z_j) ]
            = sum_k k! C(n,k) C(m,k) (sigma^2 r_i r_j^T)^k mean_x[ W_(n-k,i) W_(m-k,j) ].

    The mean over the images is that of the training set. As ridge grows D tends to W.
    Proved: `prop-hermite-gaussian`.
    """

    def __init__(
        self,
        points: Tensor,
        features: int = 256,
        degree: int = 3,
        ridge: float = 1e-2,
        patch: int | None | dict[float, tuple[int, int]] = None,
        seed: int = 0,
    ):
        super().__init__(points, features, degree, ridge, patch, seed)

    def _random(self, F: int, k: int) -> Tensor:
        return self._drawn("projections", F, len(self.points) + k)

    def _fit(self, windows: Tensor, targets: Tensor, random: Tensor, sigma: float) -> Fit:
        mu, mean = windows.mean(0), targets.mean(0)
        x, out = windows - mu, targets - mean
        # sums of the training images with random weights have their covariance
        along, anywhere = random.split([len(x), x.shape[1]], dim=1)
        R = along @ x / math.sqrt(len(x)) + EVERYWHERE * anywhere / math.sqrt(x.shape[1])
        C = x.T @ x / len(x) + sigma**2 * torch.eye(x.shape[1]).to(x)
        root = torch.linalg.cholesky(C)
        wiener = torch.cholesky_solve(x.T @ out / len(x), root)
        u, noise = x @ R.T, sigma**2 * R @ R.T
        s2 = u.square().mean(0)
        tau = (s2 + noise.diagonal()).sqrt()
        clean = [torch.ones_like(u), u]
        for n in range(1, self.degree):
            clean.append(u * clean[n] - n * s2 * clean[n - 1])
        orders = range(2, self.degree + 1)
        if not orders:
            return Fit(R[:0], tau[:0], mu, mean, wiener, wiener[:0])
        Z = torch.cat(clean, 1)
        inner, with_x, with_out = (
            (Z.T @ b / len(x)).unflatten(0, (-1, len(R))) for b in (Z, x, out)
        )
        inner = inner.unflatten(2, (-1, len(R))).transpose(1, 2)  # (order, order, F, F)
        # phi_n = He_n(z) / sqrt(n!)
        scale = {n: tau**n * math.sqrt(math.factorial(n)) for n in orders}
        expected = torch.cat([clean[n].mean(0) / scale[n] for n in orders])
        rows = [
            torch.cat([_pair(n, m, noise, inner) / scale[n][:, None] / scale[m] for m in orders], 1)
            for n in orders
        ]
        P = torch.cat(rows) - torch.outer(expected, expected)
        # with y, by Stein's identity: E[He_n(z) sigma noise] = n E[He_(n-1)(z)] sigma^2 r / tau
        stein = {n: n * sigma**2 * clean[n - 1].mean(0)[:, None] * R for n in orders}
        Q = torch.cat([(with_x[n] + stein[n]) / scale[n][:, None] for n in orders])
        cross = torch.cat([with_out[n] / scale[n][:, None] for n in orders])
        affine = torch.cholesky_solve(Q.T, root)  # (k, features): what y tells about phi
        A = _ridge(P - Q @ affine, cross - Q @ wiener, self.ridge)
        return Fit(R, tau, mu, mean - expected @ A, wiener - affine @ A, A)

    def _evaluate(self, fit: Fit, y: Tensor) -> Tensor:
        z = (y - fit.centre) @ fit.projections.T / fit.scales
        h = [torch.ones_like(z), z]
        for n in range(1, self.degree):
            h.append((z * h[n] - math.sqrt(n) * h[n - 1]) / math.sqrt(n + 1))
        phi = torch.cat(h[2 : self.degree + 1], dim=1) if self.degree > 1 else z
        return fit.constant + (y - fit.centre) @ fit.linear + phi @ fit.A


def patch_table(sigmas: Tensor, size: int, features: float = 1.0) -> dict[float, tuple[int, int]]:
    """The coarse-to-fine windows of Levine & Weiss 2026 for ten noise levels and images of `size`
    pixels a side.

    {sigma: (side, F)}: the released sides 64 ... 3 of 64 pixels, scaled and rounded, with the
    released F, times `features`. sigmas (10,) decreasing, as a schedule without its final 0.
    """
    levels = sigmas.tolist()
    if len(levels) != len(PATCHES) or levels[-1] <= 0:
        raise ValueError(
            f"{len(levels)} noise levels: pass the ten positive levels of a schedule, schedule[:-1]"
        )
    sides = [max(1, round(side * positive_int("size", size) / 64)) for side in PATCHES]
    counts = [max(1, round(F * features)) for F in PATCHES.values()]
    return dict(zip(levels, zip(sides, counts, strict=True), strict=True))


def _outputs(n: int, side: int) -> list[tuple[int, list[int]]]:
    """Along one axis: where each window begins and which pixels it serves."""
    found: dict[int, list[int]] = {}
    for i in range(n):
        found.setdefault(min(max(i - side // 2, 0), n - side), []).append(i)
    return list(found.items())


def _pair(n: int, m: int, noise: Tensor, inner: Tensor) -> Tensor:
    """tau_i^n tau_j^m E[He_n(z_i) He_m(z_j)]."""
    total = inner[n, m]
    for k in range(1, min(n, m) + 1):
        total = (
            total
            + math.factorial(k) * math.comb(n, k) * math.comb(m, k) * noise**k * inner[n - k, m - k]
        )
    return total


def _ridge(covariance: Tensor, cross: Tensor, ridge: float) -> Tensor:
    """(covariance + ridge I)^{-1} cross."""
    covariance = covariance.clone()
    covariance.diagonal().add_(ridge)
    return torch.cholesky_solve(cross, torch.linalg.cholesky(covariance))
