"""The same thing computed in two ways: closed form, Monte Carlo and autograd; our samplers and two
libraries'."""

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import diffusers
import pytest
import torch

from helpers import density, metrics, sampling, training
from helpers.data import TARGETS, moons, ring, three_points
from helpers.denoisers import (
    MLP,
    Denoiser,
    GaussianMixture,
    LinearConvolution,
    LinearDenoiser,
    PerLevelMLP,
    Polynomial,
    PosteriorMean,
    ProjectedDenoiser,
    RandomFeatures,
    score,
)
from helpers.training import Recipe


def smalldiffusion_file():
    """smalldiffusion's diffusion.py alone: its package also loads data sets and networks, and with
    them torchvision."""
    folder = Path(importlib.util.find_spec("smalldiffusion").origin).parent
    spec = importlib.util.spec_from_file_location("smalldiffusion_file", folder / "diffusion.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


smalldiffusion = smalldiffusion_file()
EXACT = sorted(set(TARGETS) - {"pinwheel"})  # the targets that know their Bayes denoiser
CORRELATED = GaussianMixture(
    [[-1.0, 0.5], [1.0, 0.0]], covariances=[[[0.5, 0.3], [0.3, 0.4]], [[0.1, 0.0], [0.0, 0.9]]]
)


def points(n, d=2, seed=0, scale=1.5):
    return scale * torch.randn(
        n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


# Closed form = Monte Carlo = autograd -------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.5, 2.0])
@pytest.mark.parametrize("name", EXACT)
def test_bayes_denoiser_is_the_posterior_mean_of_many_draws(name, sigma):
    target, y = TARGETS[name](), points(12, seed=1)
    x = target.sample(50_000, seed=2)
    w = torch.softmax(-torch.cdist(y, x).square() / (2 * sigma**2), dim=1)
    estimate = w @ x
    # of a ratio of two means
    error = torch.sqrt(torch.einsum("bn,bnd->bd", w**2, (x - estimate[:, None]) ** 2))
    assert ((target(y, sigma) - estimate).abs() < 5 * error + 1e-12).all()
    assert error.median() < 0.02


@pytest.mark.theorem("thm-tweedie")
@pytest.mark.parametrize("sigma", [0.02, 0.3, 5.0])
@pytest.mark.parametrize("name", EXACT)
def test_tweedie(name, sigma):
    """sigma^2 grad log p_sigma, by autograd, is D - y."""
    target, y = TARGETS[name](), points(40).requires_grad_()
    (gradient,) = torch.autograd.grad(target.log_prob(y, sigma).sum(), y)
    assert torch.allclose(target(y, sigma) - y, sigma**2 * gradient, atol=1e-9)
    assert torch.allclose(score(target, y, sigma), gradient, atol=1e-9 / sigma**2)


@pytest.mark.parametrize("sigma", [0.2, 1.0])
@pytest.mark.parametrize(
    "target", [*(TARGETS[n]() for n in EXACT), CORRELATED, PosteriorMean(points(9))]
)
def test_jacobian_of_a_bayes_denoiser_is_a_covariance(target, sigma):
    jacobian, x_hat = density.jacobian_and_estimate(target, points(30), sigma)
    assert torch.allclose(jacobian, jacobian.mT, atol=1e-9)
    assert torch.linalg.eigvalsh(jacobian).min() > -1e-9
    assert torch.equal(x_hat, target(points(30), sigma).detach())


@pytest.mark.theorem("thm-covariance")
def test_jacobian_is_the_posterior_covariance_over_sigma_squared():
    x, y, sigma = points(9), points(20, seed=1), 0.7
    target = PosteriorMean(x)
    centred = x - target(y, sigma)[:, None]
    covariance = torch.einsum("bn,bni,bnj->bij", target.weights(y, sigma), centred, centred)
    jacobian, _ = density.jacobian_and_estimate(target, y, sigma)
    assert torch.allclose(jacobian, covariance / sigma**2, atol=1e-10)


@pytest.mark.theorem("lem-wiener")
@pytest.mark.parametrize("denoiser", [LinearDenoiser, 1, 2, 3])
def test_fitted_denoisers_are_regressions_on_noisy_samples(denoiser):
    sigma, n, target = 0.8, 200_000, three_points()
    x = target.sample(n)
    y = x + sigma * points(n, seed=1, scale=1.0)
    k = 1 if denoiser is LinearDenoiser else denoiser
    phi = torch.stack(
        [y[:, 0] ** a * y[:, 1] ** b for a in range(k + 1) for b in range(k + 1 - a)], 1
    )
    solution = torch.linalg.lstsq(phi, x)
    by_regression = phi @ solution.solution
    exact = (
        Polynomial(target, k)
        if k == denoiser
        else LinearDenoiser.from_moments(target.mean, target.covariance)
    )
    gap = (exact(y, sigma) - by_regression).square().mean()
    # the mean square of a least squares error: noise variance times features over samples; four
    # times that at most
    assert gap < 4 * (by_regression - x).square().mean() * phi.shape[1] / n


def test_gradient_fit_is_the_best_gradient():
    """The potential's coefficients by regression on noisy samples, E ||grad psi||^2 - 2 <x - y,
    grad psi> minimised."""
    sigma, n, target = 0.8, 100_000, three_points()
    x = target.sample(n)
    y = x + sigma * points(n, seed=1, scale=1.0)
    powers = [(a, b) for a in range(4) for b in range(4 - a) if a + b]
    g = torch.stack(
        [
            torch.stack(
                [
                    a * y[:, 0] ** max(a - 1, 0) * y[:, 1] ** b,
                    b * y[:, 0] ** a * y[:, 1] ** max(b - 1, 0),
                ],
                1,
            )
            for a, b in powers
        ],
        -1,
    )
    rows = g.flatten(0, 1)
    by_regression = y + (
        rows @ torch.linalg.lstsq(rows, (x - y).flatten()[:, None]).solution
    ).view_as(y)
    exact = Polynomial(target, 2, gradient=True)
    gap = (exact(y, sigma) - by_regression).square().mean()
    assert gap < 4 * (by_regression - x).square().mean() * len(powers) / (2 * n)
    jacobian, _ = density.jacobian_and_estimate(exact, y[:20], sigma)
    assert torch.allclose(jacobian, jacobian.mT, atol=1e-10)
    free, _ = density.jacobian_and_estimate(Polynomial(target, 2), y[:20], sigma)
    assert not torch.allclose(free, free.mT, atol=1e-3)
    z = y[:20].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(exact.potential(z, sigma).sum(), z)
    assert torch.allclose(score(exact, z, sigma), gradient, atol=1e-10)


@pytest.mark.theorem("thm-weights")
@pytest.mark.parametrize("name", ["mlp", "network per level"])
def test_training_approaches_the_bayes_denoiser(name):
    """A short training on a Gaussian leaves 5% at most of the distance from doing nothing to
    Wiener's filter."""
    x, sigma = points(2000) * torch.tensor([1.0, 0.3]), 1.0
    if name == "mlp":
        denoiser = MLP(32, depth=2)
        losses = training.run(training.train(denoiser, x, Recipe(steps=800, rate=1e-2)))
    else:
        denoiser = PerLevelMLP(torch.tensor([3.0, sigma]), code=2)
        losses = training.run(
            training.train_levels(denoiser, x, Recipe(steps=400, batch=256, rate=1e-2))
        )
    assert sum(losses[-50:]) < sum(losses[:50])
    y = x + sigma * points(2000, seed=1, scale=1.0)
    best = LinearDenoiser.from_points(x)(y, sigma)
    gap = (denoiser(y, sigma) - best).square().mean() / (y - best).square().mean()
    assert gap < 0.05


# One denoiser in the form of another --------------------------------------------------------------

SIX, STD = points(6), torch.linspace(0, 0.5, 6, dtype=torch.float64)
SAME = {
    "point masses and posterior mean": (GaussianMixture(SIX), PosteriorMean(SIX)),
    "isotropic and general mixture": (
        GaussianMixture(SIX, STD),
        GaussianMixture(SIX, covariances=STD[:, None, None] ** 2 * torch.eye(2)),
    ),
    "degree 1 and Wiener": (Polynomial(SIX, 1), LinearDenoiser.from_points(SIX)),
    "degree 1 of a correlated mixture and Wiener": (
        Polynomial(CORRELATED, 1),
        LinearDenoiser.from_moments(CORRELATED.mean, CORRELATED.covariance),
    ),
    "points and moments": (
        LinearDenoiser.from_points(SIX),
        LinearDenoiser.from_moments(SIX.mean(0), torch.cov(SIX.T, correction=0)),
    ),
    "one Gaussian and Wiener": (
        GaussianMixture(CORRELATED.mean[None], covariances=CORRELATED.covariance[None]),
        LinearDenoiser.from_moments(CORRELATED.mean, CORRELATED.covariance),
    ),
    "projection of full rank and Bayes": (ProjectedDenoiser(CORRELATED, 2), CORRELATED),
    "projection of points of full rank and Bayes": (ProjectedDenoiser(SIX, 2), PosteriorMean(SIX)),
    "projection of a Gaussian and truncated Wiener": (
        ProjectedDenoiser(
            GaussianMixture(CORRELATED.mean[None], covariances=CORRELATED.covariance[None]), 1
        ),
        LinearDenoiser.from_moments(CORRELATED.mean, CORRELATED.covariance).truncated(1),
    ),
    "one barycentre of shifts that are 0": (
        PosteriorMean(SIX, smoothing=0.3, shifts=1),
        PosteriorMean(SIX),
    ),
    "no smoothing": (PosteriorMean(SIX, smoothing=1e-12), PosteriorMean(SIX)),
}


@pytest.mark.parametrize("name", SAME)
def test_two_forms_of_one_denoiser(name):
    a, b = SAME[name]
    for sigma in (0.05, 0.6, 30.0):
        assert torch.allclose(a(points(15, seed=3), sigma), b(points(15, seed=3), sigma), atol=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_gradients_are_all_polynomials_in_one_dimension(k):
    target, y = GaussianMixture([[-1.0], [1.5]], 0.3, [0.3, 0.7]), points(20, 1)
    for sigma in (0.1, 1.0, 10.0):
        free, gradient = Polynomial(target, k), Polynomial(target, k, gradient=True)
        assert torch.allclose(free(y, sigma), gradient(y, sigma), atol=1e-8)


def test_smoothing_averages_over_shifts_of_the_scaled_input():
    """Scarvelis, Borde and Solomon's form: z = t y with t = 1/(1 + sigma), shifted by s u_m."""
    denoiser, plain = PosteriorMean(SIX, smoothing=0.3, shifts=5), PosteriorMean(SIX)
    y, sigma = points(8, seed=4), 0.4
    assert denoiser.shifts.mean(0).abs().max() < 1e-6
    z = y / (1 + sigma)
    shifted = [plain((z + 0.3 * u) * (1 + sigma), sigma) for u in denoiser.shifts.double()]
    assert torch.allclose(denoiser(y, sigma), torch.stack(shifted).mean(0), atol=1e-10)
    end = sampling.last(
        sampling.heun(denoiser, sampling.initial_noise(30, 2, sigma=80), sampling.edm(60))
    )
    tuples = torch.cartesian_prod(*[torch.arange(6)] * 5)  # it ends at barycentres of 5-tuples
    assert metrics.nearest(end, SIX[tuples].mean(1), k=1)[0].max() < 1e-6


FAMILIES = {
    "mixture": ring(),
    "correlated mixture": CORRELATED,
    "checkerboard": TARGETS["checkerboard"](),
    "posterior mean": PosteriorMean(SIX),
    "smoothed": PosteriorMean(SIX, 0.2),
    "linear": LinearDenoiser.from_points(SIX),
    "polynomial": Polynomial(ring(), 3),
    "gradient": Polynomial(ring(), 3, gradient=True),
    "random features": RandomFeatures(ring(), 30),
    "projected": ProjectedDenoiser(SIX, 1),
    "convolution": LinearConvolution(torch.tensor([2.0, 1.0]), 1),
    "mlp": MLP(16),
    "network per level": PerLevelMLP(torch.tensor([3.0, 0.5, 0.1])),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_float32_agrees_with_float64(name):
    denoiser, y = FAMILIES[name], points(50, seed=5)
    for sigma in (0.1, 1.0, 10.0):
        exact, single = denoiser(y, sigma), denoiser(y.float(), sigma)
        assert exact.dtype == torch.float64 and single.dtype == torch.float32
        assert torch.allclose(single.double(), exact, rtol=1e-4, atol=2e-4)


# Schedules and steps of diffusers and smalldiffusion ----------------------------------------------

BETAS = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)


def test_schedules_of_diffusers():
    linear = dict(beta_schedule="linear", beta_start=1e-4, beta_end=0.02, num_train_timesteps=1000)
    for steps in (1, 10, 50, 333, 1000):
        theirs = diffusers.DDIMScheduler(**linear)
        theirs.set_timesteps(steps)
        levels = sampling.vp_to_ve(theirs.alphas_cumprod.double()[theirs.timesteps])
        # they compute in float32, which leaves 1 - a only three digits at the first training steps
        assert torch.allclose(sampling.ddim_linear(steps)[:-1], levels, rtol=2e-3)
        assert torch.allclose(
            sampling.ddim_linear(steps)[:-1], exact_levels(theirs.timesteps), rtol=1e-12
        )

        edm = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0)
        edm.set_timesteps(steps)
        assert torch.allclose(sampling.edm(steps), edm.sigmas.double(), rtol=1e-5)


def test_ddim_steps_are_spread_over_all_training_steps():
    """501 steps of 1000 are as evenly spread as 500, to a training step, and start as high."""
    first = [float(sampling.ddim_linear(steps)[0]) for steps in (500, 501, 999, 1000)]
    assert min(first) > 0.95 * max(first)
    every = sampling.ddim_linear(1000)[:-1].flip(0)
    for steps in (7, 300, 501, 999):
        times = torch.searchsorted(every, sampling.ddim_linear(steps)[:-1].flip(0))
        assert set(times.diff().tolist()) <= {1000 // steps, 1000 // steps + 1} and times[0] == 0


def exact_levels(times):
    return sampling.vp_to_ve(torch.cumprod(1 - BETAS, 0)[times])


def test_cosine_schedule_of_diffusers():
    """Nichol and Dhariwal's offset .008 makes time t = (i + 8)/1008, so ours from t = 1007/1008
    runs through theirs.

    Their a is divided by cos^2(.008 pi / 2.016), so that it is 1 at i = 0: multiplied back here.
    """
    theirs = diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", num_train_timesteps=1000)
    a = theirs.alphas_cumprod.double()[:999].flip(0) * math.cos(math.pi / 2 * 8 / 1008) ** 2
    ours = sampling.cosine_vp(1007, math.tan(math.pi / 2 * 1007 / 1008))
    assert torch.allclose(ours[:999], sampling.vp_to_ve(a), rtol=1e-3)


def test_schedules_of_smalldiffusion():
    theirs = smalldiffusion.ScheduleLogLinear(40, sigma_min=0.002, sigma_max=80.0)
    assert torch.allclose(sampling.log_linear(40)[:-1], theirs.sigmas.double().flip(0), rtol=1e-5)
    theirs = smalldiffusion.ScheduleDDPM(1000)
    assert torch.allclose(
        sampling.ddim_linear(1000)[:-1], theirs.sigmas.double().flip(0), rtol=2e-3
    )


class Wave(Denoiser):
    """Nothing like a denoiser: two samplers that agree on it agree in every coefficient."""

    def estimate(self, y, sigma):
        return torch.sin(y + 1.7 * sigma) - 0.3 * y.flip(1)


@pytest.mark.theorem("prop-ddim")
@pytest.mark.parametrize("denoiser", [Wave(), ring()])
@pytest.mark.parametrize(
    ("ours", "scheduler"), [("euler", "DDIMScheduler"), ("reverse_sde", "DDPMScheduler")]
)
def test_steps_of_diffusers_in_vp(denoiser, ours, scheduler):
    theirs = getattr(diffusers, scheduler)(
        beta_schedule="linear",
        beta_start=1e-4,
        beta_end=0.02,
        clip_sample=False,
        prediction_type="sample",
    )
    # in float64, so that a step can be compared to ten digits
    theirs.alphas_cumprod = torch.cumprod(1 - BETAS, 0)
    theirs.set_timesteps(20)
    schedule = sampling.ddim_linear(20)
    to_vp = 1 / torch.sqrt(1 + schedule**2)  # x_t = sqrt(a) y
    y = sampling.initial_noise(7, 2, sigma=float(schedule[0]), seed=1)
    x_t = to_vp[0] * y
    random = ours == "reverse_sde"
    noise = {"generator": sampling._on_the_way(3)} if random else {}
    states = getattr(sampling, ours)(denoiser, y, schedule, **({"seed": 3} if random else {}))
    for i, (state, t) in enumerate(zip(states, theirs.timesteps, strict=True)):
        x_hat = denoiser(x_t / to_vp[i], schedule[i])
        x_t = theirs.step(x_hat, t, x_t, **noise).prev_sample
        assert torch.allclose(to_vp[i + 1] * state.y, x_t, atol=1e-9), i
        assert torch.allclose(state.x_hat, x_hat, atol=1e-9)


@pytest.mark.parametrize("denoiser", [Wave(), ring()])
def test_euler_steps_of_diffusers_in_ve(denoiser):
    theirs = diffusers.EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0)
    theirs.set_timesteps(15)
    x = sampling.initial_noise(7, 2, sigma=80, dtype=torch.float32)
    states = sampling.euler(denoiser, x, theirs.sigmas)
    for state, t, sigma in zip(states, theirs.timesteps, theirs.sigmas[:-1], strict=True):
        # theirs wants to be asked; the denoiser scales its own input
        theirs.scale_model_input(x, t)
        x = theirs.step(x, t, x, pred_original_sample=denoiser(x, sigma)).prev_sample
        assert torch.allclose(state.y, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("denoiser", [Wave(), ring()])
@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_heun_steps_of_diffusers(denoiser):
    theirs = diffusers.HeunDiscreteScheduler(use_karras_sigmas=True, prediction_type="sample")
    theirs.set_timesteps(15)
    levels = torch.cat([theirs.sigmas[::2], torch.zeros(1)])  # it lists every inner level twice
    x = sampling.initial_noise(7, 2, sigma=float(levels[0]), dtype=torch.float32)
    states = sampling.heun(denoiser, x, levels)
    for i, t in enumerate(theirs.timesteps):
        level = theirs.sigmas[i]
        x = theirs.step(denoiser(x, level), t, x).prev_sample
        if theirs.state_in_first_order:  # both halves of a step are done
            assert torch.allclose(next(states).y, x, rtol=1e-4, atol=1e-4)
    state = next(states)  # the step to 0 is Euler's, which theirs leaves without its second half
    assert state.sigma == 0 and torch.allclose(state.y, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("denoiser", [Wave(), ring()])
@pytest.mark.parametrize(
    ("name", "gam", "mu"), [("euler", 1, 0), ("reverse_sde", 1, 0.5), ("gradient_estimation", 2, 0)]
)
def test_steps_of_smalldiffusion(denoiser, name, gam, mu):
    noise, schedule = sampling._on_the_way(5), sampling.log_linear(12, 0.02, 20)
    model = SimpleNamespace(
        eval=lambda: None,
        predict_eps_cfg=lambda x, sigma, cond, scale: (x - denoiser(x, sigma)) / sigma,
        rand_input=lambda n: torch.randn(n, 2, generator=noise, dtype=torch.float64),
    )
    y = sampling.initial_noise(7, 2, sigma=20)
    seed = {"seed": 5} if name == "reverse_sde" else {}
    ours = list(getattr(sampling, name)(denoiser, y, schedule, **seed))
    theirs = list(
        smalldiffusion.samples(model, schedule, gam=gam, mu=mu, xt=y, accelerator=object())
    )
    assert len(ours) == len(theirs) == 12
    for state, x in zip(ours, theirs, strict=True):
        assert torch.allclose(state.y, x, atol=1e-9)


# Samplers among themselves ------------------------------------------------------------------------


def test_samplers_that_coincide():
    y, schedule, target = (
        sampling.initial_noise(20, 2, sigma=20),
        sampling.log_linear(15, 0.02, 20),
        ring(),
    )

    def end(sampler, **options):
        return sampling.last(sampler(target, y, schedule, **options))

    assert torch.allclose(
        end(sampling.gradient_estimation, gamma=1.0), end(sampling.euler), atol=1e-12
    )
    assert torch.equal(
        end(sampling.langevin, corrections=0, seed=3), end(sampling.reverse_sde, seed=3)
    )
    assert not torch.allclose(end(sampling.reverse_sde, seed=3), end(sampling.reverse_sde, seed=4))
    path = sampling.trajectory(y, sampling.euler(target, y, schedule))
    assert (
        path.shape == (16, 20, 2)
        and torch.equal(path[0], y)
        and torch.equal(path[-1], end(sampling.euler))
    )


def test_the_noise_on_the_way_is_not_the_noise_of_the_start_again():
    def nothing(y, sigma):
        return torch.zeros_like(y)

    y, levels = (
        sampling.initial_noise(20_000, 2, sigma=20.0, seed=3),
        torch.tensor([20.0, 16.0, 0.0]),
    )
    for name, options in (("reverse_sde", {}), ("langevin", {"corrections": 0})):
        first = next(getattr(sampling, name)(nothing, y, levels, seed=3, **options))
        # the same noise twice would make 22.4 of it
        assert abs(float(first.y.std()) - 16) < 0.2, name
    first = next(sampling.stochastic_ascent(nothing, y, 20.0, h=0.2, beta=0.1, seed=3))
    assert abs(float(first.y.std()) - 0.98 * 20) < 0.2


@pytest.mark.theorem("prop-gamma")
def test_orders_of_convergence():
    """Halving the steps divides the error by 2 (Euler) and 4 (Heun)."""
    target, y = (
        LinearDenoiser(torch.zeros(1).double(), torch.eye(1).double(), torch.ones(1).double()),
        torch.ones(1, 1),
    )
    for sampler, order in ((sampling.euler, 1), (sampling.heun, 2)):
        errors = []
        for steps in (200, 400):
            schedule = torch.logspace(1, -1, steps + 1, dtype=torch.float64)
            exact = math.sqrt((1 + 0.1**2) / (1 + 10**2))
            errors.append(abs(float(sampling.last(sampler(target, y.double(), schedule))) - exact))
        assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.05)


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ({"beta": 1.0}, 299),
        ({"beta": 0.5}, 598),
        ({"beta": 1.0, "growing": True}, 25),
        ({"beta": 0.5, "growing": True}, 37),
        ({"beta": 0.1, "growing": True}, 97),
    ],
)
def test_stochastic_ascent_takes_the_steps_of_the_theory(options, steps):
    """With D = 0 the level contracts by 1 - beta h_t a step: known numbers of steps from 1 to .05.

    Without noise (beta = 1) exactly. The length of noise fluctuates by 1/sqrt(2 d): after 598 steps
    at d = 5000 that makes about 1% of them; four times that is allowed.
    """
    y = torch.randn(1, 5000, generator=torch.Generator().manual_seed(0))
    target = PosteriorMean(torch.zeros(1, 5000))
    *_, end = sampling.stochastic_ascent(target, y / y.square().mean().sqrt(), sigma=1.0, **options)
    assert abs(end.step - 1 - steps) <= (0 if options["beta"] == 1 else max(1, 0.05 * steps))
    assert end.sigma <= 0.05
    # h_t = h t / (1 + h (t - 1)) leaves (1 - h) / (1 + h (t - 1)) of the level
    if options["beta"] == 1:
        left = [0.99 / (1 + 0.01 * t * ("growing" in options)) for t in range(steps)]
        assert end.sigma == pytest.approx(math.prod(left), rel=1e-4)
    # the released code ends with a last denoising
    assert bool(end.y.any()) != ("growing" in options)


def test_stochastic_ascent_finds_a_training_point_and_waits_for_the_rest():
    training, y = ring().sample(5), sampling.initial_noise(20, 2, sigma=5)
    states = list(
        sampling.stochastic_ascent(PosteriorMean(training), y, sigma=5, sigma_stop=0.01, h=0.05)
    )
    assert metrics.nearest(states[-1].x_hat, training, k=1)[0].max() < 1e-6
    assert metrics.nearest(states[-1].y, training, k=1)[0].max() < 0.05
    waiting = [(a.y == b.y).all(1).sum() for a, b in zip(states, states[1:], strict=False)]
    assert 0 < waiting[-2] < 20


def test_diverged_particles_are_marked_counted_and_left_alone():
    explosive, schedule = (
        Polynomial(GaussianMixture([[-0.5], [2.0]], weights=[0.8, 0.2]), 2),
        sampling.log_linear(60),
    )
    y = sampling.initial_noise(300, 1, sigma=80)
    for name in ("euler", "heun", "reverse_sde", "langevin", "gradient_estimation"):
        states = list(getattr(sampling, name)(explosive, y, schedule))
        lost = torch.stack([s.y.isnan().flatten() for s in states])
        assert 0 < metrics.diverged(states[-1].y) < 60, name
        assert (lost[1:] >= lost[:-1]).all()
        kept = metrics.finite(states[-1].y)
        assert len(kept) + metrics.diverged(states[-1].y) == 300
        assert kept.abs().max() <= sampling.DIVERGED * 80


# Measures -----------------------------------------------------------------------------------------


def test_distances_of_known_pairs():
    x, shift = points(300), torch.tensor([3.0, -4.0]).double()
    assert metrics.exact_w2(x, x) < 1e-6
    assert metrics.exact_w2(x, x + shift) == pytest.approx(5)
    assert metrics.exact_w2(x, 2 * x) == pytest.approx(float(x.square().sum(1).mean().sqrt()))
    # the mean square of a projection on a random direction in the plane is half; 2,000 directions
    # leave 3%
    assert metrics.sliced_w2(x, x + shift, projections=2000) == pytest.approx(
        5 / math.sqrt(2), rel=0.03
    )


def test_distances_of_known_densities():
    g = density.grid(12, 4001, dimension=1)
    log_p = GaussianMixture([[0.0]], 1.0).log_prob(g.points)
    log_q = GaussianMixture([[1.0]], 2.0).log_prob(g.points)
    assert density.kullback_leibler(log_p, log_q, g.cell) == pytest.approx(
        math.log(2) + 2 / 8 - 0.5, rel=1e-6
    )
    log_q = GaussianMixture([[1.0]], 1.0).log_prob(g.points)
    assert density.total_variation(log_p, log_q, g.cell) == pytest.approx(
        math.erf(0.5 / math.sqrt(2)), rel=1e-5
    )
    assert density.mass(log_p, g.cell) == pytest.approx(1, abs=1e-12)


def test_copies_peak_signal_and_kurtosis():
    training = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 9.0]])
    samples = torch.tensor([[0.7, 0.0], [0.8, 0.0], [math.nan, 0.0]])  # .7/2.3 < 1/3 < .8/2.2
    assert metrics.is_copy(samples[:2], training).tolist() == [True, False]
    assert metrics.share_of_copies(samples, training) == 0.5
    assert math.isnan(metrics.share_of_copies(samples[2:], training))
    distance, index = metrics.nearest(samples[:2], training)
    assert index.tolist() == [[0, 1], [0, 1]] and torch.allclose(
        distance[0], torch.tensor([0.7, 2.3])
    )
    x = torch.zeros(2, 4, 4)
    assert metrics.psnr(x + torch.tensor([0.1, 0.01]).view(2, 1, 1), x) == pytest.approx(
        30, abs=1e-4
    )
    assert metrics.kurtosis(torch.tensor([[-1.0], [1.0]])) == 1
    n = 100_000
    assert metrics.kurtosis(points(n, 1)) == pytest.approx(3, abs=4 * math.sqrt(24 / n))


def test_a_copy_of_a_point_that_is_there_twice_is_a_copy():
    """The second nearest is the nearest other point; equal ones, and what is an atom away from
    them, hide nothing."""
    x = three_points().sample(64)
    assert metrics.share_of_copies(x, x) == metrics.share_of_copies(x + 2e-16, x) == 1
    between = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    assert metrics.share_of_copies(torch.tensor([[0.5, 0.0]]), between) == 0
    distance, index = metrics.nearest(torch.tensor([[0.2, 0.0]]), between)
    assert index.tolist() == [[0, 1]] and distance[0].tolist() == pytest.approx([0.2, 0.8])
    with pytest.raises(ValueError, match="k is 2 with 1 distinct training points"):
        metrics.is_copy(x, x[:1].repeat(5, 1))


def test_patches_of_equal_training_images_come_from_one_of_them():
    faces = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    index, alike = metrics.patch_sources(faces, faces.repeat(2, 1, 1), 4)
    assert index.tolist() == [[i] * 4 for i in range(3)] and bool((alike > 1 - 1e-9).all())


@pytest.mark.theorem("prop-p6")
def test_flow_density_is_that_of_the_samples():
    """Exact density and sampler are two routes to one law: counts of samples in the cells of a
    coarse grid."""
    denoiser = Polynomial(moons(), 3)
    start, schedule = (
        sampling.initial_noise(20_000, 2, sigma=80),
        sampling.log_linear(60, 0.1, 80)[:-1],
    )
    end = sampling.last(sampling.heun(denoiser, start, schedule))
    fine = density.grid(3.0, 48)
    q = fine.cell * density.generated_log_density(denoiser, fine.points, 0.1, 80.0, 40).exp()
    expected = q.view(6, 8, 6, 8).sum((1, 3)) * len(end)
    cell = ((end + 3) // 1).long()
    inside = ((cell >= 0) & (cell < 6)).all(1)
    observed = torch.bincount(6 * cell[inside, 0] + cell[inside, 1], minlength=36).view(6, 6)
    z = (observed - expected) / (expected + 1).sqrt()
    assert z.abs().max() < 4.5  # 36 cells, standard normal each
