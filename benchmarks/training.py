"""How fast and how well do networks train? `python benchmarks/training.py [throughput laws faces
peers]`.

throughput: images per second of helpers.training against a plain PyTorch loop, and against the
    products of the network alone, in turns, medians of five; once for each kind of arithmetic. A
    CPU that has bfloat16 is held to float32 by ONEDNN_MAX_CPU_ISA=AVX2 and
    ATEN_CPU_CAPABILITY=avx2.
laws: noise laws and losses compared on Fashion-MNIST, three seeds each.
faces: PSNR of the zoo's face networks on training and on test images (needs CELEBA_ROOT).
peers: PSNR on the same test faces of the networks of others, kept as .npz in PEERS_ROOT (needs
CELEBA_ROOT).

Each section is written to src/helpers/recorded/training.json when it is done; *Training a denoiser*
draws from it.
"""

import copy
import itertools
import os
import re
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import record
import torch
from record import DEVICE
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from helpers import models
from helpers.data import load
from helpers.denoisers import Denoiser, LinearDenoiser, UNet
from helpers.devices import native
from helpers.experiments import runner
from helpers.experiments.zoo import BASE, GENERATE, GENERATING, Entry
from helpers.recipe import Recipe
from helpers.released import load_peer
from helpers.training import train

LEVELS = (5, 10, 25, 50, 100, 200)  # of 255


NETWORKS: dict[
    str, tuple[dict, tuple[int, ...], Recipe]
] = {  # the most used ones: of a UNet, of an image
    "gray, 16 channels": ({"blocks": 2, "channels": 16, "normalisation": "none"}, (40, 40), BASE),
    "gray, 32 channels": ({"blocks": 2, "channels": 32, "normalisation": "none"}, (40, 40), BASE),
    "colour, 16 channels": (
        {**GENERATING, "blocks": 3, "channels": 16, "image_channels": 3},
        (3, 64, 64),
        GENERATE,
    ),
}


def plain(denoiser: Denoiser, images: torch.Tensor, batch: int) -> Iterator[None]:
    """What one writes first: float32, a DataLoader, noise, loss, backward, Adam."""
    optimiser = torch.optim.Adam(denoiser.parameters(), lr=1e-3)
    loader = DataLoader(TensorDataset(images), batch, shuffle=True, drop_last=True)
    while True:
        for (x,) in loader:
            x = x.to(DEVICE)
            sigma = 0.01 * 500 ** torch.rand(len(x), *[1] * (x.ndim - 1), device=DEVICE)
            loss = (denoiser(x + sigma * torch.randn_like(x), sigma.flatten()) - x).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            loss.item()
            yield


def roofline(denoiser: Denoiser, images: torch.Tensor, dtype: torch.dtype) -> Iterator[None]:
    """The products alone: each convolution on an input of its shape, and the gradients of its
    weights and, but for the image, of its input.
    """
    layers: list[tuple[nn.Module, torch.Tensor]] = []
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    hooks = [
        m.register_forward_hook(lambda m, given, _: layers.append((m, given[0])))
        for m in denoiser.modules()
        if isinstance(m, kinds)
    ]
    denoiser(images, 0.5)
    for hook in hooks:
        hook.remove()
    parts = []
    for layer, given in layers:
        layer = copy.deepcopy(layer).to(dtype=dtype, memory_format=torch.channels_last)
        x = torch.randn_like(given, dtype=dtype, memory_format=torch.channels_last)
        wanted = [layer.weight, x.requires_grad_()] if given.requires_grad else [layer.weight]
        parts.append((layer, x, wanted, torch.randn_like(layer(x)).detach()))
    while True:
        for layer, x, wanted, gradient in parts:
            torch.autograd.grad(layer(x), wanted, gradient)
        yield


def speed(steps: Iterator, batch: int, seconds: float = 3.0) -> float:
    """Images per second of CPU time on one thread, or of wall time on a GPU."""
    clock = time.process_time if DEVICE == "cpu" else time.perf_counter
    next(steps)
    start, done = clock(), 0
    while clock() - start < seconds:
        next(steps)
        done += batch
        if DEVICE == "cuda":
            torch.cuda.synchronize()
    return done / (clock() - start)


def throughput() -> dict:
    """Ours by the recipe of the zoo, in what `native` numbers there are, beside a plain loop.

    ratio: ours over the plain loop; roofline: ours over the convolutions alone, in the same
    numbers.
    """
    rows = []
    for name, (options, shape, recipe) in NETWORKS.items():
        batch = recipe.batch if DEVICE == "cpu" else 32 * recipe.batch
        recipe = replace(recipe, steps=1_000_000, batch=batch, compiled=DEVICE == "cuda")
        images = torch.rand(4 * batch, *shape, generator=torch.Generator().manual_seed(0))
        networks = [UNet(**options).to(DEVICE) for _ in range(3)]
        variants = {
            "plain": plain(networks[0], images, batch),
            "ours": train(networks[1], images, recipe),
            "products": roofline(
                networks[2], images[:batch].to(DEVICE), recipe.products(torch.device(DEVICE))
            ),
        }
        rates: dict[str, list[float]] = {variant: [] for variant in variants}
        for _ in range(5):
            for variant, steps in variants.items():
                rates[variant].append(speed(steps, batch))
        ratio, share = (
            [a / b for a, b in zip(rates["ours"], rates[other], strict=True)]
            for other in ("plain", "products")
        )
        rows.append(
            {
                "network": name,
                "channels": options["channels"],
                "normalisation": "none",
                "batch": batch,
            }
            | {variant: round(statistics.median(r)) for variant, r in rates.items()}
            | {"ratio": round(statistics.median(ratio), 2), "ratios": [round(p, 2) for p in ratio]}
            | {
                "roofline": round(statistics.median(share), 2),
                "shares": [round(p, 2) for p in share],
            }
        )
        print(rows[-1], flush=True)
    return {"images": "gray 40x40 and colour 64x64", "rows": rows}


LAWS = {  # up to sigma = 1 all, so that only the law and the loss differ
    "uniform, sum": {"noise": ("uniform", 0.0, 1.0), "loss": "sum"},
    "quadratic, sum": {"noise": ("quadratic", 1.0), "loss": "sum"},
    "log-uniform, sum": {"noise": ("log-uniform", 0.01, 1.0), "loss": "sum"},
    "log-uniform, log": {"noise": ("log-uniform", 0.01, 1.0), "loss": "log"},
    "log-uniform, level": {"noise": ("log-uniform", 0.01, 1.0), "loss": "level"},
}


def laws(steps: int = 2500, seeds: int = 3) -> dict:
    """The same UNet of 16 channels, 40,000 images seen, 10,000 training images; PSNR on 500 test
    images."""
    data, test = load("fashion-mnist"), load("fashion-mnist", "test", 500).images
    rows: dict[str, list] = {name: [] for name in LAWS}
    for seed, (name, law) in itertools.product(range(seeds), LAWS.items()):
        options = {"blocks": 2, "channels": 16, "normalisation": "none", "seed": seed}
        recipe = replace(BASE, steps=steps, seed=seed, **law)
        denoiser, _ = runner.trained(
            Entry("UNet", options, {"name": "fashion-mnist"}, recipe), data
        )
        rows[name].append(models.psnr_table(denoiser, test, LEVELS)["psnr"])
        print(name, seed, rows[name][-1], flush=True)
    wiener = models.psnr_table(LinearDenoiser.from_points(data.images), test, LEVELS)
    return {
        "sigma_of_255": list(LEVELS),
        "noisy": wiener["noisy"],
        "wiener": wiener["psnr"],
        "psnr": rows,
        "data": "Fashion-MNIST 32x32, 10,000 training and 500 test images",
        "network": "UNet, 2 blocks, 16 channels, blind, no normalisation",
        "recipe": asdict(replace(BASE, steps=steps)),
        "seeds": seeds,
    }


def faces(count: int = 300) -> dict:
    """PSNR of the zoo's networks on their training faces and on test faces, ten levels as in
    Kadkhodaie et al. 2024."""
    levels = [round(255 * 10 ** (k / 9 * 2.5 - 2.4065), 2) for k in range(10)]  # 1 to 316 of 255
    test, rows = load("celeba", "test", count, 40).images, []
    for name, card in models.manifest().items():
        found = re.fullmatch(r"faces-n(\d+)-([ab])", name)
        if not found:
            continue
        n, letter = int(found[1]), found[2]
        training = load("celeba", "train" if letter == "a" else "disjoint", n, 40).images[:count]
        training = models.repeated(training, count)[:count]
        denoiser = models.load(name)
        tables = [models.psnr_table(denoiser, part, levels)["psnr"] for part in (training, test)]
        rows.append(
            {
                "model": name,
                "N": n,
                "set": letter,
                "train": tables[0],
                "test": tables[1],
                "sha256": card["sha256"],
            }
        )
        print(rows[-1], flush=True)
    noisy = models.psnr_table(Identity(), test, levels)["noisy"]
    return {"sigma_of_255": levels, "noisy": noisy, "images": count, "rows": rows}


class Identity(Denoiser):
    """The noisy image itself."""

    def estimate(self, y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return y


def peers(count: int = 64) -> dict:
    """PSNR of the networks of others, of the Wiener filter and of ours on the same test faces."""
    folder, rows = Path(os.environ["PEERS_ROOT"]), []
    for size, ours in ((80, "faces80"), (40, "faces-n9442-a")):
        if ours not in models.manifest():
            print(f"{ours} is not trained yet: size {size} is left out")
            continue
        test = load("celeba", "test", count, size).images
        named = {p.stem: load_peer(p) for p in sorted(folder.glob("*.npz"))} | {
            ours: models.load(ours)
        }
        if size == 40:
            named["wiener"] = LinearDenoiser.from_points(load("celeba", n=18_000, size=40).images)
        for name, denoiser in named.items():
            rows.append(
                {"size": size, "model": name, "psnr": models.psnr_table(denoiser, test)["psnr"]}
            )
            print(rows[-1], flush=True)
    return {"sigma_of_255": list(models.LEVELS), "images": count, "rows": rows}


if __name__ == "__main__":
    sections = {"throughput": throughput, "laws": laws, "faces": faces, "peers": peers}
    kind = f"{DEVICE}, {native(torch.device(DEVICE))}".replace("torch.", "")
    record.main(__doc__, "training", sections, {"throughput": kind})
