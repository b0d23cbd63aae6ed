"""The cards of trained networks: where weights and manifest lie, and whether weights are those that
were measured."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

MODELS = "CREATIVE_DENOISER_MODELS"  # environment variable: the folder of models
# the folder, among the models, of weights that are too many for the repository
UNSHIPPED = "unshipped"
NAME = r"[a-z0-9]+(-[a-z0-9]+)*"


def models_folder() -> Path:
    """$CREATIVE_DENOISER_MODELS, or `models` of the checkout around this package, or what was
    installed with it."""
    if MODELS in os.environ:
        return Path(os.environ[MODELS])
    package = Path(__file__).resolve().parent
    checkout = package.parents[1] / "models"
    return checkout if checkout.is_dir() else package / "weights"


def manifest() -> dict[str, dict[str, Any]]:
    """The cards of all models by name; ValueError when the manifest is missing or damaged."""
    path = models_folder() / "manifest.json"
    try:
        cards = json.loads(path.read_text("utf-8"))
        if not isinstance(cards, dict) or not all(
            isinstance(card, dict) for card in cards.values()
        ):
            raise TypeError
        if not all(re.fullmatch(NAME, name) for name in cards):  # part of a file's
            raise ValueError
    except FileNotFoundError:
        raise ValueError(
            f"{path} is missing: run from the checkout of the book, set {MODELS}, or train the models"
        ) from None
    except (OSError, ValueError, TypeError, RecursionError):
        raise ValueError(f"{path} is damaged: restore it from the repository") from None
    return cards


def weights(name: str, card: dict[str, Any]) -> Path:
    """Where the weights of that name lie."""
    return models_folder() / ("" if card.get("ships", True) else UNSHIPPED) / f"{name}.safetensors"


def checksums(names: Iterable[str]) -> dict[str, str]:
    """Of the weights that there are, else what their cards say; names that are not there are left
    out.

    The weights are read, not only their cards: so a chapter depends on those behind what it shows.
    """
    cards = manifest()
    files = {name: weights(name, cards[name]) for name in names if name in cards}
    return {
        n: digest(f.read_bytes()) if f.exists() else cards[n].get("sha256", "")
        for n, f in files.items()
    }


def digest(data: bytes) -> str:
    """The checksum of a file of weights, or of a sheet."""
    return hashlib.sha256(data).hexdigest()
