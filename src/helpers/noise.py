"""Gaussian noise with the same bits on every machine, in Python and in the browser
(helpers/lab/static/noise.js).

Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") and
the Box-Muller transform. The logarithm, sine and cosine of a library may differ in the last bit
from those of another, so they are summed here from operations that IEEE 754 rounds in one way only:
+ - * / and the square root.
"""

import math

import numpy as np
import torch
from torch import Tensor

from .checks import positive_int

LN2, ROTATIONS = 0.6931471805599453, ((13, 15, 26, 6), (17, 29, 16, 24))


def normal(*shape: int, seed: int = 0, stream: int = 0) -> Tensor:
    """Independent N(0, 1) of the given shape, float64, filled row by row.

    seed and stream, whole numbers in [0, 2^32): each pair has noise of its own. A sampler takes
    stream 0 for its start and stream i for its step i. Fewer rows are the first of more rows.
    """
    for name, value in (("seed", seed), ("stream", stream)):
        if isinstance(value, bool) or not 0 <= value < 2**32 or value != int(value):
            raise ValueError(f"{name} is {value}: it must be a whole number from 0 to 2^32 - 1")
    count = math.prod(positive_int("a size of the noise", n) for n in shape)
    a, b = threefry((int(seed), int(stream)), np.arange((count + 1) // 2, dtype=np.uint32))
    radius = np.sqrt(-2 * _log(a))
    cosine, sine = _circle(b)
    return torch.from_numpy(np.stack([radius * cosine, radius * sine], 1).ravel()[:count]).view(
        *shape
    )


def threefry(key: tuple[int, int], low: np.ndarray, high: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Two words of 32 random bits for each counter (low, high): uint32 arrays of the shape of
    `low`."""
    keys = [np.uint32(k) for k in (*key, key[0] ^ key[1] ^ 0x1BD11BDA)]
    x, y = low + keys[0], np.full_like(low, high) + keys[1]
    for block in range(5):
        for r in ROTATIONS[block % 2]:
            x = x + y
            y = (y << np.uint32(r) | y >> np.uint32(32 - r)) ^ x
        x, y = x + keys[(block + 1) % 3], y + keys[(block + 2) % 3] + np.uint32(block + 1)
    return x, y


def _log(bits: np.ndarray) -> np.ndarray:
    """log u of u = (bits + 1/2) / 2^32, from log m = 2 artanh((m - 1)/(m + 1)) with m in [1/2, 1)
    or [.7, 1.4)."""
    m, e = np.frexp(bits + 0.5)
    small = m < 0.7
    m, e = np.where(small, 2 * m, m), np.where(small, e - 1, e)
    s = (m - 1) / (m + 1)
    p = np.zeros_like(s)
    for k in range(21, 0, -2):
        p = p * (s * s) + 1 / k
    return (e - 32) * LN2 + 2 * s * p


def _circle(bits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """cos and sin of an angle uniform on the circle: two bits choose the quarter, the others the
    place in it."""
    a = ((bits & np.uint32(0x3FFFFFFF)) + 0.5) / 2**30 - 0.5
    a = a * (math.pi / 2)  # within a quarter turn around 0
    c, s = np.ones_like(a), np.ones_like(a)
    for k in range(16, 0, -2):
        c, s = 1 - a * a / (k * (k - 1)) * c, 1 - a * a / (k * (k + 1)) * s
    s, quarter = a * s, bits >> np.uint32(30)
    return np.choose(quarter, [c, -s, -c, s]), np.choose(quarter, [s, c, -s, -c])
