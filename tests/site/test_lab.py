"""The lab: equal noise, samplers and measures in Python and JavaScript; exported denoisers, states,
files, widget."""

import base64
import copy
import gzip
import hashlib
import importlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from nets import settled
from safetensors.torch import load, save
from scipy import stats

from helpers import metrics, noise, sampling
from helpers.data import checkerboard, moons, ring
from helpers.data import load as load_images
from helpers.denoisers import (
    MLP,
    Denoiser,
    GaussianMixture,
    LinearConvolution,
    LinearDenoiser,
    PerLevelMLP,
    Polynomial,
    PosteriorMean,
    ProjectedDenoiser,
    RandomFeatures,
    UNet,
)
from helpers.lab import Family, Lab, export
from helpers.lab.lab import SAMPLERS
from helpers.lab.page import CHECKED, DIRECTIONS
from helpers.lab.scripts import IMPORT, STATIC, joined
from helpers.lab.widget import Widget

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
ANSWERS = [  # Random123's known answers for Threefry-2x32 with 20 rounds: key, counter, result
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
    ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3), (0xC4923A9C, 0x483DF7A0)),
]


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def near(numbers, **tolerance):
    return {k: v if v is None else pytest.approx(v, **tolerance) for k, v in numbers.items()}


BY_HAND = {
    "Heun": lambda denoiser, y, sigmas, seed: sampling.heun(denoiser, y, sigmas),
    "Euler (DDIM)": lambda denoiser, y, sigmas, seed: sampling.euler(denoiser, y, sigmas),
    "gradient estimation": lambda denoiser, y, sigmas, seed: sampling.gradient_estimation(
        denoiser, y, sigmas
    ),
    "reverse SDE": lambda *all_but_noise: sampling.reverse_sde(*all_but_noise, normal=noise.normal),
}


class Explosive(Denoiser):
    """D = 3 y: every step takes a particle further away."""

    event_shape = (2,)

    def estimate(self, y, sigma):
        return 3 * y


# Noise --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("key", "counter", "answer"), ANSWERS)
def test_threefry_gives_the_known_answers(key, counter, answer):
    x, y = noise.threefry(key, np.array([counter[0]], dtype=np.uint32), counter[1])
    assert (x.dtype, y.dtype, x.tolist(), y.tolist()) == (
        np.uint32,
        np.uint32,
        [answer[0]],
        [answer[1]],
    )


def test_summed_functions_are_those_of_numpy():
    edges = [0, 1, 2, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 3 * 2**30, 2**32 - 2, 2**32 - 1]
    bits = np.concatenate([edges, np.random.default_rng(0).integers(2**32, size=20_000)]).astype(
        np.uint32
    )
    np.testing.assert_allclose(noise._log(bits), np.log((bits + 0.5) / 2**32), rtol=1e-15, atol=0)
    angle = (
        ((bits & (2**30 - 1)) + 0.5) / 2**30 * (math.pi / 2)
        - math.pi / 4
        + math.pi / 2 * (bits >> 30)
    )
    np.testing.assert_allclose(
        noise._circle(bits), [np.cos(angle), np.sin(angle)], rtol=0, atol=2e-15
    )


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_noise_is_normal(seed):
    n = 200_000
    z = noise.normal(n, seed=seed)
    assert (z.shape, z.dtype, bool(z.isfinite().all())) == ((n,), torch.float64, True)
    # standard errors of the mean, variance, third and fourth moment of n normal numbers
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(float((z**power).mean()) - moment) < 4 * math.sqrt(variance / n)
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    pairs = z.view(-1, 2)  # of one radius and one angle
    assert stats.kstest(pairs.square().sum(1).numpy(), "expon", (0, 2)).pvalue > 1e-3
    assert abs(float(torch.corrcoef(pairs.square().T)[0, 1])) < 4 / math.sqrt(n / 2)


def test_seeds_and_streams_have_noise_of_their_own():
    n, keys = 20_000, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2**32 - 1), (2**32 - 1, 0)]
    z = torch.stack([noise.normal(n, seed=seed, stream=stream) for seed, stream in keys])
    apart = torch.corrcoef(torch.cat([z, z.roll(1, 1), z.roll(2, 1)])) - torch.eye(3 * len(keys))
    assert apart.abs().max() < 5 / math.sqrt(n)  # 153 pairs
    assert torch.equal(z[3], noise.normal(n, seed=1, stream=1)) and torch.equal(
        z[0], noise.normal(n)
    )


def test_fewer_rows_are_the_first_of_more():
    many = noise.normal(9, 3, seed=5)
    for n in (1, 2, 5, 8):
        assert torch.equal(noise.normal(n, 3, seed=5), many[:n])
    assert torch.equal(noise.normal(3, 3, 3, seed=5).flatten(), many.flatten())


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, math.nan, math.inf, True])
def test_bad_seeds_and_sizes(value):
    for name in ("seed", "stream"):
        with pytest.raises(ValueError, match=f"{name} is {re.escape(str(value))}: .*whole number"):
            noise.normal(4, **{name: value})
    with pytest.raises(ValueError, match="size of the noise is 0"):
        noise.normal(3, 0)


# JavaScript ---------------------------------------------------------------------------------------

NODE = """
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
const lab = await import(process.argv[2]);
const { threefry, noise, points, mean, variance, samples, measures, sliced, file } = JSON.parse(readFileSync(0));
const numbers = (list) => list && Float64Array.from(list, (v) => v ?? NaN);
const bytes = (list) => list && Uint8Array.from(list);
const DENOISERS = {
  shrink: (y, s) => y.map((v, i) => mean[i % 2] + ((v - mean[i % 2]) * variance[i % 2]) / (variance[i % 2] + s * s)),
  "posterior mean": (y, s) => {
    const x = new Float64Array(y.length);
    for (let i = 0; i < y.length; i += 2) {
      const log = points.map(([a, b]) => -((y[i] - a) ** 2 + (y[i + 1] - b) ** 2) / (2 * s * s));
      const w = log.map((v) => Math.exp(v - Math.max(...log))), sum = w.reduce((a, b) => a + b);
      for (const j of [0, 1]) x[i + j] = points.reduce((total, point, k) => total + (w[k] / sum) * point[j], 0);
    }
    return x;
  },
  explosive: (y) => y.map((v) => 3 * v),
};
const training = (m) => (m.bytes ? bytes : numbers)(m.training);
const padded = new Uint8Array([7, 7, 7, ...Buffer.from(file, "base64")]).subarray(3); // a view that starts elsewhere
const answer = {
  threefry: threefry.map(([key, counter]) => lab.threefry(...key, ...counter)),
  noise: noise.map((arguments_) => {
    const z = lab.normal(...arguments_);
    return createHash("sha256").update(new Uint8Array(z.buffer, z.byteOffset, z.byteLength)).digest("hex");
  }),
  samples: [],
  measures: measures.map((m) => lab.measure(numbers(m.y), m.d, training(m), numbers(m.reference))),
  nearest: measures.map((m) => m.training && Array.from({ length: m.y.length / m.d }, (_, i) =>
    lab.nearest(numbers(m.y.slice(i * m.d, (i + 1) * m.d)), training(m), m.d))),
  sliced: sliced.map(([a, b]) => lab.slicedW2(numbers(a), numbers(b))),
  file: Object.entries(lab.safetensors(padded)).map(([name, v]) => [name, v.constructor.name, [...v]]),
};
for (const { denoiser, ...asked } of samples) {
  const seen = [], note = (step) => seen.push(step), denoise = DENOISERS[denoiser];
  const frames = await lab.sample({ ...asked, denoise, d: 2, seen: note });
  answer.samples.push({ seen, frames: frames.map((frame) => [...frame]) });
}
console.log(JSON.stringify(answer));
"""
MEAN, VARIANCE = torch.tensor([0.5, -1.0]).double(), torch.tensor([2.0, 0.25]).double()
THREE = torch.tensor([[-1.0, -0.5], [1.25, -0.25], [0.25, 1.5]]).double()
TWINS = {
    "shrink": LinearDenoiser(MEAN, torch.eye(2).double(), VARIANCE),
    "posterior mean": PosteriorMean(THREE),
    "explosive": Explosive(),
}
NOISE = [(1, 0, 0), (2, 0, 1), (7, 3, 2**32 - 1), (4001, 2**32 - 1, 0), (100_000, 12345, 17)]
RUNS = [
    (d, s, 40, sampling.edm(12, 0.02), 2**32 - 1, centre)
    for d in TWINS
    for s in SAMPLERS
    for centre in (0, 0.3)
]
NEAR = THREE.repeat(8, 1) + 0.3 * draws(24, 2)
LOST = NEAR.clone().index_fill_(0, torch.tensor([0, 7, 23]), math.nan)
BYTES = torch.randint(256, (20, 9), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
IMAGES = BYTES[:8] / 255 + torch.linspace(0.02, 0.5, 8)[:, None] * draws(8, 9)
MEASURES = [  # samples, training set, reference; bytes are a training set of images
    (NEAR, THREE, draws(37, 2, seed=1)),
    (LOST, THREE, draws(24, 2, seed=2)),
    (LOST, None, draws(5, 2, seed=3)),
    (NEAR, THREE[:1], draws(37, 2, seed=4)),
    (torch.full((4, 2), math.nan), THREE, draws(5, 2, seed=5)),
    (IMAGES, BYTES, None),
    (IMAGES.clone().index_fill_(0, torch.tensor([3]), math.nan), BYTES, None),
    (IMAGES, BYTES[:1], None),
    (IMAGES, None, None),
    # equal points count once, and different ones that are equally far are two
    (
        torch.cat([THREE, THREE + 0.01, torch.zeros(1, 2)]),
        torch.cat([THREE, THREE.flip(0), THREE[1:]]),
        draws(5, 2),
    ),
    (
        torch.tensor([[0.0, 0.0], [0.9, 0.0]]).double(),
        torch.eye(2).double()[[0, 1, 0]],
        draws(5, 2),
    ),
    (NEAR, THREE[:1].repeat(3, 1), draws(5, 2)),
    (IMAGES, BYTES.repeat(2, 1), None),
]
SLICED = [
    (draws(n, 2), 0.5 + 2 * draws(m, 2, seed=1))
    for n, m in ((1, 7), (50, 37), (40, 40), (6, 3), (2000, 999))
]
ARRAYS = {"a": draws(3, 2), "b": draws(5).float(), "c": BYTES[:2], "none": torch.zeros(0)}


@pytest.fixture(scope="session")
def node(javascript, labs):
    """What the script answers under plain Node: one run for all questions."""

    def numbers(x):
        return None if x is None else [None if math.isnan(v) else v for v in x.flatten().tolist()]

    questions = {
        "threefry": [(key, counter) for key, counter, _ in ANSWERS],
        "noise": NOISE,
        "points": THREE.tolist(),
        "mean": MEAN.tolist(),
        "variance": VARIANCE.tolist(),
        "samples": [
            {
                "denoiser": d,
                "sampler": s,
                "n": n,
                "sigmas": sigmas.tolist(),
                "seed": seed,
                "centre": centre,
            }
            for d, s, n, sigmas, seed, centre in RUNS
        ],
        "measures": [
            {
                "y": numbers(y),
                "d": y.shape[1],
                "training": numbers(x),
                "reference": numbers(reference),
            }
            | {"bytes": x is not None and x.dtype == torch.uint8}
            for y, x, reference in MEASURES
        ],
        "sliced": [[numbers(a), numbers(b)] for a, b in SLICED],
        "file": base64.b64encode(save(ARRAYS)).decode(),
    }
    return javascript(NODE, labs, given=json.dumps(questions))


MODULES = """
import { readdirSync } from "node:fs";
const [, , joined, folder] = process.argv, found = { modules: {}, joined: {} };
const take = (into, module) => {
  for (const [name, value] of Object.entries(module)) {
    if (name !== "default") into[name] = typeof value === "function" ? String(value) : value;
  }
};
const own = (name) => name.endsWith(".js") && !name.startsWith("workbench"); // beside a kernel only
for (const file of readdirSync(new URL(folder)).filter(own)) {
  take(found.modules, await import(new URL(file, folder)));
}
const whole = await import(joined);
take(found.joined, whole);
console.log(JSON.stringify({ ...found, rendered: typeof whole.default.render }));
"""


def test_the_joined_script_is_what_the_modules_are(javascript, labs):
    """Node takes it, so that no name of a top level stands there twice; it lacks no module, and
    what it exports is what they export."""
    found = javascript(MODULES, labs, f"{STATIC.as_uri()}/")
    assert found["joined"] == found["modules"] and len(found["joined"]) > 30
    assert found["rendered"] == "function"


def test_the_modules_can_be_joined():
    """Imports are written as the joining reads them, and give no other names."""
    for module in STATIC.glob("*.js"):
        text = module.read_text(encoding="utf-8")
        imports = [found[0] for found in IMPORT.finditer(text)]
        assert re.findall(r"(?m)^import\b", text) == ["import"] * len(imports), module.name
        assert not re.search(r"\bas\b", "".join(imports)), module.name


def test_no_string_of_the_scripts_is_longer_than_a_line():
    """So that the page can leave out what begins its lines."""
    lines = joined().splitlines()
    assert [line for line in lines if line.count("`") % 2] == [] and not lines[-1].startswith("/*")
    assert [line for line in lines if re.match(r" *(/\*|\*)", line)] == []


def test_scripts_have_lines_of_a_hundred_columns():
    for script in (*STATIC.iterdir(), *(ROOT / "book/assets").glob("*.js")):
        assert max(map(len, script.read_text(encoding="utf-8").splitlines())) <= 100, script.name


def test_javascript_has_the_same_bits(node):
    assert [tuple(answer) for answer in node["threefry"]] == [answer for *_, answer in ANSWERS]
    for (count, seed, stream), found in zip(NOISE, node["noise"], strict=True):
        z = noise.normal(count, seed=seed, stream=stream)
        assert found == hashlib.sha256(z.numpy().astype("<f8").tobytes()).hexdigest()


@pytest.mark.parametrize(
    "i", range(len(RUNS)), ids=[f"{s}, {d}, {centre}" for d, s, *_, centre in RUNS]
)
def test_javascript_samples_as_python(node, i):
    name, sampler, n, sigmas, seed, centre = RUNS[i]
    start = centre + sigmas[0] * noise.normal(n, 2, seed=seed)
    expected = sampling.trajectory(start, BY_HAND[sampler](TWINS[name], start, sigmas, seed))
    found = torch.from_numpy(np.array(node["samples"][i]["frames"], dtype=float)).view_as(expected)
    assert node["samples"][i]["seen"] == list(range(1, len(sigmas)))
    assert torch.equal(found.isnan(), expected.isnan())
    assert (0 < metrics.diverged(expected[-1])) == (name == "explosive")
    assert torch.allclose(found, expected, rtol=1e-12, atol=1e-10, equal_nan=True)


def test_javascript_measures_as_python(node):
    for (y, training, reference), found, rows in zip(
        MEASURES, node["measures"], node["nearest"], strict=True
    ):
        kept = metrics.finite(y)
        expected = {"diverged": metrics.diverged(y), "copies": None, "distance": None}
        if training is not None and len(kept):
            x = training.double() / (255 if training.dtype == torch.uint8 else 1)
            different = len(x.unique(dim=0))
            distance, index = metrics.nearest(kept, x, k=min(2, different))
            rows = [row for row, lost in zip(rows, y[:, 0].isnan(), strict=True) if not lost]
            assert [row["index"] for row in rows] == index[:, 0].tolist()
            for i, key in enumerate(("best", "second")[:different]):
                assert [math.sqrt(row[key]) for row in rows] == pytest.approx(
                    distance[:, i].tolist(), rel=1e-10
                )
            if different > 1:
                expected["copies"] = metrics.share_of_copies(y, x)
            expected["distance"] = float(distance[:, 0].mean())
        if reference is not None:
            expected["distance"] = (
                metrics.sliced_w2(kept, reference, projections=DIRECTIONS) if len(kept) else None
            )
        assert found == near(expected, rel=1e-10)
    assert 0 < node["measures"][0]["copies"] < 1 and 0 < node["measures"][5]["copies"] < 1
    for (a, b), found in zip(SLICED, node["sliced"], strict=True):
        assert found == pytest.approx(metrics.sliced_w2(a, b, projections=DIRECTIONS), rel=1e-10)


def test_javascript_reads_safetensors(node):
    kinds = {
        torch.float64: "Float64Array",
        torch.float32: "Float32Array",
        torch.uint8: "Uint8Array",
    }
    expected = [[name, kinds[x.dtype], x.flatten().tolist()] for name, x in ARRAYS.items()]
    assert sorted(node["file"]) == sorted(expected)


# Export -------------------------------------------------------------------------------------------

LEVELS = sampling.edm(3, 0.02)[:-1].float()  # 80, one between, .02
PLANE, SQUARES = draws(9, 2), draws(6, 8, 8).float()
FULL = GaussianMixture(
    PLANE[:3], covariances=torch.tensor([[0.5, 0.3], [0.3, 0.4]]).repeat(3, 1, 1)
)
FAMILIES = {
    "mixture, isotropic": lambda: ring(4),
    "mixture, full": lambda: FULL,
    "posterior mean": lambda: PosteriorMean(PLANE),
    "posterior mean, smoothed": lambda: PosteriorMean(PLANE, 0.3),
    "posterior mean, images": lambda: PosteriorMean(SQUARES),
    "linear": lambda: LinearDenoiser.from_points(SQUARES, 3),
    "polynomial": lambda: Polynomial(ring(4), 3),
    "polynomial, gradient": lambda: Polynomial(ring(4), 3, gradient=True),
    "random features": lambda: RandomFeatures(PLANE, 6),
    "projected": lambda: ProjectedDenoiser(PLANE, 1),
    "network per level": lambda: PerLevelMLP(LEVELS, width=8),
    "mlp": lambda: MLP(8, data_std=0.5),
    "convolution": lambda: LinearConvolution.from_points(SQUARES, 3),
    "checkerboard": checkerboard,
    "unet": lambda: settled(UNet(1, 4, blind=False)),
    "unet, scaled": lambda: settled(UNet(1, 4, normalisation="none", blind=False, level="scale")),
    "unet, blind": lambda: UNet(1, 4).eval(),
}


def exported(name):
    return export(FAMILIES[name](), LEVELS, (8, 8) if "unet" in name else None)


def run(data, y, sigma):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    feeds = {"y": y.float().numpy(), "sigma": np.array(sigma, dtype=np.float32)}
    (x_hat,) = session.run(["x_hat"], {i.name: feeds[i.name] for i in session.get_inputs()})
    return torch.from_numpy(x_hat)


def assert_equal(data, denoiser, event=None):
    exact, event = copy.deepcopy(denoiser).double(), denoiser.event_shape or event
    for level, sigma in enumerate(LEVELS.tolist()):
        for batch in (1, 4, 50):
            y = (1 + sigma) * draws(batch, *event, seed=100 * level + batch).float()
            with torch.no_grad():
                expected, found = exact(y.double(), sigma), run(data, y, sigma)
            assert found.shape == y.shape and found.dtype == torch.float32
            assert (found - expected).abs().max() <= 1e-5 * max(1, float(expected.abs().max())), (
                sigma,
                batch,
            )


@pytest.mark.parametrize("name", FAMILIES)
def test_exported_denoisers_equal_torch_and_hold_nothing_else(name):
    data = exported(name)
    assert_equal(data, FAMILIES[name](), (8, 8))
    assert str(Path.home()).encode() not in data and str(ROOT).encode() not in data
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    assert [o.version for o in model.opset_import if not o.domain] == [20]
    assert [i.name for i in model.graph.input] in (["y", "sigma"], ["y"])
    assert [o.name for o in model.graph.output] == ["x_hat"] and not model.functions
    for part in (model, model.graph, *model.graph.node):
        assert not part.doc_string and not part.metadata_props
    assert not model.graph.value_info
    assert [node.name for node in model.graph.node] == [
        str(i) for i in range(len(model.graph.node))
    ]


def test_equal_denoisers_give_equal_bytes_in_another_process():
    """Started with other hashes, and in another order."""
    names = ["mlp", "polynomial, gradient"]
    code = f"import test_lab as t; print([t.hashlib.sha256(t.exported(n)).hexdigest() for n in {names[::-1]}][::-1])"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "1",
        "PYTHONPATH": os.pathsep.join([*sys.path, str(ROOT / "tests")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(
        [hashlib.sha256(exported(n)).hexdigest() for n in names]
    )


@pytest.mark.parametrize(
    ("name", "other", "traces"),
    [
        ("mlp", lambda: MLP(8, data_std=0.5, seed=1), 0),
        ("mlp", lambda: MLP(8, data_std=2.0), 1),
        ("posterior mean", lambda: PosteriorMean(2 * PLANE), 0),
        ("posterior mean, smoothed", lambda: PosteriorMean(PLANE, 0.1), 1),
        ("polynomial", lambda: Polynomial(GaussianMixture(PLANE[:4], 0.5), 3), 0),
        ("mixture, isotropic", lambda: GaussianMixture(PLANE[:4], 0.5, [1, 2, 3, 4]), 0),
    ],
)
def test_a_traced_graph_serves_other_numbers_but_not_other_constants(
    name, other, traces, monkeypatch
):
    exported(name)
    module, made = importlib.import_module("helpers.lab.export"), []
    trace = module._trace
    monkeypatch.setattr(
        module, "_trace", lambda *arguments: made.append(arguments) or trace(*arguments)
    )
    data = export(other(), LEVELS)
    assert data != exported(name)
    assert_equal(data, other())
    assert_equal(exported(name), FAMILIES[name]())
    # not again in float64, which hides a wrong graph
    assert [dtype for *_, dtype in made] == traces * [torch.float32]


class Difference(Denoiser):
    """Small answers that are differences of large numbers, as those of a network that subtracts the
    noise."""

    event_shape = (2,)

    def estimate(self, y, sigma):
        return 9.03 * y - 9 * y


def test_what_float32_rounds_is_no_reason_for_float64():
    model = onnx.load_from_string(export(Difference(), torch.tensor([5.0])))
    assert onnx.TensorProto.DOUBLE not in [v.data_type for v in model.graph.initializer]
    assert "Cast" not in {node.op_type for node in model.graph.node}


class Pythonic(Denoiser):
    """Looks at the values of y one by one, which a graph cannot."""

    event_shape = (2,)

    def estimate(self, y, sigma):
        return torch.tensor([math.tanh(v) for v in y.flatten().tolist()]).view_as(y)


class TwoFaced(Denoiser):
    event_shape = (2,)

    def estimate(self, y, sigma):
        return y / 2 if torch.compiler.is_exporting() else y / 3


@pytest.mark.parametrize(
    ("build", "sigmas", "words"),
    [
        (
            lambda: Polynomial(PLANE, 1),
            None,
            "Polynomial is fitted at each noise level: pass sigmas",
        ),
        (lambda: UNet(1, 4).eval(), LEVELS, "UNet takes images of any size: pass event"),
        (Pythonic, LEVELS, "Pythonic cannot be exported"),
        (TwoFaced, LEVELS, "exported TwoFaced differs from torch"),
    ],
    ids=["fitted", "any size", "values", "two faces"],
)
def test_what_cannot_be_exported(build, sigmas, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        export(build(), sigmas)


# Lab ----------------------------------------------------------------------------------------------


def broken(data, value):
    raise RuntimeError("no weights")


BAYES = Family("posterior mean", lambda x, _: PosteriorMean(x))
CUBIC = Family("polynomial", Polynomial, "degree", [3])
LEAVING = Family("explosive", lambda *_: Explosive())
BROKEN = Family("broken", broken)


def plane_lab(*more, **options):
    words = {"caption": "A <caption> & more.", "alt": 'What "it" shows.', "steps": [3]}
    return Lab(
        "tiny", {"ring": ring(4)}, [BAYES, CUBIC, *more], **{"counts": [9], **words, **options}
    )


def image_lab():
    images = (255 * torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(0))).round() / 255
    network = Family("UNet", lambda *_: UNet(1, 4))  # the lab puts it into evaluation mode
    wiener = Family("Wiener's filter", LinearDenoiser.from_points, "rank", [3])
    right = ("Wiener's filter", 3)
    return Lab(
        "pictures",
        {"noise": images},
        [network, wiener],
        [6],
        "Images.",
        "Noise.",
        steps=[3],
        right=right,
    )


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("target", "moons", "target is 'moons': this lab has ring"),
        ("count", "8", "count is '8': this lab has 9"),
        ("count", "all", "count is 'all': this lab has 9"),
        ("schedule", "cosine", "schedule is 'cosine': this lab has EDM"),
        ("steps", "7", "steps is '7': this lab has 3"),
        ("particles", "3", "particles is '3': this lab has 1000, 250, 500, 2000"),
        (
            "left",
            ["UNet", "3", "Heun"],
            "architecture 'UNet' '3': this lab has posterior mean, polynomial 3",
        ),
        (
            "right",
            ["polynomial", "2", "Heun"],
            "architecture 'polynomial' '2': this lab has posterior mean, poly",
        ),
        (
            "right",
            ["polynomial", "3", "Langevin"],
            "sampler is 'Langevin': this lab has Heun, Euler (DDIM), reverse",
        ),
    ],
)
def test_states_that_a_lab_does_not_have(key, value, words):
    lab = plane_lab()
    with pytest.raises(ValueError, match=re.escape(words)):
        lab.sample({**lab.start, key: value}, "left")
    if key != "steps":  # all numbers of steps, as an argument
        with pytest.raises(ValueError, match=re.escape(words)):
            plane_lab(**{key: value})


def test_more_training_images_than_there_are():
    lab = Lab("many", {"few": torch.rand(3, 4, 4)}, [BAYES], [5], "", "", steps=[3])
    with pytest.raises(ValueError, match="count is 5, but few has 3 training images"):
        lab.sample(lab.start, "left")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_lab_samples_as_by_hand(sampler):
    lab = plane_lab(particles=250, seed=7, right=("polynomial", 3, sampler), centre=0.3)
    sigmas = sampling.edm(3, sigma_min=0.02).float().double()
    y = 0.3 + sigmas[0] * noise.normal(250, 2, seed=7)
    denoiser = Polynomial(ring(4).sample(9), 3)
    steps = BY_HAND[sampler](denoiser, y, sigmas, 7)
    assert torch.equal(lab.sample(lab.start, "right"), sampling.trajectory(y, steps))
    assert torch.equal(lab.sample(lab.start, "left")[0], y)  # the same noise on both sides


def test_numbers():
    lab, x = plane_lab(counts=[9, 4, 1, None]), ring(4).sample(9)
    assert torch.equal(lab.training("ring", "9"), x) and torch.equal(
        lab.training("ring", "4"), x[:4]
    )
    y = torch.cat([x[:4] + 1e-3, torch.full((2, 2), math.nan)])
    distance = metrics.sliced_w2(
        y[:4], ring(4).sample(2000, seed=1).float(), projections=DIRECTIONS
    )
    copies = metrics.share_of_copies(y, x)
    assert lab.numbers(y, "ring", "9") == near(
        {"diverged": 2, "copies": copies, "distance": distance}
    )
    for count in ("1", "all"):  # nothing is a copy without two training points
        assert lab.numbers(y, "ring", count) == near(
            {"diverged": 2, "copies": None, "distance": distance}
        )
    assert lab.numbers(y[4:], "ring", "9") == {"diverged": 2, "copies": None, "distance": None}
    lab = image_lab()
    images = lab.training("noise", "6")
    y = images.double() + 0.5
    expected = float(metrics.nearest(y, images, k=1)[0].mean())
    found = lab.numbers(y, "noise", "6")
    assert found == near(
        {"diverged": 0, "copies": metrics.share_of_copies(y, images), "distance": expected}
    )


class Loaded(Denoiser):
    def __init__(self, data):
        super().__init__()
        self.data = data

    def estimate(self, y, sigma):
        return run(self.data, y, float(sigma)).double()


def strict(text):
    """JSON as browsers read it, without NaN and Infinity."""
    return json.loads(text, parse_constant=pytest.fail)


@pytest.mark.parametrize("build", [lambda: plane_lab(LEAVING), image_lab], ids=["plane", "images"])
def test_written_files(build, tmp_path):
    lab, folder = build(), tmp_path / "labs" / "lab"
    folder.mkdir(parents=True)
    (folder / "stale.onnx").write_text("old")
    manifest = lab.write(folder)
    assert [path.name for path in folder.parent.iterdir()] == ["lab"]
    assert strict((folder / "manifest.json").read_text()) == manifest
    entries = [
        entry for kind in ("models", "targets", "training") for entry in manifest[kind].values()
    ]
    assert {entry["file"] for entry in entries} | {"manifest.json", "check.json"} == {
        path.name for path in folder.iterdir()
    }
    found = strict((folder / "check.json").read_text())["found"]
    for entry in entries:
        data = (folder / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert not entry["file"].endswith(".gz") or data[4:8] == bytes(4)  # no time of writing
    spec = lab.spec()
    models = [f"{f['name']}/{v}" for f in spec["families"] for v in f["values"]]
    keys = {f"{t}/{c}/{model}" for t in spec["targets"] for c in spec["counts"] for model in models}
    assert set(manifest["models"]) == keys
    sigmas = torch.tensor(spec["schedules"]["EDM"]["3"]).double()
    start = sigmas[0] * noise.normal(int(lab.particles[0]), *lab.event)
    for key, entry in manifest["models"].items():  # as the page does it
        target, count, *_ = key.split("/")
        end = sampling.last(
            sampling.heun(Loaded((folder / entry["file"]).read_bytes()), start, sigmas)
        )
        expected = np.array(found[key].pop("end"), dtype=float).reshape(-1, *lab.event)
        np.testing.assert_allclose(end[:CHECKED].numpy(), expected, rtol=1e-4, atol=1e-4)
        assert lab.numbers(end, target, count) == near(found[key], abs=2e-3)  # a copy in 1000
    for key, entry in manifest["training"].items():
        stored, points = (
            load(gzip.decompress((folder / entry["file"]).read_bytes())),
            lab.training(*key.split("/")),
        )
        assert stored["training"].dtype == (torch.uint8 if lab.image else torch.float32)
        assert torch.equal(
            stored["training"] / 255 if lab.image else stored["training"], points.float()
        )
    for entry in manifest["targets"].values():
        stored = load(gzip.decompress((folder / entry["file"]).read_bytes()))
        assert stored["generated"].shape == (3, 48, 48) and stored["target"].shape == (48, 48)
        assert (
            stored["target"].dtype == stored["generated"].dtype == torch.uint8
            and len(stored["reference"]) == 2000
        )
    build().write(tmp_path / "again")
    again = {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()}
    assert again == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_unfinished_folder_replaces_nothing(tmp_path):
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "manifest.json").write_text("old")
    with pytest.raises(RuntimeError, match="no weights"):
        plane_lab(BROKEN).write(tmp_path / "lab")
    assert [path.read_text() for path in (tmp_path / "lab").iterdir()] == ["old"]


@pytest.mark.parametrize(
    "build",
    [lambda: plane_lab(LEAVING, right=("explosive", "")), image_lab],
    ids=["plane", "images"],
)
def test_html(build, tmp_path, monkeypatch):
    monkeypatch.setenv("CREATIVE_DENOISER_RESULTS", str(tmp_path))
    lab = build()
    page = lab.html()
    assert page.count("<denoise-lab ") == page.count("</denoise-lab>") == page.count("<script") == 1
    spec = strict(re.search(r'<script type="application/json">(.*?)</script>', page)[1])
    manifest = strict((tmp_path / "labs" / lab.name / "manifest.json").read_text())
    assert {key: spec[key] for key in lab.spec()} == json.loads(json.dumps(lab.spec()))
    for side in ("left", "right"):
        numbers = lab.numbers(
            lab.sample(lab.start, side)[-1], lab.start["target"], lab.start["count"]
        )
        model = manifest["models"][
            "/".join((lab.start["target"], lab.start["count"], *lab.start[side][:2]))
        ]
        assert spec["numbers"][side] == numbers | {"total variation": model.get("total_variation")}
    assert "Press to run" in page and page.count("<svg") == 3 and "<noscript>" in page
    assert lab.image or (
        "A &lt;caption&gt; &amp; more." in page
        and 'aria-label="What &quot;it&quot; shows."' in page
    )
    assert not any(path in page for path in (str(ROOT), str(Path.home()), str(tmp_path)))


@pytest.mark.parametrize("build", [lambda: plane_lab(BROKEN), image_lab], ids=["plane", "images"])
def test_widget_answers(build, monkeypatch):
    lab, sent = build(), []
    monkeypatch.setattr(
        Widget, "send", lambda self, content, buffers=None: sent.append((content, buffers or []))
    )
    widget = Widget(lab)
    assert (widget.spec, widget.caption) == (lab.spec(), lab.caption)

    def ask(question):
        del sent[:]
        widget._answer(widget, {"id": 4, **question}, [])
        (working, none), (answer, buffers) = sent
        assert (working, none) == ({"id": 4, "working": True}, []) and answer["id"] == 4
        json.dumps(answer, allow_nan=False)
        kinds = {"float32": torch.float32, "uint8": torch.uint8}
        parts = zip(answer["arrays"], buffers, strict=True)
        return answer, {
            k: torch.frombuffer(bytearray(b), dtype=kinds[t]).view(s) for (k, t, s), b in parts
        }

    target, count = lab.start["target"], lab.start["count"]
    for side in ("left", "right"):
        answer, arrays = ask({"ask": "sample", "state": lab.start, "side": side})
        frames = lab.sample(lab.start, side)
        assert torch.equal(arrays["frames"], frames.float())
        assert lab.numbers(frames[-1], target, count).items() <= answer["numbers"].items()
        assert (
            ("generated" in arrays) == ("total variation" in answer["numbers"]) == (not lab.image)
        )
    _, arrays = ask({"ask": "data", "target": target, "count": count})
    assert torch.equal(arrays.pop("training"), lab.training(target, count).float())
    assert lab.image or torch.equal(arrays.pop("target"), lab.target_picture(target))
    assert not arrays
    if not lab.image:
        state = {**lab.start, "left": ["broken", "", "Heun"]}
        answer, arrays = ask({"ask": "sample", "state": state, "side": "left"})
        assert (answer["error"], arrays) == ("RuntimeError: no weights", {})


BESIDE = """async ([text, traits]) => {
  const { default: front } = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const hear = {}, view = (base64) => new DataView(Uint8Array.from(atob(base64), (c) => c.charCodeAt(0)).buffer);
  const model = { get: (key) => traits[key], on: (event, call) => { hear[event] = call; } };
  model.send = async (question) => {
    for (const [content, buffers] of await ask(question)) hear["msg:custom"](content, buffers.map(view));
  };
  front.render({ model, el: document.body });
}"""


def test_a_lab_beside_its_kernel(tab, monkeypatch):
    """The front end as Jupyter loads it shows the numbers that the kernel sends."""
    lab, sent = plane_lab(right=("polynomial", 3), particles=250), []
    monkeypatch.setattr(
        Widget, "send", lambda self, content, buffers=(): sent.append([content, buffers])
    )
    widget = Widget(lab)

    def ask(question):
        del sent[:]
        widget._answer(widget, question, [])
        return [[content, [base64.b64encode(b).decode() for b in all]] for content, all in sent]

    tab.expose_function("ask", ask)
    tab.set_content("<!doctype html><html lang=en><body></body></html>")
    traits = {key: getattr(widget, key) for key in ("element", "spec", "caption")}
    tab.evaluate(BESIDE, [widget._esm, traits])
    tab.get_by_role("button", name="Press to run").click()
    tab.wait_for_selector(".lab-right dd[data-value]:not([data-value=''])")
    for side in ("left", "right"):
        shown = tab.locator(f".lab-{side} dd").evaluate_all("all => all.map(e => +e.dataset.value)")
        numbers = lab.numbers(lab.sample(lab.start, side)[-1], "ring", "9")
        expected = [numbers[key] for key in ("distance", "copies", "diverged")]
        assert shown[:3] == pytest.approx(expected, abs=1e-6)
    assert tab.locator("figcaption").inner_text() == lab.caption and tab.problems == []


def test_two_sizes_of_one_network_and_constants_given_as_tensors():
    for size in (8, 12):
        assert_equal(
            export(FAMILIES["unet, blind"](), LEVELS, (size, size)),
            FAMILIES["unet, blind"](),
            event=(size, size),
        )
    for s in (1.0, 2.0):
        assert_equal(export(MLP(8, data_std=torch.tensor(s)), LEVELS), MLP(8, data_std=s))


def test_a_network_in_training_mode_is_exported_for_evaluation_and_left_as_it_was():
    network = UNet(1, 4).train()
    assert_equal(export(network, LEVELS, (8, 8)), UNet(1, 4).eval(), event=(8, 8))
    assert network.training


@pytest.mark.parametrize(
    "wrong, words",
    [({"sed": 5}, "sed"), ({"seed": -1}, "-1"), ({"name": "a/b"}, "a/b"), ({"count": 9}, "9")],
)
def test_a_lab_is_refused_when_it_is_made(wrong, words):
    options = {
        "name": "small",
        "targets": {"ring": ring()},
        "families": [Family("Bayes", lambda law, _: law)],
    }
    with pytest.raises(ValueError, match=words):
        Lab(**options | {"counts": [None], "caption": "", "alt": ""} | wrong)


def test_a_network_with_bias_after_one_without():
    # torch keeps "no bias" among the parameters: their modules look alike
    for bias in (
        False,
        True,
    ):
        network = UNet(1, 4, normalisation="none", bias=bias).eval()
        assert_equal(export(network, LEVELS, (8, 8)), network, event=(8, 8))


def test_a_distance_stands_between_a_perfect_denoiser_and_noise():
    lab = Lab("l", {"ring": ring(4), "moons": moons()}, [Family("p", PosteriorMean)], [4], "", "")
    scales = lab.spec()["scales"]
    assert scales.keys() == {f"{t}/{n}" for t in lab.targets for n in lab.particles}
    for target in lab.targets:
        perfect = [scales[f"{target}/{n}"][0] for n in sorted(lab.particles, key=int)]
        assert perfect == sorted(perfect, reverse=True)  # more particles are nearer
        law, seeds = lab.targets[target], range(50, 54)
        drawn = [
            lab.numbers(law.sample(250, seed=s).double(), target, "4")["distance"] for s in seeds
        ]
        assert sum(drawn) / 4 == pytest.approx(scales[f"{target}/250"][0], rel=0.35)
        assert scales[f"{target}/1000"][0] < scales[f"{target}/1000"][1] / 2
    images = load_images("fashion-mnist", n=60, size=32).images
    lab = Lab("i", {"clothes": images}, [Family("p", PosteriorMean)], [1, 60], "", "")
    assert lab.spec()["scales"].keys() == {"clothes/60"}  # one image has no other
    new, noisy = lab.spec()["scales"]["clothes/60"]
    unseen = load_images("fashion-mnist", "test", 60, 32).images
    assert lab.numbers(unseen, "clothes", "60")["distance"] == pytest.approx(new, rel=0.15)
    assert lab.numbers(images, "clothes", "60")["distance"] == 0 < new < noisy


def test_weights_that_float16_holds_take_half_the_bytes():
    denoiser = UNet(blocks=1, channels=8, bias=True, seed=1).eval()
    whole = export(denoiser, event=(8, 8))
    with torch.no_grad():
        for p in denoiser.parameters():
            p.copy_(p.half().float())
    half = export(denoiser, event=(8, 8))
    assert len(half) < 0.7 * len(whole)
    y = draws(2, 8, 8)
    found = onnxruntime.InferenceSession(half).run(
        None, {"y": y.float().numpy(), "sigma": np.array(1, np.float32)}
    )[0]
    assert np.abs(found - denoiser(y.float(), 1.0).detach().numpy()).max() < 1e-5
