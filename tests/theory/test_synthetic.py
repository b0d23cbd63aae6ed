"""Image classes have the geometry that they claim: regularity, tangent vectors, spans,
permutations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from helpers.data import synthetic
from helpers.data.synthetic import (
    black_white,
    c_alpha,
    disk_image,
    disk_parameters,
    disks,
    ray,
    shuffled,
    sine,
)
from helpers.denoisers import LocalMean, PosteriorMean

FACE = torch.rand(9, 12, generator=torch.Generator().manual_seed(5))
CLASSES = {
    "released": lambda n, seed=0: c_alpha(n, 1.5, size=12, seed=seed),
    "paper": lambda n, seed=0: c_alpha(n, 2, beta=1, size=13, variant="paper", seed=seed),
    "disks": lambda n, seed=0: disks(n, 20, seed),
    "ray": lambda n, seed=0: ray(FACE, n, seed),
    "sine": lambda n, seed=0: sine(n, 12, seed),
}


def draws(n, size):
    """The uniform numbers behind c_alpha, a row per image: coin, r_1, r_2, the contour's noise, the
    backgrounds'."""
    return (
        torch.rand(n, 3 + size + 2 * size**2, generator=torch.Generator().manual_seed(0))
        .double()
        .numpy()
    )


def slope(power, k):
    return np.polyfit(np.log(k), np.log(power), 1)[0]


# All classes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", CLASSES.values(), ids=CLASSES)
def test_fewer_images_are_the_first_of_more(make):
    n = 2 * synthetic.CHUNK + 5
    x = make(n)
    assert x.dtype == torch.float32 and len(x.flatten(1).unique(dim=0)) == n
    for m in (1, synthetic.CHUNK, synthetic.CHUNK + 3):
        torch.testing.assert_close(make(m), x[:m], rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", CLASSES.values(), ids=CLASSES)
def test_the_seed_decides_and_the_global_generator_stays(make):
    state = torch.get_rng_state()
    assert torch.equal(make(3, seed=7), make(3, seed=7)) and not torch.equal(
        make(3, seed=7), make(3, seed=8)
    )
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", ["released", "paper", "disks", "ray"])
def test_intensities_fill_the_unit_interval(name):
    x = CLASSES[name](2000)
    assert x.min() >= 0 and x.max() <= 1 and x.max() - x.min() > 0.9


@pytest.mark.parametrize(
    "make",
    [
        lambda **k: c_alpha(3, 2, **k),
        lambda **k: disks(3, **k),
        lambda **k: sine(3, **k),
        black_white,
    ],
    ids=["c_alpha", "disks", "sine", "black_white"],
)
def test_all_work_is_done_on_the_device(make):
    """The meta device refuses to meet tensors of another."""
    assert make(size=16, device="meta").device.type == "meta"
    if torch.cuda.is_available():
        torch.testing.assert_close(make(device="cuda").cpu(), make(), rtol=0, atol=1e-5)


# C^alpha ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("alpha", "beta", "size"), [(0.4, 2.0, 24), (1.0, 1.0, 25), (3.0, None, 40)]
)
@pytest.mark.parametrize("variant", ["paper", "released"])
def test_c_alpha_equals_loops_over_columns(alpha, beta, size, variant):
    """Complex transforms in double precision, masks filled column by column, 2x2 means of the
    padded mask."""
    above = 0
    frequency = np.fft.fftfreq(size) * size
    k1, k2 = np.abs(frequency), np.hypot(frequency[:, None], frequency)
    k1[0] = k2[0, 0] = 1
    for x, u in zip(c_alpha(20, alpha, beta, size, variant).numpy(), draws(20, size), strict=True):
        coin, r1, r2 = u[:3]
        noise = 2 * u[3:] - 1 if variant == "released" else u[3:] - 0.5
        contour = np.fft.ifft(np.fft.fft(noise[:size]) * k1**-alpha).real
        mask = np.ones((size, size))
        for column in range(size):
            edge = round(size * contour[column]) + size // 2
            mask[: max(edge, 0), column] = 0
            above += edge < 0
        if variant == "released":
            padded = np.pad(mask, ((1, 0), (1, 0)), "reflect")
            mask = np.lib.stride_tricks.sliding_window_view(padded, (2, 2)).mean((2, 3))
        b = np.fft.ifft2(
            np.fft.fft2(noise[size:].reshape(2, size, size)) * k2 ** -(beta or alpha)
        ).real
        b = [(b - b.min()) / (b.max() - b.min()) for b in b]
        i = int(coin >= 0.5)  # the brighter background
        b[i], b[1 - i] = r1 + (1 - r1) * b[i], r2 * b[1 - i]
        np.testing.assert_allclose(x, mask * b[0] + (1 - mask) * b[1], atol=1e-5)
    # contours that leave the frame are among them
    assert above or alpha > 0.5 or variant == "paper"


@pytest.mark.parametrize("alpha", [0.75, 1.0, 1.5])
@pytest.mark.parametrize("beta", [1.0, 3.0])
def test_contours_have_the_power_spectrum_of_their_regularity(alpha, beta):
    """Where r_1 > r_2 a threshold between them finds the mask, and the sums of its columns the
    contour."""
    n, size = 400, 96
    u = draws(n, size)
    clear = u[:, 1] > u[:, 2] + 1e-4
    x = c_alpha(n, alpha, beta, size, "paper").numpy()[clear]
    bright = (x > u[clear, 1:3].mean(1)[:, None, None]).sum(1)
    height = np.where(u[clear, :1] < 0.5, size - bright, bright)
    power = (np.abs(np.fft.rfft(height, axis=1)) ** 2).mean(0)
    k = np.arange(1, 13)  # beyond, rounding to whole rows shows
    assert slope(power[k], k) == pytest.approx(-2 * alpha, abs=0.12)
    # noise of variance 1/12
    assert np.mean(power[k] * k ** (2 * alpha)) == pytest.approx(size**3 / 12, rel=0.1)


@pytest.mark.parametrize("beta", [1.0, 2.0, 3.0])
def test_backgrounds_have_the_power_spectrum_of_their_regularity(beta):
    noise = torch.rand(100, 2, 64, 64, generator=torch.Generator().manual_seed(1)) - 0.5
    power = (np.abs(np.fft.fft2(synthetic._filter(noise, beta, 2).double().numpy())) ** 2).mean(
        (0, 1)
    )
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(64, 1 / 64), np.fft.fftfreq(64, 1 / 64)))
    assert slope(power[k > 0], k[k > 0]) == pytest.approx(-2 * beta, abs=0.02)
    assert power[0, 0] == pytest.approx(64**2 / 12, rel=0.3)  # the gain of k = 0 is 1


def test_regularities_of_contour_and_background_are_apart():
    """The same contours for every beta, the same backgrounds for every alpha."""
    smooth, rough = (c_alpha(30, 2, beta, 32, "paper") for beta in (8, 0.5))
    u = torch.from_numpy(draws(30, 32)).float()
    clear = u[:, 1] > u[:, 2]
    threshold = ((u[:, 1] + u[:, 2]) / 2)[clear, None, None]
    assert torch.equal(smooth[clear] > threshold, rough[clear] > threshold)
    other = c_alpha(30, 5, 0.5, 32, "paper")
    assert 0.7 < (other == rough).float().mean() < 1


# Disks --------------------------------------------------------------------------------------------


def some_disks(n):
    u = torch.rand(5, n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return 35 + 10 * u[0], 35 + 10 * u[1], 5 + 25 * u[2], u[3], u[4]


def test_the_area_of_a_disk():
    row, column, radius, *_ = some_disks(100)
    torch.testing.assert_close(
        disk_image(row, column, radius, 1.0, 0.0).sum((1, 2)),
        math.pi * radius**2,
        rtol=0.01,
        atol=0,
    )


def test_the_edge_is_the_coverage_of_pixels():
    """Against 16 x 16 hard samples per pixel."""
    row, column, radius, high, low = (p[:, None, None] for p in some_disks(10))
    u = (torch.arange(80 * 16) + 0.5) / 16
    inside = ((u[:, None] - row) ** 2 + (u - column) ** 2 <= radius**2).double()
    exact = low + (high - low) * F.avg_pool2d(inside, 16)
    assert (disk_image(*some_disks(10)) - exact).square().mean().sqrt() < 0.002


def tangents(parameters, size=80):
    return torch.stack(torch.func.jacfwd(disk_image, argnums=(0, 1, 2, 3, 4))(*parameters, size))


def test_tangent_vectors_equal_their_closed_forms():
    parameters = [p[0] for p in some_disks(1)]
    row, column, radius, high, low = map(float, parameters)
    rows, columns = np.mgrid[:80, :80] + 0.5
    angle = np.arctan2(rows - row, columns - column)
    t = np.clip((radius - np.hypot(rows - row, columns - column)) / 1.3 + 0.5, 0, 1)
    m, ring = t**2 * (3 - 2 * t), (high - low) * 6 * t * (1 - t) / 1.3
    expected = np.stack([ring * np.sin(angle), ring * np.cos(angle), ring, m, 1 - m])
    np.testing.assert_allclose(tangents(parameters), expected, atol=1e-12)
    assert np.linalg.matrix_rank(expected.reshape(5, -1)) == 5


def test_tangent_vectors_equal_finite_differences():
    p, h = torch.stack([p[1] for p in some_disks(2)]), 1e-5
    step = h * torch.eye(5).double()
    difference = (disk_image(*(p + step).T) - disk_image(*(p - step).T)) / (2 * h)
    torch.testing.assert_close(tangents(p.unbind()), difference, rtol=0, atol=1e-4)


def test_tangent_vectors_are_continuous_where_the_edge_reaches_a_pixel():
    for radius in (5.0 - 0.65, 5.0 + 0.65):
        before, after = (
            tangents(torch.tensor([8.5, 8.5, r, 1, 0]).double(), 17)
            for r in (radius - 1e-6, radius + 1e-6)
        )
        torch.testing.assert_close(before, after, rtol=0, atol=1e-4)


def test_gradients_are_finite_for_a_centre_in_the_middle_of_a_pixel():
    p = torch.tensor([8.5, 8.5, 5.0, 1.0, 0.0], requires_grad=True)
    disk_image(*p, 17).square().sum().backward()
    assert p.grad.isfinite().all() and p.grad[:2].abs().max() < 1e-3 < p.grad[2]


def test_disk_arguments_broadcast():
    x = disk_image(
        torch.tensor([[4.0], [9.0]]), 8.0, torch.tensor([2.0, 3.0, 4.0]), 1, 0.25, size=16
    )
    assert x.shape == (2, 3, 16, 16)
    torch.testing.assert_close(x[1, 2], disk_image(9, 8, 4, 1, 0.25, 16))


def test_the_law_of_disks():
    row, column, radius, *gray = disk_parameters(20_000).T
    room = torch.stack([row, 80 - row, column, 80 - column]).amin(0)
    assert ((radius >= 5) & (radius < room)).all()
    for centre in (row, column):
        counts = torch.bincount(centre.long(), minlength=80)
        assert (
            counts[:10].sum() == counts[70:].sum() == 0
            and ((counts[10:70] - 333).abs() < 5 * math.sqrt(333)).all()
        )
    share = torch.bincount(radius[room == 12].long())[5:] / (room == 12).sum()
    assert len(share) == 7 and ((share - 1 / 7).abs() < 0.06).all()
    for g in gray:
        assert g.mean() == pytest.approx(0.5, abs=0.01) and g.std() == pytest.approx(
            12**-0.5, abs=0.01
        )


def test_disks_are_the_images_of_their_parameters_at_any_size():
    torch.testing.assert_close(disks(70), disk_image(*disk_parameters(70).T))
    torch.testing.assert_close(disk_parameters(9, 40)[:, :3], disk_parameters(9)[:, :3] / 2)
    # but for the softer edge
    torch.testing.assert_close(disks(9, 40), F.avg_pool2d(disks(9), 2), rtol=0, atol=0.05)


# Cones, permutations, two images ------------------------------------------------------------------


def test_a_ray_is_one_image_times_uniform_intensities():
    x, n = ray(FACE, 5000), 5000
    s = x.flatten(1) @ FACE.flatten() / FACE.square().sum()
    torch.testing.assert_close(x, s[:, None, None] * FACE)
    assert (
        0 < s.min() < 5 / n
        and 1 - 5 / n < s.max() <= 1
        and s.mean() == pytest.approx(0.5, abs=0.02)
    )


def test_sines_span_two_quadrature_waves_and_no_direction_is_preferred():
    x = sine(4000, 32).double()
    angle = 2 * math.pi * torch.arange(32).double() / 32
    basis = torch.stack([angle.cos(), angle.sin()]).repeat_interleave(32, 0).view(
        2, 32, 32
    ).flatten(1) / math.sqrt(512)
    c = x.flatten(1) @ basis.T
    torch.testing.assert_close(c @ basis, x.flatten(1), rtol=0, atol=1e-6)
    amplitude = c.norm(dim=1) / math.sqrt(512)
    assert amplitude.max() <= 1 + 1e-6 and amplitude.mean() == pytest.approx(0.5, abs=0.02)
    assert c.mean(0).abs().max() < 1
    torch.testing.assert_close(c.T @ c / 4000, torch.eye(2).double() * 512 / 6, rtol=0, atol=5)


@pytest.mark.parametrize("shape", [(4, 9, 12), (4, 3, 9, 12)])
def test_shuffling_keeps_the_values_and_can_be_undone(shape):
    x = torch.rand(shape)
    y = shuffled(x, 3)
    assert not torch.equal(y, x) and not torch.equal(y, shuffled(x, 4))
    assert torch.equal(y.flatten(-2).sort().values, x.flatten(-2).sort().values)
    assert torch.equal(shuffled(y, 3, inverse=True), x)


def test_one_permutation_shuffles_all_images_and_channels():
    place = torch.arange(108.0).view(9, 12)
    y = shuffled(place.expand(4, 3, 9, 12))
    assert torch.equal(y, shuffled(place[None])[0].expand(4, 3, 9, 12))


def test_the_optimal_denoiser_commutes_with_shuffling():
    x, y = torch.rand(20, 8, 8).double(), torch.rand(5, 8, 8).double()
    torch.testing.assert_close(
        PosteriorMean(shuffled(x))(shuffled(y), 0.3), shuffled(PosteriorMean(x)(y, 0.3))
    )


def test_black_and_white_make_a_local_machine_vote():
    """At small noise the 3x3 local machine puts the majority of its window into each pixel."""
    points = black_white(12)
    assert torch.equal(points, torch.tensor([0.0, 1.0])[:, None, None] * torch.ones(12, 12))
    y = (torch.rand(6, 12, 12, generator=torch.Generator().manual_seed(0)) < 0.5).float()
    majority = (F.avg_pool2d(y, 3, stride=1) > 0.5).float()
    torch.testing.assert_close(LocalMean(points, 3)(y, 0.1)[:, 1:-1, 1:-1], majority)


# Bad input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: c_alpha(0, 2), "n is 0: it must be a whole number"),
        (lambda: c_alpha(2, 0), "alpha is 0: a regularity is positive and finite"),
        (lambda: c_alpha(2, 2, math.inf), "beta is inf: a regularity"),
        (lambda: c_alpha(2, math.nan), "alpha is nan: a regularity"),
        (lambda: c_alpha(2, 2, size=1), "size is 1: one pixel has no contour; choose 80"),
        (lambda: c_alpha(2, 2, size=8.5), "size is 8.5: it must be a whole number"),
        (lambda: c_alpha(2, 2, variant="code"), "variant is 'code': choose one of paper, released"),
        (lambda: disks(-1), "n is -1"),
        (lambda: disks(2, 0), "size is 0"),
        (lambda: disk_parameters(2, 0), "size is 0"),
        (lambda: disk_image(1.0, 1.0, 1.0, 1.0, 0.0, 0), "size is 0"),
        (lambda: sine(2, 2), "size is 2: a sine and its quadrature need at least 3 columns"),
        (lambda: sine(0), "n is 0"),
        (lambda: ray(FACE[None], 2), r"image has shape \(1, 9, 12\): pass one gray image"),
        (lambda: ray(FACE.long(), 2), "pass a floating tensor"),
        (lambda: ray(FACE / 0, 2), "image holds NaN or infinity"),
        (lambda: ray(FACE, 0), "n is 0"),
        (lambda: shuffled(FACE), r"images has shape \(9, 12\): pass \(N, H, W\)"),
        (lambda: black_white(0), "size is 0"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
