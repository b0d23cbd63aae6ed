"""Images as fields, trained and measured: `python benchmarks/fields.py [SECTION ...]`.

networks: trains the autoencoder, the renderers (three kinds from three seeds, and one without its
bicubic base) and the latent denoiser, half an hour of one core; what was killed goes on from
build/train/fields. The networks that the chapter shows are written to
src/helpers/recorded/fields.safetensors.
sizes: PSNR of all renderers, of bicubic interpolation and of its oracle, at seven sizes, and
consistency of scales.
patches: distance of the laws of 32 x 32 patches at several sizes, reconstructed and generated.
conditions: what is known at two scales, its controls, memory and time.

benchmarks/field_rivals.py trains renderers of fewer large pictures, and a network of one size, and
benchmarks/field_faces.py all of it on faces. Sections are written to src/helpers/recorded/fields.json;
*Images as fields* draws them.
"""

import functools
import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import record
import torch
from record import rounded
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn

from helpers.denoisers import UNet
from helpers.files import write_atomically
from helpers.metrics import psnr, sliced_w2
from helpers.realism import kid
from helpers.sampling import edm, heun, initial_noise, last
from helpers.systems.chen.conditions import conditioned, hollow, kept_bytes, misfit, two_scales
from helpers.systems.chen.field_training import (
    coder_loss,
    crop_loss,
    cut,
    packed,
    patched,
    reduced,
    scenes,
    shipped,
    unpacked,
)
from helpers.systems.chen.fields import GRID, Coder, Renderer, bicubic
from helpers.training import Progress, Recipe, fit, train

SEEDS, SIZES, TEST = 3, (32, 48, 64, 96, 128, 192, 256), 32
# scenes for coder and latents; for renderers, and their largest size
TRAINED, SEEN, LARGEST = 6000, 1200, 128
SHIPPED = record.path("fields").with_suffix(".safetensors")
ALL = record.ROOT / "build/train/fields/networks/all.safetensors"
KINDS: dict[str, dict[str, Any]] = {
    "convolutional": {},
    "pointwise": {"kernel": 1},
    # about as many parameters as the convolutional one
    "pointwise-wide": {"kernel": 1, "width": 100},
}
CODER = Recipe(steps=2800, batch=16, rate=2e-3, warmup=100, clip=1.0, ema=0.995, precision="mixed")
RENDERER = Recipe(steps=1200, batch=16, rate=2e-3, warmup=50, clip=1.0, ema=0.99, precision="mixed")
LATENT = Recipe(
    steps=4000, batch=64, rate=2e-3, noise=("log-normal", -0.5, 1.3), warmup=200, clip=1.0, ema=0.998,
    precision="mixed",
)  # fmt: skip


@torch.enable_grad()
def made(
    name: str, network: nn.Module, steps: Callable[..., Iterator[Progress]]
) -> tuple[nn.Module, int]:
    """The network trained to its end, or found there, and the seconds that took."""
    folder, shown = record.ROOT / "build/train/fields", time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    for progress in steps(folder / f"{name}.safetensors"):
        if time.perf_counter() - shown > 20 or progress.remaining == 0:
            shown = time.perf_counter()
            print(
                f"{name}: step {progress.step}, loss {progress.loss:.4f}, {progress.remaining:.0f} s left",
                flush=True,
            )
    return network.eval(), round(progress.seconds)


@functools.cache
def pictures() -> Tensor:
    return scenes(TRAINED)


@functools.cache
def coder() -> tuple[Coder, int]:
    network = Coder()
    loss = coder_loss(network, pictures(), CODER.batch)
    found = made("coder", network, lambda path: fit(network, loss, CODER, pictures(), path))
    network.standardise(pictures())
    return found


@functools.cache
def seen() -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Images for the renderers, and their fields in half precision, which is what the memory is
    for."""
    images = scenes(SEEN, size=LARGEST)
    return images, fields(coder()[0], images)


@torch.no_grad()
def fields(network: Coder, images: Tensor) -> tuple[Tensor, Tensor]:
    parts = [network.field(network.encode(reduced(part, GRID))) for part in images.split(200)]
    return tuple(torch.cat(p).half() for p in zip(*parts, strict=True))


def renderer(name: str, seed: int, **options: Any) -> tuple[Renderer, int]:
    network = Renderer(**options, seed=seed)
    recipe = Recipe(**{**vars(RENDERER), "seed": seed})
    images, known = seen()
    loss = crop_loss(network, known, images, recipe.batch)
    return made(name, network, lambda path: fit(network, loss, recipe, images, path))


@functools.cache
def latent() -> tuple[UNet, int]:
    network = UNet(
        blocks=2,
        channels=24,
        image_channels=3,
        normalisation="none",
        bias=True,
        blind=False,
        data_std=1.0,
    )
    return made(
        "latent", network, lambda path: train(network, coder()[0].latents(pictures()), LATENT, path)
    )


@functools.cache
def everything() -> dict[str, tuple[nn.Module, int]]:
    found = {
        "coder": coder(),
        "convolutional-0": renderer("convolutional-0", 0),
        "latent": latent(),
    }
    for kind, options in KINDS.items():
        found |= {f"{kind}-{s}": renderer(f"{kind}-{s}", s, **options) for s in range(SEEDS)}
    return found | {"no-base-0": renderer("no-base-0", 0, base=False)}


def networks() -> dict:
    """Train what is missing, keep all of it for the other sections, and write what ships."""
    there = everything()
    ship = ("coder", "latent", "convolutional", "pointwise")
    shown = {
        name: network for name, (network, _) in there.items() if name.rsplit("-", 1)[0] in ship
    }
    write_atomically(
        ALL, tensor_bytes(*packed({k: net for k, (net, _) in there.items()}, record.provenance()))
    )
    parameters = {
        name: sum(p.numel() for p in net.parameters()) for name, (net, _) in there.items()
    }
    return {
        "scenes": TRAINED, "renderer scenes": SEEN, "largest": LARGEST, "parameters": parameters,
        "seconds": {name: seconds for name, (_, seconds) in there.items()},
        "steps": {"coder": CODER.steps, "renderer": RENDERER.steps, "latent": LATENT.steps},
        "batch": {"coder": CODER.batch, "renderer": RENDERER.batch, "latent": LATENT.batch},
        "sha256": ship(shown),
    }  # fmt: skip


def ship(some: dict[str, nn.Module]) -> str:
    """Write what ships; its checksum."""
    data = tensor_bytes(*packed(some, record.provenance()))
    write_atomically(SHIPPED, data)
    return hashlib.sha256(data).hexdigest()


@functools.cache
def kept() -> dict[str, nn.Module]:
    """The networks that `networks` has made, as they are stored."""
    if not ALL.exists():
        raise SystemExit("no networks: run `python benchmarks/fields.py networks` first")
    return unpacked(ALL.read_bytes())


# What they make ------------------------------------------------------------------------------------


@torch.no_grad()
def sizes() -> dict:
    """Held-out scenes, encoded at 32 x 32 and rendered at all sizes, against the same scenes at
    that size."""
    truth, rows, scale = scenes(TEST, "test", SIZES[-1]), {}, {}
    known = kept()["coder"].field(kept()["coder"].encode(reduced(truth, GRID)))
    pairs = list(zip(*known, strict=True))  # one at a time, for the memory
    rows["bicubic"] = [psnr(bicubic(known[1], r), reduced(truth, r)) for r in SIZES]
    rows["oracle"] = [psnr(bicubic(reduced(truth, GRID), r), reduced(truth, r)) for r in SIZES[1:]]
    for name, network in kept().items():
        if isinstance(network, Renderer):
            rendered = {
                r: torch.cat([network((f[None], x[None]), r) for f, x in pairs]) for r in SIZES
            }
            rows[name] = [psnr(rendered[r], reduced(truth, r)) for r in SIZES]
            scale[name] = psnr(reduced(rendered[SIZES[-1]], GRID), rendered[GRID])
    scale["bicubic"] = psnr(reduced(bicubic(known[1], SIZES[-1]), GRID), known[1])
    return {
        "scenes": TEST, "sizes": SIZES, "psnr": {k: rounded(v, 3) for k, v in rows.items()},
        "consistency": {k: round(v, 2) for k, v in scale.items()},
    }  # fmt: skip


def drawn(n: int, seed: int, steps: int = 20) -> Tensor:
    """Latents generated by the flow from the noise of this seed."""
    noise = initial_noise(n, 3, 8, 8, sigma=40.0, seed=seed, dtype=torch.float32)
    return last(heun(shipped("latent"), noise, edm(steps, 0.01, 40.0)))


@torch.no_grad()
def patches(n: int = 256, at: tuple[int, ...] = (64, 128, 256), steps: int = 20) -> dict:
    """KID of the coder's latents, and sliced W2 of pixels: patches of n scenes or samples, and of n
    others."""
    network, rows = kept()["coder"], []
    real, others = scenes(2 * n, "test", SIZES[-1]).split(n)
    known = {"reconstructed": network.field(network.encode(reduced(others, GRID)))}
    for seed in range(SEEDS):
        known["generated"] = network.field(drawn(n, seed, steps))
        for size in at:
            places = torch.rand(2, n, 2, generator=torch.Generator().manual_seed(seed))
            target = cut(reduced(real, size), places[0])
            found = {"other scenes": cut(reduced(others, size), places[1])}
            for source, field in known.items():
                for kind in ("bicubic", "convolutional", "pointwise"):
                    chosen = None if kind == "bicubic" else kept()[f"{kind}-{seed}"]
                    found[f"{source}, {kind}"] = patched(field, size, places[1], chosen)
            told = network.latents(target).flatten(1)
            for name, made in found.items():
                distance = kid(told, network.latents(made).flatten(1))
                rows.append(
                    [seed, size, name, round(distance, 5), round(sliced_w2(target, made), 5)]
                )
    return {
        "patches": n, "steps": steps, "columns": ["seed", "size", "source", "kid", "sliced w2"], "rows": rows,
    }  # fmt: skip


# Conditions at two scales -------------------------------------------------------------------------

NOISE, TOP, SIDE, HOLE = 0.02, 40, 48, 24  # of what is known; the window at 128, the hole in it


def conditions(n: int = 6) -> dict:
    """A window with a hole at 128, and the whole at 8 x 8: errors with both, with either and with
    neither, without the denoiser and at full size; and what the gradient keeps in memory."""
    names = ("coder", "latent", "convolutional-0")
    network, denoiser, renderer = (shipped(k).requires_grad_(False) for k in names)
    truth, levels, rows = scenes(n, "test", LARGEST), edm(10, 0.1, 10.0), {}
    mask, inside = hollow(SIDE, HOLE), slice(TOP, TOP + SIDE)
    middle = slice(TOP + (SIDE - HOLE) // 2, TOP + (SIDE + HOLE) // 2)
    small, window = two_scales(renderer, truth, NOISE)

    def full(field: tuple[Tensor, Tensor]) -> Tensor:
        whole = renderer(field, LARGEST)
        low, cropped = reduced(whole, 8), mask * whole[:, inside, inside]
        return torch.cat([low.flatten(1), cropped.flatten(1)], 1)

    def quality(x: Tensor) -> tuple[float, float]:
        return psnr(x[:, middle, middle], truth[:, middle, middle]), psnr(x, truth)

    at_once = full, torch.cat([small[1].flatten(1), window[1].flatten(1)], 1)
    arms: dict[str, tuple[list, Any]] = {
        "both": ([small, window], denoiser), "small alone": ([small], denoiser),
        "window alone": ([window], denoiser), "neither": ([], denoiser),
        "both, no denoiser": ([small, window], None), "both, full size": ([at_once], denoiser),
    }  # fmt: skip
    seconds = {}
    for arm, (known, prior) in arms.items():
        for seed in range(1 if "full" in arm else SEEDS):  # by far the slowest
            begun = time.process_time()
            start = initial_noise(n, 3, 8, 8, sigma=10.0, seed=seed, dtype=torch.float32)
            loss = misfit(network, known, NOISE)
            z = conditioned(prior, loss, start, levels, steps=8, seed=seed)
            seconds.setdefault(arm, []).append(time.process_time() - begun)
            with torch.no_grad():
                field = network.field(z)
                whole = renderer(field, LARGEST)
                off = [(view(field) - seen).square().sum() for view, seen in (small, window)]
            counts = small[1].numel(), n * float(mask.sum())
            errors = [float((e / c).sqrt()) / NOISE for e, c in zip(off, counts, strict=True)]
            rows[f"{arm}-{seed}"] = rounded([*errors, *quality(whole)], 3)
            print(arm, seed, rows[f"{arm}-{seed}"], f"{seconds[arm][-1]:.0f} s", flush=True)
    up = bicubic(small[1], LARGEST)
    rows["the small one enlarged"] = rounded(quality(up), 3)
    with torch.no_grad():
        best = renderer(network.field(network.encode(reduced(truth, GRID))), LARGEST)
    rows["encoded truth"] = rounded(quality(best), 3)
    return {
        "scenes": n, "noise": NOISE, "columns": ["small, errors over noise", "window", "hole, dB", "whole, dB"],
        "rows": rows, "seconds": {k: rounded(v, 1) for k, v in seconds.items()}, "bytes": held(renderer, network),
    }  # fmt: skip


def held(renderer: Renderer, network: Coder) -> dict[str, list[int]]:
    """Bytes kept for one gradient of one latent: through a window of SIDE, and through the whole."""
    z, sizes = torch.zeros(1, 3, 8, 8, requires_grad=True), (128, 256, 512)
    ways = {"window": SIDE, "whole": None}
    return {"sizes": list(sizes)} | {
        way: [kept_bytes(lambda r=r, side=side: renderer(network.field(z), r, 0, 0, side, side)) for r in sizes]
        for way, side in ways.items()
    }  # fmt: skip


if __name__ == "__main__":
    record.main(
        __doc__,
        "fields",
        {
            "networks": networks,
            "sizes": sizes,
            "patches": patches,
            "conditions": conditions,
        },
    )
