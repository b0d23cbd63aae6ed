"""Darcy flow and physics in the loss: the residual against the solver, weights against DDPM's, an
exact toy."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import noise

from helpers import models, recorded, sampling
from helpers.denoisers import MLP, Denoiser, UNet
from helpers.systems.bastek import darcy as module
from helpers.systems.bastek import physics
from helpers.systems.bastek.darcy import (
    Corrected,
    Darcy,
    darcy,
    error_spectrum,
    re_solve_error,
    report,
)
from helpers.systems.bastek.physics import (
    CircleDenoiser,
    CircleLaw,
    PhysicsRecipe,
    VirtualObservation,
    posterior_variance,
)
from helpers.training import run, train

FLOW = Darcy(8)


def fields(n=3, size=8, seed=0):
    """Positive K and any p, float64: nothing that solves anything."""
    return noise(n, size, size, seed=seed, dtype=torch.float64).exp(), noise(
        n, size, size, seed=seed + 1
    ).double()


class Constant(Denoiser):
    """The same answer everywhere."""

    def __init__(self, x):
        super().__init__()
        self.keep(x=x)

    def estimate(self, y, sigma):
        return self.x.to(y).expand_as(y)


# The equation: exact identities first -------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16])
def test_the_residual_is_the_matrix_of_the_solver(size):
    flow, (K, p) = Darcy(size), fields(size=size)
    by_matrix = (flow.matrix(K) @ p.flatten(1)[..., None]).view_as(p)
    torch.testing.assert_close(flow.flow(K, p), by_matrix, rtol=0, atol=1e-9)
    torch.testing.assert_close(
        flow.residual(flow.channels(p, K)), by_matrix - flow.f, rtol=0, atol=1e-8
    )


def test_the_flow_is_a_sum_over_faces():
    K, p = fields(1)
    want = torch.zeros(8, 8, dtype=torch.float64)
    for i in range(8):
        for j in range(8):
            for a, b in ((i + 1, j), (i - 1, j), (i, j + 1), (i, j - 1)):
                if 0 <= a < 8 and 0 <= b < 8:
                    want[i, j] += (K[0, i, j] + K[0, a, b]) / 2 * (p[0, i, j] - p[0, a, b]) * 64
    torch.testing.assert_close(FLOW.flow(K, p)[0], want)


@pytest.mark.theorem("prop-darcy")
def test_the_matrix_is_symmetric_and_only_constants_leave_no_flow():
    A = FLOW.matrix(fields()[0])
    assert torch.equal(A, A.mT)
    assert float(A.sum(2).abs().max()) < 1e-10
    values = torch.linalg.eigvalsh(A)
    assert float(values[:, 0].abs().max()) < 1e-9 and float(values[:, 1].min()) > 0.1


def test_wells_balance_so_that_the_square_system_has_a_solution():
    for size in (8, 16, 64):
        f = Darcy(size).f
        assert float(f.sum()) == 0 and float(f.abs().sum() / size**2) == 10 * 2 / 64


@pytest.mark.parametrize("size", [8, 16, 32, 64])
def test_solutions_solve(size):
    flow, (K, _) = Darcy(size), fields(2, size)
    p = flow.solve(K)
    assert float((flow.flow(K, p) - flow.f).abs().max()) < 1e-8
    assert float(p.mean((1, 2)).abs().max()) < 1e-10


def test_sparse_and_dense_solutions_agree(monkeypatch):
    dense = FLOW.solve(fields()[0])
    monkeypatch.setattr(module, "DENSE", 4)
    torch.testing.assert_close(FLOW.solve(fields()[0]), dense, rtol=0, atol=1e-12)


def test_pairs_of_the_data_leave_no_residual():
    assert float(Darcy().residual(darcy("test", 50).images).abs().max()) < 1e-4


@pytest.mark.theorem("prop-darcy")
@settings(max_examples=25, deadline=None)
@given(st.floats(0.05, 20), st.floats(-5, 5), st.integers(0, 1000))
def test_what_the_residual_cannot_see(a, b, seed):
    """The amplitude shared between the fields, and the level of the pressure."""
    K, p = fields(2, seed=seed)
    changed = FLOW.flow(a * K, p / a + b)
    torch.testing.assert_close(changed, FLOW.flow(K, p), rtol=1e-7, atol=1e-6)


@pytest.mark.theorem("prop-covariance")
def test_the_residual_of_a_mean_is_a_covariance():
    """A(K) p is linear in each: with A(K) p = f almost surely, A(EK) Ep - f = -E A(K - EK)(p - Ep)."""
    flow = Darcy()
    p, K = flow.fields(flow.sample(20, seed=3).double())
    w = noise(20, seed=1).double().softmax(0)[:, None, None]
    mean_p, mean_K = (w * p).sum(0, keepdim=True), (w * K).sum(0, keepdim=True)
    gap = flow.flow(mean_K, mean_p) - flow.f
    covariance = (w * flow.flow(K - mean_K, p - mean_p)).sum(0, keepdim=True)
    # of the float32 that data are kept in
    torch.testing.assert_close(gap, -covariance, rtol=0, atol=1e-4)
    assert float(gap.abs().mean()) > 0.1


@pytest.mark.theorem("prop-squeeze")
def test_a_smaller_pressure_has_a_smaller_residual():
    """Over errors e and -e the mixed term is gone: the parabola is exact, and least where it says."""
    K, e = fields(1)
    p, f = FLOW.solve(K), FLOW.f
    rough = FLOW.flow(K, e).square().sum()

    def mean_square(a):
        both = [FLOW.flow(K, a * (p + s * e)) - f for s in (1, -1)]
        return float(sum(r.square().sum() for r in both) / 2)

    for a in (0.0, 0.3, 1.0, 1.4):
        want = (1 - a) ** 2 * f.square().sum() + a**2 * rough
        assert mean_square(a) == pytest.approx(float(want), rel=1e-9)
    best = float(f.square().sum() / (f.square().sum() + rough))
    assert 0 < best < 1
    assert mean_square(best) < min(mean_square(best - 0.01), mean_square(best + 0.01))
    # rough enough that zeros are better than the pressure itself
    assert mean_square(0.0) < mean_square(1.0)


# The law ------------------------------------------------------------------------------------------


def test_channels_and_fields_are_inverse():
    K, p = fields()
    back = FLOW.fields(FLOW.channels(p, K))
    torch.testing.assert_close(back, (p, K))


def test_the_root_squares_to_the_leading_part_of_the_covariance():
    values = torch.linalg.eigvalsh(FLOW.root @ FLOW.root)
    at = (torch.arange(8, dtype=torch.float64) + 0.5) / 8
    at = torch.cartesian_prod(at, at)
    full = torch.linalg.eigvalsh((-(at[:, None] - at).norm(dim=2) / 0.1).exp())
    torch.testing.assert_close(values[-24:], full[-24:])
    assert float(values[:-24].abs().max()) < 1e-9
    # and it knows no direction: no mode is cut from its pair
    for transpose in (
        lambda t: t.mT,
        lambda t: t.flip(1),
    ):
        fields_of = FLOW.root.square().sum(1).view(1, 8, 8)
        torch.testing.assert_close(transpose(fields_of), fields_of)


def test_channels_are_standardised_by_the_exact_moments():
    flow = Darcy()
    K = flow.permeability(4000, seed=5)
    centre, scale = flow.centre_and_scale
    assert float(K.mean()) == pytest.approx(float(centre[1]), rel=0.03)
    assert float(K.std()) == pytest.approx(float(scale[1]), rel=0.06)
    x = darcy("train", 500).images
    assert x.shape == (500, 2, 16, 16) and x.dtype == torch.float32
    assert float(x[:, 1].std()) == pytest.approx(1, abs=0.1) and 0.9 < float(x[:, 0].std()) < 1.4


def test_data_sets_repeat_and_splits_differ():
    a, b, c = darcy("train", 3), darcy("train", 3), darcy("test", 3)
    assert torch.equal(a.images, b.images) and not torch.equal(a.images, c.images)
    assert str(a) == "3 images, train, 16x16 pressure and permeability: generated, 24 modes"


# Judging and correcting ---------------------------------------------------------------------------


def test_reports_of_data_and_of_broken_data():
    flow, held_out = Darcy(), darcy("test", 300).images
    x = darcy("train", 100).images
    good = report(flow, x, held_out)
    assert good["residual"] < 1e-4 and good["re-solve"] < 1e-5 and good["not positive"] == 0
    other = x.clone()
    other[:, 0] = x[:, 0].roll(1, 0)  # each pressure with the permeability of another
    mixed = report(flow, other, held_out)
    assert mixed["std p"] == pytest.approx(good["std p"]) and mixed["std K"] == pytest.approx(
        good["std K"]
    )
    assert mixed["residual"] > 1 and mixed["re-solve"] > 0.2
    p, K = flow.fields(x.double())
    torch.testing.assert_close(
        re_solve_error(flow, flow.channels(1.25 * p, K)), torch.full((100,), 0.25).double()
    )


@pytest.mark.theorem("prop-darcy")
def test_residual_and_error_are_one_spectrum():
    flow, (K, p) = FLOW, fields()
    x = flow.channels(p, K)
    squares, values = error_spectrum(flow, x)
    assert squares.shape == values.shape == (3, 63)
    error = p - flow.solve(K)
    error = error - error.mean((1, 2), keepdim=True)
    torch.testing.assert_close(squares.sum(1), error.square().sum((1, 2)))
    torch.testing.assert_close((squares * values**2).sum(1), flow.residual(x).square().sum((1, 2)))


@pytest.mark.theorem("prop-descent")
def test_a_correction_shrinks_errors_by_the_factors_it_promises():
    K, p = fields()
    x, steps = FLOW.channels(p, K), 7
    moved = Corrected(Constant(x), FLOW, steps)(torch.zeros_like(x), 0.1)
    before, values = error_spectrum(FLOW, x)
    after, _ = error_spectrum(FLOW, moved)
    largest = 8 * 64 * K.amax((1, 2))[:, None]
    torch.testing.assert_close(
        after, before * (1 - (values / largest) ** 2) ** (2 * steps), rtol=1e-6, atol=1e-12
    )
    assert float((values / largest).max()) <= 1
    torch.testing.assert_close(moved[:, 1], x[:, 1])


def test_a_correction_waits_for_its_level():
    K, p = fields()
    x = FLOW.channels(p, K)
    late = Corrected(Constant(x), FLOW, 3, below=0.5)
    assert torch.equal(late(torch.zeros_like(x), 0.6), x)
    levels = torch.tensor([0.6, 0.4, 0.5])
    each = late(torch.zeros_like(x), levels)
    assert (
        torch.equal(each[0], x[0])
        and not torch.equal(each[1], x[1])
        and not torch.equal(each[2], x[2])
    )


# The loss -----------------------------------------------------------------------------------------


def ddpm():
    """alpha_bar of the released code, at t = 0 to 99, and beta before it is cut at .999."""
    angle = (torch.arange(100, dtype=torch.float64) / 100 + 0.008) / 1.008 * math.pi / 2
    a = angle.cos().square() / angle[0].cos().square()
    return a, 1 - a[1:] / a[:-1]


def test_levels_and_variances_are_those_of_the_released_process():
    a, beta = ddpm()
    sigma = ((1 - a[1:]) / a[1:]).sqrt()
    torch.testing.assert_close(physics.levels(), torch.cat([sigma.flip(0), torch.zeros(1)]))
    want = beta * (1 - a[:-1]) / (1 - a[1:])
    found = posterior_variance(sigma)
    torch.testing.assert_close(found[1:], want[1:], rtol=1e-9, atol=0)
    # the first takes the second's
    assert float(want[0]) < 1e-12 and float(found[0]) == pytest.approx(float(want[1]))
    torch.testing.assert_close(posterior_variance(sigma.float()), found.float(), rtol=1e-4, atol=0)


def test_penalties_of_the_mean_estimate_are_their_formulae():
    y, sigma = noise(5, 2, seed=2), torch.tensor([0.02, 0.1, 0.5, 2.0, 30.0])
    x_hat, observed = noise(5, 2, seed=3), VirtualObservation(CircleLaw.residual, 0.3)
    off, S = x_hat.square().sum(1) - 1, posterior_variance(sigma)
    each = off**2 / (2 * S)
    torch.testing.assert_close(observed(None, y, sigma, x_hat), 0.3 * each.mean())
    low = replace(observed, below=0.5)(None, y, sigma, x_hat)
    torch.testing.assert_close(low, 0.3 * each[:3].sum() / 5)
    assert bool((off > 0).any()) and bool((off < 0).any())
    only = replace(observed, kind="inequality")(None, y, sigma, x_hat)
    torch.testing.assert_close(only, 0.3 * (each * (off > 0)).mean())
    goal = replace(observed, kind="objective")(None, y, sigma, x_hat)
    torch.testing.assert_close(goal, 0.3 * off.mean())


def test_many_numbers_a_sample_count_as_their_mean():
    x = noise(5, 2, 3, 3, seed=3)
    one = VirtualObservation(lambda x: x, 1.0)(None, x, torch.ones(5), x)
    S = posterior_variance(torch.ones(1))
    torch.testing.assert_close(one, x.square().mean() / (2 * S[0]))


def test_a_constraint_is_tried_on_the_data():
    points = CircleLaw([0.0], [0.0], [1.0]).sample(50).float()
    good = VirtualObservation(CircleLaw.residual, 1.0)
    assert good.tried_on(points) is good
    inside = VirtualObservation(lambda x: x.norm(dim=1) - 1.5, 1.0, "inequality")
    assert inside.tried_on(points) is inside
    for constraint, kind, message in (
        (
            lambda x: 1.5 - x.norm(dim=1),
            "inequality",
            "100% of the data violate .* the sign is to be",
        ),
        (
            lambda x: 3 * x[:, 0] + 9,
            "equality",
            "residual of the data is .* an equation that the data",
        ),
        (
            lambda x: x.detach()[:, 0],
            "equality",
            "has no gradient, or holds NaN .* compute it from x",
        ),
        (lambda x: x.sum(), "objective", r"returned \(\) for x of shape \(50, 2\): .* \(50, ...\)"),
        (lambda x: 3.0, "objective", "returned float for x"),
        (lambda x: x[:, 0] / (0 * x[:, 1]), "inequality", "holds NaN or infinity, on the data"),
    ):
        with pytest.raises(ValueError, match=message):
            VirtualObservation(constraint, 1.0, kind).tried_on(points)


def test_guidance_is_the_posterior_mean_where_it_is_linear():
    """D(y) = y / (1 + sigma^2) is that of a normal law; the first coordinate was seen to be 0."""
    S, weight = float(posterior_variance(torch.tensor(1.0))), 0.3

    class Normal(Denoiser):
        def estimate(self, y, sigma):
            return y / (1 + sigma**2)

    y = noise(4, 2).double()
    found = physics.Guided(Normal(), lambda x: x[:, :1], weight)(y, 1.0)
    torch.testing.assert_close(found[:, 1], y[:, 1] / 2)
    torch.testing.assert_close(found[:, 0], y[:, 0] / 2 * (1 - weight / S / 2))
    assert not found.requires_grad
    start = noise(4, 2, seed=3).double()
    guided = physics.Guided(Normal(), lambda x: x[:, :1], weight)
    drawn = sampling.last(sampling.euler(guided, start, torch.tensor([1.0, 0.5, 0.0]).double()))
    assert drawn.shape == start.shape and bool(drawn.isfinite().all())
    # the score of the observation, by differences
    seen = lambda y: -weight * (y / 2).square() / (2 * S)  # noqa: E731
    slope = (seen(y[:, 0] + 1e-4) - seen(y[:, 0] - 1e-4)) / 2e-4
    torch.testing.assert_close(found[:, 0] - y[:, 0] / 2, slope, rtol=1e-6, atol=0)


def test_the_sample_estimate_asks_twice():
    law = CircleLaw([0.0], [3.0], [1.0])
    D, y, sigma = (
        CircleDenoiser(law),
        noise(5, 2, seed=2).double(),
        torch.tensor([0.01, 0.1, 0.5, 2.0, 30.0]).double(),
    )
    x_hat, first = D(y, sigma), physics.LOWEST
    lowest = sigma.clamp(max=first)
    x = D(x_hat + (lowest / sigma)[:, None] * (y - x_hat), lowest)
    want = VirtualObservation(law.residual, 1.0)(None, y, sigma, x)
    torch.testing.assert_close(
        VirtualObservation(law.residual, 1.0, estimate="sample")(D, y, sigma, x_hat), want
    )
    # at or below the lowest level there is nothing to jump over
    torch.testing.assert_close(x[0], x_hat[0])


def test_training_with_a_penalty():
    x = CircleLaw([0.0], [0.0], [1.0]).sample(200).float()
    recipe = PhysicsRecipe(
        steps=80, batch=64, rate=1e-2, noise=("cosine", 0.0251, 64.0), loss="snr"
    )

    def trained(weight, estimate="mean"):
        net, r = MLP(16, 2, seed=1), replace(recipe, weight=weight, estimate=estimate)
        losses = run(train(net, x, r, penalty=r.penalty(CircleLaw.residual)))
        return net, losses

    assert recipe.penalty(CircleLaw.residual) is None
    plain, losses = trained(0.0)
    again, others = trained(1e-30)
    assert losses[0] == pytest.approx(others[0], rel=1e-5)
    torch.testing.assert_close(plain(x, 1.0), again(x, 1.0), rtol=1e-3, atol=1e-3)
    y = x + 3.0 * noise(200, 2)
    for estimate in ("mean", "sample"):
        physical, _ = trained(1.0, estimate)
        assert not torch.equal(physical(y, 3.0), plain(y, 3.0))
    gap = {
        w: float(CircleLaw.residual(trained(w)[0](y, 3.0)).abs().mean().detach())
        for w in (0.0, 1.0)
    }
    assert gap[1.0] < gap[0.0]


def test_levels_of_the_recipe():
    r = PhysicsRecipe(noise=("cosine", 0.0251, 64.0))
    angles = r.levels(4000, torch.Generator().manual_seed(0)).atan()
    assert float(angles.min()) >= math.atan(0.0251) - 1e-6
    assert float(angles.max()) <= math.atan(64) + 1e-6
    assert float(angles.mean()) == pytest.approx((math.atan(0.0251) + math.atan(64)) / 2, abs=0.03)


def test_the_loss_of_the_paper_stops_at_five():
    """With one level for all, "min-snr" is "snr" above 1 / sqrt 5 and five times the error below."""
    x = noise(50, 2)

    def first(loss, sigma):
        recipe = PhysicsRecipe(steps=1, batch=8, loss=loss, noise=("fixed", sigma))
        return run(train(MLP(8, 2), x, recipe))[0]

    assert first("min-snr", 0.5) == pytest.approx(first("snr", 0.5), rel=1e-6)
    assert first("min-snr", 0.1) == pytest.approx(5 * 0.1**2 * first("snr", 0.1), rel=1e-6)


def test_a_unet_of_pairs():
    net = UNet(blocks=2, channels=4, image_channels=2, normalisation="none", bias=True, blind=False)
    y = noise(3, 2, 16, 16)
    assert net(y, 1.0).shape == y.shape
    with pytest.raises(ValueError, match=r"takes \(batch, 2, H, W\)$"):
        net(y[:, 0], 1.0)
    with pytest.raises(ValueError, match="image_channels is 5: .* or 2 for pairs of fields"):
        UNet(image_channels=5)


# The circle ---------------------------------------------------------------------------------------


LAW = CircleLaw([0.0, 2.1, 4.2], [8.0, 0.0, 2.0], [5.0, 2.0, 3.0])


def test_the_posterior_mean_is_an_integral_over_the_circle():
    t = torch.arange(20000, dtype=torch.float64) * 2 * math.pi / 20000
    x = torch.stack([t.cos(), t.sin()], 1)
    density = LAW.density(t)
    assert float(density.mean()) * 2 * math.pi == pytest.approx(1)
    y = noise(6, 2, seed=1).double()
    for sigma in (0.05, 0.5, 3.0):
        w = density * (-(y[:, None] - x).square().sum(2) / (2 * sigma**2)).exp()
        want = (w[..., None] * x).sum(1) / w.sum(1, keepdim=True)
        torch.testing.assert_close(CircleDenoiser(LAW)(y, sigma), want, rtol=0, atol=1e-9)


def test_samples_of_the_circle_follow_its_law():
    x = LAW.sample(20000, seed=1)
    assert float(LAW.residual(x).abs().max()) < 1e-12
    want = CircleDenoiser(LAW)(torch.zeros(1, 2).double(), 1e6)[0]  # at endless noise: the mean
    torch.testing.assert_close(x.mean(0), want, rtol=0, atol=0.015)
    assert torch.equal(LAW.sample(5, seed=1), LAW.sample(5, seed=1))


@pytest.mark.theorem("prop-best-mean")
@settings(max_examples=40, deadline=None)
@given(st.floats(1e-6, 10), st.floats(0.02, 40), st.integers(0, 10_000))
def test_with_a_weight_it_minimises_pointwise(weight, sigma, seed):
    y = 2 * noise(4, 2, seed=seed).double() + 0.01
    m, v = CircleDenoiser(LAW)(y, sigma), CircleDenoiser(LAW, weight)(y, sigma)
    S = posterior_variance(torch.tensor(sigma).double())

    def loss(v):
        return min(1 / sigma**2, 5) * (v - m).square().sum(-1) / 2 + weight * (
            v.square().sum(-1) - 1
        ) ** 2 / (2 * S)

    assert bool((m.norm(dim=1) <= v.norm(dim=1) + 1e-9).all() and (v.norm(dim=1) <= 1 + 1e-9).all())
    t = torch.linspace(0, 2 * math.pi, 61, dtype=torch.float64)[:-1]
    radii = torch.linspace(0, 1.2, 61, dtype=torch.float64)
    grid = radii[:, None, None] * torch.stack([t.cos(), t.sin()], 1)
    least = loss(grid.view(-1, 1, 2)).amin(0)
    assert bool((loss(v) <= least * (1 + 1e-9) + 1e-12).all())


@pytest.mark.theorem("prop-best-mean")
def test_where_the_mean_says_nothing_a_guess_appears_above_a_level():
    """Uniform law, endless noise: the radius is 0 up to 2 c sigma^2 = S and sqrt(1 - S / (2 c
    sigma^2)) beyond."""
    D, sigma = (
        CircleDenoiser(CircleLaw([0.0], [0.0], [1.0]), 0.01),
        torch.tensor([1.0, 5.0, 10.0, 30.0]).double(),
    )
    b = 0.02 * sigma**2 / posterior_variance(sigma)
    found = D(torch.tensor([[1e-9, 0.0]]).double().expand(4, 2), sigma).norm(dim=1)
    torch.testing.assert_close(found, (1 - 1 / b).clamp(min=0).sqrt(), rtol=0, atol=1e-4)
    assert float(found[0]) < 1e-6 and float(found[-1]) > 0.9


# The record ---------------------------------------------------------------------------------------


def test_the_record_is_complete():
    trials, kept = recorded.load("physics"), {}
    for row in trials["weighting"]["rows"]:
        key = row["loss"], row["estimate"], row["weight"], row["steps"]
        kept.setdefault(key, []).append(row["seed"])
        assert row["residual"] > 0 and len(row["error"]) == len(row["residual of the mean"]) == 6
    factors = [(loss, "mean", w, 4000) for loss in ("min-snr", "snr") for w in (0.0, 1e-4)]
    assert all(kept[key] == [0, 1, 2] for key in [*factors, ("snr", "sample", 1e-5, 4000)])
    untaught = trials["weighting"]["baselines"]
    for row in untaught["fresh data"]:
        assert row["residual"] < 1e-4 and row["re-solve"] < 1e-5
    for row in untaught["no pressure"]:  # that is mean |f|, and no solution
        assert row["residual"] == pytest.approx(10 * 2 / 64) and row["re-solve"] == pytest.approx(1)
    solved = [row for row in trials["rivals"]["rows"] if row["kind"] == "solved"]
    assert len(solved) == 3 and max(row["residual"] for row in solved) < 1e-6


@pytest.mark.skipif(
    "darcy-vanilla" not in models.manifest(), reason="its network is not trained: make models"
)
def test_the_network_that_ships_is_the_recorded_one():
    flow, network = Darcy(), models.load("darcy-vanilla")
    noise = sampling.initial_noise(48, 2, 16, 16, sigma=physics.HIGHEST, seed=100).float()
    x = sampling.last(sampling.reverse_sde(network, noise, physics.levels(), seed=0))
    then = next(
        row
        for row in recorded.load("physics")["weighting"]["rows"]
        if (row["loss"], row["weight"], row["steps"], row["seed"]) == ("snr", 0.0, 4000, 0)
    )
    now = report(flow, x, darcy("test", 100).images)
    for key in ("residual", "re-solve", "std p", "std K"):
        assert now[key] == pytest.approx(then[key], rel=0.3), key


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Darcy(12), "size is 12: .* take a multiple of 8"),
        (lambda: Darcy(8, modes=65), "modes is 65: .* at most 64"),
        (lambda: Darcy(8, length=0), "length is 0: a correlation length is positive"),
        (
            lambda: FLOW.fields(torch.zeros(2, 1, 8, 8)),
            r"x has shape \(2, 1, 8, 8\): pass \(batch, 2, 8, 8\)",
        ),
        (lambda: FLOW.solve(torch.ones(8, 8)), r"K has shape \(8, 8\): pass \(batch, 8, 8\)"),
        (
            lambda: FLOW.solve(torch.zeros(1, 8, 8)),
            "A\\(K\\) is singular: K must connect all cells",
        ),
        (lambda: darcy("valid"), "split is 'valid': choose one of train, test"),
        (lambda: Corrected(Constant(torch.zeros(1)), FLOW, 0), "steps is 0"),
        (
            lambda: VirtualObservation(physics.CircleLaw.residual, 1.0, estimate="both"),
            "estimate is 'both': choose one of mean, sample",
        ),
        (
            lambda: VirtualObservation(physics.CircleLaw.residual, 1.0, "soft"),
            "kind is 'soft': choose one of equality, inequality, objective",
        ),
        (
            lambda: VirtualObservation(physics.CircleLaw.residual, -1.0),
            "weight is -1.0: take a number of at least 0",
        ),
        (
            lambda: VirtualObservation(physics.CircleLaw.residual, 1.0, below=0.0),
            "below is 0.0: take a noise level",
        ),
        (
            lambda: CircleLaw([0.0], [1.0, 2.0], [1.0]),
            "1 angles, 2 concentrations, 1 weights: pass one of each",
        ),
        (lambda: CircleLaw([0.0], [-1.0], [1.0]), "concentrations .*: take none negative"),
        (lambda: CircleDenoiser(LAW, math.inf), "weight is inf: take a number"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
