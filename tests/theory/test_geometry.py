"""C^alpha images and what denoises them: parts, rates, fixed bases against loops in float64,
vectors along contours."""

import math

import pytest
import pywt
import torch
from nets import noise

from helpers import geometry, plots, recorded
from helpers.data.synthetic import c_alpha, disk_image


def images(n=2, size=8, seed=0):
    return noise(n, size, size, seed=seed, dtype=torch.float64)


# The class ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["paper", "released"])
@pytest.mark.parametrize("alpha, beta, size", [(1, 1, 16), (4, 1.5, 13)])
def test_the_parts_are_those_of_the_image(variant, alpha, beta, size):
    parts = geometry.c_alpha_parts(20, alpha, beta, size, variant, seed=3)
    mask = (torch.arange(size)[:, None] >= parts.rows[:, None]).float()
    if variant == "released":
        before = [1, *range(size - 1)]
        mask = (mask + mask[:, before]) / 2
        mask = (mask + mask[:, :, before]) / 2
    below, above = parts.backgrounds.unbind(1)
    want = c_alpha(20, alpha, beta, size, variant, seed=3)
    torch.testing.assert_close(mask * below + (1 - mask) * above, want, rtol=0, atol=1e-6)


def test_powers_are_those_of_the_backgrounds():
    parts = geometry.c_alpha_parts(400, 1, 1.5, 16, "paper", seed=1)
    found = torch.fft.fft2(parts.backgrounds.double(), norm="ortho").abs().square()
    k = torch.fft.fftfreq(16, 1 / 16, dtype=torch.float64)
    k = torch.hypot(k[:, None], k)
    ratio = found / parts.powers.double()[..., None, None] * k**3
    # but for the mean, at k = 0
    assert float(ratio.mean((0, 1)).flatten()[1:].mean()) == pytest.approx(1, abs=0.03)
    for band in ((k > 0) & (k < 3), k > 6):
        assert float(ratio[..., band].mean()) == pytest.approx(1, abs=0.06)


def test_the_informed_error_is_that_of_a_wiener_filter_on_the_parts():
    """The filter is run on noisy backgrounds, and of each the error is counted where the image
    shows it."""
    parts, sigma, size = geometry.c_alpha_parts(600, 2, 1.5, 8, "paper", seed=1), 0.1, 8
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    power = parts.powers.double()[..., None, None] * torch.hypot(k[:, None], k).clamp(min=1) ** -3
    x = parts.backgrounds.double()
    # the mean is known up to the stretch: leave it out on both sides
    x = x - x.mean((2, 3), keepdim=True)
    power[..., 0, 0] = 0
    y = x + sigma * noise(*x.shape, seed=2, dtype=torch.float64)
    x_hat = torch.fft.ifft2(torch.fft.fft2(y) * power / (power + sigma**2)).real
    mask = torch.arange(size)[:, None] >= parts.rows[:, None]
    errors = (x_hat - x).square()
    found = torch.where(mask, errors[:, 0], errors[:, 1]).sum((1, 2))
    at_zero = parts.powers.double() * sigma**2 / (parts.powers.double() + sigma**2)
    share = mask.double().mean((1, 2))
    less = share * at_zero[:, 0] + (1 - share) * at_zero[:, 1]
    want = geometry.informed_risk(parts, 1.5, sigma) - less
    assert float(found.mean() / want.mean()) == pytest.approx(1, abs=0.04)


@pytest.mark.theorem("prop-filtered")
@pytest.mark.parametrize("beta", [3, 5])
def test_backgrounds_as_drawn_have_the_slope_of_a_surface_half_as_regular(beta):
    """Modes sorted by power decay as m^-beta, so the sequence model with alpha + 1 = beta: (beta -
    1) / beta."""
    parts = geometry.c_alpha_parts(20, beta, size=64, seed=1)
    sigmas = torch.tensor([0.01, 0.03])
    error = torch.stack([geometry.informed_risk(parts, beta, float(s)) for s in sigmas], 1)
    found = geometry.slope(-20 * sigmas.log10(), -10 * error.log10()).mean()
    assert float(found) == pytest.approx((beta - 1) / beta, abs=0.01)


# Rates --------------------------------------------------------------------------------------------


@pytest.mark.theorem("thm-power")
@pytest.mark.parametrize("alpha", [1, 2, 3, 5])
def test_the_error_of_the_sequence_model(alpha):
    """C sigma^p - sigma^2 <= error <= C sigma^p, p = 2 alpha / (alpha + 1), and half way by Euler
    and Maclaurin."""
    c = torch.arange(1, 200_001, dtype=torch.float64) ** (-(alpha + 1) / 2)
    constant = math.pi / (alpha + 1) / math.sin(math.pi / (alpha + 1))
    for sigma in (0.01, 0.1):
        missing = 200_000.0**-alpha / alpha  # less than the last coefficients, left out, would add
        over = constant * sigma ** (2 * alpha / (alpha + 1)) - float(
            geometry.oracle_risk(c[None], sigma)
        )
        assert 0 <= over <= sigma**2 + missing
        assert over == pytest.approx(sigma**2 / 2, abs=2 * missing + 0.01 * sigma**2)


def test_decay_at_a_smooth_contour_is_that_of_theory():
    """Squared coefficients of a disk fall as k^-3/2 in cosines and as k^-2 in wavelets."""
    n, k = 256, torch.arange(31, 513, dtype=torch.float64)
    x = disk_image(*torch.tensor([[120.0, 141.3], [131.7, 117.2], [51.2, 51.2]]), 0.9, 0.2, n)
    for coefficients, want in (
        (geometry.cosines(x).flatten(1), -1.5),
        (geometry.wavelets(x, "haar", 6), -2),
    ):
        sorted_ = coefficients.square().sort(1, descending=True).values.mean(0)[30:512]
        assert float(geometry.slope(k.log(), sorted_.log()[None])) == pytest.approx(want, abs=0.25)


# Fixed bases --------------------------------------------------------------------------------------


def test_cosines_by_their_definition():
    x, t = images(), torch.arange(8, dtype=torch.float64)
    waves = (math.pi * (t + 0.5) * t[:, None] / 8).cos() * torch.tensor(
        [1 / 8] + 7 * [1 / 4]
    ).double().sqrt()[:, None]
    torch.testing.assert_close(waves @ waves.T, torch.eye(8).double())
    torch.testing.assert_close(geometry.cosines(x), waves @ x @ waves.T)


@pytest.mark.parametrize("wavelet", ["haar", "db2", "sym4"])
def test_wavelets_are_an_orthonormal_basis(wavelet):
    basis = geometry.wavelets(torch.eye(64, dtype=torch.float64).view(64, 8, 8), wavelet, 2)
    torch.testing.assert_close(basis @ basis.T, torch.eye(64).double())
    x = images()
    # linear, rows do not mix
    torch.testing.assert_close(geometry.wavelets(x, wavelet, 2), x.flatten(1) @ basis)


@pytest.mark.theorem("prop-sparse")
@pytest.mark.parametrize(("wavelet", "order"), [("haar", 0), ("db2", 1), ("db3", 2)])
def test_few_wavelets_see_a_jump(wavelet, order):
    """An image that changes from row to row only: its details are those of a signal, once for each
    column of their band."""
    n, levels = 128, 3
    t = torch.arange(n, dtype=torch.float64) / n
    parts = torch.where(t < 0.3, t**order, torch.where(t < 0.62, 5 - t**order, 3 * t**order))
    found = geometry.wavelets(parts[None, :, None].expand(1, n, n), wavelet, levels)[0]
    sides = [n >> level for level in range(levels, 0, -1)]
    length = pywt.Wavelet(wavelet).dec_len
    for side, band in zip(
        sides, found[sides[0] ** 2 :].split([3 * s * s for s in sides]), strict=True
    ):
        seen = int((band.abs() > 1e-8).sum()) / side
        assert 0 < seen <= 3 * (length - 1) and seen < side  # with the seam, three jumps


def test_a_haar_wavelet_by_hand():
    x = torch.zeros(1, 4, 4)
    x[0, :2, :2] = torch.tensor([[1.0, 2], [3, 5]])
    # mean, differences of rows, of columns, of both
    found = geometry.wavelets(x, "haar", 1)[0].view(4, 4)[:, 0]
    torch.testing.assert_close(found, torch.tensor([11, -5, -3, 1]).double() / 2)


@pytest.mark.parametrize("wavelet", ["haar", "db2"])
def test_cycle_spinning_is_the_mean_over_all_shifts(wavelet):
    y, sigma = images(), 0.5
    basis = geometry.wavelets(torch.eye(64, dtype=torch.float64).view(64, 8, 8), wavelet, 2)
    want = torch.zeros_like(y)
    for i in range(4):
        for j in range(4):
            c = y.roll((i, j), (1, 2)).flatten(1) @ basis
            kept = (c.abs() > 3 * sigma) | (torch.arange(64) < 4)  # the four coarsest stay
            want += ((c * kept) @ basis.T).view_as(y).roll((-i, -j), (1, 2)) / 16
    found = geometry.cycle_spun(y, sigma, wavelet, 2)
    torch.testing.assert_close(found, want)
    torch.testing.assert_close(geometry.cycle_spun(y, 1e-9, wavelet, 2), y)
    torch.testing.assert_close(geometry.cycle_spun(y[1:], sigma, wavelet, 2), found[1:])


@pytest.mark.theorem("prop-oracle")
def test_risk_is_the_mean_error_and_the_oracle_its_least():
    c, factors, sigma = images(1)[0], torch.rand(8, 8, dtype=torch.float64), 0.7
    y = c + sigma * images(20_000, seed=1)
    mean = (factors * y - c).square().sum((1, 2)).mean()
    assert float(mean / geometry.risk(c[None], factors, sigma)) == pytest.approx(1, abs=0.01)
    best = c.square() / (c.square() + sigma**2)
    oracle = geometry.oracle_risk(c[None], sigma)
    torch.testing.assert_close(oracle, geometry.risk(c[None], best, sigma))
    for step in (-0.01, 0.01):
        assert geometry.risk(c[None], best + step, sigma) > oracle
    least = torch.minimum(c.square(), torch.tensor(sigma**2).double()).sum()
    assert 0.5 * least < oracle[0] < least


def test_the_oracle_of_many_images_is_that_of_each():
    c = images(3)
    torch.testing.assert_close(
        geometry.oracle_risk(c, 0.3), torch.cat([geometry.oracle_risk(v[None], 0.3) for v in c])
    )


def test_slope_of_a_line_and_of_noise():
    x, y = noise(7, dtype=torch.float64), noise(3, 7, seed=1, dtype=torch.float64)
    torch.testing.assert_close(
        geometry.slope(x, 2 + torch.tensor([[3.0], [-1]]).double() * x),
        torch.tensor([3.0, -1]).double(),
    )
    design = torch.stack([x, torch.ones(7).double()], 1)
    torch.testing.assert_close(geometry.slope(x, y), torch.linalg.lstsq(design, y.T).solution[0])


# Along a contour ----------------------------------------------------------------------------------


def test_near_is_by_distance_to_the_pixels_of_the_contour():
    rows = torch.tensor([2, 2, 6, 5, 5, -3, 1, 1])
    on = {(2, 0), (2, 1), (6, 2), (5, 3), (5, 4), (1, 6), (1, 7)}
    on |= {(r, 1) for r in range(2, 6)} | {(5, 2)} | {(r, 4) for r in range(0, 5)} | {(0, 5)}
    for reach in (0, 1.5, 2):
        want = [
            [any(math.dist((r, c), p) <= reach for p in on) for c in range(8)] for r in range(8)
        ]
        assert torch.equal(geometry.near(rows, reach), torch.tensor(want)), reach


@pytest.mark.parametrize("wave", [0, 3, 7, 16])
def test_oscillation_of_waves_that_follow_the_contour(wave):
    """A wave along a bent contour, and one across it; around a straight one the two change places."""
    size, c = 32, torch.arange(32)
    rows = (16 + 6 * torch.sin(2 * math.pi * c / size)).round().long()
    d = torch.arange(size)[:, None] - rows
    both = [
        torch.cos(2 * math.pi * wave * t / size + 0.4).double().expand(size, size) for t in (c, d)
    ]
    along, across = geometry.oscillation(torch.stack(both), rows, reach=5)
    assert along[0] == pytest.approx(wave, abs=0.35) and across[0] == pytest.approx(0, abs=1e-6)
    assert across[1] == pytest.approx(wave, abs=1.5) and along[1] == pytest.approx(0, abs=1e-6)
    if 0 < wave < 16:
        assert geometry.oscillation(both[1][None], torch.full((size,), 16), reach=5)[0] > 1


def test_oscillation_by_loops_and_of_white_noise():
    rows = torch.tensor([1, 3, 6, 7, 4, 4, 9, 2])
    x, (along, across) = images(2), geometry.oscillation(images(2), rows, reach=1)
    for e, *found in zip(x, along, across, strict=True):
        for (dd, dc), value in zip(((0, 1), (1, 0)), found, strict=True):
            pairs = [
                (float(e[r, c]), float(e[rows[c + dc] + d + dd, c + dc]))
                for c in range(8 - dc)
                for d in range(-1, 2 - dd)
                if 0 <= (r := int(rows[c]) + d) < 8 and 0 <= rows[c + dc] + d + dd < 8
            ]
            R = sum((a - b) ** 2 for a, b in pairs) / sum(a**2 + b**2 for a, b in pairs) * 2
            assert float(value) == pytest.approx(8 / math.pi * math.asin(R**0.5 / 2), abs=1e-9)
    flat = geometry.oscillation(noise(40, 40, 40), torch.full((40,), 20))
    assert all(float(v.mean()) == pytest.approx(10, abs=0.3) for v in flat)


def test_frames_of_the_walk_carry_vectors_and_contours():
    stacks, rows = [images(3), images(3, seed=1)], [torch.arange(8), torch.ones(8)]
    frames = geometry.walk(stacks, rows, levels=5)
    assert len(frames) == 3 and [t["type"] for t in frames[0]] == 2 * ["heatmap", "scatter"]
    e, peak = stacks[1][2], stacks[1][2].abs().max()
    torch.testing.assert_close(
        torch.tensor(frames[2][2]["z"]) / 5, e / peak, rtol=0, atol=0.101, check_dtype=False
    )
    assert frames[2][1]["y"] == list(range(8)) and frames[2][3]["xaxis"] == "x2"


def test_panels_of_the_walk_lie_in_the_page_and_apart():
    layout = plots.panel_layout(["one", "two", "three", "four"], 3)
    boxes = [
        (*layout[f"xaxis{i}"]["domain"], *layout[f"yaxis{i}"]["domain"]) for i in ("", 2, 3, 4)
    ]
    assert (
        all(0 <= v <= 1 for box in boxes for v in box)
        and [n["text"] for n in layout["annotations"]][3] == "four"
    )
    for i, a in enumerate(boxes):
        assert a[0] < a[1] and a[2] < a[3]
        for b in boxes[:i]:
            assert a[1] <= b[0] or b[1] <= a[0] or a[3] <= b[2] or b[3] <= a[2]


# What was measured --------------------------------------------------------------------------------


def test_recorded_curves_are_those_of_the_fixed_bases():
    """The part of the record that needs no network is computed again, on its first images."""
    found = recorded.load("geometry")["curves"]
    n, sigma = found["images"], found["sigmas"][5]
    x = c_alpha(n, 3, seed=2)
    for name, coefficients in (
        ("cosines, oracle", geometry.cosines(x)),
        ("wavelets, oracle", geometry.wavelets(x)),
    ):
        psnr = -10 * (geometry.oracle_risk(coefficients, sigma) / 6400).log10()
        assert float(psnr.mean()) == pytest.approx(found["alphas"]["3"]["psnr"][name][5], abs=2e-3)


# What is refused ----------------------------------------------------------------------------------

IMAGES, ROWS = torch.ones(2, 8, 8), torch.full((8,), 4)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: geometry.c_alpha_parts(2, 0), "alpha is 0: a regularity is positive"),
        (lambda: geometry.c_alpha_parts(2, 2, variant="code"), "variant is 'code': choose one of"),
        (
            lambda: geometry.oracle_risk(IMAGES, 0.0),
            "sigma is 0.0: the noise level must be positive",
        ),
        (lambda: geometry.oracle_risk(IMAGES * torch.nan, 1.0), "coefficients holds NaN"),
        (lambda: geometry.risk(IMAGES, IMAGES, math.inf), "sigma is inf"),
        (lambda: geometry.cosines(IMAGES[0]), r"images has shape \(8, 8\): pass gray images"),
        (
            lambda: geometry.wavelets(IMAGES, "bior2.2", 2),
            "wavelet is 'bior2.2': choose an orthogonal one",
        ),
        (lambda: geometry.wavelets(IMAGES, "daub", 2), "wavelet is 'daub'"),
        (
            lambda: geometry.wavelets(IMAGES, "db2", 4),
            "images are 8 x 8: 4 levels need sides divisible by 16",
        ),
        (lambda: geometry.wavelets(IMAGES, "db2", 0), "levels is 0"),
        (lambda: geometry.cycle_spun(IMAGES, -1.0, levels=2), "sigma is -1.0"),
        (
            lambda: geometry.slope(torch.ones(3), torch.ones(3)),
            r"pass \(m,\) with m >= 2 and \(n, m\)",
        ),
        (lambda: geometry.near(ROWS.float()), "pass one contour .size,. of whole rows"),
        (lambda: geometry.near(ROWS + 9), "the contour lies outside of the frame"),
        (
            lambda: geometry.oscillation(IMAGES[:, :6], ROWS),
            r"vectors have shape \(2, 6, 8\): pass \(k, 8, 8\)",
        ),
        (lambda: geometry.oscillation(IMAGES, ROWS, 0), "reach is 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
