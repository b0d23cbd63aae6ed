"""What long runs measured, with its provenance: chapters draw it, and travel with it to Colab."""

import base64
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from matplotlib.image import imread
from torch import Tensor

from ..cards import checksums


def load(name: str) -> dict[str, Any]:
    """The record `name`, for instance "kernels", written by benchmarks/kernels.py, by sections.

    A section that measured networks of the zoo keeps their checksums as "networks": its numbers are
    theirs alone. Raises ValueError for a name that is not there, a file that is damaged, or a
    network that was trained again since.
    """
    there = {path.stem: path for path in sorted(Path(__file__).parent.glob("*.json"))}
    if name not in there:
        raise ValueError(f"there is no record {name!r}: choose one of {', '.join(there)}")
    try:
        record = json.loads(there[name].read_text("utf-8"))
        if not all(isinstance(found.get("networks", {}), dict) for found in record.values()):
            raise TypeError
    except (ValueError, RecursionError, AttributeError, TypeError):
        raise ValueError(f"{there[name]} is damaged: reinstall the package") from None
    named = {network for found in record.values() for network in found.get("networks", {})}
    now = checksums(named) if named else {}  # all at once: sections share networks
    for section, found in record.items():
        for network in _changed(found.get("networks", {}), now):
            raise ValueError(
                f"{network} was trained again since it was measured for section {section!r} of the record "
                f"{name!r}: measure that again by python benchmarks/{name}.py {section}"
            )
    return record


def weights(name: str, sha256: str) -> bytes:
    """The safetensors file beside the record `name`; ValueError where it has another checksum."""
    data = Path(__file__).with_name(f"{name}.safetensors").read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(
            f"recorded/{name}.safetensors does not match its checksum: reinstall the package"
        )
    return data


def retrained(section: dict[str, Any]) -> list[str]:
    """The networks that a section measured with other weights than there are now.

    Those that are gone are left out: nothing new can be shown beside what was measured of them.
    """
    kept = section.get("networks", {})
    return _changed(kept, checksums(kept)) if kept else []


def _changed(kept: dict[str, str], now: dict[str, str]) -> list[str]:
    return [name for name, checksum in kept.items() if now.get(name, checksum) != checksum]


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
    """Gray images of side x side pixels in [0, 1], (n, side, side), kept in a record as one row: a
    PNG in base64."""
    row = torch.from_numpy(imread(io.BytesIO(base64.b64decode(png))))
    return row.unflatten(1, (-1, side)).transpose(0, 1)


def strip(webp: str) -> Tensor:
    """Colour pictures side by side, (H, W, 3) in [0, 1], kept in a record as one row: WebP in
    base64."""
    return torch.from_numpy(imread(io.BytesIO(base64.b64decode(webp)), format="webp") / 255)
