"""Images as fields, on faces in colour: `python benchmarks/field_faces.py [SECTION ...]`.

Needs CELEBA_ROOT. Trains, some ten minutes of one core, what chapter 22 trains on scenes: a coder, a
renderer and an upscaler from three seeds, a denoiser of latents; what was killed goes on from
build/train/fields.

faces: PSNR at five sizes with intervals over faces, spectra, sharpness and consistency of scales.
drawn: samples, judged as faces and by patches, and why they are not better: one control for the
coder, one for the law of the latents, and the steps of its training.

Written to src/helpers/recorded/field_faces.json. Of CelebA it holds one row of four faces.
"""

import functools
import json
from collections.abc import Callable

import record
import torch
from field_rivals import UPSCALER, resized
from fields import LARGEST, RENDERER, SEEDS, fields, made
from record import rounded
from torch import Tensor, nn

from helpers.data import ImageSet, load
from helpers.denoisers import UNet
from helpers.files import write_atomically
from helpers.looks import judged
from helpers.realism import fid, kid_with_error, radial_spectrum, sharpness
from helpers.sampling import edm, heun, initial_noise, last
from helpers.systems.chen.field_training import (
    coder_loss,
    crop_loss,
    cut,
    detail,
    patched,
    reduced,
    upscaling_loss,
)
from helpers.systems.chen.fields import GRID, Coder, Renderer, Upscaler, bicubic
from helpers.training import Recipe, fit, train

SIZES, N, JUDGED, SHOWN = (32, 64, 128, 160), 1000, 192, 4
CODER = Recipe(steps=3000, batch=16, rate=2e-3, warmup=100, clip=1.0, ema=0.995, precision="mixed")
LATENT = Recipe(
    steps=4000, batch=32, rate=2e-3, noise=("log-normal", -0.5, 1.3), warmup=200, clip=1.0, ema=0.998,
    precision="mixed",
)  # fmt: skip
LOOKS = (1000, 2000, LATENT.steps)
STEPS = 800  # of renderers and upscalers


@functools.cache
def faces(split: str, size: int = SIZES[-1]) -> Tensor:
    """Faces in colour: the N of the training, or all that are held out."""
    chosen = load("celeba", split, N if split == "train" else None, SIZES[-1], colour="rgb")
    return reduced(chosen.images, size)


@functools.cache
def small() -> Tensor:
    """Those of the training at 32 x 32, and their mirror images."""
    return torch.cat([faces("train", GRID), faces("train", GRID).flip(-1)])


@functools.cache
def coder() -> Coder:
    """Of latents of 3 x 16 x 16 numbers, four times those of scenes."""
    network = Coder(colours=3, halvings=1)
    steps = functools.partial(
        fit, network, coder_loss(network, small(), CODER.batch), CODER, small()
    )
    made("faces-coder", network, steps)
    network.standardise(small())
    return network


@functools.cache
def seen() -> tuple[Tensor, tuple[Tensor, Tensor]]:
    images = faces("train", LARGEST)
    return images, fields(coder(), images)


@functools.cache
def renderer(seed: int) -> Renderer:
    network, (images, known) = Renderer(colours=3, seed=seed), seen()
    recipe = Recipe(**{**vars(RENDERER), "steps": STEPS, "seed": seed})
    loss = crop_loss(network, known, images, recipe.batch)
    return made(f"faces-field-{seed}", network, lambda p: fit(network, loss, recipe, images, p))[0]


def upscaler(seed: int) -> Upscaler:
    network, (images, known) = Upscaler(colours=3, seed=seed), seen()
    recipe = Recipe(**{**vars(UPSCALER), "steps": STEPS, "seed": seed})
    loss = upscaling_loss(network, known, images, recipe.batch)
    return made(f"faces-upscaler-{seed}", network, lambda p: fit(network, loss, recipe, images, p))[
        0
    ]


@torch.no_grad()
def sampled(denoiser: nn.Module, n: int, seed: int, steps: int = 20) -> Tensor:
    noise = initial_noise(n, 3, 16, 16, sigma=40.0, seed=seed, dtype=torch.float32)
    return last(heun(denoiser, noise, edm(steps, 0.01, 40.0)))


@functools.cache
def latents() -> dict[int, Tensor]:
    """Latents drawn after so many steps of the denoiser's training, from one noise."""
    network = UNet(
        blocks=2, channels=24, image_channels=3, normalisation="none", bias=True, blind=False, data_std=1.0
    )  # fmt: skip
    points, there = coder().latents(small()), {}
    folder = record.ROOT / "build/train/fields"

    def steps(path):
        for now in train(network, points, LATENT, path):
            if now.step in LOOKS[:-1]:
                drawn = sampled(now.denoiser, JUDGED, 0).tolist()
                write_atomically(folder / f"faces-{now.step}.json", json.dumps(drawn).encode())
            yield now

    made("faces-latent", network, steps)
    for step in LOOKS[:-1]:
        there[step] = torch.tensor(json.loads((folder / f"faces-{step}.json").read_text()))
    return there | {LATENT.steps: sampled(network, JUDGED, 0)}


def gaussian(n: int) -> Tensor:
    """Latents with the mean and the covariance of those of the training, and nothing else of them."""
    z = coder().latents(small()).flatten(1).double()
    noise = torch.randn(n, len(z), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (z.mean(0) + noise @ (z - z.mean(0)) / len(z) ** 0.5).float().view(n, 3, 16, 16)


def principal(numbers: int) -> Tensor:
    """The held-out faces at 32 x 32 from so many numbers each, by the best linear coder of the training."""
    known, test = small().flatten(1), faces("test", GRID)
    axes = torch.linalg.svd(known - known.mean(0), full_matrices=False)[2][:numbers]
    return ((test.flatten(1) - known.mean(0)) @ axes.T @ axes + known.mean(0)).view_as(test)


def decibels(found: Tensor, truth: Tensor) -> Tensor:
    """PSNR of each picture."""
    return -10 * (found - truth).square().flatten(1).mean(1).log10()


def interval(values: Tensor) -> list[float]:
    """Mean over pictures, and where it lies in 95 % of choices of them."""
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return rounded([mean, mean - half, mean + half], 3)


Field = tuple[Tensor, Tensor]
Maker = Callable[[Field, int], Tensor]


def few(field: Field, n: int) -> Field:
    return field[0][:n], field[1][:n]


@functools.cache
def makers() -> dict[str, Maker]:
    """What makes pictures of a size from fields."""
    found: dict[str, Maker] = {"bicubic": lambda field, r: bicubic(field[1], r)}
    for s in range(SEEDS):
        one, other = renderer(s), upscaler(s)
        found[f"field-{s}"] = lambda field, r, net=one: net(field, r)
        found[f"upscaler-{s}"] = lambda field, r, net=other: resized(net(field), r)
    return found


def in_parts(make: Maker, field: Field, size: int) -> Tensor:
    """A few at a time, for the memory."""
    return torch.cat([make(part, size) for part in zip(*(v.split(8) for v in field), strict=True)])


def details(x: Tensor) -> list[float]:
    """Power above the frequencies of a 32 x 32 picture, of the gray of tapered pictures; sharpness."""
    gray, window = x.mean(1), torch.hann_window(x.shape[-1])
    tapered = (gray - gray.mean((1, 2), keepdim=True)) * window * window[:, None]
    return [float(radial_spectrum(tapered)[GRID // 2 + 1 :].sum()), sharpness(gray)]


def webp(pictures: Tensor) -> str:
    """A row of coloured pictures."""
    pixels = (255 * pictures.clamp(0, 1)).round().permute(1, 2, 0, 3).flatten(2)
    return record.encoded(pixels, "WEBP", quality=75, method=6)


@torch.no_grad()
def measured() -> dict:
    """Held-out faces, encoded at 32 x 32 and made at all sizes, against themselves at that size."""
    truth = {r: faces("test", r) for r in SIZES}
    field = coder().field(coder().encode(truth[GRID]))
    found: dict[str, dict[int, Tensor]] = {}
    power, scale, true = {}, {}, details(truth[LARGEST])
    for name, make in makers().items():
        whole = {r: in_parts(make, field, r) for r in SIZES}
        found[name] = {r: decibels(whole[r], truth[r]) for r in SIZES}
        power[name] = [round(a / b, 3) for a, b in zip(details(whole[LARGEST]), true, strict=True)]
        scale[name] = round(float(decibels(reduced(whole[LARGEST], GRID), field[1]).mean()), 2)
        print(
            name, [interval(v) for v in found[name].values()], power[name], scale[name], flush=True
        )

    def over(one: str, other: str) -> list[list[float]]:
        return [interval(found[one][r] - found[other][r]) for r in SIZES]

    exact = [interval(decibels(bicubic(truth[GRID], r), truth[r])) for r in SIZES[1:]]
    fixed = {
        "coder, 768 numbers": field[1], "linear, 768 numbers": principal(768), "linear, 192 numbers": principal(192),
    }  # fmt: skip
    shown = {
        k: makers()[k](few(field, SHOWN), LARGEST) for k in ("bicubic", "upscaler-0", "field-0")
    }
    return {
        "faces": N, "held out": len(field[1]), "sizes": SIZES,
        "psnr": {k: [interval(v[r]) for r in SIZES] for k, v in found.items()} | {"bicubic of the truth": exact},
        "above bicubic": {k: over(k, "bicubic") for k in found if k != "bicubic"},
        "field less upscaler": {s: over(f"field-{s}", f"upscaler-{s}") for s in range(SEEDS)},
        "at 32": {k: interval(decibels(v, truth[GRID])) for k, v in fixed.items()},
        "power beyond 16, sharpness over the truth's, at 128": power, "consistency": scale,
        "steps": {"coder": CODER.steps, "renderer": STEPS, "latent": LATENT.steps},
        "webp": {k: webp(v) for k, v in ({"photograph": truth[LARGEST][:SHOWN]} | shown).items()},
    }  # fmt: skip


def small_set(split: str, images: Tensor) -> ImageSet:
    return ImageSet(images, "celeba", split, GRID, "rgb", "CelebA")


@torch.no_grad()
def drawn() -> dict:
    """Samples at 32 x 32 as faces, and patches of them at three sizes, with errors by choice of samples."""
    test, others = small_set("test", faces("test", GRID)), faces("train")[-JUDGED:]
    seen_, rest = small_set("train", small()), small_set("train", faces("train", GRID)[:-JUDGED])
    whole = {"reconstructed": few(coder().field(coder().encode(test.images)), JUDGED)}
    whole["Gaussian latents"] = coder().field(gaussian(JUDGED))
    whole |= {f"{step} steps": coder().field(z) for step, z in latents().items()}
    rows = {"other faces": judged(reduced(others, GRID), rest, test)}
    rows |= {name: judged(field[1], seen_, test) for name, field in whole.items()}
    rows["noise"] = judged(torch.rand(JUDGED, 3, GRID, GRID), seen_, test)
    print(rows, flush=True)
    best, patches = whole[f"{LATENT.steps} steps"], {}
    for r in SIZES[1:]:
        here, there = torch.rand(2, JUDGED, 2, generator=torch.Generator().manual_seed(0))
        target = detail(cut(faces("test", r)[:JUDGED].mean(1), here))
        sets = {"other faces": cut(reduced(others, r).mean(1), there)}
        for name, make in makers().items():
            for kind, field in (("samples", best), ("reconstructed", whole["reconstructed"])):
                if name.startswith("field"):  # which needs no whole picture
                    x = patched(field, r, there, renderer(int(name[-1])))
                else:
                    x = cut(in_parts(make, field, r), there)
                sets[f"{kind}, {name}"] = x.mean(1)
        for name, x in sets.items():
            value, error = kid_with_error(target, detail(x))
            patches.setdefault(name, {})[r] = rounded([value, error, fid(target, detail(x))], 4)
            print(r, name, patches[name][r], flush=True)
    shown = {k: makers()[k](few(best, 8), LARGEST) for k in ("upscaler-0", "field-0")}
    shown["Gaussian latents"] = makers()["field-0"](few(whole["Gaussian latents"], 8), LARGEST)
    return {
        "samples": JUDGED, "as faces": rows, "columns": ["kid", "error", "distance"], "patches": patches,
        "webp": {k: webp(v) for k, v in shown.items()},
    }  # fmt: skip


if __name__ == "__main__":
    record.main(__doc__, "field_faces", {"faces": measured, "drawn": drawn})
