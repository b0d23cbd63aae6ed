"""The training loop does what its recipe says and goes on where it was killed."""

import functools
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import pytest
import torch
from nets import equal, generator, noise, state
from safetensors.torch import save_file
from scipy import stats
from torch import nn

from helpers import devices, training
from helpers import recipe as recipes
from helpers.denoisers import (
    CNN,
    MLP,
    Denoiser,
    PerLevel,
    PerLevelMLP,
    PosteriorMean,
    UNet,
)
from helpers.training import BINS, Recipe, fit, run, train, train_levels


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small wait for a second thread longer than it helps them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Constant(Denoiser):
    """D = a, whatever the input; keeps what it was asked, on one channel as images or in the plane."""

    data_std = 0.5

    def __init__(self, *a: float):
        super().__init__()
        self.a, self.asked = nn.Parameter(torch.tensor(a)), []

    def estimate(self, y, sigma):
        self.asked.append((y.clone(), sigma.flatten().clone()))
        return self.a.expand_as(y)


class Scaled(Constant):
    """D = a y."""

    def estimate(self, y, sigma):
        self.asked.append((y.clone(), sigma.flatten().clone()))
        return self.a * y


def asked_x(denoiser: Constant, spacing: float = 1.0) -> list[torch.Tensor]:
    """The clean points of every batch, where they lie on a grid of that spacing and the noise is
    small."""
    return [spacing * (y / spacing).round() for y, _ in denoiser.asked]


# The noise level ----------------------------------------------------------------------------------

LAWS = {
    ("log-uniform", 0.01, 20.0): (stats.loguniform(0.01, 20.0).cdf, 0.01, 20.0),
    ("uniform", 0.5, 3.0): (stats.uniform(0.5, 2.5).cdf, 0.5, 3.0),
    ("quadratic", 2.0): (lambda s: (s / 2).clip(0, 1) ** 0.5, 0.0, 2.0),
    ("log-normal", -1.2, 0.7): (stats.lognorm(0.7, scale=math.exp(-1.2)).cdf, 0.0, math.inf),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law[0])
def test_levels_follow_their_law(law):
    cdf, low, high = LAWS[law]
    sigma = Recipe(noise=law).levels(20_000, generator())
    assert (
        sigma.dtype == torch.float32
        and (sigma >= 0.999999 * low).all()
        and (sigma <= 1.000001 * high).all()
    )
    assert stats.kstest(sigma.double().numpy(), cdf).pvalue > 1e-3


def test_a_fixed_level():
    assert Recipe(noise=("fixed", 0.3)).levels(5, generator()).tolist() == [pytest.approx(0.3)] * 5


@pytest.mark.parametrize(
    "law", [("quadratic", 1.0), ("uniform", 0.0, 1.0), ("log-uniform", 0.01, 20.0)]
)
def test_no_level_is_zero_even_where_the_uniform_number_is(law, monkeypatch):
    """torch.rand gives 0 once in 2^24 draws: the papers' schedule meets it a dozen times."""
    monkeypatch.setattr(torch, "rand", lambda n, **_: torch.zeros(n))
    assert (Recipe(noise=law).levels(4, generator()) > 0).all()


BAD_RECIPES = [
    ({"noise": ("pink", 0.1)}, "noise is .'pink', 0.1.: take a law with its parameters"),
    ({"noise": ()}, "noise is "),
    ({"noise": ("fixed",)}, "noise is "),
    ({"noise": ("fixed", 0.0)}, "positive levels"),
    ({"noise": ("fixed", math.nan)}, "noise is .*nan"),
    ({"noise": ("fixed", "loud")}, "noise is .*'loud'"),
    ({"noise": ("log-uniform", 20.0, 0.01)}, "the lower first"),
    ({"noise": ("log-uniform", 0.0, 1.0)}, "positive levels"),
    ({"noise": ("uniform", 2.0, 1.0)}, "the lower first"),
    ({"noise": ("uniform", -0.1, 1.0)}, "positive levels"),
    ({"noise": ("quadratic", -1.0)}, "positive levels"),
    ({"noise": ("quadratic", 1.0, 2.0)}, "noise is "),
    ({"noise": ("log-normal", 0.0, -1.0)}, "noise is "),
    ({"noise": None}, "noise is None"),
    ({"loss": "l1"}, "loss is 'l1': choose one of edm, sum, log, level"),
    ({"decay": "linear"}, "decay is 'linear': choose one of cosine, halving, none"),
    ({"precision": "float16"}, "precision is 'float16': choose one of float32, mixed"),
    ({"steps": 0}, "steps is 0"),
    ({"batch": 1.5}, "batch is 1.5"),
    ({"rate": 0.0}, "rate is 0.0: take a positive number"),
    ({"rate": math.nan}, "rate is nan"),
    ({"warmup": -1}, "warmup is -1"),
    ({"clip": 0.0}, "clip is 0.0"),
    ({"clip": -1.0}, "clip is -1.0"),
    ({"ema": 1.0}, "ema is 1.0: take a decay from 0 to below 1"),
    ({"ema": -0.1}, "ema is -0.1"),
    ({"batch": 16, "epoch": 15}, "epoch is 15: take at least the batch, 16 images"),
    ({"epoch": 0}, "epoch is 0"),
]


@pytest.mark.parametrize(("fields", "message"), BAD_RECIPES, ids=str)
def test_bad_recipes(fields, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**fields)


def test_a_recipe_survives_its_card_and_whole_floats():
    recipe = Recipe(noise=("log-normal", -1.0, 1.6), ema=0.9)
    assert Recipe(**json.loads(json.dumps(asdict(recipe)))) == recipe
    losses = run(
        train(Constant(0.0, 0.0), torch.zeros(2, 2), Recipe(steps=3.0, batch=4.0, loss="sum"))
    )
    assert len(losses) == 3


# The loss -----------------------------------------------------------------------------------------


def batches(loss: str, steps: int = 1, **fields):
    """sigma, squared errors per pixel and the loss of every step, of a network that hardly moves."""
    grid = 40.0 * torch.cartesian_prod(torch.arange(3.0), torch.arange(4.0))
    denoiser = Scaled(0.7)
    recipe = Recipe(
        **{"steps": steps, "batch": 32, "rate": 1e-12, "noise": ("log-uniform", 0.1, 5.0), **fields}
    )
    losses = run(train(denoiser, grid, replace(recipe, loss=loss)))
    rows = zip(denoiser.asked, asked_x(denoiser, 40.0), losses, strict=True)
    return [(s.double(), (0.7 * y - x).double().square().mean(1), v) for (y, s), x, v in rows]


FORMULAS = {
    "sum": lambda s, e: (2 * e).mean(),
    "edm": lambda s, e: ((0.25 + s**2) / (0.25 * s**2) * e).mean(),
    "log": lambda s, e: e.log().mean(),
}


@pytest.mark.parametrize("loss", FORMULAS)
def test_losses_are_their_formulas(loss):
    """For d = 2 pixels and s = 1/2."""
    [(sigma, e, value)] = batches(loss)
    assert len(sigma.unique()) == 32
    assert value == pytest.approx(float(FORMULAS[loss](sigma, e)), rel=1e-5)


def slow_table(rows) -> dict[int, float]:
    """Mean error by bin of sixteenths of a decade: after c errors of mean e, .95^c of the old and
    the rest e."""
    table: dict[int, float] = {}
    for sigma, e in rows:
        now: dict[int, list[float]] = {}
        for s, error in zip(sigma.tolist(), e.tolist(), strict=True):
            now.setdefault(round(16 * math.log10(s) + BINS / 2), []).append(error)
        for k, errors in now.items():
            old, mean, kept = table.get(k), sum(errors) / len(errors), 0.95 ** len(errors)
            table[k] = mean if old is None else kept * old + (1 - kept) * mean
    return table


def test_running_means_of_the_levels():
    means, rows = torch.full((BINS,), math.nan), []
    for step in range(30):
        sigma = Recipe(noise=("log-uniform", 0.01, 5.0)).levels(16, generator(step))
        e = 1 + noise(16, seed=step).square()
        training._level_means(means, sigma, e)
        rows.append((sigma, e))
    expected = slow_table(rows)
    assert (
        set(means.isfinite().nonzero().flatten().tolist()) == set(expected) and len(expected) > 30
    )
    torch.testing.assert_close(
        means[list(expected)], torch.tensor(list(expected.values())), rtol=1e-5, atol=0
    )


def test_the_level_loss_divides_by_the_mean_error_at_that_level():
    """The first time by that of the batch itself; with a single level every later loss is near 1,
    too."""
    [(sigma, e, value)] = batches("level")
    table = slow_table([(sigma, e)])
    levels = [table[round(16 * math.log10(s) + BINS / 2)] for s in sigma.tolist()]
    assert value == pytest.approx(float((e / torch.tensor(levels)).mean()), rel=1e-5)
    later = [value for *_, value in batches("level", 50, noise=("fixed", 0.5), batch=256)]
    assert (
        later[0] == pytest.approx(1) and all(0.7 < v < 1.4 for v in later) and len(set(later)) > 1
    )


@pytest.mark.parametrize("sigma", [1e-9, 1e9])
def test_levels_beyond_the_table_are_put_at_its_ends(sigma):
    means = torch.full((BINS,), math.nan)
    assert training._level_means(means, torch.tensor([sigma]), torch.tensor([2.0])).tolist() == [
        2.0
    ]
    assert means[0 if sigma < 1 else -1] == 2 and means.isfinite().sum() == 1


# their mean is (1/2, -1/2)
POINTS = torch.tensor([[1.0, -1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]])


@pytest.mark.theorem("thm-weights")
@pytest.mark.parametrize(
    ("loss", "batch", "steps"),
    [("sum", 64, 400), ("edm", 64, 400), ("level", 64, 400), ("sum", 1, 2000), ("level", 1, 2000)],
)
def test_the_best_single_guess_is_the_mean(loss, batch, steps):
    """Also where every error is alone in its batch: an error must not weigh less because it is
    large itself."""
    denoiser, path = Constant(0.1, -0.2), []
    for _ in train(
        denoiser, POINTS, Recipe(steps, batch, 1e-2, ("fixed", 1.0), loss, decay="none")
    ):
        path.append(denoiser.a.detach().clone())
    a = torch.stack(path[200:]).mean(0)
    torch.testing.assert_close(a, torch.tensor([0.5, -0.5]), rtol=0, atol=0.04)


@pytest.mark.theorem("prop-log-loss")
@pytest.mark.parametrize("start", [(0.1, -0.2), (-0.9, 0.7)])
def test_the_best_single_guess_by_the_log_is_a_point(start):
    denoiser = Constant(*start)
    run(train(denoiser, POINTS, Recipe(1000, 64, 1e-2, ("fixed", 1.0), "log")))
    nearest = torch.tensor([1.0, -1.0]) if start[0] > -0.5 else torch.tensor([-1.0, 1.0])
    assert (denoiser.a - nearest).norm() < 0.15 < (nearest - POINTS.mean(0)).norm() / 4


def test_an_image_met_exactly_has_no_gradient_and_no_infinity():
    for loss in ("log", "level"):
        denoiser = Constant(1.0, 1.0)
        losses = run(train(denoiser, torch.ones(1, 2), Recipe(5, 8, 0.1, ("fixed", 1.0), loss)))
        assert all(math.isfinite(v) for v in losses) and denoiser.a.tolist() == [1.0, 1.0]


# Rate, clipping, order ----------------------------------------------------------------------------


@pytest.fixture
def rates(monkeypatch) -> list[float]:
    """The rate of every step that Adam takes."""
    taken = []

    class Recorder(torch.optim.Adam):
        def step(self, *args):
            taken.append(self.param_groups[0]["lr"])
            return super().step(*args)

    monkeypatch.setattr(torch.optim, "Adam", Recorder)
    return taken


RATES = {
    ("cosine", 4, 0): [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2],
    ("halving", 20, 0): [2.0**-k for k in range(10) for _ in range(2)],
    ("halving", 7, 0): [1, 0.5, 0.25, 2**-4, 2**-5, 2**-7, 2**-8],  # after each tenth that is over
    ("none", 5, 4): [0.25, 0.5, 0.75, 1, 1],
    ("cosine", 4, 2): [0.5, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2],
}


@pytest.mark.parametrize("case", RATES, ids=str)
def test_decay_and_warmup(case, rates):
    decay, steps, warmup = case
    run(
        train(
            Constant(0.0, 0.0),
            POINTS,
            Recipe(steps, 2, 0.5, loss="sum", decay=decay, warmup=warmup),
        )
    )
    assert rates == pytest.approx([0.5 * factor for factor in RATES[case]])


def test_the_gradient_is_clipped_to_its_norm():
    norms = []
    for clip in (None, 0.1, 1e9):
        denoiser = MLP(8)
        steps = train(denoiser, 100 * POINTS, Recipe(1, 16, loss="sum", clip=clip))
        next(steps)
        norms.append(float(torch.cat([p.grad.flatten() for p in denoiser.parameters()]).norm()))
    assert (
        norms[0] > 1
        and norms[1] == pytest.approx(0.1, rel=1e-4)
        and norms[2] == pytest.approx(norms[0])
    )


def drawn(n: int, **fields) -> torch.Tensor:
    """Numbers of the training points of every batch, (steps, batch)."""
    denoiser = Constant(0.0)
    recipe = Recipe(**{"loss": "sum", "noise": ("fixed", 0.01), "rate": 1e-9, **fields})
    run(train(denoiser, torch.arange(float(n))[:, None], recipe))
    return torch.stack(asked_x(denoiser))[..., 0].long()


def test_without_epochs_points_are_drawn_independently():
    counts = drawn(10, steps=50, batch=40).flatten().bincount(minlength=10)
    assert stats.chisquare(counts).pvalue > 1e-3 and counts.unique().numel() > 1


@pytest.mark.parametrize(("n", "epoch", "batch"), [(6, 20, 6), (6, 6, 3), (5, 25, 25), (1, 4, 2)])
def test_in_an_epoch_each_image_comes_equally_often(n, epoch, batch):
    """epoch // n times each, in another order in every epoch."""
    images = epoch // n * n
    order = drawn(n, steps=3 * images // batch, batch=batch, epoch=epoch).view(3, images)
    assert all(part.bincount(minlength=n).tolist() == [epoch // n] * n for part in order)
    assert n == 1 or (order[0] != order[1]).any() and (order[1] != order[2]).any()
    assert torch.equal(
        order, drawn(n, steps=3 * images // batch, batch=batch, epoch=epoch).view(3, images)
    )


def test_the_last_batch_that_an_epoch_does_not_fill_is_left_out():
    """8 images in batches of 3: two batches of different images an epoch, then the next order."""
    for first, second in drawn(8, steps=8, batch=3, epoch=8).view(4, 2, 3):
        assert len({*first.tolist(), *second.tolist()}) == 6


def test_another_seed_is_another_order():
    assert not torch.equal(*(drawn(50, steps=2, batch=25, epoch=50, seed=s) for s in (0, 1)))


@pytest.mark.parametrize(("n", "epoch", "batch"), [(20, 10, 5), (10, 16, 16), (300, 512, 512)])
def test_an_epoch_holds_every_image_and_a_batch(n, epoch, batch):
    with pytest.raises(ValueError, match=f"epoch is {epoch}: take at least"):
        drawn(n, steps=2, batch=batch, epoch=epoch)


def test_half_of_the_images_are_mirrored_left_to_right():
    image, denoiser = torch.tensor([[[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]]), Constant(0.0)
    run(train(denoiser, image, Recipe(10, 400, 1e-9, ("fixed", 0.01), "sum", flip=True)))
    x = torch.cat(asked_x(denoiser))
    same, mirrored = ((x == want).flatten(1).all(1) for want in (image, image.flip(2)))
    assert (same ^ mirrored).all() and abs(int(mirrored.sum()) - 2000) < 5 * 1000**0.5


def test_compiled_networks_go_through_torch_compile(monkeypatch):
    results = []
    monkeypatch.setattr(
        torch, "compile", lambda network: lambda y, sigma: results.append(0) or network(y, sigma)
    )
    ends = [MLP(8), MLP(8)]
    for denoiser, compiled in zip(ends, (False, True), strict=True):
        run(train(denoiser, POINTS, Recipe(3, 8, compiled=compiled)))
    assert len(results) == 3 and equal(*map(state, ends))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_numbers_are_for_products_alone(dtype, monkeypatch):
    """Close to float32, but not the same; weights and Adam's moments stay float32."""
    monkeypatch.setattr(recipes, "native", lambda device: dtype)
    results = []
    for precision in ("float32", "mixed"):
        denoiser = MLP(16)
        results.append(
            (run(train(denoiser, POINTS, Recipe(20, 64, precision=precision))), state(denoiser))
        )
    assert (
        results[0][0] == pytest.approx(results[1][0], rel=0.05) and results[0][0] != results[1][0]
    )
    assert all(v.dtype == torch.float32 for v in results[1][1].values())


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 0), torch.float32),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((9, 0), torch.bfloat16),
    ],
)
def test_a_gpu_multiplies_in_what_its_generation_has(capability, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert devices.native(torch.device("cuda")) == dtype


@pytest.mark.parametrize(
    ("flag", "dtype"), [("avx512_bf16", torch.bfloat16), ("avx512_f", torch.float32)]
)
def test_a_cpu_without_instructions_for_bfloat16_is_not_made_to_emulate_it(
    flag, dtype, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {flag: True})
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    assert devices.native(torch.device("cpu")) == dtype
    # held to AVX2
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    assert (
        devices.native(torch.device("cpu")) == devices.native(torch.device("mps")) == torch.float32
    )


def test_gradients_that_float16_cannot_hold_are_not_lost(monkeypatch):
    """A loss of 1e-7 per weight: unscaled, the gradients are 0 in float16 and nothing is learned."""
    monkeypatch.setattr(recipes, "native", lambda device: torch.float16)
    small = nn.Linear(4, 1, bias=False)
    start = small.weight.detach().clone()

    def loss(step: int, g: torch.Generator) -> torch.Tensor:
        return 1e-8 * small(torch.ones(8, 4)).float().square().mean()

    run(fit(small, loss, Recipe(5, 8, precision="mixed", decay="none"), torch.ones(8, 4)))
    assert (small.weight - start).abs().min() > 1e-4


# The average of the weights -----------------------------------------------------------------------


def batch_normalised() -> UNet:
    return UNet(1, channels=3, normalisation="batch", bias=True)


IMAGES = torch.rand(12, 8, 8, generator=generator())
ORDINARY = Recipe(12, 4, 1e-2, ("log-uniform", 0.05, 1.0), "sum")


def test_the_average_is_its_recursion_over_the_trajectory():
    """w_bar moves by 1 - d to w, d = min(ema, t / (t + 9)); running statistics are taken as they
    are."""
    denoiser = batch_normalised()
    mean = {k: v.double() for k, v in denoiser.named_parameters()}
    for p in train(denoiser, IMAGES, replace(ORDINARY, ema=0.5)):
        d = min(0.5, p.step / (p.step + 9))
        mean = {k: d * mean[k] + (1 - d) * v.double() for k, v in denoiser.named_parameters()}
        for k, v in p.denoiser.named_parameters():
            torch.testing.assert_close(v.double(), mean[k], rtol=1e-5, atol=1e-6)
        assert equal(dict(p.denoiser.named_buffers()), dict(denoiser.named_buffers()))
        assert any(
            (v.double() - mean[k]).abs().max() > 1e-4 for k, v in denoiser.named_parameters()
        )
    assert p.denoiser is not denoiser and equal(state(p.denoiser), state(denoiser))


@pytest.mark.parametrize("ema", [None, 0.9])
def test_what_is_handed_out_is_in_evaluation_mode(ema):
    denoiser = batch_normalised()
    for p in train(denoiser, IMAGES, replace(ORDINARY, ema=ema)):
        assert not p.denoiser.training
    assert not denoiser.training and not any(m.training for m in denoiser.modules())


@pytest.mark.parametrize("ema", [None, 0.9])
@pytest.mark.parametrize("normalisation", ["batch", "bias-free"])
def test_looking_does_not_change_the_training(ema, normalisation):
    ends = []
    for look in (False, True):
        denoiser = UNet(1, channels=3, normalisation=normalisation)
        for p in train(denoiser, IMAGES, replace(ORDINARY, ema=ema)):
            if look:
                p.denoiser(noise(5, 8, 8), 0.3)
        ends.append(state(denoiser))
    assert equal(*ends)


def test_normalised_networks_train_on_their_batches():
    """The running statistics have moved to those of the images, and away from where they began."""
    denoiser = UNet(1, channels=3)
    before = state(denoiser)
    run(train(denoiser, IMAGES, ORDINARY))
    moved = [
        k
        for k, v in denoiser.state_dict().items()
        if "running_sd" in k and not torch.equal(v, before[k])
    ]
    assert len(moved) == 4


# Going on after an interruption -------------------------------------------------------------------

SCALER = torch.amp.GradScaler.__init__
CONTINUED = {
    "plain": (lambda: MLP(8), noise(20, 2), Recipe(9, 8)),
    "all of it": (
        lambda: UNet(1, channels=4),
        IMAGES,
        Recipe(
            9, 4, 1e-2, ("log-uniform", 0.05, 1.0), "level", warmup=3, clip=1.0, ema=0.9, epoch=13, flip=True,
            precision="mixed",
        ),
    ),
    "batch normalisation": (batch_normalised, IMAGES, replace(ORDINARY, steps=9, loss="log", decay="halving")),
    "wide": (lambda: UNet(2, channels=8, blind=False, bias=True), IMAGES, replace(ORDINARY, steps=9, loss="edm")),
}  # fmt: skip


@pytest.mark.parametrize(("make", "points", "recipe"), CONTINUED.values(), ids=CONTINUED)
@pytest.mark.parametrize("stop", [1, 5])
def test_an_interrupted_training_goes_on_with_the_same_numbers(
    make, points, recipe, stop, tmp_path, monkeypatch
):
    # where the recipe has short numbers, the shortest, with a scale of the loss that overflows at
    # first and falls
    monkeypatch.setattr(recipes, "native", lambda device: torch.float16)
    monkeypatch.setattr(
        torch.amp.GradScaler, "__init__", functools.partialmethod(SCALER, init_scale=2.0**18)
    )
    whole, path = make(), tmp_path / "new" / "state.safetensors"
    expected = [(p.step, p.loss) for p in train(whole, points, recipe)]
    first = list(itertools.islice(train(make(), points, recipe, path, 0.0), stop))
    denoiser = make()
    goes_on = train(denoiser, points, recipe, path, math.inf)
    rest = [next(goes_on)]
    reached = {k: v.clone() for k, v in state(rest[0].denoiser).items()}
    rest += goes_on
    assert [(p.step, p.loss) for p in first[:-1] + rest] == expected and rest[0].step == stop
    assert equal(state(first[-1].denoiser), reached)
    assert equal(state(denoiser), state(whole))
    assert [p.name for p in path.parent.iterdir()] == ["state.safetensors"]


def test_a_finished_checkpoint_yields_once_and_delivers_the_weights(tmp_path):
    make, points, recipe = CONTINUED["all of it"]
    whole, again, path = make(), make(), str(tmp_path / "state.safetensors")
    last = list(train(whole, points, recipe, path))[-1]
    (p,) = train(again, points, recipe, path)
    assert (p.step, p.loss, p.seconds, p.remaining) == (9, last.loss, last.seconds, 0.0)
    assert equal(state(again), state(whole)) and not again.training and not p.denoiser.training


def test_the_seed_decides():
    ends = []
    for seed in (3, 3, 4):
        denoiser = MLP(8)
        run(train(denoiser, noise(20, 2), Recipe(5, 8, seed=seed)))
        ends.append(state(denoiser))
    assert equal(ends[0], ends[1]) and not equal(ends[0], ends[2])


def test_the_global_generator_stays():
    before = torch.get_rng_state()
    run(train(MLP(8), noise(20, 2), Recipe(3, 8, flip=True, epoch=20, ema=0.9)))
    assert torch.equal(before, torch.get_rng_state())


KILLED = """
import sys, torch
from helpers.denoisers import UNet
from helpers.training import Recipe, train
torch.set_num_threads(int(sys.argv[2]))
images = torch.rand(12, 8, 8, generator=torch.Generator().manual_seed(0))
recipe = Recipe(4000, 4, 1e-3, ("log-uniform", 0.05, 1.0), "level", ema=0.9)
for p in train(UNet(1, channels=4), images, recipe, sys.argv[1], 0.0):
    print(p.step, flush=True)
"""


def test_a_killed_process_leaves_a_whole_checkpoint(tmp_path):
    """kill -9 in the middle; the rest of 40 steps, here, equals a training that was left alone."""
    path, script = tmp_path / "state.safetensors", tmp_path / "script.py"
    script.write_text(KILLED)
    command = [sys.executable, str(script), str(path), str(torch.get_num_threads())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.stdout.readline().strip() not in ("20", ""):
            pass
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    recipe = Recipe(4000, 4, 1e-3, ("log-uniform", 0.05, 1.0), "level", ema=0.9)
    again, whole = UNet(1, channels=4), UNet(1, channels=4)
    first = next(train(again, IMAGES, recipe, path))
    assert 20 <= first.step < 3000
    for p in itertools.islice(train(whole, IMAGES, recipe), first.step):
        last = p
    assert last.loss == first.loss and equal(state(again), state(whole))
    assert equal(state(last.denoiser), state(first.denoiser))


def test_a_kill_while_a_checkpoint_is_written_leaves_the_last(tmp_path, monkeypatch):
    replaced, count, path = os.replace, itertools.count(1), tmp_path / "state.safetensors"

    def killed(*names):
        if next(count) == 4:
            raise KeyboardInterrupt
        replaced(*names)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", killed)
        run(train(MLP(8), POINTS, Recipe(6, 8), path, 0.0))
    denoiser, whole = MLP(8), MLP(8)
    assert next(p.step for p in train(denoiser, POINTS, Recipe(6, 8), path)) == 3
    run(train(denoiser, POINTS, Recipe(6, 8), path))
    run(train(whole, POINTS, Recipe(6, 8)))
    assert equal(state(denoiser), state(whole))


@pytest.fixture
def interrupted(tmp_path):
    """A checkpoint after two of five steps."""
    path = tmp_path / "state.safetensors"
    list(itertools.islice(train(MLP(8), POINTS, Recipe(5, 8), path, 0.0), 2))
    return path


OTHERS = {
    "recipe": (lambda: MLP(8), POINTS, Recipe(5, 8, seed=1)),
    "law": (lambda: MLP(8), POINTS, Recipe(5, 8, noise=("fixed", 1.0))),
    "width": (lambda: MLP(9), POINTS, Recipe(5, 8)),
    "activation": (lambda: MLP(8, activation="tanh"), POINTS, Recipe(5, 8)),
    "scale": (lambda: MLP(8, data_std=0.5), POINTS, Recipe(5, 8)),
    "class": (lambda: Constant(0.0, 0.0), POINTS, Recipe(5, 8)),
    "points": (lambda: MLP(8), POINTS + 1, Recipe(5, 8)),
    "order": (lambda: MLP(8), POINTS.flip(0), Recipe(5, 8)),
    "number": (lambda: MLP(8), torch.cat([POINTS, 0 * POINTS]), Recipe(5, 8)),
}


@pytest.mark.parametrize(("make", "points", "recipe"), OTHERS.values(), ids=OTHERS)
def test_a_checkpoint_of_another_training_is_refused(make, points, recipe, interrupted):
    with pytest.raises(
        ValueError,
        match=r"state\.safetensors is of another network, recipe or training set: remove",
    ):
        next(train(make(), points, recipe, interrupted))


def test_a_checkpoint_does_not_mind_how_a_network_prints(tmp_path, monkeypatch):
    """Its arguments say what it is; the code may name its parts otherwise while a training waits."""
    path = tmp_path / "state.safetensors"
    next(train(UNet(1, channels=2), IMAGES, ORDINARY, path, 0.0))
    monkeypatch.setattr(UNet, "__repr__", lambda self: "a UNet", raising=False)
    assert next(train(UNet(1, channels=2), IMAGES, ORDINARY, path)).step == 1
    with pytest.raises(ValueError, match="is of another network"):
        next(train(UNet(1, channels=2, padding="circular"), IMAGES, ORDINARY, path))


@pytest.mark.parametrize("damage", ["cut", "shorter", "empty", "text", "folder", "foreign"])
def test_a_damaged_checkpoint_is_named(damage, interrupted):
    whole = interrupted.read_bytes()
    interrupted.write_bytes(
        {"cut": whole[:-5], "shorter": whole[:100], "text": b"{}"}.get(damage, b"")
    )
    if damage == "folder":
        interrupted.unlink()
        interrupted.mkdir()
    if damage == "foreign":
        save_file({"x": torch.zeros(2)}, interrupted)
    message = (
        r"state\.safetensors is (damaged: remove it to train from the start|of another network)"
    )
    with pytest.raises(ValueError, match=message):
        next(train(MLP(8), POINTS, Recipe(5, 8), interrupted))


@pytest.mark.parametrize(
    ("denoiser", "points", "recipe", "message"),
    [
        (UNet(1, channels=2), noise(4, 2), ORDINARY, r"y has shape \(4, 2\): this network takes"),
        (
            UNet(2, channels=2),
            noise(4, 8, 6),
            ORDINARY,
            "width is 6: 2 poolings need a multiple of 4",
        ),
        (
            MLP(4, dimension=3),
            noise(4, 2),
            ORDINARY,
            r"points have shape \(4, 2\): for this denoiser pass \(N, 3\)",
        ),
        (
            CNN(2, 2),
            IMAGES,
            Recipe(2, 4),
            "loss is 'edm', and CNN has no data_std: take 'log' or 'sum'",
        ),
        (
            MLP(4),
            POINTS,
            Recipe(50, 8, 1e30),
            "the loss is (nan|inf): lower the learning rate or check",
        ),
        (PosteriorMean(POINTS), POINTS, ORDINARY, "PosteriorMean has no parameters"),
    ],
    ids=str,
)
def test_what_cannot_be_trained(denoiser, points, recipe, message):
    with pytest.raises(ValueError, match=message):
        run(train(denoiser, points, recipe))


# What is reported ---------------------------------------------------------------------------------


def test_progress_counts_time_over_interruptions(tmp_path, monkeypatch):
    """Seconds go on after a break; the speed is that of this run, here four times faster; what
    remains falls to 0."""
    now, tick = [0.0], [1.0]

    def clock():
        now[0] += tick[0]
        return now[0]

    monkeypatch.setattr(training.time, "perf_counter", clock)
    recipe, path = Recipe(10, 8), tmp_path / "state.safetensors"
    first = list(itertools.islice(train(MLP(4), POINTS, recipe, path, 0.0), 4))
    tick[0] = 0.25
    reached, *rest = train(MLP(4), POINTS, recipe, path)
    assert (reached.step, reached.seconds) == (4, first[-1].seconds) and math.isnan(
        reached.remaining
    )
    steps = first + rest
    assert [p.step for p in steps] == list(range(1, 11))
    assert (
        all(a.seconds < b.seconds for a, b in itertools.pairwise(steps))
        and steps[4].seconds < 2 + first[-1].seconds
    )
    assert all(0 < p.images_per_second <= 8 for p in first)
    assert all(2 * first[-1].images_per_second < p.images_per_second <= 32 for p in steps[4:])
    assert (
        all(p.remaining == (10 - p.step) * 8 / p.images_per_second for p in steps)
        and steps[-1].remaining == 0
    )


def test_time_spent_by_the_caller_is_not_training(monkeypatch):
    now = [0.0]

    def clock():
        now[0] += 1e-3
        return now[0]

    monkeypatch.setattr(training.time, "perf_counter", clock)
    for p in train(MLP(4), POINTS, Recipe(5, 8)):
        now[0] += 1000  # a reader who looks at a figure
        assert p.seconds < 1 and p.images_per_second > 8


def test_losses_of_levels_are_means_over_them():
    """Every level learns alone: the constant part of a network with one level and of the same with
    two agree."""
    sigmas, recipe = torch.tensor([2.0, 0.5]), Recipe(1, 16, 1e-12)
    denoiser = PerLevelMLP(sigmas, width=4)
    [p] = train_levels(denoiser, noise(30, 2), recipe)
    g = generator()
    x = noise(30, 2)[torch.randint(30, (2, 16), generator=g)]
    y = x + sigmas[:, None, None] * torch.randn(x.shape, generator=g)
    with torch.no_grad():
        e = [(denoiser(y[i], float(sigmas[i])) - x[i]).square().mean() for i in range(2)]
    assert p.loss == pytest.approx(float(sum(e) / 2), rel=1e-5) and p.denoiser is denoiser


def test_the_batches_of_a_network_for_each_level_hold_one_level():
    levels = [0.1, 0.7, 5.0]
    recipe, g = Recipe(batch=4, noise=("levels", *levels)), generator()
    drawn = torch.stack([recipe.levels(4, g) for _ in range(3000)])
    assert bool((drawn == drawn[:, :1]).all())
    for level in levels:
        assert float((drawn[:, 0] == level).double().mean()) == pytest.approx(1 / 3, abs=0.04)
    for wrong in (("levels",), ("levels", 1.0, -1.0), ("levels", 0.0), ("levels", 1.0, math.inf)):
        with pytest.raises(ValueError, match="noise is"):
            Recipe(noise=wrong)


def test_a_level_of_a_network_for_each_trains_as_it_would_alone():
    """The networks share nothing: where one level is drawn, the others stay as they are."""
    net = PerLevel([0.1, 1.0], blocks=1, channels=2, normalisation="batch", blind=False)
    before = [state(network) for network in net.networks]
    run(train(net, IMAGES, Recipe(3, 4, 1e-2, ("levels", 1.0), "edm")))
    assert equal(state(net.networks[0]), before[0]) and not equal(state(net.networks[1]), before[1])
    y = noise(2, 8, 8)
    assert torch.equal(net(y, 0.9), net.networks[1](y, 1.0)) and torch.equal(
        net(y, 0.2), net.networks[0](y, 0.1)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), r"levels is \[\]: pass one or more"),
        (([0.1, 1.0, 0.1],), "each once"),
        (([1.0, -2.0],), "a level is -2.0"),
        (([1.0], "Transformer"), "network is 'Transformer': choose one of .*UNet"),
    ],
)
def test_a_network_for_each_level_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        PerLevel(*arguments)
