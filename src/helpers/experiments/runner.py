"""A row of a table of networks, from its entry to its weights: what the zoo, sweeps and records
train, all train here."""

import inspect
import json
import os
import platform
import re
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import looks, models
from ..cards import NAME, digest
from ..data import ImageSet, load
from ..denoisers import Denoiser, Network
from ..files import write_atomically
from ..systems.bastek.darcy import Darcy, darcy
from ..systems.bastek.physics import PhysicsRecipe
from ..training import Progress, train
from .zoo import LOOKS, Entry


def make(name: str, entry: Entry, profile: str, device: str, folder: Path) -> None:
    """Train one network to its end and enter it with its card in the folder of models; resumes from
    `folder`."""
    data = source(**entry.data)
    test = source(**{**entry.data, "split": "test", "n": None})
    r, denoiser = entry.recipe, untrained(entry, data).to(device)
    state = checkpoint(name, entry, folder)
    history, sheet = state.with_suffix(".json"), state.with_suffix(".png")
    if not re.fullmatch(NAME, name):
        raise ValueError(f"name is {name!r}: use lower-case letters, digits and single hyphens")
    try:
        json.dumps(denoiser.arguments)  # before hours are spent on what could not be kept
        if entry.watched:
            models.load(looks.JUDGES[entry.data["name"]][0])
        curve = json.loads(history.read_text()) if history.exists() and state.exists() else {}
    except TypeError as error:
        raise ValueError(
            f"arguments of {entry.network} are no JSON ({error}): take numbers and words"
        ) from None
    except json.JSONDecodeError:
        raise ValueError(
            f"{history} is damaged: remove it and {state.name} to train from the start"
        ) from None
    shown, due = time.perf_counter(), {max(1, r.steps * k // LOOKS) for k in range(1, LOOKS + 1)}
    for progress in steps(entry, denoiser, data.images, state):
        if progress.step in due and str(progress.step) not in curve:
            seen = {"psnr": [gap(progress.denoiser, part, device) for part in (data, test)]}
            if entry.watched:
                made = looks.samples(progress.denoiser, data.images, device)
                looks.add_row(sheet, made, len(curve))
                seen |= looks.judged(made, data, test, r.flip)
            curve[str(progress.step)] = seen
            write_atomically(history, json.dumps(curve))
        if time.perf_counter() - shown > 30 or progress.step == r.steps:
            shown = time.perf_counter()
            print(
                f"{name}: step {progress.step} of {r.steps}, loss {progress.loss:.3f}, "
                f"{progress.images_per_second:.0f} images/s, {progress.remaining:.0f} s left",
                flush=True,
            )
    about = card(name, profile, entry, data, progress.seconds, device)
    images = [int(step) * r.batch for step in curve]
    about["curve"] = [
        [n, *seen.pop("psnr")] for n, seen in zip(images, curve.values(), strict=True)
    ]
    if entry.watched:
        about["looks"] = [
            {"images": n, **seen} for n, seen in zip(images, curve.values(), strict=True)
        ]
        picture = looks.as_webp(sheet.read_bytes())
        write_atomically(models.models_folder() / f"{name}.webp", picture)
        about["sheet"] = digest(picture)
    models.save(name, denoiser.cpu(), about, test.images, data.images)
    for left in (state, history, sheet):
        left.unlink(missing_ok=True)


def checkpoint(name: str, entry: Entry, folder: Path) -> Path:
    """Where its training keeps its state: a changed entry does not meet that of the old one."""
    return folder / f"{name}-{entry.key()}.safetensors"


def untrained(entry: Entry, data: ImageSet) -> Network:
    """The network of an entry, which knows how much its training images vary where its class can be
    told."""
    known = models.classes()
    if entry.network not in known:
        raise ValueError(
            f"network is {entry.network!r}: choose one of {', '.join(known)}, or put its class into a "
            "file of helpers/denoisers/networks; what a notebook defines other processes do not see, "
            "so there call helpers.experiments.runner.make yourself"
        )
    # of a network for each level
    inner = known.get(str(entry.options.get("network")), known[entry.network])
    takes = inspect.signature(inner.__init__).parameters
    about = {"data_std": round(float(data.images.std()), 3)} if "data_std" in takes else {}
    return known[entry.network](**{**entry.options, **about})


def trained(
    entry: Entry,
    data: ImageSet | None = None,
    state: Path | None = None,
    device: str = "cpu",
    seconds: float = 60.0,
) -> tuple[Network, Progress]:
    """The network of an entry at the end of its training, and what that reported last.

    state: the file in which the training keeps itself every so many `seconds`; where it is there,
    the training goes on from it, and of a finished one only reads it. data: where it is at hand.
    """
    data = data or source(**entry.data)
    denoiser = untrained(entry, data).to(device)
    progress = deque(steps(entry, denoiser, data.images, state, seconds), maxlen=1).pop()
    return denoiser, progress


def steps(entry: Entry, denoiser: Denoiser, images: Tensor, *checkpoint: Any) -> Iterator[Progress]:
    """Its training, with the equation in the loss where the recipe has one."""
    more = {}
    if isinstance(entry.recipe, PhysicsRecipe):
        more["penalty"] = entry.recipe.penalty(
            Darcy(entry.data["size"], entry.data["modes"]).residual
        )
    return train(denoiser, images, entry.recipe, *checkpoint, **more)


def source(name: str, **options: Any) -> ImageSet:
    """The data of an entry: images, or pairs of fields that obey an equation."""
    return darcy(**options) if name == "darcy" else load(name, **options)


def gap(denoiser: Denoiser, data: ImageSet, device: str) -> float:
    """PSNR in dB at sigma = 25/255 on 200 images, or on a smaller set as often as it takes."""
    images = models.repeated(data.images[:200].to(device), 200)
    return models.psnr_table(denoiser, images, levels=(25,))["psnr"][0]


def card(
    name: str, profile: str, entry: Entry, data: ImageSet, seconds: float, device: str
) -> dict[str, Any]:
    """What the manifest says of how a network was made."""
    r = entry.recipe
    return {
        "recipe": f"python -m helpers.experiments train {name} --profile {profile}",
        "key": entry.key(),
        "profile": profile,
        "data": str(data),
        **({} if entry.ships else {"ships": False}),
        "N": len(data),
        "mean": round(float(data.images.mean()), 3),
        "seed": r.seed,
        "training": {k: v for k, v in asdict(r).items() if k != "seed"},
        "products": str(r.products(torch.device(device))).removeprefix("torch."),
        "images_seen": r.steps * r.batch,
        **machine(device),
        "seconds": round(seconds),
    }


def machine(device: str) -> dict[str, str]:
    """What trains: one core or one GPU."""
    return {
        "hardware": torch.cuda.get_device_name()
        if device == "cuda"
        else f"1 of {os.cpu_count()} CPU cores",
        "software": f"torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}",
    }
