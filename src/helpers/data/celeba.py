"""CelebA: faces, prepared as Kadkhodaie et al. 2024 did, from files that the reader has.

CelebA (Liu et al. 2015) is for non-commercial research and is not part of this book. The
environment variable CELEBA_ROOT names a folder with either

- the original: `img_align_celeba` (a folder or a .zip of 178x218 JPEGs), or those JPEGs themselves;
  the splits are those of `list_eval_partition.txt` where it is there, else as the numbers of the
  files say, or
- a prepared subset: `index.csv` (role,rank,file,...) beside .zip archives of originals or of 80x80
gray images.
"""

import csv
import hashlib
import io
import json
import os
import re
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor

from ..files import cache_folder, folder_atomically, refuse_bomb, write_atomically

ROOT = "CELEBA_ROOT"
CROP = (9, 29, 169, 189)  # of 178x218: columns 9:-9, rows 29:-29, which leaves 160x160
SEED = 20240515  # of the permutation of the training pool
REPEAT = 0.95  # correlation above which two images are one
SPLITS = ("pool", "test")
KINDS = ("JPEG", "PNG", "WEBP")  # Pillow reads others by starting programs
LARGEST = 2**20  # bytes of one image: the originals have at most some ten thousand
FIRST_TEST = 182_638  # number of the first test image in the official list
VERSION = 1  # of the preparation, part of the key of what is cached

# splits, reader, gray at 80x80, fingerprint
Source = tuple[dict[str, list[str]], Callable[[str], bytes], bool, str]


def celeba(split: str, size: int, colour: str) -> tuple[Tensor, str]:
    """All images of a split ("pool" or "test") and where they come from; (N, H, W) or (N, 3, H, W)
    float32 in [0, 1].

    The 160x160 centre is brought to `size` by Pillow's bicubic filter on 8 bits; gray is the plain
    mean of red, green and blue; gray 40 and 20 are block means of 80. Repeats (`repeats`) are left
    out, the pool is permuted once, and the test images are from the official test partition.

    Prepared once, written whole or not at all to the user's cache under a key of the source's
    content, and mapped into
    memory: what is not looked at is not read. Raises ValueError when CELEBA_ROOT is missing or
    holds something else.
    """
    named = os.environ.get(ROOT, "")
    root = Path(named)
    if not named or not root.is_dir():
        found = f"{ROOT} is {named!r}, not a folder" if named else f"{ROOT} is not set"
        raise ValueError(
            f"{found}: set it to a folder with CelebA, or call helpers.data.download_celeba; "
            "'fashion-mnist' and the synthetic classes need nothing"
        )
    folder = _prepared(root, size, colour)
    images = np.load(folder / f"{split}.npy", mmap_mode="c")  # writes stay in memory
    return torch.from_numpy(images), json.loads((folder / "source.json").read_text())["source"]


def repeats(images: Tensor, threshold: float = REPEAT, block: int = 2048) -> Tensor:
    """Which images (N, H, W) repeat an earlier one: boolean (N,); H and W multiples of 20.

    Two images are one when the correlation of their 20x20 block means exceeds `threshold` in
    absolute value (Kadkhodaie et al. 2024, released code); of each group the first stays. In
    blocks: memory is O(block^2 + N).
    """
    if images.ndim != 3 or images.shape[1] % 20 or images.shape[2] % 20:
        raise ValueError(
            f"images have shape {tuple(images.shape)}: pass (N, H, W) with H and W multiples of 20"
        )
    small = [
        torch.nn.functional.adaptive_avg_pool2d(part[:, None], 20).flatten(1)
        for part in images.split(block)
    ]
    z = torch.nn.functional.normalize(torch.cat(small) - torch.cat(small).mean(1, keepdim=True))
    out = torch.zeros(len(z), dtype=torch.bool)
    for i in range(0, len(z), block):
        for j in range(0, i + 1, block):
            same = (z[i : i + block] @ z[j : j + block].T).abs() > threshold
            out[i : i + block] |= (same.tril(-1) if i == j else same).any(1)
    return out


def _prepared(root: Path, size: int, colour: str) -> Path:
    splits, read, gray80, fingerprint = _source(
        root, gray80=colour == "gray" and size in (20, 40, 80)
    )
    key = _digest([VERSION, size, colour, fingerprint, splits])[:16]
    folder = cache_folder() / f"celeba-{colour}-{size}-{key}"
    # many trainings may ask at once: one prepares, the others wait
    with FileLock(f"{folder}.lock"):
        if folder.is_dir():
            return folder
        finer = _prepared(root, 80, colour) if colour == "gray" and size in (20, 40) else None
        if finer is None:
            print(
                f"preparing CelebA, {colour} {size}x{size}, once ...", file=sys.stderr, flush=True
            )
            if not (root / "index.csv").exists():  # a prepared subset has no repeats
                splits = _distinct(splits, read, fingerprint)
        origin = f"CelebA, {'80x80 gray archive' if gray80 else 'aligned originals'}, key {key}"
        with folder_atomically(folder) as new:
            for split in SPLITS:
                shape = (size, size) if colour == "gray" else (3, size, size)
                fine = np.load(finer / f"{split}.npy", mmap_mode="r") if finer else None
                count = len(splits[split] if fine is None else fine)
                header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
                images = (
                    _decoded(splits[split], read, gray80, size, colour)
                    if fine is None
                    else _means(fine, 80 // size)
                )
                # mapped into memory, a full disk would end the process
                with open(new / f"{split}.npy", "wb") as file:
                    np.lib.format.write_array_header_1_0(file, header)
                    for image in images:
                        file.write(np.ascontiguousarray(image, "<f4"))
            (new / "source.json").write_text(json.dumps({"source": origin}))
    return folder


def _distinct(
    splits: dict[str, list[str]], read: Callable[[str], bytes], fingerprint: str
) -> dict[str, list[str]]:
    """The names without repeats, the pool permuted: found once, on 80x80 gray, and so the same at
    every size."""
    file = cache_folder() / f"celeba-distinct-{_digest([VERSION, fingerprint, splits])[:16]}.json"
    if not file.exists():
        names, pool = splits["pool"] + splits["test"], len(splits["pool"])
        images = _decoded(names, read, False, 80, "gray")
        keep = ~repeats(
            torch.stack([torch.from_numpy(x).view(20, 4, 20, 4).mean((1, 3)) for x in images])
        ).numpy()
        order = [
            *np.random.default_rng(SEED).permutation(np.flatnonzero(keep[:pool])),
            *np.flatnonzero(keep),
        ]
        kept = keep[:pool].sum()
        found = {
            "pool": [names[i] for i in order[:kept]],
            "test": [names[i] for i in order[2 * kept :]],
        }
        write_atomically(file, json.dumps(found))
    return json.loads(file.read_text())


def _source(root: Path, gray80: bool) -> Source:
    """Where the images are: file names by split, a reader, whether they are 80x80 gray already, and
    a fingerprint."""
    found = _subset(root, gray80) if (root / "index.csv").exists() else _original(root)
    if found is None:
        raise ValueError(
            f"{ROOT}={root} holds no CelebA: it needs img_align_celeba (a folder or .zip of all images, or of "
            "some beside list_eval_partition.txt), or index.csv beside .zip archives of the files that it names"
            + (
                ""
                if gray80
                else "; colour, and gray sizes other than 20, 40 and 80, need the original JPEGs"
            )
        )
    return found


def _subset(root: Path, gray80: bool) -> Source | None:
    try:
        with open(root / "index.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        ranked = sorted(
            (r["role"], int(r["rank"]), Path(r["file"]).stem) for r in rows if r["role"] in SPLITS
        )
    except (KeyError, ValueError, TypeError, csv.Error):
        raise ValueError(
            f"{root / 'index.csv'} is damaged: it needs the columns role, rank, file"
        ) from None
    # the gray archive first where it will do: it has more images
    for path in sorted(root.glob("*.zip"), key=lambda p: (("gray80" in p.name) != gray80, p.name)):
        if "gray80" in path.name and not gray80:
            continue
        names, read, fingerprint = _archive(path)
        stems = {Path(n).stem: n for n in names}
        found = {s: [stems[f] for role, _, f in ranked if role == s and f in stems] for s in SPLITS}
        if all(found.values()):
            return found, read, "gray80" in path.name, fingerprint
    return None


def _original(root: Path) -> Source | None:
    for base in (root, root / "celeba"):  # torchvision downloads to a folder of that name
        partition, folder = base / "list_eval_partition.txt", base / "img_align_celeba"
        for place in (folder, folder / folder.name, folder.with_suffix(".zip"), base):
            if not place.exists():
                continue
            names, read, fingerprint = (_folder if place.is_dir() else _archive)(place)
            if partition.exists():
                part = _listed(partition)
            else:
                part = {n: str(2 * (int(n[:6]) >= FIRST_TEST)) for n in map(_numbered, names) if n}
            pool = [n for n in names if part.get(Path(n).name) in ("0", "1")]
            test = [n for n in names if part.get(Path(n).name) == "2"]
            if pool and test:
                return {"pool": pool, "test": test}, read, False, fingerprint
    return None


def _listed(partition: Path) -> dict[str, str]:
    try:
        lines = partition.read_text("utf-8").splitlines()
        return dict(line.split() for line in lines if line.strip())
    except ValueError:
        message = "is damaged: it needs a file name and 0, 1 or 2 on each line"
        raise ValueError(f"{partition} {message}") from None


def _numbered(name: str) -> str:
    """The file's own name where it is one of CelebA's, as 000001.jpg; else nothing."""
    return Path(name).name if re.fullmatch(r"\d{6}\.jpg", Path(name).name) else ""


def _folder(folder: Path) -> tuple[list[str], Callable[[str], bytes], str]:
    files = sorted(folder.glob("*.jpg"))
    fingerprint = _digest([(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files])
    return [f.name for f in files], lambda name: (folder / name).read_bytes(), fingerprint


def _archive(path: Path) -> tuple[list[str], Callable[[str], bytes], str]:
    try:
        archive = zipfile.ZipFile(path)
    except (
        OSError,
        ValueError,
        LookupError,
        NotImplementedError,
        struct.error,
        zipfile.BadZipFile,
    ):
        raise ValueError(f"{path} is not a readable .zip: download it again") from None
    refuse_bomb(archive, LARGEST)
    entries = sorted(
        (i for i in archive.infolist() if not i.filename.endswith("/")), key=lambda i: i.filename
    )
    sizes = {i.filename: i.file_size for i in entries}

    def read(name: str) -> bytes:
        try:
            with archive.open(name) as file:
                # without a size, all that is packed would be unpacked and then cut
                return file.read(sizes[name])
        except (
            OSError,
            EOFError,
            ValueError,
            RuntimeError,
            struct.error,
            zipfile.BadZipFile,
            zlib.error,
        ):
            raise ValueError(f"{name} in {path} is damaged: download the archive again") from None

    # the archive's own checksums: its content is known without reading it
    return (
        [i.filename for i in entries],
        read,
        _digest([(i.filename, i.CRC, i.file_size) for i in entries]),
    )


def _means(images: np.ndarray, k: int) -> Iterator[np.ndarray]:
    for image in images:
        yield image.reshape(len(image) // k, k, -1, k).mean((1, 3))


def _digest(entries: list) -> str:
    return hashlib.sha256(json.dumps(entries).encode()).hexdigest()


def _decoded(
    names: list[str], read: Callable[[str], bytes], gray80: bool, size: int, colour: str
) -> Iterator[np.ndarray]:
    expected = (80, 80) if gray80 else (178, 218)

    def decode(item: tuple[str, bytes]) -> np.ndarray:
        name, data = item
        try:
            image = Image.open(io.BytesIO(data), formats=KINDS)
            size_is = image.size
            if size_is == expected:
                image = image.convert("RGB") if not gray80 else image.convert("L")
        except MemoryError:  # of this machine
            raise
        except Exception:  # a damaged image fails in every way there is
            raise ValueError(f"{name} is not a readable image: download CelebA again") from None
        if size_is != expected:
            raise ValueError(
                f"{name} is {size_is[0]}x{size_is[1]}: aligned CelebA is 178x218, its archive 80x80"
            )
        if gray80:
            return np.asarray(image, np.float32) / 255
        pixels = np.asarray(image.crop(CROP).resize((size, size), Image.Resampling.BICUBIC))
        if colour == "gray":
            return pixels.sum(-1, dtype=np.float32) / 765
        return np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32) / 255

    # Pillow decodes outside the interpreter's lock; zipfile reads in one thread
    with ThreadPoolExecutor() as pool:
        for i in range(0, len(names), 256):
            yield from pool.map(decode, [(n, read(n)) for n in names[i : i + 256]])
