"""Judges of images: feature distances against their definitions, spectra of known pictures, the
autoencoder."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from nets import noise

from helpers import models, realism
from helpers.data import load
from helpers.denoisers import Autoencoder
from helpers.recipe import Recipe
from helpers.training import run, train


def test_fid_is_the_formula_by_scipy():
    x, y = (
        noise(300, 5, dtype=torch.float64),
        0.3 + noise(200, 5, seed=1, dtype=torch.float64) @ (1.5 * noise(5, 5)).double(),
    )
    mean, std = x.mean(0), x.std(0)
    a, b = ((v - mean) / std for v in (x, y))
    c, d = np.cov(a.T.numpy()), np.cov(b.T.numpy())
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(
        c + d - 2 * scipy.linalg.sqrtm(c @ d).real
    )
    assert realism.fid(x, y) == pytest.approx(expected, rel=1e-6)
    assert realism.fid(x, x) == pytest.approx(0, abs=1e-9)
    # in units of the real features
    assert realism.fid(5 + 7 * x, 5 + 7 * y) == pytest.approx(expected, rel=1e-6)


def test_kid_is_the_mean_over_pairs():
    x, y = noise(7, 3).double(), noise(5, 3, seed=1).double() + 1
    mean, std = x.mean(0), x.std(0)
    a, b = ((v - mean) / std for v in (x, y))

    def kernel(u, v):
        return float((u @ v / 3 + 1) ** 3)

    within = [
        sum(kernel(u[i], u[j]) for i in range(len(u)) for j in range(len(u)) if i != j)
        / (len(u) * (len(u) - 1))
        for u in (a, b)
    ]
    across = sum(kernel(u, v) for u in a for v in b) / 35
    assert realism.kid(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-9)


def test_the_error_of_kid_is_the_jackknife_over_made_images():
    x, y = noise(9, 3, dtype=torch.float64), 0.5 + noise(6, 3, seed=1, dtype=torch.float64)
    value, error = realism.kid_with_error(x, y)
    without = torch.tensor(
        [realism.kid(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(6)], dtype=torch.float64
    )
    assert value == realism.kid(x, y)
    assert error == pytest.approx(
        float((5 / 6 * (without - without.mean()).square().sum()).sqrt()), rel=1e-9
    )
    assert math.isnan(realism.kid_with_error(x, y[:2])[1])


def test_the_error_of_kid_is_its_spread():
    real = noise(400, 4)
    found = torch.tensor(
        [realism.kid_with_error(real, 1 + noise(60, 4, seed=i + 1)) for i in range(100)]
    )
    assert float(found[:, 1].mean()) == pytest.approx(float(found[:, 0].std()), rel=0.3)


def test_kid_of_equal_laws_is_zero_in_the_mean():
    found = torch.tensor(
        [realism.kid(noise(400, 4, seed=2 * i), noise(60, 4, seed=2 * i + 1)) for i in range(60)]
    )
    assert abs(found.mean()) < 3 * found.std() / math.sqrt(60)
    assert realism.kid(noise(400, 4), noise(60, 4, seed=1) + 1) > 10 * found.std()


@pytest.mark.parametrize(
    ("k", "ring"), [((0, 0), 0), ((3, 0), 3), ((0, 5), 5), ((3, 4), 5), ((8, 0), 8)]
)
def test_spectrum_of_a_wave_lies_in_its_ring(k, ring):
    i, j = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    wave = (2 * math.pi * (k[0] * i + k[1] * j) / 16).cos()
    found = realism.radial_spectrum(wave[None])
    assert (
        len(found) == 9 and int(found.argmax()) == ring and float(found.sum() - found.max()) < 1e-9
    )


def test_spectrum_of_white_noise_is_its_variance():
    x = noise(4000, 16, 16)
    found = realism.radial_spectrum(0.5 * x)
    torch.testing.assert_close(found, torch.full((9,), 0.25).double(), rtol=0.1, atol=0)
    assert realism.spectral_distance(x, 2 * x) == pytest.approx(20 * math.log10(2), rel=1e-6)


def test_sharpness_falls_with_blur_and_is_20_for_white_noise():
    x = noise(50, 64, 64)
    assert realism.sharpness(x) == pytest.approx(20, rel=0.02)  # 4^2 + 4
    i = torch.arange(8.0)
    assert realism.sharpness((3 * i[:, None] - i)[None]) == pytest.approx(0, abs=1e-10)
    images = load("fashion-mnist", "test", 50).images
    assert realism.sharpness(
        torch.nn.functional.avg_pool2d(images, 3, 1)
    ) < 0.3 * realism.sharpness(images)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: realism.kid(noise(4, 3), noise(4, 2)), r"shapes \(4, 3\), \(4, 2\)"),
        (lambda: realism.fid(noise(4, 3, 3), noise(4, 3)), r"shapes \(4, 3, 3\)"),
        (lambda: realism.kid(noise(1, 3), noise(4, 3)), "two rows or more"),
        (lambda: realism.fid(torch.ones(4, 3), noise(4, 3)), "feature 0 is the same"),
        (lambda: realism.kid(noise(4, 3) / 0, noise(4, 3)), "NaN or infinity"),
        (lambda: realism.radial_spectrum(noise(4, 8, 9)), "gray squares"),
        (lambda: realism.radial_spectrum(noise(4, 1, 8, 8)), "gray squares"),
        (lambda: realism.rings(noise(8)), "gray squares"),
        (lambda: Autoencoder(20), "size is 20: take a multiple of 8"),
        (lambda: Autoencoder(16, code=0), "code is 0"),
        (lambda: Autoencoder(16)(noise(2, 8, 8), 0.1), "this denoiser takes"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_autoencoder_passes_all_through_its_code():
    net, y = Autoencoder(16, code=3, channels=4).double(), noise(9, 16, 16, dtype=torch.float64)
    assert net(y, 0.1).shape == y.shape and net.features(y).shape == (9, 3)
    torch.testing.assert_close(net.decoder(net.features(y))[:, 0], net(y, 0.1))
    torch.testing.assert_close(net(y[4:5], 2.0), net(y, 0.1)[4:5])  # blind, row by row
    assert (
        torch.linalg.matrix_rank(
            torch.func.jacrev(lambda v: net(v[None], 0.1)[0])(y[0]).view(256, 256).double()
        )
        == 3
    )


def test_autoencoder_is_of_its_seed_trains_and_is_saved(tmp_path, monkeypatch):
    monkeypatch.setenv(models.MODELS, str(tmp_path))
    images = load("fashion-mnist", n=64, size=32).images
    a, b, c = Autoencoder(32, seed=1), Autoencoder(32, seed=1), Autoencoder(32, seed=2)
    assert torch.equal(a.features(images), b.features(images)) and not torch.equal(
        a.features(images), c.features(images)
    )
    losses = run(train(a, images, Recipe(steps=60, batch=32, noise=("fixed", 0.1), loss="sum")))
    assert losses[-1] < 0.5 * losses[0]
    models.save("judge", a, {}, images)
    torch.testing.assert_close(models.load("judge")(images, 0.1), a(images, 0.1), rtol=0, atol=0.02)


def test_grain_is_the_mean_of_the_outer_rings():
    x = noise(3, 12, 12).double()
    each = [realism.radial_spectrum(image[None])[4:].mean() for image in x]
    assert torch.allclose(realism.grain(x), torch.stack(each))
    assert realism.grain(torch.ones(1, 12, 12)) < 1e-12 < realism.grain(x).min()
