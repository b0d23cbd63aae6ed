"""Classical denoisers: exact identities of shrinkage first, then each denoiser against its
definition and limits."""

import inspect
import io
import math
import socket

import numpy as np
import pytest
import pywt
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import noise
from PIL import Image
from scipy import integrate
from scipy.special import sici
from scipy.stats import norm
from skimage import restoration

from helpers import geometry, models, recorded, sampling
from helpers.data import load
from helpers.data.synthetic import c_alpha
from helpers.lab import export
from helpers.plots import SITE
from helpers.systems.campagne import classical, directional, photographs, scores, thresholds
from helpers.systems.kadkhodaie import eigenbasis

QUICK = settings(max_examples=40, deadline=None)


def images(n=2, size=16, seed=0):
    return noise(n, size, size, seed=seed, dtype=torch.float64)


LIBRARY = {
    "BayesShrink": classical.bayes_shrink(2),
    "BayesShrink, spun": classical.bayes_shrink(2, shifts=2),
    "TV": classical.total_variation(),
    "NLM": classical.non_local_means(),
}
OURS = {
    "hard": classical.WaveletThreshold("hard", levels=2),
    "soft": classical.WaveletThreshold("soft", 1.5, levels=2),
    "spun": classical.CycleSpun(levels=2),
    "Wiener": classical.Wiener.from_points(images(50, seed=5)),
}

# Shrinkage, exactly -------------------------------------------------------------------------------


@pytest.mark.theorem("thm-terms")
@QUICK
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=30), st.floats(0.01, 20))
def test_the_oracle_lies_between_half_of_keep_or_kill_and_all_of_it(values, sigma):
    c = torch.tensor([values], dtype=torch.float64)
    least = torch.minimum(c.square(), torch.tensor(sigma**2)).sum()
    oracle = geometry.oracle_risk(c, sigma)[0]
    assert least / 2 * (1 - 1e-12) <= oracle <= least * (1 + 1e-12)
    terms = thresholds.approximation(c)[0] + sigma**2 * torch.arange(len(values) + 1)
    torch.testing.assert_close(terms.min(), least)  # min over M of ||x - x_M||^2 + M sigma^2


@pytest.mark.theorem("thm-universal")
@QUICK
@given(st.lists(st.floats(-30, 30), min_size=1, max_size=30), st.floats(0.01, 20), st.floats(0, 8))
def test_no_threshold_beats_the_oracle(values, sigma, t):
    c = torch.tensor([values], dtype=torch.float64)
    for kind in thresholds.KINDS:
        assert (
            thresholds.threshold_risk(c, sigma, t, kind)
            >= geometry.oracle_risk(c, sigma) - 1e-9 * sigma**2
        )


@pytest.mark.theorem("thm-universal")
@QUICK
@given(st.lists(st.floats(-30, 30), min_size=2, max_size=30), st.floats(0.01, 20))
def test_the_universal_threshold_is_within_its_factor_of_the_oracle(values, sigma):
    c = torch.tensor([values], dtype=torch.float64)
    t = thresholds.universal(len(values))
    least = torch.minimum(c.square(), torch.tensor(sigma**2)).sum()
    assert thresholds.threshold_risk(c, sigma, t)[0] <= (t**2 + 1) * (sigma**2 + least) * (
        1 + 1e-12
    )


@pytest.mark.parametrize("kind", thresholds.KINDS)
@pytest.mark.parametrize("m, t", [(0.0, 0.0), (0.0, 2.0), (0.7, 1.0), (-3.0, 2.5), (9.0, 3.0)])
def test_the_risk_of_a_threshold_by_quadrature(kind, m, t):
    def cost(y):
        kept = y if kind == "hard" else np.sign(y) * (abs(y) - t)
        return ((kept if abs(y) > t else 0.0) - m) ** 2 * norm.pdf(y - m)

    ends = sorted({min(m, -t) - 12, -t, t, m, max(m, t) + 12})
    want = sum(
        integrate.quad(cost, a, b, epsabs=1e-13)[0] for a, b in zip(ends, ends[1:], strict=False)
    )
    c = torch.tensor([[m]], dtype=torch.float64)
    assert float(thresholds.threshold_risk(c, 1.0, t, kind)) == pytest.approx(want, abs=1e-10)
    assert float(thresholds.threshold_risk(5 * c, 5.0, t, kind)) == pytest.approx(
        25 * want, abs=1e-8
    )


def test_the_risk_of_a_threshold_without_one_and_without_end():
    c = images(1)
    assert float(thresholds.threshold_risk(c, 0.5, 0.0)) == pytest.approx(0.25 * c.numel())
    assert float(thresholds.threshold_risk(c, 0.5, 60.0, "hard")) == pytest.approx(
        float(c.square().sum())
    )


def test_the_trace_of_a_soft_threshold_is_the_number_of_coefficients_it_keeps():
    y, sigma = images(1, 8), 0.4
    D = classical.WaveletThreshold("soft", 1.5, "haar", 1)
    step = 1e-6 * torch.eye(64, dtype=torch.float64).view(64, 8, 8)
    J = ((D(y + step, sigma) - D(y - step, sigma)) / 2e-6).flatten(1)
    c = geometry.wavelets(y, "haar", 1)[0]
    kept = 16 + int((c[16:].abs() > 1.5 * sigma).sum())
    assert float(J.trace()) == pytest.approx(kept, abs=1e-6)
    torch.testing.assert_close(J, J.T, rtol=0, atol=1e-6)


@pytest.mark.theorem("thm-terms")
def test_mean_oracle_is_below_wiener():
    """Jensen: s -> s sigma^2 / (s + sigma^2) is concave."""
    c = geometry.cosines(c_alpha(40, 2, size=16))
    power = c.square().mean(0)
    assert (
        geometry.oracle_risk(c, 0.1).mean() <= geometry.risk(c, power / (power + 0.01), 0.1).mean()
    )


def test_live_frames_carry_the_exact_numbers():
    c, sigma = images(1, 8).flatten(1), 0.3
    (frame,) = thresholds.live(c, [sigma], points=20)
    traces = {(t["name"], t.get("xaxis", "x")): t["y"] for t in frame}
    m = torch.minimum(c.square(), torch.tensor(sigma**2)).sum()

    def gain(error):
        return -10 * math.log10(float(error) / (64 * sigma**2))

    assert max(traces["M terms", "x"]) <= gain(m) + 1e-4
    for name, error in (("oracle", geometry.oracle_risk(c, sigma)), ("m", m), ("m / 2", m / 2)):
        assert traces[name, "x2"] == traces[name, "x"] == pytest.approx([gain(error)] * 2, abs=1e-4)
    assert traces["soft", "x2"][8] == pytest.approx(
        gain(thresholds.threshold_risk(c, sigma, 2.0)), abs=1e-4
    )
    assert traces["left over", "x"][-1] is None  # all terms leave nothing over
    assert {"xaxis2", "yaxis2"} <= set(thresholds.panels())


# Each denoiser against its definition -------------------------------------------------------------


@pytest.mark.parametrize(
    "wavelet, levels, shape", [("haar", 1, (8, 8)), ("db2", 3, (16, 32)), ("sym4", 2, (12, 20))]
)
def test_images_from_their_coefficients(wavelet, levels, shape):
    x = noise(3, *shape, dtype=torch.float64)
    c = geometry.wavelets(x, wavelet, levels)
    torch.testing.assert_close(classical.images_from(c, shape, wavelet, levels), x)


@pytest.mark.parametrize("kind", thresholds.KINDS)
def test_a_threshold_acts_on_details_alone(kind):
    y, sigma, t = images(), 0.5, 1.2
    x_hat = classical.WaveletThreshold(kind, t, levels=2)(y, sigma)
    c, found = (geometry.wavelets(v, levels=2) for v in (y, x_hat))
    torch.testing.assert_close(found[:, :16], c[:, :16])
    details = c[:, 16:].numpy()
    want = np.where(
        np.abs(details) > t * sigma,
        details - (np.sign(details) * t * sigma if kind == "soft" else 0),
        0,
    )
    torch.testing.assert_close(found[:, 16:], torch.from_numpy(want))


@pytest.mark.theorem("prop-class-wiener")
def test_wiener_is_its_formula_and_its_error_is_the_formula_s():
    x = c_alpha(400, 2, size=16).double()
    D = classical.Wiener.from_points(x)
    power, sigma = geometry.cosines(x).square().mean(0), 0.2
    y = x + sigma * noise(*x.shape, seed=3, dtype=torch.float64)
    torch.testing.assert_close(
        geometry.cosines(D(y, sigma)), power / (power + sigma**2) * geometry.cosines(y)
    )
    want = (power * sigma**2 / (power + sigma**2)).sum()
    assert float((D(y, sigma) - x).square().sum((1, 2)).mean() / want) == pytest.approx(1, abs=0.02)


def test_wiener_is_exported():
    # raises where the graph differs from torch
    assert export(OURS["Wiener"], torch.tensor([0.1, 1.0]))


def test_cycle_spinning_is_scikit_image_s():
    y, sigma = images(1), 0.5
    base = classical.WaveletThreshold("hard", 3.0, levels=2)
    want = restoration.cycle_spin(
        y[0].numpy(), lambda v: base(torch.from_numpy(v)[None], sigma)[0].numpy(), 3, workers=1
    )
    torch.testing.assert_close(classical.CycleSpun(levels=2)(y, sigma)[0], torch.from_numpy(want))


def test_cycle_spinning_of_signals_is_the_mean_over_all_shifts():
    y, want = noise(1, 32, dtype=torch.float64), torch.zeros(32, dtype=torch.float64)
    for k in range(4):
        coarse, *details = pywt.wavedec(y[0].roll(k).numpy(), "db2", "periodization", 2)
        kept = [np.where(np.abs(d) > 2 * 0.4, d, 0) for d in details]
        want += torch.from_numpy(pywt.waverec([coarse, *kept], "db2", "periodization")).roll(-k) / 4
    torch.testing.assert_close(classical.CycleSpun(2.0, "db2", 2)(y, 0.4)[0], want)


def test_a_fourier_cut_is_a_projection_of_its_rank():
    D = classical.FourierCut(5)
    J = D(torch.eye(32, dtype=torch.float64), 1.0)
    torch.testing.assert_close(J, J.T)
    torch.testing.assert_close(J @ J, J)
    assert float(J.trace()) == pytest.approx(9)


@pytest.mark.theorem("thm-gibbs")
def test_a_fourier_cut_overshoots_a_jump_as_wilbraham_says():
    n, waves = 2**14, 40
    square = torch.where(torch.arange(n) < n // 2, 1.0, -1.0).double()
    cut = classical.FourierCut(2 * waves)(square[None], 1.0)[0]
    first = cut[: n // 4].argmax()  # the jump lies half a pixel before the first one
    assert float(first) + 0.5 == pytest.approx(n / (4 * waves), abs=1)
    assert float(cut[first]) == pytest.approx(2 / math.pi * sici(math.pi)[0], abs=1e-3)


def test_bayes_shrink_is_scikit_image_s_with_its_levels():
    y = images(1)[0].numpy()
    for levels in (None, 2):
        want = restoration.denoise_wavelet(y, sigma=0.3, wavelet="db2", wavelet_levels=levels)
        found = classical.bayes_shrink(levels)(torch.from_numpy(y)[None], 0.3)[0]
        torch.testing.assert_close(found, torch.from_numpy(want))


def test_total_variation_is_a_minimum():
    """No small step from the answer lowers the energy: the tolerance is fine enough."""
    y, sigma, weight = c_alpha(1, 2, size=16)[0].double() + 0.1 * images(1)[0], 0.1, 1.1

    def energy(u):  # forward differences, zero beyond the border, as in scikit-image
        rows, columns = torch.zeros_like(u), torch.zeros_like(u)
        rows[:-1], columns[:, :-1] = u[1:] - u[:-1], u[:, 1:] - u[:, :-1]
        return (u - y).square().sum() / 2 + weight * sigma * torch.hypot(rows, columns).sum()

    u = classical.total_variation(weight, 1e-9, 20_000)(y[None], sigma)[0]
    for seed in range(5):
        assert energy(u) < energy(u + 0.01 * noise(16, 16, seed=seed, dtype=torch.float64))
    coarse = restoration.denoise_tv_chambolle(y.numpy(), weight * sigma)
    assert energy(u) < energy(torch.from_numpy(coarse))


def test_bm3d_says_how_to_get_it(monkeypatch):
    def missing(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr(classical.importlib, "import_module", missing)
    with pytest.raises(ValueError, match="bm3d is not installed: pip install bm3d"):
        classical.bm3d()


# What all share -----------------------------------------------------------------------------------


@pytest.mark.theorem("prop-units")
@pytest.mark.parametrize("name", [*(n for n in OURS if n != "Wiener"), *LIBRARY])
def test_units_do_not_matter(name):
    """D(c y, c sigma) = c D(y, sigma): all that these know is the noise level."""
    D, y, sigma = {**OURS, **LIBRARY}[name], images(1), 0.4
    for c in (0.25, 8.0):  # powers of two: exact up to the end
        torch.testing.assert_close(D(c * y, c * sigma), c * D(y, sigma), rtol=1e-6, atol=1e-6 * c)


@pytest.mark.theorem("prop-no-unit")
@pytest.mark.parametrize("name", ["soft", "NLM"])
def test_a_generator_without_a_unit(name):
    start, levels = images(1), sampling.log_linear(5, 0.1, 1.0)
    D, c = {**OURS, **LIBRARY}[name], 8.0
    one, other = (sampling.last(sampling.euler(D, k * start, k * levels)) for k in (1.0, c))
    torch.testing.assert_close(other, c * one, rtol=1e-6, atol=1e-6 * c)


def test_spun_thresholds_move_with_the_image_and_plain_ones_do_not():
    y = images(1)
    moved = {name: OURS[name](y.roll((1, 2), (1, 2)), 0.5) for name in ("spun", "hard")}
    torch.testing.assert_close(moved["spun"], OURS["spun"](y, 0.5).roll((1, 2), (1, 2)))
    assert (moved["hard"] - OURS["hard"](y, 0.5).roll((1, 2), (1, 2))).abs().max() > 0.1


def test_a_network_without_bias_needs_no_level_to_be_homogeneous():
    D, y = models.load("c-alpha-2"), c_alpha(1, 2) + 0.1 * noise(1, 80, 80)
    with torch.no_grad():
        for c in (0.1, 7.0):
            assert float((D(c * y, 0.1) - c * D(y, 0.1)).norm() / (c * D(y, 0.1)).norm()) < 1e-4


def test_sure_of_a_soft_threshold_is_unbiased():
    c, t = torch.linspace(0, 6, 4096, dtype=torch.float64), 1.5
    y = c + noise(40, 4096, dtype=torch.float64)
    x_hat = thresholds.shrunk(y, t)
    found = eigenbasis.sure(x_hat, y, 1.0, (y.abs() > t).sum(1).double()).mean()
    assert float(found / thresholds.threshold_risk(c[None], 1.0, t)) == pytest.approx(1, abs=0.02)


# Tables and pictures ------------------------------------------------------------------------------


def test_compare_is_psnr_row_by_row():
    x = c_alpha(3, 2, size=16)
    found = scores.compare(
        {"none": classical.WaveletThreshold("soft", 0.0, levels=2)}, x, (0.1, 0.3), seed=4
    )
    torch.testing.assert_close(found["none"], found["noisy"])
    assert found["noisy"].shape == (3, 2)
    assert found["noisy"].mean(0).tolist() == pytest.approx([20, 20 * math.log10(1 / 0.3)], abs=0.5)


def test_interval_of_known_numbers():
    mean, half = scores.interval(torch.tensor([1.0, 2.0, 3.0]))
    assert mean == 2 and half == pytest.approx(1.959964 / 3**0.5)


def test_photographs_come_with_the_package(monkeypatch):
    def blocked(*arguments, **options):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", blocked)
    x = photographs.photographs(32)
    assert x.shape == (len(photographs.NAMES), 32, 32) and 0 <= float(x.min()) < float(x.max()) <= 1


def png(width, height, mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (width, height), 255 if mode == "L" else (255, 0, 0)).save(file, "PNG")
    return file.getvalue()


def test_a_picture_is_its_middle_square_in_gray():
    assert photographs.picture(png(40, 30), 16).unique().tolist() == pytest.approx(
        [0.299], abs=0.002
    )
    wide = Image.new("L", (30, 10))
    wide.paste(255, (10, 0, 20, 10))
    file = io.BytesIO()
    wide.save(file, "PNG")
    assert photographs.picture(file.getvalue(), 5).unique().tolist() == [1.0]


def test_what_is_no_picture_is_said_and_drawn_is_what_is_one(capsys, monkeypatch):
    drawn = []
    upload = photographs.Upload(drawn.append, size=8)
    assert not upload.shown(b"a letter") and "bring a PNG or JPEG" in capsys.readouterr().out
    assert upload.shown(png(9, 9)) and drawn[0].shape == (8, 8)
    monkeypatch.setattr(photographs, "LARGEST", 50)
    assert not upload.shown(png(9, 9)) and "has 9 x 9 pixels" in capsys.readouterr().out
    assert not upload.shown(png(9, 9)[:40])


def test_an_upload_is_a_sentence_on_the_page_and_a_button_beside_a_kernel(monkeypatch):
    upload = photographs.Upload(print)
    monkeypatch.setenv(SITE, "1")
    assert "Jupyter or Colab" in upload._repr_mimebundle_()["text/html"]
    monkeypatch.delenv(SITE)
    assert "application/vnd.jupyter.widget-view+json" in upload._repr_mimebundle_()


def test_files_of_both_ipywidgets():
    want = [b"one", b"two"]
    assert photographs.contents(({"content": memoryview(b"one")}, {"content": b"two"})) == want
    assert photographs.contents({"a": {"content": b"one"}, "b": {"content": b"two"}}) == want


# What was measured --------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [2, 4])
def test_recorded_tables_are_those_of_the_denoisers(alpha):
    """What is quick is computed again, on the images and the noise of the first seed."""
    found = recorded.load("classical")["c-alpha"]
    table, training = (
        found["alphas"][str(alpha)],
        load("c-alpha", n=found["training"], alpha=alpha).images,
    )
    x = load("c-alpha", "test", table["images a seed"], alpha=alpha, seed=0).images
    chosen = {
        k: d
        for k, d in classical.classics(training).items()
        if k in ("Wiener", "hard", "hard, spun")
    }
    again = scores.compare(
        chosen | {"UNet": models.load(f"c-alpha-{alpha}")}, x, table["sigmas"], 0
    )
    for name, psnr in again.items():
        assert psnr.mean(0).tolist() == pytest.approx(table["psnr"][name]["seeds"][0], abs=2e-3), (
            name
        )


def test_recorded_scores_are_those_of_the_denoisers():
    """What is quick, on the C^2 images."""
    found = recorded.load("classical")["standard"]
    row = found["sets"]["C^2"]
    x = load("c-alpha", "test", row["images"], alpha=2, seed=0).images
    chosen = {"hard, spun": classical.CycleSpun(), "curvelets": directional.Curvelets()}
    chosen |= {"directions": directional.DirectionalHaar()}
    for name, values in scores.scores(chosen, x, found["sigmas"], found["seed"]).items():
        psnr, ssim = values.mean(1).tolist()
        assert psnr == pytest.approx(row["rows"][name]["mean"][0], abs=2e-3), name
        assert ssim == pytest.approx(row["rows"][name]["mean"][1], abs=2e-3), name


@pytest.mark.parametrize(
    ("method", "made", "option"),
    [
        ("total variation", classical.total_variation, "weight"),
        ("non-local means", classical.non_local_means, "h"),
        ("hard, spun", classical.CycleSpun, "threshold"),
        ("curvelets", directional.Curvelets, "threshold"),
        ("directions", directional.DirectionalHaar, "threshold"),
    ],
)
def test_defaults_did_best_on_training_images(method, made, option):
    """Within a tenth of a decibel of the best of the grid, the mean over levels, and inside it."""
    grid = recorded.load("classical")["settings"]["psnr"][method]
    means = {float(value): sum(levels) / len(levels) for value, levels in grid.items()}
    taken = inspect.signature(made).parameters[option].default
    assert min(means) < taken < max(means)
    assert means[taken] > max(means.values()) - 0.1


# What is refused ----------------------------------------------------------------------------------

IMAGES = torch.ones(2, 8, 8)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: thresholds.universal(0), "n is 0"),
        (
            lambda: thresholds.shrunk(IMAGES, 1.0, "firm"),
            "kind is 'firm': choose one of soft, hard",
        ),
        (lambda: thresholds.threshold_risk(IMAGES, 1.0, 1.0, "firm"), "kind is 'firm'"),
        (
            lambda: thresholds.threshold_risk(IMAGES, 1.0, -1.0),
            "threshold is -1.0: give it in noise levels",
        ),
        (
            lambda: thresholds.threshold_risk(IMAGES, 0.0, 1.0),
            "sigma is 0.0: the noise level must be positive",
        ),
        (lambda: thresholds.approximation(IMAGES * torch.nan), "coefficients holds NaN"),
        (
            lambda: classical.images_from(torch.ones(1, 63), (8, 8)),
            r"images of \(8, 8\) have \(n, 64\)",
        ),
        (lambda: classical.Wiener(-IMAGES[0]), "pass .H, W., >= 0"),
        (lambda: classical.Wiener(IMAGES[0])(torch.ones(1, 9, 9), 1.0), r"y has shape \(1, 9, 9\)"),
        (lambda: classical.WaveletThreshold("firm"), "kind is 'firm'"),
        (lambda: classical.WaveletThreshold("soft", math.inf), "threshold is inf"),
        (lambda: classical.WaveletThreshold()(IMAGES, 1.0), "4 levels need sides divisible by 16"),
        (lambda: classical.CycleSpun(-3.0), "threshold is -3.0"),
        (
            lambda: classical.CycleSpun()(torch.ones(1, 24), 1.0),
            "signals of length 24: 4 levels need",
        ),
        (lambda: classical.CycleSpun(levels=2)(IMAGES, -1.0), "sigma is -1.0"),
        (lambda: classical.FourierCut(0), "keep is 0"),
        (lambda: classical.FourierCut(9)(torch.ones(1, 16), 1.0), "with n at least 18"),
        (lambda: classical.EachImage(print)(torch.ones(2, 8), 1.0), "takes gray images"),
        (lambda: classical.bayes_shrink(shifts=0), "shifts is 0"),
        (lambda: classical.total_variation(0.0), "weight is 0.0: pass a positive number"),
        (lambda: classical.non_local_means(-1.0), "h is -1.0: pass a positive number"),
        (lambda: classical.non_local_means(patch=0), "patch is 0"),
        (lambda: scores.interval(torch.ones(1)), "pass .n,. with n >= 2"),
        (lambda: photographs.picture(b"", 0), "size is 0"),
        (lambda: photographs.picture(b"GIF89a"), "not a picture that can be read"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
