"""Training in the reader's browser: a step as an ONNX graph, and the batches and the start that
page and Python share."""

import copy
import io
import math
import warnings
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.fx.experimental.proxy_tensor import make_fx

from ..checks import checked_points, positive_int
from ..denoisers.base import Denoiser
from ..denoisers.mlp import MLP
from ..noise import normal, threefry
from ..recipe import LEAST, NOISE, Recipe
from .export import traced

BETAS, EPSILON = (0.9, 0.999), 1e-8  # of Adam, as torch has them
# Sizes to trace with, all different: the tracer takes equal ones for one and the same.
WIDTHS, BATCH = (5, 7, 11, 13, 17, 19, 23, 29), 31


class Layers(MLP):
    r"""An MLP of the plane whose hidden layers have any widths, one of them narrow if you like.

        conditioned, skip:  D(y, sigma) = c_skip y + c_out F(c_in y, log(sigma) / 4), as `MLP` has it
        conditioned alone:  D(y, sigma) = F(c_in y, log(sigma) / 4)
        skip alone:         D(y, sigma) = y + F(y)
        neither:            D(y, sigma) = F(y)

    Without the skip every answer lies on the image of the layers after the narrowest one. widths:
    one to eight positive whole numbers. The weights are `start`'s.
    """

    small = {"widths": (8,)}

    def __init__(
        self,
        widths: tuple[int, ...],
        activation: str = "silu",
        conditioned: bool = True,
        skip: bool = True,
        data_std: float = 1.0,
        seed: int = 0,
    ):
        super().__init__(1, len(widths), activation, data_std)
        self.conditioned, self.skip = conditioned, skip
        _resize(self, [2 + conditioned, *(positive_int("a width", w) for w in widths), 2])
        start(self, seed)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        if self.conditioned and self.skip:
            return super().estimate(y, sigma)
        z = y
        if self.conditioned:
            level = (sigma.log() / 4).expand(y.shape[0], 1)
            z = torch.cat([y / (self.data_std**2 + sigma**2).sqrt(), level], dim=1)
        f = self.network(z.to(self.network[0].weight.dtype)).to(y)
        return y + f if self.skip else f


def uniform(rows: int, seed: int, stream: int) -> Tensor:
    """Independent numbers, uniform in (0, 1), (rows, 2) float64: bits that `noise.normal` of the same
    seed and stream does not use. static/train.js has the same."""
    words = threefry((seed, stream), np.arange(rows, dtype=np.uint32), high=1)
    return torch.from_numpy((np.stack(words, 1) + 0.5) / 2**32)


def start(denoiser: nn.Module, seed: int = 0) -> None:
    """Fills the linear layers, in place: uniform in (-b, b), b = 1 / sqrt(inputs), which is torch's
    own law, with the same bits in the browser."""
    layers = [m for m in denoiser.modules() if isinstance(m, nn.Linear)]
    count = sum(p.numel() for m in layers for p in m.parameters())
    u = 2 * uniform((count + 1) // 2, seed, 0).flatten()[:count] - 1
    with torch.no_grad():
        for m in layers:
            for p in m.parameters():
                p.copy_(u[: p.numel()].view_as(p) / math.sqrt(m.in_features))
                u = u[p.numel() :]


def batch(points: Tensor, size: int, step: int, seed: int = 0) -> Tensor:
    """What a step takes, (size, 2 d + 1) float32: rows x of points (N, d), normal noise, and a
    uniform number that the step's graph turns into the level.

    Drawn from `helpers.noise`, stream `step`, from 1: page and Python train on the same batches.
    """
    points = checked_points(points)
    u = uniform(positive_int("size", size), seed, positive_int("step", step))
    x = points[(u[:, 0] * len(points)).long()].double()
    return torch.cat([x, normal(size, x.shape[1], seed=seed, stream=step), u[:, 1:]], 1).float()


def export_step(denoiser: MLP, recipe: Recipe) -> bytes:
    r"""A step of training as an ONNX graph: forward, backward and Adam, float32 inside.

    Inputs, in this order: the denoiser's parameters; `mean` and `square`, Adam's moments of all
    parameters one after the other, (n,); `step` from 1 and `rate`, (), float64; `batch` (size,
    2 d + 1), see `batch`. Outputs: the first k + 2 anew, and `loss`, of the batch before the step,
    as `training.train` has it, with

        m <- b_1 m + (1 - b_1) g,  v <- b_2 v + (1 - b_2) g^2,
        p <- p - rate (m / (1 - b_1^t)) / (sqrt(v / (1 - b_2^t)) + epsilon).

    Widths and batch are free: one graph serves all networks of a depth, an activation, a form and a
    data_std.
    Of the recipe, noise and loss ("edm", "snr" or "sum") are in the graph; all else is the
    caller's. Raises ValueError for another law, loss or denoiser, or for a depth above 8.
    Source: Kingma & Ba 2015, algorithm 1.
    """
    if recipe.loss not in ("edm", "snr", "sum") or recipe.noise[0] in ("log-normal", "levels"):
        raise ValueError(
            f"loss is {recipe.loss!r}, noise {recipe.noise[0]!r}: a step in the browser takes the losses "
            "edm, snr and sum, and laws of a uniform number for each point"
        )
    if not isinstance(denoiser, MLP) or len(denoiser.network) // 2 > len(WIDTHS):
        raise ValueError(
            f"{type(denoiser).__name__}: pass an MLP of at most {len(WIDTHS)} hidden layers"
        )
    denoiser = copy.deepcopy(denoiser).float().train()
    first, *_, last = (p.shape[-1] for p in denoiser.parameters())
    widths = WIDTHS[: len(denoiser.network) // 2]
    _resize(denoiser, [first, *widths, last])
    loss = _Loss(denoiser, recipe)
    state = [p.detach() for p in loss.parameters()]
    sizes = {w: torch.export.Dim(f"w{w}", min=1) for w in widths}
    mean = torch.cat([p.flatten() for p in state])
    n, size = torch.export.Dim("n"), torch.export.Dim("size", min=1)
    # one tensor given twice would become one input
    numbers = state, mean, mean.clone(), *torch.tensor([1.0, 0.1]).double()
    given = *numbers, torch.rand(BATCH, 2 * last + 1)
    free = [{i: sizes[s] for i, s in enumerate(p.shape) if s in sizes} for p in state]
    return _graph(_step(loss), given, (free, {0: n}, {0: n}, {}, {}, {0: size}),
                  [name for name, _ in denoiser.named_parameters()])  # fmt: skip


class _Loss(nn.Module):
    """The loss of a batch, a scalar of the denoiser's parameters, as `training.train` has it."""

    def __init__(self, denoiser: Denoiser, recipe: Recipe):
        super().__init__()
        self.denoiser, self.recipe = denoiser, recipe

    def forward(self, rows: Tensor) -> Tensor:
        d = rows.shape[1] // 2
        x, n, u = rows[:, :d], rows[:, d : 2 * d], rows[:, 2 * d].clamp(min=LEAST)
        law, *parameters = self.recipe.noise
        sigma = NOISE[law](u, u, *parameters)
        # not the call, whose checks fix the size of the batch
        x_hat = self.denoiser.estimate(x + sigma[:, None] * n, sigma[:, None])
        e, s = (x_hat - x).square(), self.denoiser.data_std
        if self.recipe.loss == "sum":
            return e.sum(1).mean()
        weight = (s**2 + sigma**2) / (s * sigma) ** 2 if self.recipe.loss == "edm" else sigma**-2
        return (weight * e.mean(1)).mean()


def _step(loss: nn.Module) -> Any:
    names = [name for name, _ in loss.named_parameters()]
    slopes = grad_and_value(
        lambda state, rows: functional_call(loss, dict(zip(names, state, strict=True)), (rows,))
    )

    def step(state, mean, square, t, rate, rows):
        gradients, value = slopes(state, rows)
        g = torch.cat([part.flatten() for part in gradients])
        mean = mean + (1 - BETAS[0]) * (g - mean)
        square = BETAS[1] * square + (1 - BETAS[1]) * g * g
        # In float64, as 1 - .999 has four digits in float32; by exp, as the exporter rounds the base
        # of a power. epsilon times root, as its optimiser takes 1e-8 for a zero and drops the sum.
        one, two = (1 - (math.log(b) * t).exp() for b in BETAS)
        root = two.sqrt()
        ahead, least = (rate * root / one).float(), (EPSILON * root).float()
        change = ahead * mean / (square.sqrt() + least)
        change = change.split([p.numel() for p in state])
        return [p - c.view_as(p) for p, c in zip(state, change, strict=True)], mean, square, value

    return step


def _resize(denoiser: MLP, sizes: list[int]) -> None:
    """Linear layers of other sizes, not yet filled."""
    for i, (a, b) in enumerate(zip(sizes, sizes[1:], strict=False)):
        denoiser.network[2 * i] = nn.utils.skip_init(nn.Linear, a, b)


def _graph(step: Any, given: tuple, free: tuple, names: list[str]) -> bytes:
    """The step traced at `given`, with the free sizes, and without what is left of the tracing."""
    inputs, outputs = [*names, "mean", "square"], [f"new.{n}" for n in (*names, "mean", "square")]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        # torch.export does not trace a gradient; what make_fx has traced is plain arithmetic
        plain = make_fx(step, tracing_mode="symbolic")(*given)
    model = traced(
        plain,
        given,
        input_names=[*inputs, "step", "rate", "batch"],
        output_names=[*outputs, "loss"],
        dynamic_shapes=free,
    )
    return model.SerializeToString(deterministic=True)
