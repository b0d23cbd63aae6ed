"""A manifold's reach, DDPM as a perturbed descent, gradient estimation and its gamma, against
quadrature, draws and brute force; schedulers of diffusers as samplers."""

import itertools
import math

import diffusers
import pytest
import torch
from nets import noise

from helpers import sampling
from helpers.denoisers import GaussianMixture, LinearDenoiser
from helpers.systems.permenter_yuan import descent, rivals
from helpers.systems.permenter_yuan.projection import Projection, step_bounds

# diffusers' own, of NumPy's future
pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")
LEVELS = sampling.log_linear(13, 0.05, 20.0)[:-1]
ONE = torch.zeros(1, 8, dtype=torch.float64)


def quadrature(surface, y, sigma):
    """Mean square of x - proj(y) and the length of its mean, under the posterior of points with equal
    weights."""
    weights = (-torch.cdist(y, surface).square() / (2 * sigma**2)).softmax(1)
    nearest = surface[torch.cdist(y, surface).argmin(1)]
    square = (weights * torch.cdist(nearest, surface).square()).sum(1)
    return square, (weights @ surface - nearest).norm(dim=1)


@pytest.mark.theorem("thm-reach")
@pytest.mark.parametrize("sigma", [0.05, 0.2, 1.0])
def test_the_bound_of_the_reach_on_a_sphere_and_a_torus(sigma):
    """Areas of caps: s^2 / 4 of the sphere of radius 1; on the torus of two circles of radius 1
    between (s / pi)^2 / 2 and s^2 / 4."""
    i = torch.arange(40_000, dtype=torch.float64) + 0.5
    height, turn = 1 - i / 20_000, math.pi * (1 + 5**0.5) * i
    ring = (1 - height**2).sqrt()
    sphere = torch.stack([ring * turn.cos(), ring * turn.sin(), height], 1)
    angle = torch.arange(200, dtype=torch.float64) * math.pi / 100
    pairs = torch.cartesian_prod(angle, angle)
    torus = torch.stack([f(pairs[:, j]) for j in (0, 1) for f in (torch.cos, torch.sin)], 1)
    for surface, ratio, within in ((sphere, 1.0, 2.0), (torus, math.pi**2 / 2, 2.0)):
        base = surface[::4001]
        for distance in (0.3, 0.8):  # inwards along the normal; on the torus that of one circle
            normal = base.clone()
            normal[:, 2:] *= float(len(base[0]) == 3)
            y = base - distance * normal
            square, mean = quadrature(surface, y, sigma)
            r = torch.full((len(y),), distance, dtype=torch.float64)
            bound = descent.reach_bound(sigma, r, 1.0, 2, ratio, within)
            assert (square.sqrt() <= bound * r).all() and (mean <= bound * r).all()
            if ratio == 1 and sigma == 0.05 and distance == 0.3:  # and it is no idle one
                assert (2.5 * square.sqrt() > bound * r).all()


@pytest.mark.theorem("thm-ddpm")
@pytest.mark.parametrize("error", [-0.3, 0.0, 0.3])
def test_mean_square_distance_of_ancestral_sampling(error):
    """Equal for the denoiser that never goes far enough to one point; below for the other."""
    y = LEVELS[0] * noise(20_000, 8, dtype=torch.float64)
    bounds = descent.mean_square_bounds(LEVELS, abs(error))
    for state, bound in zip(
        sampling.reverse_sde(Projection(ONE, error), y, LEVELS), bounds[1:], strict=True
    ):
        u = float(state.y.square().mean() / state.sigma**2)
        assert u <= 1.02 * float(bound)
        assert (abs(u / float(bound) - 1) < 0.02) == (error >= 0)


@pytest.mark.theorem("thm-ddpm")
def test_ancestral_sampling_forgets_its_errors_and_ddim_adds_them_up():
    for eta, steps in ((0.1, 4000), (0.3, 8000)):
        levels = torch.logspace(4, -4, steps, dtype=torch.float64)
        bounds = descent.mean_square_bounds(levels, eta)
        assert float(bounds[-1]) == pytest.approx(1 / (1 - 2 * eta), rel=0.02)
        drift = step_bounds(levels, eta)[1][-1] * levels[0] / levels[-1]
        assert float(drift) == pytest.approx(float((levels[0] / levels[-1]) ** eta), rel=0.1)


@pytest.mark.theorem("thm-ddpm")
def test_an_ancestral_step_is_a_longer_descent_and_noise():
    y, law = noise(5, 2, dtype=torch.float64), GaussianMixture([[-1.0, 0.5], [1.0, 0.0]], 0.3)
    s, t = 2.0, 1.2
    below = t**2 / s  # t is the geometric mean of s and the level to which the step descends
    x_hat = law(y, s)
    descended = y - (1 - below / s) * (y - x_hat)
    added = next(sampling.reverse_sde(law, y, torch.tensor([s, t]).double())).y - descended
    z = next(sampling.reverse_sde(lambda y, _: y, y, torch.tensor([s, t]).double())).y - y
    assert torch.allclose(added, z, atol=1e-6)
    assert math.sqrt(t**2 - below**2) == pytest.approx(t * math.sqrt(1 - (t / s) ** 2))


@pytest.mark.theorem("thm-estimation")
@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
@pytest.mark.parametrize("error", [-0.02, 0.02])
def test_gradient_estimation_stays_within_its_bounds(gamma, error):
    levels = sampling.log_linear(13, 1.0, 20.0)[:-1]
    low, high = descent.estimation_bounds(levels, abs(error), gamma)
    y = noise(1, 8, dtype=torch.float64)
    path = sampling.trajectory(
        y, sampling.gradient_estimation(Projection(ONE, error), y, levels, gamma)
    )
    u = path.norm(dim=2)[:, 0] / y.norm() * levels[0] / levels
    assert (low <= u + 1e-12).all() and (u <= high + 1e-12).all()
    if gamma == 1 and error > 0:
        assert torch.allclose(high, u, rtol=1e-9)
        above = step_bounds(levels, error)[1] * levels[0] / levels
        assert torch.allclose(high, above, rtol=1e-9)
    assert float(descent.estimation_bounds(levels, 0.0, gamma)[1][-1]) == 1


@pytest.mark.theorem("thm-estimation")
def test_the_worst_signs_come_near_the_bounds():
    """All signs of the errors of six steps."""
    levels, ends = sampling.log_linear(7, 1.0, 20.0)[:-1], []
    for signs in itertools.product((-0.05, 0.05), repeat=6):
        errors = iter(signs)
        y = torch.ones(1, 1, dtype=torch.float64)
        end = sampling.last(
            sampling.gradient_estimation(lambda y, _, e=errors: next(e) * y, y, levels)
        )
        ends.append(float(end * levels[0] / levels[-1]))
    low, high = descent.estimation_bounds(levels, 0.05)
    assert float(low[-1]) <= min(ends) and max(ends) <= float(high[-1])
    assert max(ends) - 1 > 0.6 * float(high[-1] - 1) and 1 - min(ends) > 0.6 * float(1 - low[-1])


@pytest.mark.theorem("prop-weighted")
def test_best_gamma_is_the_minimum_in_the_weighted_norm():
    now, before = noise(40, 3, dtype=torch.float64), 2 * noise(40, 3, seed=1, dtype=torch.float64)
    before = before + now
    tried = torch.linspace(-1, 3, 4001, dtype=torch.float64)
    brute = tried[
        int(torch.stack([(g * now + (1 - g) * before).square().sum() for g in tried]).argmin())
    ]
    assert descent.best_gamma(now, before) == pytest.approx(float(brute), abs=1e-3)
    pair = torch.stack([now.flatten(), before.flatten()])
    weight = torch.linalg.inv(pair @ pair.T / pair.shape[1])  # the minimiser of (e, e') W (e, e')
    gamma = float(weight[0].sum() / weight.sum())
    assert descent.best_gamma(now, before) == pytest.approx(gamma, rel=1e-9)
    for q in (0.5, 0.9):  # an error that shrinks by q without turning
        assert descent.best_gamma(q * now, now) == pytest.approx(1 / (1 - q))


@pytest.mark.theorem("prop-golden")
@pytest.mark.parametrize("ratio", [0.3, (5**0.5 - 1) / 2, 0.9])
def test_high_noise_gamma_by_the_exact_flow_of_a_gaussian(ratio):
    """The exact flow is y sqrt((1 + t^2) / (1 + s^2)); the gamma that hits it, from high levels."""
    s = torch.tensor([1.0, ratio, ratio**2], dtype=torch.float64) * 1e4
    y = (1 + s**2).sqrt()
    eps = s / (1 + s**2) * y
    ideal = (y[1] - y[2]) / (s[1] - s[2])
    exact = float(1 + (ideal - eps[1]) / (eps[1] - eps[0]))
    assert descent.high_noise_gamma(ratio) == pytest.approx(exact, abs=1e-4)


# Rivals -------------------------------------------------------------------------------------------

RIVALS = {
    "PNDM": lambda: diffusers.PNDMScheduler(skip_prk_steps=True, set_alpha_to_one=True),
    "DPM-Solver++": diffusers.DPMSolverMultistepScheduler,
    "DEIS": diffusers.DEISMultistepScheduler,
    "UniPC": diffusers.UniPCMultistepScheduler,
}
LAW = GaussianMixture([[-1.0, 0.5], [1.0, 0.0]], 0.3)
START = noise(200, 2, dtype=torch.float64)


def test_the_adapter_takes_ddims_steps():
    theirs = diffusers.DDIMScheduler(clip_sample=False)
    levels = sampling.ddim_linear(20)
    ours = list(sampling.euler(LAW, levels[0] * START, levels))
    for mine, state in zip(ours, rivals.scheduled(theirs, LAW, START, 20), strict=True):
        assert torch.allclose(mine.y, state.y, atol=2e-3 * mine.sigma + 1e-5)
        assert mine.sigma == pytest.approx(state.sigma, rel=2e-3)
        assert torch.allclose(mine.x_hat, state.x_hat, atol=1e-3)


@pytest.mark.parametrize("name", RIVALS)
def test_rivals_call_as_often_as_they_say_and_solve_the_flow(name):
    calls = []

    def counted(y, sigma):
        calls.append(float(sigma))
        return LAW(y, float(sigma))

    exact = sampling.last(sampling.heun(LAW, 80 * START, sampling.edm(100)))
    found = {}
    for evaluations in (5, 40):
        calls.clear()
        end = sampling.last(rivals.scheduled(RIVALS[name](), counted, START, evaluations))
        assert len(calls) == evaluations
        found[evaluations] = float((end - exact).norm(dim=1).median())
    assert found[40] < 0.1 * found[5] and found[40] < 0.03


def test_half_the_unit_is_half_the_levels_and_half_the_points():
    small = LinearDenoiser(torch.zeros(2).double(), torch.eye(2).double(), torch.ones(2).double())
    half = LinearDenoiser(
        torch.zeros(2).double(), torch.eye(2).double(), torch.ones(2).double() / 4
    )
    ends = [
        sampling.last(rivals.scheduled(RIVALS["UniPC"](), denoiser, START, 6, unit))
        for denoiser, unit in ((small, 1.0), (half, 0.5))
    ]
    assert torch.allclose(ends[0], 2 * ends[1], atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: descent.reach_bound(0.1, torch.ones(1), 1.0, 2), "the reach 1.0"),
        (lambda: descent.mean_square_bounds(LEVELS, 1.0), "eta is 1.0"),
        (lambda: descent.best_gamma(ONE, ONE), "two that differ"),
        (lambda: descent.high_noise_gamma(1.0), "ratio is 1.0"),
        (
            lambda: next(
                rivals.scheduled(diffusers.DDIMScheduler(prediction_type="sample"), LAW, START, 5)
            ),
            "'sample'",
        ),
        (lambda: next(rivals.scheduled(RIVALS["DEIS"](), LAW, START, 5, -1.0)), "unit is -1.0"),
    ],
)
def test_bad_input_says_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
