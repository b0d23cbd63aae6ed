"""What must not matter, for every family of denoisers, over training sets, noisy points and noise
levels that hypothesis draws.

Each family is built from a training set; those that depend on random weights fixed in space know
fewer invariances.
"""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.denoisers import (
    GaussianMixture,
    LinearConvolution,
    LinearDenoiser,
    Polynomial,
    PosteriorMean,
    ProjectedDenoiser,
    RandomFeatures,
)

settings.register_profile("here", max_examples=12, derandomize=True, deadline=None, database=None)
settings.load_profile("here")

EXACT = {  # name: the denoiser of a training set x (N, 2), in units of `unit`
    "posterior mean": lambda x, unit: PosteriorMean(x),
    "mixture": lambda x, unit: GaussianMixture(x, 0.3 * unit),
    "linear": lambda x, unit: LinearDenoiser.from_points(x),
    "linear rank 1": lambda x, unit: LinearDenoiser.from_points(x, 1),
    "polynomial 1": lambda x, unit: Polynomial(x, 1),
    "polynomial 2": lambda x, unit: Polynomial(x, 2),
    "polynomial 3": lambda x, unit: Polynomial(x, 3),
    "gradient 2": lambda x, unit: Polynomial(x, 2, gradient=True),
    "projected": lambda x, unit: ProjectedDenoiser(x, 1),
}
# shifts or weights fixed in space: nothing to rotate; and a smoothing that compares sigma with 1
FIXED = {"random features": lambda x, unit: RandomFeatures(x, 20)}
SMOOTHED = {"smoothed": lambda x, unit: PosteriorMean(x, 0.3)}
FILTER = {"convolution": lambda x, unit: LinearConvolution.from_points(x, 1)}
TRANSLATED = {**EXACT, **FIXED, **SMOOTHED}


@st.composite
def cases(draw):
    """A training set (10, 2), noisy points (7, 2) and a noise level, from a seed."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    x = torch.randn(10, 2, generator=g, dtype=torch.float64) * torch.tensor([1.3, 0.7])
    sigma = draw(st.floats(0.1, 10.0))
    y = x[:7] + sigma * torch.randn(7, 2, generator=g, dtype=torch.float64)
    return x, y, sigma


def same(a, b, scale=1.0):
    assert torch.allclose(a, b, rtol=1e-7, atol=1e-7 * scale), (a - b).abs().max()


def family(names):
    return pytest.mark.parametrize("build", names.values(), ids=names)


@family({**TRANSLATED, **FILTER})
@given(case=cases(), order=st.permutations(range(10)))
def test_order_of_the_training_set(build, case, order):
    x, y, sigma = case
    same(build(x[list(order)], 1.0)(y, sigma), build(x, 1.0)(y, sigma))


@family(TRANSLATED)
@given(case=cases(), shift=st.tuples(st.floats(-30, 30), st.floats(-30, 30)))
def test_translation(build, case, shift):
    x, y, sigma = case
    t = torch.tensor(shift, dtype=torch.float64)
    same(build(x + t, 1.0)(y + t, sigma), build(x, 1.0)(y, sigma) + t, 30)


@family(EXACT)
@given(case=cases(), angle=st.floats(0, 2 * math.pi), mirror=st.booleans())
def test_rotation_and_reflection(build, case, angle, mirror):
    x, y, sigma = case
    c, s = math.cos(angle), math.sin(angle)
    m = (-1) ** mirror
    q = torch.tensor([[c, -m * s], [s, m * c]], dtype=torch.float64)
    same(build(x @ q, 1.0)(y @ q, sigma), build(x, 1.0)(y, sigma) @ q)


@family({**EXACT, **FIXED, **FILTER})
@given(case=cases(), factor=st.floats(0.01, 100))
def test_scale(build, case, factor):
    """Other units for data and noise: D of c x at (c y, c sigma) is c D."""
    x, y, sigma = case
    same(
        build(factor * x, factor)(factor * y, factor * sigma),
        factor * build(x, 1.0)(y, sigma),
        factor,
    )


@given(case=cases(), shift=st.integers(0, 8))
def test_convolutions_commute_with_shifts(case, shift):
    x, y, sigma = case
    rows = torch.cat([x, x.flip(0)]).T.reshape(4, 10)
    denoiser = LinearConvolution.from_points(rows, 5)
    same(denoiser(rows.roll(shift, 1), sigma), denoiser(rows, sigma).roll(shift, 1))


@given(case=cases())
def test_posterior_weights_are_probabilities_and_the_estimate_their_mean(case):
    x, y, sigma = case
    denoiser = PosteriorMean(x)
    w = denoiser.weights(y, sigma)
    assert (w >= 0).all() and torch.allclose(w.sum(1), torch.ones(7).double())
    same(w @ x, denoiser(y, sigma))


@given(case=cases(), rank=st.integers(1, 2))
def test_events_of_any_shape(case, rank):
    """Images in, images out: the same numbers as the flattened rows."""
    x, y, sigma = (
        torch.cat([case[0], case[0].flip(1)], 1),
        torch.cat([case[1], case[1].sin()], 1),
        case[2],
    )
    for build in (PosteriorMean, lambda p: PosteriorMean(p, 0.2), lambda p: LinearDenoiser.from_points(p, rank),
                  lambda p: ProjectedDenoiser(p, rank)):  # fmt: skip
        flat, image = build(x), build(x.view(10, 2, 2))
        same(image(y.view(7, 2, 2), sigma).flatten(1), flat(y, sigma))
