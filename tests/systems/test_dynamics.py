"""Training in closed form: against descent, quadrature and simulation; the blind Gaussian and
stochastic ascent."""

import math

import numpy as np
import pytest
import torch
from nets import noise as plain_noise

from helpers import recorded
from helpers.denoisers import LinearDenoiser
from helpers.sampling import edm, euler, heun, initial_noise, last, stochastic_ascent
from helpers.systems.bonnaire import dynamics
from helpers.systems.bonnaire.dynamics import FeatureDenoiser, Flow, SineFeatures, moments, onset
from helpers.systems.bonnaire.gaussian import (
    BlindGaussian,
    ascent_limit,
    ascent_variances,
    gaussian_flow,
)


def noise(*shape, seed=0):
    return plain_noise(*shape, seed=seed, dtype=torch.float64)


def hermite_nodes(d, order=24):
    """Nodes and weights of N(0, I_d), a tensor product."""
    t, w = np.polynomial.hermite_e.hermegauss(order)
    nodes = torch.cartesian_prod(*[torch.from_numpy(t)] * d).reshape(-1, d)
    weights = torch.cartesian_prod(*[torch.from_numpy(w / w.sum())] * d).reshape(-1, d).prod(1)
    return nodes, weights


# Moments ------------------------------------------------------------------------------------------


@pytest.mark.theorem("lem-sine-moments")
@pytest.mark.parametrize("skip", [1.0, 0.6])
@pytest.mark.parametrize("phases", [False, True])
def test_moments_of_a_training_set_equal_quadrature_over_the_noise(skip, phases):
    x, sigma, features = noise(3, 2), 0.7, SineFeatures.random(5, 2, 1.3, phases, seed=1)
    nodes, weights = hermite_nodes(2)
    y = x[:, None] + sigma * nodes
    t = ((x[:, None] - skip * y) / (sigma * math.sqrt(skip))).flatten(0, 1)
    phi, w = (
        torch.sin(y.flatten(0, 1) @ features.weights.T + features.phases),
        weights.repeat(3)[:, None] / 3,
    )
    found = moments(features, x, sigma, skip=skip)
    torch.testing.assert_close(found.gram, phi.T @ (w * phi), rtol=0, atol=1e-10)
    torch.testing.assert_close(found.cross, phi.T @ (w * t), rtol=0, atol=1e-10)
    assert found.power == pytest.approx(float((w * t.square()).sum() / 2), abs=1e-10)


@pytest.mark.theorem("lem-sine-moments")
def test_moments_of_a_gaussian_law_equal_quadrature_and_sampling():
    root, sigma, features = noise(2, 2, seed=3), 0.5, SineFeatures.random(6, 2, phases=True, seed=2)
    mean, covariance = noise(1, 2, seed=4), root @ root.T
    nodes, weights = hermite_nodes(4, 16)
    x = mean + nodes[:, :2] @ root.T
    y = x + sigma * nodes[:, 2:]
    t, phi = (x - 0.8 * y) / (sigma * math.sqrt(0.8)), features(y)
    found = moments(features, mean, sigma, covariance, skip=0.8)
    torch.testing.assert_close(found.gram, phi.T @ (weights[:, None] * phi), rtol=0, atol=1e-6)
    torch.testing.assert_close(found.cross, phi.T @ (weights[:, None] * t), rtol=0, atol=1e-6)
    assert found.power == pytest.approx(float((weights[:, None] * t.square()).sum() / 2), abs=1e-9)
    # a training set of the law
    sampled = moments(features, mean + noise(20_000, 2, seed=5) @ root.T, sigma)
    assert (
        float((sampled.gram - moments(features, mean, sigma, covariance).gram).abs().max()) < 0.02
    )


# The flow -----------------------------------------------------------------------------------------


@pytest.fixture
def small():
    features = SineFeatures.random(14, 3, 1.5, seed=1)
    training = moments(features, noise(5, 3), 0.4)
    return features, training, Flow(training)


@pytest.mark.theorem("prop-feature-flow")
def test_weights_equal_the_matrix_exponential(small):
    _, training, flow = small
    p = len(training.gram)
    for time in (0.0, 0.3, 5.0, 60.0):
        m = 2 * 3 / p * time * training.gram
        # exp of [[-m, I], [0, 0]] holds the integral of exp(-u m), which needs no inverse of a
        # singular U
        block = torch.zeros(2 * p, 2 * p, dtype=torch.float64)
        block[:p, :p], block[:p, p:] = -m, torch.eye(p, dtype=torch.float64)
        integral = torch.linalg.matrix_exp(block)[:p, p:]
        want = 2 * 3 / p * time * training.cross.T @ integral
        torch.testing.assert_close(flow.weights(time), want, rtol=1e-8, atol=1e-10)


def test_flow_is_the_limit_of_gradient_descent_by_autograd(small):
    _, training, flow = small
    p, errors = len(training.gram), []
    for steps in (200, 400):
        a = torch.zeros(3, p, dtype=torch.float64, requires_grad=True)
        for _ in range(steps):
            b = a / math.sqrt(p)
            loss = (
                training.power * 3
                + (b @ training.gram * b).sum()
                - 2 * (b * training.cross.T).sum()
            ) / 3
            (g,) = torch.autograd.grad(loss, a)
            a = (a - 4.0 / steps * 9 * g).detach().requires_grad_()
        errors.append(float((a.detach() / math.sqrt(p) - flow.weights(4.0)).norm()))
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)  # first order in the step
    assert float(loss.detach()) == pytest.approx(
        float(flow.losses(torch.tensor([4.0]))[0]), abs=0.01
    )


@pytest.mark.theorem("prop-feature-flow")
def test_losses_are_those_of_the_weights_under_any_law(small):
    features, _, flow = small
    nodes, weights = hermite_nodes(3, 14)
    law = moments(features, noise(2, 3, seed=8), 0.4)
    y = (noise(2, 3, seed=8)[:, None] + 0.4 * nodes).flatten(0, 1)
    for time, value in zip((0.5, 20.0), flow.losses(torch.tensor([0.5, 20.0]), law), strict=True):
        off = features(y) @ flow.weights(time).T + nodes.repeat(2, 1)
        assert float(value) == pytest.approx(
            float((weights.repeat(2)[:, None] / 2 * off.square()).sum() / 3), abs=1e-8
        )


def test_training_loss_falls_and_more_points_overfit_later():
    d, p, times = 8, 192, torch.logspace(-2, 5, 71, dtype=torch.float64)
    features, found = SineFeatures.random(p, d, 1.4, seed=1), {}
    law = moments(features, torch.zeros(1, d), 0.3, torch.eye(d))
    for n in (8, 16, 32, 64):
        flow = Flow(moments(features, noise(n, d), 0.3))
        train, test = flow.losses(times), flow.losses(times, law)
        assert bool((train.diff() < 1e-9).all())
        assert float(test.min()) > 1 / (1 + 0.3**2) - 1e-9  # Wiener's filter is the best there is
        found[n] = onset(times, train, test)
    assert 0.8 < math.log(found[64].overfitted / found[8].overfitted) / math.log(8) < 1.4
    assert found[64].learned / found[8].learned < 2


def test_onset_interpolates_and_says_never():
    times = torch.tensor([1.0, 10.0, 100.0, 1000.0]).double()
    train, test = (
        torch.tensor([1.0, 0.5, 0.4, 0.2]).double(),
        torch.tensor([1.0, 0.5, 0.6, 0.8]).double(),
    )
    found = onset(times, train, test, 0.1)
    assert (found.best, found.overfitted) == (10.0, pytest.approx(10**1.5))
    assert found.learned == pytest.approx(10**0.9)
    assert onset(times, train, test, 0.7).overfitted == math.inf


# The spectrum -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sigma", "variance", "gain"), [(0.3, 1.0, 1.0), (0.8, 2.0, 1.4)])
def test_constants_of_the_bulk_equal_their_definitions(sigma, variance, gain):
    t, w = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(40))
    w, a, b = w / w.sum(), gain * math.sqrt(variance), gain * sigma
    phi = torch.sin(a * t[:, None] + b * t)  # rows: the data, columns: the noise
    mean = phi @ w
    linear, of_noise = float((w * mean * t).sum()), float(w @ phi @ (w * t))
    v2 = float((w * mean.square()).sum()) - linear**2
    s2 = float(w @ phi.square() @ w) - v2 - linear**2 - of_noise**2
    found = dynamics.bulks(50, 200, sigma, variance, gain)
    assert (found.v2, found.atom) == (pytest.approx(v2, abs=1e-10), pytest.approx(s2, abs=1e-10))


def test_bulk_is_where_a_gaussian_equivalent_has_it():
    n, p = 250, 1000
    edges = dynamics.bulks(n, p, 0.3, gain=1.4)
    z = math.sqrt(edges.v2) * noise(p, n)
    values = torch.linalg.eigvalsh(z.T @ z / n) + edges.atom  # the n that are not the atom
    assert float(values.min()) == pytest.approx(edges.low, rel=0.1)
    assert float(values.max()) == pytest.approx(edges.high, rel=0.05)


def test_bulk_of_a_large_instance_has_the_predicted_sum_and_place():
    d, n, p = 48, 192, 768
    values = Flow(moments(SineFeatures.random(p, d, seed=1), noise(n, d), 0.3)).values
    # d of the n are nearly those of the atom at small noise
    edges, bulk = dynamics.bulks(n, p, 0.3), values[-n:-d]
    assert float(bulk.sum()) == pytest.approx((n - d) * (edges.atom + edges.v2 * p / n), rel=0.15)
    assert float(((bulk > 0.9 * edges.low) & (bulk < 1.1 * edges.high)).double().mean()) > 0.85
    assert float(values[:-n].median()) == pytest.approx(edges.atom, rel=0.15)
    assert float(values[-d]) > 2 * edges.high  # the population stands apart


# Features as a denoiser ---------------------------------------------------------------------------


def test_feature_denoiser_is_its_formula_and_rows_do_not_mix():
    points, y = noise(6, 2, 4), noise(5, 2, 4, seed=1)
    denoiser = FeatureDenoiser(points, 30, 1.5, time=3.0)
    centre = points.mean(0)
    v = float((points - centre).square().mean())
    z, skip = (y - centre).flatten(1), v / (v + 0.25)
    phi = torch.sin(z / math.sqrt(v + 0.25) @ denoiser.unit.weights.T + denoiser.unit.phases)
    want = centre + (
        skip * z + 0.5 * math.sqrt(skip) * phi @ denoiser.flow(0.5).weights(3.0).T
    ).view_as(y)
    torch.testing.assert_close(denoiser(y, 0.5), want)
    levels = torch.tensor([0.5, 0.2, 0.5, 2.0, 0.2])
    alone = torch.cat([denoiser(y[i : i + 1], float(s)) for i, s in enumerate(levels.double())])
    torch.testing.assert_close(denoiser(y, levels.double()), alone)


def test_feature_denoiser_begins_as_a_round_gaussian_and_ends_on_its_points():
    points = 1.5 * noise(4, 2)
    start = initial_noise(200, 2, sigma=6.0)
    denoiser = FeatureDenoiser(points, 256, gain=4.0, time=0.0)
    torch.testing.assert_close(
        denoiser(start, 1.0), denoiser.centre + denoiser.skip(1.0) * (start - denoiser.centre)
    )
    gaps = []
    for denoiser.time in (0.0, 1e5):
        made = last(euler(denoiser, start + denoiser.centre, edm(12, 0.05, 6.0)))
        gaps.append(float(torch.cdist(made, points).amin(1).median()))
    assert gaps[1] < 0.25 * gaps[0]


# The Gaussian -------------------------------------------------------------------------------------


def spectrum(d=256):
    lam = 20 * torch.arange(1, d + 1, dtype=torch.float64) ** -2.0
    return lam, (torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64), lam)


def test_blind_gaussian_finds_the_most_likely_level():
    lam, known = spectrum()
    y = noise(4, 256) * (lam + 0.3**2).sqrt()
    s = BlindGaussian(*known).level(y)
    grid = torch.logspace(-3, 1, 4001, dtype=torch.float64)
    total = lam + grid[:, None] ** 2
    for row, level in zip(y, s, strict=True):
        assert float(level) == pytest.approx(
            float(grid[(row.square() / total + total.log()).sum(1).argmin()]), rel=2e-3
        )
    assert float(
        BlindGaussian(*known).level(noise(200, 256) * (lam + 0.09).sqrt()).mean()
    ) == pytest.approx(0.3, rel=0.03)
    assert float(BlindGaussian(*known).level(torch.zeros(1, 256).double())) == pytest.approx(
        BlindGaussian.floor
    )


@pytest.mark.theorem("prop-blind-level")
def test_blind_gaussian_is_wieners_filter_at_its_level_and_reads_less():
    lam, known = spectrum()
    blind, y = BlindGaussian(*known), noise(5, 256, seed=2)
    s = blind.level(y)
    torch.testing.assert_close(blind(y, 123.0), LinearDenoiser(*known)(y, s))
    torch.testing.assert_close(blind(y[2:3], 1.0), blind(y, 1.0)[2:3])
    freedom = (lam / (lam + s[:, None] ** 2)).sum(1)
    torch.testing.assert_close(
        (blind(y, 1.0) - y).square().mean(1), s**2 * (1 - freedom / 256), rtol=1e-7, atol=0
    )


def test_ascent_recursion_against_simulation():
    lam, known = spectrum(512)
    want = ascent_variances(lam, 1.0, 0.1, h=0.2, beta=0.3)
    *_, end = stochastic_ascent(
        BlindGaussian(*known), initial_noise(128, 512, sigma=1.0), 1.0, 0.1, 0.2, 0.3, seed=1
    )
    ratio = end.y.square().mean(0) / want.variances
    # 128 rows: one axis is off by the root of 2/128
    for part in (
        ratio[:8],
        ratio[8:64],
        ratio[64:],
    ):
        assert float(part.mean()) == pytest.approx(1, abs=0.05 + 3 * (2 / 128 / len(part)) ** 0.5)
    assert want.sigma <= 0.1 < want.level
    freedom = float((lam / (lam + want.level**2)).mean())
    assert want.sigma == pytest.approx(want.level * math.sqrt(1 - freedom), rel=1e-6)


@pytest.mark.theorem("prop-ascent-limit")
def test_ascent_limit_is_reached_by_small_steps_and_many_axes():
    lam = torch.cat([torch.tensor([50.0, 3.0, 0.2]), torch.zeros(1500)]).double()
    for beta in (1.0, 0.3):
        found = ascent_variances(lam, 1.0, 0.1, h=0.02, beta=beta)
        want = ascent_limit(lam, 1.0, found.level, beta)
        torch.testing.assert_close(found.variances, want, rtol=0.02, atol=0)
    flow = (lam + 0.01) / (lam + 1)  # beta = 1 is the probability flow
    torch.testing.assert_close(ascent_limit(lam, 1.0, 0.1, 1.0), flow)


@pytest.mark.theorem("prop-ascent")
@pytest.mark.parametrize("beta", [0.9, 0.3])
def test_ascent_cannot_fill_wide_axes(beta):
    """However large the variance of an axis, ascent leaves at most sigma^2 / beta of it."""
    wide = torch.tensor([1e2, 1e4, 1e6])
    lam = torch.cat([wide, torch.zeros(2000)]).double()
    found = ascent_variances(lam, 2.0, 0.1, h=0.05, beta=beta).variances
    assert 1 < found[:3].min() and found.max() <= 2.0**2 / beta < wide.min()


def test_gaussian_flow_is_the_end_of_many_steps():
    _, known = spectrum(16)
    wiener, y = LinearDenoiser(*known), 5 * noise(3, 16)
    fine = torch.logspace(math.log10(5), math.log10(0.5), 2000, dtype=torch.float64)
    torch.testing.assert_close(
        gaussian_flow(wiener, y, 5.0, 0.5), last(heun(wiener, y, fine)), rtol=0, atol=1e-5
    )
    part = wiener.truncated(4)
    there = gaussian_flow(part, gaussian_flow(part, y, 5.0, 2.0), 2.0, 0.5)
    torch.testing.assert_close(there, gaussian_flow(part, y, 5.0, 0.5))


# What a caller may get wrong ----------------------------------------------------------------------


def of_another(features):
    return moments(features, noise(4, 2), 0.5)._replace(cross=noise(2, 2))


def wiener():
    return LinearDenoiser(*spectrum(4)[1])


def two_axes():
    return torch.zeros(4), torch.eye(4)[:, :2], torch.ones(2)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda f: moments(f, noise(4, 3), 0.5), r"\(4, 3\).*\(N, 2\)"),
        (lambda f: moments(f, noise(4, 2), 0.0), "sigma is 0.0"),
        (lambda f: moments(f, noise(4, 2), 0.5, skip=0.0), "skip is 0.0"),
        (lambda f: moments(f, noise(4, 2), 0.5, torch.eye(3)), r"covariance has shape \(3, 3\)"),
        (lambda f: SineFeatures.random(4, 2, gain=0.0), "gain is 0.0"),
        (lambda f: SineFeatures.random(0, 2), "p is 0"),
        (lambda f: Flow(moments(f, noise(4, 2), 0.5)).weights(-1.0), "time is -1.0"),
        (lambda f: Flow(moments(f, noise(4, 2), 0.5)).losses(torch.ones(2), of_another(f)), "same features"),
        (lambda f: onset(torch.ones(3), torch.ones(3), torch.ones(3)), "ascending"),
        (lambda f: onset(torch.arange(1.0, 4.0), torch.ones(3), torch.ones(3), 0.0), "gap is 0.0"),
        (lambda f: dynamics.bulks(0, 4, 0.3), "n is 0"),
        (lambda f: dynamics.bulks(4, 4, 0.0), "sigma=0.0"),
        (lambda f: FeatureDenoiser(torch.ones(4, 2), 8), "equal"),
        (lambda f: ascent_variances(torch.ones(4), 1.0, 2.0), "sigma_stop=2.0"),
        (lambda f: ascent_variances(torch.zeros(4), 1.0, max_steps=3), "after 3 steps"),
        (lambda f: gaussian_flow(wiener(), noise(1, 4), 1.0, 2.0), "from level 1.0 to 2.0"),
        (lambda f: BlindGaussian(*two_axes())(torch.ones(1, 4), 1.0), "only 2 of 4"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, words):
    with pytest.raises(ValueError, match=words):
        call(SineFeatures.random(5, 2))


def test_the_record_holds_what_the_chapter_draws():
    trials = recorded.load("dynamics")
    assert {"times", "copies", "linear-10", "linear-5000", "teleport"} <= set(trials)
    for row in trials["times"]["rows"]:
        assert 0 < row["learned"] < row["overfitted"] < 1e6
    for n in (10, 5000):
        for row in trials[f"linear-{n}"]["rows"]:
            assert row["best of answer"] <= 1 and len(row["gains"]) == len(
                trials[f"linear-{n}"]["variances"]
            )


def test_one_recorded_time_is_found_again():
    kept = recorded.load("dynamics")["times"]
    row = next(r for r in kept["rows"] if (r["n"], r["p"], r["seed"]) == (64, 128, 0))
    features, times = (
        SineFeatures.random(128, kept["d"], kept["gain"], seed=1000),
        torch.logspace(-2, 6, 161).double(),
    )
    flow = Flow(moments(features, noise(64, kept["d"]), kept["sigma"]))
    law = moments(features, torch.zeros(1, kept["d"]), kept["sigma"], torch.eye(kept["d"]))
    found = onset(times, flow.losses(times), flow.losses(times, law))
    assert found.overfitted == pytest.approx(row["overfitted"], rel=1e-3)
