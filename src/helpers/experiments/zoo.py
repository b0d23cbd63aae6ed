"""The zoo: every network of the book, as a row of a table: class, options, data, recipe."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..recipe import Recipe
from ..systems.bastek.physics import PhysicsRecipe

MINUTES = {"t4": 60, "h200": 30}  # for all networks together, on one GPU
LOOKS = 10  # how often a training is looked at
PROFILES = ("cpu", "gpu", "full", *MINUTES)
# every level counts alike, from invisible noise to where a blind network no longer knows how bright
# the image was
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
# for a network that is sampled from pure noise; the trials of chapter 10 weigh its choices
GENERATE = Recipe(
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
# options of such a UNet
GENERATING = {"normalisation": "none", "bias": True, "blind": False, "level": "scale"}
# one thing changed at a time in a conditioned UNet of three blocks and 16 channels, the most wanted
# first
COLOUR = {
    "blocks-3": {},
    "blocks-1": {"blocks": 1},
    "pad-circular": {"padding": "circular"},
    "blocks-2": {"blocks": 2},
    "skip-none": {"skip": "none"},
    "channels-4": {"channels": 4},
    "channels-8": {"channels": 8},
    "pool-none": {"pooling": "none"},
    "pool-max": {"pooling": "max"},
    "pool-strided": {"pooling": "strided"},
    "pad-reflect": {"padding": "reflect"},
    "blocks-4": {"blocks": 4},
    "channels-32": {"channels": 32},
}
# on a small GPU
HOUR = ("blocks-3", "blocks-1", "pad-circular", "blocks-2", "skip-none", "channels-4")
KEPT = (*HOUR, "channels-8")  # weights ship
# ours: the source has ten, and does not say which
LEVELS = [0.04, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 7.0, 16.0, 40.0]
DARCY = {  # what a network of flows is told of the equation, see helpers.systems.bastek.physics
    "vanilla": {},
    "mean": {"weight": 1e-7},
    "mean-strong": {"weight": 1e-5},
    "mean-low-noise": {"weight": 1e-6, "below": 0.5},
}


@dataclass(frozen=True)
class Entry:
    """One network: its class and options, the arguments of `load` for its training set, and the
    recipe.

    ships: whether its weights are in the repository, or only its card and its samples. watched:
    whether samples are drawn and judged while it trains.
    """

    network: str
    options: dict[str, Any]
    data: dict[str, Any]
    recipe: Recipe
    ships: bool = True
    watched: bool = False

    def key(self) -> str:
        """Changes with everything that changes the network."""
        decides = {k: v for k, v in asdict(self).items() if k not in ("ships", "watched")}
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]


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
        for name, entry in _colour():
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
            yield (
                f"{prefix}-n{n}-{letter}",
                Entry("UNet", options, where, recipe(images, **changes)),
            )

    if profile == "cpu":  # in the labs of the book: 28x28, conditioned, and a blind one
        small = {"batch": 64, "rate": 5e-3, "loss": "edm", "clip": 1.0, "ema": None}
        for name, n, steps, options, law in (
            ("fashion-unet-n10000", 10_000, 16_000, {"blind": False, "bias": True}, (-1.0, 1.6)),
            ("fashion-unet-n50", 50, 16_000, {"blind": False, "bias": True}, (-1.0, 1.6)),
            ("fashion-unet-blind-n10000", 10_000, 6_000, {}, (-2.0, 1.2)),
        ):
            made = replace(BASE, steps=steps, noise=("log-normal", *law), **small)
            yield (
                name,
                Entry(
                    "UNet", {**unet, **options}, {"name": "fashion-mnist", "size": 28, "n": n}, made
                ),
            )
        yield from _colour()
        yield from _studies(unet)
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
        steps, flow = 2500, {"name": "darcy", "n": 4000, "size": 16, "modes": 24}
        pairs = {**unet, "bias": True, "blind": False, "image_channels": 2}
        if profile == "gpu":  # the size of the paper, a tenth of its steps
            steps, flow = 30_000, {"name": "darcy", "n": 10_000, "size": 64, "modes": 64}
            pairs |= {"blocks": 4, "channels": 32}
        physical = PhysicsRecipe(steps=steps, batch=64, rate=3e-3, noise=("cosine", 0.0157, 40.0), loss="snr",
                                 warmup=100, clip=1.0, ema=0.998, precision="mixed")  # fmt: skip
        for variant, observed in DARCY.items():
            yield f"darcy-{variant}", Entry("UNet", pairs, flow, replace(physical, **observed))
    yield (
        "shuffled-faces",
        Entry("UNet", unet, {"name": "shuffled", "n": 18_000, "size": 40}, recipe(120_000)),
    )
    yield from counts("faces", "b", wide, faces, 9442)


def _colour() -> Iterator[tuple[str, Entry]]:
    """Levine & Weiss 2026: their UNets and others on the first thousand faces, 64 x 64 in colour."""
    thousand = {"name": "celeba", "size": 64, "colour": "rgb", "n": 1000}
    unet = {**GENERATING, "blocks": 3, "channels": 16, "image_channels": 3}
    generate = replace(GENERATE, steps=240_000 // GENERATE.batch)

    def entry(
        options: dict, ships: bool = False, network: str = "UNet", recipe: Recipe = generate, **data
    ) -> Entry:
        return Entry(network, options, {**thousand, **data}, recipe, ships, watched=True)

    named = {
        variant: entry({**unet, **changed}, variant in KEPT) for variant, changed in COLOUR.items()
    }
    # ahead by KID in the short trials of chapter 10, behind by PSNR: what they are at their end
    # decides the recipe
    yield "colour-rate-low", entry(unet, recipe=replace(generate, rate=1e-3))
    yield "colour-level-channel", entry({**unet, "level": "channel"})
    wanted = list(COLOUR)[:6]
    yield from ((f"colour-{v}", named[v]) for v in wanted)
    for n in (100, 10):
        yield f"colour-n{n}", entry(unet, n=n)
    # a narrow middle is cheap for many images at a time, and slow to learn; it cannot reach small
    # errors at low noise, so that "edm" would see nothing else
    wide = replace(GENERATE, batch=128, rate=5e-4, loss="level", steps=2_000_000 // 128)
    mlps = {
        h: {"size": 64, "image_channels": 3, "width": h, "blind": False} for h in (50, 200, 1000)
    }
    yield "colour-mlp-200", entry(mlps[200], network="ImageMLP", recipe=wide)
    yield "colour-mlp-50", entry(mlps[50], network="ImageMLP", recipe=wide)
    # a network for each level: so batch normalisation, as its source has it, sees one level at a
    # time
    told = {**unet, "level": "channel", "network": "UNet", "levels": LEVELS}
    each = replace(GENERATE, noise=("levels", *LEVELS), steps=10 * 60_000 // GENERATE.batch)
    yield (
        "colour-levels-blocks-1",
        entry({**told, "blocks": 1, "normalisation": "batch"}, True, "PerLevel", each),
    )
    yield (
        "colour-levels-blocks-3",
        entry({**told, "normalisation": "batch"}, False, "PerLevel", each),
    )
    yield (
        "colour-levels-bias-free",
        entry({**told, "normalisation": "bias-free"}, False, "PerLevel", each),
    )
    chain = {
        "depth": 21,
        "channels": 32,
        "image_channels": 3,
        "normalisation": "none",
        "bias": True,
        "blind": False,
    }
    yield "colour-chain", entry(chain, True, "CNN", replace(generate, rate=1e-3))
    yield from (
        (f"colour-{v}", named[v]) for v in COLOUR if v not in (*wanted, "blocks-4", "channels-32")
    )
    for variant, seed in (
        (v, s) for v in ("blocks-3", "blocks-1", "pad-circular", "blocks-2") for s in (1, 2)
    ):
        options = {**unet, **COLOUR[variant], "seed": seed}
        yield f"colour-{variant}-seed-{seed}", entry(options, recipe=replace(generate, seed=seed))
    yield "colour-mlp-200-n100", entry(mlps[200], network="ImageMLP", recipe=wide, n=100)
    yield "colour-mlp-200-n10", entry(mlps[200], network="ImageMLP", recipe=wide, n=10)
    yield from ((f"colour-{v}", named[v]) for v in ("blocks-4", "channels-32"))
    yield "colour-mlp-1000", entry(mlps[1000], network="ImageMLP", recipe=wide)


def _studies(unet: dict) -> Iterator[tuple[str, Entry]]:
    """Small networks of clothes for the labs, and what Kadkhodaie et al. 2024 train until it
    copies, or large."""
    generate = replace(GENERATE, steps=240_000 // GENERATE.batch)
    small = {**GENERATING, "blocks": 3, "channels": 4}  # below 300 kB for a page to load
    changes = {variant: COLOUR[variant] for variant in HOUR[:5]} | {"channels-2": {"channels": 2}}
    for variant, changed in changes.items():
        data = {"name": "fashion-mnist", "size": 32, "n": 1000}
        yield (
            f"clothes-{variant}",
            Entry("UNet", {**small, **changed}, data, generate, watched=True),
        )
    faces, wide = {"name": "celeba", "size": 40}, {**unet, "channels": 32}
    for n, images in ((100, 1_200_000), (10, 480_000)):
        for letter, split in (("a", "train"), ("b", "disjoint")):
            long = replace(BASE, steps=images // BASE.batch)
            where = {**faces, "split": split, "n": n}
            yield (
                f"copying-n{n}-{letter}",
                Entry("UNet", wide, where, long, (n, letter) == (100, "a"), watched=True),
            )
    chain = {"channels": 32, "normalisation": "none"}
    long = replace(BASE, steps=240_000 // BASE.batch, rate=1e-3)
    yield "faces-bf-cnn", Entry("CNN", chain, {**faces, "n": 9442}, long)
    for letter, split in (("a", "train"), ("b", "disjoint")):
        where = {**faces, "split": split, "n": 9442}
        long = replace(BASE, steps=480_000 // BASE.batch)
        yield f"faces-large-{letter}", Entry("UNet", {**wide, "blocks": 3}, where, long, False)
