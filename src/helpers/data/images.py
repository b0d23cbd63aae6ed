"""One door to all images: `load(name, ...)`, in [0, 1], with where they come from."""

import gzip
import hashlib
import inspect
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..checks import checked_seed, checked_size, positive_int
from ..files import cache_folder
from . import synthetic
from .celeba import celeba
from .download import resumed
from .fashion_mnist import fashion_mnist
from .folder import folder

SPLITS = ("train", "disjoint", "test")
COLOURED = ("celeba", "folder")
FASHION = {  # the original files: name, its MD5 as published, SHA-256 of the unpacked bytes
    "pool": (
        "train-images-idx3-ubyte.gz",
        "md5:8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "test": (
        "t10k-images-idx3-ubyte.gz",
        "md5:bef4ecab320f06d8554ea6380940ec79",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
}
FASHION_URL = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion"
FASHION_ROOT = "FASHION_MNIST_ROOT"
T = TypeVar("T")


@dataclass(frozen=True)
class ImageSet:
    """Images of one split and what they are."""

    images: Tensor  # (N, H, W) gray or (N, 3, H, W), float32 in [0, 1]
    name: str
    split: str
    size: int
    colour: str
    source: str

    def __len__(self) -> int:
        return len(self.images)

    def __str__(self) -> str:
        return f"{len(self)} images, {self.split}, {self.size}x{self.size} {self.colour}: {self.source}"


def load(
    name: str,
    split: str = "train",
    n: int | None = None,
    size: int | None = None,
    colour: str = "gray",
    seed: int = 0,
    **options,
) -> ImageSet:
    """`n` images of a data set, float32 in [0, 1]; None takes all, or 1000 of a synthetic class.

    split: "train" the first n of the training pool, "disjoint" the last n (at most half of the
    pool, so that it shares none with a "train" of the same n), "test" the first n of the test
    images.

    name                    size (default first)   options
    fashion-mnist           32 (padded), 28        full=True: all 60,000 + 10,000, from
                                                   $FASHION_MNIST_ROOT or downloaded, instead of
                                                   the embedded 10,000 + 1,000
    celeba                  80, 40, 20; others     colour="gray" or "rgb"; needs CELEBA_ROOT, see
                            from the JPEGs         helpers.data.celeba
    folder                  80, any                path: a folder of your own images, see
                                                   helpers.data.folder; colour="gray" or "rgb";
                                                   skip=True leaves out what cannot be used
    c-alpha, disks, sine    80, any                those of helpers.data.synthetic, as alpha=2;
                                                   splits have seeds of their own, which `seed`
                                                   shifts
    black-white             32, any                the toy of two images
    ray, shuffled           those of `of`          of="celeba" or "fashion-mnist": the first image
                                                   scaled, or all shuffled as drawn from `seed`

    Raises ValueError for what is unknown, too many, or not on this machine, with the remedy.

    >>> load("disks", n=3, size=16).images.shape
    torch.Size([3, 16, 16])
    >>> print(load("fashion-mnist", n=100))
    100 images, train, 32x32 gray: Fashion-MNIST, embedded
    """
    if name not in tuple(LOADERS):
        raise ValueError(f"name is {name!r}: choose one of {', '.join(LOADERS)}")
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}: choose one of {', '.join(SPLITS)}")
    if colour not in ("gray", "rgb") or (colour == "rgb" and name not in COLOURED):
        raise ValueError(f"colour is {colour!r}: choose gray, or rgb for {' or '.join(COLOURED)}")
    n = n if n is None else positive_int("n", n)
    size = size if size is None else checked_size("size", size)
    seed = checked_seed(seed)
    return _called(name, LOADERS[name], split, n, size, colour, seed, **options)


def _called(name: str, function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    try:
        inspect.signature(function).bind(*arguments, **options)
    except TypeError as error:
        raise ValueError(f"{name} with {options}: {error}") from None
    return function(*arguments, **options)


def _fashion(
    split: str, n: int | None, size: int | None, colour: str, seed: int, full: bool = False
) -> ImageSet:
    size = size or 32
    if size not in (28, 32):
        raise ValueError(f"size is {size}: Fashion-MNIST is 28, or 32 with a border of zeros")
    part = "test" if split == "test" else "pool"
    if full:
        images, source = _full_fashion(part), "Fashion-MNIST, the original files"
    else:
        images, source = (
            fashion_mnist(split="test" if part == "test" else "train"),
            "Fashion-MNIST, embedded",
        )
    images = _taken(
        images, split, n, "Fashion-MNIST" if full else "embedded Fashion-MNIST (full=True has more)"
    )
    if size == 32:
        images = torch.nn.functional.pad(images, (2, 2, 2, 2))
    return ImageSet(images, "fashion-mnist", split, size, colour, source)


def _full_fashion(part: str) -> Tensor:
    file, md5, sha256 = FASHION[part]
    if os.environ.get(FASHION_ROOT):
        path = Path(os.environ[FASHION_ROOT]) / file
    else:
        import pooch

        try:
            path = Path(
                pooch.retrieve(
                    f"{FASHION_URL}/{file}", md5, file, cache_folder(), downloader=resumed
                )
            )
        except (OSError, ValueError) as error:  # no network, or another file than the published one
            raise ValueError(
                f"{FASHION_URL}/{file} did not arrive ({error}): try again, or set {FASHION_ROOT} to a folder with it"
            ) from None
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error):
        raw = b""
    if hashlib.sha256(raw).hexdigest() != sha256:
        raise ValueError(
            f"{path} is missing or damaged: get {FASHION_URL}/{file}, or unset {FASHION_ROOT}"
        )
    return (
        torch.from_numpy(np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28).copy()).float()
        / 255
    )


def _celeba(split: str, n: int | None, size: int | None, colour: str, seed: int) -> ImageSet:
    size = size or 80
    images, source = celeba("test" if split == "test" else "pool", size, colour)
    images = _taken(images, split, n, f"CelebA at this size and colour ({source})")
    return ImageSet(images, "celeba", split, size, colour, source)


def _folder(
    split: str,
    n: int | None,
    size: int | None,
    colour: str,
    seed: int,
    path: str | Path,
    skip: bool = False,
) -> ImageSet:
    size = size or 80
    pixels, source = folder(path, "test" if split == "test" else "pool", size, skip)
    pixels = _taken(pixels, split, n, source)
    if colour == "gray":
        images = pixels.sum(-1).float() / 765  # the plain mean, as for celeba
    else:
        images = pixels.permute(0, 3, 1, 2).float().contiguous() / 255
    return ImageSet(images, "folder", split, size, colour, source)


def _class(name: str, make: Callable[..., Tensor]) -> Callable[..., ImageSet]:
    def loader(
        split: str, n: int | None, size: int | None, colour: str, seed: int, **options
    ) -> ImageSet:
        size, stream = size or 80, 3 * seed + SPLITS.index(split)
        images = _called(name, partial(make, n or 1000, size=size, seed=stream), **options)
        said = "".join(f", {k} {v}" for k, v in options.items())
        return ImageSet(images, name, split, size, colour, f"synthetic {name}{said}, seed {stream}")

    return loader


def _ray(
    split: str, n: int | None, size: int | None, colour: str, seed: int, of: str = "celeba"
) -> ImageSet:
    base = load(of, "train", 1, size)
    stream = 3 * seed + SPLITS.index(split)
    images = synthetic.ray(base.images[0], n or 1000, seed=stream)
    return ImageSet(
        images,
        "ray",
        split,
        base.size,
        colour,
        f"multiples of the first of: {base.source}, seed {stream}",
    )


def _shuffled(
    split: str, n: int | None, size: int | None, colour: str, seed: int, of: str = "celeba"
) -> ImageSet:
    base = load(of, split, n, size)
    images = synthetic.shuffled(base.images, seed=seed)
    return ImageSet(
        images,
        "shuffled",
        split,
        base.size,
        colour,
        f"pixels permuted with seed {seed}: {base.source}",
    )


def _taken(images: Tensor, split: str, n: int | None, what: str) -> Tensor:
    limit = len(images) // 2 if split == "disjoint" else len(images)
    n = n or limit
    if n > limit:
        raise ValueError(f"n is {n}: {what} has {limit} images for split {split!r}")
    return images[len(images) - n :] if split == "disjoint" else images[:n]


def _black_white(split: str, n: int | None, size: int | None, colour: str, seed: int) -> ImageSet:
    images = _taken(synthetic.black_white(size or 32), split, n, "black-white")
    return ImageSet(
        images, "black-white", split, images.shape[-1], colour, "all black and all white"
    )


LOADERS: dict[str, Callable[..., ImageSet]] = {
    "fashion-mnist": _fashion,
    "celeba": _celeba,
    "c-alpha": _class("c-alpha", synthetic.c_alpha),
    "disks": _class("disks", synthetic.disks),
    "sine": _class("sine", synthetic.sine),
    "black-white": _black_white,
    "ray": _ray,
    "shuffled": _shuffled,
    "folder": _folder,
}
