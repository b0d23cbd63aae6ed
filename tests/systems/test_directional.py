"""Curvelets and directional squares: frames and bases first, then what they find, then the scores
of tables and what can be a gradient."""

import math
import zipfile

import numpy as np
import pytest
import torch
from nets import noise
from PIL import Image

from helpers import geometry, recorded
from helpers.denoisers import PosteriorMean
from helpers.systems.campagne import classical, directional, photographs, scores, thresholds


def images(n=2, size=32, seed=0):
    return noise(n, size, size, seed=seed, dtype=torch.float64)


# Curvelets ----------------------------------------------------------------------------------------


@pytest.mark.theorem("prop-frame")
def test_curvelets_are_a_tight_frame_with_norms_that_noise_confirms():
    transform, norms = directional.curvelet_frame((48, 96), 3)
    x = noise(48, 96, dtype=torch.float64).numpy()
    bands = transform.forward(x)
    flat = [v for scale in bands for axis in scale for v in axis]
    assert sum((np.abs(v) ** 2).sum() for v in flat) == pytest.approx((x**2).sum())
    np.testing.assert_allclose(transform.backward(bands), x, atol=1e-12)
    # unequal norms: as each is the root of a mean, the sum over atoms of ||e||^2 is the dimension
    assert sum(v.size * e**2 for v, e in zip(flat, norms, strict=True)) == pytest.approx(48 * 96)
    power = np.zeros(len(norms))
    for seed in range(40):
        now = transform.forward(noise(48, 96, seed=seed, dtype=torch.float64).numpy())
        power += [(np.abs(v) ** 2).mean() / 40 for scale in now for axis in scale for v in axis]
    np.testing.assert_allclose(power, np.square(norms), rtol=0.15)


@pytest.mark.theorem("prop-frame")
def test_the_error_of_an_image_is_at_most_that_of_its_coefficients():
    transform, norms = directional.curvelet_frame((64, 64), 3)
    clean, y = directional.horizons(1, 2, 64)[0].numpy(), None
    y = clean + 0.3 * noise(64, 64, dtype=torch.float64).numpy()
    least, total, level = 0.9, 0.0, iter(norms)
    for a, b in zip(transform.forward(y), transform.forward(clean), strict=True):
        for v, c in ((v, c) for p, q in zip(a, b, strict=True) for v, c in zip(p, q, strict=True)):
            kept = np.where(np.abs(c) > least * next(level), v, 0)
            total += (np.abs(kept - c) ** 2).sum()
    error = ((directional.curvelets_kept(y, least, 3, clean) - clean) ** 2).sum()
    assert 0 < error <= total


def test_curvelets_without_a_threshold_change_nothing_and_the_mirror_removes_the_seam():
    for scales, side in ((2, 6), (3, 6), (4, 12), (5, 24)):
        y = images(1, side)
        torch.testing.assert_close(directional.Curvelets(0.0, scales)(y, 0.5), y)
    # a ramp has no edge but the seam of its periodic continuation
    ramp = (torch.arange(64.0, dtype=torch.float64) / 64).expand(1, 64, 64)
    even, seam = (
        (directional.Curvelets(3.0, 4, mirror=m)(ramp, 0.3) - ramp).abs().max()
        for m in (True, False)
    )
    assert 3 * even < seam


# Haar along directions ----------------------------------------------------------------------------


def test_haar_is_that_of_the_library():
    x = noise(3, 64, dtype=torch.float64)
    torch.testing.assert_close(directional.signals(directional.haar(x)), x)
    matrix = directional.haar(torch.eye(64, dtype=torch.float64))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(64, dtype=torch.float64))
    assert directional.haar(x)[:, 0].tolist() == pytest.approx((8 * x.mean(1)).tolist())


@pytest.mark.theorem("prop-squares")
def test_every_partition_is_a_basis_and_its_cost_is_what_it_says():
    """Parseval: what is cut off is what the image lost, and the rest are the terms."""
    x, least = images(3), 0.8
    cost, kept = directional.directional(x, least, 16, price=0.0)
    lost = (x - kept).square().sum((1, 2))
    terms = (cost - lost) / least**2
    torch.testing.assert_close(terms, terms.round())
    assert terms.min() > 0
    again, whole = directional.directional(x, 0.0, 16)
    assert float(again.abs().max()) == 0
    torch.testing.assert_close(whole, x)


@pytest.mark.theorem("prop-squares")
@pytest.mark.parametrize("side", [8, 16, 32])
def test_a_straight_edge_costs_a_square_one_term_a_scale(side):
    for i, order in enumerate(directional.orders(side)):
        assert order.sort().values.tolist() == list(range(side**2))
        step = torch.zeros(side**2, dtype=torch.float64)
        step[order[side**2 // 3 + i :]] = 1
        c = directional.haar(step[order])
        assert int((c.abs() > 1e-9).sum()) <= 2 * math.log2(side) + 1
    # which is an edge: the first direction is that of the columns, the middle one of the rows
    first, middle = directional.orders(side)[[0, len(directional.orders(side)) // 2]]
    assert (first[:side] % side).unique().tolist() == [0]
    assert (middle[:side] // side).unique().tolist() == [0]


@pytest.mark.theorem("prop-squares")
def test_no_partition_has_a_lower_cost():
    """By trying all partitions of a square of 8 in squares of 4, and all directions."""
    x, least = images(2, 8), 0.7

    def cost(square):
        orders = directional.orders(square.shape[-1])
        c = torch.stack([directional.haar(square.flatten(1)[:, order]) for order in orders])
        return c.square().clamp(max=least**2).sum(-1).min(0).values + least**2

    four = sum(cost(x[:, a : a + 4, b : b + 4]) for a in (0, 4) for b in (0, 4))
    want = torch.minimum(cost(x), four)
    torch.testing.assert_close(directional.directional(x, least, 8)[0], want)


def test_directions_follow_an_edge_that_wavelets_meet_everywhere():
    x = directional.horizons(3, 2, 128)
    own = directional.directional(x, 1.0, 128, 0.0)[0]
    haar = geometry.wavelets(x, "haar", 7).square().clamp(max=1).sum(1)
    assert (own < 0.75 * haar).all()
    # a texture has no direction: what is chosen of so many bases by the clean image, and no more
    x = images(3, 128)
    texture = directional.directional(x, 1.0, 128, 0.0)[0]
    assert (texture > 0.8 * geometry.wavelets(x, "haar", 7).square().clamp(max=1).sum(1)).all()


def test_horizons_are_shares_of_pixels_below_a_contour_and_rough_ones_are_longer():
    smooth, rough = (directional.horizons(4, alpha, 64) for alpha in (2.0, 0.5))
    for x in (smooth, rough):
        assert 0 <= float(x.min()) and float(x.max()) <= 1
        assert (x.diff(dim=1) >= -1e-12).all()  # 0 above, 1 below
        assert int(((x > 0) & (x < 1)).sum(1).max()) <= 1  # one mixed pixel a column
    length = [x.sum(1).diff(dim=1).abs().sum() for x in (smooth, rough)]
    assert length[1] > 3 * length[0]


@pytest.mark.theorem("prop-units")
@pytest.mark.parametrize("shifts", [1, 2])
def test_units_do_not_matter(shifts):
    y = images(1)
    for D in (
        directional.Curvelets(scales=3, shifts=shifts),
        directional.DirectionalHaar(3.0, shifts),
    ):
        torch.testing.assert_close(D(8 * y, 4.0), 8 * D(y, 0.5))  # by powers of two: no rounding


def test_shifts_are_taken_back():
    y = images(2, 48)[:, :40]  # 40 x 48: the frame is mirrored up to whole squares
    torch.testing.assert_close(directional.DirectionalHaar(0.0, 3)(y, 0.5), y)
    torch.testing.assert_close(directional.Curvelets(0.0, 3, shifts=3)(y, 0.5), y)


# Scores of tables ---------------------------------------------------------------------------------


def test_scores_are_psnr_and_ssim():
    x = torch.rand(2, 32, 32, generator=torch.Generator().manual_seed(0))
    found = scores.scores({"soft": classical.WaveletThreshold(levels=2)}, x, (0.1, 0.3), 0)
    assert found["soft"].shape == (2, 2, 2)
    assert scores.ssim(x, x).tolist() == pytest.approx([1, 1])
    # with one mean and no correlation what is left is the ratio of contrasts, below 1
    assert (scores.ssim(torch.full_like(x, 0.5), x) < 0.1).all()
    assert (found["noisy"][1, :, 0] > found["noisy"][1, :, 1]).all()
    torch.testing.assert_close(scores.compare({}, x, (0.1, 0.3), 0)["noisy"], found["noisy"][0])


@pytest.mark.theorem("prop-prox")
def test_what_minimises_is_a_gradient_and_what_averages_by_likeness_is_none():
    y = directional.horizons(1, 2, 16) + 0.3 * images(1, 16, seed=1)
    gradients = {
        "soft": classical.WaveletThreshold("soft", 1.5, levels=2),
        "hard": classical.WaveletThreshold("hard", 3.0, levels=2),
        "spun": classical.CycleSpun(levels=2),
        "directions": directional.DirectionalHaar(shifts=1),
    }
    for name, D in gradients.items():
        assert scores.no_gradient(D, y, 0.3, 8) < 1e-6, name
    assert scores.no_gradient(classical.non_local_means(), y, 0.3, 8) > 0.1


@pytest.mark.theorem("prop-prox")
@pytest.mark.parametrize("kind", thresholds.KINDS)
def test_what_minimises_is_monotone(kind):
    y = images(64, 16)
    for D in (
        classical.WaveletThreshold(kind, levels=2),
        directional.DirectionalHaar(shifts=1),
        classical.total_variation(tolerance=1e-10),
    ):
        a, b = D(y, 0.4).flatten(1), y.flatten(1)
        products = ((a[:, None] - a) * (b[:, None] - b)).sum(-1)
        assert products.min() > -1e-3 * products.max()


def test_asymmetry_is_that_of_the_whole_jacobian():
    class Matrix(PosteriorMean):
        def __init__(self, m):
            torch.nn.Module.__init__(self)
            self.m = m

        def estimate(self, y, sigma):
            return (y.flatten(1) @ self.m.T).view_as(y)

    m = noise(16, 16, dtype=torch.float64)
    want = float((m - m.T).norm() / m.norm())
    assert scores.no_gradient(Matrix(m), images(1, 4), 1.0, 4000) == pytest.approx(want, rel=0.1)
    assert scores.no_gradient(Matrix(m + m.T), images(1, 4), 1.0, 8) < 1e-4
    assert scores.no_gradient(PosteriorMean(images(5, 4)), images(1, 4), 1.0, 8) < 1e-4


# Sets of test images ------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
def test_sets_are_read_from_the_folder_that_the_reader_names(tmp_path, monkeypatch, packed):
    monkeypatch.setenv("TEST_IMAGES_ROOT", str(tmp_path))
    (tmp_path / "set12").mkdir()
    for i, shade in enumerate((100, 200)):
        picture = Image.new("L", (40, 30), shade)
        picture.putpixel((20, 15), 255)
        picture.save(tmp_path / "set12" / f"0{i}.png")
    if packed:
        with zipfile.ZipFile(tmp_path / "set12.zip", "w") as archive:
            for file in sorted((tmp_path / "set12").glob("*.png")):
                archive.write(file, file.name)
                file.unlink()
    x = photographs.standard("set12", 20)
    assert x.shape == (2, 20, 20) and x[:, 10, 10].tolist() == [1, 1]
    assert x[:, 0, 0].tolist() == pytest.approx([100 / 255, 200 / 255])
    with pytest.raises(ValueError, match="size is 31: an image of set12 has only"):
        photographs.standard("set12", 31)


def test_a_set_that_is_not_there_is_asked_for(monkeypatch):
    monkeypatch.delenv("TEST_IMAGES_ROOT", raising=False)
    with pytest.raises(ValueError, match="no 'bsd68' in TEST_IMAGES_ROOT, unset: name a folder"):
        photographs.standard("bsd68", 128)


# What was measured --------------------------------------------------------------------------------


def test_recorded_rates_are_those_of_the_bases():
    found = recorded.load("classical")["rates"]
    x = directional.horizons(1, 2.0, found["size"])
    sigma = found["sigmas"][-1]
    for name, c in {
        "cosines": geometry.cosines(x),
        "wavelets": geometry.wavelets(x, "haar", 9),
    }.items():
        m = float(c.square().clamp(max=sigma**2).sum())
        assert m == pytest.approx(found["alphas"]["2"][f"{name}, oracle"]["error"][0][-1], rel=1e-4)


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: directional.horizons(0, 2.0), "n is 0"),
        (lambda: directional.horizons(1, 0.0), "alpha is 0.0"),
        (lambda: directional.Curvelets(-1.0), "threshold is -1.0"),
        (lambda: directional.Curvelets(scales=1), "scales is 1: take at least 2"),
        (lambda: directional.Curvelets()(images(1, 30), 1.0), "sides divisible by 4"),
        (lambda: directional.Curvelets(mirror=False)(images(1, 20), 1.0), "divisible by 8"),
        (lambda: directional.DirectionalHaar(math.inf), "threshold is inf"),
        (lambda: directional.DirectionalHaar(most=12), "most is 12: take 4 times a power of two"),
        (lambda: directional.DirectionalHaar()(images(1)[0], 1.0), "pass gray images"),
        (lambda: directional.directional(images(1), 1.0, 64), "sides divisible by 64"),
        (lambda: directional.directional(images(1), 1.0, 16, smallest=3), "3 times a power of two"),
        (lambda: scores.no_gradient(classical.CycleSpun(), images(1), 1.0, 0), "pairs is 0"),
        (lambda: scores.no_gradient(classical.CycleSpun(), images(1), 1.0, 1, 0.0), "step is 0.0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
