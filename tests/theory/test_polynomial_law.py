"""The law of a polynomial denoiser: to first order, its support, and who escapes."""

import math

import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.stats import chi

from helpers import density, sampling
from helpers.data import moons, ring, star, swiss_roll, three_points
from helpers.denoisers import GaussianMixture, LinearDenoiser, Polynomial
from helpers.polynomial_law import (
    carried,
    cumulant,
    escaping,
    escaping_along,
    first_order,
    support,
)

TWO = GaussianMixture([[-1.0], [1.0]])
SKEWED = GaussianMixture([[-0.5], [2.0]], weights=[0.8, 0.2])
WIDE = GaussianMixture([[-1.0], [1.0]], 0.2)


def bump(epsilon, d=1):
    """N(0, I) with a share epsilon moved into a narrower Gaussian beside it: no symmetry."""
    means = torch.zeros(2, d, dtype=torch.float64)
    means[1] = torch.tensor([1.2, 0.7])[:d]
    return GaussianMixture(means, torch.tensor([1.0, 0.6]), [1 - epsilon, epsilon])


def hermite(z, order):
    """All h_a of total order `order` at z (n, d), (n, m), by the formula He_n = sum of powers."""
    one = [
        sum(
            (-1) ** j * math.factorial(n) / (math.factorial(j) * math.factorial(n - 2 * j) * 2**j)
            * z ** (n - 2 * j)
            for j in range(n // 2 + 1)
        ) / math.sqrt(math.factorial(n))
        for n in range(order + 1)
    ]  # fmt: skip
    if z.shape[1] == 1:
        return one[order]
    return torch.stack([one[a][:, 0] * one[order - a][:, 1] for a in range(order + 1)], 1)


def generated_over_target(epsilon, degree, d, gradient=False):
    """By order n = 1 ...: the generated law's excess over N(0, I), along the target's, orders of
    one number together. The target's excess is exactly epsilon times that of its bump."""
    target = bump(epsilon, d)
    g = density.grid(5.5, 220 if d == 1 else 44, d)
    log_q = density.generated_log_density(
        Polynomial(target, degree, gradient=gradient), g.points, 0.002, 1000.0, 80
    )
    gaussian = torch.exp(-g.points.square().sum(1) / 2) / (2 * math.pi) ** (d / 2)
    ratios = []
    for n in range(1, degree + 4):
        h = hermite(g.points, n)
        made = ((log_q.exp() - gaussian) @ h) * g.cell
        want = ((target.log_prob(g.points).exp() - gaussian) @ h) * g.cell
        ratios.append(float(made @ want / (want @ want)) if d > 1 else float(made / want))
    return torch.tensor(ratios)


@pytest.mark.theorem("prop-first-order")
@pytest.mark.parametrize(("degree", "d", "gradient"), [(2, 1, 0), (3, 1, 0), (2, 2, 0), (2, 2, 1)])
def test_orders_up_to_k_plus_1_are_kept_and_the_rest_removed_to_first_order(degree, d, gradient):
    """Deviations from 1 and from 0 halve with epsilon, and their limit, extrapolated, is 0."""
    low_pass = (torch.arange(1, degree + 4) <= degree + 1).float()
    coarse, fine = (
        generated_over_target(e, degree, d, bool(gradient)) - low_pass for e in (0.04, 0.02)
    )
    limit = 2 * fine - coarse
    assert coarse.abs().max() > 0.02  # not exact: first order
    assert limit.abs().max() < 0.2 * coarse.abs().max(), (coarse, fine, limit)


@pytest.mark.theorem("prop-first-order")
def test_the_cut_series_is_what_first_order_says():
    """Mass 1, the target's moments up to k + 1 and the Gaussian's Hermite coefficients, none,
    beyond."""
    target = bump(0.3)
    g = density.grid(9, 3000, 1)
    z = (g.points - target.mean) / target.covariance.sqrt()
    for k in (1, 2, 5):
        q = first_order(target, k, g.points) * g.cell
        p = target.log_prob(g.points).exp() * g.cell
        assert float(q.sum()) == pytest.approx(1, abs=1e-9)
        for n in range(1, k + 4):
            made, want = float(q @ hermite(z, n)[:, 0]), float(p @ hermite(z, n)[:, 0])
            assert made == pytest.approx(want if n <= k + 1 else 0, abs=1e-8), (k, n)
    with pytest.raises(ValueError, match="flat target"):
        first_order(GaussianMixture([[0.0, 0.0], [1.0, 1.0]]), 2, torch.zeros(1, 2))


@pytest.mark.theorem("prop-cumulant")
@pytest.mark.parametrize("target", [TWO, SKEWED, WIDE])
def test_the_leading_coefficient_at_large_noise_is_a_cumulant(target):
    """c sigma^2k k! / kappa_(k + 1) -> 1 like sigma^-2, with the cumulants by autograd of the
    logarithm of the generating function."""
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    x, variance = target.means[:, 0], target.variances[:, 0]
    derivative = torch.logsumexp(target.weights.log() + t * x + variance * t**2 / 2, 0)
    for order in range(1, 7):
        (derivative,) = torch.autograd.grad(derivative, t, create_graph=True)
        assert float(cumulant(target, order)) == pytest.approx(float(derivative.detach()), abs=1e-9)
        if order > 2 and abs(float(derivative.detach())) > 1e-6:
            k, off = order - 1, []
            for sigma in (10.0, 20.0):
                psi = Polynomial(target, k, gradient=True).leading_form(sigma)[1]
                c = float(psi) * order * sigma**2
                off.append(
                    c * sigma ** (2 * k) * math.factorial(k) / float(derivative.detach()) - 1
                )
            assert abs(off[1]) < 0.2 and off[1] / off[0] == pytest.approx(0.25, abs=0.05)


@pytest.mark.theorem("prop-cumulant")
def test_the_leading_form_in_the_plane_is_the_cumulant_of_each_projection():
    sigma, target = 80.0, swiss_roll()
    angle = 2 * math.pi * torch.arange(720, dtype=torch.float64) / 720
    u = torch.stack([angle.cos(), angle.sin()], 1)
    for k in (2, 3, 4):
        form = Polynomial(target, k, gradient=True).leading_form(sigma)
        want = cumulant(target, k + 1, u) / math.factorial(k + 1) / sigma ** (2 * k + 2)
        assert torch.allclose(form, want, rtol=0, atol=0.01 * float(want.abs().max()))
    with pytest.raises(ValueError, match="pass \\(m, 2\\)"):
        cumulant(target, 3)


@pytest.mark.theorem("prop-escape")
@pytest.mark.parametrize(
    ("target", "k", "sides"),
    [
        (TWO, 5, (True, True)),  # odd, positive at large noise: both
        (TWO, 4, (False, False)),  # symmetric: as degree 3
        (SKEWED, 2, (False, True)),  # even, positive: the right
        (SKEWED, 4, (True, False)),  # even, negative: the left
        (SKEWED, 3, (False, False)),  # positive at large noise, but too small to be met
        (SKEWED, 5, (True, False)),  # negative at large noise, positive below 1.58
    ],
)
def test_who_escapes_on_each_side(target, k, sides):
    """Predicted from two numbers, counted from a grid of starts by Heun's rule."""
    z = torch.linspace(-5, 5, 1001, dtype=torch.float64)[:, None]
    w = torch.exp(-(z[:, 0] ** 2) / 2)
    w /= w.sum()
    ends = sampling.last(
        sampling.heun(Polynomial(target, k), 80 * z, sampling.log_linear(300, 0.002, 80.0)[:-1])
    )[:, 0]
    gone = ~(ends.abs() <= 10)
    counted = [float(w[gone & (z[:, 0] < 0)].sum()), float(w[gone & (z[:, 0] > 0)].sum())]
    predicted = escaping(Polynomial(target, k), 10.0, 0.002, 80.0)
    assert tuple(p > 1e-12 for p in predicted) == sides
    # a step of the grid of starts, z = .01, at the watershed
    for p, c in zip(predicted, counted, strict=True):
        assert c == pytest.approx(p, abs=0.01 * 0.1, rel=0.05)


@pytest.mark.theorem("prop-escape")
def test_the_sign_change_of_the_skewed_target():
    def c(sigma):
        return float(Polynomial(SKEWED, 5, gradient=True).leading_form(sigma)[1])

    assert c(1.6) < 0 < c(1.55)
    assert carried(Polynomial(SKEWED, 5), torch.tensor([-10.0]).double(), 0.002, 80.0) / 80 == (
        pytest.approx(-2.71, abs=0.005)
    )


def around_the_clock(m):
    angle = 2 * math.pi * (torch.arange(m, dtype=torch.float64) + 0.5) / m
    return torch.stack([angle.cos(), angle.sin()], 1)


@pytest.mark.theorem("prop-escape-plane", "prop-escape")
@pytest.mark.parametrize("k", [2, 4, 5])
def test_on_the_line_the_two_directions_are_the_two_sides(k):
    """Half of the starts point to each side; `escaping` follows infinity upwards, by LSODA."""
    sides = escaping_along(Polynomial(SKEWED, k), torch.tensor([[-1.0], [3.0]]), 10.0, 0.002)
    assert sides.div(2).tolist() == pytest.approx(
        escaping(Polynomial(SKEWED, k), 10.0, 0.002), rel=0.01, abs=1e-14
    )


def share_on_the_axis(fit, side, far=10.0, sigma_min=0.02, sigma_max=80.0):
    """exp(-a^2 / 2) with a the watershed on one side of the first axis, which D must keep, by
    another solver and upwards from far."""

    def slope(u, y):
        x_hat = fit(torch.tensor([[y[0], 0.0]], dtype=torch.float64), math.exp(u))[0]
        assert abs(float(x_hat[1])) < 1e-9 * max(1.0, abs(y[0]))
        return [y[0] - float(x_hat[0])]

    ends = math.log(sigma_min), math.log(sigma_max)
    up = solve_ivp(slope, ends, [side * far], method="LSODA", rtol=1e-7)
    return math.exp(-((up.y[0, -1] / sigma_max) ** 2) / 2)


@pytest.mark.theorem("prop-escape-plane")
def test_a_ring_loses_the_same_in_every_direction_and_one_radius_says_how_much():
    """Degree 5 sees a circle in eight clusters, and five corners in five, one on the axis."""
    along = escaping_along(Polynomial(ring(8), 5), around_the_clock(7), 10.0, steps=60)
    assert along.max() - along.min() < 1e-3 * along.max()
    assert along.mean() == pytest.approx(share_on_the_axis(Polynomial(ring(8), 5), 1), rel=0.02)
    corners, axis = Polynomial(ring(5), 5), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    on_the_axis = escaping_along(corners, axis, 10.0)
    for share, side in zip(on_the_axis.tolist(), (1, -1), strict=True):
        assert share == pytest.approx(share_on_the_axis(corners, side), rel=0.02)
    assert on_the_axis.max() > 2 * on_the_axis.min()


@pytest.mark.theorem("prop-escape-plane")
def test_the_share_lost_in_the_plane_is_the_mass_that_the_density_lacks():
    """By another route: the density at sigma = .3, which knows nothing of starts."""
    uneven = GaussianMixture([[-0.5, 0.0], [2.0, 1.0]], 0.2, [0.85, 0.15])
    quadratic, sigma = Polynomial(uneven, 2), 0.3
    g = density.grid(10, 80, 2)
    log_q = density.generated_log_density(quadratic, g.points, sigma, steps=80)
    lost = float(escaping_along(quadratic, around_the_clock(60), 10.0, sigma).mean())
    assert lost > 1e-3
    assert 1 - density.mass(log_q, g.cell) == pytest.approx(lost, rel=0.01)


@pytest.mark.theorem("prop-escape-plane", "prop-cumulant")
@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize(("target", "k"), [(three_points(), 2), (star(), 4)])
def test_far_out_the_directions_of_a_positive_cumulant_leave(target, k, gradient):
    """All of those at some height and above, from far enough out, and none from nearer."""
    u, sigma_max = around_the_clock(60), 3.0
    height = cumulant(target, k + 1, u)
    cone = u[height >= 0.5 * height.max()]
    assert 0 < len(cone) < len(u) / 2
    fit, down = Polynomial(target, k, gradient), sampling.log_linear(120, 0.5, sigma_max)[:-1]
    near, far = (
        sampling.last(sampling.heun(fit, r * sigma_max * cone, down)) for r in (0.3, 300.0)
    )
    assert bool((near.abs() <= 10).all()) and not bool((far.abs() <= 10).any())


@pytest.mark.theorem("prop-escape-plane")
def test_where_every_direction_is_benign_all_arrive_however_far_they_start():
    """The moons at degree 3. From a hundred times farther a start ends at nearly the same place."""
    cubic, u = Polynomial(moons(), 3), around_the_clock(16)
    for sigma in (80.0, 5.0, 1.0, 0.3):
        assert float((u * cubic(1e6 * u, sigma)).sum(1).max()) < 0
    for direction in u[3:4].numpy():
        ends = [
            solve_ivp(
                lambda v, y: y - cubic(torch.tensor(y)[None], math.exp(v))[0].numpy(),
                (math.log(80.0), math.log(0.3)), r * 80.0 * direction, method="LSODA", rtol=1e-6,
            ).y[:, -1]
            for r in (9.0, 900.0)
        ]  # fmt: skip
        assert math.hypot(*ends[1]) < 1.2 * math.hypot(*ends[0]) < 5


@pytest.mark.theorem("prop-support", "prop-p6")
def test_the_support_of_the_cubic_and_the_density_outside():
    """Inside the density is finite, outside -inf and rightly: upwards 1.45 leaves every bound
    before sigma = .8, long before the start. Over the support it has mass 1."""
    cubic = Polynomial(WIDE, 3)
    low, high = support(cubic, 0.05)
    assert high == pytest.approx(1.4115, abs=5e-5) and low == pytest.approx(-high, abs=1e-6)
    y = torch.tensor([[high - 2e-3], [high + 2e-3], [1.45]], dtype=torch.float64)
    log_q = density.generated_log_density(cubic, y, 0.05, steps=400)
    assert log_q.isfinite().tolist() == [True, False, False]
    seen = [carried(cubic, y[2], 0.05, sigma).isfinite().item() for sigma in (0.77, 0.8)]
    assert seen == [True, False]
    g = density.grid(1.6, 800, 1)
    log_q = density.generated_log_density(cubic, g.points, 0.05)
    assert density.mass(log_q, g.cell) == pytest.approx(1, abs=1e-3)


@pytest.mark.theorem("prop-support", "prop-p6")
def test_the_mass_of_the_density_is_the_share_that_stays():
    """An even degree: nothing from the right comes to an end, the density knows it."""
    quadratic, sigma = Polynomial(GaussianMixture([[-0.5], [2.0]], 0.1, [0.8, 0.2]), 2), 0.05
    g = density.grid(10, 4000, 1)
    log_q = density.generated_log_density(quadratic, g.points, sigma, steps=200)
    low, high = escaping(quadratic, 10.0, sigma)
    assert low == 0 and high > 0.01
    assert density.mass(log_q, g.cell) == pytest.approx(1 - high, abs=1e-4)


def test_carried_is_the_flow_and_its_inverse():
    linear = LinearDenoiser.from_moments(SKEWED.mean, SKEWED.covariance)
    y = torch.tensor([-90.0, 3.0, 120.0], dtype=torch.float64)
    down = carried(Polynomial(SKEWED, 1), y, 80.0, 0.1)
    assert torch.allclose(down, y * math.sqrt((1 + 0.1**2) / (1 + 80.0**2)), rtol=1e-6)
    steps = sampling.log_linear(400, 0.1, 80.0)[:-1]
    assert torch.allclose(down, sampling.last(sampling.heun(linear, y[:, None], steps))[:, 0],
                          rtol=1e-3)  # fmt: skip
    cubic = Polynomial(SKEWED, 3)
    assert torch.allclose(carried(cubic, carried(cubic, y, 80.0, 0.1), 0.1, 80.0), y, rtol=1e-5)
    with pytest.raises(ValueError, match="on the line"):
        carried(Polynomial(swiss_roll(), 2), y, 80.0, 0.1)


@pytest.mark.parametrize("degree", range(1, 7))
def test_a_gaussian_lives_on_the_whole_line(degree):
    """Where the best polynomial is affine its other coefficients are rounding, and nothing turns."""
    assert support(Polynomial(GaussianMixture([[0.0]], 0.5), degree), 0.05) == (
        -math.inf,
        math.inf,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: support(p, 80.0, 0.02), "noise levels from 0.02 down to 80.0"),
        (lambda p: escaping(p, -10.0), "far is -10.0"),
        (lambda p: carried(p, torch.zeros(1), 1.0, 1.0), "start and end are 1.0"),
        (lambda p: escaping_along(p, torch.ones(3, 2), 10.0), r"directions have shape \(3, 2\)"),
        (lambda p: escaping_along(p, torch.zeros(1, 1), 10.0), "none of length 0"),
        (lambda p: escaping_along(p, torch.ones(1, 1), 0.0), "far is 0.0"),
        (lambda p: first_order(WIDE, 3, torch.zeros(4)), "y has shape"),
        (lambda p: cumulant(swiss_roll(), 3), "directions are missing"),
    ],
)
def test_what_is_no_level_distance_or_point_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Polynomial(WIDE, 3))


@pytest.mark.theorem("prop-escape-plane")
def test_starts_in_many_dimensions_lie_far_out():
    """The flow of N(0, I) takes a start sigma_max r u to about r u, and r is near the root of d."""
    d = 100
    normal = LinearDenoiser.from_moments(torch.zeros(d), torch.eye(d))
    axis = torch.eye(d)[:1]
    found = float(escaping_along(normal, axis, 9.0))
    assert found == pytest.approx(chi(d).sf(9.0), abs=0.02)
