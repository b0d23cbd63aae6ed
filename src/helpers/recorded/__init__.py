"""What long runs measured, with its provenance: chapters draw it, and travel with it to Colab."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.image import imread
from torch import Tensor


def load(name: str) -> dict[str, Any]:
    """The record `name`, for instance "kernels", written by benchmarks/kernels.py: a section for each kind of device.

    Raises ValueError for a name that is not there, or a file that is damaged.
    """
    there = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.json"))}
    if name not in there:
        raise ValueError(f"there is no record {name!r}: choose one of {', '.join(there)}")
    try:
        return json.loads(there[name].read_text("utf-8"))
    except (ValueError, RecursionError):
        raise ValueError(f"{there[name]} is damaged: reinstall the package") from None


def hardware(name: str) -> str:
    """On what the sections of a record were measured."""

    def devices(section: dict[str, Any]) -> Iterator[str]:
        for key, value in section.items():
            if key == "provenance":
                yield value.get("hardware") or value["device"]
            elif isinstance(value, dict):
                yield from devices(value)

    return "; ".join(sorted(set(devices(load(name)))))


def pictures(png: str, side: int) -> Tensor:
    """Gray images of side x side pixels in [0, 1], (n, side, side), kept in a record as one row: a PNG in base64."""
    row = torch.from_numpy(imread(io.BytesIO(base64.b64decode(png))))
    return row.unflatten(1, (-1, side)).transpose(0, 1)
