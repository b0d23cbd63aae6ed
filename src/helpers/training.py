"""Training, one loop for all networks: a generator, so that the caller records, draws and stops."""

import copy
import functools
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .checkpoint import State
from .checks import checked_points
from .denoisers import Denoiser, PerLevelMLP
from .recipe import DECAYS, SNR, Recipe

BINS = 128  # of the noise level, 16 to a decade, in which "level" keeps mean errors


class Progress(NamedTuple):
    """After a step: its number from 1, the loss of its batch (on a GPU of the last one looked at),
    and the time."""

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
    penalty: Callable[[Callable, Tensor, Tensor, Tensor], Tensor] | None = None,
) -> Iterator[Progress]:
    """Denoising score matching in place, on the denoiser's device: y = x + sigma n, n normal, sigma
    from recipe.noise.

    points (N, *event), the training set, moved to the device once. At the end the denoiser is in
    evaluation mode and has the averaged weights. checkpoint: a file written whole every
    `checkpoint_seconds` and at the end; from one that exists training goes on, first with the step
    that it reached, on a CPU with the very numbers of an uninterrupted run on the same machine.
    penalty: added to the loss, a scalar of (denoiser, y, sigma, x_hat), as a
    `helpers.systems.bastek.physics.VirtualObservation`.

    Raises ValueError for points that the denoiser does not take, for a loss that is not finite, and
    for a checkpoint that is damaged or belongs to another network, recipe or training set.

    >>> from helpers.denoisers import MLP
    >>> [now.step for now in train(MLP(8), torch.randn(50, 2), Recipe(steps=3, batch=10))]
    [1, 2, 3]
    """
    recipe = recipe or Recipe()
    points = _points(points, denoiser)
    parameter = next(denoiser.parameters(), None)
    if parameter is None:
        raise ValueError(f"{type(denoiser).__name__} has no parameters: there is nothing to train")
    device = parameter.device
    points, g = points.to(device), torch.Generator(device).manual_seed(recipe.seed)
    rank, means = [1] * (points.ndim - 1), torch.full((BINS,), math.nan, device=device)
    network = torch.compile(denoiser) if recipe.compiled else denoiser
    if recipe.loss == "edm" and not hasattr(denoiser, "data_std"):
        raise ValueError(
            f"loss is 'edm', and {type(denoiser).__name__} has no data_std: take 'log' or 'sum'"
        )
    least = -(-recipe.batch // len(points)) * len(points)
    if recipe.epoch is not None and recipe.epoch < least:
        raise ValueError(
            f"epoch is {recipe.epoch}: take at least {least}, all points as often as fills a batch"
        )

    def objective(step: int) -> Tensor:
        x = points[_indices(step, len(points), recipe, g)]
        if recipe.flip:
            mirrored = torch.rand(len(x), generator=g, device=device) < 0.5
            x = torch.where(mirrored.view(-1, *rank), x.flip(-1), x)
        sigma = recipe.levels(len(x), g)
        y = x + sigma.view(-1, *rank) * torch.randn(x.shape, generator=g, device=device)
        with recipe.autocast(device):
            x_hat = network(y, sigma)
        e = (x_hat.float() - x).square().flatten(1)
        loss = matching(e, sigma)
        return loss if penalty is None else loss + penalty(network, y, sigma, x_hat.float())

    def matching(e: Tensor, sigma: Tensor) -> Tensor:
        if recipe.loss == "sum":
            return e.sum(1).mean()
        if recipe.loss == "log":
            # of an image met exactly: no gradient, no infinity
            return e.mean(1).clamp(min=1e-12).log().mean()
        if recipe.loss in SNR:
            return (e.mean(1) * (sigma**-2).clamp(max=SNR[recipe.loss])).mean()
        if recipe.loss == "level":
            return (e.mean(1) / _level_means(means, sigma, e.detach().mean(1))).mean()
        s = denoiser.data_std
        return ((s**2 + sigma**2) / (s * sigma) ** 2 * e.mean(1)).mean()

    path = Path(checkpoint) if checkpoint else None
    yield from _loop(denoiser, objective, recipe, points, means, g, path, checkpoint_seconds)


def train_levels(
    denoiser: PerLevelMLP, points: Tensor, recipe: Recipe | None = None
) -> Iterator[Progress]:
    """All levels of a PerLevelMLP at once, `recipe.batch` points for each, by E||D - x||^2 per
    level.

    The levels are those of the denoiser; of the recipe, noise and loss are not used."""
    recipe, sigmas = recipe or Recipe(batch=256, rate=3e-3), denoiser.sigmas
    points = _points(points, denoiser).to(sigmas.device)

    def loss(step: int, g: torch.Generator) -> Tensor:
        rows = torch.randint(len(points), (len(sigmas), recipe.batch), generator=g, device=g.device)
        x = points[rows]
        y = x + sigmas[:, None, None] * torch.randn(x.shape, generator=g, device=g.device)
        # levels do not share weights: a sum keeps them apart
        return (denoiser.levels(y) - x).square().mean((1, 2)).sum()

    for p in fit(denoiser, loss, recipe, points):
        yield p._replace(loss=p.loss / len(sigmas))


def fit(
    module: nn.Module,
    loss: Callable[[int, torch.Generator], Tensor],
    recipe: Recipe,
    points: Tensor,
    checkpoint: str | Path | None = None,
    checkpoint_seconds: float = 60.0,
) -> Iterator[Progress]:
    """The same loop for what is no denoiser: loss(step, generator), a scalar of the module's
    parameters.

    Of the recipe: steps, rate, decay, warmup, clip, ema, precision, and batch for the speed.
    points: the data, on the device on which the generator draws, and part of what a checkpoint must
    agree with; see `train`.
    """
    g = torch.Generator(device=points.device).manual_seed(recipe.seed)
    path, means = Path(checkpoint) if checkpoint else None, torch.empty(0)

    def objective(step: int) -> Tensor:
        with recipe.autocast(points.device):
            return loss(step, g)

    yield from _loop(module, objective, recipe, points, means, g, path, checkpoint_seconds)


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
    if any(isinstance(module, nn.Conv2d) for module in denoiser.modules()):
        denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    average = copy.deepcopy(denoiser).eval() if recipe.ema is not None else denoiser
    optimiser = torch.optim.Adam(
        denoiser.parameters(), lr=recipe.rate, fused=g.device.type in ("cpu", "cuda")
    )
    digest = hashlib.sha256(points.numpy(force=True)).hexdigest() if checkpoint else ""
    # gradients of float16 vanish unless the loss is scaled; for other types this does nothing
    scaler = torch.amp.GradScaler(g.device.type, enabled=recipe.products(g.device) == torch.float16)
    state = State(denoiser, average, optimiser, scaler, g, means, recipe, points, digest)
    there = checkpoint and checkpoint.exists()
    step, loss, seconds = state.read(checkpoint) if there else (0, math.nan, 0.0)
    first, before, saved = step, seconds, time.perf_counter()
    if step:  # what was reached: a look at it may have been lost with the process
        left = math.nan if step < recipe.steps else 0.0
        yield Progress(step, loss, seconds, math.nan, left, average.eval())
    for step in range(first + 1, recipe.steps + 1):
        begun = time.perf_counter()
        denoiser.train()
        warm = min(1.0, step / recipe.warmup) if recipe.warmup else 1.0
        decay = DECAYS[recipe.decay]((step - 1) / recipe.steps)
        optimiser.param_groups[0]["lr"] = recipe.rate * warm * decay
        value = objective(step)
        due = step == recipe.steps or time.perf_counter() - saved > checkpoint_seconds
        if g.device.type == "cpu" or due or step % 20 == 0:  # looking at a number makes a GPU wait
            loss = value.item()
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss}: lower the learning rate or check the training points"
                )
        optimiser.zero_grad(set_to_none=True)
        scaler.scale(value).backward()
        if recipe.clip is not None:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(denoiser.parameters(), recipe.clip)
        scaler.step(optimiser)
        scaler.update()
        if recipe.ema is not None:
            _average(average, denoiser, min(recipe.ema, step / (step + 9)))
        seconds += time.perf_counter() - begun
        if checkpoint and due:
            state.write(checkpoint, step, loss, seconds)
            saved = time.perf_counter()
        speed = (step - first) * recipe.batch / (seconds - before)
        left = (recipe.steps - step) * recipe.batch / speed
        yield Progress(step, loss, seconds, speed, left, average.eval())
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
    chosen = _order(images, recipe.seed, epoch)[place * recipe.batch :][: recipe.batch] % n
    return chosen.to(g.device)


@functools.lru_cache(1)
def _order(images: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(images, generator=torch.Generator().manual_seed(seed * 1_000_003 + epoch))


def _level_means(means: Tensor, sigma: Tensor, errors: Tensor) -> Tensor:
    """The running mean error at each sigma (batch,), which these errors then enter with weight 1/20
    each.

    An error must not count in its own weight, or the best estimate leans to what is most probable:
    only the first ones at a level, where there is no mean yet, do.
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
