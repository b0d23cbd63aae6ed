"""Sweeps: tables of trainings as data, network x data x N x level x seed in a TOML file, and what
trains their cells. What is done stays, what was interrupted goes on."""

import csv
import hashlib
import io
import itertools
import json
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save as tensor_bytes

from .. import models
from ..files import write_atomically
from ..recipe import Recipe
from ..systems.bastek.physics import PhysicsRecipe
from .engines import Engine
from .runner import machine, source, trained
from .zoo import Entry

SHOWN = 200  # images, of either kind, on which a network is measured


@dataclass(frozen=True)
class Cell:
    """One training: its place in the sweep, and all that decides its result."""

    place: dict[str, Any]  # the names that the table has for it
    entry: Entry

    def key(self) -> str:
        """Names the files of its result; changes with all that changes it but the machine, told in
        the row."""
        decides = [asdict(self.entry), models.LEVELS, SHOWN]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Sweep:
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
    source: str = ""  # of a published sweep: where it is stated
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
                "sweep": self.name,
                "network": network,
                "data": images,
                "n": n,
                "level": level,
                "seed": seed,
            }
            yield Cell(
                place, Entry(kind, {**options, "seed": seed}, {**self.data[images], "n": n}, recipe)
            )


def read(path: Path) -> tuple[str, list[Sweep]]:
    """Title and sweeps of a file; its table [recipe] holds for every [[sweep]] that does not say
    otherwise.

    Raises ValueError, naming the file, where it is missing, no TOML, or holds what no sweep or
    recipe has.
    """
    try:
        text = tomllib.loads(path.read_text("utf-8"))
        shared = text.pop("recipe", {})
        sweeps = [
            Sweep(**{**one, "recipe": {**shared, **one.get("recipe", {})}})
            for one in text.pop("sweep")
        ]
        title = text.pop("title", path.stem)
        if text:
            raise ValueError(
                f"no sweep has {', '.join(text)}: besides [[sweep]] a file has title and [recipe]"
            )
        for one in sweeps:
            list(one.cells())  # what is wrong with a recipe must be said before the first training
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: name a file like those in benchmarks/sweeps"
        ) from None
    except KeyError as error:
        raise ValueError(
            f"{path}: {error} is missing, see benchmarks/sweeps/fashion.toml"
        ) from None
    except tomllib.TOMLDecodeError as error:
        raise ValueError(
            f"{path} is no TOML, see benchmarks/sweeps/fashion.toml: {error}"
        ) from None
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return title, sweeps


def sweep(
    cells: list[Cell],
    folder: Path,
    engine: Engine,
    device: str = "cpu",
    shared: bool = True,
    seconds: float = 60.0,
    report: Callable[[str], None] = print,
) -> list[Cell]:
    """Train the cells whose result is not in the folder yet, and write its table.csv; the cells
    that failed.

    A result is two files named by the cell's key, which this process alone writes, the weights
    before the row: it is there whole or not at all, and once. shared: whether all workers see the
    folder; then an interrupted training goes on from a checkpoint in it, written every so many
    seconds.

    Raises ValueError where another sweep is at work in the folder.
    """
    folder = folder.resolve()  # a worker of Ray has a current folder of its own
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            for left in folder.rglob(".*.tmp"):  # of a kill while writing
                left.unlink()
            task = partial(
                train_cell,
                device=device,
                checkpoints=folder / "running" if shared else None,
                seconds=seconds,
            )
            todo = {
                cell.key(): cell
                for cell in cells
                if not all(file.exists() for file in _files(cell, folder))
            }
            failed = []
            for count, (cell, result) in enumerate(engine(task, todo.values()), 1):
                if isinstance(result, Exception):
                    failed.append(cell)
                    said = f"failed, {type(result).__name__}: {result}"
                else:
                    said = f"{result[0]['seconds']} s"
                    _keep(cell, folder, *result)
                    checkpoint(cell, device, folder / "running").unlink(missing_ok=True)
                where = ", ".join(f"{k} {v}" for k, v in cell.place.items() if v is not None)
                report(f"{count} of {len(todo)}: {where}: {said}")
            _tabulate(cells, folder)
    except Timeout:
        raise ValueError(
            f"another sweep is at work in {folder}: wait for it, or name another folder"
        ) from None
    return failed


def _files(cell: Cell, folder: Path) -> tuple[Path, Path]:
    return folder / f"{cell.key()}.safetensors", folder / f"{cell.key()}.json"


def _keep(cell: Cell, folder: Path, row: dict[str, Any], weights: bytes) -> None:
    first, second = _files(cell, folder)
    write_atomically(first, weights)
    write_atomically(second, json.dumps(row))


def _tabulate(cells: list[Cell], folder: Path) -> None:
    """One row for each cell that is done, in the order of the sweep."""
    done = [(cell, _files(cell, folder)[1]) for cell in cells]
    rows = [
        {**cell.place, **json.loads(file.read_text()), "key": cell.key()}
        for cell, file in done
        if file.exists()
    ]
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_atomically(folder / "table.csv", text.getvalue())


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
    data, test = source(**entry.data), source(**{**entry.data, "split": "test", "n": None})
    denoiser, progress = trained(entry, data, path, device, seconds)
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
