"""What do small changes of a UNet change? `python benchmarks/ablations.py [SECTION ...]`.

judges: what the judges of realism say of real images and of images spoilt on purpose.
clothes, faces: every variant of the zoo, trained on 1000 images (faces need CELEBA_ROOT).
seeds: the clothes variants again from two other seeds, trained here; goes on where it was
interrupted.
levels: ten networks, one for each noise level, against one blind network and one that hears the
level.

Rows are written one by one to src/helpers/recorded/ablations.json; those that are there are not
made again: remove a section to renew it. *UNet ablations* draws from it. The face detector is a
cascade of OpenCV 4: pip install "opencv-python-headless<5", as `make results` does.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import record
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import metrics, models, realism, sampling
from helpers.data import load
from helpers.denoisers import (
    Denoiser,
    LinearDenoiser,
    LocalMean,
    PosteriorMean,
    ProjectedDenoiser,
)
from helpers.denoisers.base import nearest_level, per_level
from helpers.experiments import runner
from helpers.experiments.engines import on_cores
from helpers.experiments.zoo import VARIANTS, Entry, zoo
from helpers.recipe import Recipe
from helpers.recorded import retrained
from helpers.systems.kamb_ganguli.agreement import calibrate

FOLDER = record.ROOT / "build/ablations"
# training images; samples that are judged; samples compared with theories
N, MADE, COMPARED = 1000, 256, 32
SEEDED = {f"{v}, seed {s}": (v, s) for s in (1, 2) for v in VARIANTS}


class Source:
    """A set of 1000 images, its held-out images, and how networks trained on it are sampled and
    judged."""

    def __init__(self, kind: str):
        self.kind, name, size = (
            kind,
            {"clothes": "fashion-mnist", "faces": "celeba"}[kind],
            {"clothes": 32, "faces": 40},
        )
        self.zoo = {"clothes": "fashion", "faces": "faces"}[kind]
        where = {"name": name, "size": size[kind]}
        self.train, self.other = (load(**where, split=s, n=N).images for s in ("train", "disjoint"))
        self.test = load(**where, split="test", n=N).images
        self.mean = round(float(self.train.mean()), 3)
        self.judge = models.load(f"{self.zoo}-autoencoder")
        self.real = self.judge.features(self.test[MADE:])  # apart from those that pose as samples
        self.sigmas = sampling.edm(60, 0.02, 5.0).float()
        self.few = sampling.edm(20, 0.02, 5.0).float()

    def start(self, n: int, seed: int = 0) -> Tensor:
        return (
            self.mean
            + sampling.initial_noise(n, *self.train.shape[1:], sigma=5.0, seed=seed).float()
        )

    @torch.no_grad()
    def sample(self, denoiser: Denoiser) -> Tensor:
        """By the reverse SDE, whose noise mends what the network errs."""
        return sampling.last(sampling.reverse_sde(denoiser, self.start(MADE), self.sigmas, seed=0))

    @torch.no_grad()
    def foretold(self, denoiser: Denoiser) -> Tensor:
        """By the ODE: from the same noise, what one denoiser makes can be held against what another
        makes."""
        return sampling.last(sampling.euler(denoiser, self.start(COMPARED, seed=1), self.few))

    def judged(self, images: Tensor) -> dict[str, Any]:
        kept = metrics.finite(images)
        if len(kept) < 2:
            return {"diverged": len(images) - len(kept)}
        near, held = (
            metrics.nearest(kept, points, 1)[0][:, 0] for points in (self.train, self.other)
        )
        features = self.judge.features(kept)
        found = {
            "diverged": len(images) - len(kept),
            "copies": metrics.share_of_copies(kept, self.train),
            "closeness": float((near / held).median()),
            "kid": realism.kid(self.real, features),
            "fid": realism.fid(self.real, features),
            "spectrum": realism.spectral_distance(self.test, kept),
            "sharpness": realism.sharpness(kept) / realism.sharpness(self.test),
        }
        return found | (detected(kept[:128]) if self.kind == "faces" else {})

    def theories(self) -> dict[str, Tensor]:
        """What closed forms make of the noise: the linear denoiser, and the local one with the base
        UNet's windows."""
        base = models.load(f"{self.zoo}-base")
        windows = calibrate(
            base,
            lambda p: LocalMean(self.train, p),
            self.start(8, seed=2),
            self.few,
            [3, 5, 7, 9, 11, 13, 17, 21, 27],
        )
        local = LocalMean(self.train, windows.table())
        parts = {
            "linear": LinearDenoiser.from_points(self.train),
            "local": local,
            "bottleneck": ProjectedDenoiser(self.train, 50),
            "ideal": PosteriorMean(self.train),
        }
        return {name: self.foretold(denoiser) for name, denoiser in parts.items()}


def detected(images: Tensor) -> dict[str, float]:
    """Share of the images in which OpenCV's cascade finds a frontal face, and its mean confidence
    (0 where none)."""
    import cv2

    cv2.setNumThreads(1)
    cascade = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt.xml")
    large = F.interpolate(images[:, None].clamp(0, 1), scale_factor=4, mode="bicubic").clamp(0, 1)
    large = F.pad(large, (40,) * 4, mode="replicate")  # the detector wants room around a face
    found = []
    for image in (255 * large[:, 0]).round().to(torch.uint8).numpy():
        _, _, weights = cascade.detectMultiScale3(
            image, 1.05, 3, minSize=(70, 70), outputRejectLevels=True
        )
        found.append(max(weights, default=0.0))
    return {"detected": float(np.mean([w > 0 for w in found])), "confidence": float(np.mean(found))}


def row(source: Source, denoiser: Denoiser, theories: dict[str, Tensor]) -> dict[str, Any]:
    """Everything that is measured of one denoiser."""
    own = source.foretold(denoiser)
    kept = own.flatten(1).isfinite().all(1)
    alike = {
        k: float(metrics.pearson(v[kept], own[kept]).nanmedian())
        for k, v in theories.items()
        if kept.any()
    }
    tables = {
        s: models.psnr_table(denoiser, x[:200])["psnr"]
        for s, x in (("train", source.train), ("test", source.test))
    }
    return source.judged(source.sample(denoiser)) | {"agreement": alike, "psnr": tables}


def judges(source: Source) -> dict[str, Callable[[], dict]]:
    g = torch.Generator().manual_seed(0)
    x = source.test[:MADE]
    spoilt = {
        "real, test": lambda: x,
        "real, training": lambda: source.train[:MADE],
        "blurred 3x3": lambda: F.avg_pool2d(x[:, None], 3, 1, 1)[:, 0],
        "noise of .05 added": lambda: x + 0.05 * torch.randn(x.shape, generator=g),
        "upside down": lambda: x.flip(1),
        "pixels shuffled": lambda: x.flatten(1)[
            :, torch.randperm(x[0].numel(), generator=g)
        ].view_as(x),
        "uniform noise": lambda: torch.rand(x.shape, generator=g),
    }
    closed = {
        "linear": LinearDenoiser.from_points(source.train),
        "linear, rank 50": LinearDenoiser.from_points(source.train, 50),
        "posterior mean": PosteriorMean(source.train),
    }
    rows: dict[str, Callable[[], dict]] = {
        name: lambda m=m: source.judged(m()) for name, m in spoilt.items()
    }
    rows |= {name: lambda d=d: source.judged(source.sample(d)) for name, d in closed.items()}
    return rows


def variants(source: Source) -> dict[str, Callable[[], dict]]:
    cards, theories = models.manifest(), {}

    def one(name: str) -> dict:
        if not theories:
            theories.update(source.theories())
        found = row(source, models.load(name), theories)
        return found | {
            "parameters": cards[name]["parameters"],
            "images_seen": cards[name]["images_seen"],
        }

    names = {variant: f"{source.zoo}-{variant}" for variant in VARIANTS}
    return {v: lambda name=name: one(name) for v, name in names.items() if name in cards}


def seeded(which: tuple[str, int]) -> Denoiser:
    """The clothes variant from another seed: of the weights, the noise, and the order of the
    images."""
    variant, seed = which
    entry = zoo()[f"fashion-{variant}"]
    return again(entry, seed, f"{variant}-{seed}", entry.recipe)


def again(entry: Entry, seed: int, state: str, recipe: Recipe) -> Denoiser:
    """An entry trained from that seed; of a finished training this only reads the file."""
    options, recipe = {**entry.options, "seed": seed}, replace(recipe, seed=seed)
    entry = replace(entry, options=options, recipe=recipe)
    return runner.trained(entry, state=FOLDER / f"{state}.safetensors")[0]


def seeds(source: Source) -> dict[str, Callable[[], dict]]:
    theories: dict[str, Tensor] = {}

    def one(which: tuple[str, int]) -> dict:
        if not theories:
            theories.update(source.theories())
        return row(source, seeded(which), theories)

    missing = [key for name, key in SEEDED.items() if name not in kept("seeds").get("rows", {})]
    for key, outcome in on_cores(seeded, missing, os.cpu_count() or 1):  # as in the zoo
        if isinstance(outcome, Exception):
            raise ValueError(f"{key}: {outcome}; run again to go on") from outcome
    return {name: lambda key=key: one(key) for name, key in SEEDED.items()}


class PerLevel(Denoiser):
    """One network for each noise level; the nearest level answers."""

    def __init__(self, sigmas: Tensor, networks: list[Denoiser]):
        super().__init__()
        self.sigmas, self.networks = sigmas, torch.nn.ModuleList(networks)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return per_level(
            y,
            sigma,
            lambda rows, s: self.networks[int(nearest_level(self.sigmas, torch.tensor(s)))](
                rows, s
            ),
        )


def levels(source: Source) -> dict[str, Callable[[], dict]]:
    """All on the ten levels of one schedule, which is how many the released code of Levine & Weiss
    has."""
    source.sigmas = source.few = sampling.edm(10, 0.02, 5.0).float()
    entry = zoo()["fashion-base"]

    def ten() -> Denoiser:
        networks = [
            again(entry, i, f"level-{i}", replace(entry.recipe, noise=("fixed", sigma)))
            for i, sigma in enumerate(source.sigmas[:-1].tolist())
        ]
        return PerLevel(source.sigmas[:-1], networks).eval()

    made = {"ten networks": ten} | {
        k: lambda k=k: models.load(f"fashion-{k}") for k in ("base", "bias", "conditioned")
    }
    return {name: lambda build=build: row(source, build(), {}) for name, build in made.items()}


SECTIONS: dict[str, tuple[str, Callable[[Source], dict[str, Callable[[], dict]]]]] = {
    "judges-clothes": ("clothes", judges),
    "judges-faces": ("faces", judges),
    "clothes": ("clothes", variants),
    "faces": ("faces", variants),
    "seeds": ("clothes", seeds),
    "levels": ("clothes", levels),
}


def rounded(value: Any) -> Any:
    """Four significant digits are more than is known."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def kept(section: str) -> dict[str, Any]:
    """What is recorded of the networks that there are now."""
    found = record.read("ablations").get(section, {})
    return {} if retrained(found) else found


def measure(section: str) -> None:
    kind, make = SECTIONS[section]
    record.OPENED.clear()
    for name, one in make(Source(kind)).items():
        found = kept(section)
        rows = found.get("rows", {})
        if name not in rows:
            rows[name] = rounded(one())
            networks = found.get("networks", {}) | record.networks()
            about = {"networks": networks, "provenance": record.provenance()}
            record.write("ablations", section, {"N": N, "samples": MADE, "rows": rows, **about})
            print(section, name, rows[name], flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], help="none means all")
    torch.set_num_threads(1)
    for section in parser.parse_args().sections or SECTIONS:
        measure(section)
