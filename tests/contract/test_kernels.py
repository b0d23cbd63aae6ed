"""The posterior mean's kernels against float64 brute force: C, torch and (in Triton's interpreter)
Triton."""

import importlib
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers import recorded
from helpers.kernels import native, plane, posterior, summary
from helpers.kernels.posterior import (
    plain_mean,
    posterior_mean,
    posterior_mean_and_jacobian,
    summarise,
)


def brute_force(points, y, sigma):
    """Mean, log-normaliser, effective number and weights from differences, all float64."""
    x, q = points.double().flatten(1), y.double().flatten(1)
    sigma = torch.as_tensor(sigma, dtype=torch.float64).expand(len(q))
    logits = torch.stack(
        [-(row - x).square().sum(1) / (2 * s**2) for row, s in zip(q, sigma, strict=True)]
    )
    w = torch.softmax(logits, 1)
    return (w @ x).view_as(y), torch.logsumexp(logits, 1), 1 / w.square().sum(1), w


def error(found, points, y, sigma):
    """Largest error of a row's mean in units of the training set's radius; the output's own
    rounding is allowed."""
    mean = brute_force(points, y, sigma)[0]
    gap, size = (t.flatten(1).norm(dim=1) for t in (found.double() - mean, mean))
    rounding = torch.finfo(found.dtype).eps * size
    # all equal: radius 0
    return float(((gap - rounding) / (summarise(points).radius + 1e-6 * size + 1e-30)).max())


def dense_family(n=1500):
    """Soft discs whose centre walks along a curve: neighbours are a hundredth apart, norms are
    eighty."""
    axis = torch.linspace(-1, 1, 40)
    t = torch.linspace(0, 2 * math.pi, n)[:, None, None]
    squares = (axis[:, None] - 0.5 * t.cos()) ** 2 + (axis - 0.3 * t.sin()) ** 2
    return 3 * torch.sigmoid(20 * (0.4 - squares.sqrt()))


def hard_sets():
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(400, 1600, generator=g)
    yield "near-duplicates", torch.cat([noise, noise + 1e-4 * torch.randn(400, 1600, generator=g)])
    yield "dense family", dense_family()
    yield "offset of 100", noise + 100
    yield "smooth", torch.randn(500, 800, generator=g).cumsum(1) / 30
    yield "plane, offset of 100", torch.randn(500, 2, generator=g) + 100
    yield "ten dimensions", torch.randn(500, 10, generator=g)
    yield "fifty thousand dimensions", torch.rand(40, 50_000, generator=g)
    yield "8-bit images", torch.randint(0, 256, (300, 28, 28), generator=g).to(torch.uint8)


HARD = dict(hard_sets())
SIGMAS = (0.003, 0.02, 0.1, 0.5, 2.0, 10.0, 100.0)


def queries(points, sigma, n=12):
    """Half of them a training point and noise, a quarter midway between two, a quarter far from the
    data."""
    g = torch.Generator().manual_seed(1)
    x = points.float()
    y = x[torch.randint(len(x), (n,), generator=g)]
    y[: n // 4] = (y[: n // 4] + x[torch.randint(len(x), (n // 4,), generator=g)]) / 2
    y = y + sigma * torch.randn(y.shape, generator=g)
    y[n // 4 : n // 2] += 3 * x.std() * torch.randn(y[n // 4 : n // 2].shape, generator=g)
    return y


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", HARD)
def test_exact_on_hard_sets(name, sigma):
    points = HARD[name]
    y = queries(points, sigma)
    found = posterior_mean(points, y, sigma, top=5)
    _, log_normaliser, neighbours, w = brute_force(points, y, sigma)
    assert found.mean.dtype == torch.float32 and error(found.mean, points, y, sigma) < 1e-5
    assert torch.allclose(found.log_normaliser, log_normaliser, rtol=1e-9, atol=1e-3)
    assert torch.allclose(found.neighbours, neighbours, rtol=1e-3)
    assert torch.allclose(found.weights, w.topk(5).values, atol=1e-3)
    assert torch.allclose(w.gather(1, found.indices), found.weights, atol=1e-3)


def test_float32_alone_is_not_enough(monkeypatch):
    """What the second look in float64 is for: without it the same call breaks the promise."""
    points, sigma = HARD["dense family"], 0.1
    y = queries(points, sigma)
    none = torch.zeros(0, dtype=torch.long)
    monkeypatch.setattr(posterior, "_in_doubt", lambda *arguments: (none, none))
    assert error(posterior_mean(points, y, sigma).mean, points, y, sigma) > 1e-5


def test_most_of_ordinary_images_stay_in_float32(monkeypatch):
    """The second look is an exception, or the first would be wasted."""
    g = torch.Generator().manual_seed(0)
    coarse = torch.rand(600, 1, 8, 8, generator=g)
    points = torch.nn.functional.interpolate(coarse, size=64, mode="bicubic").flatten(1)
    look, again = posterior._in_doubt, []
    monkeypatch.setattr(
        posterior, "_in_doubt", lambda *a: (found := look(*a), again.append(len(found[0])))[0]
    )
    for sigma in (0.02, 0.1, 0.5, 5.0, 20.0, 80.0):
        y = points[:50] + sigma * torch.randn(50, 4096, generator=g)
        assert error(posterior_mean(points, y, sigma).mean, points, y, sigma) < 1e-5
    assert sum(again) <= 0.2 * 6 * 50


REAL = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8]


@st.composite
def problems(draw):
    """Points, queries and sigmas of any shape, type, stride and scale that the kernel promises to
    take."""
    g = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    n, b = draw(st.integers(1, 60)), draw(st.integers(0, 7))
    event = draw(st.sampled_from([(1,), (2,), (3,), (4,), (17,), (3, 5, 5), (200,)]))
    points = torch.randn(n, *event, generator=g) * draw(st.sampled_from([0.01, 1.0, 30.0]))
    if draw(st.booleans()):  # repeated rows: a mean over equals
        points = points[torch.randint(n, (n,), generator=g)]
    points += draw(st.sampled_from([0.0, 0.0, 100.0]))
    dtype = draw(st.sampled_from(REAL))
    points = (points.abs().clamp(max=255) if dtype == torch.uint8 else points).to(dtype)
    scale = max(summarise(points).radius, 0.01) / math.sqrt(math.prod(event))
    sigma = scale * 10 ** draw(st.floats(-2.5, 3))
    if draw(st.booleans()):
        sigma = sigma * (0.5 + torch.rand(b, generator=g))
    level = torch.as_tensor(sigma).reshape(-1, *[1] * len(event))
    chosen = points[torch.randint(n, (b,), generator=g)]
    y = chosen.double() + level * torch.randn(b, *event, generator=g)
    if draw(st.booleans()):  # every second row of a larger tensor, last axis first
        points = points.repeat_interleave(2, 0).movedim(-1, 0).contiguous().movedim(0, -1)[::2]
        y = y.repeat_interleave(2, 0).movedim(-1, 0).contiguous().movedim(0, -1)[::2]
    return points, y.to(draw(st.sampled_from([torch.float32, torch.float64]))), sigma


@settings(max_examples=150, deadline=None)
@given(problems())
@example((torch.zeros(1, 2), torch.zeros(3, 2), 1.0))
# all distances equal
@example((torch.ones(9, 4), torch.randn(3, 4), torch.tensor([1e-3, 1.0, 100.0])))
def test_equals_brute_force(problem):
    points, y, sigma = problem
    found = posterior_mean(points, y, sigma, top=len(points))
    assert found.mean.shape == y.shape and found.mean.dtype == y.dtype
    if len(y) == 0:
        return
    exact = brute_force(points, y, sigma)
    tolerance = 1e-5 if y.dtype == torch.float32 else 1e-9
    assert error(found.mean, points, y, sigma) < tolerance
    assert torch.allclose(found.log_normaliser, exact[1], rtol=1e-6, atol=1e-3)
    assert torch.allclose(found.weights.sum(1), torch.ones(len(y), dtype=torch.float64), atol=1e-5)
    assert bool(((found.neighbours > 1 - 1e-6) & (found.neighbours < len(points) + 1e-3)).all())
    # without top: C in the plane
    assert error(posterior_mean(points, y, sigma).mean, points, y, sigma) < tolerance


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype):
    points, y = torch.randn(50, 20), torch.randn(6, 20).to(dtype)
    found = posterior_mean(points, y, 0.7).mean
    assert found.dtype == dtype
    assert (
        torch.equal(found, brute_force(points, y, 0.7)[0].to(dtype))
        or error(found, points, y, 0.7) < 1e-6
    )


def test_rows_do_not_influence_each_other():
    points = HARD["dense family"]
    y = torch.cat([queries(points, s, 4) for s in SIGMAS])
    sigma = torch.tensor(SIGMAS).repeat_interleave(4)
    whole = posterior_mean(points, y, sigma)
    for i in range(len(y)):
        alone = posterior_mean(points, y[i : i + 1], sigma[i : i + 1])
        # of values up to 3, norms of 80
        assert torch.allclose(alone.mean[0], whole.mean[i], atol=3e-5)
        assert torch.allclose(alone.log_normaliser[0], whole.log_normaliser[i], atol=2e-3)


@pytest.mark.theorem("prop-merge")
@pytest.mark.parametrize("chunk, logits", [(2000, 500), (40_000, 3000)])
def test_chunks_do_not_matter(monkeypatch, chunk, logits):
    points = HARD["smooth"]
    y = queries(points, 2.0)
    whole = posterior_mean(points, y, 2.0)
    monkeypatch.setitem(summary.CHUNK, "cpu", chunk)
    monkeypatch.setattr(posterior, "LOGITS", logits)
    assert torch.allclose(posterior_mean(points, y, 2.0).mean, whole.mean, atol=1e-5)


class LargestTensor(TorchDispatchMode):
    """Watches every operation's results for the largest number of bytes."""

    most = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        result = function(*arguments, **(options or {}))
        own = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        inputs = {
            t.untyped_storage().data_ptr()
            for t in tree_leaves((arguments, options))
            if isinstance(t, torch.Tensor)
        }
        fresh = [
            t.untyped_storage().nbytes()
            for t in own
            if t.untyped_storage().data_ptr() not in inputs
        ]
        self.most = max(self.most, *fresh, 0)
        return result


def test_streams_a_memory_map_without_a_copy(tmp_path, monkeypatch):
    monkeypatch.setitem(summary.CHUNK, "cpu", 2**19)
    n, d = 6000, 1500
    stored = np.memmap(tmp_path / "images.u8", np.uint8, "w+", shape=(n, d))
    stored[:] = np.random.default_rng(0).integers(0, 256, (n, d), dtype=np.uint8)
    stored.flush()
    points = torch.from_numpy(np.memmap(tmp_path / "images.u8", np.uint8, "c", shape=(n, d)))
    y = points[:5].float() + 40 * torch.randn(5, d, generator=torch.Generator().manual_seed(0))
    with LargestTensor() as watch:
        found = posterior_mean(points, y, 40.0)
    # a chunk in float64; the set is larger even as bytes
    assert watch.most <= 8 * 2**19 < n * d / 2
    assert error(found.mean, points, y, 40.0) < 1e-5


@pytest.mark.parametrize("shape", [(2,), (9,), (2, 3, 2)])
def test_derivatives_equal_autograds(shape):
    g = torch.Generator().manual_seed(0)
    points = torch.randn(20, *shape, generator=g, dtype=torch.float64)
    y = torch.randn(4, *shape, generator=g, dtype=torch.float64, requires_grad=True)
    sigma = torch.tensor([0.3, 0.7, 1.5, 4.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda q: posterior_mean(points, q, sigma).mean, y)
    assert torch.autograd.gradgradcheck(lambda q: posterior_mean(points, q, sigma).mean, y)
    x, s = points.clone().requires_grad_(), sigma.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda q, p, t: posterior_mean(p, q, t).mean, (y, x, s))
    v = torch.randn(y.shape, generator=g)
    single = y.detach().float().requires_grad_()
    (found,) = torch.autograd.grad(posterior_mean(points.float(), single, sigma).mean, single, v)
    (exact,) = torch.autograd.grad(
        plain_mean(points, y.flatten(1), sigma).view_as(y), y, v.double()
    )
    assert torch.allclose(found.double(), exact, atol=1e-5)


# The plane ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.003, 0.05, 1.0, 100.0])
def test_jacobian_in_the_plane_is_the_posteriors_covariance(d, sigma):
    g = torch.Generator().manual_seed(d)
    points, y = torch.randn(400, d, generator=g) + 50, torch.randn(60, d, generator=g) + 50
    y[:40] = points[:40] + sigma * torch.randn(40, d, generator=g)
    mean, jacobian = posterior_mean_and_jacobian(points, y, sigma)
    exact, _, _, w = brute_force(points, y, sigma)
    centred = points.double() - exact[:, None]
    covariance = torch.einsum("bn,bni,bnj->bij", w, centred, centred)
    assert error(mean, points, y, sigma) < 1e-6
    assert torch.allclose(jacobian.double(), covariance / sigma**2, rtol=1e-5, atol=1e-6)


def interpreted():
    """The Triton kernels, run on the CPU by Triton's interpreter, which conftest.py switches on."""
    pytest.importorskip("triton")
    return importlib.import_module("helpers.kernels.posterior_triton")


@pytest.mark.parametrize("path", ["C", "torch", "Triton"])
@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("n, b", [(1, 1), (300, 70), (513, 3)])
def test_plane_paths_agree(path, d, n, b):
    g = torch.Generator().manual_seed(n)
    x, y = (
        torch.randn(n, d, generator=g, dtype=torch.float64),
        torch.randn(b, d, generator=g, dtype=torch.float64),
    )
    rate = 10 ** (7 * torch.rand(b, generator=g, dtype=torch.float64) - 4)
    if path == "C" and plane.library("plane") is None:
        pytest.skip("no C compiler on this machine")
    if path == "Triton":
        interpreted()
    found = {"C": plane._c, "torch": plane._torch, "Triton": plane._triton}[path](x, y, rate)
    logits = (
        -torch.cdist(y, x, compute_mode="donot_use_mm_for_euclid_dist").square() * rate[:, None]
    )
    w = (logits - logits.amax(1, keepdim=True)).exp()
    i, j = torch.triu_indices(d, d)
    exact = [
        logits.amax(1, keepdim=True),
        w.sum(1, keepdim=True),
        w.square().sum(1, keepdim=True),
        w @ x,
    ]
    exact = torch.cat([*exact, w @ (x[:, i] * x[:, j])], dim=1)
    assert torch.allclose(
        found,
        exact,
        rtol=1e-6 if path == "Triton" else 1e-11,
        atol=1e-5 if path == "Triton" else 1e-8,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("n, d, b", [(1, 5, 1), (200, 90, 20), (140, 33, 65)])
def test_two_passes_in_triton(dtype, n, d, b):
    kernels = interpreted()
    g = torch.Generator().manual_seed(n)
    points = (torch.rand(n, d, generator=g) * (255 if dtype == torch.uint8 else 1)).to(dtype)
    unit = float(points.double().std()) if n > 1 else 1.0
    sigma = unit * 10 ** (3 * torch.rand(b, generator=g, dtype=torch.float64) - 1.5)
    y = points[torch.randint(n, (b,), generator=g)].float() + sigma.float()[:, None] * torch.randn(
        b, d, generator=g
    )
    summary = summarise(points)
    found = posterior.Sums(*kernels.two_pass(points, y, sigma, summary), y[:0])
    exact = posterior._stream(points, None, y.double(), sigma, summary)
    # narrow points stay uncentred, which moves a query's logits by one number
    relative, wanted = (t.logits.double() - t.best for t in (found, exact))
    assert bool(
        (
            (relative - wanted).abs() < 1e-5 * (1 + wanted.abs() + (summary.radius / sigma) ** 2)
        ).all()
    )
    for name in ("total", "squares", "halves"):
        a, b_ = getattr(found, name).double(), getattr(exact, name)
        assert torch.allclose(a, b_, rtol=1e-3, atol=1e-4 * max(summary.radius, 1.0) ** 2), name
    mean = found.weighted / found.total[:, None] + summary.centre
    assert error(mean, points, y, sigma) < 1e-4  # before the second look in float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_exact_on_a_gpu():
    for points in HARD.values():
        for sigma in SIGMAS:
            y = queries(points, sigma)
            assert (
                error(posterior_mean(points.cuda(), y.cuda(), sigma).mean.cpu(), points, y, sigma)
                < 1e-5
            )


# The compiler -------------------------------------------------------------------------------------


def test_without_a_compiler_torch_runs_and_says_so(monkeypatch):
    points, y = torch.randn(100, 2), torch.randn(30, 2)
    compiled = posterior_mean(points, y, 0.2).mean
    monkeypatch.setattr(plane, "library", lambda name: None)
    assert posterior.implementation(points) == "torch"
    assert torch.allclose(posterior_mean(points, y, 0.2).mean, compiled, atol=1e-6)


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler on this machine")
def test_compiled_files_are_kept_replaced_and_not_trusted(monkeypatch, tmp_path):
    """In processes of their own: whoever changes a library that is loaded brings its process down."""

    def load():
        code = (
            "from helpers.kernels import native; print(native.library('plane').plane is not None)"
        )
        environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment
        )
        assert run.stdout.strip() == "True", run.stderr

    load()
    (kept,) = (tmp_path / "creative-denoiser").iterdir()
    written = kept.stat().st_mtime_ns
    assert kept.suffix == ".so" and kept.stat().st_size > 1000
    load()
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(b"half a file")
    load()
    monkeypatch.setattr(native, "compiler", lambda: None)
    assert native.library.__wrapped__("plane") is None


# Bad input ----------------------------------------------------------------------------------------

X, Y = torch.randn(5, 4), torch.randn(3, 4)
WRONG = [
    (lambda: posterior_mean(X, Y, 0.0), "sigma is 0.0", "positive"),
    (lambda: posterior_mean(X, Y, -1.0), "sigma is -1.0", "positive"),
    (lambda: posterior_mean(X, Y, torch.ones(2)), r"sigma has shape \(2,\)", "batch of 3"),
    (lambda: posterior_mean(X, Y, float("nan")), "sigma is nan", "finite"),
    (lambda: posterior_mean(X, Y[:, :3], 1.0), r"y has shape \(3, 3\)", r"\(batch, 4\)"),
    (lambda: posterior_mean(X, Y * torch.nan, 1.0), "y holds NaN", "row 0"),
    (lambda: posterior_mean(X * torch.inf, Y, 1.0), "points hold NaN or infinity", "remove"),
    (lambda: posterior_mean(X[:0], Y, 1.0), r"points have shape \(0, 4\)", "at least one"),
    (lambda: posterior_mean(X > 0, Y, 1.0), "points are torch.bool", "pass a real tensor"),
    (lambda: posterior_mean(X.tolist(), Y, 1.0), "points are list", "pass a real tensor"),
    (lambda: posterior_mean(X, Y.long(), 1.0), "y has dtype torch.int64", "floating"),
    (lambda: posterior_mean(X, Y, 1.0, top=6), "top is 6 with 5", "choose 0 to 5"),
    (
        lambda: posterior_mean(X, Y, 1.0, summary=summarise(X[:4])),
        r"summary is of points \(4, 4\)",
        "again",
    ),
    (lambda: posterior_mean(X.to("meta"), Y, 1.0), "points are on meta, y is on cpu", "move"),
    (lambda: recorded.load("nothing"), "there is no record 'nothing'", "kernels"),
    (lambda: posterior_mean_and_jacobian(X, Y, 1.0), r"points have shape \(5, 4\)", "from 1 to 3"),
]


@pytest.mark.parametrize("call, names, remedy", WRONG, ids=range(len(WRONG)))
def test_bad_input(call, names, remedy):
    with pytest.raises(ValueError, match=names) as caught:
        call()
    assert caught.match(remedy)
