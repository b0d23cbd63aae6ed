"""Rows of the zoo: networks that generate in colour, and those whose copying is studied."""

from collections.abc import Iterator
from dataclasses import replace

from ..recipe import Recipe
from .entry import BASE, GENERATE, Entry

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
# in the map of creativity, for each number of images
MAPPED = ("blocks-3", "blocks-1", "pad-circular", "skip-none")
KEPT = (*(v for v in HOUR if v != "skip-none"), "channels-8")  # weights ship
# a narrow middle is cheap for many images at a time, and slow to learn; it cannot reach small errors
# at low noise, so that "edm" would see nothing else
BATCHED = replace(GENERATE, batch=128, rate=5e-4, loss="level")
# ours: the source has ten, and does not say which
LEVELS = [0.04, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 7.0, 16.0, 40.0]


def colour() -> Iterator[tuple[str, Entry]]:
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
    wide = replace(BATCHED, steps=2_000_000 // BATCHED.batch)
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


def studies(unet: dict) -> Iterator[tuple[str, Entry]]:
    """Small networks of clothes for the map of creativity; what Kadkhodaie et al. 2024 train until
    it copies, or large."""
    # below 300 kB for a page to load; mirrored clothes would blur what a copy is of ten images
    generate = replace(GENERATE, steps=120_000 // GENERATE.batch, flip=False)
    small = {**GENERATING, "blocks": 3, "channels": 4}
    mlp = {"size": 32, "image_channels": 1, "width": 48, "depth": 4, "blind": False}
    batched = replace(BATCHED, steps=2_000_000 // BATCHED.batch, flip=False)
    for n in (1000, 100, 10):
        where, name = {"name": "fashion-mnist", "size": 32, "n": n}, f"clothes-{{}}-n{n}"
        for variant in MAPPED:
            options = {**small, **COLOUR[variant]}
            yield name.format(variant), Entry("UNet", options, where, generate, watched=True)
        yield name.format("mlp"), Entry("ImageMLP", mlp, where, batched, watched=True)
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
