"""Denoisers in the reader's browser: export to ONNX, labs that run them anywhere, voters, and
eigenvectors."""

from .eigen import Shrinkage
from .export import export
from .lab import Family, Lab
from .voters import Voters

__all__ = ["Family", "Lab", "Shrinkage", "Voters", "export"]
