"""Denoisers in the reader's browser: export to ONNX, labs that runs them on a page or beside a kernel, and voters."""

from .export import export
from .lab import Family, Lab
from .voters import Voters

__all__ = ["Family", "Lab", "Voters", "export"]
