"""CelebA from where it is offered: the authors' Google Drive, or the Hugging Face Hub."""

import hashlib
import os
import zipfile
from importlib import import_module
from pathlib import Path
from typing import Any

from ..files import refusals_named, write_atomically

ARCHIVE = "img_align_celeba.zip"
DRIVE = "https://drive.google.com/uc?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM"
MD5 = "00d2c5bc6d35e252742224ab0c1e8fcb"  # of the archive
PAGE = "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html"
SPLITS = {"train": 0, "valid": 1, "validation": 1, "test": 2}  # numbers as in CelebA's own list


def download_celeba(
    root: str | Path, accept_terms: bool = False, dataset: str | None = None
) -> None:
    """Fetch CelebA's aligned images (1.4 GB) into the folder `root`; then set CELEBA_ROOT to it.

    From the authors' Google Drive, checked by its MD5, and continued after an interruption; or from
    the `dataset` of that name on the Hugging Face Hub (or a folder that `datasets.load_dataset`
    takes), whose splits train, valid or validation, and test have a column of 178x218 images in
    CelebA's order. Needs `pip install 'creative-denoiser[celeba]'`: gdown and datasets.

    Raises ValueError unless the terms of CelebA are accepted, and where the images do not arrive or
    are others; the message names the ways that are left.
    """
    if not accept_terms:
        raise ValueError(
            "CelebA is for non-commercial research only and must not be passed on "
            f"({PAGE}): if you agree, pass accept_terms=True"
        )
    root = Path(root)
    if (root / ARCHIVE).exists():
        return
    library = _imported("gdown" if dataset is None else "datasets", root)
    with refusals_named(root):
        root.mkdir(parents=True, exist_ok=True)
    part = root / f".{ARCHIVE}.part"
    try:
        if dataset is None:
            with refusals_named(root):
                library.download(DRIVE, str(part), resume=True)
        else:
            _pack(library, dataset, part, root)
    except Exception as error:  # each library has errors of its own for what a network can do
        raise ValueError(f"{dataset or DRIVE} did not arrive ({error}): {_ways(root)}") from error
    if dataset is None:
        with open(part, "rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != MD5:
            part.unlink()
            raise ValueError(f"{DRIVE} gave another file, of MD5 {found}: {_ways(root)}")
    os.replace(part, root / ARCHIVE)


def _ways(root: Path) -> str:
    return (
        f"try again, or put {ARCHIVE} from {PAGE} into {root} by hand, or set CELEBA_ROOT to a folder "
        "that has its JPEGs, or pass dataset= the name of a Hugging Face data set that has them"
    )


def _imported(name: str, root: Path) -> Any:
    try:
        return import_module(name)
    except Exception as error:  # absent, or installed beside what it does not fit
        raise ValueError(
            f"{name} cannot be imported ({error}): pip install 'creative-denoiser[celeba]'; {_ways(root)}"
        ) from error


def _pack(datasets: Any, name: str, path: Path, root: Path) -> None:
    """Writes the images of a data set, as their bytes came, to an archive, and lists the splits."""
    splits = datasets.load_dataset(name, streaming=True)
    lines: list[str] = []
    order = sorted((split for split in splits if split in SPLITS), key=lambda split: SPLITS[split])
    if [SPLITS[split] for split in order] != [0, 1, 2]:
        raise ValueError(f"its splits are {', '.join(splits)}, not train, valid and test")
    with refusals_named(path), zipfile.ZipFile(path, "w") as archive:
        for split in order:
            rows = splits[split]
            is_image = (n for n, kind in rows.features.items() if isinstance(kind, datasets.Image))
            column = next(is_image, "image")
            for row in rows.cast_column(column, datasets.Image(decode=False)):
                file = f"{len(lines) + 1:06d}.jpg"
                archive.writestr(file, row[column]["bytes"])
                lines.append(f"{file} {SPLITS[split]}\n")
    write_atomically(root / "list_eval_partition.txt", "".join(lines))
