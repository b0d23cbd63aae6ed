"""Half a bottleneck is free: each statement of chapter 5 by another route."""

import math

import pytest
import torch

from helpers import metrics, sampling
from helpers.data import moons
from helpers.denoisers import (
    FreeDecoder,
    FreeEncoder,
    GaussianMixture,
    LinearDenoiser,
    Polynomial,
    PosteriorMean,
    ProjectedDenoiser,
    RandomFeatures,
    Zigzag,
)

SKEWED = GaussianMixture(
    [[-1.5, 0.4], [1.0, 0.6], [0.6, -1.2]],
    weights=[0.5, 0.3, 0.2],
    covariances=torch.tensor(
        [[[0.4, 0.2], [0.2, 0.3]], [[0.1, 0], [0, 0.5]], [[0.2, -0.1], [-0.1, 0.1]]]
    ),
)
TWELVE = moons().sample(12, seed=0)
BOTH = (FreeDecoder, ProjectedDenoiser)


def plane(n=801, extent=6.0):
    """A grid of x and the weights of SKEWED on it: the trapezoidal rule, exact to 1e-10 for it."""
    line = torch.linspace(-extent, extent, n, dtype=torch.float64)
    x = torch.cartesian_prod(line, line)
    p = SKEWED.log_prob(x).exp()
    return x, p / p.sum()


@pytest.mark.theorem("prop-bottleneck-decoder")
@pytest.mark.parametrize("sigma", [0.3, 1.5])
def test_the_free_decoder_is_the_mean_given_the_code(sigma):
    """By quadrature over the plane, of which nothing but the density is used."""
    denoiser, (x, p) = FreeDecoder(SKEWED, 1), plane()
    y = 2 * torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    of_x, of_y = ((z - SKEWED.mean) @ denoiser.basis for z in (x, y))
    w = p * torch.exp(-0.5 * ((of_y - of_x.T) / sigma) ** 2)
    mean = w @ x / w.sum(1, keepdim=True)
    assert torch.allclose(denoiser(y, sigma), mean, atol=1e-9)
    assert (ProjectedDenoiser(SKEWED, 1)(y, sigma) - mean).abs().max() > 0.1  # the other decoder


@pytest.mark.theorem("prop-bottleneck-decoder")
def test_in_two_numbers_nothing_is_lost():
    y = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for kind in (FreeDecoder, FreeEncoder):
        assert torch.allclose(kind(SKEWED, 2)(y, 0.7), SKEWED(y, 0.7), atol=1e-12)
        assert torch.allclose(kind(TWELVE, 2)(y, 0.7), PosteriorMean(TWELVE)(y, 0.7), atol=1e-12)


@pytest.mark.theorem("prop-bottleneck-decoder")
@pytest.mark.parametrize("target", [SKEWED, TWELVE], ids=["mixture", "points"])
@pytest.mark.parametrize("sampler", [sampling.euler, sampling.heun])
def test_its_code_follows_the_projected_flow_step_by_step(target, sampler):
    start, sigmas = sampling.initial_noise(50, 2, sigma=20), sampling.edm(12, 0.1, 20.0)
    free, tied = (kind(target, 1) for kind in BOTH)
    paths = [sampling.trajectory(start, sampler(d, start, sigmas)) for d in (free, tied)]
    codes = [(path - free.mean) @ free.basis for path in paths]
    assert torch.allclose(*codes, atol=1e-10)
    end, before = paths[0][-1], codes[1][-2]
    assert torch.allclose(end, free.decode(before, float(sigmas[-2])), atol=1e-10)
    assert (paths[0][-1] - paths[1][-1]).abs().max() > 0.1


@pytest.mark.theorem("prop-bottleneck-decoder")
def test_the_flow_ends_where_the_decoder_says_without_a_last_step():
    """To sigma = .003 by small steps, none of which returns the estimate: Euler's error is of the
    order of the step, in log sigma .03."""
    free = FreeDecoder(SKEWED, 1)
    start, sigmas = sampling.initial_noise(20, 2, sigma=20), sampling.log_linear(300, 3e-3, 20.0)
    *_, before, _ = sampling.trajectory(start, sampling.euler(free, start, sigmas))
    code = (before - free.mean) @ free.basis
    assert torch.allclose(before, free.decode(code, 3e-3), atol=0.02)
    assert (before - free.decode(code, 0.5)).abs().max() > 0.1


@pytest.mark.theorem("prop-bottleneck-decoder")
def test_the_generated_law_lacks_the_variance_given_the_code():
    """Law of total variance, by quadrature against samples of the flow's end."""
    free, n = FreeDecoder(SKEWED, 1), 100_000
    codes = free.inner.sample(n, seed=1)
    made = free.decode(codes, 1e-4)
    x, p = plane()
    of_x = (x - SKEWED.mean) @ free.basis
    within = x - free.decode(of_x, 1e-4)
    lost = (p[:, None] * within).T @ within
    want = SKEWED.covariance - lost
    assert torch.allclose(torch.cov(made.T), want, atol=0.02)
    assert (SKEWED.covariance - want).trace() > 0.2
    # at the nodes of the plane, without chance: the same decomposition to rounding
    image = free.decode(of_x, 1e-4) - SKEWED.mean
    assert torch.allclose((p[:, None] * image).T @ image, want, atol=1e-6)


@pytest.mark.theorem("prop-bottleneck-decoder")
def test_twelve_points_are_copied_through_one_number():
    start = sampling.initial_noise(1000, 2, sigma=80)
    free, tied = (
        sampling.last(sampling.heun(kind(TWELVE, 1), start, sampling.edm(40, 5e-4)))
        for kind in BOTH
    )
    distance, index = metrics.nearest(free, TWELVE, k=1)
    assert distance.max() < 1e-8
    share = torch.bincount(index[:, 0], minlength=12) / len(free)
    assert (share - 1 / 12).abs().max() < 5 * math.sqrt(11 / 144 / len(free))
    assert metrics.share_of_copies(free, TWELVE) == 1.0
    assert metrics.share_of_copies(tied, TWELVE) < 0.2  # the linear decoder


@pytest.mark.theorem("prop-bottleneck-decoder")
def test_points_with_one_code_become_their_mean():
    points = torch.tensor([[-1.0, 1.0], [-1.0, 0.0], [2.0, 3.0]], dtype=torch.float64)
    axis = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    start = sampling.initial_noise(300, 2, sigma=80)
    end = sampling.last(sampling.heun(FreeDecoder(points, 1, axis), start, sampling.edm(40)))
    left, right = torch.tensor([[-1.0, 0.5]]).double(), points[2:]
    assert metrics.nearest(end, torch.cat([left, right]), k=1)[0].max() < 1e-9
    assert 0.6 < float((end[:, 0] < 0).double().mean()) < 0.73  # two thirds


@pytest.mark.theorem("prop-bottleneck-encoder")
@pytest.mark.parametrize("angle", [0.0, 0.6, 1.2])
def test_a_free_encoder_ends_on_feet_that_are_nearest_to_their_own_point(angle):
    axis = torch.tensor([[math.cos(angle)], [math.sin(angle)]], dtype=torch.float64)
    denoiser = FreeEncoder(TWELVE, 1, axis)
    feet = denoiser.mean + (TWELVE - denoiser.mean) @ axis @ axis.T
    own = metrics.nearest(feet, TWELVE, k=1)[1][:, 0] == torch.arange(12)
    start = sampling.initial_noise(1000, 2, sigma=80)
    end = sampling.last(sampling.heun(denoiser, start, sampling.edm(200, 1e-4)))
    distance, index = metrics.nearest(end, feet, k=1)
    reached = torch.bincount(index[:, 0], minlength=12) > 0
    assert distance.max() < 1e-6
    assert torch.equal(reached, own) and 0 < own.sum() < 12


@pytest.mark.theorem("prop-bottleneck-encoder")
def test_the_free_encoder_has_the_least_error_of_its_decoder():
    """Its error is what the plane loses and the least error in the plane, by quadrature; any other
    encoder, as that of the tied bottleneck, has more."""
    sigma, (y, w, residual) = 0.7, SKEWED.nodes(0.7, 40)
    free, tied = FreeEncoder(SKEWED, 1), ProjectedDenoiser(SKEWED, 1)
    best = y + residual  # E[x | y, component], whose mean over components is D
    gaps = [w @ (d(y, sigma) - best).square().sum(1) for d in (free, tied)]
    assert gaps[0] < gaps[1] - 1e-3
    off = torch.eye(2).double() - free.basis @ free.basis.T
    assert (off @ (free(y, sigma) - SKEWED.mean).T).abs().max() < 1e-12
    # orthogonality: what is left of x in the plane is uncorrelated with any function of y
    left = ((best - free(y, sigma)) @ free.basis)[:, 0]
    for f in (torch.ones(len(y)).double(), y[:, 0], y.norm(dim=1), torch.tanh(3 * y[:, 1])):
        assert abs(float(w @ (left * f))) < 1e-3 * float(w @ left.abs())


@pytest.mark.theorem("prop-bottleneck-both")
def test_one_number_is_enough_where_both_halves_are_free():
    """The excess falls as the square of the spacing; a linear encoder is left far behind."""
    y, w, _ = SKEWED.nodes(0.5, 40)
    best, excess = SKEWED(y, 0.5), []
    for spacing in (0.4, 0.2, 0.1):
        zigzag = Zigzag(SKEWED, spacing, extent=20.0)
        code = zigzag.encode(y, 0.5)
        assert code.shape == (len(y),)
        gap = (zigzag.decode(code) - best).norm(dim=1)
        assert gap.max() <= spacing / 2 + 1e-9
        excess.append(float(w @ gap**2) / spacing**2)
    assert max(excess) < 1 / 4 and math.isclose(excess[1], 1 / 12, rel_tol=0.2)  # a uniform rest
    linear = w @ (FreeDecoder(SKEWED, 1)(y, 0.5) - best).square().sum(1)
    assert linear > 10 * excess[0] * 0.4**2


@pytest.mark.theorem("prop-bottleneck-both")
def test_its_decoder_is_one_continuous_curve():
    """As long as the code, through links, and turning at the ends of rows only."""
    zigzag = Zigzag(SKEWED, 0.5, extent=2.0)
    codes = torch.linspace(-9, 9, 18_001, dtype=torch.float64)
    step = zigzag.decode(codes).diff(dim=0)
    assert torch.allclose(step.norm(dim=1), torch.full_like(codes[1:], 1e-3), atol=1e-9)
    turns = codes[1:-1][step.diff(dim=0).norm(dim=1) > 1e-6]
    ends = torch.tensor([2, 2.5, 6.5, 7], dtype=torch.float64)
    assert torch.allclose(turns, torch.cat([-ends.flip(0), ends]), atol=1e-9)


@pytest.mark.theorem("prop-bottleneck-both")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_keeps_its_bound_over_thousands_of_rows_and_at_their_ends(dtype):
    spacing, g = 1e-3, torch.Generator().manual_seed(0)
    y = (2 * torch.randn(1000, 2, generator=g)).to(dtype)
    gap = (Zigzag(SKEWED, spacing)(y, 0.5) - SKEWED(y, 0.5)).norm(dim=1)
    assert gap.max() <= spacing / 2 + 10 * torch.finfo(dtype).eps
    ends = torch.tensor([[-1.0, k / 2] for k in range(-2, 3)], dtype=dtype)  # of five rows
    ends = torch.cat([ends, ends * torch.tensor([-1, 1])])
    assert torch.equal(Zigzag(ends, 0.5, extent=1.0)(ends, 0.01), ends)


@pytest.mark.theorem("prop-bottleneck-both")
def test_it_copies_twelve_points_through_one_number():
    start = sampling.initial_noise(500, 2, sigma=80)
    end = sampling.last(sampling.heun(Zigzag(TWELVE, 0.01), start, sampling.edm(40)))
    assert metrics.nearest(end, TWELVE, k=1)[0].max() <= 0.005 + 1e-9
    assert metrics.share_of_copies(end, TWELVE) == 1.0
    coarse = sampling.last(sampling.heun(Zigzag(TWELVE, 2.0), start, sampling.edm(40)))
    assert metrics.nearest(coarse, TWELVE, k=1)[0].max() > 0.1


def test_a_code_of_another_length_is_refused():
    denoiser = FreeDecoder(torch.rand(9, 3), 2)
    with pytest.raises(ValueError, match="shape"):
        denoiser.decode(torch.zeros(4, 1), 0.3)
    with pytest.raises(ValueError, match="sigma"):
        denoiser.decode(torch.zeros(4, 2), -1.0)


@pytest.mark.parametrize("kind", [ProjectedDenoiser, FreeDecoder, FreeEncoder])
@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_points_and_axes_may_have_any_precision(kind, given):
    """Half precision is computed in float32, beside float64 on the same points."""
    points, y = TWELVE.to(given), torch.randn(9, 2, generator=torch.Generator().manual_seed(0))
    for axis in (None, *(torch.tensor([[0.0], [1.0]]).to(t) for t in (torch.float16, given))):
        want = kind(points.double(), 1, None if axis is None else axis.double())(y.double(), 0.5)
        found = kind(points, 1, axis)(y, 0.5)
        assert found.dtype == y.dtype and torch.allclose(found.double(), want, atol=1e-5)


@pytest.mark.parametrize("given", [torch.float16, torch.bfloat16])
def test_a_line_through_points_of_half_precision(given):
    points = TWELVE.to(given)
    want = LinearDenoiser.from_points(points.float())(torch.ones(2, 2), 0.3)
    torch.testing.assert_close(LinearDenoiser.from_points(points)(torch.ones(2, 2), 0.3), want)


def test_a_code_may_be_of_half_precision():
    """Squares of its differences, over those of a small level, are above what that can hold."""
    code, denoiser = torch.tensor([[2.0], [-1.0]]).half(), FreeDecoder(TWELVE, 1)
    want = denoiser.decode(code.double(), 1e-3)
    assert torch.equal(denoiser.decode(code, 1e-3), want.half())


@pytest.mark.parametrize(
    "build",
    [
        lambda target: FreeDecoder(target, 1),
        lambda target: FreeEncoder(target, 1),
        lambda target: Zigzag(target, 0.1),
        lambda target: Polynomial(target, 3),
        lambda target: RandomFeatures(target, 3),
    ],
)
def test_the_target_keeps_its_precision(build):
    target = moons()
    build(target).float()
    assert target.means.dtype == target(TWELVE, 0.3).dtype == torch.float64
