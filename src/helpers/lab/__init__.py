"""Denoisers in the reader's browser: export to ONNX, and the lab that runs them on a page or beside a kernel."""

from .export import export
from .lab import Family, Lab

__all__ = ["Family", "Lab", "export"]
