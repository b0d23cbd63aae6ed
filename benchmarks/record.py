"""What every benchmark does: measure sections and keep them with their provenance in
src/helpers/recorded."""

import argparse
import base64
import io
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from helpers.files import write_atomically
from helpers.models import manifest, weights

ROOT = Path(__file__).resolve().parents[1]
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SEED = 0
OPENED: set[str] = set()  # files of weights, whoever opens them


def _note(event: str, arguments: tuple) -> None:
    if event == "open" and str(arguments[0]).endswith(".safetensors"):
        OPENED.add(str(arguments[0]))


sys.addaudithook(_note)


def path(name: str) -> Path:
    """Where the record of that name is kept."""
    return ROOT / "src/helpers/recorded" / f"{name}.json"


def read(name: str) -> dict[str, Any]:
    """The sections that are there."""
    return json.loads(path(name).read_text()) if path(name).exists() else {}


def write(name: str, section: str, found: dict[str, Any]) -> None:
    """Enter one section; the others stay. A list of numbers is one line."""
    text = json.dumps(read(name) | {section: found}, indent=1, allow_nan=False)
    text = re.sub(
        r"\[\s+([-+.\deE,\s]+?)\s+\]", lambda row: "[" + re.sub(r"\s+", " ", row[1]) + "]", text
    )
    write_atomically(path(name), text + "\n")


def rounded(values: Any, digits: int = 4) -> list:
    """A tensor or nested lists as nested lists of rounded numbers."""
    return torch.as_tensor(values, dtype=torch.float64).round(decimals=digits).tolist()


def noisy(x: Tensor, sigma: float) -> Tensor:
    """x with normal noise drawn from SEED, the same for every network and level."""
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(SEED))


def encoded(pixels: Tensor, kind: str, **options: Any) -> str:
    """8-bit pixels (H, W), or (3, H, W) in colour, as a picture in base64."""
    file, values = io.BytesIO(), pixels.byte().numpy()
    picture = Image.fromarray(values if values.ndim == 2 else values.transpose(1, 2, 0))
    picture.save(file, kind, **options)
    return base64.b64encode(file.getvalue()).decode()


def provenance() -> dict[str, str]:
    """Where and when."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    )
    return {
        "hardware": torch.cuda.get_device_name()
        if DEVICE == "cuda"
        else f"1 of {os.cpu_count()} {platform.machine()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "software": f"torch {torch.__version__.split('+')[0]}",
        "commit": commit.stdout.strip(),
        "date": date.today().isoformat(),
    }


def networks() -> dict[str, str]:
    """Names and checksums of the networks of the zoo whose weights were opened since OPENED was
    cleared.

    Those of a section decide its numbers: `helpers.recorded` shows it beside no others.
    """
    there = {
        name: card["sha256"]
        for name, card in manifest().items()
        if str(weights(name, card)) in OPENED
    }
    return dict(sorted(there.items()))


def main(
    description: str,
    name: str,
    sections: dict[str, Callable[[], dict]],
    kinds: dict[str, str] | None = None,
) -> None:
    """The command line. A section in `kinds` is kept once for each kind of device, that of this one
    given."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", choices=[*sections, []], help="none means all")
    torch.set_num_threads(1)
    for section in parser.parse_args().sections or sections:
        OPENED.clear()
        found = sections[section]()
        found |= ({"networks": networks()} if networks() else {}) | {"provenance": provenance()}
        kept = (
            {**read(name).get(section, {}), kinds[section]: found}
            if kinds and section in kinds
            else found
        )
        write(name, section, kept)
        print(f"{section}: written to {path(name)}", flush=True)
