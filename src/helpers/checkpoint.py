"""What a training needs to go on where it was interrupted, as one file."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensor_bytes
from torch import Tensor

from .denoisers import Denoiser
from .files import write_atomically
from .recipe import Recipe


class State(NamedTuple):
    """All that the next step depends on, as one file of named tensors."""

    denoiser: Denoiser
    average: Denoiser
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    g: torch.Generator
    means: Tensor
    recipe: Recipe
    points: Tensor
    digest: str

    def card(self) -> str:
        """What a checkpoint must agree with."""
        network = [
            str(self.denoiser),
            getattr(self.denoiser, "arguments", {}),
            getattr(self.denoiser, "data_std", 0),
        ]
        shapes = {k: list(v.shape) for k, v in self.denoiser.state_dict().items()}
        data = [list(self.points.shape), self.digest]
        return json.dumps([network, shapes, asdict(self.recipe), data])

    def write(self, path: Path, step: int, loss: float, seconds: float) -> None:
        """All of it, with the step, its loss and the time so far."""
        tensors = {f"denoiser/{k}": v for k, v in self.denoiser.state_dict().items()}
        if self.average is not self.denoiser:
            tensors |= {f"average/{k}": v for k, v in self.average.state_dict().items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam/{i}/{k}": v for k, v in moments.items()}
        tensors |= {f"scaler/{k}": torch.tensor(v) for k, v in self.scaler.state_dict().items()}
        tensors |= {"generator": self.g.get_state(), "means": self.means}
        about = {
            "card": self.card(),
            "step": str(step),
            "loss": repr(loss),
            "seconds": repr(seconds),
        }
        tensors = {k: v.contiguous() for k, v in tensors.items()}
        write_atomically(path, tensor_bytes(tensors, about | {"sha256": _digest(tensors, about)}))

    def read(self, path: Path) -> tuple[int, float, float]:
        """Go back to a checkpoint; its step, loss and time.

        Raises ValueError for one that is damaged or of another training.
        """
        try:
            with safe_open(path, "pt") as file:
                about, tensors = file.metadata() or {}, {k: file.get_tensor(k) for k in file.keys()}
            if about.pop("sha256", None) != _digest(tensors, about):
                raise SafetensorError
        except (OSError, SafetensorError):
            raise ValueError(f"{path} is damaged: remove it to train from the start") from None
        ours, theirs = json.loads(self.card()), json.loads(about["card"])
        if ours[0][1]:  # arguments that build it again; how a network prints changes with the code
            ours[0][0] = theirs[0][0]
        if ours != theirs:
            raise ValueError(
                f"{path} is of another network, recipe or training set: remove it or name another file"
            )

        def part(name: str) -> dict[str, Any]:
            return {k.removeprefix(name): v for k, v in tensors.items() if k.startswith(name)}

        self.denoiser.load_state_dict(part("denoiser/"))
        if self.average is not self.denoiser:
            self.average.load_state_dict(part("average/"))
        moments = {  # strided as the weights are, which torch's fused steps take for granted
            i: {
                k: torch.empty_like(p).copy_(v) if v.ndim else v
                for k, v in part(f"adam/{i}/").items()
            }
            for i, p in enumerate(self.denoiser.parameters())
            if part(f"adam/{i}/")
        }
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        if scale := part("scaler/"):
            self.scaler.load_state_dict({k: v.item() for k, v in scale.items()})
        self.g.set_state(tensors["generator"])
        self.means.copy_(tensors["means"])
        return int(about["step"]), float(about["loss"]), float(about["seconds"])


def reached(checkpoint: Path) -> tuple[int, float]:
    """The step of a checkpoint and the seconds that it took to get there."""
    try:
        with safe_open(checkpoint, "pt") as file:
            about = file.metadata()
        return int(about["step"]), float(about["seconds"])
    except (OSError, SafetensorError, TypeError, LookupError, ValueError):
        raise ValueError(f"{checkpoint} is damaged: remove it to train from the start") from None


def _digest(tensors: dict[str, Tensor], about: dict[str, str]) -> str:
    """Of all that a checkpoint holds."""
    text = json.dumps(about, sort_keys=True).encode()  # a file keeps its words in any order
    return hashlib.sha256(text + tensor_bytes(tensors)).hexdigest()
