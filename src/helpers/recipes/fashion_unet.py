"""The shipped networks on Fashion-MNIST: `python -m helpers.recipes.fashion_unet [name ...]` trains and saves them.

A run that was killed goes on from its last checkpoint, build/train/<name>.pt, with the numbers it would have had.
"""

import io
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .. import models
from ..data import fashion_mnist
from ..denoisers.unet import UNet
from ..files import write_atomically
from ..training import Progress

NETWORK = {"blocks": 2, "channels": 16, "normalisation": "none"}  # two halvings of 28, and fast enough for a browser
BATCH, RATE, CLIP, SEED, CHECKPOINT = 64, 5e-3, 1.0, 0, 500


class Recipe(NamedTuple):
    """What differs between the runs: training images, steps, options of the UNet, and log sigma ~ N(mean, std^2)."""

    n: int
    steps: int
    options: dict
    log_mean: float = -1.0
    log_std: float = 1.6


CONDITIONED = {"blind": False, "bias": True}
RECIPES = {
    # the same network and the same steps: only the number of images differs
    "fashion-unet-n10000": Recipe(10_000, 16_000, CONDITIONED),
    "fashion-unet-n50": Recipe(50, 16_000, CONDITIONED),
    # homogeneous, as in Kadkhodaie et al.; blind networks are for levels up to about 1
    "fashion-unet-blind-n10000": Recipe(10_000, 6_000, {}, -2.0, 1.2),
}


def train(denoiser: UNet, images: Tensor, recipe: Recipe, checkpoint: Path) -> Iterator[tuple[Progress, float]]:
    """Adam on E w(sigma) || D(x + sigma n, sigma) - x ||^2 / d with EDM's weight, in bfloat16; yields with seconds.

    w = (s^2 + sigma^2) / (s sigma)^2, s the images' standard deviation, keeps small noise from being starved. The
    rate rises over 200 steps and falls to zero along a cosine.
    """
    g, s = torch.Generator().manual_seed(SEED), denoiser.data_std
    denoiser.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=RATE)
    first, seconds = 1, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        denoiser.load_state_dict(saved["denoiser"])
        optimiser.load_state_dict(saved["optimiser"])
        g.set_state(saved["generator"])
        first, seconds = saved["step"] + 1, saved["seconds"]
    clock = time.perf_counter() - seconds
    for step in range(first, recipe.steps + 1):
        rate = RATE * min(1, step / 200) * (1 + math.cos(math.pi * step / recipe.steps)) / 2
        optimiser.param_groups[0]["lr"] = rate
        x = images[torch.randint(len(images), (BATCH,), generator=g)]
        sigma = torch.exp(recipe.log_mean + recipe.log_std * torch.randn(BATCH, generator=g))
        y = x + sigma[:, None, None] * torch.randn(x.shape, generator=g)
        with torch.autocast("cpu", torch.bfloat16):
            x_hat = denoiser(y, sigma)
        weight = (s**2 + sigma**2) / (s * sigma) ** 2
        loss = (weight * (x_hat.float() - x).square().mean((1, 2))).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), CLIP)
        optimiser.step()
        seconds = time.perf_counter() - clock
        if step % CHECKPOINT == 0 or step == recipe.steps:
            state = {"denoiser": denoiser.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
            buffer = io.BytesIO()
            torch.save({**state, "generator": g.get_state(), "seconds": seconds}, buffer)
            write_atomically(checkpoint, buffer.getvalue())
        yield Progress(step, loss.item()), seconds


def make(name: str) -> None:
    """Train the network of that name to its end and save it with its card in the folder of models."""
    if name not in RECIPES:
        raise ValueError(f"{name!r} has no recipe: choose one of {', '.join(RECIPES)}")
    recipe, images = RECIPES[name], fashion_mnist(RECIPES[name].n)
    denoiser = UNet(**NETWORK, **recipe.options, data_std=round(float(fashion_mnist().std()), 3), seed=SEED)
    checkpoint, total, mean = Path("build/train") / f"{name}.pt", recipe.steps * BATCH, math.nan
    seconds = 0.0
    for progress, seconds in train(denoiser, images, recipe, checkpoint):
        mean = progress.loss if math.isnan(mean) else 0.99 * mean + 0.01 * progress.loss
        if progress.step % CHECKPOINT == 0:
            print(f"{name} step {progress.step} of {recipe.steps} loss {mean:.4f} {seconds:.0f} s", flush=True)
    if not seconds:  # the checkpoint was the last
        seconds = torch.load(checkpoint, weights_only=True)["seconds"]
    card = {
        "recipe": "python -m helpers.recipes.fashion_unet " + name,
        "data": f"first {recipe.n} embedded training images of Fashion-MNIST, 28x28, [0, 1]",
        "N": recipe.n,
        "seed": SEED,
        "steps": recipe.steps,
        "images_seen": total,
        "noise_law": f"log sigma ~ N({recipe.log_mean:g}, {recipe.log_std:g}^2)",
        "loss": "mean squared error x (s^2 + sigma^2) / (s sigma)^2, s = data_std",
        "optimiser": f"Adam, rate {RATE:g}, 200 steps of warm-up, cosine to 0, batch {BATCH}, gradient norm at most 1",
        "precision": "bfloat16 autocast",
        "hardware": "1 of 2 CPU cores",
        "seconds": round(seconds),
    }
    models.save(name, denoiser, card, fashion_mnist(split="test"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    for model in sys.argv[1:] or RECIPES:
        make(model)
