"""Propositions P0 to P7, checked to the digits that are printed for them.

Exact figures must agree within half a unit of their last digit. Where a proposition is about a law,
the law is integrated by quadrature; samples appear only where the statement is about frequencies,
with the error their number allows.
"""

import math

import pytest
import torch
from scipy import stats

from helpers import density, metrics, sampling, training
from helpers.data import TARGETS, ring, three_points
from helpers.denoisers import (
    GaussianMixture,
    LinearConvolution,
    LinearDenoiser,
    PerLevelMLP,
    Polynomial,
    PosteriorMean,
    ProjectedDenoiser,
    score,
)
from helpers.denoisers.linear import flow_variance
from helpers.training import Recipe

COS60 = sampling.cosine_vp(60)


def printed(value, figure, digits):
    """Whether `value` rounds to the printed `figure`; half a unit of the last digit."""
    return abs(float(value) - figure) <= 0.5 * 10**-digits * (1 + 1e-9)


def noisy(target, sigma, reach=8.0, spacing=0.14):
    """Quadrature over x in a law of point masses and the noise n: x, y = x + sigma n and the
    weights of sum 1.

    The trapezoidal rule on a Gaussian times an analytic function converges geometrically: this
    spacing leaves less than 1e-9.
    """
    axis = torch.arange(-reach, reach + spacing / 2, spacing, dtype=torch.float64)
    n = torch.cartesian_prod(*[axis] * target.means.shape[1]).reshape(-1, target.means.shape[1])
    w = torch.exp(-n.square().sum(1) / 2)
    x = target.means.repeat_interleave(len(n), 0)
    weights = target.weights.repeat_interleave(len(n)) * (w / w.sum()).repeat(len(target.means))
    return x, x + sigma * n.repeat(len(target.means), 1), weights


def normal_start(sigma, n=1001, reach=5.5):
    """A fine grid of starting points of N(0, sigma^2) in one dimension and their weights of sum 1."""
    z = torch.linspace(-reach, reach, n, dtype=torch.float64)
    w = torch.exp(-(z**2) / 2)
    return sigma * z[:, None], w / w.sum()


# P0 -----------------------------------------------------------------------------------------------


@pytest.mark.theorem("prop-p0")
def test_p0_every_sample_is_a_training_point_each_equally_often():
    points = ring().sample(6, seed=1)
    start = sampling.initial_noise(3000, 2, sigma=80, seed=2)
    end = sampling.last(sampling.heun(PosteriorMean(points), start, sampling.edm(40)))
    distance, index = metrics.nearest(end, points, k=1)
    assert distance.max() < 1e-9
    counts = torch.bincount(index[:, 0], minlength=6)
    assert stats.chisquare(counts).pvalue > 1e-3, counts
    assert metrics.share_of_copies(end, points) == 1


@pytest.mark.theorem("prop-chance")
@pytest.mark.parametrize("d", [2, 3])
def test_chance_takes_a_share_of_three_to_the_minus_d_for_copies(d):
    """Samples of which the training points, uniform, know nothing; away from the border."""
    points = torch.rand(8_000, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    n, want = 3000, 3.0**-d
    samples = torch.rand(n, d, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    error = 4 * math.sqrt(want * (1 - want) / n)
    assert metrics.share_of_copies(0.2 + 0.6 * samples, points) == pytest.approx(want, abs=error)


# P1 -----------------------------------------------------------------------------------------------


@pytest.mark.theorem("lem-orthogonality", "prop-p1")
@pytest.mark.parametrize("sigma", [0.4, 1.5])
def test_p1_error_is_distance_to_bayes_plus_error_of_bayes(sigma):
    target = three_points()
    x, y, w = noisy(target, sigma)
    mse = lambda a, b: float(w @ (a - b).square().sum(1))  # noqa: E731
    best = target(y, sigma)
    fitted = {k: Polynomial(target, k)(y, sigma) for k in (1, 2, 3)}
    for x_hat in [*fitted.values(), y, 0 * y, y.sin()]:
        assert mse(x_hat, x) == pytest.approx(mse(x_hat, best) + mse(best, x), rel=1e-9)
    assert mse(best, x) < mse(fitted[3], x) < mse(fitted[2], x) < mse(fitted[1], x)
    features = torch.stack([y[:, 0] ** a * y[:, 1] ** b for a in range(3) for b in range(3 - a)])
    # normal equations: E <x - D, g> = 0 for g in the class
    gap = torch.einsum("n,fn,nd->fd", w, features, fitted[2] - x)
    assert gap.abs().max() < 1e-9


@pytest.mark.theorem("prop-p1")
def test_p1_the_score_objective_without_the_target_has_the_same_minimum():
    target, sigma = three_points(), 0.6
    _, y, w = noisy(target, sigma)
    best = score(target, y, sigma)
    for denoiser in (Polynomial(target, 1), Polynomial(target, 3), target):
        jacobian, x_hat = density.jacobian_and_estimate(denoiser, y, sigma)
        s, div = (x_hat - y) / sigma**2, (jacobian.diagonal(dim1=1, dim2=2).sum(1) - 2) / sigma**2
        hyvarinen = w @ (s.square().sum(1) / 2 + div)
        fisher = w @ ((s - best).square().sum(1) - best.square().sum(1)) / 2
        assert float(hyvarinen) == pytest.approx(float(fisher), rel=1e-9)


# P2 -----------------------------------------------------------------------------------------------


@pytest.mark.theorem("prop-linear")
def test_p2_generated_variance_and_mean():
    variances, mean = torch.tensor([4, 0.5, 0]).double(), torch.tensor([1.0, -2.0, 3.0]).double()
    denoiser = LinearDenoiser(mean, torch.eye(3).double(), variances)
    # the flow is affine: its values here are all of it
    start = torch.cat([torch.zeros(1, 3), 80 * torch.eye(3)]).double()
    end = sampling.last(sampling.heun(denoiser, start, sampling.edm(2000)))
    generated = (end[1:] - end[0]).diagonal() ** 2
    for value, figure, digits in zip(generated, (3.9975, 0.49996, 0), (4, 5, 6), strict=True):
        assert printed(value, figure, digits)
    offset = -mean * torch.sqrt(variances / (variances + 80**2))
    assert torch.allclose(end[0] - mean, offset, atol=1e-6)


TABLE = {  # generated variance / lambda after this many DDIM steps of the cosine schedule
    10: (0.66, 0.78, 0.65, 0.26, 0.04),
    20: (0.81, 0.89, 0.81, 0.53, 0.14),
    50: (0.92, 0.95, 0.92, 0.78, 0.44),
    100: (0.96, 0.98, 0.96, 0.88, 0.67),
    1000: (0.995, 0.998, 0.996, 0.988, 0.962),
}


@pytest.mark.theorem("prop-linear-steps", "prop-07-strip")
@pytest.mark.parametrize("steps", TABLE)
def test_p2_finite_steps_shrink_variance(steps):
    variances = torch.tensor([10, 1, 0.1, 0.01, 0.001]).double()
    schedule = sampling.cosine_vp(steps)
    closed = flow_variance(variances, schedule)
    denoiser = LinearDenoiser(torch.zeros(5).double(), torch.eye(5).double(), variances)
    run = (
        sampling.last(
            sampling.euler(denoiser, schedule[0] * torch.eye(5).double(), schedule)
        ).diagonal()
        ** 2
    )
    assert torch.allclose(run, closed, rtol=1e-10)
    exact = variances * schedule[0] ** 2 / (variances + schedule[0] ** 2)
    assert (closed < exact).all()
    # The table starts DDIM at x_T ~ N(0, I) in VP, which has variance 1 + sigma_max^2 in our
    # coordinates.
    ratio = closed / variances * (1 + schedule[0] ** -2)
    for value, figure in zip(ratio, TABLE[steps], strict=True):
        assert printed(value, figure, 3 if steps == 1000 else 2)


@pytest.mark.theorem("prop-linear")
def test_p2_few_training_points_confine_samples_to_their_affine_hull():
    points = torch.randn(5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    end = sampling.last(
        sampling.euler(
            LinearDenoiser.from_points(points), sampling.initial_noise(20, 12, sigma=80), COS60
        )
    )
    hull = torch.linalg.qr((points[1:] - points[0]).T).Q
    off = (end - points[0]) - (end - points[0]) @ hull @ hull.T
    assert off.abs().max() < 1e-9 and (end.std(0) > 0.1).all()


# P3 -----------------------------------------------------------------------------------------------

TWO = GaussianMixture([[-1.0], [1.0]])
THREE = GaussianMixture([[-math.sqrt(3)], [0.0], [math.sqrt(3)]], weights=[1 / 6, 2 / 3, 1 / 6])
SKEWED = GaussianMixture([[-0.5], [2.0]], weights=[0.8, 0.2])
WIDE = GaussianMixture([[-1.0], [1.0]], 0.2)


@pytest.mark.theorem("prop-moments")
def test_p3_coefficients_from_moments_alone():
    """G c = h with the noisy moments and Stein's identity, in monomials, equals the fit in Hermite
    polynomials."""
    sigma, degree = 0.7, 3
    moment = [
        float(SKEWED.weights @ torch.stack([stats_moment(m, sigma, j) for m in SKEWED.means[:, 0]]))
        for j in range(8)
    ]
    powers = range(degree + 1)
    G = torch.tensor([[moment[a + b] for b in powers] for a in powers]).double()
    h = torch.tensor(
        [moment[a + 1] - (sigma**2 * a * moment[a - 1] if a else 0) for a in powers]
    ).double()
    y = torch.linspace(-3, 3, 31).double()[:, None]
    by_moments = torch.cat([y**a for a in powers], 1) @ torch.linalg.solve(G, h)
    assert torch.allclose(Polynomial(SKEWED, degree)(y, sigma)[:, 0], by_moments, atol=1e-10)


def stats_moment(mean, sigma, order):
    return torch.tensor(stats.norm(float(mean), sigma).moment(order) if order else 1.0).double()


SAMPLERS = {
    "euler": sampling.euler,
    "heun": sampling.heun,
    "reverse_sde": sampling.reverse_sde,
    "langevin": sampling.langevin,
    "gradient_estimation": sampling.gradient_estimation,
}


@pytest.mark.theorem("prop-moments")
@pytest.mark.parametrize("name", SAMPLERS)
def test_p3_i_equal_moments_up_to_2k_give_the_same_samples(name):
    """Rings of 8 and of 12 points share all moments up to order 7, more than the 2k = 6 of cubics.

    Their symmetry keeps them alike up to k = 6, where the proposition promises nothing; septics
    tell them apart.
    """
    start, schedule = sampling.initial_noise(50, 2, sigma=20), sampling.log_linear(30, 0.05, 20)
    rings = ring(8, std=0.1), ring(12, std=0.1)
    ends = {
        k: [sampling.last(SAMPLERS[name](Polynomial(r, k), start, schedule)) for r in rings]
        for k in (3, 7)
    }
    assert torch.allclose(*ends[3], atol=1e-6)
    assert not torch.allclose(*ends[7], atol=1e-2)


@pytest.mark.theorem("prop-affine")
def test_p3_ii_agreement_with_a_gaussian_up_to_k_plus_1_gives_the_wiener_filter():
    y = torch.linspace(-4, 4, 41).double()[:, None]
    for sigma in (0.1, 1.0, 10.0):
        wiener = LinearDenoiser.from_moments(THREE.mean, THREE.covariance)(y, sigma)
        for k in (1, 2, 3, 4):
            assert torch.allclose(Polynomial(THREE, k)(y, sigma), wiener, atol=1e-9)
        assert (Polynomial(THREE, 5)(y, sigma) - wiener).abs().max() > 1e-6


def family_moments(denoiser, sigma):
    y = torch.linspace(-4, 4, 8001).double()[:, None]
    w = torch.softmax(denoiser.potential(y, sigma), 0)
    return [float(w @ y[:, 0] ** m) for m in (2, 4, 6)]


@pytest.mark.theorem("prop-family")
@pytest.mark.parametrize(
    ("k", "leading", "digits", "moments"),
    [
        (3, -2.6267, None, (0.991, 1.190, 1.598)),
        (5, 1.069, 3, None),
        (7, -0.508, 3, (1.037, 1.241, 1.670)),
    ],
)
def test_p3_iii_exponential_family_of_a_mixture(k, leading, digits, moments):
    sigma = 1e-4 if k == 3 else 1e-3  # sigma -> 0: the fit at degree 7 loses digits below
    denoiser = Polynomial(WIDE, k, gradient=True)
    form = denoiser.leading_form(sigma)
    assert printed(form[0], leading, digits or 4) and torch.allclose(form[0], form[1])
    assert denoiser.normalisable(sigma) == (moments is not None)
    for value, figure in zip(
        family_moments(denoiser, sigma) if moments else (), moments or (), strict=True
    ):
        assert printed(value, figure, 3)


def test_p3_iii_target_moments():
    x = WIDE.means[:, 0]
    for order, figure in ((2, 1.040), (4, 1.245), (6, 1.673)):
        assert printed(torch.stack([stats_moment(m, 0.2, order) for m in x]).mean(), figure, 3)


@pytest.mark.theorem("prop-family")
def test_p3_iii_theta_by_the_formula_of_score_matching():
    """theta = -(E[J J^T])^-1 E[Laplacian phi] with phi = y, y^2, y^3, y^4, in noisy moments."""
    sigma = 0.3
    spread = math.hypot(0.2, sigma)
    moment = [
        float(torch.stack([stats_moment(m, spread, j) for m in WIDE.means[:, 0]]).mean())
        for j in range(7)
    ]
    J = torch.tensor(
        [[a * b * moment[a + b - 2] for b in range(1, 5)] for a in range(1, 5)]
    ).double()
    laplacian = torch.tensor(
        [a * (a - 1) * moment[a - 2] if a > 1 else 0.0 for a in range(1, 5)]
    ).double()
    theta = -torch.linalg.solve(J, laplacian)
    y = torch.linspace(-2, 2, 41).double()[:, None]
    psi = Polynomial(WIDE, 3, gradient=True).potential(y, sigma)
    by_formula = torch.cat([y**a for a in range(1, 5)], 1) @ theta
    assert torch.allclose(psi - psi[20], by_formula - by_formula[20], atol=1e-9)


@pytest.mark.theorem("prop-family")
def test_p3_iii_langevin_at_one_level_converges_to_the_family():
    sigma, n = 0.3, 4000
    denoiser = Polynomial(WIDE, 3, gradient=True)
    # the step to the next level does not move anything
    level = torch.tensor([sigma, sigma * (1 - 1e-9)], dtype=torch.float64)
    start = sampling.initial_noise(n, 1, sigma=1.0)
    y = sampling.last(
        sampling.langevin(denoiser, start, level, corrections=2500, rate=0.01, seed=1)
    )
    for order, expected in zip((2, 4, 6), family_moments(denoiser, sigma), strict=True):
        # four standard errors, and 1% for the bias of unadjusted Langevin, which is of the order of
        # its rate
        error = 4 * float((y**order).std()) / math.sqrt(n) + 0.01 * expected
        assert abs(float((y**order).mean()) - expected) < error


@pytest.mark.theorem("prop-heat")
def test_p3_iv_the_flow_ends_at_a_different_law():
    start, w = normal_start(80.0)
    y = sampling.last(sampling.heun(Polynomial(WIDE, 3), start, sampling.cosine_vp(200)))[:, 0]
    flow = [float(w @ y**m) for m in (2, 4, 6)]
    # by quadrature, the same to 3 digits at 400 steps
    for value, exact in zip(flow, (0.934, 1.221, 1.757), strict=True):
        assert abs(value - exact) < 1e-3
    # The printed .938, 1.222, 1.752 come from samples: three standard errors of 20,000.
    spread = [
        math.sqrt(float(w @ y ** (2 * m)) - v**2) for m, v in zip((2, 4, 6), flow, strict=True)
    ]
    for value, figure, s in zip(flow, (0.938, 1.222, 1.752), spread, strict=True):
        assert abs(value - figure) < 3 * s / math.sqrt(20_000)
    family = family_moments(Polynomial(WIDE, 3, gradient=True), 1e-3)
    assert flow[0] < family[0] - 0.05 and flow[2] > family[2] + 0.1


@pytest.mark.parametrize(
    ("target", "k", "kurtosis", "tolerance"),
    [
        # Two points: a Gaussian (printed 3.02, the kurtosis of 20,000 starts; standard error
        # sqrt(24/n) = .035), then spikes
        *[(TWO, k, 3.0, 1e-3) for k in (1, 2)],
        *[(TWO, k, 1.09, 0.005) for k in (3, 4)],
        (TWO, 7, 1.01, 0.005),
        # Three points: a Gaussian, then spikes, by quadrature over the start
        *[(THREE, k, 3.0, 1e-3) for k in (1, 2, 3, 4)],
        (THREE, 5, 5.415, 1e-3),
    ],
)
def test_p3_v_kurtosis_by_degree(target, k, kurtosis, tolerance):
    start, w = normal_start(80.0)
    y = sampling.last(sampling.euler(Polynomial(target, k), start, COS60))[:, 0]
    assert y.isfinite().all()
    centred = y - w @ y
    assert float(w @ centred**4 / (w @ centred**2) ** 2) == pytest.approx(kurtosis, abs=tolerance)


@pytest.mark.theorem("prop-escape")
def test_p3_v_degree_5_makes_two_spikes_and_loses_the_far_tail():
    """Kurtosis 1.03 of the particles that stay; its family has a positive leading coefficient, and
    some run away."""
    y = sampling.last(
        sampling.euler(Polynomial(TWO, 5), sampling.initial_noise(20_000, 1, sigma=80), COS60)
    )
    stay = y[y.abs() < 10]
    assert printed(metrics.kurtosis(stay), 1.03, 2)
    assert 0.001 < 1 - len(stay) / len(y) < 0.003


@pytest.mark.theorem("prop-escape")
def test_p3_v_even_degree_diverges():
    """About 3% of the samples of the skewed pair: the share out of reach, and no clamp that hides
    it."""
    start, w = normal_start(80.0, n=4001)
    y = sampling.last(sampling.euler(Polynomial(SKEWED, 2), start, COS60))[:, 0]
    assert printed(w[~(y.abs() < 10)].sum(), 0.03, 2)
    y = sampling.last(sampling.euler(Polynomial(SKEWED, 2), start, sampling.log_linear(60)))[:, 0]
    # more small steps: those out of reach now all count as diverged
    assert printed(w[y.isnan()].sum(), 0.03, 2)
    odd = sampling.last(sampling.euler(Polynomial(SKEWED, 3), start, COS60))
    assert metrics.diverged(odd) == 0


# P4 -----------------------------------------------------------------------------------------------


def covariance_in_5d():
    a = torch.randn(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return a @ a.T


@pytest.mark.theorem("prop-bottleneck-linear")
@pytest.mark.parametrize("rank", [1, 3])
def test_p4a_best_denoiser_of_rank_r_and_its_flat_gaussian(rank):
    S, sigma, eye = covariance_in_5d(), 0.8, torch.eye(5).double()
    denoiser = LinearDenoiser.from_moments(torch.zeros(5).double(), S, rank)
    # reduced-rank regression (Eckart and Young): the truncated singular value decomposition of S (S
    # + sigma^2)^(-1/2)
    values, axes = torch.linalg.eigh(S + sigma**2 * eye)
    half = axes @ torch.diag(values**-0.5) @ axes.T
    u, s, vt = torch.linalg.svd(S @ half)
    best = u[:, :rank] @ torch.diag(s[:rank]) @ vt[:rank] @ half
    assert torch.allclose(denoiser(eye, sigma), best.T, atol=1e-10)

    end = sampling.last(sampling.heun(denoiser, 1000 * eye, sampling.edm(1500, 0.002, 1000.0)))
    lam, axes = torch.linalg.eigh(S)
    top = axes[:, -rank:]
    assert torch.allclose(end.T @ end, top @ torch.diag(lam[-rank:]) @ top.T, rtol=1e-3, atol=1e-4)
    assert torch.linalg.matrix_rank(end, atol=1e-9) == rank


@pytest.mark.theorem("prop-bottleneck-projected")
def test_p4b_linear_bottleneck_generates_the_projected_target():
    target = GaussianMixture([[-1.5, 0.4], [1.0, 0.6], [0.6, -1.2]], 0.25, [0.5, 0.3, 0.2])
    denoiser = ProjectedDenoiser(target, 1)
    start = sampling.initial_noise(200, 2, sigma=2000)
    end = sampling.last(sampling.euler(denoiser, start, sampling.log_linear(40, 0.01, 2000)))
    off = (end - target.mean) @ (torch.eye(2).double() - denoiser.basis @ denoiser.basis.T)
    assert off.abs().max() < 1e-10

    line = density.grid(3.5, 141, dimension=1)
    generated = density.generated_log_density(denoiser.inner, line.points, 0.02, 2000, 200)
    means = (target.means - target.mean) @ denoiser.basis  # the projected target, written out
    log_p = GaussianMixture(means, 0.25, target.weights).log_prob(line.points, 0.02)
    assert density.total_variation(generated, log_p, line.cell) < 1e-3


@pytest.mark.theorem("prop-bottleneck-projected")
def test_p4b_error_is_what_the_projection_loses_plus_what_stays_uncertain():
    target, sigma = three_points(), 0.05
    x, y, w = noisy(target, sigma)
    errors = []
    for angle in torch.linspace(0, math.pi, 61, dtype=torch.float64)[:-1]:
        basis = torch.stack([angle.cos(), angle.sin()])[:, None]
        denoiser = ProjectedDenoiser(target, 1, basis)
        inside, centred = (x - target.mean) @ basis, x - target.mean
        lost = w @ (centred - inside @ basis.T).square().sum(1)
        uncertain = w @ (inside - denoiser.inner((y - target.mean) @ basis, sigma)).square().sum(1)
        errors.append(w @ (x - denoiser(y, sigma)).square().sum(1))
        assert torch.isclose(errors[-1], lost + uncertain, rtol=1e-9)
    principal = w @ (x - ProjectedDenoiser(target, 1)(y, sigma)).square().sum(1)
    assert principal <= min(errors) + 1e-9  # at small sigma no other plane is better


@pytest.mark.theorem("prop-bottleneck-projected")
def test_p4b_finite_training_set_gives_projected_copies():
    points = ring().sample(7, seed=3)
    denoiser = ProjectedDenoiser(points, 1)
    end = sampling.last(
        sampling.heun(denoiser, sampling.initial_noise(100, 2, sigma=80), sampling.edm(40))
    )
    mean = points.mean(0)
    projected = mean + (points - mean) @ denoiser.basis @ denoiser.basis.T
    assert metrics.nearest(end, projected, k=1)[0].max() < 1e-8


@pytest.mark.theorem("prop-bottleneck-curve")
def test_p4f_samples_lie_on_the_curve_of_the_last_decoder():
    schedule = sampling.log_linear(6, 0.1, 10)
    denoiser = PerLevelMLP(schedule[:-1], width=64, code=1)
    assert sum(p.numel() for p in denoiser.parameters()) == 6 * 515
    losses = training.run(
        training.train_levels(denoiser, ring().sample(500), Recipe(steps=150, batch=256, rate=3e-3))
    )
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20])
    end = sampling.last(
        sampling.euler(denoiser, sampling.initial_noise(200, 2, sigma=10), schedule)
    )
    curve = denoiser.decode(
        torch.linspace(-10, 10, 20_001, dtype=torch.float64)[:, None], float(schedule[-2])
    )
    spacing = (curve[1:] - curve[:-1]).norm(dim=1).max()
    assert metrics.nearest(end, curve, k=1)[0].max() < spacing < 0.01
    assert torch.pdist(end).max() > 1  # and are not all at one point of it
    # the same network, layer by layer
    level, w, b = float(schedule[0]), denoiser.weights, denoiser.biases
    hidden = torch.nn.functional.leaky_relu(
        end.float() / math.sqrt(1 + level**2) @ w[0][0] + b[0][0], 0.2
    )
    assert torch.allclose(
        denoiser.decode(hidden @ w[1][0] + b[1][0], level), denoiser(end.float(), level), atol=1e-5
    )


# P5 -----------------------------------------------------------------------------------------------

FREQUENCY = torch.fft.fftfreq(64, dtype=torch.float64).abs()
# a pixel has variance 1
SPECTRUM = (0.02 + FREQUENCY) ** -1.5 / ((0.02 + FREQUENCY) ** -1.5).mean()


@pytest.mark.theorem("prop-field")
@pytest.mark.parametrize(
    ("width", "lowest", "total"),
    [
        (1, 0.067, 1.000),
        (3, 0.184, 0.911),
        (7, 0.342, 0.956),
        (15, 0.543, 0.982),
        (63, 0.994, 0.999),
    ],
)
def test_p5_receptive_field_decides_the_generated_spectrum(width, lowest, total):
    """The printed figures start, as P2's table does, at variance 1 + sigma_max^2, the N(0, I) of
    VP."""
    denoiser = LinearConvolution(SPECTRUM, width)
    power = denoiser.generated_spectrum(sigma_max=80.0) * (1 + 80.0**-2)
    assert printed(power[0] / SPECTRUM[0], lowest, 3)
    assert printed(power.mean() / SPECTRUM.mean(), total, 3)
    if width == 1:
        assert torch.allclose(power, power.mean(), rtol=1e-10)  # white


@pytest.mark.theorem("prop-field")
@pytest.mark.parametrize("width", [1, 5, 63])
def test_p5_formula_is_what_the_sampler_generates(width):
    denoiser = LinearConvolution(SPECTRUM, width)
    schedule = sampling.log_linear(600, 0.01, 80.0)[:-1]
    wave = 80 * torch.cos(
        2 * math.pi * torch.arange(64).double() * torch.arange(33).double()[:, None] / 64
    )
    end = sampling.last(sampling.heun(denoiser, wave, schedule))  # a filter keeps every wave a wave
    gain = end[:, 0] / 80
    assert torch.allclose(
        80**2 * gain**2, denoiser.generated_spectrum(0.01, 80.0)[:33], rtol=1e-3, atol=2e-4
    )


@pytest.mark.theorem("prop-field")
def test_p5_filter_is_the_best_of_its_support():
    """On the torus, by the covariance matrix of all pixels: the regression on the pixels in the
    support."""
    f = torch.fft.fftfreq(8, dtype=torch.float64)
    spectrum = 1 / (0.05 + f[:, None] ** 2 + 2 * f**2)
    sigma, support = 0.9, torch.zeros(8, 8, dtype=torch.bool)
    support[[0, 0, 1, 7, 2], [0, 1, 0, 7, 3]] = True  # no symmetry needed
    R = torch.fft.ifftn(spectrum).real
    at = [(int(a), int(b)) for a, b in support.nonzero()]
    noisy_covariance = torch.tensor(
        [[R[a - c, b - d] + sigma**2 * ((a, b) == (c, d)) for c, d in at] for a, b in at]
    )
    taps = torch.linalg.solve(noisy_covariance, torch.stack([R[p] for p in at]))
    y = torch.randn(2, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = sum(h * y.roll(p, (1, 2)) for h, p in zip(taps, at, strict=True))
    assert torch.allclose(LinearConvolution(spectrum, support)(y, sigma), expected, atol=1e-10)
    full = LinearConvolution(spectrum, torch.ones(8, 8, dtype=torch.bool))
    assert torch.allclose(full.response(sigma).real, spectrum / (spectrum + sigma**2))


# P6 -----------------------------------------------------------------------------------------------


@pytest.mark.theorem("prop-flow", "prop-p6")
@pytest.mark.parametrize("name", sorted(set(TARGETS) - {"pinwheel"}))
def test_p6_the_exact_denoiser_generates_its_target(name):
    """Total variation E_p[(1 - q/p)+] below 1e-3, with p the target at the last level, over samples
    of p.

    The flow starts at N(0, s^2 I), not at p blurred by s. For a target of mean m that alone costs
    |m| / (s sqrt(2 pi)), for the three points with |m| = .38 that is .0019 at s = 80; hence s =
    1000, which leaves .00015.
    """
    target, sigma = TARGETS[name](), 0.1
    x = target.sample(250, seed=1)
    y = x + sigma * torch.randn(
        x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    log_q = density.generated_log_density(target, y, sigma, 1000.0, steps=120)
    shortfall = (1 - (log_q - target.log_prob(y, sigma)).exp()).clamp(min=0)
    assert shortfall.mean() < 1e-3


@pytest.mark.theorem("prop-p6")
def test_p6_on_a_grid_and_the_linear_denoiser_generates_its_gaussian():
    target = ring()
    g = density.grid(2.7, 61)
    log_p = target.log_prob(g.points, 0.05)
    log_q = density.generated_log_density(target, g.points, 0.05, 1000.0, 120)
    assert density.total_variation(log_p, log_q, g.cell) < 1e-3
    assert density.mass(log_q, g.cell) == pytest.approx(1, abs=1e-3)
    assert abs(density.kullback_leibler(log_p, log_q, g.cell)) < 1e-3

    skewed, g = three_points(), density.grid(5, 61)
    linear = LinearDenoiser.from_moments(skewed.mean, skewed.covariance)
    gaussian = GaussianMixture(skewed.mean[None], covariances=skewed.covariance[None])
    log_q = density.generated_log_density(linear, g.points, 0.05, 2000.0, 100)
    assert density.total_variation(gaussian.log_prob(g.points, 0.05), log_q, g.cell) < 1e-3


@pytest.mark.theorem("prop-start")
def test_the_error_of_the_start_is_never_forgotten():
    target, high, low = GaussianMixture([[-1.0], [2.0]], 0.1), 3.0, 0.3
    wide, narrow = density.grid(20, 2000, 1), density.grid(5, 500, 1)
    start = -(wide.points[:, 0] ** 2) / (2 * high**2) - math.log(high * math.sqrt(2 * math.pi))
    q = density.generated_log_density(target, narrow.points, low, high, steps=40)
    before = density.total_variation(start, target.log_prob(wide.points, high), wide.cell)
    after = density.total_variation(q, target.log_prob(narrow.points, low), narrow.cell)
    assert before > 0.05 and after == pytest.approx(before, abs=1e-4)


# P7 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.4, 1.5])
def test_p7_error_from_noisy_points_alone(sigma):
    """Stein: E||f - x||^2 = E[||y - f||^2 + 2 sigma^2 tr J - sigma^2 d], and sigma^2 E tr J for the
    best f."""
    target = three_points()
    x, y, w = noisy(target, sigma)
    for f in (
        target,
        LinearDenoiser.from_moments(target.mean, target.covariance),
        Polynomial(target, 3),
    ):
        jacobian, x_hat = density.jacobian_and_estimate(f, y, sigma)
        trace = jacobian.diagonal(dim1=1, dim2=2).sum(1)
        mse = float(w @ (x_hat - x).square().sum(1))
        sure = float(w @ ((y - x_hat).square().sum(1) + 2 * sigma**2 * trace)) - 2 * sigma**2
        assert sure == pytest.approx(mse, rel=1e-9)
        if f is target:
            assert sigma**2 * float(w @ trace) == pytest.approx(mse, rel=1e-9)


# Two networks, and laws on a subspace -------------------------------------------------------------


@pytest.mark.theorem("prop-strangers")
def test_what_two_disjoint_sets_reveal():
    """Two Gaussians: with the nearer half lines as the set E, the bound is their total variation."""
    one, other = (GaussianMixture([[m]], 1.0) for m in (-0.6, 0.6))
    g = density.grid(9, 4000, 1)
    log_a, log_b = one.log_prob(g.points), other.log_prob(g.points)
    distance = density.total_variation(log_a, log_b, g.cell)
    for cut, slack in ((0.0, 0.0), (0.5, 0.03)):
        near = g.points[:, 0] < cut
        bound = density.mass(log_a[near], g.cell) + density.mass(log_b[~near], g.cell) - 1
        assert bound <= distance - slack + 1e-9 and (slack or bound == pytest.approx(distance))
    noise = sampling.initial_noise(200, 2, sigma=20)
    a, b = (
        sampling.last(sampling.euler(PosteriorMean(ring(n).sample(n)), noise, COS60))
        for n in (5, 8)
    )
    assert 0 < metrics.exact_w2(a, b) ** 2 < (a - b).square().sum(1).mean()


@pytest.mark.theorem("thm-project")
def test_a_law_on_a_plane_is_denoised_in_the_plane():
    basis = torch.linalg.qr(torch.eye(3, dtype=torch.float64)[:, :2] + 0.3).Q
    target = GaussianMixture(three_points().means @ basis.T, weights=three_points().weights)
    y, sigma = sampling.initial_noise(20, 3, sigma=1.5), 0.7
    inner = target.projected(basis, torch.zeros(3).double())
    slope = torch.func.vmap(torch.func.grad(lambda z: inner.log_prob(z[None], sigma)[0]))
    bend = torch.func.vmap(torch.func.hessian(lambda z: inner.log_prob(z[None], sigma)[0]))
    code = y @ basis
    want = (code + sigma**2 * slope(code)) @ basis.T
    for denoiser in (target, ProjectedDenoiser(target, 2, basis)):
        jacobian, x_hat = density.jacobian_and_estimate(denoiser, y, sigma)
        torch.testing.assert_close(x_hat, want)
        inside = torch.eye(2).double() + sigma**2 * bend(code)
        torch.testing.assert_close(jacobian, basis @ inside @ basis.T)
