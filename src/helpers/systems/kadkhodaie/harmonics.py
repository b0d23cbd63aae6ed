"""Do eigenvectors oscillate faster as their eigenvalues fall? Sign changes along a contour of the
image, across it, and where the image is flat."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.stats import spearmanr
from skimage.measure import find_contours
from torch import Tensor

from ...checks import as_array, checked_points, widened

LEVELS = [k / 10 for k in range(1, 10)]  # quantiles of the image whose level lines are tried
SHORTEST = 10  # pixels of a level line
ALONG, ACROSS = 2, 8  # pixels on either side of the contour
DEAD = 0.1  # of the largest value: what is nearer to zero has no sign


class SignChanges(NamedTuple):
    """Each (k,): along the contour, a count; the same over the share of the contour on which the
    vector has a sign, a frequency (nan for one that is zero there); across the contour, and on rows
    and columns of the flat half of the image, means over lines."""

    along: Tensor
    per_length: Tensor
    across: Tensor
    flat: Tensor


def contour(image: Tensor) -> Tensor:
    """The level line of an image (H, W) along which it changes most, points (m, 2) as (row,
    column), one pixel apart.

    Of the level lines of nine quantiles, the one with the greatest integral of the gradient along
    it, the image smoothed over a pixel. Raises ValueError for an image without any.
    """
    smooth, steep = _smooth(image)
    best, found = 0.0, None
    for quantile in LEVELS:
        for line in find_contours(smooth, np.quantile(smooth, quantile)):
            length = np.r_[0, np.cumsum(np.hypot(*np.diff(line, axis=0).T))]
            if length[-1] < SHORTEST:
                continue
            at = np.arange(0, length[-1])
            points = np.stack([np.interp(at, length, side) for side in line.T], 1)
            if (weight := map_coordinates(steep, points.T, order=1).sum()) > best:
                best, found = weight, points
    if found is None:
        raise ValueError("the image has no contour: pass one that is not constant")
    return torch.from_numpy(found)


def straightened(vectors: Tensor, points: Tensor, reach: int) -> Tensor:
    """Images (k, H, W) on the lines that run beside a contour (m, 2), (k, 2 reach + 1, m).

    Line d has the distance d - reach from it, along its normal; between pixels linear, outside of
    the frame 0.
    """
    x = as_array(widened(checked_points(vectors, "vectors")))
    along = gaussian_filter(as_array(points), (1.5, 0))
    along = np.gradient(along, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.hypot(*along.T)[:, None]
    shift = np.arange(-reach, reach + 1)[:, None, None]
    at = (as_array(points) + shift * normal).transpose(2, 0, 1)
    return torch.from_numpy(np.stack([map_coordinates(image, at, order=1) for image in x]))


def changes(lines: Tensor, dead: float = DEAD) -> Tensor:
    """Sign changes of a line, mean over those of each vector that have any sign, lines (k, n,
    length) -> (k,).

    Values within `dead` of the vector's largest have no sign and are left out: where a vector
    vanishes, rounding and noise would change signs everywhere.
    """
    x = as_array(checked_points(lines, "lines"))
    found = []
    for rows in x:
        signs = [np.sign(r[np.abs(r) > dead * np.abs(rows).max()]) for r in rows]
        found.append(np.mean([(s[1:] != s[:-1]).sum() for s in signs if len(s)] or [0.0]))
    return torch.tensor(found, dtype=torch.float64)


def sign_changes(vectors: Tensor, image: Tensor, dead: float = DEAD) -> SignChanges:
    """Of images (k, H, W), with the contour and the flat half of `image` (H, W).

    Sturm's measure of an oscillation: the k-th eigenfunction of a string has k - 1. Along: the mean
    of five lines, that on the contour and two on either side. Across: the lines of 17 pixels that
    cross it at a right angle. Flat: rows and columns of the image where its gradient is at most the
    median. Raises ValueError for vectors that are not squares of the image's size.
    """
    if vectors.shape[1:] != image.shape or image.shape[0] != image.shape[-1]:
        raise ValueError(
            f"vectors {tuple(vectors.shape)}, image {tuple(image.shape)}: pass (k, n, n) and (n, n)"
        )
    points, (_, steep) = contour(image), _smooth(image)
    band = straightened(vectors, points, ALONG).mean(1, keepdim=True)
    held = (band.abs() > dead * band.abs().amax(2, keepdim=True)).double().mean((1, 2))
    along = changes(band, dead)
    flat = widened(vectors) * torch.from_numpy(steep <= np.median(steep)).to(vectors.device)
    return SignChanges(
        along,
        along / held,
        changes(straightened(vectors, points, ACROSS).mT, dead),
        changes(torch.cat([flat, flat.mT], 1), dead),
    )


def rises(numbers: Tensor) -> float:
    """Rank correlation of (k,) numbers with their places: 1 where each exceeds the one before."""
    return float(spearmanr(range(len(numbers)), as_array(numbers))[0])


def contrast(backgrounds: Tensor, rows: Tensor) -> Tensor:
    """How far apart the two backgrounds (n, 2, size, size) of C^alpha images are on their contours,
    rows (n, size), (n,): the mean difference, in absolute value."""
    at = rows.clamp(0, rows.shape[1] - 1)[:, None, None].expand(-1, 2, -1, -1)
    below, above = backgrounds.gather(2, at)[:, :, 0].unbind(1)
    return (below - above).mean(1).abs()


def _smooth(image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    if image.ndim != 2 or min(image.shape) < 4:
        raise ValueError(f"image has shape {tuple(image.shape)}: pass one gray image (H, W)")
    smooth = gaussian_filter(as_array(widened(image)), 1.0)
    return smooth, np.hypot(*np.gradient(smooth))
