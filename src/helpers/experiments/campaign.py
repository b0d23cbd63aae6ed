"""The networks of the zoo that are missing, trained the most wanted first; how far they are; and
how they travel from one machine to another."""

import io
import json
import math
import re
import time
import zipfile
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import models
from ..checkpoint import reached
from ..files import write_atomically
from . import runner, zoo
from .cost import kind, measure, meter
from .engines import on_cores
from .zoo import Entry

# seconds since a training has saved its state, which it does every minute, within which it is
# running
LATELY = 300


def entries(profile: str, device: str, workers: int, folder: Path) -> dict[str, Entry]:
    """The entries of the zoo; those of a profile in `zoo.MINUTES` with as many steps as the plan in
    the folder says.

    Without a plan all kinds are measured, `workers` at a time on the device as they will train, and
    it is written.
    """
    listed = zoo.zoo(profile)
    if profile not in zoo.MINUTES:
        return listed
    path = folder / profile / "plan.json"
    if not path.exists():
        kinds, rates = {name: kind(entry) for name, entry in listed.items()}, {}
        once = {one.key(): one for one in kinds.values()}
        for one, found in on_cores(
            partial(measure, device=device, seconds=5.0), once.values(), workers
        ):
            if isinstance(found, Exception):
                raise found
            rates[one.key()] = found.images_per_second
        # a tenth is left for looking at them and for saving
        each = 0.9 * 60 * zoo.MINUTES[profile] * min(workers, len(listed)) / len(listed)
        plan = {
            n: max(zoo.LOOKS, int(each * rates[kinds[n].key()] / e.recipe.batch))
            for n, e in listed.items()
        }
        write_atomically(path, json.dumps(plan, indent=1))
    try:
        plan = json.loads(path.read_text())
        return {n: replace(e, recipe=replace(e.recipe, steps=plan[n])) for n, e in listed.items()}
    except (ValueError, LookupError, TypeError):
        raise ValueError(
            f"{path} is damaged, or of an older list: remove it to plan again"
        ) from None


def pending(names: list[str], entries: dict[str, Entry]) -> list[str]:
    """Of the named entries (all when none is named), those whose model is missing or made another
    way.

    Weights that do not ship may be missing where none is named: their card and their samples are
    what is kept.
    """
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise ValueError(
            f"no entry of the zoo is called {', '.join(unknown)}: choose among {', '.join(entries)}"
        )
    cards = models.manifest() if (models.models_folder() / "manifest.json").exists() else {}
    kept = {n for n, card in cards.items() if not names and not card.get("ships", True)}
    there = kept | {n for n, card in cards.items() if models.weights(n, card).exists()}
    return [
        n
        for n in dict.fromkeys(names or entries)
        if n not in there or cards[n].get("key") != entries[n].key()
    ]


def campaign(
    names: list[str],
    entries: dict[str, Entry],
    profile: str,
    device: str,
    workers: int,
    folder: Path,
    humble: bool = False,
) -> dict[str, Exception]:
    """Train what is pending, `workers` networks at a time; the errors of those that failed."""
    task = partial(_make, profile=profile, device=device, folder=folder / profile)
    todo = [(name, entries[name]) for name in pending(names, entries)]
    return {
        name: error
        for (name, _), error in on_cores(task, todo, workers, humble)
        if error is not None
    }


def _make(row: tuple[str, Entry], **where: Any) -> None:
    runner.make(*row, **where)


def pack(names: Iterable[str], folder: Path, most: int = 15_000_000) -> list[Path]:
    """The named models, their cards and their sheets as few archives of at most so many bytes;
    their paths."""
    root, all_cards = models.models_folder(), models.manifest()
    cards = {name: all_cards[name] for name in dict.fromkeys(names)}
    files: list[tuple[str, bytes]] = [("cards.json", json.dumps(cards).encode())]
    for name, card in cards.items():
        both = models.weights(name, card), root / f"{name}.webp"
        files += [
            (file.relative_to(root).as_posix(), file.read_bytes()) for file in both if file.exists()
        ]
    parts: list[list[tuple[str, bytes]]] = [[]]
    for file in files:
        if parts[-1] and sum(len(data) for _, data in parts[-1]) + len(file[1]) > most:
            parts.append([])
        parts[-1].append(file)
    for old in folder.glob("models-*.zip"):
        old.unlink()
    paths = [folder / f"models-{k}.zip" for k in range(1, len(parts) + 1)]
    for path, part in zip(paths, parts, strict=True):
        with zipfile.ZipFile(archive := io.BytesIO(), "w") as packed:
            for name, data in part:
                packed.writestr(name, data)
        write_atomically(path, archive.getvalue())
    return paths


def unpack(folder: Path) -> list[str]:
    """Enter the models of all archives that `pack` wrote into a folder; their names. ValueError
    where none is there."""
    root, files, cards = models.models_folder(), {}, {}
    for path in sorted(folder.glob("models-*.zip")):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name == "cards.json":
                    cards = json.loads(archive.read(name))
                elif re.fullmatch(
                    rf"({models.UNSHIPPED}/)?{models.NAME}\.(safetensors|webp)", name
                ):
                    files[root / name] = archive.read(name)
    if not cards:
        raise ValueError(
            f"{folder} holds no archive of models, or not the first: name the folder of all models-*.zip"
        )
    models.enter(cards, files)
    return list(cards)


def progress(
    names: list[str], entries: dict[str, Entry], profile: str, folder: Path, seconds: float = 3.0
) -> list[str]:
    """What is done of the named entries of the zoo, and the hours on one core of this machine that
    the rest will take: by the speed of those begun, and else measured for so many seconds a kind.
    "running" has saved its state lately."""
    lines, total, measured = [], 0.0, meter("cpu", seconds)
    todo, path = pending(names, entries), folder / "speeds.json"
    speeds = _speeds(path)
    for name in todo:
        entry, checkpoint = entries[name], runner.checkpoint(name, entries[name], folder / profile)
        step, took = reached(checkpoint) if checkpoint.exists() else (0, 0.0)
        known = f"{torch.backends.cpu.get_cpu_capability()} {kind(entry).key()}"
        if not step and known not in speeds:
            speeds[known] = measured(entry).images_per_second
            write_atomically(path, json.dumps(speeds, indent=1))
        each = took / step if step else entry.recipe.batch / speeds[known]
        hours = (entry.recipe.steps - step) * each / 3600
        total += hours
        running = step and time.time() - checkpoint.stat().st_mtime < LATELY
        state = "running" if running else "interrupted" if step else "waiting"
        where = f"{state}, step {step:,} of {entry.recipe.steps:,}" if step else state
        lines.append(f"{name}: {where}, {hours:.1f} core-hours to go")
    done = len(names or entries) - len(todo)
    return [
        *lines,
        f"{done} networks are there, {len(todo)} to go: {total:.1f} core-hours on this machine",
    ]


def _speeds(path: Path) -> dict[str, float]:
    """Measured once on this machine; what is damaged is measured again."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        return {k: float(v) for k, v in known.items() if 0 < float(v) < math.inf}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
