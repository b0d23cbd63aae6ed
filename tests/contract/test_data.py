"""Targets agree with their own densities, and the embedded images are those that were published."""

import hashlib
import lzma
import math
import sys

import pytest
import torch
from scipy import stats

from helpers import density
from helpers.data import TARGETS, fashion_mnist, pinwheel, plane
from helpers.denoisers import GaussianMixture

CONTINUOUS = sorted(set(TARGETS) - {"three_points"})


@pytest.mark.parametrize("name", TARGETS)
def test_samples_repeat_with_their_seed(name):
    target = TARGETS[name]()
    x = target.sample(50, seed=3)
    assert x.shape == (50, 2) and x.dtype == torch.float64 and x.abs().max() < 4
    assert torch.equal(x, TARGETS[name]().sample(50, seed=3))
    assert not torch.equal(x, target.sample(50, seed=4))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_density_has_mass_one_and_counts_agree_with_it(name):
    """Chi-square of 20,000 samples in 64 cells of [-3, 3]^2, the expected counts by quadrature."""
    target, n = TARGETS[name](), 20_000
    # cells of .05 resolve a width of .06; the checkerboard's edges lie between them
    fine = density.grid(3.0, 120)
    log_p = target.log_prob(fine.points)
    assert density.mass(log_p, fine.cell) == pytest.approx(1, abs=1e-4)
    p = (fine.cell * log_p.exp()).view(8, 15, 8, 15).sum((1, 3)).flatten()
    cell = ((target.sample(n, seed=1) + 3) / 0.75).long()
    assert ((cell >= 0) & (cell < 8)).all(1).float().mean() > 0.999
    observed = torch.bincount((8 * cell[:, 0] + cell[:, 1]).clamp(0, 63), minlength=64)
    often = n * p > 5
    rest = torch.tensor([n - observed[often].sum(), n * (1 - p[often].sum())])
    chi2 = ((observed - n * p) ** 2 / (n * p))[often].sum() + (rest[0] - rest[1]) ** 2 / rest[
        1
    ].clamp(min=1)
    assert stats.chi2.sf(float(chi2), int(often.sum())) > 1e-3


def test_point_masses_come_with_their_weights():
    target = TARGETS["three_points"]()
    counts = torch.stack([(target.sample(10_000) == m).all(1).sum() for m in target.means])
    assert counts.sum() == 10_000
    assert stats.chisquare(counts, 10_000 * target.weights).pvalue > 1e-3
    with pytest.raises(ValueError, match="sigma > 0"):
        target.log_prob(target.means)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_noisy_density_is_the_density_blurred(name):
    """log p_sigma against the mean of N(y; x, sigma^2) over samples x, within five standard errors."""
    target, sigma, n = TARGETS[name](), 0.5, 20_000
    if name == "pinwheel":
        with pytest.raises(ValueError, match="sigma = 0 only"):
            target.log_prob(torch.zeros(1, 2), sigma)
        return
    y = torch.cartesian_prod(*[torch.linspace(-2, 2, 5).double()] * 2)
    kernel = torch.exp(-torch.cdist(y, target.sample(n, seed=2)).square() / (2 * sigma**2)) / (
        2 * math.pi * sigma**2
    )
    assert (
        (kernel.mean(1) - target.log_prob(y, sigma).exp()).abs() < 5 * kernel.std(1) / math.sqrt(n)
    ).all()


@pytest.mark.parametrize(
    "name", sorted(n for n in CONTINUOUS if n not in ("pinwheel", "checkerboard"))
)
def test_moments_of_mixtures(name):
    target = TARGETS[name]()
    fine = density.grid(3.5, 140)
    p = fine.cell * target.log_prob(fine.points).exp()
    mean = p @ fine.points
    assert torch.allclose(target.mean, mean, atol=1e-4)
    assert torch.allclose(
        target.covariance,
        torch.einsum("n,ni,nj->ij", p, fine.points - mean, fine.points - mean),
        atol=1e-3,
    )


@pytest.mark.parametrize("name", ["moons", "swiss_roll", "spiral", "star"])
def test_curves_are_continuous_laws(name, monkeypatch):
    """Four times as many nodes change the law by less than 2e-6 in total variation, E_p |1 - q/p| /
    2."""
    target = TARGETS[name]()
    if name == "star":
        t = 2 * math.pi * torch.arange(1024, dtype=torch.float64) / 1024
        r = 1.4 + 0.5 * (5 * t).cos()
        finer = GaussianMixture(r[:, None] * torch.stack([t.cos(), t.sin()], 1), 0.06)
    else:
        legendre = plane._legendre
        monkeypatch.setattr(plane, "_legendre", lambda n, low, high: legendre(4 * n, low, high))
        finer = TARGETS[name]()
    assert len(finer.means) == 4 * len(target.means)
    y = target.sample(1000)
    change = torch.expm1(finer.log_prob(y) - target.log_prob(y)).abs()
    assert change.mean() / 2 < 2e-6


def test_pinwheel_turns_circles_rigidly():
    """Its twist keeps areas: the Jacobian has determinant 1, so the density is the blades' at the
    point turned back."""
    x = pinwheel().sample(20)
    jacobian, _ = density.jacobian_and_estimate(lambda y, _: pinwheel()._turned(y, 1), x, 1.0)
    assert torch.allclose(torch.linalg.det(jacobian), torch.ones(20).double())
    assert torch.allclose(pinwheel()._turned(pinwheel()._turned(x, 1), -1), x)


@pytest.mark.parametrize(("split", "n"), [("train", 10_000), ("test", 1_000)])
def test_embedded_images(split, n):
    images = fashion_mnist(split=split)
    assert images.shape == (n, 28, 28) and images.dtype == torch.float32
    assert images.min() == 0 and images.max() == 1
    assert torch.equal(fashion_mnist(7, split), images[:7])
    assert images.flatten(1).unique(dim=0).shape[0] > 0.99 * n  # no block repeated
    assert 0.25 < images.mean() < 0.32  # the published mean of all 60,000 is .286


def test_altered_images_are_refused(monkeypatch, tmp_path):
    # the package's attribute of that name is the function
    module = sys.modules["helpers.data.fashion_mnist"]
    raw = lzma.decompress(
        module.files("helpers.data").joinpath("embedded/fashion_mnist_test.xz").read_bytes()
    )
    assert hashlib.sha256(raw).hexdigest() == module.SHA256["test"]
    (tmp_path / "embedded").mkdir()
    altered = bytes([raw[0] ^ 1]) + raw[1:]
    (tmp_path / "embedded/fashion_mnist_test.xz").write_bytes(lzma.compress(altered, preset=0))
    monkeypatch.setattr(module, "files", lambda _: tmp_path)
    with pytest.raises(ValueError, match="do not match their checksum: reinstall"):
        fashion_mnist(split="test")
    (tmp_path / "embedded/fashion_mnist_test.xz").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="do not match their checksum: reinstall"):
        fashion_mnist(split="test")
