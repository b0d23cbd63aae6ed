"""The map of creativity: what each architecture makes of each number of training images, and where
that stands between copying, creating and nonsense."""

import base64
import hashlib
import io
import os
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.image import imread
from torch import Tensor

from .. import looks, metrics, sampling
from ..cards import manifest, models_folder
from ..data import ImageSet
from ..denoisers import Denoiser
from ..files import results_folder, write_atomically
from .lab import Lab
from .panel import Panel, as_png

COLUMNS = 32  # training images in a row of the picture of those that are shown
LOWEST = 0.005  # KID: what is smaller, or by chance negative, stands on the edge of the plane
# of architectures, told apart by colour-blind readers too (Okabe and Ito)
COLOURS = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5c5c5c"


class Place(NamedTuple):
    """A cell of the map. sheet: samples from fixed noise as WebP, a row of `looks.SHOWN` for each
    look. said: what `looks.judged` found at each, with "images" seen by then. side: of an image, in
    pixels. colour: whether it has three channels."""

    sheet: bytes
    said: list[dict[str, float]]
    side: int
    colour: bool = False

    def samples(self) -> Tensor:
        """(looks, SHOWN, side, side), or (looks, SHOWN, 3, side, side), in [0, 1]."""
        x = torch.from_numpy(imread(io.BytesIO(self.sheet), format="webp") / 255).float()
        x = x.unflatten(0, (-1, self.side)).unflatten(2, (-1, self.side)).permute(0, 2, 4, 1, 3)
        return x if self.colour else x.mean(2)


def trained(name: str) -> Place:
    """A network that was looked at while it trained, by its card; ValueError where none of that
    name was."""
    cards = manifest()
    if "looks" not in (card := cards.get(name, {})):
        watched = ", ".join(n for n, card in cards.items() if "looks" in card)
        raise ValueError(f"no network {name!r} was looked at in training: choose one of {watched}")
    sheet = (models_folder() / f"{name}.webp").read_bytes()
    side = imread(io.BytesIO(sheet), format="webp").shape[1] // looks.SHOWN
    return Place(sheet, card["looks"], side, card["arguments"].get("image_channels", 1) == 3)


def closed(denoiser: Denoiser, data: ImageSet, test: ImageSet) -> Place:
    """A denoiser that hears the noise level and needs no training, by as many samples as networks
    are judged by."""
    sigmas = sampling.edm(looks.STEPS, 0.01, looks.SIGMA_MAX)
    made = looks.samples(denoiser, data.images, "cpu", sigmas=sigmas)
    sheet, said = looks.mosaic(made[: looks.SHOWN]), looks.judged(made, data, test)
    return Place(sheet, [said], data.size, data.images.ndim == 4)


class Atlas(Panel):
    """Architectures by numbers of training images, a cell each: samples, what was measured of them,
    and a point in the plane of copying and realism.

    static/atlas.js lets the reader drag through the cells and through the training, and opens a cell
    in a lab.

    name: unique in the book, part of addresses. maps: for each kind of images the places by
    (architecture, number of training images), of each architecture for every number. data: for
    kinds whose training images may be shown, the largest training set, of which smaller ones are
    the first, and unseen images, both (N, *event). known: by kind, what was measured of images that
    no network made, by name. lab: what opens a cell of the kind `live`; it has families by the names
    of architectures, whose values are the numbers. caption, alt: as for every figure. start: kind, row,
    column, look, where not the first cell of the first kind at its last look. Raises ValueError
    where a map has gaps, or the start is not in it.
    """

    element, script = "creativity-map", "atlas"

    def __init__(
        self,
        name: str,
        maps: Mapping[str, Mapping[tuple[str, int], Place]],
        data: Mapping[str, tuple[Tensor, Tensor]],
        known: Mapping[str, Mapping[str, Mapping[str, float]]],
        lab: Lab,
        live: str,
        caption: str,
        alt: str,
        **start: Any,
    ):
        self.name, self.maps, self.data, self.known = name, maps, data, known
        self.lab, self.live, self.caption, self.alt = lab, live, caption, alt
        self.axes: dict[str, tuple[list[str], list[int]]] = {}
        for kind, places in maps.items():
            rows, columns = (
                list(dict.fromkeys(r for r, _ in places)),
                sorted({c for _, c in places}),
            )
            gaps = [(r, c) for r in rows for c in columns if (r, c) not in places]
            if gaps:
                raise ValueError(
                    f"the map of {kind} has no {gaps}: give every cell, or leave its row"
                )
            self.axes[kind] = rows, columns
        first = self.axes.get(start.get("kind", next(iter(maps))), ([None], [None]))
        looked = max(len(place.said) for places in maps.values() for place in places.values())
        choices = {"kind": list(maps), "row": first[0], "column": first[1], "look": range(looked)}
        self.start = {key: values[0] for key, values in choices.items()} | {"look": looked - 1}
        for key, value in start.items():
            if value not in choices.get(key, ()):
                raise ValueError(
                    f"start has {key} = {value!r}: choose among {choices.get(key, tuple(choices))}"
                )
        self.start |= start

    def colours(self) -> dict[str, str]:
        """Of each architecture, whatever images it learned from."""
        names = dict.fromkeys(row for rows, _ in self.axes.values() for row in rows)
        return {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}

    def nearest(self, kind: str, row: str, n: int) -> tuple[Tensor, Tensor]:
        """For each sample of a cell, (looks, SHOWN): the number of its nearest training image, and
        the distance to it over that to the nearest of as many unseen ones."""
        made = self.maps[kind][row, n].samples()
        (near, which), (other, _) = (
            metrics.nearest(made.flatten(0, 1), x[:n], k=1) for x in self.data[kind]
        )
        return which[:, 0].view(made.shape[:2]), (near / other)[:, 0].view(made.shape[:2])

    def written(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """All that the script needs: choices and numbers, and pictures by the names of their files."""
        kinds, files = {}, {}
        for kind, places in self.maps.items():
            rows, columns = self.axes[kind]
            used: dict[int, int] = {}  # training images that are shown, and their places
            cells = []
            for i, j in ((i, j) for i in range(len(rows)) for j in range(len(columns))):
                place = places[rows[i], columns[j]]
                files[f"{kind}-{i}-{j}.webp"] = place.sheet
                cells.append({"said": place.said})
                if kind in self.data:
                    which, ratio = self.nearest(kind, rows[i], columns[j])
                    near = [[used.setdefault(k, len(used)) for k in row] for row in which.tolist()]
                    cells[-1] |= {"near": near, "ratio": ratio.mul(100).round().int().tolist()}
            if used:
                files[f"{kind}.webp"] = looks.mosaic(self.data[kind][0][list(used)], COLUMNS)
            side, shown = next(iter(places.values())).side, list(used)
            kinds[kind] = {"rows": rows, "columns": columns, "cells": cells, "side": side,
                           "training": shown, "known": self.known.get(kind, {})}  # fmt: skip
        opens = {"lab": self.lab.name, "kind": self.live, "rows": list(self.lab.families)}
        about = {"live": opens, "colours": self.colours(),
                 "judged": looks.JUDGED, "across": COLUMNS}  # fmt: skip
        return {"name": self.name, "kinds": kinds, "start": self.start, **about}, files

    def carried(self) -> dict[str, Any]:
        """What the script needs where there is no page: pictures as addresses that hold their data."""
        spec, files = self.written()
        held = {
            name: f"data:image/webp;base64,{base64.b64encode(data).decode()}"
            for name, data in files.items()
        }
        return spec | {"files": held}

    def html(self) -> str:
        """The custom element, whose pictures it writes to <results>/labs/<name>, with the lab inside,
        out of sight until a cell is opened."""
        folder = results_folder() / "labs" / self.name
        new = folder.with_name(f".{folder.name}.unfinished")
        shutil.rmtree(new, ignore_errors=True)
        spec, files = self.written()
        for name, data in files.items():
            write_atomically(new / name, data)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(new, folder)
        version = hashlib.sha256(b"".join(files.values())).hexdigest()[:12]
        live = f'<div class="atlas-live" hidden>{self.lab.html()}</div>'
        return self.tag(spec | {"version": version}, live)

    def still(self) -> bytes:
        """The cells of the first kind, four samples each, and the plane."""
        kind = self.start["kind"]
        rows, columns = self.axes[kind]
        fig, axes = plt.subplots(len(rows), len(columns), figsize=(8.6, 0.5 * len(rows) + 0.4),
                                 layout="none")  # fmt: skip
        fig.subplots_adjust(0.12, 0.02, 0.62, 0.92, wspace=0.04, hspace=0.1)
        for i, j in ((i, j) for i in range(len(rows)) for j in range(len(columns))):
            ax, place = axes[i, j], self.maps[kind][rows[i], columns[j]]
            made = place.samples()[-1, :4]
            strip = made.movedim(1, -1) if place.colour else made[..., None].expand(-1, -1, -1, 3)
            ax.imshow(strip.transpose(0, 1).flatten(1, 2))
            ax.set(xticks=[], yticks=[])
            ax.set_title(f"{columns[j]} images" if i == 0 else "", fontsize=8)
            if j == 0:
                ax.set_ylabel(rows[i], fontsize=8, rotation=0, ha="right", va="center")
        self._plane(fig.add_axes((0.7, 0.12, 0.29, 0.8)))
        return as_png(fig)

    def _plane(self, ax: Axes) -> None:
        kind = self.start["kind"]
        rows, columns = self.axes[kind]
        for row in rows:
            said = [self.maps[kind][row, n].said[-1] for n in columns]
            points = [(s["closeness"], max(s["kid"], LOWEST)) for s in said if "closeness" in s]
            ax.plot(
                *zip(*points, strict=True), "o-", color=self.colours()[row], ms=3, lw=1, label=row
            )
        ax.set(yscale="log", xlabel="closeness to training images", ylabel="KID")
        ax.tick_params(labelsize=7)
        ax.set_yticks((0.01, 0.1, 1, 10), ("0.01", "0.1", "1", "10"))
        ax.minorticks_off()
        ax.legend(fontsize=6)
