"""Trained networks: weights as safetensors beside one manifest that says what each is and how it
was made."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from .cards import MODELS as MODELS
from .cards import NAME, digest, manifest, models_folder, weights
from .cards import UNSHIPPED as UNSHIPPED
from .cards import checksums as checksums
from .denoisers import Denoiser, Network
from .denoisers.known import classes as classes
from .files import cache_folder, write_atomically
from .metrics import psnr

LEVELS = (10, 25, 50, 100)  # noise levels of the table, of 255
HALF_PRECISION_COST = 0.05  # dB that storing float16 may cost at any level


def load(name: str) -> Denoiser:
    """The model of that name, float32 and in evaluation mode, on the CPU.

    Raises ValueError naming the file and the remedy when the name is unknown, or when the manifest
    or the weights are missing, damaged, or of another network.
    """
    cards = manifest()
    if name not in cards:
        raise ValueError(f"no model is called {name!r}: choose one of {', '.join(sorted(cards))}")
    card, path = cards[name], weights(name, cards[name])
    try:
        data = path.read_bytes()
    except OSError:
        restore = "restore it from the repository, or " if card.get("ships", True) else ""
        raise ValueError(f"{path} is missing: {restore}train it: {_recipe(card)}") from None
    if digest(data) != card.get("sha256"):
        raise ValueError(
            f"{path} does not match its checksum in the manifest: restore both from the repository"
        )
    known = classes()
    if str(card.get("class")) not in known:
        raise ValueError(
            f"{name} is a {card.get('class')!r}, which is not defined here: import or run what defines it"
        )
    try:
        denoiser = known[card["class"]](**card["arguments"])
        denoiser.load_state_dict({k: v.float() for k, v in read_tensors(data).items()})
    except (SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
        raise ValueError(
            f"{path} holds another network than its card says: restore both from the repository"
        ) from None
    return denoiser.eval()


def save(
    name: str,
    denoiser: Denoiser,
    card: dict[str, Any],
    images: Tensor,
    training: Tensor | None = None,
) -> dict[str, Any]:
    """Write the weights and enter them in the manifest, both atomically; returns the completed
    card.

    To `card` (how the network was trained) are added: class and arguments, number of parameters,
    the PSNR tables on `images` (clean test images as the denoiser takes them) and on as many
    `training` images, each as often as needed for 100 drawings of noise, and type, size and
    checksum of the file. The weights are stored as float16 where that costs less than
    HALF_PRECISION_COST dB at every level of the table. The denoiser is left in evaluation mode.
    """
    if not re.fullmatch(NAME, name):
        raise ValueError(f"name is {name!r}: use lower-case letters, digits and single hyphens")
    if not isinstance(denoiser, Network):
        raise ValueError(
            f"denoiser is a {type(denoiser).__name__}: only {', '.join(classes())} can be saved"
        )
    if classes()[type(denoiser).__name__] is not type(denoiser):
        raise ValueError(
            f"denoiser is a {type(denoiser).__name__}, as another network is called: give it another name"
        )
    whole = {k: v.detach().cpu().contiguous() for k, v in denoiser.eval().state_dict().items()}
    half = {k: v.half() if v.is_floating_point() else v for k, v in whole.items()}
    rounded = type(denoiser)(**denoiser.arguments).eval()
    rounded.load_state_dict({k: v.float() for k, v in half.items()})
    table, table_half = psnr_table(denoiser, images), psnr_table(rounded, images)
    lossless = all(
        a - b < HALF_PRECISION_COST for a, b in zip(table["psnr"], table_half["psnr"], strict=True)
    )
    data = tensor_bytes(half if lossless else whole)
    seen = {}
    if training is not None:
        training = repeated(training[: len(images)], 100)
        seen = {
            "train": {
                "images": len(training),
                **psnr_table(rounded if lossless else denoiser, training),
            }
        }
    complete = {
        "class": type(denoiser).__name__,
        "arguments": denoiser.arguments,
        "parameters": sum(p.numel() for p in denoiser.parameters()),
        **card,
        "test": {"images": len(images), **(table_half if lossless else table)},
        **seen,
        "dtype": "float16" if lossless else "float32",
        "bytes": len(data),
        "sha256": digest(data),
    }
    enter({name: complete}, {weights(name, card): data})
    return complete


def enter(new: dict[str, dict[str, Any]], files: dict[Path, bytes]) -> None:
    """Add cards to the manifest, and write what belongs to them; ValueError, and nothing is
    written, for no JSON."""
    path = models_folder() / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(cache_folder() / "models.lock"):  # several trainings may end at once
        cards = manifest() if path.exists() else {}
        try:
            text = json.dumps({**cards, **new}, indent=1, sort_keys=False, allow_nan=False) + "\n"
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"the card of {', '.join(new)} is no JSON ({error}): pass numbers and words"
            ) from None
        # weights first: a kill in between leaves an old card that refuses the new file, never a
        # card without a file
        for file, data in files.items():
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, data)
        write_atomically(path, text)


def repeated(images: Tensor, n: int) -> Tensor:
    """The images as often as it takes to have at least n: a small set meets as much noise as a
    large one."""
    return images.repeat(-(-n // len(images)), *[1] * (images.ndim - 1))


@torch.no_grad()
def psnr_table(
    denoiser: Denoiser, images: Tensor, levels: tuple[int, ...] = LEVELS, seed: int = 0
) -> dict[str, list]:
    """Mean PSNR in dB of noisy and of denoised images at each level of 255; the noise is drawn anew
    from `seed`."""
    noisy, denoised = [], []
    for level in levels:
        g, sigma = torch.Generator().manual_seed(seed), level / 255
        y = images + sigma * torch.randn(images.shape, generator=g).to(images)
        x_hat = torch.cat([denoiser(part, sigma) for part in y.split(250)])
        noisy.append(round(psnr(y, images), 2))
        denoised.append(round(psnr(x_hat, images), 2))
    return {"sigma_of_255": list(levels), "noisy": noisy, "psnr": denoised}


def _recipe(card: dict[str, Any]) -> str:
    return str(card.get("recipe", "see its card"))
