"""The zoo: every network of the book, as a row of a table: class, options, data, recipe."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ..recipe import Recipe
from ..systems.bastek.physics import HIGHEST, LOWEST, PhysicsRecipe
from .colour import GENERATING as GENERATING
from .colour import HOUR, colour, studies
from .entry import BASE, PAPER, Entry
from .entry import GENERATE as GENERATE

MINUTES = {"t4": 60, "h200": 30}  # for all networks together, on one GPU
LOOKS = 10  # how often a training is looked at
PROFILES = ("cpu", "gpu", "full", *MINUTES)
DARCY = {  # what a network of flows is told of the equation, see helpers.systems.bastek.physics
    "vanilla": {},
    "mean": {"weight": 1e-5},
    "mean-strong": {"weight": 1e-4},
    "sample": {"weight": 1e-5, "estimate": "sample"},
}


def variants(channels: int, size: int) -> dict[str, tuple[str, dict[str, Any], dict[str, Any]]]:
    """The networks that chapter 13 compares, by name: class, options, and what their recipe
    changes.

    One thing is changed at a time in a UNet of two blocks and so many channels ("conditioned"
    against "bias"), for images of size x size; others are no UNets. A row here is trained, measured
    and shown with the rest.
    """
    unet = {"blocks": 2, "channels": channels, "normalisation": "none"}
    changed: dict[str, dict[str, Any]] = {
        "base": {},
        "blocks-1": {"blocks": 1},
        "blocks-3": {"blocks": 3},
        "channels-half": {"channels": channels // 2},
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
    chain = {"channels": channels, "normalisation": "none"}
    mlp = {"size": size, "image_channels": 1, "width": 2 * channels}
    return {
        **{name: ("UNet", {**unet, **options}, {}) for name, options in changed.items()},
        "attention": ("AttentionUNet", unet, {}),
        "chain": ("CNN", chain, {"rate": 1e-3}),
        "mlp": ("ImageMLP", mlp, {"rate": 5e-4}),
    }


VARIANTS = tuple(variants(8, 32))  # their names


def zoo(profile: str = "cpu") -> dict[str, Entry]:
    """All entries by name, the most wanted first.

    "cpu": hours on two cores. "gpu": the same networks see eight times as many images. "full": the
    schedules of the papers, and for faces their network and size: days on a GPU, and more than the
    34 MB that ship. "t4", "h200": the networks in colour, six or all, in larger batches; how many
    images they see is planned where they train, so that all together take MINUTES.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}: choose one of {', '.join(PROFILES)}")
    return dict(_entries(profile))


def _entries(profile: str) -> Iterator[tuple[str, Entry]]:
    if profile in MINUTES:
        for name, entry in colour():
            if profile != "t4" or name.removeprefix("colour-") in HOUR:
                yield (
                    name,
                    replace(entry, recipe=replace(entry.recipe, batch=max(64, entry.recipe.batch))),
                )
        return
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
        for n, images in (
            (1000, 240_000),
            (largest, 240_000),
            (100, 240_000),
            (10, 60_000),
            (1, 30_000),
        ):
            where = {**data, "split": {"a": "train", "b": "disjoint"}[letter], "n": n}
            # of these only records tell
            ships = (prefix, letter) != ("faces", "b") or n not in (1, 100)
            yield (
                f"{prefix}-n{n}-{letter}",
                Entry("UNet", options, where, recipe(images, **changes), ships),
            )

    if profile == "cpu":  # of a chapter on 28 x 28
        small = {"batch": 64, "rate": 5e-3, "loss": "edm", "clip": 1.0, "ema": None}
        made = replace(BASE, steps=6_000, noise=("log-normal", -2.0, 1.2), **small)
        where = {"name": "fashion-mnist", "size": 28, "n": 10_000}
        yield "fashion-unet-blind-n10000", Entry("UNet", unet, where, made)
        yield from studies(unet)
        yield from colour()
    faces = {"name": "celeba", "size": 40}
    wide = {**unet, "channels": 32}
    if profile == "full":
        faces, wide = {"name": "celeba", "size": 80}, {"blocks": 3, "channels": 64}
    yield from counts("faces", "a", wide, faces, 9442)
    clothes = {"name": "fashion-mnist", "size": 32}
    # of the noise level: can be sampled from any, as the labs do
    heard = {**unet, "bias": True, "blind": False}
    for letter in "ab":
        yield from counts(
            "fashion", letter, heard, clothes, 5000, noise=("log-uniform", 0.01, 20.0)
        )
    for source, data, channels, images in (
        ("fashion", {"name": "fashion-mnist", "size": 32, "n": 1000}, 8, 80_000),
        ("faces", {"name": "celeba", "size": 40, "n": 1000}, 16, 120_000),
    ):
        for variant, (network, options, changed) in variants(channels, data["size"]).items():
            yield f"{source}-{variant}", Entry(network, options, data, recipe(images, **changed))
    # a judge of images, not an object of study: small noise only, and the same in every profile
    judge = replace(BASE, steps=5000, batch=64, noise=("fixed", 0.1), loss="sum")
    for source, data in (
        ("fashion", {**clothes, "n": 10_000}),
        ("faces", {"name": "celeba", "size": 40, "n": 18_000}),
    ):
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
    yield (
        "ray",
        Entry(
            "UNet",
            {**unet, "channels": 8},
            {"name": "ray", "n": 20_000, "size": 40},
            recipe(50_000),
        ),
    )
    if profile != "full":  # of a recipe only what is observed differs, so that networks compare
        steps, flow = 4000, {"name": "darcy", "n": 4000, "size": 16, "modes": 24}
        pairs = {**unet, **GENERATING, "image_channels": 2}
        if profile == "gpu":  # the size of the paper, a tenth of its steps
            steps, flow = 30_000, {"name": "darcy", "n": 10_000, "size": 64, "modes": 64}
            pairs |= {"blocks": 4, "channels": 32}
        noise = ("cosine", round(LOWEST, 4), round(HIGHEST, 1))
        # in float32: what a residual sees of a pressure, bfloat16 rounds away
        physical = PhysicsRecipe(steps=steps, batch=32, rate=5e-3, noise=noise, loss="snr", warmup=100,
                                 clip=1.0, ema=0.998)  # fmt: skip
        for variant, observed in DARCY.items():
            yield f"darcy-{variant}", Entry("UNet", pairs, flow, replace(physical, **observed))
    yield (
        "shuffled-faces",
        Entry("UNet", unet, {"name": "shuffled", "n": 18_000, "size": 40}, recipe(120_000)),
    )
    yield from counts("faces", "b", wide, faces, 9442)
