"""Photographs that come with scikit-image, and pictures that a reader brings: gray squares in [0,
1]."""

import html
import io
import os
import zipfile
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from ...checks import positive_int
from ...plots import SITE

# Files of scikit-image's own package, in the public domain or CC0 (its documentation of
# `skimage.data`)
NAMES = (
    "camera",
    "astronaut",
    "coffee",
    "chelsea",
    "coins",
    "moon",
    "text",
    "brick",
    "grass",
    "gravel",
)
LARGEST = 64_000_000  # pixels of a picture that is opened
SETS = ("set12", "bsd68")


def photographs(size: int = 128) -> Tensor:
    """The photographs of NAMES as gray squares, float32 (10, size, size) in [0, 1]; nothing is
    downloaded."""
    folder = files("skimage") / "data"
    return torch.stack([picture((folder / f"{name}.png").read_bytes(), size) for name in NAMES])


def standard(name: str, size: int) -> Tensor:
    """A set of test images of denoising, by the names of its files: the middle squares as gray,
    float32 (n, size, size) in [0, 1], unchanged pixels.

    Set12 (Zhang et al. 2017) or BSD68 (Roth & Black 2009; Martin et al. 2001). They are for
    research and may not be passed on: TEST_IMAGES_ROOT names a folder with set12.zip and bsd68.zip,
    or folders of those names with PNG files. ValueError where it does not.
    """
    root = Path(os.environ.get("TEST_IMAGES_ROOT") or "unset")
    found = sorted((root / name).glob("*.png")) if name in SETS else []
    if (root / f"{name}.zip").is_file() and name in SETS:
        with zipfile.ZipFile(root / f"{name}.zip") as archive:
            contents = [archive.read(n) for n in sorted(archive.namelist()) if n.endswith(".png")]
    elif found:
        contents = [file.read_bytes() for file in found]
    else:
        raise ValueError(
            f"there is no {name!r} in TEST_IMAGES_ROOT, {root}: name a folder with {' and '.join(SETS)}, each a zip "
            "file or a folder of PNG files"
        )
    squares = []
    for content in contents:
        with Image.open(io.BytesIO(content)) as opened:
            gray = opened.convert("L")
        if min(gray.size) < size:
            raise ValueError(f"size is {size}: an image of {name} has only {gray.size} pixels")
        left, top = (gray.width - size) // 2, (gray.height - size) // 2
        square = gray.crop((left, top, left + size, top + size))
        squares.append(torch.from_numpy(np.asarray(square, dtype=np.float32) / 255))
    return torch.stack(squares)


def picture(content: bytes, size: int = 128) -> Tensor:
    """The middle square of a picture file (PNG, JPEG, ...) as gray, float32 (size, size) in [0, 1].

    Gray is 0.299 R + 0.587 G + 0.114 B. A larger picture is averaged over areas, a smaller one
    enlarged linearly. Raises ValueError for what is no picture, or one of more than LARGEST pixels.
    """
    size = positive_int("size", size)
    try:
        opened = Image.open(io.BytesIO(content))
        if opened.width * opened.height > LARGEST:
            raise ValueError(
                f"the picture has {opened.width} x {opened.height} pixels: bring one of at most {LARGEST}"
            )
        gray = opened.convert("L")
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError) as error:
        raise ValueError(
            f"this is not a picture that can be read ({error}): bring a PNG or JPEG file"
        ) from None
    side = min(gray.size)
    left, top = (gray.width - side) // 2, (gray.height - side) // 2
    way = Image.Resampling.BOX if side >= size else Image.Resampling.BILINEAR
    square = gray.resize((size, size), way, box=(left, top, left + side, top + side))
    return torch.from_numpy(np.asarray(square, dtype=np.float32) / 255)


class Upload:
    """A button with which the reader brings a picture, and what `show(picture)` draws of it, (size,
    size) in [0, 1].

    It needs a kernel. On the page a sentence stands in its place. What cannot be read is said below
    the button.
    """

    def __init__(
        self, show: Callable[[Tensor], Any], size: int = 128, label: str = "Bring a picture"
    ):
        self.show, self.size, self.label = show, size, label

    def shown(self, content: bytes) -> bool:
        """Draw the picture in this file, or print why it cannot be; whether it could."""
        try:
            image = picture(content, self.size)
        except ValueError as error:
            print(f"That did not work: {error}.")
            return False
        self.show(image)
        return True

    def _repr_mimebundle_(self, **arguments: Any) -> Any:
        said = (
            f"{self.label}: open this chapter in Jupyter or Colab, where a kernel can denoise it."
        )
        if os.environ.get(SITE):
            return {
                "text/html": f'<p class="needs-kernel">{html.escape(said)}</p>',
                "text/plain": said,
            }
        import ipywidgets

        button, output = (
            ipywidgets.FileUpload(accept="image/*", description=self.label),
            ipywidgets.Output(),
        )

        def changed(change: Mapping[str, Any]) -> None:
            output.clear_output()
            with output:
                for content in contents(change["new"]):
                    self.shown(content)

        button.observe(changed, names="value")
        # of ipywidgets 7, which Colab has, no widget gives its bundle itself
        box = ipywidgets.VBox([button, output])
        view = {"version_major": 2, "version_minor": 0, "model_id": box.model_id}
        return {"text/plain": repr(box), "application/vnd.jupyter.widget-view+json": view}


def contents(value: Any) -> list[bytes]:
    """The files in a FileUpload's value: a tuple of dictionaries in ipywidgets 8, one by name in 7
    (Colab)."""
    return [
        bytes(file["content"]) for file in (value.values() if isinstance(value, Mapping) else value)
    ]
