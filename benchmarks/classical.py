"""Classical denoisers and networks on the same images: `python benchmarks/classical.py [SECTION
...]`.

settings: one number of each method on training images of C^alpha, a grid.
c-alpha: PSNR at five levels on test images of regularity 2 and 4, three seeds, with BM3D for
regularity 2.
faces: the same on test faces, 80 x 80. Needs CELEBA_ROOT, and PEERS_ROOT for a network of others.
training: DnCNN, trained on squares of nine photographs for two lengths, and what it gains on the tenth.
standard: PSNR and SSIM, paired, with DnCNN and networks of others, on C^2 images, faces, and the
middle of Set12 (128 x 128) and of 24 images of BSD68 (96 x 96). Needs CELEBA_ROOT, PEERS_ROOT and
TEST_IMAGES_ROOT, a folder that holds the sets (see `photographs.standard`).
rates: on images of one contour, 512 x 512, what an oracle and a threshold reach in four bases.
dreams: what BM3D and DnCNN generate, and how far their Jacobians are from symmetric.

BM3D is measured where the package `bm3d` is installed, which no other part of the book needs (read
its terms of use); its answers, and the DnCNN of `training`, are kept in build/train/classical.
Each section is written to src/helpers/recorded/classical.json when it is done; *From Fourier to
UNets* draws from it.
"""

import hashlib
import os
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import record
import torch
from PIL import Image
from record import rounded
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers import geometry, models, sampling, training
from helpers.data import load
from helpers.data.synthetic import c_alpha
from helpers.denoisers import CNN, Denoiser
from helpers.recipe import Recipe
from helpers.released import load_peer
from helpers.systems.campagne import classical, directional, photographs, scores, thresholds

SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.4)
SEEDS, IMAGES, TRAINING = (0, 1, 2), 12, 1000
PEERS = "PEERS_ROOT"
FOLDER = record.ROOT / "build/train/classical"
SIDE, MOST = {"set12": 128, "bsd68": 96}, 24  # pixels and images of a set at most
# steps of DnCNN: the longer is used, and the shorter says what more steps are worth
LENGTHS, LOOKS = (1500, 3000), 12  # looks at the photograph that is held out, in each
RATES = (2.0, 2.83, 4.0, 5.66, 8.0)  # noise levels, of images whose contrast is 1


class Kept(Denoiser):
    """The answers of a slow denoiser, each computed once and kept in FOLDER."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser = denoiser

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        answers = []
        for image in y:
            key = hashlib.sha256(image.numpy().tobytes() + f"{float(sigma):.6g}".encode())
            file = FOLDER / f"{key.hexdigest()[:24]}.safetensors"
            if not file.exists():
                save_file({"x_hat": self.denoiser(image[None], sigma)[0].contiguous()}, file)
            answers.append(load_file(file)["x_hat"])
        return torch.stack(answers)


def peer(file: str) -> dict[str, Denoiser]:
    """A network of others under the name "network of others", nothing where PEERS_ROOT is not set."""
    return (
        {"network of others": load_peer(Path(os.environ[PEERS]) / file)}
        if os.environ.get(PEERS)
        else {}
    )


def squares(name: str, *scales: float) -> Tensor:
    """Squares of 40 x 40 pixels of a photograph of the package, at these shares of its size."""
    with Image.open(files("skimage") / "data" / f"{name}.png") as opened:
        gray = opened.convert("L")
    found = []
    for scale in scales:
        small = gray.resize([int(scale * side) for side in gray.size], Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.asarray(small, dtype=np.float32) / 255)
        found.append(pixels.unfold(0, 40, 20).unfold(1, 40, 20).reshape(-1, 40, 40))
    return torch.cat(found)


def dncnn() -> Denoiser:
    """DnCNN (Zhang et al. 2017) at half its width, as `training` has left it."""
    network = CNN(17, 32, normalisation="batch", bias=True, first_relu=True)
    there = FOLDER / "dncnn.safetensors"
    if there.exists():
        network.load_state_dict(load_file(there))
        return network.eval()
    raise SystemExit("no DnCNN: run `python benchmarks/classical.py training` first")


def trained() -> dict:
    """Mean PSNR over SIGMAS on squares of the first photograph, which no training sees, at LOOKS steps
    of each of LENGTHS; the last network is kept for the other sections."""
    held, *others = photographs.NAMES
    seen = torch.cat([squares(name, 1.0, 0.7) for name in others])
    out = squares(held, 1.0)[::16]  # most of the others overlap
    found: dict = {"held out": held, "photographs": len(others), "runs": []}
    for steps in LENGTHS:
        network = CNN(17, 32, normalisation="batch", bias=True, first_relu=True)
        recipe = Recipe(
            steps, 16, 1e-3, ("log-uniform", 0.01, 0.5), "level", clip=1.0, ema=0.99, flip=True, precision="mixed"
        )  # fmt: skip
        run: dict = {"steps": [], "psnr": []}
        for p in training.train(network, seen, recipe):
            if p.step % (steps // LOOKS) == 0:
                psnr = scores.compare({"DnCNN": p.denoiser}, out, SIGMAS, record.SEED)["DnCNN"]
                run["steps"].append(p.step)
                run["psnr"].append(round(float(psnr.mean()), 3))
                print(f"DnCNN {p.step}: {run['psnr'][-1]} dB, {p.remaining:.0f} s left", flush=True)
        found["runs"].append(run | {"seconds": round(p.seconds)})
    weights = {k: v.contiguous() for k, v in network.state_dict().items()}  # not channels last
    save_file(weights, FOLDER / "dncnn.safetensors")
    return found


def patches() -> dict[str, Denoiser]:
    try:
        return {"BM3D": Kept(classical.bm3d())}
    except ValueError as error:
        print(error, flush=True)
        return {}


def rows(found: dict[str, Tensor], ours: str) -> dict:
    """Means of PSNR and SSIM (2, n, levels), half 95 % intervals over images, and what `ours` has
    over each."""

    def both(values: Tensor) -> dict:
        cells = [[scores.interval(level) for level in part.T] for part in values]
        return {"mean": rounded([[m for m, _ in part] for part in cells]),
                "half": rounded([[h for _, h in part] for part in cells])}  # fmt: skip

    return {name: {**both(v), "gain": both(found[ours] - v)} for name, v in found.items()}


def table(denoisers: dict[str, Denoiser], images: Callable[[int], Tensor], ours: str) -> dict:
    """Mean PSNR of each seed and level; half 95 % intervals over images; what `ours` has over each;
    slopes; seconds."""
    found: dict[str, list[Tensor]] = {}
    for seed in SEEDS:
        for name, psnr in scores.compare(denoisers, images(seed), SIGMAS, seed).items():
            found.setdefault(name, []).append(psnr)
        print(seed, {k: rounded(v[-1].mean(0), 2) for k, v in found.items()}, flush=True)
    inputs = -20 * torch.tensor(SIGMAS, dtype=torch.float64).log10()
    rows, gains = {}, {}
    for name, parts in found.items():
        slopes = geometry.slope(inputs, torch.cat(parts))
        half = [scores.interval(level)[1] for level in torch.cat(parts).T]
        slope = rounded(scores.interval(slopes))
        rows[name] = {
            "seeds": [rounded(p.mean(0), 3) for p in parts],
            "half": rounded(half, 3),
            "slope": slope,
        }
        over = [scores.interval(level) for level in (torch.cat(found[ours]) - torch.cat(parts)).T]
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
        denoiser = denoiser.denoiser if isinstance(denoiser, Kept) else denoiser
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
        "curvelets": {t: directional.Curvelets(t) for t in (2.0, 2.5, 3.0, 3.5)},
        "curvelets, seam": {t: directional.Curvelets(t, mirror=False) for t in (2.0, 2.5, 3.0)},
        "curvelets, 4 x 4 shifts": {t: directional.Curvelets(t, shifts=4) for t in (2.5,)},
        "directions": {t: directional.DirectionalHaar(t) for t in (3.0, 3.5, 4.0, 4.5)},
        "directions, unspun": {t: directional.DirectionalHaar(t, shifts=1) for t in (4.0,)},
    }
    for method, grid in grids.items():
        psnr = scores.compare(
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


def standard() -> dict:
    """Everything on the same images: C^2 images and faces, 12 each, and the middle of the images in
    the reader's folder."""
    folder = Path(os.environ[PEERS])
    peers = {
        "BF-CNN, faces": load_peer(folder / "bfcnn_celeba160_gray_rf43.npz"),
        "UNet, BSD400": load_peer(folder / "unet_bsd400_gray_bias_free_0-100.npz"),
    }
    networks = {"DnCNN": dncnn(), **peers, "UNet, faces": models.load("faces80")}
    networks["UNet, C^2"] = models.load("c-alpha-2")
    sets = {
        "C^2": (
            load("c-alpha", "test", IMAGES, alpha=2, seed=0),
            load("c-alpha", n=TRAINING, alpha=2),
        ),
        "faces": (load("celeba", "test", IMAGES), load("celeba", n=TRAINING)),
    }
    # Wiener's filter is that of training images of the class, or of the ten photographs
    found: dict = {"sigmas": list(SIGMAS), "seed": record.SEED, "sets": {}}
    for name in ("C^2", "faces", *SIDE):
        if name in sets:
            x, training = (part.images for part in sets[name])
        else:
            x = photographs.standard(name, SIDE[name])[:MOST]
            training = photographs.photographs(SIDE[name])
        denoisers = classical.classics(training) | patches() | networks
        values = scores.scores(denoisers, x, SIGMAS, record.SEED)
        print(name, {k: rounded(v[0].mean(0), 2) for k, v in values.items()}, flush=True)
        found["sets"][name] = {"size": x.shape[1], "images": len(x), "rows": rows(values, "BM3D")}
    return found


def rates(images: int = 3, size: int = 512) -> dict:
    """Squared error over sigma, contours of regularity 2 and, as a control, 1/2.

    The oracle's m(x) exactly, that of curvelets by one run on noise; the universal threshold
    exactly for cosines and wavelets (hard), by one run for curvelets and directions.
    """
    found: dict = {"images": images, "size": size, "sigmas": list(RATES), "alphas": {}}
    for alpha in (2.0, 0.5):
        x = directional.horizons(images, alpha, size)
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        errors: dict[str, list[Tensor]] = {}
        for sigma in RATES:
            bases = {
                "cosines": geometry.cosines(x).flatten(1),
                "wavelets": geometry.wavelets(x, "haar", 9),
            }
            t, now = thresholds.universal(size**2), {}
            for name, c in bases.items():
                now[f"{name}, oracle"] = c.square().clamp(max=sigma**2).sum(1)
                now[f"{name}, threshold"] = thresholds.threshold_risk(c, sigma, t, "hard")
            y = x + sigma * noise
            pairs = list(
                zip(directional.mirrored(y.numpy()), directional.mirrored(x.numpy()), strict=True)
            )
            for kind, least in (("oracle", sigma), ("threshold", t * sigma)):
                kept = [
                    directional.curvelets_kept(a, least, 7, b if kind == "oracle" else None)
                    for a, b in pairs
                ]
                kept = torch.from_numpy(np.stack(kept))[:, :size, :size]
                now[f"curvelets, {kind}"] = (kept - x).square().sum((1, 2))
            now["directions, oracle"] = directional.directional(x.float(), sigma, size, 0.0, 8)[0]
            kept = directional.directional(y.float(), t * sigma, size, 1.0, 8)[1]
            now["directions, threshold"] = (kept - x).square().sum((1, 2))
            for name, error in now.items():
                errors.setdefault(name, []).append(error)
            print(alpha, sigma, {k: round(float(v.mean())) for k, v in now.items()}, flush=True)
        logs = torch.tensor(RATES, dtype=torch.float64).log()
        found["alphas"][f"{alpha:g}"] = {
            name: {"error": rounded(torch.stack(rows, 1), 1),
                   "slope": rounded(scores.interval(geometry.slope(logs, torch.stack(rows, 1).log())))}
            for name, rows in errors.items()
        }  # fmt: skip
    noise = torch.randn(
        2, size, size, generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )
    flat = geometry.wavelets(noise, "haar", 9).square().clamp(max=1).sum(1)
    found["noise"] = rounded(directional.directional(noise.float(), 1.0, size, 0.0, 8)[0] / flat)
    return found


def dreams(count: int = 1) -> dict:
    """The chapter's generation with the denoisers that it does not run, and asymmetries at 32 x 32."""
    start = 0.5 + sampling.initial_noise(count, 80, 80, sigma=20.0, seed=0).float()
    schedule, found = sampling.edm(20, sigma_min=0.02, sigma_max=20.0).float(), {}
    y = load("c-alpha", "test", 1, alpha=2, size=32).images
    y = y + 0.1 * torch.randn(y.shape, generator=torch.Generator().manual_seed(0))
    for name, denoiser in (patches() | {"DnCNN": dncnn()}).items():
        with torch.no_grad():
            made = torch.cat([sampling.last(sampling.euler(denoiser, start, schedule)),
                              sampling.last(sampling.reverse_sde(denoiser, start, schedule, seed=0))])  # fmt: skip
        level, contrast = made.mean((1, 2), keepdim=True), made.std((1, 2), keepdim=True)
        pixels = (255 * (0.5 + 0.22 * (made - level) / contrast)).clamp(0, 255).round()
        judged = classical.bm3d() if name == "BM3D" else denoiser.double()
        skew = [scores.no_gradient(judged, y.double(), 0.1, 4, seed=s) for s in SEEDS]
        found[name] = {
            "contrast": rounded(contrast.flatten()),
            "png": record.encoded(torch.cat(list(pixels), 1), "PNG"),
            "asymmetry": rounded(skew),
        }
        print(name, found[name]["contrast"], found[name]["asymmetry"], flush=True)
    picture = photographs.photographs(64)[:1]
    hand = picture + 0.1 * torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    kept = Kept(classical.bm3d())(hand, torch.tensor(0.1))
    shown = record.encoded((255 * kept[0].clamp(0, 1)).round(), "PNG")
    by_hand = {"psnr": rounded(scores.psnr(kept, picture), 2)[0], "png": shown}
    return {"side": 80, "denoisers": found, "camera": by_hand}


SECTIONS = {"settings": settings, "c-alpha": c_alphas, "faces": faces, "training": trained, "standard": standard,
            "rates": rates, "dreams": dreams}  # fmt: skip

if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    record.main(__doc__, "classical", SECTIONS)
