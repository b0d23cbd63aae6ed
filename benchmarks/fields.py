"""Images as fields, trained and measured: `python benchmarks/fields.py [SECTION ...]`. Needs no
data.

networks: trains the autoencoder, the renderers (four kinds from three seeds, and one without its
bicubic base) and the latent denoiser, half an hour of one core; what was killed goes on from
build/train/fields. The networks that the chapter shows are written to
src/helpers/recorded/fields.safetensors.
sizes: PSNR of all renderers, of bicubic interpolation and of its oracle, at seven sizes, and
consistency of scales.
patches: distance of the laws of 32 x 32 patches at several sizes, reconstructed and generated.

Sections are written to src/helpers/recorded/fields.json; *Images as fields* draws them.
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
    upscaling_loss,
)
from helpers.systems.chen.fields import GRID, Coder, Renderer, Upscaler, bicubic
from helpers.training import Progress, Recipe, fit, train

SEEDS, SIZES, TEST = 3, (32, 48, 64, 96, 128, 192, 256), 32
# scenes for coder and latents; for renderers, and their largest size
TRAINED, SEEN, LARGEST = 6000, 1200, 128
ALL = record.ROOT / "build/train/fields/networks/all.safetensors"
KINDS: dict[str, dict[str, Any]] = {
    "convolutional": {},
    "pointwise": {"kernel": 1},
    # about as many parameters as the convolutional one, and so has
    "pointwise-wide": {
        "kernel": 1,
        "width": 100,
    },
}
CODER = Recipe(steps=2800, batch=16, rate=2e-3, warmup=100, clip=1.0, ema=0.995, precision="mixed")
RENDERER = Recipe(steps=1200, batch=16, rate=2e-3, warmup=50, clip=1.0, ema=0.99, precision="mixed")
LATENT = Recipe(
    steps=4000, batch=64, rate=2e-3, noise=("log-normal", -0.5, 1.3), warmup=200, clip=1.0, ema=0.998,
    precision="mixed",
)  # fmt: skip


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
    for path, some in (
        (record.path("fields").with_suffix(".safetensors"), shown),
        (ALL, {name: network for name, (network, _) in there.items()}),
    ):
        write_atomically(path, tensor_bytes(*packed(some, record.provenance())))
    shipped = record.path("fields").with_suffix(".safetensors").read_bytes()
    parameters = {
        name: sum(p.numel() for p in net.parameters()) for name, (net, _) in there.items()
    }
    return {
        "scenes": TRAINED, "renderer scenes": SEEN, "largest": LARGEST, "parameters": parameters,
        "seconds": {name: seconds for name, (_, seconds) in there.items()},
        "steps": {"coder": CODER.steps, "renderer": RENDERER.steps, "latent": LATENT.steps},
        "batch": {"coder": CODER.batch, "renderer": RENDERER.batch, "latent": LATENT.batch},
        "sha256": hashlib.sha256(shipped).hexdigest(),
    }  # fmt: skip


@functools.cache
def kept() -> dict[str, nn.Module]:
    """The networks that `networks` has made, as they are stored."""
    if not ALL.exists():
        raise SystemExit("no networks: run `python benchmarks/fields.py networks` first")
    return unpacked(ALL.read_bytes())


# Mixed resolutions --------------------------------------------------------------------------------

HIGH = 120  # scenes known at 128, a tenth; the others at 32 only
# name: scenes at 128, and how often each of them is in the list from which batches are drawn
ARMS = {
    "half": (SEEN // 2, 1),
    "tenth": (HIGH, (SEEN - HIGH) // HIGH),
    "tenth, as they come": (HIGH, 1),
}


@functools.cache
def standing() -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Images at 128 and their fields, of the coder that ships."""
    images = scenes(SEEN, size=LARGEST)
    return images, fields(shipped("coder"), images)


def mixed_renderer(arm: str, seed: int) -> Renderer:
    high, times = ARMS[arm]
    order = torch.cat([torch.arange(high).repeat(times), torch.arange(high, SEEN)])
    images, found = standing()
    known = torch.where(order < high, LARGEST, GRID)
    network, recipe = Renderer(seed=seed), Recipe(**{**vars(RENDERER), "seed": seed})
    images, found = images[order], tuple(v[order] for v in found)
    loss = crop_loss(network, found, images, recipe.batch, known=known)
    name = f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    return made(name, network, lambda path: fit(network, loss, recipe, images, path))[0]


@functools.cache
def coder_alone() -> tuple[Coder, tuple[Tensor, Tensor]]:
    """The coder of the tenth alone, and its fields."""
    images, network = scenes(HIGH, size=LARGEST), Coder()
    small = reduced(images, GRID)
    loss = coder_loss(network, small, CODER.batch)
    made("coder-alone", network, lambda path: fit(network, loss, CODER, small, path))
    return network, fields(network, images)


def alone(seed: int) -> Renderer:
    """The renderer of the tenth alone, on the coder of the tenth alone."""
    images, network = scenes(HIGH, size=LARGEST), Renderer(seed=seed)
    recipe = Recipe(**{**vars(RENDERER), "seed": seed})
    loss = crop_loss(network, coder_alone()[1], images, recipe.batch)
    return made(f"alone-{seed}", network, lambda path: fit(network, loss, recipe, images, path))[0]


# Super-resolution ---------------------------------------------------------------------------------

UPSCALER = Recipe(steps=2400, batch=4, rate=2e-3, warmup=50, clip=1.0, ema=0.99, precision="mixed")


def upscaler(features: int, steps: int, seed: int) -> Upscaler:
    images, found = standing()
    network = Upscaler(features, seed=seed)
    recipe = Recipe(**{**vars(UPSCALER), "steps": steps, "seed": seed})
    loss = upscaling_loss(network, found, images, recipe.batch)
    name = f"upscaler-{features}-{steps}-{seed}"
    return made(name, network, lambda path: fit(network, loss, recipe, images, path))[0]


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
    return last(heun(kept()["latent"], noise, edm(steps, 0.01, 40.0)))


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


if __name__ == "__main__":
    record.main(__doc__, "fields", {"networks": networks, "sizes": sizes, "patches": patches})
