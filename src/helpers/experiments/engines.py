"""Many tasks, in this process, on all cores or on a Ray cluster: the same results, one interface."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

import helpers

# of what was lost with its process or its machine; an error of the training itself is final
RETRIES = 3
# of each item, in the order in which they end: what the task gave, or its error
Outcomes = Iterator[tuple[Any, Any]]
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
                # of all that were not done
                if isinstance(error, BrokenProcessPool) and lost < RETRIES:
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
