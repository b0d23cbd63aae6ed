"""Denoisers in the reader's browser: export to ONNX, labs that run them anywhere, voters,
eigenvectors, flows, and the map of creativity."""

from .atlas import Atlas
from .eigen import Shrinkage
from .export import export
from .flows import Flows
from .guess import Guess
from .lab import Family, Lab
from .presets import PRESETS
from .trainer import Preset, Trainer
from .voters import Voters
from .workbench import Workbench

__all__ = [
    "PRESETS",
    "Atlas",
    "Family",
    "Flows",
    "Guess",
    "Lab",
    "Preset",
    "Shrinkage",
    "Trainer",
    "Voters",
    "Workbench",
    "export",
]
