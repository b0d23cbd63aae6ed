"""The zoo: every network that ships with the book, and its training, run by `python -m helpers.pipeline train`."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import looks, models
from .darcy import Darcy, darcy
from .data import ImageSet, load
from .denoisers import Denoiser
from .files import write_atomically
from .physics import PhysicsRecipe
from .training import Progress, Recipe, train

PROFILES = ("cpu", "gpu", "full")
LOOKS = 10  # how often in a training the gap between training and test images is measured
# every level counts alike, from invisible noise to where a blind network no longer knows how bright the image was
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
GRID = {  # one thing changed at a time in a UNet of two blocks ("conditioned" against "bias")
    "base": {},
    "blocks-1": {"blocks": 1},
    "blocks-3": {"blocks": 3},
    "channels-half": {},
    "pool-max": {"pooling": "max"},
    "pool-strided": {"pooling": "strided"},
    "pool-none": {"pooling": "none"},
    "norm-bias-free": {"normalisation": "bias-free"},
    "norm-batch": {"normalisation": "batch"},
    "skip-none": {"skip": "none"},
    "pad-circular": {"padding": "circular"},
    "pad-reflect": {"padding": "reflect"},
    "bias": {"bias": True},
    "conditioned": {"bias": True, "blind": False},
}
GENERATE = Recipe(  # for a network that is sampled from pure noise, chosen by the trials of chapter 10
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
COLOUR = {  # one thing changed at a time in a conditioned UNet of three blocks and 16 channels, the most wanted first
    "blocks-3": {},
    "blocks-1": {"blocks": 1},
    "pad-circular": {"padding": "circular"},
    "blocks-2": {"blocks": 2},
    "skip-none": {"skip": "none"},
    "channels-8": {"channels": 8},
    "channels-4": {"channels": 4},
    "pool-none": {"pooling": "none"},
    "pool-max": {"pooling": "max"},
    "pool-strided": {"pooling": "strided"},
    "pad-reflect": {"padding": "reflect"},
}
DARCY = {  # what a network of flows is told of the equation, see helpers.physics
    "vanilla": {},
    "mean": {"weight": 1e-7},
    "mean-strong": {"weight": 1e-5},
    "mean-low-noise": {"weight": 1e-6, "below": 0.5},
}


@dataclass(frozen=True)
class Entry:
    """One network: its class and options, the arguments of `load` for its training set, and the recipe."""

    network: str
    options: dict[str, Any]
    data: dict[str, Any]
    recipe: Recipe

    @property
    def generates(self) -> bool:
        """Whether it is trained to be sampled from pure noise: it makes images and hears the noise level."""
        return self.data["name"] in looks.JUDGES and not self.options.get("blind", True)

    def key(self) -> str:
        """Changes with everything that changes the network."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


def zoo(profile: str = "cpu") -> dict[str, Entry]:
    """All entries by name, the most wanted first.

    "cpu": hours on two cores. "gpu": the same networks see eight times as many images. "full": the schedules of the
    papers, and for faces their network and size: days on a GPU, and more than the 34 MB that ship.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}: choose one of {', '.join(PROFILES)}")
    return dict(_entries(profile))


def _entries(profile: str) -> Iterator[tuple[str, Entry]]:
    unet = {"blocks": 2, "channels": 16, "normalisation": "none"}

    def recipe(images: int, **changes) -> Recipe:
        """So many images seen."""
        if profile == "full":
            return PAPER
        if profile == "gpu":  # more at a time, so that its launches do not dominate
            changes, images = {"batch": 128, **changes}, 8 * images
        made = replace(BASE, **changes)
        return replace(made, steps=images // made.batch)

    def counts(
        prefix: str, letter: str, options: dict, data: dict, largest: int, **changes
    ) -> Iterator[tuple[str, Entry]]:
        """The memorisation experiment on one of two disjoint sets of each size."""
        for n, images in ((1000, 240_000), (largest, 240_000), (100, 240_000), (10, 60_000), (1, 30_000)):
            where = {**data, "split": {"a": "train", "b": "disjoint"}[letter], "n": n}
            yield f"{prefix}-n{n}-{letter}", Entry("UNet", options, where, recipe(images, **changes))

    if profile == "cpu":  # in the labs of the book: 28x28, conditioned, and a blind one
        small = {"batch": 64, "rate": 5e-3, "loss": "edm", "clip": 1.0, "ema": None}
        for name, n, steps, options, law in (
            ("fashion-unet-n10000", 10_000, 16_000, {"blind": False, "bias": True}, (-1.0, 1.6)),
            ("fashion-unet-n50", 50, 16_000, {"blind": False, "bias": True}, (-1.0, 1.6)),
            ("fashion-unet-blind-n10000", 10_000, 6_000, {}, (-2.0, 1.2)),
        ):
            made = replace(BASE, steps=steps, noise=("log-normal", *law), **small)
            yield name, Entry("UNet", {**unet, **options}, {"name": "fashion-mnist", "size": 28, "n": n}, made)
        thousand = {"name": "celeba", "size": 64, "colour": "rgb", "n": 1000}  # as Levine & Weiss 2026
        deep = {**unet, "blocks": 3, "image_channels": 3, "blind": False, "bias": True, "level": "scale"}
        generating = replace(GENERATE, steps=240_000 // GENERATE.batch)
        for variant, changed in COLOUR.items():
            yield f"colour-{variant}", Entry("UNet", {**deep, **changed}, thousand, generating)
        for n in (10, 100):
            yield f"colour-n{n}", Entry("UNet", deep, {**thousand, "n": n}, generating)
    faces = {"name": "celeba", "size": 40}
    wide = {**unet, "channels": 32}
    if profile == "full":
        faces, wide = {"name": "celeba", "size": 80}, {"blocks": 3, "channels": 64}
    yield from counts("faces", "a", wide, faces, 9442)
    clothes = {"name": "fashion-mnist", "size": 32}
    heard = {**unet, "bias": True, "blind": False}  # of the noise level: can be sampled from any, as the labs do
    for letter in "ab":
        yield from counts("fashion", letter, heard, clothes, 5000, noise=("log-uniform", 0.01, 20.0))
    for source, data, channels, images in (
        ("fashion", {"name": "fashion-mnist", "size": 32, "n": 1000}, 8, 80_000),
        ("faces", {"name": "celeba", "size": 40, "n": 1000}, 16, 120_000),
    ):
        for variant, changed in GRID.items():
            width = channels // 2 if variant == "channels-half" else channels
            options = {**unet, "channels": width, **changed}
            yield f"{source}-{variant}", Entry("UNet", options, data, recipe(images))
        chain = {"channels": channels, "normalisation": "none"}
        yield f"{source}-chain", Entry("CNN", chain, data, recipe(images, rate=1e-3))
        mlp = {"size": data["size"], "image_channels": 1, "width": 2 * channels}
        yield f"{source}-mlp", Entry("ImageMLP", mlp, data, recipe(images, rate=5e-4))
    # a judge of images, not an object of study: small noise only, and the same in every profile
    judge = replace(BASE, steps=5000, batch=64, noise=("fixed", 0.1), loss="sum")
    for source, data in (("fashion", {**clothes, "n": 10_000}), ("faces", {"name": "celeba", "size": 40, "n": 18_000})):
        yield f"{source}-autoencoder", Entry("Autoencoder", {"size": data["size"]}, data, judge)
    yield (
        "faces80",
        Entry(
            "UNet",
            wide,
            {"name": "celeba", "n": 18_000, "size": 80},
            recipe(120_000, noise=("log-uniform", 0.01, 2.0)),
        ),
    )
    for alpha in (1, 2, 3, 4, 5):
        data = {"name": "c-alpha", "n": 20_000, "alpha": alpha}
        yield f"c-alpha-{alpha}", Entry("UNet", {**unet, "channels": 12}, data, recipe(50_000))
    for name in ("disks", "sine"):
        yield name, Entry("UNet", unet, {"name": name, "n": 20_000, "size": 40}, recipe(120_000))
    yield "ray", Entry("UNet", {**unet, "channels": 8}, {"name": "ray", "n": 20_000, "size": 40}, recipe(50_000))
    if profile != "full":  # of a recipe only what is observed differs, so that networks compare
        steps, flow = 2500, {"name": "darcy", "n": 4000, "size": 16, "modes": 24}
        pairs = {**unet, "bias": True, "blind": False, "image_channels": 2}
        if profile == "gpu":  # the size of the paper, a tenth of its steps
            steps, flow = 30_000, {"name": "darcy", "n": 10_000, "size": 64, "modes": 64}
            pairs |= {"blocks": 4, "channels": 32}
        physical = PhysicsRecipe(steps=steps, batch=64, rate=3e-3, noise=("cosine", 0.0157, 40.0), loss="snr",
                                 warmup=100, clip=1.0, ema=0.998, precision="mixed")  # fmt: skip
        for variant, observed in DARCY.items():
            yield f"darcy-{variant}", Entry("UNet", pairs, flow, replace(physical, **observed))
    yield "shuffled-faces", Entry("UNet", unet, {"name": "shuffled", "n": 18_000, "size": 40}, recipe(120_000))
    yield from counts("faces", "b", wide, faces, 9442)


def make(name: str, profile: str, device: str, folder: Path) -> None:
    """Train one network to its end and enter it with its card in the folder of models; resumes from `folder`."""
    entry = zoo(profile)[name]
    data = source(**entry.data)
    test = source(**{**entry.data, "split": "test", "n": None})
    r, denoiser = entry.recipe, untrained(entry, data).to(device)
    state = checkpoint(name, entry, folder)
    history, sheet = state.with_suffix(".json"), state.with_suffix(".png")
    curve = json.loads(history.read_text()) if history.exists() and state.exists() else {}
    shown, due = time.perf_counter(), {max(1, r.steps * k // LOOKS) for k in range(1, LOOKS + 1)}
    for progress in steps(entry, denoiser, data.images, state):
        if progress.step in due and str(progress.step) not in curve:
            seen = {"psnr": [gap(progress.denoiser, part, device) for part in (data, test)]}
            if entry.generates:
                made = looks.samples(progress.denoiser, tuple(data.images.shape[1:]), device)
                looks.add_row(sheet, made, len(curve))
                seen |= looks.judged(made, data, test)
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
    about["curve"] = [[n, *seen.pop("psnr")] for n, seen in zip(images, curve.values(), strict=True)]
    if entry.generates:
        about["looks"] = [{"images": n, **seen} for n, seen in zip(images, curve.values(), strict=True)]
        write_atomically(models.models_folder() / f"{name}.webp", looks.as_webp(sheet.read_bytes()))
    models.save(name, denoiser.cpu(), about, test.images, data.images)
    for left in (state, history, sheet):
        left.unlink(missing_ok=True)


def checkpoint(name: str, entry: Entry, folder: Path) -> Path:
    """Where its training keeps its state: a changed entry does not meet that of the old one."""
    return folder / f"{name}-{entry.key()}.safetensors"


def untrained(entry: Entry, data: ImageSet) -> Denoiser:
    """The network of an entry, which for a UNet knows how much its training images vary."""
    about = {"data_std": round(float(data.images.std()), 3)} if entry.network == "UNet" else {}
    return models.CLASSES[entry.network](**{**entry.options, **about})


def steps(entry: Entry, denoiser: Denoiser, images: Tensor, *checkpoint: Any) -> Iterator[Progress]:
    """Its training, with the equation in the loss where the recipe has one."""
    more = {}
    if isinstance(entry.recipe, PhysicsRecipe):
        more["penalty"] = entry.recipe.penalty(Darcy(entry.data["size"], entry.data["modes"]).residual)
    return train(denoiser, images, entry.recipe, *checkpoint, **more)


def source(name: str, **options: Any) -> ImageSet:
    """The data of an entry: images, or pairs of fields that obey an equation."""
    return darcy(**options) if name == "darcy" else load(name, **options)


def gap(denoiser: Denoiser, data: ImageSet, device: str) -> float:
    """PSNR in dB at sigma = 25/255 on 200 images, or on a smaller set as often as it takes."""
    images = models.repeated(data.images[:200].to(device), 200)
    return models.psnr_table(denoiser, images, levels=(25,))["psnr"][0]


def card(name: str, profile: str, entry: Entry, data: ImageSet, seconds: float, device: str) -> dict[str, Any]:
    """What the manifest says of how a network was made."""
    r = entry.recipe
    return {
        "recipe": f"python -m helpers.pipeline train {name} --profile {profile}",
        "key": entry.key(),
        "profile": profile,
        "data": str(data),
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
        "hardware": torch.cuda.get_device_name() if device == "cuda" else f"1 of {os.cpu_count()} CPU cores",
        "software": f"torch {torch.__version__.split('+')[0]}, Python {platform.python_version()}",
    }
