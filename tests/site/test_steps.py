"""Training in the page: the steps are torch's, in Python's onnxruntime and in a worker of Chromium."""

import gzip
import math
import threading
from contextlib import contextmanager
from functools import cache, partial
from http.server import ThreadingHTTPServer

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from press_fixtures import BOOK, Quiet

from helpers import noise
from helpers.data import star
from helpers.denoisers import MLP
from helpers.lab import steps
from helpers.lab.scripts import joined
from helpers.recipe import Recipe
from helpers.training import train
from press.site import RUNTIME, SCRIPTS, fetch_scripts

torch.set_num_threads(1)
POINTS, SEED = star().sample(64, seed=1), 3
LEVELS = "log-uniform", 0.03, 10.0
FORMS = {  # network, recipe: as in chapter 6; one with a narrow middle; blind ones
    "chapter 6": (lambda: MLP(16, seed=1), Recipe(100, 128, 1e-2, LEVELS)),
    "narrow": (
        lambda: steps.Layers((24, 1), "tanh", skip=False, data_std=0.7),
        Recipe(100, 64, 3e-3, LEVELS, "snr", "none"),
    ),
    "blind": (
        lambda: steps.Layers((32,), "relu", conditioned=False),
        Recipe(100, 50, 1e-2, ("uniform", 0.1, 2.0), "sum", "none"),
    ),
}
ALL = pytest.mark.parametrize("form", FORMS)


@cache
def graph(form):
    make, recipe = FORMS[form]
    return steps.export_step(make(), recipe)


@contextmanager
def drawn_from_the_noise(n):
    """torch's draws in a training on n points, in the order in which it asks, are the page's."""
    step = 0

    def of_step(size):
        words = noise.threefry((SEED, step), np.arange(size, dtype=np.uint32), 1)
        return [torch.from_numpy((word + 0.5) / 2**32) for word in words]

    def randint(high, shape, **_):
        nonlocal step
        step, size = step + 1, shape[0]
        assert high == n
        return (of_step(size)[0] * n).long()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "randint", randint)
        patch.setattr(torch, "rand", lambda size, **_: of_step(size)[1].float())
        patch.setattr(
            torch, "randn", lambda shape, **_: noise.normal(*shape, seed=SEED, stream=step).float()
        )
        yield


def by_torch(denoiser, recipe, points=POINTS):
    """The losses of the book's own training, which leaves its weights in the denoiser."""
    with drawn_from_the_noise(len(points)):
        return [p.loss for p in train(denoiser, points, recipe)]


def rate(recipe, step):
    fall = (1 + math.cos(math.pi * (step - 1) / recipe.steps)) / 2
    return recipe.rate * (fall if recipe.decay == "cosine" else 1)


def by_graph(data, denoiser, recipe, points=POINTS):
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names, losses = [i.name for i in session.get_inputs()], []
    weights = [p.detach().numpy() for p in denoiser.parameters()]
    state = weights + [np.zeros(sum(w.size for w in weights), np.float32)] * 2
    for step in range(1, recipe.steps + 1):
        rows = steps.batch(points, recipe.batch, step, SEED).numpy()
        given = [*state, np.array(float(step)), np.array(rate(recipe, step)), rows]
        *state, loss = session.run(None, dict(zip(names, given, strict=True)))
        losses.append(float(loss))
    return losses, [torch.from_numpy(w) for w in state[: len(weights)]]


def assert_equal(losses, weights, expected, denoiser):
    assert losses == pytest.approx(expected, abs=1e-4, rel=1e-4)
    for found, own in zip(weights, denoiser.parameters(), strict=True):
        torch.testing.assert_close(found.view_as(own), own.detach(), atol=1e-4, rtol=0)


@ALL
def test_a_hundred_steps_are_those_of_torch(form):
    make, recipe = FORMS[form]
    denoiser, moved = make(), make()
    found = by_graph(graph(form), denoiser, recipe)
    expected = by_torch(moved, recipe)
    assert_equal(*found, expected, moved)
    for a, b in zip(denoiser.parameters(), moved.parameters(), strict=True):
        assert (a - b).abs().max() > 0.01  # far more than the tolerance has happened


@pytest.mark.parametrize("widths, size", [((1, 2, 3), 1), ((2, 3, 31), 3), ((64, 1, 64), 31)])
def test_one_graph_serves_all_widths_and_batches(widths, size):
    """Also those at which a tracer likes to stumble: 1, those of the plane, those of the tracing."""
    recipe = Recipe(5, size, 1e-2, LEVELS)
    denoiser, moved = steps.Layers(widths), steps.Layers(widths)
    assert_equal(
        *by_graph(graph("chapter 6"), denoiser, recipe, POINTS[:3]),
        by_torch(moved, recipe, POINTS[:3]),
        moved,
    )


@ALL
def test_the_graph_is_small_and_holds_nothing_else(form):
    data = graph(form)
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model)
    assert len(gzip.compress(data)) < 5_000 and not model.functions
    assert not any(
        p.doc_string or p.metadata_props for p in (model, model.graph, *model.graph.node)
    )
    names = [i.name for i in model.graph.input]
    assert [o.name for o in model.graph.output] == [*(f"new.{n}" for n in names[:-3]), "loss"]
    assert names[-5:] == ["mean", "square", "step", "rate", "batch"]


def test_layers_of_equal_widths_are_an_mlp():
    mlp, layers = MLP(8, data_std=0.6), steps.Layers((8, 8, 8), data_std=0.6)
    mlp.load_state_dict(layers.state_dict())
    y, sigma = torch.randn(9, 2), torch.rand(9) + 0.1
    assert torch.equal(mlp(y, sigma), layers(y, sigma))


def test_without_the_skip_answers_lie_on_a_curve():
    def rank(**form):
        jacobian = torch.func.jacrev(lambda y: steps.Layers((8, 1, 8), **form)(y[None], 0.5)[0])
        return int(torch.linalg.matrix_rank(jacobian(torch.tensor([0.3, -0.8])), rtol=1e-4))

    assert [rank(skip=skip, conditioned=told) for skip in (0, 1) for told in (0, 1)] == [1, 1, 2, 2]


def test_a_blind_one_is_told_nothing():
    y = torch.randn(5, 2)
    for skip in (True, False):
        blind = steps.Layers((8,), conditioned=False, skip=skip)
        assert torch.equal(blind(y, 0.1), blind(y, 3.0))
    told = steps.Layers((8,), skip=False)
    assert not torch.allclose(told(y, 0.1), told(y, 3.0))


def test_the_start_follows_the_law_of_torch():
    layers = steps.Layers((200, 100), seed=SEED)
    torch.manual_seed(0)
    for m, own in zip(layers.network[::2], MLP(1, 2).network[::2], strict=True):
        own = type(own)(m.in_features, m.out_features)
        for a, b in zip(m.parameters(), own.parameters(), strict=True):
            a, b = a.detach(), b.detach()
            assert a.abs().max() < m.in_features**-0.5
            # of n uniform numbers the second moment has the relative error 2 / sqrt(5 n)
            far = 5 * 2 / math.sqrt(5 * a.numel())
            assert float(a.square().mean() * 3 * m.in_features) == pytest.approx(1, abs=far)
            assert float(b.square().mean() * 3 * m.in_features) == pytest.approx(1, abs=far)
    assert not torch.equal(layers.network[0].weight, steps.Layers((200, 100)).network[0].weight)


def test_batches():
    rows, again = (steps.batch(POINTS, 4000, step, SEED) for step in (1, 2))
    assert rows.shape == (4000, 5) and not torch.equal(rows, again)
    assert torch.equal(steps.batch(POINTS, 7, 1, SEED), rows[:7])
    x, n, u = rows[:, :2], rows[:, 2:4], rows[:, 4]
    assert set(map(tuple, x.tolist())) == set(map(tuple, POINTS.float().tolist()))
    # normal, uniform, and apart: standard errors of 4000
    assert float(n.mean()) == pytest.approx(0, abs=5 / math.sqrt(8000))
    assert float(u.mean()) == pytest.approx(0.5, abs=5 / math.sqrt(12 * 4000))
    apart = torch.corrcoef(rows.T) - torch.corrcoef(x.T).new_tensor(np.eye(5))
    apart[:2, :2] = 0  # the points' own
    assert apart.abs().max() < 5 / math.sqrt(4000)


def test_what_cannot_be_a_step():
    mlp = MLP(4)
    for recipe, word in (
        (Recipe(loss="log"), "log"),
        (Recipe(noise=("log-normal", 0.0, 1.0)), "log-normal"),
        (Recipe(noise=("levels", 0.1, 1.0)), "levels"),
    ):
        with pytest.raises(ValueError, match=f"'{word}'.*in the browser takes"):
            steps.export_step(mlp, recipe)
    with pytest.raises(ValueError, match="at most 8 hidden layers"):
        steps.export_step(MLP(4, 9), Recipe())
    with pytest.raises(ValueError, match="Linear: pass an MLP"):
        steps.export_step(torch.nn.Linear(2, 2), Recipe())
    with pytest.raises(ValueError, match="a width is 0"):
        steps.Layers((8, 0))


# The browser --------------------------------------------------------------------------------------

WORKER = """
const { about, told } = asked, heard = [];
const worker = new Worker("/train.js", { type: "module" });
let resting = () => {};
worker.onerror = ({ message }) => { heard.push({ error: message }); resting(); };
worker.onmessage = ({ data }) => {
  heard.push({ ...data, weights: data.weights?.map((w) => [...w]) });
  if (data.running) { if (told.at(-1).pause) worker.postMessage({ pause: true }); }
  else resting();
};
for (const word of [{ open: about }, ...told.filter((word) => !word.pause)]) {
  const rests = new Promise((resolve) => { resting = resolve; });
  worker.postMessage(word);
  await rests;
}
worker.terminate();
return heard;
"""


@pytest.fixture(scope="module")
def page(browser, tmp_path_factory):
    """A folder as the site has it: the joined script, the runtime beside it, and the graphs."""
    folder = tmp_path_factory.mktemp("train")
    (folder / "ort").mkdir()
    packages = fetch_scripts(BOOK)
    script = next(name for name in SCRIPTS if name.endswith("ort.wasm.bundle.min.mjs"))
    (folder / SCRIPTS[script]).write_bytes((packages / script).read_bytes())
    packed = gzip.compress((packages / RUNTIME[0]).read_bytes(), 1)
    (folder / RUNTIME[1]).write_bytes(packed)
    (folder / "train.js").write_text(joined("train.js"), encoding="utf-8")
    (folder / "index.html").write_text("<!doctype html><title>training</title>", encoding="utf-8")
    for i, form in enumerate(FORMS):
        (folder / f"{i}.onnx").write_bytes(graph(form))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    tab = browser.new_page()
    tab.set_default_timeout(120_000)
    tab.goto(f"http://127.0.0.1:{server.server_port}/index.html")
    yield tab
    tab.close()
    server.shutdown()


def in_the_page(page, form, *told, **other):
    make, recipe = FORMS[form]
    about = {
        "graph": f"{page.url.rpartition('/')[0]}/{list(FORMS).index(form)}.onnx",
        "shapes": [list(p.shape) for p in make().parameters()],
        "points": POINTS.float().flatten().tolist(),
        "d": 2,
        "size": recipe.batch,
        "rate": recipe.rate,
        "seed": SEED,
        "until": recipe.steps if recipe.decay == "cosine" else None,
    }
    asked = {"about": about | other, "told": told}
    return page.evaluate(f"async (asked) => {{ {WORKER} }}", asked)


def started(form):
    denoiser, recipe = FORMS[form][0](), FORMS[form][1]
    steps.start(denoiser, SEED)
    return denoiser, recipe


def tensors(answer):
    return [torch.tensor(w) for w in answer["weights"]]


@ALL
def test_the_page_trains_as_torch(page, form):
    denoiser, recipe = started(form)
    heard = in_the_page(page, form, {"run": 60}, {"run": 1}, {"run": 39})
    assert [word for word in heard if "error" in word] == []
    first, last = heard[0], heard[-1]
    assert (first["step"], first["losses"], last["step"], last["running"]) == (0, [], 100, False)
    # to the bit
    for w, p in zip(tensors(first), denoiser.parameters(), strict=True):
        assert torch.equal(w, p.detach().flatten())
    expected = by_torch(denoiser, recipe)
    losses = [loss for word in heard for loss in word["losses"]]
    assert_equal(losses, tensors(last), expected, denoiser)


def test_a_pause_loses_no_step(page):
    denoiser, recipe = started("blind")
    many = 100_000
    heard = in_the_page(page, "blind", {"run": many}, {"run": 50}, {"pause": True})
    ends = [word["step"] for word in heard if not word["running"]]
    assert 0 == ends[0] < ends[1] < ends[2] <= ends[1] + 50 and ends[1] < many
    losses = [loss for word in heard for loss in word["losses"]]
    assert len(losses) == heard[-1]["step"]
    long = Recipe(len(losses), recipe.batch, recipe.rate, recipe.noise, "sum", "none")
    whole, _ = by_graph(graph("blind"), denoiser, long)
    assert losses == pytest.approx(whole, rel=1e-2)


def test_faults_in_words(page):
    heard = in_the_page(page, "blind", {"run": 500}, rate=1e30)
    assert "lower the learning rate" in heard[-1]["error"]
    assert heard[-1]["step"] == sum(len(word["losses"]) for word in heard) > 0
    heard = in_the_page(page, "blind", {"run": 5}, graph="/nothing.onnx")
    assert [word["error"] for word in heard] == [
        "/nothing.onnx is not there: the server answered 404",
        "there is no training: open one first",
    ]
