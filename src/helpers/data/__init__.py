"""Targets in the plane with exact densities, and images: `load`."""

from .celeba_download import download_celeba
from .fashion_mnist import fashion_mnist
from .images import ImageSet, load
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
    "ImageSet",
    "Pinwheel",
    "checkerboard",
    "download_celeba",
    "fashion_mnist",
    "load",
    "moons",
    "pinwheel",
    "ring",
    "spiral",
    "star",
    "swiss_roll",
    "three_points",
    "two_gaussians",
]
