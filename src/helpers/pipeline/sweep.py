"""Many trainings, in this process, on all cores or on a Ray cluster: what is done stays, an
interrupted one goes on."""

import csv
import io
import json
import logging
import math
import os
import re
import socket
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

import helpers

from .. import models
from ..checkpoint import reached
from ..experiments import runner, zoo
from ..experiments.grid import Cell, checkpoint, train_cell
from ..experiments.zoo import Entry
from ..files import write_atomically
from .cost import kind, measure, meter

# seconds since a training has saved its state, which it does every minute, within which it is
# running
LATELY = 300
RETRIES = (
    3  # of what was lost with its process or its machine; an error of the training itself is final
)
Outcomes = Iterator[
    tuple[Any, Any]
]  # of each item, in the order in which they end: what the task gave, or its error
Engine = Callable[[Callable, Iterable], Outcomes]


def on_process(task: Callable, items: Iterable) -> Outcomes:
    """One after the other, here."""
    for item in items:
        try:
            yield item, task(item)
        except Exception as error:  # a failure stops only its own
            yield item, error


def on_cores(task: Callable, items: Iterable, workers: int, humble: bool = False) -> Outcomes:
    """So many at a time, in processes of one thread each that end with this one; humble: everything
    else goes first."""
    items, lost = list(items), 0
    while items:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _follow, (humble,))
        futures = {pool.submit(task, item): item for item in items}
        items = []
        try:
            for future in as_completed(futures):
                error = future.exception()
                if (
                    isinstance(error, BrokenProcessPool) and lost < RETRIES
                ):  # of all that were not done
                    items.append(futures[future])
                else:
                    yield futures[future], error or future.result()
        finally:
            pool.shutdown(cancel_futures=True)
        lost += 1


def _follow(humble: bool) -> None:
    """Ends this worker once its parent is gone, kill -9 included: the next run must not meet an
    older one's."""

    def watch() -> None:
        if parent := parent_process():
            parent.join()
        os._exit(1)

    if humble and hasattr(os, "nice"):  # Windows has none
        os.nice(10)
    torch.set_num_threads(1)
    threading.Thread(target=watch, daemon=True).start()


def on_ray(task: Callable, items: Iterable, address: str | None, gpus: float) -> Outcomes:
    """One CPU and so many GPUs, or a share of one, for each; tasks lost with a worker or a node are
    run again.

    address: of a running cluster, or "auto"; None starts one on this machine. The package itself
    travels to the nodes; torch and what else it needs must be installed there.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise ValueError(
            "engine is 'ray', which is not installed: pip install 'creative-denoiser[cluster]'"
        ) from None
    code = {"py_modules": [str(Path(helpers.__file__).parent)]}
    try:
        if address and ":" in address:  # Ray would ask an address that is silent for minutes
            host, _, port = address.rpartition("/")[2].rpartition(":")
            socket.create_connection((host, port), 10).close()
        ray.init(address or "local", runtime_env=code, include_dashboard=None if address else False,
                 log_to_driver=False, logging_level=logging.ERROR)  # fmt: skip
    except OSError:
        raise ValueError(
            f"address is {address!r}, where no cluster answers: start one with `ray start`"
        ) from None
    try:
        if gpus > (there := ray.cluster_resources().get("GPU", 0)):
            raise ValueError(
                f"gpus is {gpus}: the cluster has {there:g}, and would wait for more for ever"
            )
        remote: Any = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=RETRIES)(
            lambda item: task(item)
        )
        waiting = {remote.remote(item): item for item in items}
        while waiting:
            [done], _ = ray.wait(list(waiting))
            item = waiting.pop(done)
            try:
                yield item, ray.get(done)
            except ray.exceptions.RayTaskError as error:
                yield item, error.cause
            except ray.exceptions.RayError as error:
                yield item, error
    finally:
        ray.shutdown()


def engine(name: str, address: str | None = None, gpus: float = 0.0) -> tuple[Engine, str]:
    """The engine of that name, and the device on which its tasks train; ValueError for what does
    not go together."""
    engines: dict[str, Engine] = {
        "process": on_process,
        "cores": partial(on_cores, workers=os.cpu_count() or 1),
        "ray": partial(on_ray, address=address, gpus=gpus),
    }
    if name not in engines:
        raise ValueError(f"engine is {name!r}: choose one of {', '.join(engines)}")
    if address and name != "ray":
        raise ValueError(f"address is {address!r}: engine {name!r} has none, take ray")
    if gpus and name == "cores":
        raise ValueError(f"gpus is {gpus}: engine 'cores' trains on cores, take ray or process")
    if gpus and name == "process" and not torch.cuda.is_available():
        raise ValueError(f"gpus is {gpus}: torch finds none on this machine, take 0")
    return engines[name], "cuda" if gpus else "cpu"


# A grid -------------------------------------------------------------------------------------------


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
    """One row for each cell that is done, in the order of the grid."""
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


# The zoo ------------------------------------------------------------------------------------------


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


def sweep_zoo(
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
