"""Bad input: a ValueError whose message names the value and the remedy."""

import math
import re

import pytest
import torch

from helpers import data, density, metrics, plots, sampling, training
from helpers.denoisers import (
    MLP,
    FreeDecoder,
    FreeEncoder,
    GaussianMixture,
    LinearConvolution,
    LinearDenoiser,
    PerLevelMLP,
    Polynomial,
    PosteriorMean,
    ProjectedDenoiser,
    RandomFeatures,
    Zigzag,
)
from helpers.experiments import ledger
from helpers.training import Recipe

POINTS = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MEAN, EYE, BAD = torch.zeros(2), torch.eye(2), torch.tensor([[0.0, math.nan]])
SCHEDULE, START = sampling.log_linear(5), torch.zeros(3, 2)

MIXTURE = GaussianMixture(POINTS, 0.1)


@pytest.mark.parametrize(
    ("y", "sigma", "value", "remedy"),
    [
        (START, 0.0, "sigma is 0.0", "positive and finite"),
        (START, -1.0, "sigma is -1.0", "positive and finite"),
        (START, math.nan, "sigma is nan", "positive and finite"),
        (START, math.inf, "sigma is inf", "positive and finite"),
        (START, torch.tensor([1.0, -2.0, 1.0]), "sigma is -2.0", "positive and finite"),
        (START, torch.ones(2), "sigma has shape (2,) for a batch of 3", "shape (batch,)"),
        (START, torch.ones(3, 1), "sigma has shape (3, 1)", "shape (batch,)"),
        (torch.zeros(2), 1.0, "y has shape (2,)", "one point is y[None]"),
        (torch.zeros(3, 5), 1.0, "y has shape (3, 5)", "(batch, 2)"),
        (torch.zeros(3, 2, 1), 1.0, "y has shape (3, 2, 1)", "(batch, 2)"),
        (torch.zeros(3, 2, dtype=torch.int64), 1.0, "dtype torch.int64", "y.float()"),
        (torch.cat([START, BAD]), 1.0, "NaN or infinity (first in row 3)", "drop diverged points"),
    ],
)
def test_what_all_denoisers_check(y, sigma, value, remedy):
    """All: `tests/contract/test_contract.py` holds them to the one `forward`."""
    with pytest.raises(ValueError, match=f"{re.escape(value)}.*{re.escape(remedy)}"):
        MIXTURE(y, sigma)


TRAINING_SETS = {
    "posterior mean": PosteriorMean,
    "linear": LinearDenoiser.from_points,
    "projected": lambda x: ProjectedDenoiser(x, 1),
    "polynomial": lambda x: Polynomial(x, 1),
    "random features": lambda x: RandomFeatures(x, 3),
    "mixture": GaussianMixture,
    "convolution": lambda x: LinearConvolution.from_points(x, 1),
    "training": lambda x: next(training.train(MLP(4), x)),
    "training levels": lambda x: next(training.train_levels(PerLevelMLP(torch.ones(1)), x)),
    "nearest": lambda x: metrics.nearest(x, x),
    "transport": lambda x: metrics.exact_w2(x, x),
    "sliced transport": lambda x: metrics.sliced_w2(x, x),
}


@pytest.mark.parametrize("build", TRAINING_SETS.values(), ids=TRAINING_SETS)
@pytest.mark.parametrize(
    ("points", "value", "remedy"),
    [
        (torch.zeros(0, 2), "is empty, shape (0, 2)", "at least one point"),
        (torch.zeros(3, 0), "is empty, shape (3, 0)", "at least one point"),
        (torch.zeros(3), "has shape (3,)", "(N, *event)"),
        (BAD, "holds NaN or infinity", "remove those rows"),
    ],
)
def test_every_training_set_is_checked(build, points, value, remedy):
    with pytest.raises(ValueError, match=f"{re.escape(value)}.*{re.escape(remedy)}"):
        build(points)


def first(generator):
    """A generator does nothing, and checks nothing, until it is asked."""
    return next(generator)


CASES = [
    # denoisers
    (lambda: Polynomial(POINTS, 0), "degree is 0", "at least 1"),
    (lambda: Polynomial(POINTS, -1), "degree is -1", "at least 1"),
    (lambda: Polynomial(POINTS, 1.5), "degree is 1.5", "whole number"),
    (lambda: Polynomial(POINTS, math.nan), "degree is nan", "whole number"),
    (lambda: Polynomial(torch.zeros(5, 50), 3), "dimension 50 has 23426 monomials", "reduce the dimension"),
    (lambda: Polynomial(torch.randn(5, 50), 1)(torch.zeros(1, 50), 1.0), "2^50 nodes", "a lower dimension"),
    (lambda: Polynomial(POINTS[:2], 3)(START, 1e-5), "singular at sigma = 1e-05", "lower the degree"),
    (lambda: Polynomial(POINTS[:2], 3, True)(START, 1e-5), "singular at sigma = 1e-05", "distinct training points"),
    (lambda: Polynomial(POINTS, 2).potential(START, 1.0), "potential", "gradient=True"),
    (lambda: Polynomial(POINTS, 2).normalisable(1.0), "normalisable", "gradient=True"),
    (lambda: Polynomial(torch.randn(30, 3), 1, True).leading_form(1.0), "dimension 3", "1 and 2 only"),
    (lambda: RandomFeatures(POINTS, 0), "width is 0", "at least 1"),
    (lambda: RandomFeatures(POINTS, 5, ridge=0.0), "ridge is 0", "positive ridge"),
    (lambda: LinearDenoiser.from_points(POINTS, 3), "rank is 3, above the dimension 2", "choose 1 to 2"),
    (lambda: LinearDenoiser.from_points(POINTS, 0), "rank is 0", "at least 1"),
    (lambda: LinearDenoiser.from_moments(MEAN, EYE, 5), "rank is 5, above the dimension 2", "choose 1 to 2"),
    (lambda: LinearDenoiser.from_moments(MEAN, -EYE), "eigenvalue -1", "positive semi-definite"),
    (lambda: LinearDenoiser.from_moments(MEAN, torch.eye(3)), "(3, 3)", "must be (2, 2)"),
    (lambda: LinearDenoiser.from_points(POINTS).truncated(3), "rank is 3", "choose 1 to 2"),
    (lambda: LinearDenoiser(MEAN, EYE, torch.ones(3)), "axes have shape (2, 2)", "must be (2, 3)"),
    (lambda: LinearDenoiser(MEAN, EYE, -torch.ones(2)), "variance is -1.0", "cannot be negative"),
    (lambda: ProjectedDenoiser(POINTS, 3), "rank is 3, above the dimension 2", "choose 1 to 2"),
    (lambda: ProjectedDenoiser(POINTS, 1, torch.ones(2, 1).double()), "basis has shape (2, 1)", "orthonormal"),
    (lambda: ProjectedDenoiser(POINTS, 1, EYE.double()), "basis has shape (2, 2)", "(2, 1)"),
    (lambda: FreeDecoder(POINTS, 3), "rank is 3, above the dimension 2", "choose 1 to 2"),
    (lambda: FreeEncoder(POINTS, 1, EYE.double()), "basis has shape (2, 2)", "(2, 1)"),
    (lambda: Zigzag(POINTS, 0.0), "spacing is 0.0", "positive"),
    (lambda: Zigzag(torch.randn(9, 3), 0.1), "(3,)", "in the plane"),
    (lambda: PosteriorMean(POINTS, smoothing=-0.1), "smoothing is -0.1", "0 switches it off"),
    (lambda: PosteriorMean(POINTS, 0.1, shifts=0), "shifts is 0", "at least 1"),
    (lambda: PosteriorMean(POINTS).weights(START, 0.0), "sigma is 0.0", "positive and finite"),
    (lambda: GaussianMixture(POINTS, -0.1), "std is -0.1", "cannot be negative"),
    (lambda: GaussianMixture(POINTS, math.nan), "std is nan", "cannot be negative"),
    (lambda: GaussianMixture(POINTS, torch.ones(3)), "std has shape (3,) for 9 components", "one number or 9"),
    (lambda: GaussianMixture(POINTS, weights=[1.0]), "weights [1.0] for 9 components", "9 positive numbers"),
    (lambda: GaussianMixture(POINTS[:2], weights=[1, 0]), "weights [1.0, 0.0]", "2 positive numbers"),
    (lambda: GaussianMixture(POINTS, covariances=EYE), "covariances have shape (2, 2)", "(9, 2, 2)"),
    (lambda: GaussianMixture(POINTS[:1], covariances=-EYE[None]), "eigenvalue -1", "positive semi-definite"),
    (lambda: GaussianMixture(POINTS).log_prob(POINTS), "sigma is 0.0", "sigma > 0"),
    (lambda: GaussianMixture(POINTS, 0.1).log_prob(POINTS, -1.0), "sigma is -1.0", "sigma > 0"),
    (lambda: GaussianMixture(POINTS, 0.1).sample(0), "n is 0", "at least 1"),
    (lambda: GaussianMixture(POINTS).nodes(1.0, 1000), "1000^2 nodes", "fewer points"),
    (lambda: LinearConvolution(-torch.ones(4), 1), "spectrum has shape (4,)", "variances >= 0"),
    (lambda: LinearConvolution(torch.ones(4), 2), "support is 2", "odd width from 1 to 4"),
    (lambda: LinearConvolution(torch.ones(4, 6), 5), "support is 5", "odd width from 1 to 4"),
    (lambda: LinearConvolution(torch.ones(4), torch.zeros(4, dtype=torch.bool)), "support has shape (4,)", "one pixel"),
    (lambda: LinearConvolution(torch.ones(4), torch.ones(5, dtype=torch.bool)), "support has shape (5,)", "shape (4,)"),
    (lambda: LinearConvolution(torch.ones(4), 1).generated_spectrum(2.0, 1.0), "from 1.0 down to 2.0", "0 < smallest"),
    (lambda: MLP(8, activation="gelu"), "activation is 'gelu'", "relu, silu, tanh"),
    (lambda: MLP(0), "width is 0", "at least 1"),
    (lambda: MLP(8, depth=0), "depth is 0", "at least 1"),
    (lambda: MLP(8, data_std=0.0), "data_std is 0", "positive number"),
    (lambda: PerLevelMLP(SCHEDULE), "0.002, 0.0]", "schedule[:-1]"),
    (lambda: PerLevelMLP(torch.ones(1), code=0), "code is 0", "at least 1"),
    (lambda: PerLevelMLP(torch.ones(1), data_std=-1.0), "data_std is -1", "positive number"),
    # schedules and samplers
    *[(lambda f=f: f(0), "steps is 0", "at least 1") for f in
      (sampling.edm, sampling.log_linear, sampling.cosine_vp, sampling.ddim_linear)],
    (lambda: sampling.edm(10, 2.0, 1.0), "from 1.0 down to 2.0", "0 < smallest < largest"),
    (lambda: sampling.edm(10, rho=0), "rho is 0", "EDM takes 7"),
    (lambda: sampling.log_linear(10, 0.0), "down to 0.0", "0 < smallest"),
    (lambda: sampling.cosine_vp(10, math.inf), "inf", "both finite"),
    (lambda: sampling.cosine_vp(10, -1.0), "from -1.0", "0 < smallest"),
    (lambda: sampling.ddim_linear(2000), "steps is 2000", "at most 1000"),
    (lambda: sampling.initial_noise(0, 2, sigma=1.0), "n is 0", "at least 1"),
    (lambda: sampling.initial_noise(5, 2, sigma=-1.0), "sigma is -1.0", "positive"),
    *[(lambda s=s, levels=levels: first(s(MIXTURE, START, torch.tensor(levels))), "sigmas [", "decreases strictly")
      for s in (sampling.euler, sampling.heun, sampling.reverse_sde, sampling.langevin, sampling.gradient_estimation)
      for levels in ([1.0], [1.0, 2.0], [1.0, 1.0, 0.0], [1.0, -0.5], [math.nan, 0.0], [1.0, math.nan])],
    (lambda: sampling.last([]), "no step", "at least two levels"),
    (lambda: first(sampling.langevin(MIXTURE, START, SCHEDULE, rate=1.0)), "rate is 1.0", "0 < rate < 1"),
    (lambda: first(sampling.langevin(MIXTURE, START, SCHEDULE, corrections=-1)), "corrections is -1", "0 leaves"),
    (lambda: first(sampling.gradient_estimation(MIXTURE, START, SCHEDULE, gamma=math.nan)), "gamma is nan", "2"),
    *[(lambda o=o: first(sampling.stochastic_ascent(MIXTURE, START, **{"sigma": 1.0, **o})), v, "(0, 1]")
      for o, v in (({"h": 0.0}, "h=0.0"), ({"beta": 1.5}, "beta=1.5"), ({"sigma": 0.01}, "sigma=0.01"),
                   ({"sigma_stop": 0.0}, "sigma_stop=0.0"))],
    (lambda: sampling.last(sampling.stochastic_ascent(MIXTURE, START + 1, 1.0, max_steps=3)), "after 3 steps", "raise"),
    # densities and measures
    (lambda: density.grid(0.0), "extent 0.0", "extent > 0"),
    (lambda: density.grid(dimension=3), "dimension 3", "1 or 2"),
    (lambda: density.grid(n=0), "n is 0", "at least 1"),
    (lambda: density.generated_log_density(MIXTURE, START, 2.0, 1.0), "from 1.0 down to 2.0", "0 < smallest"),
    (lambda: density.generated_log_density(MIXTURE, START, steps=0), "steps is 0", "at least 1"),
    (lambda: density.generated_log_density(MIXTURE, START[0]), "y has shape (2,)", "one point is y[None]"),
    (lambda: density.generated_log_density(MIXTURE, BAD), "NaN", "drop"),
    (lambda: metrics.nearest(START, POINTS, k=10), "k is 10 with 9 distinct training points", "choose 1 to 9"),
    (lambda: metrics.nearest(START, POINTS, k=0), "k is 0", "choose 1 to 9"),
    (lambda: metrics.nearest(START, torch.zeros(4, 3)), "dimension 2", "one space"),
    (lambda: metrics.is_copy(START, POINTS[:1]), "1 distinct training points", "at least 2"),
    (lambda: metrics.is_copy(START, POINTS, ratio=0.0), "ratio is 0.0", "1/3"),
    (lambda: metrics.exact_w2(POINTS, torch.zeros(4, 3)), "x has dimension 2, y has 3", "one space"),
    (lambda: metrics.exact_w2(torch.zeros(6000, 1), torch.zeros(6000, 1)), "6000 x 6000 points", "use sliced_w2"),
    (lambda: metrics.sliced_w2(POINTS, POINTS, projections=0), "projections is 0", "at least 1"),
    (lambda: metrics.kurtosis(POINTS), "shape (9, 2)", "one-dimensional"),
    (lambda: metrics.psnr(torch.zeros(2, 4, 4), torch.zeros(1, 4, 4)), "(2, 4, 4)", "same shape"),
    # training
    (lambda: first(training.train(MLP(4), POINTS, Recipe(steps=0))), "steps is 0", "at least 1"),
    (lambda: first(training.train(MLP(4), POINTS, Recipe(batch=0))), "batch is 0", "at least 1"),
    (lambda: Recipe(noise=("log-uniform", 0.0, 20.0)), "noise is ('log-uniform', 0.0, 20.0)", "positive levels"),
    (lambda: first(training.train(MLP(4), POINTS[:, :1])), "points have shape (9, 1)", "(N, 2)"),
    (lambda: first(training.train_levels(PerLevelMLP(torch.ones(1)), POINTS[:, :1])), "shape (9, 1)", "(N, 2)"),
    (lambda: training.run(training.train(MLP(4), POINTS, Recipe(rate=1e30, steps=50))), "the loss is", "lower the"),
    # data, ledger, plots
    (lambda: data.fashion_mnist(5, "valid"), "split is 'valid'", "train, test"),
    (lambda: data.fashion_mnist(1001, "test"), "n is 1001", "choose 1 to 1000"),
    (lambda: data.fashion_mnist(0), "n is 0", "choose 1 to 10000"),
    (lambda: data.pinwheel().log_prob(START, 0.1), "sigma is 0.1", "sigma = 0 only"),
    (lambda: data.checkerboard().log_prob(START, -1.0), "sigma is -1.0", "sigma"),
    (lambda: data.ring(0), "components is 0", "at least 1"),
    (lambda: data.spiral(arms=0), "arms is 0", "at least 1"),
    (lambda: data.star(points=0), "points is 0", "at least 1"),
    (lambda: ledger.Claim("s", "c", (2.0, 1.0), 1.0), "[2.0, 1.0]", "must not exceed"),
    (lambda: ledger.Claim("s", "c", (0.0, 1.0), []), "nothing was measured for 'c'", "pass a number"),
    (lambda: plots.Slider([[]], ["a", "b"], "n", "c", "a"), "1 frames", "one label a frame"),
    (lambda: plots.Slider([[{}]], ["a"], "n", "c", "a", start=1), "start is 1", "from 0 to 0"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "value", "remedy"), CASES, ids=[f"{v} / {r}" for _, v, r in CASES]
)
def test_message_names_value_and_remedy(call, value, remedy):
    with pytest.raises(ValueError) as error:
        call()
    assert value in str(error.value) and remedy in str(error.value)


def test_no_claims(tmp_path):
    with pytest.raises(ValueError, match=r"no claims in .*: execute the chapters first"):
        ledger.read_all(tmp_path)
