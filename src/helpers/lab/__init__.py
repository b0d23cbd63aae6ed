"""Denoisers in the reader's browser: export to ONNX, labs that run them anywhere, voters, and
eigenvectors."""

from .eigen import Shrinkage
from .export import export
from .guess import Guess
from .lab import Family, Lab
from .voters import Voters
from .workbench import Workbench

__all__ = ["Family", "Guess", "Lab", "Shrinkage", "Voters", "Workbench", "export"]
