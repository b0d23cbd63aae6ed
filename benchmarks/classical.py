"""Classical denoisers and networks on three kinds of images: `python benchmarks/classical.py
[SECTION ...]`.

settings: total variation and non-local means on training images of C^alpha, a grid of their one
number. c-alpha: PSNR at five levels on test images of regularity 2 and 4, three seeds, with BM3D
for regularity 2.
faces: the same on test faces, 80 x 80. Needs CELEBA_ROOT, and PEERS_ROOT for a network of others.
photographs: the same on the ten photographs of the package, 128 x 128, three seeds of noise.
PEERS_ROOT for a network that was trained on photographs.

BM3D is measured where the package `bm3d` is installed, which no other part of the book needs (read
its terms of use). Each section is written to src/helpers/recorded/classical.json when it is done;
*From Fourier to UNets* draws from it.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import record
import torch
from record import rounded
from torch import Tensor

from helpers import geometry, models
from helpers.data import load
from helpers.data.synthetic import c_alpha
from helpers.denoisers import Denoiser
from helpers.released import load_peer
from helpers.systems.campagne import classical, photographs

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.4)
SEEDS, IMAGES, TRAINING = (0, 1, 2), 12, 1000
PEERS = "PEERS_ROOT"


def peer(file: str) -> dict[str, Denoiser]:
    """A network of others under the name "network of others", nothing where PEERS_ROOT is not set."""
    return (
        {"network of others": load_peer(Path(os.environ[PEERS]) / file)}
        if os.environ.get(PEERS)
        else {}
    )


def patches() -> dict[str, Denoiser]:
    try:
        return {"BM3D": classical.bm3d()}
    except ValueError as error:
        print(error, flush=True)
        return {}


def table(denoisers: dict[str, Denoiser], images: Callable[[int], Tensor], ours: str) -> dict:
    """Mean PSNR of each seed and level; half 95 % intervals over images; what `ours` has over each;
    slopes; seconds."""
    found: dict[str, list[Tensor]] = {}
    for seed in SEEDS:
        for name, psnr in classical.compare(denoisers, images(seed), SIGMAS, seed).items():
            found.setdefault(name, []).append(psnr)
        print(seed, {k: rounded(v[-1].mean(0), 2) for k, v in found.items()}, flush=True)
    inputs = -20 * torch.tensor(SIGMAS, dtype=torch.float64).log10()
    rows, gains = {}, {}
    for name, parts in found.items():
        slopes = geometry.slope(inputs, torch.cat(parts))
        half = [classical.interval(level)[1] for level in torch.cat(parts).T]
        slope = rounded(classical.interval(slopes))
        rows[name] = {
            "seeds": [rounded(p.mean(0), 3) for p in parts],
            "half": rounded(half, 3),
            "slope": slope,
        }
        over = [
            classical.interval(level) for level in (torch.cat(found[ours]) - torch.cat(parts)).T
        ]
        gains[name] = {
            "mean": rounded([m for m, _ in over], 3),
            "half": rounded([h for _, h in over], 3),
        }
    return {"sigmas": list(SIGMAS), "seeds": list(SEEDS), "images a seed": len(images(SEEDS[0])), "ours": ours,
            "psnr": rows, "gains": gains, "milliseconds": milliseconds(denoisers, images(SEEDS[0])[:4])}  # fmt: skip


@torch.no_grad()
def milliseconds(denoisers: dict[str, Denoiser], x: Tensor) -> dict[str, float]:
    """CPU time an image at sigma = .1, one thread."""
    y, spent = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)), {}
    for name, denoiser in denoisers.items():
        denoiser(y, 0.1)  # the first call also loads
        start = time.process_time()
        denoiser(y, 0.1)
        spent[name] = round(1000 * (time.process_time() - start) / len(x), 1)
    return spent


def settings(images: int = 16) -> dict:
    """Mean PSNR at each level on training images of regularity 2; what the chapter takes is in the
    grid."""
    x, found = c_alpha(images, 2, seed=0), {}
    grids = {
        "total variation": {
            w: classical.total_variation(w) for w in (0.6, 0.8, 1.0, 1.1, 1.2, 1.5)
        },
        "total variation, coarse": {
            w: classical.total_variation(w, 2e-4, 200) for w in (0.8, 1.1, 1.5)
        },
        "non-local means": {h: classical.non_local_means(h) for h in (0.6, 0.8, 1.0, 1.2)},
        "hard, spun": {t: classical.CycleSpun(t) for t in (2.0, 2.5, 3.0, 3.5, 4.0)},
    }
    for method, grid in grids.items():
        psnr = classical.compare(
            {str(value): denoiser for value, denoiser in grid.items()}, x, SIGMAS, 0
        )
        found[method] = {k: rounded(v.mean(0), 3) for k, v in psnr.items() if k != "noisy"}
    return {"images": images, "sigmas": list(SIGMAS), "psnr": found}


def c_alphas() -> dict:
    found = {}
    for alpha in (2, 4):
        training = load("c-alpha", n=TRAINING, alpha=alpha).images
        denoisers = classical.classics(training) | (patches() if alpha == 2 else {})
        denoisers["UNet"] = models.load(f"c-alpha-{alpha}")
        found[str(alpha)] = table(
            denoisers,
            lambda seed, a=alpha: load("c-alpha", "test", IMAGES, alpha=a, seed=seed).images,
            "UNet",
        )
    return {"training": TRAINING, "alphas": found}


def faces() -> dict:
    x = load("celeba", "test", IMAGES * len(SEEDS)).images
    denoisers = classical.classics(load("celeba", n=TRAINING).images) | patches()
    denoisers |= {"UNet, faces": models.load("faces80"), "UNet, C^2": models.load("c-alpha-2")}
    denoisers |= peer("bfcnn_celeba160_gray_rf43.npz")
    return {
        "training": TRAINING,
        **table(denoisers, lambda seed: x[IMAGES * seed :][:IMAGES], "UNet, faces"),
    }


def pictures() -> dict:
    """Images are the same for every seed: intervals are over pictures, of means over the noise."""
    x, sigma = photographs.photographs(), SIGMAS.index(0.1)
    denoisers = {k: d for k, d in classical.classics(x).items() if k != "Wiener"} | patches()
    denoisers |= {"UNet, faces": models.load("faces80"), "UNet, C^2": models.load("c-alpha-2")}
    denoisers |= peer("unet_bsd400_gray_bias_free_0-100.npz")
    each: dict[str, list[Tensor]] = {}
    for seed in SEEDS:
        for name, psnr in classical.compare(denoisers, x, SIGMAS, seed).items():
            each.setdefault(name, []).append(psnr)
        # Wiener's filter of the other nine: no picture may know its own spectrum
        own = [classical.Wiener.from_points(torch.cat([x[:i], x[i + 1 :]])) for i in range(len(x))]
        filtered = classical.compare(
            {str(i): wiener for i, wiener in enumerate(own)}, x, SIGMAS, seed
        )
        each.setdefault("Wiener", []).append(
            torch.stack([filtered[str(i)][i] for i in range(len(x))])
        )
        print(seed, {k: rounded(v[-1].mean(0), 2) for k, v in each.items()}, flush=True)
    means = {name: torch.stack(parts).mean(0) for name, parts in each.items()}
    rows = {
        name: {"seeds": [rounded(p.mean(0), 3) for p in parts],
               "half": rounded([classical.interval(level)[1] for level in means[name].T], 3),
               "pictures": rounded(means[name][:, sigma], 2)}
        for name, parts in each.items()
    }  # fmt: skip
    return {"sigmas": list(SIGMAS), "seeds": list(SEEDS), "size": x.shape[1], "names": list(photographs.NAMES),
            "psnr": rows}  # fmt: skip


SECTIONS = {"settings": settings, "c-alpha": c_alphas, "faces": faces, "photographs": pictures}

if __name__ == "__main__":
    record.main(__doc__, "classical", SECTIONS)
