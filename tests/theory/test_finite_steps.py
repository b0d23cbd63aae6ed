"""What finite steps do to each sampler's law: closed forms against the samplers themselves, and
orders of convergence."""

import math

import pytest
import torch

from helpers import finite_steps, sampling
from helpers.denoisers import GaussianMixture, LinearDenoiser
from helpers.denoisers.linear import flow_variance

VARIANCES = torch.tensor([30, 1, 0.1, 0.01, 0.001], dtype=torch.float64)
GAUSSIAN = LinearDenoiser(torch.zeros(5).double(), torch.eye(5).double(), VARIANCES)
LINEAR = {
    "heun": (finite_steps.heun_variance, {}),
    "gradient_estimation": (finite_steps.gradient_estimation_variance, {"gamma": 1.7}),
}
NOISY = {
    "reverse_sde": (finite_steps.reverse_sde_variance, {}),
    "langevin": (finite_steps.langevin_variance, {"corrections": 3, "rate": 0.3}),
}


@pytest.mark.theorem("prop-07-samplers")
@pytest.mark.parametrize("schedule", [sampling.edm(7), sampling.log_linear(12), sampling.edm(1)])
@pytest.mark.parametrize("name", LINEAR)
def test_deterministic_samplers_by_following_one_deviation(name, schedule):
    closed, options = LINEAR[name]
    start = schedule[0] * torch.eye(5).double()
    end = sampling.last(getattr(sampling, name)(GAUSSIAN, start, schedule, **options))
    assert torch.allclose(end.diagonal() ** 2, closed(VARIANCES, schedule, **options), rtol=1e-9)


@pytest.mark.theorem("prop-07-samplers")
@pytest.mark.parametrize("name", NOISY)
def test_noisy_samplers_by_the_variance_of_many_draws(name):
    """Five standard errors of a sample variance; the wrong sampler's formula is farther away."""
    schedule, n = sampling.log_linear(6, 0.02, 20.0), 40_000
    start = sampling.initial_noise(n, 5, sigma=20.0)
    closed, options = NOISY[name]
    end = sampling.last(getattr(sampling, name)(GAUSSIAN, start, schedule, **options))
    allowed = 5 * math.sqrt(2 / n)
    ratio = end.var(0) / closed(VARIANCES, schedule, **options)
    assert ((ratio - 1).abs() < allowed).all()
    other, its = NOISY["langevin" if name == "reverse_sde" else "reverse_sde"]
    wrong = end.var(0) / other(VARIANCES, schedule, **its)
    assert ((wrong - 1).abs() > allowed).all()


@pytest.mark.theorem("prop-07-samplers")
def test_langevin_is_held_too_wide_and_ancestral_sampling_too_narrow():
    levels = torch.tensor([0.5, 0.4999999], dtype=torch.float64)
    held = finite_steps.langevin_variance(VARIANCES, levels, corrections=4000, rate=0.2)
    m = 0.25 / (VARIANCES + 0.25)
    assert torch.allclose(held, (VARIANCES + 0.25) / (1 - 0.1 * m), rtol=1e-5)
    for steps in (3, 30, 300):
        made = finite_steps.reverse_sde_variance(VARIANCES, sampling.edm(steps))
        assert (made < VARIANCES).all()


@pytest.mark.theorem("prop-07-alike", "prop-gamma")
@pytest.mark.parametrize(
    ("closed", "expected"),
    [
        (flow_variance, -0.5),
        (finite_steps.heun_variance, 0.0),
        (finite_steps.reverse_sde_variance, -1.0),
        (lambda v, s: finite_steps.gradient_estimation_variance(v, s, 1.5), 0.0),
        (lambda v, s: finite_steps.gradient_estimation_variance(v, s, 2.0), 0.5),
    ],
)
def test_on_geometric_levels_all_directions_change_alike(closed, expected):
    """The coefficient of delta, extrapolated from two step lengths."""
    variances = torch.tensor([25.0, 1.0, 0.04], dtype=torch.float64)
    found = []
    for steps in (1600, 3200):
        delta = math.log(1e8) / steps
        levels = 1e4 * torch.exp(-delta * torch.arange(steps + 1, dtype=torch.float64))
        levels = torch.cat([levels, torch.zeros(1).double()])
        found.append((closed(variances, levels) / variances - 1) / delta)
    limit = 2 * found[1] - found[0]
    assert torch.allclose(limit, torch.full((3,), expected).double(), atol=2e-3)


def errors(gamma, schedule, counts):
    y = sampling.initial_noise(40, 2, sigma=1.0)
    target = GaussianMixture([[-1.0, 0.5], [1.0, 0.0], [0.3, -1.0]], 0.3)
    found = []
    for steps in counts:
        levels = schedule(steps)
        start = levels[0] * y
        exact = sampling.last(sampling.heun(target, start, schedule(8 * steps)))
        made = sampling.last(sampling.gradient_estimation(target, start, levels, gamma))
        found.append(made - exact)
    return found


def smooth(steps):
    """sigma_i = g(i / steps) for a smooth g, from 20 to 0.5: no last step that the rule spoils."""
    return sampling.edm(steps + 1, 0.5, 20.0)[:-1]


@pytest.mark.theorem("prop-gamma")
@pytest.mark.parametrize(("gamma", "order"), [(1.0, 1), (1.3, 1), (1.5, 2), (2.0, 1)])
def test_gamma_three_halves_alone_is_of_second_order_on_smooth_schedules(gamma, order):
    coarse, fine = (e.norm(dim=1).median() for e in errors(gamma, smooth, (60, 120)))
    assert float(torch.log2(coarse / fine)) == pytest.approx(order, abs=0.25)


@pytest.mark.theorem("prop-gamma")
def test_leading_errors_are_proportional_to_gamma_less_three_halves():
    (one,), (two,) = (errors(gamma, smooth, (160,)) for gamma in (1.0, 2.0))
    opposite = ((one + two).norm(dim=1) / (one - two).norm(dim=1)).median()
    assert float(opposite) < 0.05


@pytest.mark.theorem("prop-gamma")
def test_on_geometric_levels_the_second_order_gamma_is_one_and_half_the_ratio():
    """Adams and Bashforth's weights integrate a linear function exactly."""

    def straight(y, sigma):
        return y - sigma * (2 + 3 * sigma)  # the noise that it sees is 2 + 3 sigma

    for ratio in (0.9, 0.3):
        levels = ratio ** torch.arange(4, dtype=torch.float64)
        integral = 2 * levels + 1.5 * levels**2
        start = integral[:1, None]
        *_, end = sampling.gradient_estimation(straight, start, levels, 1 + ratio / 2)
        first = 1.5 * (levels[0] - levels[1]) ** 2  # lost by Euler's first step
        assert float(end.y) == pytest.approx(float(integral[3] - first), abs=1e-12)


def test_negative_variances_are_refused():
    with pytest.raises(ValueError, match="a variance is -1"):
        finite_steps.heun_variance(torch.tensor([1.0, -1.0]), sampling.edm(3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: finite_steps.langevin_variance(v, sampling.edm(5), rate=30.0), "rate is 30.0"),
        (
            lambda v: finite_steps.langevin_variance(v, sampling.edm(5), corrections=-1),
            "corrections is -1",
        ),
        (lambda v: finite_steps.heun_variance(torch.tensor([10, 1]), sampling.edm(5)), "float32"),
        (lambda v: finite_steps.heun_variance(v.half(), sampling.edm(5)), "float16: pass float32"),
        (lambda v: finite_steps.heun_variance(v, sampling.edm(5).flip(0)), "decreases strictly"),
    ],
)
def test_what_a_sampler_refuses_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(2).double())
