"""Targets in the plane with exact densities, and embedded Fashion-MNIST."""

from .fashion_mnist import fashion_mnist
from .plane import (
    TARGETS,
    Checkerboard,
    Pinwheel,
    checkerboard,
    moons,
    pinwheel,
    ring,
    spiral,
    star,
    swiss_roll,
    three_points,
    two_gaussians,
)

__all__ = [
    "TARGETS",
    "Checkerboard",
    "Pinwheel",
    "checkerboard",
    "fashion_mnist",
    "moons",
    "pinwheel",
    "ring",
    "spiral",
    "star",
    "swiss_roll",
    "three_points",
    "two_gaussians",
]
