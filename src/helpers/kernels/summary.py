"""What is computed of a training set once, and how much of it is looked at at a time."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import widened

NARROW = (torch.uint8, torch.float16)  # on a GPU points of these types stay so, uncentred
# numbers in a chunk of points: in cache from the first product to the second
CHUNK = {"cpu": 2**22, "cuda": 2**26}


class Summary(NamedTuple):
    """What every call needs to know of a training set: computed once where calls repeat."""

    centre: Tensor  # (D,): its mean; near-equal squares of an offset would cancel
    half_squares: Tensor  # (N,): |x_i - centre|^2 / 2, summed in float64
    radius: float  # root mean square of |x_i - centre|


def summarise(points: Tensor, centre: Tensor | None = None) -> Summary:
    """The summary of points (N, *event), in two streaming passes in float64.

    centre (*event): an origin to use instead of the mean, near it; zeros for points that are
    centred already, which are then used as they are. Raises ValueError for points that are not
    finite.
    """
    x = points.detach().flatten(1)
    chunks = x.split(rows_in_chunk(x))
    if centre is None:
        centre = torch.stack([widened(c).sum(0) for c in chunks]).sum(0) / len(x)
    centre = centre.flatten().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    half = torch.cat([(widened(c) - centre).square_().sum(1) for c in chunks]) / 2
    radius = math.sqrt(2 * float(half.mean()))
    if not math.isfinite(radius):
        raise ValueError("points hold NaN or infinity: remove those rows first")
    return Summary(centre, half, radius)


def rows_in_chunk(x: Tensor) -> int:
    """Points in a chunk."""
    return max(32, min(CHUNK.get(x.device.type, CHUNK["cuda"]) // max(1, x.shape[1]), 65536))
