"""Agreement of theories with networks: measures against hand-written formulas, calibration, two
images, voters."""

import base64
import itertools
import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from helpers import metrics, models, plots, recorded, sampling
from helpers.data import load
from helpers.denoisers import Denoiser, LocalMean, PosteriorMean, TwoImages
from helpers.lab import Voters
from helpers.lab.voters import votes
from helpers.lab.widget import PanelWidget
from helpers.systems.kamb_ganguli.agreement import Calibration, calibrate, compare

ROOT = Path(__file__).resolve().parents[2]


def uniform(*shape: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.rand(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


# The three measures -------------------------------------------------------------------------------


def by_hand(a, b):
    """r and R^2 of two pictures, from their definitions, with Python's own floats."""
    a, b = a.flatten().tolist(), b.flatten().tolist()
    n, mean = len(a), lambda t: math.fsum(t) / len(t)
    da, db = [v - mean(a) for v in a], [v - mean(b) for v in b]
    dot = lambda s, t: math.fsum(u * v for u, v in zip(s, t, strict=True))  # noqa: E731
    error = math.fsum((u - v) ** 2 for u, v in zip(a, b, strict=True))
    return dot(da, db) / math.sqrt(dot(da, da) * dot(db, db)), 1 - error / (n * (dot(db, db) / n))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5, 8, 8), (3, 2, 8, 8)])
def test_measures_are_their_formulas(dtype, shape):
    a, b = uniform(*shape, dtype=dtype), uniform(*shape, seed=1, dtype=dtype)
    b = a + 0.3 * b  # related, not equal
    found = compare(a, b)
    for i, (x, y) in enumerate(zip(a, b, strict=True)):
        r, R2 = by_hand(x.double(), y.double())
        assert float(found["r"][i]) == pytest.approx(r, abs=1e-12)
        assert float(found["r^2"][i]) == pytest.approx(r**2, abs=1e-12)
        assert float(found["R^2"][i]) == pytest.approx(R2, abs=1e-12)
        assert R2 < r**2 - 1e-3  # three different numbers


def test_what_the_measures_see():
    a, b = uniform(4, 8, 8), uniform(4, 8, 8, seed=1)
    # blind to contrast and brightness
    torch.testing.assert_close(metrics.pearson(2 * a + 3, b), metrics.pearson(a, b))
    torch.testing.assert_close(metrics.pearson(a, b), metrics.pearson(b, a))
    torch.testing.assert_close(metrics.pearson(-a, a), -torch.ones(4).double())
    assert (metrics.determination(a + 1, a) < -5).all()  # brightness
    gray = b.mean((1, 2), keepdim=True).expand_as(b)
    torch.testing.assert_close(metrics.determination(gray, b), torch.zeros(4).double())
    # the best affine map of a to b is where R^2 = r^2
    slope = metrics.pearson(a, b) * b.flatten(1).std(1) / a.flatten(1).std(1)
    best = slope[:, None, None] * (a - a.mean((1, 2), keepdim=True)) + gray
    torch.testing.assert_close(metrics.determination(best, b), metrics.pearson(a, b) ** 2)


def test_a_constant_image_has_no_correlation():
    a, b = uniform(3, 8, 8), torch.full((3, 8, 8), 0.1, dtype=torch.float64)
    assert metrics.pearson(a, b).isnan().all() and metrics.pearson(b, a).isnan().all()
    assert (
        metrics.determination(a, b).isnan().all() and not metrics.determination(b, a).isnan().any()
    )


@pytest.mark.parametrize("measure", [metrics.pearson, metrics.determination, compare])
@pytest.mark.parametrize("shapes", [((2, 8, 8), (3, 8, 8)), ((8,), (8,))])
def test_measures_refuse_other_shapes(measure, shapes):
    with pytest.raises(ValueError, match="pass two batches of one shape"):
        measure(*(torch.rand(s) for s in shapes))


def test_similarity_of_all_pairs():
    a, b = uniform(3, 5, 4), uniform(6, 5, 4, seed=1)
    centred, plain = metrics.similarity(a, b), metrics.similarity(a, b, centred=False)
    for i, j in itertools.product(range(3), range(6)):
        assert math.isclose(centred[i, j], by_hand(a[i], b[j])[0], abs_tol=1e-12)
        inner = lambda s, t: math.fsum((s * t).flatten().tolist())  # noqa: E731
        cosine = inner(a[i], b[j]) / math.sqrt(inner(a[i], a[i]) * inner(b[j], b[j]))
        assert math.isclose(plain[i, j], cosine, abs_tol=1e-12)
    # blind to brightness; uncentred is not
    torch.testing.assert_close(metrics.similarity(a + 5, b), centred)
    assert (metrics.similarity(a + 5, b, centred=False) > plain).all()
    assert metrics.similarity(torch.full((1, 5, 4), 0.3), b).isnan().all()
    with pytest.raises(ValueError, match=r"\(3, 5, 4\) and \(6, 4, 4\)"):
        metrics.similarity(a, b[:, :4])


def test_patch_sources_of_copies_mosaics_and_blanks():
    training = uniform(7, 8, 8)
    copy = 0.5 * training[3] + 0.2  # contrast and brightness are not a source's business
    mosaic = training[1].clone()
    mosaic[:4, 4:] = training[5, :4, 4:]
    mosaic[4:, :4] = 0.3 + 0.01 * training[2, 4:, :4]
    index, alike = metrics.patch_sources(torch.stack([copy, mosaic]), training, 4, blank=0.01)
    assert metrics.patch_sources(mosaic[None], training, 4)[0].tolist() == [[1, 5, 2, 1]]
    # by rows: upper left, upper right, lower left, lower right
    assert index.tolist() == [[3, 3, 3, 3], [1, 5, -1, 1]]
    torch.testing.assert_close(alike.nan_to_num(1.0), torch.ones_like(alike))
    assert alike.isnan().tolist() == [[False] * 4, [False, False, True, False]]
    moved = metrics.patch_sources(copy.roll(4, 0)[None], training, 4)[1]
    assert (moved < 0.99).all(), "patches are compared at the same place only"
    for side in (1, 3, 16):
        with pytest.raises(ValueError, match=f"side is {side}"):
            metrics.patch_sources(training, training, side)


# Calibration --------------------------------------------------------------------------------------


def test_calibration_finds_the_window_that_the_network_has():
    """The network is itself a local machine whose side depends on the level: its sides come back."""
    points, sigmas = uniform(20, 8, 8, dtype=torch.float32), sampling.edm(6, 0.05, 2.0)
    truth = dict(zip(sigmas[:-1].tolist(), (7, 7, 5, 5, 3, 3), strict=True))
    start = sampling.initial_noise(3, 8, 8, sigma=2.0).float()
    found = calibrate(
        LocalMean(points, truth), lambda side: LocalMean(points, side), start, sigmas, (3, 5, 7)
    )
    assert found.table() == truth
    chosen = found.cosines.gather(
        1, torch.tensor([[found.sides.index(s)] * 3 for s in truth.values()])[:, None]
    )
    torch.testing.assert_close(chosen, torch.ones_like(chosen), rtol=0, atol=1e-6)


def test_cosines_are_those_of_the_scores_on_the_path():
    points, sigmas = uniform(9, 8, 8), sampling.edm(3, 0.1, 1.0)
    network, start = PosteriorMean(points[:5]), sampling.initial_noise(2, 8, 8, sigma=1.0)
    found = calibrate(network, lambda side: LocalMean(points, side), start, sigmas, [3, 5])
    y = start
    for level, (sigma, after) in enumerate(itertools.pairwise(sigmas.tolist())):
        score = (network(y, sigma) - y) / sigma**2
        for k, b in itertools.product(range(2), range(2)):
            other = (LocalMean(points, found.sides[k])(y, sigma) - y)[b] / sigma**2
            cosine = float((score[b] * other).sum() / (score[b].norm() * other.norm()))
            assert float(found.cosines[level, k, b]) == pytest.approx(cosine, abs=1e-9)
        y = y + (sigma - after) * sigma * score
    alone = [
        calibrate(network, lambda p: LocalMean(points, p), s[None], sigmas, [3, 5]).cosines
        for s in start
    ]
    torch.testing.assert_close(torch.cat(alone, 2), found.cosines)


def test_median_side_is_one_of_the_sides():
    cosines = torch.zeros(2, 3, 4)
    for noise, best in enumerate((0, 2, 0, 2)):  # an even number: the lower of the two middle ones
        cosines[0, best, noise] = 1
    for noise, best in enumerate((2, 2, 1, 0)):
        cosines[1, best, noise] = 1
    assert Calibration(torch.tensor([1.0, 0.1]), (3, 5, 9), cosines).best() == [3, 5]


@pytest.mark.parametrize("sides", [[], [5, 3], [3, 3]])
def test_calibration_refuses_sides(sides):
    with pytest.raises(ValueError, match="pass increasing window sides"):
        calibrate(
            PosteriorMean(uniform(2, 8, 8)),
            lambda _: None,
            uniform(1, 8, 8),
            sampling.edm(2, 0.1, 1.0),
            sides,
        )


class Shifted(Denoiser):
    """A denoiser that is not local: it answers with the picture one column further on."""

    def estimate(self, y, sigma):
        return y.roll(1, -1)


def test_calibration_tells_a_foreign_network():
    """No window makes a local machine like a network that is not local: the cosine says so."""
    points, sigmas = uniform(20, 8, 8), sampling.edm(3, 0.1, 1.0)
    start = sampling.initial_noise(3, 8, 8, sigma=1.0)
    found = calibrate(Shifted(), lambda side: LocalMean(points, side), start, sigmas, (3, 5, 7))
    assert found.cosines.max() < 0.95


# Two images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.1, 0.7, 5.0])
@pytest.mark.parametrize("points", [load("black-white", size=8).images.double(), uniform(2, 8, 7)])
def test_two_images_are_the_local_machine(points, sigma):
    y = uniform(3, *points.shape[1:], seed=2) + sigma * uniform(3, *points.shape[1:], seed=3)
    for patch in (3, 5, 7):
        torch.testing.assert_close(
            TwoImages(points, patch)(y, sigma), LocalMean(points, patch)(y, sigma)
        )
    torch.testing.assert_close(TwoImages(points, 15)(y, sigma), PosteriorMean(points)(y, sigma))
    levels = torch.tensor([sigma, 1.0, 2.0])
    rows = torch.cat([TwoImages(points, 3)(y[i : i + 1], levels[i]) for i in range(3)])
    torch.testing.assert_close(TwoImages(points, 3)(y, levels), rows)


def majority(x):
    """By counting: 1 or 0 where more pixels of the 3 x 3 window cut at the border are white or
    black, 1/2 in a tie."""
    H, W = x.shape
    out = torch.full_like(x, 0.5)
    for i, j in itertools.product(range(H), range(W)):
        window = [
            x[a, b] > 0.5
            for a in range(max(0, i - 1), min(H, i + 2))
            for b in range(max(0, j - 1), min(W, j + 2))
        ]
        white = sum(map(bool, window))
        if 2 * white != len(window):
            out[i, j] = float(2 * white > len(window))
    return out


@pytest.mark.theorem("thm-mosaic")
def test_ends_of_the_flow_are_majorities():
    """Theorem 4.1 of Kamb & Ganguli: without a tie, the limit has in each pixel the majority of its
    window."""
    toy = load("black-white", size=12).images.double()
    start = 0.5 + sampling.initial_noise(6, 12, 12, sigma=5.0)
    end = sampling.last(
        sampling.euler(TwoImages(toy, 3), start, sampling.log_linear(150, 1e-9, 5.0))
    )
    assert ((end < 1e-6) | (end > 1 - 1e-6)).all() and 0.2 < end.mean() < 0.8
    for x in end.round():
        vote = majority(x)
        assert torch.equal(x[vote != 0.5], vote[vote != 0.5])
    early = sampling.last(
        sampling.euler(TwoImages(toy, 3), start, sampling.log_linear(30, 0.1, 5.0))
    ).round()
    assert any((majority(x) == 1 - x).any() for x in early)  # the theorem is about the limit


def test_smallest_island():
    """On black, the least white pattern within 4 x 4 pixels that is its own majority is the square
    less its corners."""
    bits = (torch.arange(1, 2**16)[:, None] >> torch.arange(16)) & 1
    plane = F.pad(bits.view(-1, 4, 4), (2,) * 4).double()
    counts = F.avg_pool2d(plane[:, None], 3, 1, padding=1, divisor_override=1)[:, 0]
    stays = ((counts > 4.5) == (plane > 0.5)).flatten(1).all(1)
    assert plane[stays].sum((1, 2)).tolist() == [12]
    island = plane[stays][0]
    assert torch.equal(majority(island), island)
    # tiles of 6 x 6 on 32 x 32: each island for itself
    many = F.pad(island[1:7, 1:7].repeat(5, 5), (0, 2, 0, 2))
    assert many.shape == (32, 32) and many.sum() == 25 * 12 and torch.equal(majority(many), many)


@pytest.mark.parametrize(
    ("points", "patch", "remedy"),
    [(uniform(3, 8, 8), 3, "two gray images"), (uniform(2, 1, 8, 8), 3, "two gray images"),
     (uniform(2, 8, 8), 4, "odd"), (uniform(2, 8, 8), 0, "at least 1"), (uniform(2, 8, 8) / 0, 3, "NaN or infinity")],
)  # fmt: skip
def test_two_images_refuse(points, patch, remedy):
    with pytest.raises(ValueError, match=remedy):
        TwoImages(points, patch)


# Voters -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", ["local", "equivariant"])
@pytest.mark.parametrize("pixel", [(0, 0), (3, 6), (7, 7)])
def test_votes_make_the_estimate(machine, pixel):
    points, y = uniform(6, 8, 8), uniform(8, 8, seed=1)
    for sigma, patch in itertools.product((0.05, 0.4), (3, 5)):
        w = votes(points, y, sigma, pixel, patch, machine)
        expected = LocalMean(points, patch, machine)(y[None], sigma)[0][pixel]
        torch.testing.assert_close((w * points).sum(), expected)
        inside = 6 if machine == "local" else 6 * (9 - patch) ** 2
        assert float(w.sum()) == pytest.approx(1)
        # where weights may be below the smallest number
        assert int((w > 0).sum()) == inside or sigma < 0.1
    whole = votes(points, y, 0.4, pixel, 15)
    torch.testing.assert_close(whole.sum((1, 2)), PosteriorMean(points).weights(y[None], 0.4)[0])


@pytest.mark.parametrize(
    ("change", "remedy"),
    [({"y": uniform(7, 8)}, "pass images"), ({"machine": "boundary"}, "local, equivariant"),
     ({"pixel": (8, 0)}, "inside"), ({"patch": 4}, "odd"), ({"patch": 9}, "3 to 8"), ({"sigma": 0.0}, "positive"),
     ({"patch": 15, "machine": "equivariant"}, "3 to 8")],
)  # fmt: skip
def test_votes_refuse(change, remedy):
    arguments = {
        "points": uniform(3, 8, 8),
        "y": uniform(8, 8),
        "sigma": 0.5,
        "pixel": (0, 0),
        "patch": 3,
    }
    with pytest.raises(ValueError, match=remedy):
        votes(**(arguments | change))


def figure(**start):
    points = (255 * uniform(5, 8, 9)).round() / 255
    return Voters(
        points,
        points[:2],
        uniform(8, 9, seed=1),
        [0.2, 0.5],
        [3, 5, 17],
        "A caption.",
        "What it shows.",
        **start,
    )


def test_element_carries_all_and_is_described():
    text = figure(row=2, sigma=0.5).html()
    spec = json.loads(text.split('<script type="application/json">')[1].split("</script>")[0])
    assert spec["start"] == {
        "picture": 0,
        "row": 2,
        "column": 4,
        "sigma": 0.5,
        "side": 3,
        "machine": "local",
    }
    assert 'alt="What it shows."' in text and "<figcaption>A caption.</figcaption>" in text
    assert figure().html() == figure().html()


def test_on_the_page_an_element_and_beside_a_kernel_a_widget(monkeypatch):
    monkeypatch.setenv(plots.SITE, "1")
    assert figure()._repr_mimebundle_()["text/html"] == figure().html()
    monkeypatch.delenv(plots.SITE)
    bundle = figure()._repr_mimebundle_()
    bundle = bundle[0] if isinstance(bundle, tuple) else bundle
    assert "application/vnd.jupyter.widget-view+json" in bundle
    widget = PanelWidget("patch-voters", figure().carried(), "A caption.")
    assert (
        widget.spec["start"]["side"] == 3
        and len(base64.b64decode(widget.spec["images"])) == 5 * 8 * 9
    )
    assert "export default" in str(widget._esm)


def test_start_must_be_a_choice():
    for start in ({"side": 9}, {"row": 8}, {"colour": 1}):
        with pytest.raises(ValueError, match="start has"):
            figure(**start)


def test_javascript_votes_as_python(javascript, labs):
    """Under plain Node: every weight and estimate is that of Python."""
    points = (255 * uniform(5, 8, 9)).round() / 255
    y = uniform(8, 9, seed=1)
    cases = [
        {"row": r, "column": c, "side": side, "sigma": sigma, "machine": machine}
        for (r, c), sigma in itertools.product([(0, 0), (4, 7), (7, 8)], (0.1, 0.6))
        for machine, side in [
            ("local", 3),
            ("local", 7),
            ("local", 17),
            ("equivariant", 3),
            ("equivariant", 7),
        ]
    ]
    common = {
        "images": (255 * points).round().int().flatten().tolist(),
        "y": y.flatten().tolist(),
        "height": 8,
        "width": 9,
    }
    found = javascript(
        f"import {{ vote, localMean }} from {json.dumps(labs)};\n"
        f"const common = {json.dumps(common)}, cases = {json.dumps(cases)};\n"
        "common.images = Uint8Array.from(common.images); common.y = Float64Array.from(common.y);\n"
        "const all = [3, 7, 17].map((side) => Array.from(localMean({ ...common, side, sigma: 0.4 })));\n"
        "console.log(JSON.stringify({ votes: cases.map((c) => vote({ ...common, ...c })), all }));\n"
    )
    for case, answer in zip(cases, found["votes"], strict=True):
        w = votes(
            points, y, case["sigma"], (case["row"], case["column"]), case["side"], case["machine"]
        )
        assert answer["estimate"] == pytest.approx(float((w * points).sum()), abs=1e-12)
        assert answer["effective"] == pytest.approx(1 / float((w**2).sum()), rel=1e-9)
        assert answer["count"] == len(answer["voters"]) and answer["voters"][0][
            "weight"
        ] == pytest.approx(float(w.max()))
        for voter in answer["voters"]:
            assert voter["weight"] == pytest.approx(
                float(w[voter["image"], voter["row"], voter["column"]]), abs=1e-12
            )
    for side, answer in zip((3, 7, 17), found["all"], strict=True):
        expected = (PosteriorMean(points) if side == 17 else LocalMean(points, side))(y[None], 0.4)
        torch.testing.assert_close(torch.tensor(answer).double().view(1, 8, 9), expected)


def test_recorded_pairs_of_faces_are_drawn_again():
    found = recorded.load("transition")["faces"]
    row = next(row for row in found["rows"] if (row["sampler"], row["N"]) == ("ODE", 1000))
    gray = models.manifest()["faces-n9442-a"]["mean"]
    start = gray + sampling.initial_noise(found["noises"], 40, 40, sigma=5.0).float()[:3]
    levels = sampling.edm(60, 0.02, 5.0).float()
    with torch.no_grad():
        pair = [
            sampling.last(sampling.euler(models.load(f"faces-n1000-{s}"), start, levels))
            for s in "ab"
        ]
    assert metrics.similarity(*pair).diag().tolist() == pytest.approx(
        row["centred"]["between"][:3], abs=0.01
    )
