"""Denoising as projection: the smoothed distance, errors of a projection, admissible schedules,
against definitions."""

import math

import pytest
import torch
from nets import noise

from helpers import realism
from helpers.denoisers import GaussianMixture, PosteriorMean
from helpers.sampling import ddim_linear, euler, gradient_estimation, last, log_linear
from helpers.systems.permenter_yuan import projection
from helpers.systems.permenter_yuan.projection import KernelDensity, Projection

POINTS = noise(12, 8, 8, dtype=torch.float64)
Y = 2 * noise(20, 8, 8, seed=1, dtype=torch.float64)
LEVELS = log_linear(9, 0.05, 20.0)[:-1]


def by_definition(y, sigma):
    return (
        -2
        * sigma**2
        * (-torch.cdist(y.flatten(1), POINTS.flatten(1)).square() / (2 * sigma**2)).logsumexp(1)
    )


@pytest.mark.theorem("prop-smoothed")
@pytest.mark.parametrize("sigma", [0.05, 1.0, 30.0])
def test_smoothed_distance_is_its_definition_and_its_gradient_the_denoiser(sigma):
    y = Y.clone().requires_grad_()
    expected = by_definition(y, sigma)
    assert torch.allclose(projection.smoothed_distance(POINTS, Y, sigma), expected, rtol=1e-10)
    (gradient,) = torch.autograd.grad(expected.sum(), y)
    assert torch.allclose(gradient / 2, Y - PosteriorMean(POINTS)(Y, sigma), atol=1e-9)


@pytest.mark.theorem("prop-smoothed")
def test_smoothed_distance_lies_between_its_bounds_and_meets_them():
    squared = torch.cdist(Y.flatten(1), POINTS.flatten(1)).square().amin(1)
    levels = torch.linspace(0.1, 5, len(Y), dtype=torch.float64)  # one for each row
    soft = projection.smoothed_distance(POINTS, Y, levels)
    assert (soft <= squared + 1e-9).all() and (
        soft >= squared - 2 * levels**2 * math.log(12) - 1e-9
    ).all()
    assert torch.allclose(projection.smoothed_distance(POINTS, Y, 1e-3), squared, atol=1e-4)
    same = POINTS[:1].repeat(12, 1, 1)  # twelve times one point: the lower bound
    lower = (Y - POINTS[0]).flatten(1).square().sum(1) - 2 * math.log(12)
    assert torch.allclose(projection.smoothed_distance(same, Y, 1.0), lower)


@pytest.mark.parametrize("error", [-0.4, 0.0, 0.7])
def test_a_projection_has_the_error_it_was_given(error):
    x_hat = Projection(POINTS, error)(Y, 3.0)
    eta, distance = projection.relative_error(x_hat, Y, POINTS)
    nearest = torch.cdist(Y.flatten(1), POINTS.flatten(1)).argmin(1)
    assert torch.allclose(x_hat, POINTS[nearest] + error * (Y - POINTS[nearest]))
    assert torch.allclose(eta, torch.full((20,), abs(error)).double(), atol=1e-12)
    assert torch.allclose(distance, (Y - POINTS[nearest]).flatten(1).norm(dim=1))


def test_a_data_point_has_no_relative_error():
    assert projection.relative_error(POINTS, POINTS, POINTS)[0].isnan().all()


@pytest.mark.theorem("prop-ends")
def test_relative_error_of_the_exact_denoiser_is_below_the_bound_of_its_gap():
    squared = torch.cdist(Y.flatten(1), POINTS.flatten(1)).square().sort(1).values
    diameter = torch.cdist(POINTS.flatten(1), POINTS.flatten(1)).max()
    for sigma in (0.5, 2.0, 100.0):
        eta = projection.relative_error(PosteriorMean(POINTS)(Y, sigma), Y, POINTS)[0]
        others = (11 * (-(squared[:, 1] - squared[:, 0]) / (2 * sigma**2)).exp()).clamp(max=1)
        assert (eta <= diameter / squared[:, 0].sqrt() * others + 1e-12).all()


@pytest.mark.theorem("prop-straight")
def test_exact_projection_shrinks_distance_with_the_noise_and_needs_no_gradient_estimation():
    exact = Projection(POINTS)
    eta, distance = projection.errors_along(exact, POINTS, Y, LEVELS)
    assert eta.shape == (8, 20) and distance.shape == (9, 20) and float(eta.max()) < 1e-9
    assert torch.allclose(distance, distance[0] * (LEVELS / LEVELS[0])[:, None], rtol=1e-9)
    ends = [last(gradient_estimation(exact, Y, LEVELS, gamma)) for gamma in (1.0, 2.0, -3.0)]
    assert all(
        torch.allclose(end, last(euler(exact, Y, LEVELS[[0, -1]])), atol=1e-10) for end in ends
    )
    assert not torch.allclose(last(euler(Projection(POINTS, 0.3), Y, LEVELS)), ends[0], atol=1e-3)


@pytest.mark.theorem("thm-admissible")
def test_bounds_hold_for_every_step_of_a_denoiser_with_its_own_errors():
    eta, distance = projection.errors_along(PosteriorMean(POINTS), POINTS, Y, LEVELS)
    for column in range(20):
        low, high = projection.step_bounds(LEVELS, eta[:, column].clamp(max=0.999))
        share = distance[:, column] / distance[0, column]
        assert (low <= share + 1e-12).all() and (share <= high + 1e-12).all()


@pytest.mark.theorem("thm-admissible")
@pytest.mark.parametrize(("error", "which"), [(-0.25, 0), (0.25, 1)])
def test_the_worst_denoisers_reach_the_bounds(error, which):
    distance = projection.errors_along(Projection(POINTS, error), POINTS, Y, LEVELS[:3])[1]
    bound = projection.step_bounds(LEVELS[:3], 0.25)[which]
    assert torch.allclose(distance / distance[0], bound[:, None].expand(3, 20), rtol=1e-9)


@pytest.mark.theorem("thm-admissible")
@pytest.mark.parametrize(("steps", "published"), [(5, 0.564), (10, 0.401), (50, 0.121)])
def test_largest_step_is_the_edge_of_admissibility(steps, published):
    beta = projection.largest_step(0.1, 2.0, steps)
    assert beta == pytest.approx(published, abs=5e-4)
    for share in (0.9, 1.0, 1.1):
        levels = (1 - share * beta) ** torch.arange(steps + 1, dtype=torch.float64)
        nu = projection.least_nu(levels, 0.1)
        assert nu == pytest.approx(2, rel=1e-9) if share == 1 else (nu < 2) == (share < 1)


def test_steps_together_tend_to_nu_to_the_inverse_eta():
    beta = projection.largest_step(0.1, 2.0, 10**6)
    assert (1 - beta) ** -(10**6) == pytest.approx(2**10, rel=1e-3)


def test_a_step_that_may_overshoot_is_not_admissible():
    levels = torch.tensor([10.0, 1.0])
    assert (
        projection.least_nu(levels, 0.2) == math.inf
        and projection.step_bounds(levels, 0.2)[0][1] == 0
    )
    assert projection.least_nu(levels, 0.1) < math.inf
    assert projection.least_nu(levels, torch.tensor([0.0])) == 1


def test_kernel_density_is_the_gaussian_mixture():
    flat = POINTS.flatten(1)
    law, mixture = KernelDensity(flat, 0.3), GaussianMixture(flat, 0.3)
    for sigma in (0.02, 0.3, 7.0):
        assert torch.allclose(law(Y.flatten(1), sigma), mixture(Y.flatten(1), sigma), atol=1e-8)
    levels = torch.linspace(0.1, 4, 20, dtype=torch.float64)
    rows = torch.cat([law(y[None], float(s)) for y, s in zip(Y.flatten(1), levels, strict=True)])
    assert torch.allclose(law(Y.flatten(1), levels), rows, atol=1e-10)  # no row sees the others


def test_draws_of_a_kernel_density_lie_around_the_points():
    draws = KernelDensity(POINTS, 0.01).sample(500, seed=3)
    distance, index = torch.cdist(draws.flatten(1), POINTS.flatten(1)).min(1)
    assert draws.shape == (500, 8, 8) and set(index.tolist()) == set(range(12))
    assert float(distance.square().mean()) == pytest.approx(64 * 0.01**2, rel=0.05)
    assert torch.equal(draws, KernelDensity(POINTS, 0.01).sample(500, seed=3))


def test_frechet_is_the_formula_in_the_units_of_the_points():
    x, y = (
        noise(300, 4, dtype=torch.float64),
        1 + noise(200, 4, seed=1, dtype=torch.float64) @ noise(4, 4).double(),
    )
    a, b = x.T.cov(), y.T.cov()
    root = torch.linalg.eigvals(a @ b).real.clamp(min=0).sqrt().sum()
    expected = float((x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * root)
    assert realism.frechet(x, y) == pytest.approx(expected, rel=1e-6)
    assert realism.frechet(3 * x, 3 * y) == pytest.approx(9 * expected, rel=1e-6)
    assert realism.frechet(x.view(300, 2, 2), x.view(300, 2, 2)) == pytest.approx(0, abs=1e-6)
    for bad in (Y[:, :4], Y[:1]):
        with pytest.raises(ValueError, match="two or more points"):
            realism.frechet(Y, bad)


def test_their_schedule_is_geometric_down_to_two_levels_of_ddim():
    levels = projection.permenter_yuan(10, sigma_max=80.0)
    ratios = levels[1:-1] / levels[:-2]
    assert len(levels) == 11 and float(levels[0]) == pytest.approx(80) and float(levels[-1]) == 0.01
    assert torch.allclose(ratios, ratios[:1].expand(9))
    smallest, second = ddim_linear(10)[-2], ddim_linear(10)[-3]
    assert float(levels[-2]) == pytest.approx(math.sqrt(smallest * second))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Projection(POINTS, 1.0), "error is 1.0"),
        (lambda: KernelDensity(POINTS, 0.0), "width is 0.0"),
        (lambda: projection.relative_error(Y[:3], Y, POINTS), r"\(3, 8, 8\)"),
        (lambda: projection.step_bounds(torch.tensor([1.0, 0.0]), 0.1), "drop it with"),
        (lambda: projection.step_bounds(torch.tensor([1.0, 2.0]), 0.1), "decrease"),
        (lambda: projection.least_nu(torch.tensor([2.0, 1.0]), 1.0), "eta is 1.0"),
        (
            lambda: projection.least_nu(torch.tensor([2.0, 1.0]), torch.tensor([0.1, 0.1])),
            "one for each step",
        ),
        (lambda: projection.largest_step(0.0, 2.0, 5), "eta is 0.0"),
        (lambda: projection.largest_step(0.1, 1.0, 5), "nu is 1.0"),
        (lambda: projection.permenter_yuan(1), "steps is 1"),
        (lambda: projection.smoothed_distance(POINTS, Y, 0.0), "sigma"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
