"""Training many networks: one process of one thread for each core, and every run goes on where it was interrupted."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .. import models, zoo


def pending(names: list[str], profile: str) -> list[str]:
    """Of the named entries of the zoo (all when none is named), those whose model is missing or made another way."""
    entries = zoo.zoo(profile)
    unknown = [name for name in names if name not in entries]
    if unknown:
        raise ValueError(f"no entry of the zoo is called {', '.join(unknown)}: choose among {', '.join(entries)}")
    cards = models.manifest() if (models.models_folder() / "manifest.json").exists() else {}
    there = {name for name, card in cards.items() if (models.models_folder() / f"{name}.safetensors").exists()}
    return [n for n in dict.fromkeys(names or entries) if n not in there or cards[n].get("key") != entries[n].key()]


def sweep(names: list[str], profile: str, device: str, workers: int, folder: Path) -> dict[str, int]:
    """Train what is pending, `workers` processes at a time; the exit status of each. A failure stops only its own."""

    def one(name: str) -> int:
        command = [sys.executable, "-m", "helpers.zoo", name, profile, device, str(folder / profile)]
        threads = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
        return subprocess.run(command, env={**os.environ, **threads}).returncode

    todo = pending(names, profile)
    with ThreadPoolExecutor(workers) as pool:
        return dict(zip(todo, pool.map(one, todo), strict=True))
