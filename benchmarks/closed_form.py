"""What do closed-form denoisers make of 1000 faces? `python benchmarks/closed_form.py [SECTION
...]`.

Needs CELEBA_ROOT. Each section is written to src/helpers/recorded/closed_form.json when it is done;
*Closed-form denoisers on faces* draws from it. Kept are numbers, moments and samples; a sample is
kept as a picture only when no sample of its row resembles a training face (correlation of pixels
below ALIKE): a picture of a face never is.
"""

from collections.abc import Callable

import record
import torch
from record import encoded
from torch import Tensor

from helpers import metrics, realism, sampling
from helpers.data import load
from helpers.denoisers import (
    Denoiser,
    LinearConvolution,
    LinearDenoiser,
    PooledConvolution,
    PosteriorMean,
)
from helpers.systems.levine_weiss.windows import HermitePolynomial, ReleasedPolynomial, patch_table

N, SIZE, SEED, SAMPLES, SHOWN = 1000, 40, 0, 64, 8
TEN, FINE = sampling.cosine_vp(10), sampling.cosine_vp(100)
ALIKE = 0.95


def faces() -> tuple[Tensor, Tensor]:
    """Training and test faces, float64."""
    return load("celeba", n=N, size=SIZE).images.double(), load(
        "celeba", "test", 200, SIZE
    ).images.double()


def png(images: Tensor) -> str:
    """Images (n, h, w) side by side, 8-bit gray, values outside [0, 1] black or white."""
    row = (255 * torch.cat(list(images), dim=1)).round().clip(0, 255)
    return encoded(row, "PNG", optimize=True)


def measured(
    name: str, denoiser: Denoiser, x: Tensor, schedule: Tensor, test: Tensor | None = None
) -> dict:
    """Samples from the common noise, and errors at the ten levels where `test` is given."""
    start = sampling.initial_noise(SAMPLES, SIZE, SIZE, sigma=float(schedule[0]), seed=SEED)
    end = metrics.finite(sampling.last(sampling.euler(denoiser, start, schedule)))
    flat, faces = ((z - z.mean((1, 2), keepdim=True)).flatten(1) for z in (end, x))
    alike = (torch.nn.functional.normalize(flat) @ torch.nn.functional.normalize(faces).T).amax(1)
    row = {
        "name": name,
        "steps": len(schedule) - 1,
        "samples": SAMPLES,
        "diverged": SAMPLES - len(end),
        "copies": metrics.share_of_copies(end, x),
        "alike": [round(float(v), 3) for v in (alike.mean(), alike.max())],
        "outside": round(float(((end - 0.5).abs() > 0.5 + 1 / 255).double().mean()), 4),
        "deviation": round(float(end.std(0).mean()), 4),
        "png": png(end[:SHOWN]) if len(end) >= SHOWN and float(alike.max()) < ALIKE else None,
    }
    if test is not None:
        for split, images in (("train", x[: len(test)]), ("test", test)):
            g = torch.Generator().manual_seed(SEED + 1)
            noise = torch.randn(images.shape, generator=g, dtype=torch.float64)
            row[split] = [
                float(f"{(denoiser(images + s * noise, s) - images).square().mean():.4g}")
                for s in schedule[:-1].tolist()
            ]
    print(
        {k: v for k, v in row.items() if k != "png"},
        "picture" if row["png"] else "no picture",
        flush=True,
    )
    return row


def linear() -> dict:
    """The spectrum, and ranks with many steps and with ten."""
    x, test = faces()
    full = LinearDenoiser.from_points(x)
    values = full.variances[: N - 1]
    rows = [measured(f"rank {r}", full.truncated(r), x, FINE) for r in (10, 50, 200)]
    rows += [measured("rank 999", full.truncated(N - 1), x, FINE)]
    rows += [measured("rank 999, ten levels", full.truncated(N - 1), x, TEN, test)]
    return {"eigenvalues": [float(f"{v:.4g}") for v in values.tolist()], "rows": rows}


def polynomial() -> dict:
    """The polynomial of the released code and the well-posed one on whole images; the posterior
    mean for comparison."""
    x, test = faces()
    denoisers = {
        "released polynomial": ReleasedPolynomial(x),
        "Hermite polynomial": HermitePolynomial(x),
        "posterior mean": PosteriorMean(x),
    }
    return {
        "features": [1024, 256],
        "rows": [measured(name, d, x, TEN, test) for name, d in denoisers.items()],
    }


def windows() -> dict:
    """The released polynomial on windows that shrink with the noise: the released schedule scaled
    to 40 pixels."""
    x, test = faces()
    table = patch_table(TEN[:-1], SIZE, 0.5)
    row = measured("released polynomial, windows", ReleasedPolynomial(x, patch=table), x, TEN, test)
    return {"sides_and_features": list(table.values()), "rows": [row]}


def rings(spectrum: Tensor) -> list[float]:
    """Mean power over rings of frequencies."""
    return [float(f"{power:.4g}") for power in realism.rings(spectrum).tolist()]


def spectrum() -> dict:
    """Generated power of convolutions and of their pooled versions; samples of three."""
    x, _ = faces()
    power = torch.fft.fftn(x - x.mean(), dim=(1, 2), norm="ortho").abs().square().mean(0)
    found: dict = {"target": rings(power), "widths": {}, "pooled": [], "rows": []}
    for width in (1, 3, 5, 9, 17, 39):
        filtered = LinearConvolution.from_points(x, width)
        found["widths"][str(width)] = rings(filtered.generated_spectrum())
        if width in (5, 17):
            found["rows"].append(measured(f"convolution, width {width}", filtered, x, FINE))
    for stride, cells in ((2, 3), (2, 5), (4, 3), (8, 3)):
        pooled = PooledConvolution.from_points(x, stride, cells)
        covariance = pooled.generated_covariance()
        found["pooled"].append(
            {
                "stride": stride,
                "cells": cells,
                "rings": rings(torch.fft.fft2(covariance.mean((0, 1))).real),
                "variance": [
                    [float(f"{v:.4g}") for v in row] for row in covariance[:, :, 0, 0].tolist()
                ],
            }
        )
        if (stride, cells) == (8, 3):
            found["rows"].append(measured("pooled by 8, 3 x 3 cells", pooled, x, FINE))
    return found


def about(section: Callable[[], dict]) -> Callable[[], dict]:
    """The section with what it was measured on."""
    return lambda: section() | {"data": f"{N} CelebA faces, {SIZE} x {SIZE} gray", "seed": SEED}


if __name__ == "__main__":
    sections = {
        "linear": linear,
        "polynomial": polynomial,
        "windows": windows,
        "spectrum": spectrum,
    }
    record.main(
        __doc__, "closed_form", {name: about(section) for name, section in sections.items()}
    )
