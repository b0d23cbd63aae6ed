"""A grid of trainings as data, network x data x N x level x seed in a TOML file, and what one cell
of it gives."""

import hashlib
import itertools
import json
import tomllib
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as tensor_bytes

from .. import models
from ..recipe import Recipe
from ..systems.bastek.physics import PhysicsRecipe
from .runner import machine, source, steps, untrained
from .zoo import Entry

SHOWN = 200  # images, of either kind, on which a network is measured


@dataclass(frozen=True)
class Cell:
    """One training: its place in the grid, and all that decides its result."""

    place: dict[str, Any]  # the names that the table has for it
    entry: Entry

    def key(self) -> str:
        """Names the files of its result; changes with all that changes it but the machine, told in
        the row."""
        decides = [asdict(self.entry), models.LEVELS, SHOWN]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Grid:
    """All combinations of its axes. `networks` and `data` are named: a class with its options,
    arguments of `load`."""

    name: str
    networks: dict[str, dict[str, Any]]
    data: dict[str, dict[str, Any]]
    n: list[int]
    recipe: dict[str, Any]
    seeds: tuple[int, ...] = (0,)  # of the weights, the noise and the order of the images
    # a network for each level of noise; none means one for the levels of the recipe
    levels: tuple[float, ...] = ()
    source: str = ""  # of a published grid: where it is stated
    assumed: str = ""  # what is not stated there, and stands here all the same

    def cells(self) -> Iterator[Cell]:
        axes = self.networks, self.data, self.n, self.levels or (None,), self.seeds
        for network, images, n, level, seed in itertools.product(*axes):
            options = dict(self.networks[network])
            kind = options.pop("class")
            noise = {} if level is None else {"noise": ("fixed", level)}
            law = PhysicsRecipe if "weight" in self.recipe else Recipe
            recipe = law(**{**self.recipe, **noise, "seed": seed})
            place = {
                "grid": self.name,
                "network": network,
                "data": images,
                "n": n,
                "level": level,
                "seed": seed,
            }
            yield Cell(
                place, Entry(kind, {**options, "seed": seed}, {**self.data[images], "n": n}, recipe)
            )


def read(path: Path) -> tuple[str, list[Grid]]:
    """Title and grids of a file; its table [recipe] holds for every [[grid]] that does not say
    otherwise.

    Raises ValueError, naming the file, where it is missing, no TOML, or holds what no grid or
    recipe has.
    """
    try:
        text = tomllib.loads(path.read_text("utf-8"))
        shared = text.pop("recipe", {})
        grids = [
            Grid(**{**grid, "recipe": {**shared, **grid.get("recipe", {})}})
            for grid in text.pop("grid")
        ]
        title = text.pop("title", path.stem)
        if text:
            raise ValueError(
                f"no grid has {', '.join(text)}: besides [[grid]] a file has title and [recipe]"
            )
        for grid in grids:
            list(grid.cells())  # what is wrong with a recipe must be said before the first training
    except FileNotFoundError:
        raise ValueError(f"{path} is missing: name a file like those in benchmarks/grids") from None
    except KeyError as error:
        raise ValueError(f"{path}: {error} is missing, see benchmarks/grids/fashion.toml") from None
    except (TypeError, ValueError) as error:  # the decoder's is a ValueError, too
        raise ValueError(f"{path}: {error}") from None
    return title, grids


def train_cell(
    cell: Cell, device: str = "cpu", checkpoints: Path | None = None, seconds: float = 60.0
) -> tuple:
    """Its row of the table and its weights as the bytes of a safetensors file; one thread on a CPU.

    checkpoints: a folder in which an interrupted training is found again, kept every so many
    `seconds`. The file stays there, complete, for the caller to remove once the result is safe.
    """
    threads = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        return _trained(
            cell, device, checkpoints and checkpoint(cell, device, checkpoints), seconds
        )
    finally:
        torch.set_num_threads(threads)


def checkpoint(cell: Cell, device: str, folder: Path) -> Path:
    """A training goes on only on the kind of device on which it began: their random numbers differ."""
    return folder / f"{cell.key()}-{device}.safetensors"


def _trained(
    cell: Cell, device: str, path: Path | None, seconds: float
) -> tuple[dict[str, Any], bytes]:
    entry = cell.entry
    if entry.network not in models.classes():
        raise ValueError(f"class is {entry.network!r}: choose one of {', '.join(models.classes())}")
    data, test = source(**entry.data), source(**{**entry.data, "split": "test", "n": None})
    denoiser = untrained(entry, data).to(device)
    progress = deque(steps(entry, denoiser, data.images, path, seconds), maxlen=1).pop()
    tables: dict[str, float] = {}
    for part, images in (("train", models.repeated(data.images, SHOWN)), ("test", test.images)):
        table = models.psnr_table(denoiser, images[:SHOWN].to(device))
        tables |= {
            f"{part}_psnr_{level}": p for level, p in zip(models.LEVELS, table["psnr"], strict=True)
        }
    # one entry: of several the order, and with it the bytes, would vary from run to run
    card = {"card": json.dumps({"class": entry.network, "arguments": denoiser.arguments})}
    weights = tensor_bytes(
        {k: v.cpu().contiguous() for k, v in denoiser.state_dict().items()}, card
    )
    seen = entry.recipe.steps * entry.recipe.batch
    row = {
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        "images_seen": seen,
        "loss": round(progress.loss, 6),
        **tables,
        "sha256": hashlib.sha256(weights).hexdigest(),
        "seconds": round(progress.seconds, 1),
        "images_per_second": round(seen / progress.seconds),
        **machine(device),
    }
    return row, weights
