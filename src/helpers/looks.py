"""Looks at a network while it trains: what it makes of one noise, and what judges say of that."""

import io
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from . import metrics, models, realism, sampling
from .data import ImageSet
from .denoisers import Denoiser, PerLevel
from .files import write_atomically

SHOWN, JUDGED = 8, 96  # samples in a row of the sheet; samples that are judged
# where sampling starts, in units of the intensities, and calls of the denoiser
SIGMA_MAX, STEPS = 40.0, 36
# where it starts for a network that is not told the level, as Kadkhodaie et al. 2024 do: from
# farther up one of few images copies less
BLIND_MAX = 1.0
# and their size in pixels
JUDGES = {"celeba": ("faces-autoencoder", 40), "fashion-mnist": ("fashion-autoencoder", 32)}
ALIKE = 0.95  # correlation from which on a quadrant is one of a training image


def levels(denoiser: Denoiser, steps: int | None = None) -> Tensor:
    """The schedule at which a network is looked at, (steps + 1,), of STEPS unless said: EDM's, from
    SIGMA_MAX or, where it is not told the level, from BLIND_MAX; its own levels where it has some."""
    if isinstance(denoiser, PerLevel):
        return torch.tensor([*sorted(denoiser.levels, reverse=True), 0.0], dtype=torch.float64)
    blind = getattr(denoiser, "arguments", {}).get("blind", True)
    return sampling.edm(steps or STEPS, 0.01, BLIND_MAX if blind else SIGMA_MAX)


@torch.no_grad()
def samples(
    denoiser: Denoiser,
    images: Tensor,
    device: str | torch.device,
    count: int | None = None,
    sigmas: Tensor | None = None,
    sampler: Callable = sampling.reverse_sde,
    seed: int = 0,
) -> Tensor:
    """`count` images, JUDGED unless said, like the training images (N, *event), on the CPU; from
    the same noise whenever it is called with the same seed.

    By the reverse SDE around their mean gray, or another sampler of `helpers.sampling`; at `levels`,
    or at sigmas.
    """
    sigmas = levels(denoiser) if sigmas is None else sigmas
    start = sampling.initial_noise(
        count or JUDGED, *images.shape[1:], sigma=float(sigmas[0]), seed=seed, dtype=torch.float32
    )
    around = float(images.mean())
    return sampling.last(sampler(denoiser, (around + start).to(device), sigmas)).cpu()


def judged(made: Tensor, data: ImageSet, test: ImageSet, flip: bool = False) -> dict[str, float]:
    """kid: kernel distance to the test images on an autoencoder's features of their gray,
    kid_error: its standard error by the choice of samples, both where there is a judge of such
    data; copies: share by the ratio of distances; closeness: see there; quadrants: share that
    matches the same place of a training image; grain: power above a third of all frequencies over
    that of the test images; lost: share that diverged.

    flip: whether mirrored training images were shown too, so that one of those is a copy."""
    if flip:
        data = replace(data, images=torch.cat([data.images, data.images.flip(-1)]))
    kept = metrics.finite(made)
    found = {"lost": 1 - len(kept) / len(made)}
    if len(kept) > 1:
        gray, seen, unseen = (_gray(x) for x in (kept, data.images, test.images))
        if data.name in JUDGES:
            name, size = JUDGES[data.name]
            judge = models.load(name)
            features = [judge.features(_sized(x, size)) for x in (unseen, gray)]
            found |= dict(zip(("kid", "kid_error"), realism.kid_with_error(*features), strict=True))
        found["grain"] = float(realism.grain(gray).mean() / realism.grain(unseen).mean())
        found["quadrants"] = quadrants(kept, data.images)
        found["closeness"] = closeness(kept, data.images, test.images)
        if len(data) > 1:
            found["copies"] = metrics.share_of_copies(kept, data.images)
    return {name: round(value, 4) for name, value in found.items() if math.isfinite(value)}


def closeness(made: Tensor, seen: Tensor, unseen: Tensor) -> float:
    """Distance of an image to the nearest training image over that to the nearest of as many unseen
    images, the median of made (n, *event): 0 for a copy, 1 where the training images are no closer;
    NaN where all diverged."""
    n, kept = min(len(seen), len(unseen)), metrics.finite(made)
    if not len(kept):
        return math.nan
    near, other = (metrics.nearest(kept, x[:n], k=1)[0][:, 0] for x in (seen, unseen))
    return float((near / other).median())


def quadrants(made: Tensor, images: Tensor) -> float:
    """Share of the quadrants of images (n, *event) that match the same place of a training image."""
    gray, seen = _gray(made), _gray(images)
    return float(
        (metrics.patch_sources(gray, seen, gray.shape[-1] // 2)[1] > ALIKE).double().mean()
    )


def add_row(sheet: Path, made: Tensor, row: int) -> None:
    """The first SHOWN samples as row number `row`, from 0, of a PNG; what lies from there on down
    is replaced."""
    strip = _side_by_side(made[:SHOWN], SHOWN)
    if row:
        with Image.open(sheet) as above:
            strip = np.concatenate([np.asarray(above)[: row * len(strip)], strip])
    write_atomically(sheet, _png(strip))


def mosaic(images: Tensor, columns: int = SHOWN) -> bytes:
    """Images (n, *event) in rows of so many, the last filled with black, as they ship."""
    return as_webp(_png(_side_by_side(images, columns)))


def as_webp(png: bytes) -> bytes:
    """The sheet as it ships: a fraction of the bytes."""
    data = io.BytesIO()
    with Image.open(io.BytesIO(png)) as sheet:
        sheet.save(data, "WEBP", quality=75, method=6)
    return data.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def _side_by_side(images: Tensor, columns: int) -> np.ndarray:
    x = (255 * _rgb(images).nan_to_num(0).clamp(0, 1)).round().to(torch.uint8)
    x = torch.cat([x, x.new_zeros(-len(x) % columns, *x.shape[1:])]).unflatten(0, (-1, columns))
    # (rows, columns, 3, h, w) to (rows h, columns w, 3)
    return x.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()


def _gray(images: Tensor) -> Tensor:
    return images.mean(1) if images.ndim == 4 else images


def _rgb(images: Tensor) -> Tensor:
    return images if images.ndim == 4 else images[:, None].expand(-1, 3, -1, -1)


def _sized(gray: Tensor, size: int) -> Tensor:
    if gray.shape[-1] == size:
        return gray
    return F.interpolate(gray[:, None], (size, size), mode="bicubic", antialias=True)[:, 0]
