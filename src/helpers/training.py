"""Training, one loop for all networks: a generator, so that the caller records, draws and stops."""

import copy
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from .checks import checked_points, positive_int
from .denoisers import Denoiser, PerLevelMLP
from .files import write_atomically

NOISE: dict[str, Callable[..., Tensor]] = {  # law of sigma: a batch of uniform and of normal numbers, parameters
    "log-uniform": lambda u, n, low, high: low * (high / low) ** u,
    "uniform": lambda u, n, low, high: low + (high - low) * u,
    "quadratic": lambda u, n, high: high * u**2,
    "log-normal": lambda u, n, mean, std: torch.exp(mean + std * n),
    "fixed": lambda u, n, sigma: torch.full_like(u, sigma),
}
LOSSES = ("edm", "sum", "log", "level")
BINS = 128  # of the noise level, 16 to a decade, in which "level" keeps mean errors
DECAYS: dict[str, Callable[[float], float]] = {  # of the rate, over the share of steps done
    "cosine": lambda done: (1 + math.cos(math.pi * done)) / 2,
    "halving": lambda done: 0.5 ** math.floor(10 * done),
    "none": lambda done: 1.0,
}


@dataclass(frozen=True)
class Recipe:
    r"""How to train; every field is stored with the weights.

    noise: law of the noise level and its parameters, in units of the data: ("log-uniform", low, high);
        ("uniform", low, high); ("quadratic", high), sigma = high u^2 with u uniform, as in the released code of
        Kadkhodaie et al. 2024; ("log-normal", mean, std) of log sigma, as in EDM; ("fixed", sigma), one network for one
        level, as in Levine & Weiss 2026.
    loss, with e = || D(x + sigma n, sigma) - x ||^2 and d pixels, a mean over the batch:
        "sum" e (Kadkhodaie et al.; large noise rules); "edm" (s^2 + sigma^2) / (s sigma)^2 e / d with s the denoiser's
        data_std (Karras et al. 2022); "log" log(e / d); "level" e / m(sigma), with m the running mean of e at that
        level: so every level counts alike, whatever the network can reach there, and as with "sum" and "edm" the
        posterior mean is the best denoiser (the weight of Karras et al. 2024, EDM2, from a table). It is not the
        best for "log", which rewards an exact guess of one of several possible images above all.
    rate: of Adam, after `warmup` steps of linear growth; decay: "cosine" to zero, "halving" after each tenth of the
        steps (Kadkhodaie et al.), or "none".
    clip: the largest norm of the gradient. ema: decay of the running average of the weights, which is what is
        delivered. epoch: images per epoch, in which each of the N images comes floor(epoch / N) times in random order;
        None draws them independently. flip: mirrors half of the images. precision: "float32", or "bfloat16" for the
        network's products. compiled: by torch.compile.
    """

    steps: int = 3000
    batch: int = 512
    rate: float = 2e-3
    noise: tuple = ("log-uniform", 0.01, 20.0)
    loss: str = "edm"
    decay: str = "cosine"
    warmup: int = 0
    clip: float | None = None
    ema: float | None = None
    epoch: int | None = None
    flip: bool = False
    precision: str = "float32"
    compiled: bool = False
    seed: int = 0

    def __post_init__(self):
        for name in ("steps", "batch"):
            positive_int(name, getattr(self, name))
        for name, choices in (
            ("loss", LOSSES),
            ("decay", tuple(DECAYS)),
            ("precision", ("float32", "bfloat16")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is {getattr(self, name)!r}: choose one of {', '.join(choices)}")
        if not self.rate > 0:
            raise ValueError(f"rate is {self.rate}: take a positive number")
        if self.ema is not None and not 0 <= self.ema < 1:
            raise ValueError(f"ema is {self.ema}: take a decay from 0 to below 1, or None")
        if self.epoch is not None and self.epoch < self.batch:
            raise ValueError(f"epoch is {self.epoch}: take at least the batch, {self.batch} images")
        object.__setattr__(self, "noise", tuple(self.noise))
        try:
            sigma = NOISE[self.noise[0]](torch.tensor([0.25, 0.75]), torch.tensor([-1.0, 1.0]), *self.noise[1:])
            good = bool((sigma.isfinite() & (sigma > 0)).all()) and bool(sigma[1] >= sigma[0])
        except (KeyError, IndexError, TypeError, ZeroDivisionError):
            good = False
        if not good:
            raise ValueError(
                f"noise is {self.noise}: take a law with its parameters, as ('log-uniform', 0.01, 20.0), with positive "
                f"levels, the lower first; the laws are {', '.join(NOISE)}"
            )

    def levels(self, batch: int, g: torch.Generator) -> Tensor:
        """`batch` noise levels drawn from the law, (batch,) float32 on the generator's device."""
        name, *parameters = self.noise
        draw = torch.randn if name == "log-normal" else torch.rand
        z = draw(batch, generator=g, device=g.device)
        return NOISE[name](z, z, *parameters)


class Progress(NamedTuple):
    """After a step: its number from 1, the loss of its batch (on a GPU of the last one looked at), and the time."""

    step: int
    loss: float
    seconds: float  # of training so far, over all interrupted runs
    images_per_second: float  # of this run
    remaining: float  # seconds, at that speed
    denoiser: Denoiser  # the running average where the recipe has one: what would be delivered now


def train(
    denoiser: Denoiser,
    points: Tensor,
    recipe: Recipe | None = None,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> Iterator[Progress]:
    """Denoising score matching in place, on the denoiser's device: y = x + sigma n, n normal, sigma from recipe.noise.

    points (N, *event), the training set, moved to the device once. At the end the denoiser is in evaluation mode and
    has the averaged weights. checkpoint: a file written whole every `checkpoint_seconds` and at the end; from one that
    exists training goes on with the very numbers of an uninterrupted run on the same machine.

    Raises ValueError for points that the denoiser does not take, for a loss that is not finite, and for a checkpoint
    that is damaged or belongs to another network, recipe or training set.
    """
    recipe = recipe or Recipe()
    points = _points(points, denoiser)
    device = next(denoiser.parameters()).device
    points, g = points.to(device), torch.Generator(device).manual_seed(recipe.seed)
    rank, means = [1] * (points.ndim - 1), torch.full((BINS,), math.nan, device=device)
    network = torch.compile(denoiser) if recipe.compiled else denoiser
    if recipe.loss == "edm" and not hasattr(denoiser, "data_std"):
        raise ValueError(f"loss is 'edm', and {type(denoiser).__name__} has no data_std: take 'log' or 'sum'")
    if recipe.epoch is not None and recipe.epoch < len(points):
        raise ValueError(f"epoch is {recipe.epoch}: take at least the {len(points)} training points")

    def objective(step: int) -> Tensor:
        x = points[_indices(step, len(points), recipe, g)]
        if recipe.flip:
            mirrored = torch.rand(len(x), generator=g, device=device) < 0.5
            x = torch.where(mirrored.view(-1, *rank), x.flip(-1), x)
        sigma = recipe.levels(len(x), g)
        y = x + sigma.view(-1, *rank) * torch.randn(x.shape, generator=g, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            x_hat = network(y, sigma)
        e = (x_hat.float() - x).square().flatten(1)
        if recipe.loss == "sum":
            return e.sum(1).mean()
        if recipe.loss == "log":
            return e.mean(1).clamp(min=1e-12).log().mean()  # of an image met exactly: no gradient, no infinity
        if recipe.loss == "level":
            return (e.mean(1) / _level_means(means, sigma, e.detach().mean(1))).mean()
        s = denoiser.data_std
        return ((s**2 + sigma**2) / (s * sigma) ** 2 * e.mean(1)).mean()

    path = Path(checkpoint) if checkpoint else None
    yield from _loop(denoiser, objective, recipe, points, means, g, path, checkpoint_seconds)


def train_levels(denoiser: PerLevelMLP, points: Tensor, recipe: Recipe | None = None) -> Iterator[Progress]:
    """All levels of a PerLevelMLP at once, `recipe.batch` points for each, by E||D - x||^2 per level.

    The levels are those of the denoiser; of the recipe, noise, loss and precision are not used.
    """
    recipe = recipe or Recipe(batch=256, rate=3e-3)
    points = _points(points, denoiser)
    g, levels = torch.Generator().manual_seed(recipe.seed), len(denoiser.sigmas)

    def objective(step: int) -> Tensor:
        x = points[torch.randint(len(points), (levels, recipe.batch), generator=g)]
        y = x + denoiser.sigmas[:, None, None] * torch.randn(x.shape, generator=g)
        # levels do not share weights: a sum keeps them apart
        return (denoiser.levels(y) - x).square().mean((1, 2)).sum()

    for p in _loop(denoiser, objective, recipe, points, torch.empty(0), g, None, math.inf):
        yield p._replace(loss=p.loss / levels)


def run(steps: Iterator[Progress]) -> list[float]:
    """Train to the end; the losses."""
    return [p.loss for p in steps]


def _loop(
    denoiser: Denoiser,
    objective: Callable[[int], Tensor],
    recipe: Recipe,
    points: Tensor,
    means: Tensor,
    g: torch.Generator,
    checkpoint: Path | None,
    checkpoint_seconds: float,
) -> Iterator[Progress]:
    denoiser.train()
    if any(isinstance(module, nn.Conv2d) for module in denoiser.modules()):
        denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    average = copy.deepcopy(denoiser).eval() if recipe.ema is not None else denoiser
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=recipe.rate, fused=g.device.type == "cuda")
    state = _State(denoiser, average, optimiser, g, means, recipe, points)
    step, loss, seconds = state.read(checkpoint) if checkpoint and checkpoint.exists() else (0, math.nan, 0.0)
    first, before, saved = step, seconds, time.perf_counter()
    clock = saved - seconds
    if step == recipe.steps:
        yield Progress(step, loss, seconds, math.nan, 0.0, average)
    for step in range(first + 1, recipe.steps + 1):
        warm = min(1.0, step / recipe.warmup) if recipe.warmup else 1.0
        optimiser.param_groups[0]["lr"] = recipe.rate * warm * DECAYS[recipe.decay]((step - 1) / recipe.steps)
        value = objective(step)
        if g.device.type == "cpu" or step % 20 == 0:  # looking at a number makes a GPU wait
            loss = value.item()
            if not math.isfinite(loss):
                raise ValueError(f"the loss is {loss}: lower the learning rate or check the training points")
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(denoiser.parameters(), recipe.clip)
        optimiser.step()
        if recipe.ema is not None:
            _average(average, denoiser, min(recipe.ema, step / (step + 9)))
        seconds = time.perf_counter() - clock
        if checkpoint and (step == recipe.steps or time.perf_counter() - saved > checkpoint_seconds):
            state.write(checkpoint, step, loss, seconds)
            saved = time.perf_counter()
        speed = (step - first) * recipe.batch / (seconds - before)
        yield Progress(step, loss, seconds, speed, (recipe.steps - step) * recipe.batch / speed, average)
    if average is not denoiser:
        denoiser.load_state_dict(average.state_dict())
    denoiser.eval()


def _points(points: Tensor, denoiser: Denoiser) -> Tensor:
    points, event = checked_points(points).float(), denoiser.event_shape
    if event is not None and tuple(points.shape[1:]) != event:
        raise ValueError(
            f"points have shape {tuple(points.shape)}: for this denoiser pass (N, {', '.join(map(str, event))})"
        )
    return points


def _indices(step: int, n: int, recipe: Recipe, g: torch.Generator) -> Tensor:
    if recipe.epoch is None:
        return torch.randint(n, (recipe.batch,), generator=g, device=g.device)
    images = recipe.epoch // n * n
    epoch, place = divmod(step - 1, images // recipe.batch)
    order = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    chosen = torch.randperm(images, generator=order)[place * recipe.batch :][: recipe.batch] % n
    return chosen.to(g.device)


def _level_means(means: Tensor, sigma: Tensor, errors: Tensor) -> Tensor:
    """The running mean error at each sigma (batch,), into which these errors enter with weight 1/20 each.

    Returned is the mean without them, which does not depend on the images it weighs; at a new level their own.
    """
    bins = (16 * sigma.log10() + BINS / 2).round().long().clamp(0, BINS - 1)
    counts = torch.bincount(bins, minlength=BINS)
    now = torch.zeros_like(means).index_add_(0, bins, errors) / counts
    before = torch.where(means.isnan(), now, means)
    means.copy_(torch.where(counts > 0, now + 0.95**counts * (before - now), means))
    return before[bins].clamp(min=1e-12)


@torch.no_grad()
def _average(average: Denoiser, denoiser: Denoiser, decay: float) -> None:
    torch._foreach_lerp_(list(average.parameters()), list(denoiser.parameters()), 1 - decay)
    for mean, buffer in zip(average.buffers(), denoiser.buffers(), strict=True):
        mean.copy_(buffer)  # of normalisations: running averages themselves


class _State(NamedTuple):
    """All that the next step depends on, as one file of named tensors."""

    denoiser: Denoiser
    average: Denoiser
    optimiser: torch.optim.Optimizer
    g: torch.Generator
    means: Tensor
    recipe: Recipe
    points: Tensor

    def card(self) -> str:
        network = {"class": type(self.denoiser).__name__, **getattr(self.denoiser, "arguments", {})}
        data = [list(self.points.shape), float(self.points.double().sum())]
        return json.dumps([network, asdict(self.recipe), data])

    def write(self, path: Path, step: int, loss: float, seconds: float) -> None:
        tensors = {f"denoiser/{k}": v for k, v in self.denoiser.state_dict().items()}
        if self.average is not self.denoiser:
            tensors |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam/{i}/{k}": v for k, v in moments.items()}
        tensors |= {"generator": self.g.get_state(), "means": self.means}
        about = {"card": self.card(), "step": str(step), "loss": repr(loss), "seconds": repr(seconds)}
        write_atomically(path, tensor_bytes({k: v.contiguous() for k, v in tensors.items()}, about))

    def read(self, path: Path) -> tuple[int, float, float]:
        try:
            with safe_open(path, "pt") as file:
                about, tensors = file.metadata() or {}, {k: file.get_tensor(k) for k in file.keys()}
        except (OSError, SafetensorError):
            raise ValueError(f"{path} is damaged: remove it to train from the start") from None
        if about.get("card") != self.card():
            raise ValueError(f"{path} is of another network, recipe or training set: remove it or name another file")

        def part(name: str) -> dict[str, Any]:
            return {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}

        self.denoiser.load_state_dict(part("denoiser/"))
        if self.average is not self.denoiser:
            self.average.load_state_dict(part("average/"))
        moments = {i: part(f"adam/{i}/") for i in range(len(list(self.denoiser.parameters()))) if part(f"adam/{i}/")}
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.g.set_state(tensors["generator"])
        self.means.copy_(tensors["means"])
        return int(about["step"]), float(about["loss"]), float(about["seconds"])
