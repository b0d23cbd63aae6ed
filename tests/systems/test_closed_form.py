"""The closed-form image denoisers of chapter 11 against their definitions, on small images in
float64."""

import itertools
import math

import numpy as np
import pytest
import torch

from helpers import sampling
from helpers.denoisers import (
    LinearConvolution,
    LinearDenoiser,
    PooledConvolution,
    ProjectedDenoiser,
)
from helpers.denoisers.linear import flow_variance
from helpers.systems.levine_weiss.windows import HermitePolynomial, ReleasedPolynomial, patch_table

LEVELS = [4.0, 0.7, 0.15]


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def photographs(n=30, height=8, width=8, seed=0):
    """Smooth random images in [0, 1], darker towards the left."""
    z = draws(n, height, width, seed=seed).cumsum(1).cumsum(2)
    z = (z - z.mean((1, 2), keepdim=True)) / z.std((1, 2), keepdim=True)
    return torch.sigmoid(z + torch.linspace(-1, 1, width, dtype=torch.float64))


X = photographs()
Y = photographs(5, seed=1) + 0.5 * draws(5, 8, 8, seed=2)


def window(i, side, n=8):
    begin = min(max(i - side // 2, 0), n - side)
    return slice(begin, begin + side)


# The released polynomial --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "features", "degree"),
    [(None, 20, 3), (None, 50, 3), (None, 20, 2), (5, 9, 3), (2, 4, 3)],
)
def test_released_polynomial_is_its_definition(side, features, degree):
    """One pixel at a time, by the augmented normal equations of the ridge regression with an
    intercept."""
    denoiser = ReleasedPolynomial(X, features, degree, patch=side)
    for sigma in LEVELS:
        noisy, found = denoiser._images(sigma), denoiser(Y, sigma)
        assert torch.allclose((noisy - X).std() / sigma, torch.ones(()).double(), atol=0.1)
        for i, j in ((0, 0), (3, 4), (7, 2)):
            rows, columns = (window(k, side or 8) for k in (i, j))
            R = denoiser._random(features, noisy[0, rows, columns].numel())

            def phi(y, rows=rows, columns=columns, R=R):
                v = torch.stack([R @ (2 * image[rows, columns] - 1).flatten() for image in y])
                return torch.stack([(row / max(row.abs())) ** degree for row in v]) / (2 * X).std(
                    correction=0
                )

            design = torch.cat([torch.ones(len(X), 1).double(), phi(noisy)], 1)
            penalty = len(X) * 1e-5 * torch.diag(torch.tensor([0.0] + [1.0] * features).double())
            solution = torch.linalg.solve(design.T @ design + penalty, design.T @ X[:, i, j])
            expected = solution[0] + phi(Y) @ solution[1:]
            assert torch.allclose(found[:, i, j], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.theorem("prop-contrast")
def test_released_polynomial_forgets_contrast():
    denoiser = ReleasedPolynomial(X, 20, patch=5)
    assert torch.allclose(denoiser(Y, 0.7), denoiser(0.5 + 3.7 * (Y - 0.5), 0.7), atol=1e-9)
    assert not torch.allclose(denoiser(Y, 0.7), denoiser(3.7 * Y, 0.7), atol=1e-2)


@pytest.mark.theorem("prop-one-copy")
def test_released_polynomial_interpolates_its_one_noisy_copy():
    """With more features than images the training error is that of the ridge alone; fresh noise is
    another matter."""
    error = {}
    for draws_ in (1, 40):
        denoiser = ReleasedPolynomial(X, 40, ridge=1e-9, draws=draws_)
        x = X.repeat(draws_, 1, 1)
        fresh = x + 2 * draws(*x.shape, seed=9)
        error[draws_] = [
            float((denoiser(y, 2.0) - x).square().mean()) for y in (denoiser._images(2.0), fresh)
        ]
    assert error[1][0] < 1e-4 < float(X.var(0).mean()) / 2 < error[1][1]
    assert error[40][0] > 1e-2 and error[40][1] < 1.2 * error[40][0]


@pytest.mark.theorem("prop-one-copy")
@pytest.mark.parametrize("F", [4, 25, 60])
def test_excess_of_a_regression_on_one_noisy_copy(F):
    """The formula, for features that know nothing of the images, by least squares of least norm."""
    N, n, tries = 12, 11, 2000
    x = X.flatten(1)[torch.arange(N) % len(X)]
    phi, fresh = draws(tries, N, F, seed=1), draws(tries, 1, F, seed=2)
    centre, mean = phi.mean(1, keepdim=True), x.mean(0)
    A = torch.linalg.pinv(phi - centre) @ (x - mean)
    excess = ((fresh - centre) @ A).square().sum(2).flatten() / (x - mean).square().sum(1).mean()
    want = (N + 1) / (F - n - 1) if F > n + 1 else (N + 1) / n * F / (n - F - 1)
    assert float(excess.mean()) == pytest.approx(want, abs=4 * float(excess.std()) / tries**0.5)


# The well-posed polynomial ------------------------------------------------------------------------


def quadrature(k, sigma, nodes=4):
    """Noise sigma N(0, I_k) and weights, exact for polynomials of degree 7."""
    t, w = np.polynomial.hermite_e.hermegauss(nodes)
    noise = torch.tensor(list(itertools.product(t, repeat=k)))
    weights = torch.tensor([math.prod(c) for c in itertools.product(w / w.sum(), repeat=k)])
    return sigma * noise, weights


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_hermite_polynomial_is_the_best_regression(degree):
    """Windows of 2 x 2 pixels: the mean over the noise by quadrature, the regression by weighted
    least squares."""
    ridge, F = 0.03, 5
    denoiser = HermitePolynomial(X, F, degree, ridge, patch=2)
    for sigma, (i, j) in zip(LEVELS, ((0, 7), (3, 4), (6, 1)), strict=True):
        rows, columns = window(i, 2), window(j, 2)
        along, anywhere = denoiser._random(F, 4).split([len(X), 4], dim=1)
        x = X[:, rows, columns].flatten(1)
        R = along @ (x - x.mean(0)) / len(X) ** 0.5 + 0.01 * anywhere / 2
        noise, w = quadrature(4, sigma)
        y = (x[:, None] + noise).flatten(0, 1)
        weights = (torch.ones(len(X), 1).double() / len(X) * w).flatten()
        tau = (weights @ ((y - x.mean(0)) @ R.T) ** 2).sqrt()

        def phi(y, R=R, tau=tau, x=x):
            z = (y - x.mean(0)) @ R.T / tau
            h = {2: (z**2 - 1) / math.sqrt(2), 3: (z**3 - 3 * z) / math.sqrt(6)}
            return torch.cat([h[n] for n in range(2, degree + 1)], 1) if degree > 1 else z[:, :0]

        def affine(y):
            return torch.cat([torch.ones(len(y), 1).double(), y], 1)

        target = X[:, i, j].repeat_interleave(len(w))
        root = weights.sqrt()[:, None]
        to = torch.linalg.lstsq(
            root * affine(y), root * torch.cat([phi(y), target[:, None]], 1)
        ).solution
        rest = phi(y) - affine(y) @ to[:, :-1]
        gram = rest.T @ (weights[:, None] * rest) + ridge * torch.eye(rest.shape[1]).double()
        A = (
            torch.linalg.solve(gram, rest.T @ (weights * target))
            if degree > 1
            else rest.new_zeros(0)
        )
        query = Y[:, rows, columns].flatten(1)
        expected = affine(query) @ to[:, -1] + (phi(query) - affine(query) @ to[:, :-1]) @ A
        assert torch.allclose(denoiser(Y, sigma)[:, i, j], expected, rtol=1e-7, atol=1e-8)


def test_degree_one_and_a_large_ridge_are_wieners_filter():
    wiener = LinearDenoiser.from_points(X)
    for sigma in LEVELS:
        assert torch.allclose(HermitePolynomial(X, 7, 1)(Y, sigma), wiener(Y, sigma), atol=1e-9)
        assert torch.allclose(
            HermitePolynomial(X, 7, ridge=1e12)(Y, sigma), wiener(Y, sigma), atol=1e-7
        )
        assert not torch.allclose(HermitePolynomial(X, 7)(Y, sigma), wiener(Y, sigma), atol=1e-4)


@pytest.mark.theorem("prop-hermite-gaussian")
def test_moments_of_a_gaussian_leave_wieners_filter():
    """A set that is its own mirror image has the third moments of a Gaussian, all that degree 2
    looks at; not the fourth, which degree 3 sees."""
    points = torch.cat([0.5 + X, 0.5 - X])
    wiener = LinearDenoiser.from_points(points)(Y, 0.7)
    assert torch.allclose(HermitePolynomial(points, 7, 2)(Y, 0.7), wiener, atol=1e-9)
    assert not torch.allclose(HermitePolynomial(points, 7, 3)(Y, 0.7), wiener, atol=1e-4)


def test_a_window_without_variance_stays_what_it_is():
    flat = X.clone()
    flat[:, :3] = 0.0
    found = HermitePolynomial(flat, 6, patch=3)(Y, 0.3)
    assert found.isfinite().all() and torch.allclose(
        found[:, :2], torch.zeros(5, 2, 8).double(), atol=1e-12
    )


# Tables and draws ---------------------------------------------------------------------------------

TABLE = {2.0: (6, 6), 0.5: (3, 4)}


def test_a_table_takes_the_nearest_level():
    denoiser = HermitePolynomial(X, patch=TABLE)
    assert torch.equal(denoiser(Y, 0.6), HermitePolynomial(X, 4, patch=3)(Y, 0.6))
    assert torch.equal(denoiser(Y, 5.0), HermitePolynomial(X, 6, patch=6)(Y, 5.0))


def test_patch_table_is_the_released_one_at_64_pixels():
    table = patch_table(sampling.cosine_vp(10)[:-1], 64)
    assert list(table.values()) == [
        (64, 1024), (55, 1024), (45, 512), (35, 256), (27, 128), (21, 128), (15, 64), (11, 32), (7, 16), (3, 8),
    ]  # fmt: skip
    assert [s for s, _ in patch_table(sampling.cosine_vp(10)[:-1], 32).values()] == [
        32,
        28,
        22,
        18,
        14,
        10,
        8,
        6,
        4,
        2,
    ]
    assert min(F for _, F in patch_table(sampling.cosine_vp(10)[:-1], 8, 0.01).values()) == 1


def test_noise_and_projections_are_drawn_apart():
    """A caller may draw the noise of y from any plain seed: it must be neither R nor the noise of
    the fit."""
    points = photographs(200)
    for seed in (0, 1):
        denoiser = ReleasedPolynomial(points, 100, seed=seed)
        own = {s: (denoiser._images(s) - points).flatten() / s for s in (80.0, 4.0, 0.5)}
        streams = [*own.values(), *(draws(200, 8, 8, seed=k).flatten() for k in (0, 1, 2))]
        rows = torch.stack([v[:6400] for v in [*streams, 8 * denoiser._random(100, 64).flatten()]])
        assert (torch.corrcoef(rows) - torch.eye(len(rows)).double()).abs().max() < 5 / 80


# Rank ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 5, 20])
def test_samples_of_rank_r_have_no_variance_off_the_subspace(rank):
    denoiser = LinearDenoiser.from_points(X, rank)
    schedule = sampling.cosine_vp(10)
    end = sampling.last(sampling.euler(denoiser, 80 * draws(400, 8, 8, seed=4), schedule))
    rest = (end - denoiser.mean).flatten(1)
    coordinates = rest @ denoiser.axes
    assert (rest - coordinates @ denoiser.axes.T).square().mean() < 1e-24
    assert torch.linalg.matrix_rank(rest, rtol=1e-9) == rank
    expected = flow_variance(denoiser.variances, schedule)
    assert torch.allclose(
        coordinates.var(0) / expected, torch.ones(rank).double(), atol=5 * math.sqrt(2 / 400)
    )


def test_the_projected_denoiser_copies_projections():
    denoiser = ProjectedDenoiser(X, 4)
    end = sampling.last(sampling.euler(denoiser, 80 * draws(20, 8, 8, seed=4), sampling.edm(60)))
    shadows = (X - denoiser.mean).flatten(
        1
    ) @ denoiser.basis @ denoiser.basis.T + denoiser.mean.flatten()
    assert torch.linalg.matrix_rank((end - denoiser.mean).flatten(1), rtol=1e-9) == 4
    assert torch.cdist(end.flatten(1), shadows).amin(1).max() < 1e-6


# Pooling ------------------------------------------------------------------------------------------


def brute_force(stride, cells, sigma, i, j, query):
    """Pixel (i, j) regressed on the cells around its own, over all images and all shifts by whole
    cells."""
    moved = torch.cat(
        [
            X.roll((-a * stride, -b * stride), (1, 2))
            for a in range(8 // stride)
            for b in range(8 // stride)
        ]
    )
    mean = moved.mean(0)
    begin = [k // stride * stride - cells // 2 * stride for k in (i, j)]
    rows, columns = ([(b + t) % 8 for t in range(cells * stride)] for b in begin)
    seen = (moved - mean)[:, rows][:, :, columns].flatten(1)
    gram = seen.T @ seen / len(moved) + sigma**2 * torch.eye(seen.shape[1]).double()
    taps = torch.linalg.solve(gram, seen.T @ (moved - mean)[:, i, j] / len(moved))
    return mean[i, j] + (query - mean)[:, rows][:, :, columns].flatten(1) @ taps


@pytest.mark.theorem("prop-pooled")
@pytest.mark.parametrize(("stride", "cells"), [(2, 1), (2, 3), (4, 1)])
def test_pooled_convolution_is_the_best_filter_of_its_kind(stride, cells):
    denoiser = PooledConvolution.from_points(X, stride, cells)
    for sigma in LEVELS:
        found = denoiser(Y, sigma)
        for i, j in ((0, 0), (3, 6), (7, 5)):
            assert torch.allclose(
                found[:, i, j], brute_force(stride, cells, sigma, i, j, Y), atol=1e-9
            )


@pytest.mark.theorem("prop-pooled")
def test_pooled_convolution_lies_between_convolution_and_the_linear_denoiser():
    for sigma in LEVELS:
        assert torch.allclose(
            PooledConvolution.from_points(X, 1, 5)(Y, sigma),
            LinearConvolution.from_points(X, 5)(Y, sigma),
            atol=1e-9,
        )
        assert torch.allclose(
            PooledConvolution.from_points(X, 8, None)(Y, sigma),
            LinearDenoiser.from_points(X)(Y, sigma),
            atol=1e-9,
        )


def test_pooled_convolution_commutes_with_shifts_by_its_stride_only():
    denoiser = PooledConvolution.from_points(X, 2, 3)
    shifted = denoiser(Y.roll((2, 4), (1, 2)), 0.7)
    assert torch.allclose(shifted, denoiser(Y, 0.7).roll((2, 4), (1, 2)), atol=1e-12)
    assert not torch.allclose(denoiser(Y.roll(1, 1), 0.7), denoiser(Y, 0.7).roll(1, 1), atol=1e-2)


SPECTRUM = torch.fft.fftn(X - X.mean(), dim=(1, 2), norm="ortho").abs().square().mean(0)


@pytest.mark.theorem("prop-pooled")
def test_a_stationary_target_and_all_cells_leave_nothing_of_the_grid():
    mean = float(X.mean())
    full = LinearConvolution(SPECTRUM, torch.ones(8, 8, dtype=torch.bool), mean)
    pooled = PooledConvolution.from_spectrum(SPECTRUM, 2, None, mean)
    assert torch.allclose(pooled(Y, 0.7), full(Y, 0.7), atol=1e-10)
    covariance = pooled.generated_covariance()
    assert torch.allclose(covariance, covariance[:1, :1].expand_as(covariance), atol=1e-9)
    assert torch.allclose(
        torch.fft.fft2(covariance[0, 0]).real, full.generated_spectrum(), rtol=1e-4, atol=1e-7
    )


@pytest.mark.theorem("prop-pooled")
def test_generated_covariance_is_what_the_sampler_generates():
    """The flow is linear: its matrix, column by column, by Heun's method."""
    denoiser = PooledConvolution.from_points(X, 2, 1)
    mean = denoiser.mean.repeat(4, 4)
    basis = 80 * torch.eye(64).double().view(64, 8, 8)
    flow = (
        sampling.last(
            sampling.heun(denoiser, mean + basis, sampling.log_linear(150, 0.01, 80.0)[:-1])
        )
        - mean
    )
    K = (flow.flatten(1).T @ flow.flatten(1)).view(8, 8, 8, 8)
    found = denoiser.generated_covariance(0.01, 80.0)
    for (a, b), (i, j) in itertools.product(
        itertools.product(range(2), repeat=2), ((0, 0), (0, 1), (3, 6), (7, 7))
    ):
        assert abs(
            found[a, b, i, j] - K[4 + a, 2 + b, (4 + a + i) % 8, (2 + b + j) % 8]
        ) < 1e-3 * float(K.max())
    lag0 = found[:, :, 0, 0]
    # the phases differ: the law is only cyclostationary
    assert (lag0.max() - lag0.min()) > 0.01 * lag0.max()


# Bad input ----------------------------------------------------------------------------------------

BAD = [
    (lambda: ReleasedPolynomial(X[:, None], 8), "points have shape (30, 1, 8, 8)", "gray images (N, H, W)"),
    (lambda: ReleasedPolynomial(torch.full_like(X, 0.3), 8), "all of one gray", "different images"),
    (lambda: ReleasedPolynomial(X, 8, draws=0), "draws is 0", "at least 1"),
    (lambda: ReleasedPolynomial(X, 0), "features is 0", "at least 1"),
    (lambda: HermitePolynomial(X, 8, ridge=0.0), "ridge is 0.0", "must be positive"),
    (lambda: HermitePolynomial(X, 8, degree=0), "degree is 0", "at least 1"),
    (lambda: HermitePolynomial(X, patch=9), "patch is 9", "choose 1 to 8"),
    (lambda: HermitePolynomial(X, patch={}), "patch has levels []", "{sigma: (side, features)}"),
    (lambda: HermitePolynomial(X, patch={-1.0: (3, 3)}), "patch has levels [-1.0]", "positive"),
    (lambda: patch_table(sampling.cosine_vp(9)[:-1], 32), "9 noise levels", "schedule[:-1]"),
    (lambda: patch_table(sampling.cosine_vp(9), 32), "10 noise levels", "schedule[:-1]"),
    (lambda: PooledConvolution.from_points(X, 3), "stride is 3 on (8, 8)", "divisor"),
    (lambda: PooledConvolution.from_points(X.flatten(1), 2), "stride is 2 on (64,)", "divisor"),
    (lambda: PooledConvolution.from_points(X, 2, 2), "support is 2", "odd"),
    (lambda: PooledConvolution.from_points(X, 2, 5), "support is 5", "odd width from 1 to 4"),
    (lambda: PooledConvolution.from_spectrum(-SPECTRUM, 2), "spectrum has shape (8, 8)", "variances >= 0"),
    (lambda: PooledConvolution(torch.ones(4, 4, 4, 4), torch.ones(3, 3), 3), "mean (3, 3)", "(stride, stride)"),
    (lambda: PooledConvolution(-torch.eye(4).expand(1, 1, 4, 4), torch.ones(2, 2), 1), "has eigenvalue -1", "random"),
    (lambda: PooledConvolution.from_points(X, 2).generated_covariance(2.0, 1.0), "from 1.0 down to 2.0", "< smallest"),
    (lambda: HermitePolynomial(X, 20)(Y[:, :7], 1.0), "y has shape (5, 7, 8)", "(batch, 8, 8)"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "value", "remedy"), BAD, ids=[value for _, value, _ in BAD])
def test_bad_input_is_named_with_its_remedy(call, value, remedy):
    with pytest.raises(ValueError) as raised:
        call()
    assert value in str(raised.value) and remedy in str(raised.value)
