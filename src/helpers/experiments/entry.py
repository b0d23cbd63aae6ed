"""A row of the table of networks, and the recipes that most of them share."""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any

from ..recipe import Recipe

# every level counts alike, from invisible noise to where a blind network no longer knows how bright
# the image was
BASE = Recipe(
    batch=16,
    rate=3e-3,
    noise=("log-uniform", 0.01, 5.0),
    loss="level",
    warmup=200,
    ema=0.999,
    precision="mixed",
)
PAPER = Recipe(  # released code of Kadkhodaie et al. 2024: 1000 epochs of 250,000 images
    steps=488_000,
    batch=512,
    rate=1e-3,
    noise=("quadratic", 1.0),
    loss="sum",
    decay="halving",
    epoch=250_000,
)
# for a network that is sampled from pure noise; the trials of chapter 10 weigh its choices
GENERATE = Recipe(
    batch=8,
    rate=3e-3,
    noise=("log-normal", -1.2, 1.4),
    loss="edm",
    warmup=500,
    clip=1.0,
    ema=0.9995,
    flip=True,
    precision="mixed",
)


@dataclass(frozen=True)
class Entry:
    """One network: its class and options, the arguments of `load` for its training set, and the
    recipe.

    ships: whether its weights are in the repository, or only its card and its samples. watched:
    whether samples are drawn and judged while it trains.
    """

    network: str
    options: dict[str, Any]
    data: dict[str, Any]
    recipe: Recipe
    ships: bool = True
    watched: bool = False

    def key(self) -> str:
        """Changes with everything that changes the network."""
        decides = {k: v for k, v in asdict(self).items() if k not in ("ships", "watched")}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
