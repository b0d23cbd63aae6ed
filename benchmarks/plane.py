"""What bottlenecks generate in the plane, trained beside exact: `python benchmarks/plane.py`.

bottleneck: encoder linear or free, decoder linear or free, N points of the moons, a code of one or
two numbers. Beside the samples of each network stand those of the exact denoiser of its
architecture. Sixteen points in one number are trained with a second recipe, too: another loss,
another rate, twice the steps. Every cell is trained with three seeds, each of which decides the
network and its training; points and noise to sample from are the same for all three. A finished
training is kept in build/plane: after a kill the same command goes on.

The section is written to src/helpers/recorded/plane.json; *Bottlenecks flatten the world* draws
from it. About twenty minutes on one core.
"""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, replace

import record
import torch
from record import rounded
from torch import Tensor, nn

from helpers import metrics, sampling, training
from helpers.data import TARGETS
from helpers.denoisers import Denoiser, FreeDecoder, FreeEncoder, PosteriorMean, ProjectedDenoiser
from helpers.denoisers.base import drawn_from
from helpers.files import write_atomically
from helpers.recipe import Recipe

TARGET, COUNTS, SAMPLES = "moons", {1: (4, 16, 64, 256), 2: (16, 256)}, 2000
SEED, SEEDS, FOLDER = 0, 3, record.ROOT / "build/plane"  # SEED: of points and noise
HALVES = list(itertools.product(("linear", "free"), repeat=2))  # encoder, decoder
LOW, HIGH, OCTAVES, WIDTH = 0.01, 20.0, 7, 128
LAW = ("log-uniform", LOW, HIGH)
RECIPE = Recipe(5000, 256, 3e-3, noise=LAW, loss="level")
SECOND = Recipe(10_000, 256, 2e-3, noise=LAW, loss="sum")  # of 16 points, in one number
SCHEDULE = sampling.edm(40, LOW, HIGH)
COLUMNS = ["copies", "distance", "excess_half", "excess"]  # of each seed


class Free(nn.Module):
    """Any function of some numbers and the level: two hidden layers on sines of a few octaves."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        layers = [nn.Linear(inputs * (1 + 2 * OCTAVES) + 1, WIDTH), nn.SiLU()]
        layers += [nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, outputs)]
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Tensor, sigma: Tensor) -> Tensor:
        waves = torch.cat([2**k * z for k in range(OCTAVES)], dim=1)
        level = (sigma.log() / 4).expand(len(z), 1)
        return self.layers(torch.cat([z, waves.sin(), waves.cos(), level], dim=1))


class Narrow(Denoiser):
    """D = decoder(code), a code of m numbers. A linear half is the principal axes of the points, at
    all levels; between two linear halves stands a free map of the code."""

    event_shape = (2,)
    axes: Tensor

    def __init__(self, halves: tuple[str, str], code: int, points: Tensor, seed: int):
        super().__init__()
        first, last = (half == "free" for half in halves)
        self.keep(mean=points.mean(0), axes=ProjectedDenoiser(points, code).basis)
        with drawn_from(seed):
            self.encoder = Free(2, code) if first else None
            self.middle = Free(code, code) if not (first or last) else None
            self.decoder = Free(code, 2) if last else None

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        mean, axes, level = self.mean.to(y), self.axes.to(y), sigma.float()
        z = (y - mean) / (1 + sigma**2).sqrt()
        code = self.encoder(z.float(), level) if self.encoder else (z @ axes).float()
        code = self.middle(code, level) if self.middle else code
        return mean + (self.decoder(code, level).to(y) if self.decoder else code.to(y) @ axes.T)


EXACT: dict[tuple[str, str], Callable[[Tensor, int], Denoiser]] = {
    ("linear", "linear"): ProjectedDenoiser,
    ("linear", "free"): FreeDecoder,
    ("free", "linear"): FreeEncoder,
    ("free", "free"): lambda points, _: PosteriorMean(points),
}


def excess(network: Denoiser, best: Denoiser, points: Tensor) -> float:
    """Error above that of the exact denoiser, a mean over points, noise and log sigma."""
    g = torch.Generator().manual_seed(SEED)
    x = points[torch.randint(len(points), (20_000,), generator=g)]
    sigma = LOW * (HIGH / LOW) ** torch.rand(len(x), 1, generator=g, dtype=torch.float64)
    y = x + sigma * torch.randn(x.shape, generator=g, dtype=torch.float64)
    errors = [(d(y, sigma.flatten()) - x).square().sum(1).mean() for d in (network, best)]
    return float((errors[0] - errors[1]).detach())


def judged(denoiser: Denoiser, points: Tensor, fresh: Tensor) -> tuple[float, float]:
    """Share of copies, distance to the target."""
    start = sampling.initial_noise(SAMPLES, 2, sigma=HIGH, seed=SEED)
    made = sampling.last(sampling.euler(denoiser, start, SCHEDULE))
    return metrics.share_of_copies(made, points), metrics.sliced_w2(made, fresh)


def trained(
    halves: tuple[str, str], code: int, points: Tensor, recipe: Recipe
) -> tuple[Narrow, list[float]]:
    """A network, and its error above the exact one's half way and at the end: is it flat?"""
    network, errors = Narrow(halves, code, points, recipe.seed), []
    for now in training.train(network, points, recipe):
        if now.step in (recipe.steps // 2, recipe.steps):
            errors.append(excess(network, EXACT[halves](points, code), points))
    return network, errors


def once(halves: tuple[str, str], code: int, points: Tensor, recipe: Recipe, fresh: Tensor) -> dict:
    """COLUMNS of one training; found again after a kill."""
    asked = json.dumps([halves, code, len(points), WIDTH, OCTAVES, asdict(recipe)])
    file = FOLDER / f"{hashlib.sha256(asked.encode()).hexdigest()[:16]}.json"
    if not file.exists():
        network, errors = trained(halves, code, points, recipe)
        found = dict(zip(COLUMNS, rounded([*judged(network, points, fresh), *errors]), strict=True))
        FOLDER.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps(found))
    return json.loads(file.read_text())


def bottleneck() -> dict:
    target, cells = TARGETS[TARGET](), []
    fresh, recipes = target.sample(SAMPLES, SEED + 1), {"first": RECIPE, "second": SECOND}
    runs = [(code, n, "first") for code, counts in COUNTS.items() for n in counts]
    for (code, n, name), halves in itertools.product([(1, 16, "second"), *runs], HALVES):
        points = target.sample(n, SEED)
        exact = rounded(judged(EXACT[halves](points, code), points, fresh))
        found = [
            once(halves, code, points, replace(recipes[name], seed=seed), fresh)
            for seed in range(SEEDS)
        ]
        cell = {"N": n, "code": code, "encoder": halves[0], "decoder": halves[1], "recipe": name}
        cell |= dict(zip(("exact_copies", "exact_distance"), exact, strict=True))
        cell |= {key: [row[key] for row in found] for key in COLUMNS}
        print(cell, flush=True)
        cells.append(cell)
    chance = {
        str(n): rounded(metrics.share_of_copies(fresh, target.sample(n, SEED))) for n in COUNTS[1]
    }
    about = {"target": TARGET, "width": WIDTH, "seeds": SEEDS, "chance": chance}
    return about | {"recipes": {k: asdict(v) for k, v in recipes.items()}, "cells": cells}


if __name__ == "__main__":
    record.main(__doc__, "plane", {"bottleneck": bottleneck})
