"""What a caller may get wrong, said clearly: shared by denoisers, kernels and measures."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WITHOUT_DOUBLE = {"mps"}  # kinds of devices that have no float64
WIDEST = 4096  # channels, layers or pixels of a side: more is a slip, and would fill any memory


def checked_sigma(
    y: Tensor, sigma: float | Tensor, event_shape: tuple[int, ...] | None = None
) -> Tensor:
    """sigma as a tensor that broadcasts against y, after checking both.

    Raises ValueError for a y that is not a floating batch of `event_shape` or holds NaN or
    infinity, and for a sigma of another shape than () or (batch,), or not finite and positive.
    """
    if not y.is_floating_point():
        raise ValueError(
            f"y has dtype {y.dtype}: a denoiser needs floating point, call y.float() or y.double()"
        )
    if y.ndim < 2 or (event_shape is not None and tuple(y.shape[1:]) != event_shape):
        want = (
            "(batch, *event)"
            if event_shape is None
            else f"(batch, {', '.join(map(str, event_shape))})"
        )
        raise ValueError(
            f"y has shape {tuple(y.shape)}: this denoiser takes {want}; one point is y[None]"
        )
    sigma = torch.as_tensor(sigma, dtype=y.dtype, device=y.device)
    if sigma.ndim > 1 or (sigma.ndim == 1 and len(sigma) != len(y)):
        raise ValueError(
            f"sigma has shape {tuple(sigma.shape)} for a batch of {len(y)}: pass a float or shape (batch,)"
        )
    # no values to look at while a graph is made or a function transformed: only shapes are checked
    # there
    if not (torch.compiler.is_compiling() or transformed(y, sigma)):
        bad = ~(torch.isfinite(sigma) & (sigma > 0))
        if bad.any():
            raise ValueError(
                f"sigma is {sigma[bad].flatten()[0].item()}: the noise level must be positive and finite"
            )
        if not torch.isfinite(y).all():
            row = int((~torch.isfinite(y.flatten(1)).all(1)).nonzero()[0])
            raise ValueError(
                f"y holds NaN or infinity (first in row {row}): drop diverged points, y[y.isfinite().all(1)]"
            )
    return sigma if sigma.ndim == 0 else sigma.view(-1, *[1] * (y.ndim - 1))


def exporting() -> bool:
    """Whether a whole graph is being made of the denoiser: y and sigma have shapes then, but no
    values."""
    return torch.compiler.is_exporting()


def transformed(*tensors: Tensor) -> bool:
    """Whether any of the tensors stands for others inside vmap, jvp or jacrev: it may have no value
    then."""
    return any(map(torch._C._functorch.is_functorch_wrapped_tensor, tensors))


def differentiated(*tensors: Tensor) -> bool:
    """Whether a derivative with respect to any of the tensors is being taken, forwards or
    backwards."""
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return True
    return any(torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in tensors)


def as_array(t: Tensor) -> np.ndarray:
    """t as a float64 array, for libraries that know nothing of torch; ValueError where that would
    lose a derivative."""
    plain = t.detach().cpu().double()  # which inside of a transform is wrapped, if t is not
    if transformed(t, plain) or differentiated(t) or exporting():
        raise ValueError(
            "this denoiser computes in NumPy, without derivatives, vmap or export: pass y.detach(), or a denoiser "
            "that torch can follow, as Wiener"
        )
    return plain.numpy()


def as_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """The way back: an array as a tensor where `like` lies, in the `accumulate_dtype` there."""
    return torch.from_numpy(array).to(like.device, accumulate_dtype(like.device))


def accumulate_dtype(device: torch.device) -> torch.dtype:
    """The type for sums that need more digits than float32: float64, except on Apple's GPUs, which
    have none."""
    return torch.float32 if device.type in WITHOUT_DOUBLE else torch.float64


def widened(t: Tensor) -> Tensor:
    """t in the `accumulate_dtype` of its device."""
    return t.to(accumulate_dtype(t.device))


def exact(values: Tensor | Sequence | float) -> Tensor:
    """values in float64, on the CPU if their device has none: for what is fitted once and then
    follows y."""
    without = isinstance(values, Tensor) and values.device.type in WITHOUT_DOUBLE
    return torch.as_tensor(values, dtype=torch.float64, device="cpu" if without else None)


def positive_int(name: str, value: int, remedy: str = "", most: int = 2**31 - 1) -> int:
    """`value` as an int from 1 to `most`; ValueError naming it otherwise."""
    if not _whole(value) or value < 1:
        raise ValueError(
            f"{name} is {value}: it must be a whole number of at least 1{remedy and '; ' + remedy}"
        )
    if value > most:
        raise ValueError(f"{name} is {value}: it must be at most {most}{remedy and '; ' + remedy}")
    return int(value)


def checked_size(name: str, value: int) -> int:
    """positive_int of a part of a network, or of a side of an image, up to WIDEST."""
    return positive_int(name, value, most=WIDEST)


def checked_seed(seed: int) -> int:
    """`seed` as an int of 32 bits, which every generator takes; ValueError naming it otherwise."""
    if not _whole(seed) or not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}: it must be a whole number from 0 to 2^32 - 1")
    return int(seed)


def positive(name: str, value: float, remedy: str) -> float:
    """`value` where it is a finite number above 0; ValueError naming it otherwise."""
    if not is_positive(value):
        raise ValueError(f"{name} is {value}: {remedy}")
    return value


def ordered(sigma_min: float, sigma_max: float) -> None:
    """Refuses two noise levels unless 0 < sigma_min < sigma_max < infinity."""
    if not (is_positive(sigma_min) and is_positive(sigma_max) and sigma_min < sigma_max):
        raise ValueError(
            f"noise levels from {sigma_max} down to {sigma_min}: take 0 < smallest < largest, both finite"
        )


def is_positive(value: float) -> bool:
    """Whether it is a finite number above 0."""
    try:
        return 0 < float(value) < math.inf and not isinstance(value, (str, bool))
    # no number, or a tensor of several
    except (
        TypeError,
        ValueError,
        OverflowError,
        RuntimeError,
    ):
        return False


def _whole(value: float) -> bool:
    try:
        return not isinstance(value, bool) and float(value).is_integer() and value == int(value)
    except (TypeError, ValueError, OverflowError):  # no number, or one that no size can be
        return False


def checked_points(points: Tensor, name: str = "points") -> Tensor:
    """A training set (N, *event): floating, finite and not empty; ValueError naming what is wrong
    otherwise."""
    if not isinstance(points, Tensor) or not points.is_floating_point() or points.ndim < 2:
        shape = tuple(getattr(points, "shape", ()))
        raise ValueError(
            f"{name} has shape {shape}: pass a floating tensor (N, *event), one training point per row"
        )
    if len(points) == 0 or math.prod(points.shape[1:]) == 0:
        raise ValueError(
            f"{name} is empty, shape {tuple(points.shape)}: a training set needs at least one point"
        )
    if not transformed(points) and not torch.isfinite(points).all():
        raise ValueError(f"{name} holds NaN or infinity: remove those rows first")
    return points
