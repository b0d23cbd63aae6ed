"""Shrinkage in an adaptive basis: measures against definitions in float64, theorems, Stein's
estimate, the panel."""

import base64
import json
import math
import re
from functools import partial

import matplotlib
import matplotlib.pyplot as plt
import pytest
import torch
from nets import noise as plain_noise
from nets import settled
from press_fixtures import show_panel

from helpers import plots
from helpers.denoisers import CNN, Denoiser, LinearDenoiser, PosteriorMean, UNet
from helpers.jacobian import Jacobian, asymmetry, eigen
from helpers.lab import Shrinkage
from helpers.lab.eigen import reshaped
from helpers.systems.kadkhodaie import eigenbasis

noise = partial(plain_noise, dtype=torch.float64)


def basis(k, *event, seed=0):
    return torch.linalg.qr(noise(math.prod(event), k, seed=seed)).Q.T.reshape(k, *event)


def small_net(kind=UNet, **options):
    """Untrained, in evaluation mode, with running variances that are not 1."""
    given = {"channels": 4, **options} if kind is CNN else {"blocks": 2, "channels": 4, **options}
    net = kind(**given).double()
    return settled(net)


# Two bases ----------------------------------------------------------------------------------------


def test_overlap_is_the_trace_of_two_projections():
    a, b = basis(3, 8, 8), basis(5, 8, 8, seed=1)
    p, q = (v.flatten(1).T @ v.flatten(1) for v in (a, b))
    assert eigenbasis.overlap(a, b) == pytest.approx(float((p @ q).trace()) / 3, abs=1e-12)
    cosines = eigenbasis.principal_cosines(a, b)
    squared = torch.linalg.eigvalsh(p @ q @ p).flip(0)[:3]
    torch.testing.assert_close(cosines.square(), squared, rtol=0, atol=1e-12)
    turned = torch.einsum("ij,jhw->ihw", torch.linalg.qr(noise(3, 3, seed=2)).Q, a)
    assert eigenbasis.overlap(turned, b) == pytest.approx(eigenbasis.overlap(a, b), abs=1e-12)


@pytest.mark.theorem("lem-chance")
def test_overlap_of_spaces_within_beside_and_at_random():
    b = basis(6, 64)
    assert eigenbasis.overlap(b[1:3] @ torch.eye(64).double(), b) == pytest.approx(1, abs=1e-12)
    assert eigenbasis.overlap(b[:2], b[2:]) == pytest.approx(0, abs=1e-12)
    found = [eigenbasis.overlap(basis(4, 64, seed=s), b) for s in range(400)]
    assert sum(found) / 400 == pytest.approx(6 / 64, abs=0.006)


def test_spaces_without_what_both_hold():
    """Two spaces that share one direction and nothing else share nothing without it."""
    common, *others = basis(5, 8, 8)
    a, b = torch.stack([common, *others[:2]]), torch.stack([common, *others[2:]])
    assert eigenbasis.overlap(a, b) == pytest.approx(1 / 3)
    mixed = torch.linalg.qr(noise(3, 3)).Q
    a = (mixed @ a.flatten(1)).view_as(a)
    tilted = (others[0] + common)[None]  # of which one vector must go, not the span
    left = eigenbasis.without(a[:2], tilted)
    torch.testing.assert_close(left.flatten(1) @ left.flatten(1).T, torch.eye(2).double())
    assert float((left.flatten(1) @ tilted.flatten()).abs().max()) < 1e-12
    kept = eigenbasis.overlap(*(eigenbasis.without(v[1:], common[None]) for v in (b, b)))
    assert kept == pytest.approx(1)
    torch.testing.assert_close(
        eigenbasis.overlap(eigenbasis.without(b, b[:0]), b), 1.0, atol=1e-12, rtol=0
    )
    with pytest.raises(ValueError, match="leave one of them out"):
        eigenbasis.without(b, common[None])


# One basis ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("wave", [(0, 0), (1, 0), (2, 3), (4, 1), (4, 4)])
def test_frequency_of_a_wave(wave):
    r = torch.arange(8, dtype=torch.float64)
    image = torch.cos(2 * math.pi * (wave[0] * r[:, None] + wave[1] * r) / 8)[None]
    assert float(eigenbasis.frequency(image)) == pytest.approx(math.hypot(*wave), abs=1e-12)


def test_frequency_by_its_definition_and_of_white_noise():
    images, n = noise(3, 8, 8), 8
    w = torch.tensor([0, 1, 2, 3, -4, -3, -2, -1], dtype=torch.float64)
    waves = torch.exp(-2j * math.pi * torch.outer(w, torch.arange(n, dtype=torch.float64)) / n)
    power = (waves @ images.to(waves) @ waves.T).abs().square()
    want = (power * (w[:, None] ** 2 + w**2).sqrt()).sum((1, 2)) / power.sum((1, 2))
    torch.testing.assert_close(eigenbasis.frequency(images), want)
    assert float(eigenbasis.frequency(noise(20, 40, 40)).mean()) / 40 == pytest.approx(
        0.3826, abs=0.01
    )


def test_edges_and_energy():
    image = torch.zeros(8, 8)
    image[:, 4:] = 1
    mask = eigenbasis.edges(image, 0.25)
    assert mask[:, 3:5].all() and mask.sum() == 16
    vectors = noise(3, 8, 8)
    want = vectors[:, :, 3:5].square().sum((1, 2)) / vectors.square().sum((1, 2))
    torch.testing.assert_close(eigenbasis.energy_on(vectors, mask), want)
    torch.testing.assert_close(
        eigenbasis.energy_on(torch.ones(1, 8, 8), mask), torch.tensor([0.25]).double()
    )


def test_pictures_are_red_and_blue_about_white():
    """The palette is matplotlib's, which is told apart by the colour-blind; a quarter of the peak
    is drawn at half of the scale, and a vector and its opposite are one picture."""
    vectors = torch.tensor([[[-2.0, 2 / 4], [0, -2 / 4]]])
    want = matplotlib.colormaps["RdBu_r"]([[1.0, 0.25], [0.5, 0.75]])[None, ..., :3]
    torch.testing.assert_close(plots.signed(vectors), torch.from_numpy(want), atol=0.01, rtol=0)
    assert torch.equal(plots.signed(-5 * vectors), plots.signed(vectors))


def test_a_mosaic_of_colours_with_labels():
    fig, axes = plt.subplots(2)
    colours = plots.signed(noise(3, 8, 8))
    plots.images(axes[0], colours, columns=2, labels=["a", "b", "c"])
    (drawn,) = axes[0].images
    mosaic = torch.from_numpy(drawn.get_array())
    assert mosaic.shape == (2 * (8 + 2) + 2 * 1 - 1, 2 * 8 + 1, 3)  # a quarter of 8 for each label
    assert [t.get_text() for t in axes[0].texts] == ["a", "b", "c"]
    top = 2 + 8 + 1 + 2
    torch.testing.assert_close(mosaic[top : top + 8, :8], colours[2])
    plots.images(axes[1], noise(3, 8, 8), columns=2)
    assert axes[1].images[0].get_array().shape == (17, 17)
    plt.close(fig)


# The Jacobian -------------------------------------------------------------------------------------

NETWORKS = {
    "base": (UNet, {}),
    "bias-free normalisation": (UNet, {"normalisation": "bias-free"}),
    "no pooling": (UNet, {"pooling": "none"}),
    "chain": (CNN, {"normalisation": "none"}),
}


@pytest.mark.theorem("thm-homogeneous")
@pytest.mark.parametrize("kind, options", NETWORKS.values(), ids=list(NETWORKS))
def test_a_homogeneous_network_is_its_jacobian(kind, options):
    net, y = small_net(kind, **({"normalisation": "none"} | options)), 0.5 + noise(1, 16, 16)
    with torch.no_grad():
        x_hat = net(y, 0.3)
        for c in (1e-3, 7.0):
            torch.testing.assert_close(net(c * y, 0.3), c * x_hat, rtol=1e-9, atol=0)
    product = (Jacobian(net, y, 0.3).matrix @ y.flatten()).view_as(y)
    torch.testing.assert_close(product, x_hat, rtol=1e-9, atol=1e-12)


def test_a_network_with_bias_is_not():
    net, y = small_net(normalisation="none", bias=True), 0.5 + noise(1, 16, 16)
    with torch.no_grad():
        for p in net.parameters():
            if p.ndim == 1:
                p += 0.1
        x_hat = net(y, 0.3)
    assert (Jacobian(net, y, 0.3).matvec(y) - x_hat).norm() > 0.01 * x_hat.norm()


def test_wiener_and_a_projection_are_recovered_in_full_and_by_the_largest():
    """In float32, as the networks: shrinkage factors and the space of the axes, to 1e-5."""
    axes = basis(6, 64).T
    for variances in (
        torch.tensor([9.0, 4, 1, 0.5, 0.2, 0.1]).double(),
        torch.full((6,), 1e9).double(),
    ):
        denoiser = LinearDenoiser(torch.zeros(8, 8).float(), axes.float(), variances.float())
        jacobian = Jacobian(denoiser, noise(1, 8, 8).float(), 0.5)
        for found in (eigen(jacobian), eigen(jacobian, 6)):
            want = (variances / (variances + 0.25)).float()
            torch.testing.assert_close(found.values[:6], want, rtol=0, atol=1e-5)
            space = axes.T.reshape(6, 8, 8)
            assert eigenbasis.overlap(found.vectors[:6].double(), space) == pytest.approx(
                1, abs=1e-5
            )
        assert eigenbasis.asymmetry_on(jacobian, found.vectors) < 1e-5


def test_asymmetry_of_a_part_and_its_estimate():
    jacobian = Jacobian(small_net(normalisation="none"), 0.5 + noise(1, 16, 16), 0.3)
    v = basis(5, 16, 16)
    rows = v.flatten(1)
    inner = rows @ jacobian.matrix @ rows.T
    want = float((inner - inner.T).norm() / inner.norm())
    assert want > 0.1
    assert eigenbasis.asymmetry_on(jacobian, v) == pytest.approx(want, rel=1e-9)
    odd = (jacobian.matrix - jacobian.matrix.T) @ rows.T
    want = float(odd.norm() / (jacobian.matrix @ rows.T).norm())
    assert eigenbasis.asymmetry_along(jacobian, v) == pytest.approx(want, rel=1e-9)
    assert eigenbasis.estimated_asymmetry(jacobian, 200) == pytest.approx(
        asymmetry(jacobian), rel=0.06
    )


@pytest.mark.theorem("prop-span")
def test_the_optimal_denoiser_of_n_points_has_n_minus_one_eigenvectors_in_their_differences():
    points, y = noise(5, 8, 8), noise(1, 8, 8, seed=1)
    found = eigen(Jacobian(PosteriorMean(points), y, 3.0))
    assert bool((found.values[:4] > 1e-3).all()) and found.values[4:].abs().max() < 1e-12
    differences = torch.linalg.qr((points[1:] - points[0]).flatten(1).T).Q.T.reshape(4, 8, 8)
    assert eigenbasis.overlap(found.vectors[:4], differences) == pytest.approx(1, abs=1e-9)


# Errors without the clean image -------------------------------------------------------------------

AXES, VARIANCES = basis(64, 64, seed=3).T, torch.logspace(1, -3, 64, dtype=torch.float64)
WIENER = LinearDenoiser(torch.full((8, 8), 0.5).double(), AXES, VARIANCES)


class Scaled(Denoiser):
    """One factor for every pixel: its Jacobian is diagonal."""

    def __init__(self, factors):
        super().__init__()
        self.keep(factors=factors)

    def estimate(self, y, sigma):
        return self.factors * y


def test_random_signs_give_the_trace():
    factors = noise(8, 8).abs()
    # one probe is enough when J is diagonal
    exact = eigenbasis.trace(Scaled(factors), noise(3, 8, 8), 0.5)
    torch.testing.assert_close(exact, factors.sum().expand(3))
    net, y = small_net(normalisation="none"), 0.5 + noise(2, 8, 8)
    want = torch.stack([Jacobian(net, row[None], 0.3).matrix.trace() for row in y])
    draws = torch.stack([eigenbasis.trace(net, y, 0.3, 1, seed) for seed in range(100)])
    assert bool(((draws.mean(0) - want).abs() < 4 * draws.std(0) / 10).all())
    torch.testing.assert_close(eigenbasis.trace(net, y, 0.3, 100), draws.mean(0))


def test_rows_of_a_batch_do_not_matter():
    net, y = small_net(normalisation="none"), 0.5 + noise(3, 8, 8)
    whole = eigenbasis.trace(net, y, 0.3)
    torch.testing.assert_close(eigenbasis.trace(net, y[:1], 0.3), whole[:1])
    with torch.no_grad():
        x_hat = net(y, 0.3)
    rows = torch.cat(
        [eigenbasis.sure(x_hat[i : i + 1], y[i : i + 1], 0.3, whole[i : i + 1]) for i in range(3)]
    )
    torch.testing.assert_close(eigenbasis.sure(x_hat, y, 0.3, whole), rows)


@pytest.mark.theorem("thm-sure")
@pytest.mark.parametrize("sigma", [0.1, 1.0])
def test_sure_is_unbiased_for_a_linear_denoiser_however_wrong(sigma):
    """One image that the filter was not made for, many noises: Stein's estimate and the true error
    have one mean."""
    x, n = 3 * noise(8, 8, seed=5), 20_000
    y = x + sigma * noise(n, 8, 8, seed=6)
    x_hat = WIENER(y, 2 * sigma)  # and told the wrong level
    trace = (VARIANCES / (VARIANCES + 4 * sigma**2)).sum()
    off = eigenbasis.sure(x_hat, y, sigma, trace.expand(n)) - (x_hat - x).flatten(1).square().sum(1)
    assert abs(float(off.mean())) < 4 * float(off.std()) / n**0.5
    doubled = eigenbasis.sure(x_hat, y, sigma, 2 * trace.expand(n)) - (x_hat - x).flatten(
        1
    ).square().sum(1)
    assert abs(float(doubled.mean())) > 20 * float(doubled.std()) / n**0.5


@pytest.mark.theorem("thm-covariance")
def test_the_trace_tells_the_error_of_the_optimum_only():
    sigma, n = 0.5, 20_000
    x = 0.5 + (noise(n, 64, seed=7) * VARIANCES.sqrt() @ AXES.T).view(n, 8, 8)
    y = x + sigma * noise(n, 8, 8, seed=8)
    for told, equal in ((sigma, True), (3 * sigma, False)):
        errors = (WIENER(y, told) - x).flatten(1).square().sum(1)
        by_trace = sigma**2 * float((VARIANCES / (VARIANCES + told**2)).sum())
        assert (abs(float(errors.mean()) - by_trace) < 4 * float(errors.std()) / n**0.5) == equal


# The panel ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def panel():
    net = small_net(normalisation="none").float()
    clean, n = (
        torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0)),
        noise(16, 16).float(),
    )
    return Shrinkage(
        net, clean, n, [0.1, 0.5], "A caption.", "What it shows.", count=6, basis=48, level=1
    )


def test_a_changed_eigenvalue_is_a_rank_one_change_of_the_jacobian():
    net, y = small_net(normalisation="none"), 0.5 + noise(1, 16, 16)
    jacobian = Jacobian(net, y, 0.3)
    found, values = eigen(jacobian, 4, 64), torch.tensor([0, 1, 1, 0.5]).double()
    rows = found.vectors.flatten(1)
    changed = jacobian.matrix + rows.T @ ((values - found.values)[:, None] * rows)
    with torch.no_grad():
        x_hat = net(y, 0.3)[0]
    torch.testing.assert_close(
        reshaped(x_hat, y[0], found, values).flatten(), changed @ y.flatten()
    )
    assert torch.equal(reshaped(x_hat, y[0], found, found.values), x_hat)


def test_what_the_panel_carries(panel):
    spec = panel.carried()
    state, found = spec["states"][1][0], panel.found[1][0]
    y = panel.clean[1] + 0.1 * panel.noise
    torch.testing.assert_close(
        torch.tensor(state["noisy"]).float(), (found.vectors * y).sum((1, 2))
    )
    small = torch.frombuffer(bytearray(base64.b64decode(state["vectors"])), dtype=torch.int8).view(
        6, 16, 16
    )
    vectors = small * torch.tensor(state["peaks"]).view(6, 1, 1) / 127
    assert (vectors - found.vectors).abs().max() <= 0.51 * max(state["peaks"]) / 127
    with torch.no_grad():
        x_hat = small_net(normalisation="none").float()(y[None], 0.1)[0]
    assert state["error"] == pytest.approx(float((x_hat - panel.clean[1]).square().sum()), rel=1e-5)
    carried = torch.frombuffer(bytearray(base64.b64decode(spec["x_hat"])), dtype=torch.int16).view(
        2, 2, 16, 16
    )
    assert (carried[1, 0] / spec["unit"] - x_hat).abs().max() <= 0.51 / spec["unit"]


CHOSEN = [
    [None] * 6,
    [0, None, None, None, None, None],
    [1, 0, None, 1, 0, None],
    [0] * 6,
]


def errors(panel, picture, level):
    """The errors after each of CHOSEN, by images."""
    found, x = panel.found[picture][level], panel.clean[picture]
    for chosen in CHOSEN:
        values = torch.tensor(
            [float(v) if c is None else c for c, v in zip(chosen, found.values, strict=True)]
        )
        changed = reshaped(panel.x_hat[picture, level], panel.y[picture, level], found, values)
        yield float((changed - x).double().square().sum())


def test_javascript_reshapes_as_python(panel, javascript, labs):
    """Under plain Node: the error from coefficients is that of the images."""
    states = panel.carried()["states"]
    answer = javascript(
        f"import {{ reshape, psnr, scope }} from {json.dumps(labs)};\n"
        f"const states = {json.dumps(states)}, chosen = {json.dumps(CHOSEN)};\n"
        "const all = states.map((row) => row.map((state) => chosen.map((c) => reshape(state, c).error)));\n"
        "const scopes = ['one', 'before', 'after'].map((kind) => scope(kind, 2, 6));\n"
        "console.log(JSON.stringify({ all, scopes, db: psnr(2.56, 256) }));\n"
    )
    for i in range(2):
        for j in range(2):
            assert answer["all"][i][j] == pytest.approx(list(errors(panel, i, j)), rel=1e-4)
    assert answer["scopes"] == [[2], [0, 1, 2], [2, 3, 4, 5]] and answer["db"] == pytest.approx(20)


def test_javascript_colours_as_python(javascript, labs):
    vector = noise(1, 8, 8)
    answer = javascript(
        f"import {{ redAndBlue }} from {json.dumps(labs)};\n"
        f"console.log(JSON.stringify([...redAndBlue({vector.flatten().tolist()})]));\n"
    )
    found = torch.tensor(answer, dtype=torch.float64).view(3, 8, 8).permute(1, 2, 0)
    torch.testing.assert_close(found, plots.signed(vector)[0], atol=0.02, rtol=0)


def shown(tab):
    """Number of the eigenvector, its eigenvalue and the PSNR that the panel tells."""
    text = tab.inner_text(".eigen [role=status]").replace("−", "-")
    found = re.match(r"Eigenvector (\d+): eigenvalue ([-\d.]+)\..* PSNR ([-\d.]+) dB", text)
    return int(found[1]), float(found[2]), float(found[3])


def decibels(error):
    return pytest.approx(-10 * math.log10(error / 256), abs=6e-3)


def test_keys_and_buttons_give_the_numbers_of_python(tab, panel):
    show_panel(tab, panel, ".eigen rect")
    own, removed, mixed, none = errors(panel, 0, 1)
    values = panel.found[0][1].values.tolist()
    assert shown(tab) == (1, pytest.approx(values[0], abs=6e-3), decibels(own))
    chart = tab.locator(".eigen svg")
    chart.press("0")
    assert shown(tab)[2] == decibels(removed)
    chart.press("1")
    chart.press("ArrowRight")
    chart.press("0")
    tab.get_by_role("slider", name="eigenvector").press("ArrowRight")
    tab.get_by_role("slider", name="eigenvector").press("ArrowRight")
    tab.get_by_role("button", name="keep whole").click()
    chart.press("ArrowRight")
    tab.get_by_role("button", name="remove").click()
    assert shown(tab) == (5, pytest.approx(values[4], abs=6e-3), decibels(mixed))
    tab.get_by_role("combobox", name="change").select_option("this and all before")
    chart.press("ArrowRight")
    chart.press("0")
    assert shown(tab)[2] == decibels(none)
    assert tab.get_by_role("button", name="remove").get_attribute("aria-pressed") == "true"
    tab.get_by_role("button", name="undo all").click()
    assert shown(tab)[2] == decibels(own)
    tab.get_by_role("combobox", name="picture").select_option("number 2")
    tab.get_by_role("slider", name="noise").press("ArrowLeft")
    assert shown(tab)[2] == decibels(next(errors(panel, 1, 0))) and tab.problems == []
    box = chart.bounding_box()
    chart.click(position={"x": 2.5 * box["width"] / 6, "y": box["height"] / 2})
    assert shown(tab)[0] == 3


def test_it_fits_a_phone_and_says_what_it_shows(tab, panel):
    show_panel(tab, panel, ".eigen rect")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    assert (
        tab.locator("img").count() == 0 and tab.locator("figcaption").inner_text() == "A caption."
    )
    labels = tab.locator(".eigen [role=img]").evaluate_all(
        "all => all.map(e => e.getAttribute('aria-label'))"
    )
    assert len(labels) == 5 and all(labels)


def test_a_picture_stands_where_no_script_runs(tab, panel):
    tab.set_content(panel.html())
    assert tab.locator("img").get_attribute("alt") == "What it shows."
    assert (
        tab.locator("img").evaluate("async i => { await i.decode(); return i.naturalWidth }") > 500
    )


def test_beside_a_kernel():
    from helpers.lab.widget import PanelWidget

    widget = PanelWidget("eigen-shrinkage", {"count": 3}, "A caption.")
    assert widget.spec == {"count": 3} and f'"{widget.element}": ' in str(widget._esm)


# What is refused ----------------------------------------------------------------------------------

IMAGES, B = torch.ones(2, 8, 8).double(), basis(3, 8, 8)
NET = UNet(1, channels=4).eval()


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: eigenbasis.overlap(B, basis(2, 8, 8)),
            "a spans 3 dimensions, b 2: pass the smaller space first",
        ),
        (lambda: eigenbasis.overlap(B, basis(3, 64)[:, :9]), "rows of b are not orthonormal: .*qr"),
        (lambda: eigenbasis.overlap(basis(3, 9), B), "a has dimension 9, b has 64"),
        (lambda: eigenbasis.overlap(2 * B, B), "rows of a are not orthonormal"),
        (lambda: eigenbasis.overlap(B * torch.nan, B), "a holds NaN"),
        (
            lambda: eigenbasis.frequency(torch.ones(2, 8, 6)),
            r"shape \(2, 8, 6\): pass gray squares",
        ),
        (lambda: eigenbasis.frequency(0 * IMAGES), "one of the vectors is zero"),
        (lambda: eigenbasis.edges(IMAGES), r"shape \(2, 8, 8\): pass one gray image"),
        (lambda: eigenbasis.edges(IMAGES[0], 1.0), "share is 1.0: choose a number between 0 and 1"),
        (
            lambda: eigenbasis.energy_on(IMAGES, torch.ones(8, 8)),
            "mask is torch.float32 .* pass booleans",
        ),
        (lambda: eigenbasis.energy_on(IMAGES, torch.ones(8, 6) > 0), r"pass booleans \(8, 8\)"),
        (
            lambda: eigenbasis.energy_on(0 * IMAGES, torch.ones(8, 8) > 0),
            "one of the vectors is zero",
        ),
        (lambda: eigenbasis.trace(NET, IMAGES.float(), 0.5, 0), "probes is 0"),
        (lambda: eigenbasis.trace(NET, IMAGES.float(), 0.0), "sigma is 0.0"),
        (lambda: eigenbasis.sure(IMAGES, IMAGES, -1.0, torch.ones(2)), "sigma is -1.0"),
        (
            lambda: eigenbasis.sure(IMAGES, IMAGES, 1.0, torch.ones(3)),
            r"traces \(3,\): .* one trace a row",
        ),
        (lambda: eigenbasis.sure(IMAGES[:1], IMAGES, 1.0, torch.ones(2)), r"x_hat \(1, 8, 8\)"),
        (
            lambda: Shrinkage(NET, IMAGES, IMAGES, [0.1], "", ""),
            r"noise \(2, 8, 8\): pass \(K, H, W\) and \(H, W\)",
        ),
        (
            lambda: Shrinkage(NET, IMAGES, IMAGES[0], [0.1], "", "", k=24),
            "start has k = 24: choose",
        ),
        (
            lambda: Shrinkage(NET, IMAGES, IMAGES[0], [0.1], "", "", face=0),
            "start has face = 0: choose",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_pictures_too_bright_to_carry_are_refused():
    panel = Shrinkage(NET, 9 * IMAGES.float(), IMAGES[0].float(), [0.1], "", "", count=2, basis=8)
    with pytest.raises(ValueError, match="clean holds 9.0: pictures up to 7 fit"):
        panel.carried()
