"""Figures with one look: matplotlib for what stands still, Plotly with a slider for what moves."""

import base64
import gzip
import html
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .checks import checked_points, widened
from .density import Grid
from .files import results_folder, write_atomically

TARGET, GENERATED, TRAINING, ACCENT = "#4c72b0", "#d1495b", "#222222", "#2a9d8f"
CYCLE = [TARGET, GENERATED, ACCENT, "#e9a23b", "#5a1fb8", "#5c4a20"]
# Matplotlib's magma for Plotly, whose JavaScript does not have it
MAGMA = [
    [t, matplotlib.colors.to_hex(matplotlib.colormaps["magma"](t))]
    for t in np.linspace(0, 1, 17).tolist()
]
SITE = "CREATIVE_DENOISER_SITE"  # environment variable set while the book is built

plt.rcParams.update({
    "figure.dpi": 110, "figure.constrained_layout.use": True, "font.size": 10, "axes.titlesize": 10,
    "axes.spines.top": False, "axes.spines.right": False, "axes.prop_cycle": plt.cycler(color=CYCLE),
    "image.cmap": "magma", "legend.frameon": False, "savefig.facecolor": "white",
})  # fmt: skip


def panels(
    n: int,
    columns: int = 5,
    size: float = 2.0,
    extent: float | None = None,
    titles: Sequence[str] = (),
) -> tuple[Figure, list[Axes]]:
    """n square panels of `size` inches, at most `columns` in a row; `extent` makes each a plane
    without ticks."""
    columns = min(n, columns)
    rows = -(-n // columns)
    fig, grid = plt.subplots(
        rows, columns, figsize=(size * columns, (size + 0.25) * rows), squeeze=False
    )
    axes = list(grid.flat)
    for ax in axes[n:]:
        ax.set_axis_off()
    for ax, title in zip(axes, titles, strict=False):
        ax.set_title(title)
    for ax in axes[:n] if extent else []:
        plane(ax, extent)
    return fig, axes[:n]


def plane(ax: Axes, extent: float) -> Axes:
    """Make `ax` a square window [-extent, extent]^2 without ticks."""
    ax.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal", xticks=[], yticks=[])
    for spine in ax.spines.values():
        spine.set(visible=True, color="#cccccc")
    return ax


def scatter(
    ax: Axes,
    points: Tensor,
    color: str = GENERATED,
    size: float = 2.0,
    alpha: float = 0.6,
    label: str | None = None,
) -> None:
    """Points (n, 2); rows that diverged (NaN) are not drawn: print their number."""
    x = points.numpy(force=True)
    ax.scatter(
        x[:, 0], x[:, 1], s=size, c=color, alpha=alpha, linewidths=0, label=label, rasterized=True
    )


def density(
    ax: Axes, log_p: Tensor, grid: Grid, peak: float | None = None, cmap: str = "magma"
) -> None:
    """A density on a grid as an image, brightest at `peak` (default: its own maximum)."""
    p = log_p.exp().view(grid.n, grid.n).T.numpy(force=True)  # the second coordinate upwards
    e = grid.extent
    ax.imshow(
        p,
        origin="lower",
        extent=(-e, e, -e, e),
        vmin=0,
        vmax=peak or p.max(),
        cmap=cmap,
        interpolation="bilinear",
    )


def images(
    ax: Axes, batch: Tensor, columns: int = 8, gap: int = 1, labels: Sequence[str] = ()
) -> None:
    """A batch of images in [0, 1], gray (n, h, w) or coloured (n, h, w, 3), as one mosaic, a label
    above each if `labels` are given; values outside are drawn black or white."""
    n, h, w = batch.shape[:3]
    rows, above = -(-n // columns), gap + (h // 4 if labels else 0)
    mosaic = np.ones((rows * (h + above) - gap, columns * (w + gap) - gap, *batch.shape[3:]))
    for i, image in enumerate(batch.numpy(force=True).clip(0, 1)):
        r, c = divmod(i, columns)
        top, left = r * (h + above) + above - gap, c * (w + gap)
        mosaic[top : top + h, left : left + w] = image
        if batch.ndim == 4:  # whose zero may be as white as the page
            frame = plt.Rectangle((left - 0.5, top - 0.5), w, h, fill=False, lw=0.4, ec="#888888")
            ax.add_patch(frame)
        if labels:
            ax.text(left + w / 2, top - 1, labels[i], fontsize=7, ha="center", va="bottom")
    ax.imshow(mosaic, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_axis_off()


def signed(vectors: Tensor) -> Tensor:
    """Vectors (k, H, W) as colours (k, H, W, 3): zero is white, the pixel farthest from it the
    darkest red, its opposite the darkest blue, between them by the root of the size, so that what
    is faint shows its sign. Signs as a whole mean nothing."""
    x = widened(checked_points(vectors, "vectors")).flatten(1)
    peak = x.gather(1, x.abs().argmax(1, keepdim=True))
    if not bool(peak.all()):
        raise ValueError("one of the vectors is zero: it has no picture, leave it out")
    ratio = (x / peak).view_as(vectors)
    levels = (0.5 + ratio.sign() * ratio.abs().sqrt() / 2).numpy(force=True)
    return torch.from_numpy(matplotlib.colormaps["RdBu_r"](levels)[..., :3])


def line_trace(
    x: Any, y: Any, name: str, color: str | None = None, dash: str | None = None
) -> dict:
    """A Plotly line; arrays rounded to four decimals, so that stored outputs stay small."""
    return {"type": "scatter", "mode": "lines", "name": name, "x": _short(x), "y": _short(y),
            "line": {k: v for k, v in {"color": color, "dash": dash}.items() if v}}  # fmt: skip


def point_trace(
    points: Any, name: str, color: str | None = None, size: float = 3.0, opacity: float = 0.6
) -> dict:
    """A Plotly cloud of points (n, 2)."""
    p = _array(points)
    return {"type": "scatter", "mode": "markers", "name": name, "x": _short(p[:, 0]), "y": _short(p[:, 1]),
            "marker": {"color": color, "size": size, "opacity": opacity}}  # fmt: skip


def heat_trace(log_p: Tensor, grid: Grid, name: str = "", peak: float | None = None) -> dict:
    """A density on a grid as a Plotly heat map, rounded to three decimals."""
    p = np.round(log_p.exp().view(grid.n, grid.n).T.numpy(force=True), 3)
    axis = (np.arange(grid.n) + 0.5) * 2 * grid.extent / grid.n - grid.extent
    return {"type": "heatmap", "name": name, "z": p.tolist(), "x": _short(axis), "y": _short(axis),
            "zmin": 0, "zmax": peak, "colorscale": MAGMA, "showscale": False, "hoverinfo": "skip"}  # fmt: skip


class Slider:
    """A Plotly figure whose slider chooses a frame; it works on the static page, in Jupyter and on
    Colab.

    frames: one list of traces per position, all of one length and order; labels: the slider's
    texts; name: what it moves; caption: one sentence under the figure; alt: what a reader who
    cannot see it must know. layout: Plotly's, merged in.
    """

    def __init__(
        self,
        frames: Sequence[Sequence[dict]],
        labels: Sequence[str],
        name: str,
        caption: str,
        alt: str,
        start: int = 0,
        **layout: Any,
    ):
        if not frames or len(frames) != len(labels) or len({len(f) for f in frames}) != 1:
            raise ValueError(
                f"{len(frames)} frames of {sorted({len(f) for f in frames})} traces with {len(labels)} labels: "
                "give one label a frame and every frame the same traces"
            )
        if not 0 <= start < len(frames):
            raise ValueError(f"start is {start}: choose a frame from 0 to {len(frames) - 1}")
        self.caption, self.alt = caption, alt
        steps = [
            {"label": label, "method": "animate",
             "args": [[str(i)], {"mode": "immediate", "frame": {"duration": 0, "redraw": True},
                                 "transition": {"duration": 0}}]}
            for i, label in enumerate(labels)
        ]  # fmt: skip
        room = 25 * ("title" in layout.get("xaxis", {}))  # between a title and the slider's label
        self.figure = {
            "data": list(frames[start]),
            "frames": [{"name": str(i), "data": list(f)} for i, f in enumerate(frames)],
            "layout": {
                "height": 430 + room, "margin": {"l": 45, "r": 15, "t": 30, "b": 40}, "template": "none",
                "legend": {"orientation": "h", "y": 1.08}, "hovermode": False, "dragmode": False,
                "sliders": [{"active": start, "currentvalue": {"prefix": f"{name}: "}, "pad": {"t": 30 + room},
                             "steps": steps}],
                **layout,
            },
        }  # fmt: skip

    def _repr_mimebundle_(self, **arguments: Any) -> dict:
        if os.environ.get(SITE):  # the page brings its own Plotly: figures.js finds these elements
            # the numbers of all frames are most of a stored chapter: as text they weigh four times as much
            figure = gzip.compress(json.dumps(self.figure, separators=(",", ":")).encode(), mtime=0)
            label = html.escape(self.alt, quote=True)
            return {
                "text/html": '<figure class="plotly-lab">'
                f'<div class="plotly-target" role="group" aria-label="{label}"></div>'
                f'<script type="application/json">{base64.b64encode(figure).decode()}</script>'
                f"<noscript>This figure moves with JavaScript. {label}</noscript>"
                f"<figcaption>{html.escape(self.caption)}</figcaption></figure>",
                "text/plain": f"{self.caption} {self.alt}",
            }
        import plotly.graph_objects as go

        # Jupyter and Colab: Plotly knows where it is
        return go.Figure(**self.figure)._repr_mimebundle_(**arguments)


def square(extent: float) -> dict:
    """Plotly layout of a square window [-extent, extent]^2: Slider(..., **square(3))."""
    axis = {"range": [-extent, extent], "zeroline": False, "showgrid": False, "fixedrange": True}
    return {
        "xaxis": {**axis, "constrain": "domain"},
        "yaxis": {**axis, "scaleanchor": "x", "constrain": "domain"},
    }


def _array(values: Any) -> np.ndarray:
    return (
        values.numpy(force=True)
        if isinstance(values, torch.Tensor)
        else np.asarray(values, dtype=float)
    )


def _short(values: Any) -> list:
    rounded = np.round(_array(values).astype(float), 4)
    return [None if not np.isfinite(v) else float(v) for v in rounded]


def save(fig: Figure, name: str) -> Path:
    """Write a figure to <results>/figures/<name> as PNG, 110 dots per inch, and return the path.

    Written atomically and without date or software in its metadata, so that equal figures are equal
    files.
    """
    path, png = results_folder() / "figures" / name, io.BytesIO()
    fig.savefig(png, format="png", dpi=110, metadata={"Software": None})
    write_atomically(path, png.getvalue())
    return path


def panel_layout(titles: Sequence[str], columns: int, gap: float = 0.04) -> dict:
    """Plotly layout of square panels in rows of `columns`, row 0 of an image on top, a title over
    each."""
    deep, layout, notes = -(-len(titles) // columns), {}, []
    for i, title in enumerate(titles):
        (row, column), name = divmod(i, columns), i + 1 if i else ""
        left, top = column / columns, 1 - row / deep
        sides = {"x": [left, left + 1 / columns - gap], "y": [top - 1 / deep + 2 * gap, top - gap]}
        bare = {
            "showticklabels": False,
            "ticks": "",
            "showgrid": False,
            "zeroline": False,
            "fixedrange": True,
        }
        layout[f"xaxis{name}"] = {
            **bare,
            "domain": sides["x"],
            "constrain": "domain",
            "anchor": f"y{name}",
        }
        y = {
            "scaleanchor": f"x{name}",
            "autorange": "reversed",
            "constrain": "domain",
            "anchor": f"x{name}",
        }
        layout[f"yaxis{name}"] = {**bare, "domain": sides["y"], **y}
        middle = {
            "x": sum(sides["x"]) / 2,
            "y": top - gap,
            "xanchor": "center",
            "yanchor": "bottom",
        }
        notes.append(
            {"text": title, "showarrow": False, "xref": "paper", "yref": "paper", **middle}
        )
    return {**layout, "annotations": notes}
