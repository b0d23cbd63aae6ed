"""A grid of trainings as data: network x data x N x level x seed in a TOML file."""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import models
from ..recipe import Recipe
from ..systems.bastek.physics import PhysicsRecipe
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
