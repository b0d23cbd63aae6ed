"""Fields against what has fewer large pictures, or one size: `python benchmarks/field_rivals.py
[SECTION ...]`.

mixed: renderers that have seen half of the scenes at 128, or a tenth, and a coder of that tenth alone.
upscaled: a network of one size beside the fields, both trained to several lengths: pictures, samples,
and seams of tiles. The one of UPSCALED steps from seed 0 ships beside the networks of benchmarks/fields.py.

Trainings go on from build/train/fields. Sections are written to src/helpers/recorded/field_rivals.json.
"""

import functools
from collections.abc import Callable

import record
import torch
from fields import (
    CODER,
    LARGEST,
    RENDERER,
    SEEDS,
    SEEN,
    SHIPPED,
    SIZES,
    TEST,
    TRAINED,
    drawn,
    fields,
    made,
    ship,
)
from record import rounded
from torch import Tensor, nn

from helpers.metrics import psnr
from helpers.realism import fid, kid_with_error, radial_spectrum, sharpness
from helpers.systems.chen.field_training import (
    coder_loss,
    crop_loss,
    cut,
    detail,
    patched,
    reduced,
    scenes,
    shipped,
    unpacked,
    upscaling_loss,
)
from helpers.systems.chen.fields import GRID, Coder, Renderer, Upscaler, bicubic, tiled
from helpers.training import Recipe, fit

UPSCALER = Recipe(steps=2400, batch=4, rate=2e-3, warmup=50, clip=1.0, ema=0.99, precision="mixed")
HIGH = {"half": SEEN // 2, "tenth": SEEN // 10}  # scenes known at 128; the others at 32 only
LENGTHS = {"field": (1200, 2400), "upscaler": (1200, 2400)}
UPSCALED = 2400
Field = tuple[Tensor, Tensor]
Maker = Callable[[Field, int], Tensor]


@functools.cache
def standing() -> tuple[Tensor, Field]:
    """Images at 128 and their fields, of the coder that ships."""
    images = scenes(SEEN, size=LARGEST)
    return images, fields(shipped("coder"), images)


def mixed_renderer(arm: str, seed: int) -> Renderer:
    """Trained with few large pictures, from which half of each batch is drawn."""
    high = HIGH[arm]
    order = torch.cat([torch.arange(high).repeat(SEEN // high - 1), torch.arange(high, SEEN)])
    images, found = standing()
    known = torch.where(order < high, LARGEST, GRID)
    network, recipe = Renderer(seed=seed), Recipe(**{**vars(RENDERER), "seed": seed})
    images, found = images[order], tuple(v[order] for v in found)
    loss = crop_loss(network, found, images, recipe.batch, known=known)
    steps = functools.partial(fit, network, loss, recipe, images)
    return made(f"{arm}-{seed}", network, steps)[0]


def coder_alone() -> Coder:
    """Of the tenth alone."""
    network, small = Coder(), reduced(scenes(HIGH["tenth"], size=LARGEST), GRID)
    loss = coder_loss(network, small, CODER.batch)
    return made("coder-alone", network, lambda path: fit(network, loss, CODER, small, path))[0]


@functools.cache
def longer(kind: str, steps: int, seed: int) -> nn.Module:
    """A renderer or an upscaler of so many steps, with the rate brought down over them."""
    if kind == "field" and steps == RENDERER.steps:
        return shipped(f"convolutional-{seed}")
    images, found = standing()
    network = Upscaler(seed=seed) if kind == "upscaler" else Renderer(seed=seed)
    recipe = UPSCALER if kind == "upscaler" else RENDERER
    recipe = Recipe(**{**vars(recipe), "steps": steps, "seed": seed})
    loss = (upscaling_loss if kind == "upscaler" else crop_loss)(
        network, found, images, recipe.batch
    )
    return made(f"{kind}-{steps}-{seed}", network, lambda p: fit(network, loss, recipe, images, p))[
        0
    ]


def resized(pictures: Tensor, size: int) -> Tensor:
    """What a model of one size shows at another: reduced, or enlarged by bicubic interpolation."""
    return reduced(pictures, size) if size < pictures.shape[-1] else bicubic(pictures, size)


@torch.no_grad()
def rendered(network: Coder, make: Callable[[Field], Tensor]) -> Tensor:
    """What is made of the fields of the held-out scenes, one at a time, for the memory."""
    known = network.field(network.encode(scenes(TEST, "test")))
    return torch.cat([make((f[None], x[None])) for f, x in zip(*known, strict=True)])


def at_sizes(made_at: Callable[[int], Tensor], sizes: tuple[int, ...]) -> list[float]:
    truth = scenes(TEST, "test", SIZES[-1])
    return rounded([psnr(made_at(r), reduced(truth, r)) for r in sizes], 3)


def mixed(sizes: tuple[int, ...] = (32, 64, 96, 128)) -> dict:
    """PSNR of renderers that have seen few of the scenes at 128, beside those that have seen all; and
    of a coder that has seen a tenth at 32, beside that of the chapter."""
    network, measured, rows = shipped("coder"), record.read("fields")["sizes"], {}
    for name in ("bicubic", *(f"convolutional-{s}" for s in range(SEEDS))):
        rows[name.replace("convolutional", "all")] = [
            measured["psnr"][name][measured["sizes"].index(r)] for r in sizes
        ]
    for arm in HIGH:
        for s in range(SEEDS):
            one = mixed_renderer(arm, s)
            rows[f"{arm}-{s}"] = at_sizes(
                lambda r, one=one: rendered(network, lambda field: one(field, r)), sizes
            )
            print(arm, s, rows[f"{arm}-{s}"], flush=True)
    fixed = rendered(coder_alone(), lambda field: field[1])
    rows["coder of a tenth"] = at_sizes(lambda r: fixed, sizes[:1])
    return {"scenes": SEEN, "high": HIGH, "coder scenes": TRAINED, "sizes": sizes, "psnr": rows}


def makers() -> dict[str, Maker]:
    """What makes pictures of a size from fields."""
    found: dict[str, Maker] = {"bicubic": lambda field, r: bicubic(field[1], r)}
    for kind, lengths in LENGTHS.items():
        for steps in lengths:
            for s in range(SEEDS):
                net = longer(kind, steps, s)
                found[f"{kind}, {steps} steps-{s}"] = (
                    (lambda field, r, net=net: net(field, r))
                    if kind == "field"
                    else (lambda field, r, net=net: resized(net(field), r))
                )
    return found


@torch.no_grad()
def upscaled(n: int = 128, resamples: int = 100) -> dict:
    """The field against a trained upscaler: reconstructions by PSNR, power and scales; samples by
    the distance of the spectra of patches."""
    rows, power, scale = {}, {}, {}
    truth, window = scenes(TEST, "test", LARGEST), torch.hann_window(LARGEST)

    def beyond(x: Tensor) -> float:
        tapered = (x - x.mean((1, 2), keepdim=True)) * window * window[:, None]
        return float(radial_spectrum(tapered)[GRID // 2 + 1 :].sum())

    network, measured = shipped("coder"), record.read("fields")["sizes"]["psnr"]
    fixed = rendered(network, lambda field: field[1])
    for name, make in makers().items():
        known = measured.get(name.replace(f"field, {RENDERER.steps} steps", "convolutional"))
        large = rendered(network, lambda field, make=make: make(field, LARGEST))
        if name.startswith("upscaler"):
            rows[name] = at_sizes(lambda r, x=large: resized(x, r), SIZES[1:])
        else:  # measured before, but for what was trained for longer
            rows[name] = (
                known[1:]
                if known
                else at_sizes(
                    lambda r, make=make: rendered(network, lambda field: make(field, r)), SIZES[1:]
                )
            )
        share = beyond(large) / beyond(truth), sharpness(large) / sharpness(truth)
        power[name] = [round(v, 3) for v in share]
        scale[name] = round(psnr(reduced(large, GRID), fixed), 2)
        print(name, rows[name], power[name], flush=True)
    shipping(longer("upscaler", UPSCALED, 0))
    return {
        "sizes": SIZES[1:], "lengths": LENGTHS, "shipped": UPSCALED, "psnr": rows,
        "power beyond 16, sharpness over the truth's, at 128": power, "consistency": scale,
        "seams": seams(), "products a pixel at 128": products(),
        "samples": judged_samples(n, resamples),
    }  # fmt: skip


def shipping(best: Upscaler) -> None:
    """Put an upscaler beside the networks of benchmarks/fields.py, where another or none is there."""
    there = unpacked(SHIPPED.read_bytes())
    old = there["upscaler-0"].state_dict() if "upscaler-0" in there else {}
    if any(
        k not in old or not torch.equal(v.half().float(), old[k])
        for k, v in best.state_dict().items()
    ):
        entry, checksum = record.read("fields")["networks"], ship(there | {"upscaler-0": best})
        entry["parameters"]["upscaler-0"] = sum(p.numel() for p in best.parameters())
        record.write("fields", "networks", entry | {"sha256": checksum})


@torch.no_grad()
def seams(tile: int = 16, halos: tuple[int, ...] = (0, 1, 2, 4, 6)) -> dict:
    """Largest difference of four tiles from the whole picture at 128, by the halo in cells of 32 x 32, of
    which a cell is four pixels; in double precision, so that what is exact shows."""
    coder, field_net, up = (shipped(k).double() for k in ("coder", "convolutional-0", "upscaler-0"))
    field = tuple(v[:8] for v in coder.field(coder.encode(scenes(8, "test").double())))
    found: dict[str, list[float]] = {"field": [], "upscaler": []}
    wholes = field_net(field, LARGEST), up(field)

    def part(i: int, j: int, halo: int) -> Tensor:
        top, left = max(0, i - halo), max(0, j - halo)
        cells = field[1][:, top : i + tile + halo, left : j + tile + halo]
        y, x = (up.scale * v for v in (i - top, j - left))
        return up((field[0], cells))[:, y : y + up.scale * tile, x : x + up.scale * tile]

    for halo in halos:
        tiles = tiled(field_net, field, LARGEST, up.scale * tile, up.scale * halo)
        rows = [torch.cat([part(i, j, halo) for j in (0, tile)], -1) for i in (0, tile)]
        for name, x, whole in zip(found, (tiles, torch.cat(rows, -2)), wholes, strict=True):
            error = float((x - whole).abs().max())
            found[name].append(0.0 if error < 1e-12 else round(error, 4))
    return {"halo, cells": halos, **found}


def products() -> dict[str, int]:
    """Multiplications of weights for each pixel at 128: the renderer works on pixels, the upscaler on
    cells."""
    weights = {
        k: sum(p.numel() for p in shipped(k).parameters() if p.ndim > 1)
        for k in ("convolutional-0", "upscaler-0")
    }
    return {
        "field": weights["convolutional-0"],
        "upscaler": weights["upscaler-0"] // shipped("upscaler-0").scale ** 2,
    }


def judged_samples(n: int, resamples: int) -> dict:
    """How far n patches of samples are from those of n scenes: [Frechet distance, 2.5 %, 97.5 % of
    resamples, kernel distance, its standard error]."""
    real, others = scenes(2 * n, "test", SIZES[-1]).split(n)
    fields_drawn = [shipped("coder").field(drawn(n, 10 + s)) for s in range(SEEDS)]
    found: dict[str, dict[int, list[float]]] = {}
    nets = {
        f"field, {k} steps-{s}": longer("field", k, s)
        for k in LENGTHS["field"]
        for s in range(SEEDS)
    }
    for r in (64, 128, 256):
        here, there = torch.rand(2, n, 2, generator=torch.Generator().manual_seed(SEEDS))
        target = detail(cut(reduced(real, r), here))
        sets = {"other scenes": cut(reduced(others, r), there)}
        for name, make in makers().items():
            field = fields_drawn[int(name[-1]) if name[-1].isdigit() else 0]
            if name.startswith("upscaler"):
                pairs = zip(*field, there, strict=True)
                sets[name] = torch.cat(
                    [cut(make((f[None], x[None]), r), p[None]) for f, x, p in pairs]
                )
            else:  # alone, without the whole
                sets[name] = patched(field, r, there, nets.get(name))
        for name, patches in sets.items():
            told = detail(patches)
            chosen = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(0))
            spread = torch.tensor([fid(target, told[i]) for i in chosen]).quantile(
                torch.tensor([0.025, 0.975])
            )
            values = [fid(target, told), *spread.tolist(), *kid_with_error(target, told)]
            found.setdefault(name, {})[r] = rounded(values, 3)
    return found


if __name__ == "__main__":
    record.main(__doc__, "field_rivals", {"mixed": mixed, "upscaled": upscaled})
