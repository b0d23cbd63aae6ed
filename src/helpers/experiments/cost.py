"""What a sweep would cost: its trainings are counted, and the speed of each kind is measured on the
device at hand."""

import heapq
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from .. import models
from . import runner, zoo
from .sweep import read
from .zoo import Entry

DEVICES = (1, 8, 64)
HEADS = (
    "",
    "runs",
    "images",
    "images/s",
    "device-hours",
    "weights",
    "checkpoint",
    *(f"on {n}" for n in DEVICES),
)
WINDOWS = 5  # of time: the speed is their median
# pixels a side that `load` gives where an entry names none; 80 for others
SIDES = {"fashion-mnist": 32}


class Measured(NamedTuple):
    """Of one kind of training."""

    images_per_second: float
    weights: int  # bytes
    checkpoint: int  # bytes, while it trains


class Run(NamedTuple):
    """One training: images seen, and its kind, None for a network that is not in the book."""

    images: int
    kind: Measured | None

    @property
    def hours(self) -> float:
        return self.images / self.kind.images_per_second / 3600 if self.kind else float("nan")


def kind(entry: Entry) -> Entry:
    """The entry without what does not change its speed: seed, noise, schedule, and its images but
    for their size."""
    options = {k: v for k, v in entry.options.items() if k != "seed"}
    data = {"size": entry.data.get("size", SIDES.get(entry.data["name"], 80))}
    data |= {k: v for k, v in entry.data.items() if k == "modes"}
    law: dict[str, Any] = {
        "steps": 10**9,
        "rate": 1e-9,
        "noise": ("fixed", 0.1),
        "decay": "none",
        "warmup": 0,
    }
    return Entry(entry.network, options, data, replace(entry.recipe, seed=0, epoch=None, **law))


def meter(device: str, seconds: float) -> Callable[[Entry], Measured]:
    """Measures every kind of training once, for about so many seconds."""
    known: dict[str, Measured] = {}

    def measured(entry: Entry) -> Measured:
        one = kind(entry)
        if one.key() not in known:
            known[one.key()] = measure(one, device, seconds)
        return known[one.key()]

    return measured


def measure(entry: Entry, device: str, seconds: float) -> Measured:
    """Trains on a random image, as many at a time as the recipe says, or as fit into memory and a
    window of time."""

    def clock() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        # on a CPU the time of its cores, one of which trains: other work must not count
        return time.perf_counter() if device == "cuda" else time.process_time()

    denoiser = models.classes()[entry.network](**entry.options).to(device)
    side, window = entry.data["size"], seconds / WINDOWS
    channels = denoiser.arguments.get("image_channels", 1)
    image = torch.rand(1, *[channels] * (channels > 1), side, side)
    batch, took = min(8, entry.recipe.batch), 0.0
    while batch <= entry.recipe.batch and 2 * took < window:
        try:
            larger = runner.steps(
                replace(entry, recipe=replace(entry.recipe, batch=batch)), denoiser, image
            )
            next(larger)  # the first step waits for memory and kernels
            begun = clock()
            next(larger)
        except torch.OutOfMemoryError:
            break
        took, steps, batch = clock() - begun, larger, 2 * batch
    rates = []
    for _ in range(WINDOWS):
        begun, images = clock(), 0
        while not images or clock() - begun < window:
            next(steps)
            images += batch // 2
        rates.append(images / (clock() - begun))
    weights = sum(v.nbytes for v in denoiser.state_dict().values())
    moments = 2 * sum(p.nbytes for p in denoiser.parameters())  # of Adam
    average = weights * (entry.recipe.ema is not None)
    return Measured(statistics.median(rates), weights, weights + average + moments)


def plan(entries: Iterable[Entry], measured: Callable[[Entry], Measured]) -> list[Run]:
    """Its trainings."""
    return [
        Run(
            entry.recipe.steps * entry.recipe.batch,
            measured(entry) if entry.network in models.classes() else None,
        )
        for entry in entries
    ]


def wall(hours: list[float], devices: int) -> float:
    """Hours until the last run ends, the longest first and each on the device that is free first:
    never less than the longest run, however many devices there are."""
    busy = [0.0] * devices
    for run in sorted(hours, reverse=True):
        heapq.heapreplace(busy, busy[0] + run)
    return max(busy)


def span(hours: float) -> str:
    """A time as one reads it."""
    units = {"years": 24 * 365.0, "days": 24.0, "h": 1.0, "min": 1 / 60, "s": 1 / 3600}
    unit = next((unit for unit, length in units.items() if hours >= 2 * length), "s")
    return f"{hours / units[unit]:,.1f} {unit}"


def figures(runs: list[Run]) -> list[str]:
    """The cells of a row; dashes for what would need a network that is not in the book."""
    counts = [f"{len(runs)}", f"{sum(run.images for run in runs):,}"]
    kinds, hours = [run.kind for run in runs if run.kind], [run.hours for run in runs]
    if len(kinds) < len(runs):
        return counts + ["-"] * (len(HEADS) - 3)
    speeds = [kind.images_per_second for kind in kinds]
    return [
        *counts,
        "-".join(
            dict.fromkeys(f"{float(f'{speed:.3g}'):,g}" for speed in (min(speeds), max(speeds)))
        ),
        f"{sum(hours):,.1f}",
        f"{sum(kind.weights for kind in kinds) / 1e6:,.1f} MB",
        f"{max(kind.checkpoint for kind in kinds) / 1e6:,.1f} MB",
        *(span(wall(hours, n)) for n in DEVICES),
    ]


def show(what: list[str], seconds: float, console: Console) -> None:
    """Prints a table for each of `what`, files of sweeps or profiles of the zoo, and under it what
    it rests on."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        torch.set_num_threads(1)
    measured = meter(device, seconds)
    # a terminal may wrap the tables: cut, they would lose figures
    console.width = max(console.width, 200)
    for name in what:
        title, parts, notes = _zoo(name) if name in zoo.PROFILES else _file(Path(name))
        table = Table(title=title, title_justify="left", box=SIMPLE)
        for head in HEADS:
            table.add_column(head, justify="right" if head else "left", no_wrap=True)
        plans = {part: plan(entries, measured) for part, entries in parts.items()}
        for part, runs in plans.items():
            table.add_row(part, *figures(runs))
        known = [runs for runs in plans.values() if all(run.kind for run in runs)]
        if len(known) > 1:
            table.add_section()
            all_or_some = "together" if len(known) == len(plans) else "those measured"
            table.add_row(all_or_some, *figures([run for runs in known for run in runs]))
        console.print(table, *notes, sep="\n", soft_wrap=True)
    here = runner.machine(device)
    console.print(
        f"Measured on {here['hardware']}, {here['software']}; that is one device.", soft_wrap=True
    )


def _file(path: Path) -> tuple[str, dict[str, list[Entry]], list[str]]:
    title, sweeps = read(path)
    notes = [
        f"{s.name}: {s.source}" + f"; not stated, but assumed: {s.assumed}" * bool(s.assumed)
        for s in sweeps
    ]
    return title, {s.name: [cell.entry for cell in s.cells()] for s in sweeps}, notes


def _zoo(profile: str) -> tuple[str, dict[str, list[Entry]], list[str]]:
    parts: dict[str, list[Entry]] = {}
    for entry in zoo.zoo(profile).values():
        parts.setdefault(entry.data["name"], []).append(entry)
    return f"The zoo, profile {profile}", parts, ["helpers.experiments.zoo"]
