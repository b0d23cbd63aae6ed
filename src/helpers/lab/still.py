"""What of a workbench stands on a page without a kernel: its networks' samples and numbers."""

import base64
import html as markup
import io
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

COLUMNS, SCALE = 8, 2


def html(work: Any) -> str:
    """A figure: for each network its samples, each above the training image nearest to it, and what
    was measured; before the first step, how to begin."""
    shown = [run for run in work.runs if run.sheet is not None]
    panels = "".join(_panel(run) for run in shown)
    said = (
        "Each sample stands above the training image nearest to it."
        if shown
        else "Beside a kernel, in Jupyter, VS Code or Colab, this cell is the workbench with its controls."
    )
    caption = markup.escape(f"{work!r}. {said}")
    return f'<figure class="lab bench-still">{panels}<figcaption>{caption}</figcaption></figure>'


def _panel(run: Any) -> str:
    row, name = run.history[-1], markup.escape(run.name)
    near = run.data.images[run.near]
    data = base64.b64encode(mosaic(run.sheet, near)).decode()
    numbers = f"{row['images']:,} images seen; PSNR {row['psnr'][0]:.1f} dB on training images, "
    numbers += f"{row['psnr'][1]:.1f} on others"
    if row["copies"] is not None:
        numbers += f"; copies {row['copies']:.0%}"
    alt = f"Samples of {name}, each above the training image nearest to it."
    return (
        f'<p><b>{name}</b>: {numbers}</p><img src="data:image/png;base64,{data}" alt="{alt}" '
        'style="width:100%;max-width:40em;image-rendering:pixelated">'
    )


def mosaic(above: Tensor, below: Tensor, columns: int = COLUMNS) -> bytes:
    """Pairs of images (n, *event), one under the other, in rows of so many, as PNG."""
    pairs = [_rgb(batch) for batch in (above, below)]
    n, h, w = pairs[0].shape[:3]
    rows, gap = -(-n // columns), 2
    sheet = np.zeros((rows * (2 * h + 2 * gap), columns * (w + gap), 4), np.uint8)  # clear between
    for i in range(n):
        r, c = divmod(i, columns)
        for k, batch in enumerate(pairs):
            top = r * 2 * (h + gap) + k * h
            place = sheet[top : top + h, c * (w + gap) : c * (w + gap) + w]
            place[..., :3], place[..., 3] = batch[i], 255
    file = io.BytesIO()
    large = sheet.repeat(SCALE, 0).repeat(SCALE, 1)
    Image.fromarray(large).save(file, "PNG", optimize=True)
    return file.getvalue()


def _rgb(images: Tensor) -> np.ndarray:
    whole = images if images.ndim == 4 else images[:, None].expand(-1, 3, -1, -1)
    return (255 * whole.nan_to_num(0).clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy()
