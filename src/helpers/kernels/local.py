"""Posterior means over image patches: the local machines, in C where there is a compiler, on a GPU
by Triton."""

import ctypes
import itertools
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor

from ..checks import (
    checked_points,
    checked_sigma,
    differentiated,
    positive_int,
    transformed,
    widened,
)
from .native import has_triton, library

MACHINES = ("local", "equivariant", "boundary", "composite")
LANES = 64  # images in a block of local.c
# numbers that a step of the torch paths holds at once: they stay in the processor's cache
ROOM = 1 << 18


def local_mean(
    points: Tensor,
    y: Tensor,
    sigma: float | Tensor,
    patch: int,
    machine: str = "local",
    padding: str = "zeros",
    implementation: str | None = None,
) -> Tensor:
    r"""Estimate every pixel q of y = x + sigma n from the patch x patch window around it.

        x_hat(q) = sum_j w_j centre(P_j),   w = softmax_j( -||y_window(q) - P_j||^2 / (2 sigma^2) ),
        P_j in D(q),

    all channels of a pixel together. `machine` names the dictionary D(q), of patches of the images
    `points`:

    local         those at q itself: LS of Kamb & Ganguli (ICML 2025).
    equivariant   those at all positions: ELS of Kamb & Ganguli. With padding "circular" images and
                  windows wrap, and the machine commutes with shifts. With "zeros" the patches are
                  those that lie inside an image, and a window that the border cuts is compared on
                  the pixels that it has; the released code compares windows that wrap with patches
                  that lie inside.
    boundary      those whose overlap with the border is that of q's window: the boundary-broken
                  ELS of Kamb & Ganguli, the best function of a window padded with zeros. Padding
                  "zeros" only.
    composite     PSPC-Square of Niedoba et al. (ICML 2025): for each crop of patch x patch pixels
                  inside the image the softmax over the images' crops at the same place; the
                  estimates of whole crops are averaged where they overlap. Padding "zeros" only.

    points (N, C, H, W) or (N, H, W); y (B, C, H, W) or (B, H, W), same units; sigma a float or
    (B,). patch: odd, from 3 to min(H, W); from 1 for "composite", where it may be even, and where
    patch = H = W is the posterior mean. Windows of "local" are cut at the border with "zeros" and
    wrap with "circular".

    implementation: None picks "C" for float32 on the processor, "Triton" for float32 on a GPU that
    has it, else "torch", which serves any dtype and is differentiable; "composite" has "torch"
    only. Squared distances are float64 (Triton: float32, summed row by row) and weights are
    normalised over the whole dictionary, however it is chunked. "equivariant" costs N (H W)^2 sums
    and exponentials in C, whatever the patch; torch multiplies matrices instead, N (H W)^2 C
    patch^2 products in float64, and takes about ten times as long. Raises ValueError for other
    input, naming it and the remedy. Proved: `prop-ls`, `prop-els`.

    >>> images = torch.stack([torch.zeros(3, 3), torch.ones(3, 3)])
    >>> local_mean(images, torch.tensor([[[1.0, 1.0, 0.0]] * 3]), 0.05, patch=3)[0, 1].round()
    tensor([1., 1., 0.])
    """
    images, queries, level = checked(points, y, sigma)
    reach, circular = (
        checked_window(patch, machine, padding, tuple(images.shape[2:])) // 2,
        padding == "circular",
    )
    able = implementations(y, machine, points, level)
    if implementation is not None and implementation not in able:
        raise ValueError(
            f"implementation is {implementation!r}: for this input choose one of {', '.join(able)}"
        )
    way = implementation or able[0]
    if len(y) == 0:
        return y.clone()
    if way == "Triton":
        from .local_triton import patch_mean

        parts = groups(images, reach, machine, circular)
        return patch_mean(images, queries, level, parts, reach, circular).view_as(y)
    # equal large offsets of x and y would cost digits
    centre = widened(images).mean((0, 2, 3), keepdim=True)
    z, precision = widened(queries) - centre, 0.5 / widened(level) ** 2
    if way == "C":
        x_hat = _with_c(
            images, centre, z, precision, offsets(images, reach, machine, circular), reach, circular
        )
    elif machine == "composite":
        x_hat = _composite(images, centre, z, precision, patch)
    else:
        parts = groups(images, reach, machine, circular)
        means = [
            _local(images, centre, z, precision, reach, circular).flatten(2)[:, :, here]
            if there is None
            else _products(images, centre, z, precision, (here, there), reach, circular)
            for here, there in parts
        ]
        order = torch.cat([here for here, _ in parts]).argsort()
        x_hat = torch.cat(means, dim=2)[:, :, order].view_as(z)
    return (x_hat + centre).to(y.dtype).view_as(y)


def implementations(y: Tensor, machine: str = "local", *others: Tensor) -> list[str]:
    """What can compute `local_mean` of y (and other tensors), the fastest first: of "C", "Triton"
    and "torch"."""
    if (
        y.dtype != torch.float32
        or machine == "composite"
        or transformed(y, *others)
        or differentiated(y, *others)
    ):
        return ["torch"]
    triton = ["Triton"] if has_triton() else []
    if y.device.type == "cuda":
        return [*triton, "torch"]
    interpreted = triton if os.environ.get("TRITON_INTERPRET") == "1" else []
    return [*(["C"] if y.device.type == "cpu" and library("local") else []), "torch", *interpreted]


def offsets(
    images: Tensor, reach: int, machine: str, circular: bool
) -> list[list[tuple[int, int, int]]]:
    """Which pixels meet which patches, per axis: (d, first, last) pairs queries first..last with
    centres d further on.

    A query pixel and a patch centre meet if they do along both axes.
    """

    def axis(size: int) -> list[tuple[int, int, int]]:
        # patches inside the image have their centres in low..high
        end, low, high = size - 1, reach, size - 1 - reach
        if machine == "local":
            return [(0, 0, end)]
        if circular:
            return [(d, 0, end) for d in range(size)]
        if machine == "equivariant":
            return [(d, max(0, low - d), min(end, high - d)) for d in range(low - end, high + 1)]
        return [
            (d, max(low, low - d), min(high, high - d)) if d else (0, 0, end)
            for d in range(low - high, high - low + 1)
        ]

    return [axis(size) for size in images.shape[2:]]


def _with_c(
    images: Tensor,
    centre: Tensor,
    z: Tensor,
    precision: Tensor,
    pairs: list,
    reach: int,
    circular: bool,
) -> Tensor:
    """local.c for each query, and for parts of the dictionary where there are more threads than
    queries."""
    function = library("local").local_mean  # type: ignore[union-attr]
    n, (_, C, H, W) = len(z), images.shape
    rows, columns = (torch.tensor(axis, dtype=torch.int32) for axis in pairs)
    nothing, workers = torch.zeros(W * C * LANES, dtype=torch.float64), torch.get_num_threads()
    z = z.permute(0, 2, 3, 1).contiguous()

    def run(b: int, blocks: Tensor, live: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        best, total, mean = (torch.empty(H * W, c, dtype=torch.float64) for c in (1, 1, C))
        down = torch.empty(W * LANES, dtype=torch.float64)
        address = [ctypes.c_void_p(t.data_ptr()) for t in (blocks, live, rows, columns, z[b])]
        out = [ctypes.c_void_p(t.data_ptr()) for t in (best, total, mean, down, nothing)]
        function(
            *(address[0], ctypes.c_long(len(blocks)), address[1], C, H, W, reach, int(circular)),
            *(
                address[2],
                len(rows),
                address[3],
                len(columns),
                address[4],
                ctypes.c_double(precision[b]),
            ),
            *out,
        )
        return -best * precision[b], total, mean

    states: list[tuple] = [()] * n
    with ThreadPoolExecutor(workers) as pool:
        for part in images.split(max(LANES, 128 * ROOM // math.prod(images.shape[1:]))):
            # lanes of the last block without an image: copies of the last, not counted
            missing = -len(part) % LANES
            x = torch.cat([part, part[-1:].expand(missing, -1, -1, -1)]).double() - centre
            blocks = x.view(-1, LANES, C, H * W).permute(0, 3, 2, 1).contiguous()
            shares = blocks.tensor_split(min(len(blocks), -(-workers // n)))
            live = torch.ones(len(shares), LANES, dtype=torch.float32)
            live[-1, LANES - missing :] = 0
            tasks = list(itertools.product(range(n), zip(shares, live, strict=True)))
            for (b, _), new in zip(tasks, pool.map(lambda t: run(t[0], *t[1]), tasks), strict=True):
                states[b] = merge(states[b], new)
    return torch.stack([(mean / total).T.view(C, H, W) for _, total, mean in states])


def _local(
    images: Tensor, centre: Tensor, z: Tensor, precision: Tensor, reach: int, circular: bool
) -> Tensor:
    state: tuple = ()
    for x in _chunks(images, centre, z.numel()):
        logits = -precision[:, None, None, None] * _box(
            _squared(x, z), 2 * reach + 1, reach, circular
        )
        state = absorb(state, logits, lambda w, x=x: torch.einsum("bnhw,nchw->bchw", w, x))
    return state[2] / state[1]


def _composite(images: Tensor, centre: Tensor, z: Tensor, precision: Tensor, patch: int) -> Tensor:
    def logits(x: Tensor) -> Tensor:  # (batch, images, crops down, crops across)
        return -precision[:, None, None, None] * _box(_squared(x, z), patch)

    state: tuple = ()
    for x in _chunks(images, centre, z.numel()):
        state = absorb(state, logits(x), lambda w: w[:, 0])
    best, total, _ = state
    x_hat = torch.zeros_like(z)
    for x in _chunks(images, centre, z.numel()):
        # of image i in pixel q, over q's crops
        shares = _box(torch.exp(logits(x) - best) / total, patch, patch - 1)
        x_hat = x_hat + torch.einsum("bnhw,nchw->bchw", shares, x)
    return x_hat / _box(torch.ones_like(total), patch, patch - 1)


def groups(
    images: Tensor, reach: int, machine: str, circular: bool
) -> list[tuple[Tensor, Tensor | None]]:
    """(pixels, centres): query pixels and the centres of their patches in each image, None for the
    pixel itself."""
    H, W = images.shape[2:]
    pixels = torch.arange(H * W, device=images.device).view(H, W)
    if machine == "local":
        return [(pixels.flatten(), None)]
    if circular:
        return [(pixels.flatten(), pixels.flatten())]
    edge = torch.ones_like(pixels, dtype=torch.bool)
    edge[reach : H - reach, reach : W - reach] = False
    inner = pixels[~edge]
    if machine == "equivariant":
        return [(inner, inner), (pixels[edge], inner)]
    sides = [pixels[i, reach : W - reach] for i in (*range(reach), *range(H - reach, H))]
    sides += [pixels[reach : H - reach, j] for j in (*range(reach), *range(W - reach, W))]
    corners = pixels[edge][~torch.isin(pixels[edge], torch.cat(sides))]
    return [(inner, inner), *((side, side) for side in sides), (corners, None)]


def _products(
    images: Tensor,
    centre: Tensor,
    z: Tensor,
    precision: Tensor,
    group: tuple,
    reach: int,
    circular: bool,
) -> Tensor:
    """One group, (B, C, here): matrices of windows and patches are multiplied, a chunk of images at
    a time."""
    (here, there), (B, C, _, W), patch = group, z.shape, 2 * reach + 1
    taps = torch.arange(patch, device=z.device)
    taps = (taps[:, None] * (W + 2 * reach) + taps).flatten()

    def windows(t: Tensor, where: Tensor) -> Tensor:  # (batch, where, C * patch^2)
        padded = F.pad(t, (reach,) * 4, mode="circular" if circular else "constant").flatten(2)
        index = (where // W * (W + 2 * reach) + where % W)[:, None] + taps
        return padded[:, :, index].transpose(1, 2).flatten(2)

    queries, image = windows(z, here), torch.ones(1, *z.shape[1:], dtype=z.dtype, device=z.device)
    visible, known = windows(image, here), windows(image, there)
    # a window that the border cuts sees less of a patch
    cut = not torch.equal(visible.amin(1), known.amin(1))
    seen = visible if cut else torch.ones_like(visible[..., :1])
    left = torch.cat([2 * queries, -seen.expand(B, -1, -1)], dim=2) * precision[:, None, None]
    single = torch.float64 if images.dtype == torch.float64 else torch.float32
    state: tuple = ()
    for x in _chunks(images, centre, max(B * len(here), C * patch**2) * len(there)):
        p = windows(x, there).flatten(0, 1)
        right = torch.cat([p, p**2 if cut else (p**2).sum(1, keepdim=True)], dim=1)
        values = x.flatten(2).transpose(1, 2)[:, there].flatten(0, 1).to(single)
        state = absorb(
            state, left.flatten(0, 1) @ right.T, lambda w, values=values: w @ values, single
        )
    return (state[2] / state[1]).view(B, -1, C).transpose(1, 2)


def absorb(
    state: tuple,
    logits: Tensor,
    weigh: Callable[[Tensor], Tensor],
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """A running softmax along axis 1, () or (largest logit, sum of weights, weighted sum), with
    more logits.

    `dtype` is that of the weights, each at most 1, None the logits'; below e^-80 they are e^-80,
    because products of denormal numbers are slow.
    """
    best = logits.detach().amax(1, keepdim=True)
    w = torch.exp((logits - best).clamp(min=-80).to(dtype or logits.dtype))
    return merge(state, (best, widened(w.sum(1, keepdim=True)), widened(weigh(w))))


def merge(state: tuple, new: tuple) -> tuple[Tensor, Tensor, Tensor]:
    """Two softmaxes of parts of the logits as one. Proved: `prop-merge`."""
    if not state:
        return new
    best = torch.maximum(state[0], new[0])
    a, b = torch.exp(state[0] - best), torch.exp(new[0] - best)
    return best, a * state[1] + b * new[1], a * state[2] + b * new[2]


def _chunks(images: Tensor, centre: Tensor, each: int) -> Iterator[Tensor]:
    """The images less their mean in float64, as many at a time as there is room for, `each` numbers
    for one."""
    return (widened(part) - centre for part in images.split(max(1, ROOM // each)))


def _squared(x: Tensor, z: Tensor) -> Tensor:
    """|x - z|^2 - |z|^2 per pixel, (batch, images, H, W): far from all x it keeps digits that |x -
    z|^2 has lost."""
    return (x * (x - 2 * z[:, None])).sum(2)


def _box(t: Tensor, patch: int, pad: int = 0, circular: bool = False) -> Tensor:
    """Sums over patch x patch windows of t padded by `pad`, without the cancellation of running
    sums."""
    t = F.pad(t, (pad,) * 4, mode="circular" if circular else "constant")
    return F.avg_pool2d(
        F.avg_pool2d(t, (patch, 1), 1, divisor_override=1), (1, patch), 1, divisor_override=1
    )


def checked(points: Tensor, y: Tensor, sigma: float | Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """points and y as (., C, H, W), sigma as (B,)."""
    points = checked_points(points)
    if points.ndim not in (3, 4):
        raise ValueError(
            f"points has shape {tuple(points.shape)}: pass images (N, C, H, W) or (N, H, W)"
        )
    if y.dtype != points.dtype or y.device != points.device:
        raise ValueError(
            f"y is {y.dtype} on {y.device}, points {points.dtype} on {points.device}: pass y.to(points) or points.to(y)"
        )
    level = checked_sigma(y, sigma, tuple(points.shape[1:])).flatten().expand(len(y))
    return (points, y, level) if points.ndim == 4 else (points[:, None], y[:, None], level)


def checked_window(patch: int, machine: str, padding: str, size: tuple[int, ...]) -> int:
    if machine not in MACHINES:
        raise ValueError(f"machine is {machine!r}: choose one of {', '.join(MACHINES)}")
    if padding not in ("zeros", "circular"):
        raise ValueError(f"padding is {padding!r}: choose one of zeros, circular")
    if padding == "circular" and machine in ("boundary", "composite"):
        raise ValueError(
            f"padding is 'circular' for machine {machine!r}, which knows the border: take zeros"
        )
    patch, least = positive_int("patch", patch), 1 if machine == "composite" else 3
    if not least <= patch <= min(size) or (machine != "composite" and patch % 2 == 0):
        odd = "" if machine == "composite" else "an odd number "
        raise ValueError(
            f"patch is {patch} on images of {size}: machine {machine!r} takes {odd}{least} to {min(size)}"
        )
    return patch
