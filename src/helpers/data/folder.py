"""A folder of the reader's own images: any sizes, colour or gray, brought to one square size."""

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

KINDS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # Pillow reads others by starting programs
# what is called so is meant to be an image; whatever else is none may lie there unmentioned
CALLED = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif"}
FEWEST = 3  # images of a folder: a test image, and two to be apart in the pool
NAMED = 5  # files that an error names

Fault = str
Pixels = tuple[str, np.ndarray]  # SHA-256 of the file, (size, size, 3) bytes


def folder(path: str | Path, split: str, size: int, skip: bool = False) -> tuple[Tensor, str]:
    """All images of a split ("pool" or "test") of a folder and where they come from; (N, size,
    size, 3) bytes, red, green, blue.

    What is an image is decided by content: JPEG, PNG, WebP, GIF (its first frame), BMP or TIFF, in
    subfolders too; hidden files and links to folders are left alone, and equal files count once.
    Each is turned as its camera says, laid on white where it is transparent, cut to the largest
    square at its centre and brought to `size` by Pillow's bicubic filter on 8 bits, never enlarged.
    A JPEG far larger than that is decoded at a fraction of its size, at least twice `size`.

    In the order of the SHA-256 of the files, whatever their names, the last tenth (at least one) is
    the test split, the others are the pool: the same on every machine, until files are added.

    Raises ValueError for a path that is no folder, fewer than three images, and, unless `skip`
    leaves them out, files that are called images and are none, broken, smaller than `size` or
    larger than Pillow's bound against bombs; it names the files and the remedy.
    """
    root = Path(os.path.expanduser(str(path)))
    if not path or not root.is_dir():
        raise ValueError(f"path is {str(path)!r}: name a folder; an archive is unpacked first")
    files = [
        file
        for file in root.rglob("*")
        if not any(part.startswith(".") for part in file.relative_to(root).parts) and file.is_file()
    ]
    about = [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in files]
    images, faults = _decoded(tuple(sorted(about)), size)
    if faults and not skip:
        names = ", ".join(f"{Path(f).relative_to(root)} ({why})" for f, why in faults[:NAMED])
        more = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        raise ValueError(
            f"{root} has files that cannot be used ({len(faults)}): {names}{more}; mend them, take "
            "them out, pass skip=True to leave them out, or a smaller size where they are small"
        )
    if len(images) < FEWEST:
        raise ValueError(
            f"{root} has {len(images)} images of {size}x{size} or larger: put at least {FEWEST} "
            f"different ones there, as {', '.join(KINDS)}"
        )
    order = sorted(images)
    tests = max(1, len(order) // 10)
    chosen = order[-tests:] if split == "test" else order[:-tests]
    key = hashlib.sha256("".join(order).encode()).hexdigest()[:16]
    left_out = f", {len(faults)} left out" if faults else ""
    source = f"folder {root.resolve().name!r} ({len(order)} images{left_out}, key {key})"
    return torch.from_numpy(np.stack([images[name] for name in chosen])), source


@lru_cache(maxsize=1)  # the splits of one folder are asked for one after the other
def _decoded(
    files: tuple[tuple[str, int, int], ...], size: int
) -> tuple[dict[str, np.ndarray], list[tuple[str, Fault]]]:
    """Images by the SHA-256 of their files, and what is wrong with others; files: name, bytes,
    time of the last change."""
    names = [name for name, *_ in files]
    with ThreadPoolExecutor() as pool, warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        warnings.simplefilter("ignore", UserWarning)  # of damaged notes beside whole pixels
        found = list(zip(names, pool.map(partial(_one, size=size), names), strict=True))
    images = dict(one for _, one in found if isinstance(one, tuple))
    return images, [(name, fault) for name, fault in found if isinstance(fault, str)]


def _one(file: str, size: int) -> Pixels | Fault | None:
    """A file's pixels, what is wrong with it, or None where it is none of ours."""
    try:
        with open(file, "rb") as opened, Image.open(opened, formats=KINDS) as image:
            if min(image.size) < size:
                return f"is {image.width}x{image.height}, smaller than {size}x{size}"
            if image.mode in ("I", "F"):
                return "has 32-bit pixels, of which none says what white is: save it with 8 or 16"
            image.draft(None, (2 * size, 2 * size))
            whole = _rgb(ImageOps.exif_transpose(image))
            side = min(whole.size)
            left, top = (whole.width - side) // 2, (whole.height - side) // 2
            square = whole.crop((left, top, left + side, top + side))
            small = square.resize((size, size), Image.Resampling.BICUBIC)
            opened.seek(0)
            return hashlib.file_digest(opened, "sha256").hexdigest(), np.asarray(small)
    except MemoryError:  # of this machine
        raise
    except UnidentifiedImageError:
        called = Path(file).suffix.lower() in CALLED
        return "is no image that is read here: save it as JPEG or PNG" if called else None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        return f"has more than {Image.MAX_IMAGE_PIXELS} pixels"
    except Exception:  # a damaged image fails in every way there is
        return "is broken or may not be read"


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # Pillow would cut off all above 255
        image = Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")
