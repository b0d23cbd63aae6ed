"""The picture that stands where a lab has not run yet: drawn from the samples that the first press
will show."""

import base64
import html
import io
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from .. import metrics
from ..plots import ACCENT, TARGET

SIDE, HUES, DOTS = (
    240,
    24,
    400,
)  # pixels of a panel; more dots than this cost more bytes than they show


def picture(lab: Any, runs: Mapping[str, Tensor]) -> str:
    """Three panels, each an SVG under its title: the target with its training points, and the ends
    of each side's run (steps + 1, n, *event)."""
    target, count = lab.start["target"], lab.start["count"]
    points = lab.training(target, count)
    panels = [
        (
            "target",
            _images(lab.targets[target][:16]) if lab.image else _heat(lab.target_picture(target)),
        )
    ]
    if points is not None and not lab.image:
        panels[0] = ("target", panels[0][1] + _dots(lab.extent, points, "currentColor", 3))
    for side, run in runs.items():
        family, value, sampler = lab.start[side]
        knob = lab.families[family].knob
        title = ", ".join(
            filter(None, (family, knob and f"{knob} {value}", lab.samplers_apart and sampler))
        )
        if lab.image:
            panels.append((title, _images(run[-1])))
        else:
            shown = lab.densities(target, count, family, value, lab.start["schedule"])[0]
            panels.append((title, _heat(shown, ACCENT) + _particles(lab.extent, run)))
    return row(lab.alt, panels)


def row(alt: str, panels: list[tuple[str, str]]) -> str:
    """Panels beside each other: title, and what stands in its SVG."""
    drawn = "".join(
        f'<div style="flex:1"><div>{html.escape(title)}</div><svg viewBox="0 0 {SIDE} {SIDE}" width="100%" role="img" '
        f'aria-label="{html.escape(title, quote=True)}">{body}</svg></div>'
        for title, body in panels
    )
    label = html.escape(alt, quote=True)
    return f'<div role="group" aria-label="{label}" style="display:flex;gap:.8em">{drawn}</div>'


def plane(extent: float, density: Tensor, run: Tensor, points: Tensor) -> str:
    """A generated density, where some particles of a run end, and the training points."""
    dots = _particles(extent, run) + _dots(extent, points, "currentColor", 3)
    return _heat(density, ACCENT) + dots


def _particles(extent: float, run: Tensor) -> str:
    """The ends of a run (steps + 1, n, 2), each in the colour of the direction in which it started,
    as the labs draw them."""
    starts, ends = run[0, :DOTS], run[-1, :DOTS]
    turn = torch.atan2(starts[:, 1], starts[:, 0]) / (2 * torch.pi) + 0.5
    hue = (HUES * turn).long().clamp(max=HUES - 1)
    parts = (
        _dots(extent, ends[hue == k], f"hsl({360 // HUES * k} 70% 45%)", 2.6) for k in range(HUES)
    )
    return "".join(parts)


def _heat(density: Tensor, colour: str = TARGET) -> str:
    """A density as one colour whose opacity is the density: it suits a light page and a dark one."""
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    solid = torch.tensor(rgb, dtype=torch.uint8).expand(*density.shape, 3)
    frame = f'<rect width="{SIDE}" height="{SIDE}" fill="none" stroke="currentColor" stroke-opacity=".3"/>'
    return _png(torch.cat([solid, density[..., None]], -1)) + frame


def _dots(extent: float, points: Tensor, colour: str, size: float) -> str:
    inside = metrics.finite(points)
    inside = inside[inside.abs().amax(1) < extent]
    pixels = (SIDE * (0.5 + torch.stack([inside[:, 0], -inside[:, 1]], 1) / (2 * extent))).round(
        decimals=1
    )
    path = "".join(f"M{x:g} {y:g}h0" for x, y in pixels.tolist())
    return f'<path d="{path}" stroke="{colour}" stroke-width="{size}" stroke-linecap="round" fill="none"/>'


def _images(batch: Tensor) -> str:
    """The first 16 gray images (n, h, w) or (n, 1, h, w) as a square mosaic."""
    batch = batch[:16].reshape(-1, *batch.shape[-2:]).nan_to_num(0.0).clamp(0, 1)
    h, w = batch.shape[1:]
    grid = torch.zeros(16, h, w)
    grid[: len(batch)] = batch
    return _png(
        (255 * grid.view(4, 4, h, w).transpose(1, 2).reshape(4 * h, 4 * w)).round().to(torch.uint8)
    )


def _png(pixels: Tensor) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels.contiguous().numpy()).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<image href="data:image/png;base64,{data}" width="{SIDE}" height="{SIDE}"/>'
