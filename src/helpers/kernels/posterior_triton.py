"""The posterior mean on a GPU, in Triton: a product for the logits, then a weighted sum, each tiled
along D.

One pass with the accumulator on chip, as flash attention has it, needs D numbers for each query: 25
kB at D = 6400, so that 16 queries would fill a multiprocessor. Two passes cost the logits' way to
memory and back, B N numbers, little beside 2 N D. Tiles of the second pass skip the points whose
weights are all negligible: at small sigma nearly all.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from .summary import NARROW

# weights below e^-32 = 1e-14 of the largest, which no float32 sum can feel
FAR = tl.constexpr(32.0)


def two_pass(x: Tensor, y: Tensor, sigma: Tensor, summary) -> tuple[Tensor, ...]:
    """logits (N, B), their maximum, sum w, sum w^2, sum w |x|^2 / 2 and sum w x, as
    `posterior.Sums`, for y float32.

    Points that float16 holds exactly (uint8, float16) are multiplied on the tensor cores with y,
    and later w, each
    split into two float16 parts: 22 bits, at a half or a quarter of the traffic. Other points are
    multiplied as float32, in three tf32 products where there are such tensor cores (sm_80), else in
    plain ones.
    """
    (n, d), b = x.shape, len(y)
    capability, multiprocessors = _device(x)
    x, narrow = x.contiguous(), x.dtype in NARROW
    centre = summary.centre.float()
    queries, rate, half = y - centre, (sigma**-2).float(), summary.half_squares.float()
    scale = torch.ones_like(rate)
    if narrow:
        # (y - c) . (x - c) and (y - c) . x differ by a number that the softmax does not see: points
        # stay whole. The largest coordinate of a query becomes 2^10, far from float16's limits on
        # either side.
        scale = 2 ** (queries.abs().amax(1).clamp(min=1e-30).log2().ceil() - 10)
        queries = _two_parts(queries / scale[:, None])
    precision = "tf32x3" if capability >= 80 else "ieee"
    bm, bn, bd = (16 if b <= 16 else 64 if b <= 64 else 128), 128, 64 if narrow else 32
    tiles = triton.cdiv(n, bn)
    logits, highs = y.new_empty(n, b), y.new_empty(tiles, b)
    _logits[tiles, triton.cdiv(b, bm)](
        x, queries.contiguous(), centre, half, rate, scale, logits, highs, n, b, d,
        NARROW=narrow, PRECISION=precision, BM=bm, BN=bn, BD=bd, num_warps=8,
    )  # fmt: skip
    best = highs.amax(0)
    bm, bd = min(bm, 64), 128
    across = triton.cdiv(b, bm) * triton.cdiv(d, bd)
    splits = max(1, min(tiles, 4 * multiprocessors // across))  # enough programs for the whole GPU
    parts, sums = y.new_zeros(splits, b, d), y.new_zeros(splits, 3, b)
    _weighted[triton.cdiv(d, bd), triton.cdiv(b, bm), splits](
        x, centre, half, logits, highs, best, parts, sums, n, b, d, tiles,
        NARROW=narrow, PRECISION=precision, BM=bm, BN=bn, BD=bd, num_warps=8,
    )  # fmt: skip
    total, squares, halves = sums.sum(0)
    weighted = parts.sum(0)
    return (
        logits,
        best,
        total,
        squares,
        halves,
        weighted - total[:, None] * centre if narrow else weighted,
    )


def _two_parts(v: Tensor) -> Tensor:
    """float16 (2, ...) whose sum is the float32 v to 22 bits."""
    high = v.half()
    return torch.stack([high, (v - high.float()).half()])


@triton.jit
def _logits(
    x, y, centre, half, rate, scale, logits, highs, n, b, d,
    NARROW: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * BN + tl.arange(0, BN)
    queries = tl.program_id(1) * BM + tl.arange(0, BM)
    wide = rows.to(tl.int64)[:, None] * d  # N D passes 2^31
    product = tl.zeros((BN, BM), tl.float32)
    for start in range(0, d, BD):
        k = start + tl.arange(0, BD)
        tile = tl.load(x + wide + k[None, :], mask=(rows < n)[:, None] & (k < d)[None, :], other=0)
        at = queries[None, :] * d + k[:, None]
        inside = (queries < b)[None, :] & (k < d)[:, None]
        if NARROW:
            tile = tile.to(tl.float16)
            for part in tl.static_range(2):
                product = tl.dot(
                    tile, tl.load(y + part * b * d + at, mask=inside, other=0), product
                )
        else:
            tile = tile.to(tl.float32) - tl.load(centre + k, mask=k < d, other=0)[None, :]
            product = tl.dot(
                tile, tl.load(y + at, mask=inside, other=0), product, input_precision=PRECISION
            )
    squares = tl.load(half + rows, mask=rows < n, other=0)
    product *= tl.load(scale + queries, mask=queries < b, other=0)[None, :]
    value = (product - squares[:, None]) * tl.load(rate + queries, mask=queries < b, other=0)[
        None, :
    ]
    inside = (rows < n)[:, None] & (queries < b)[None, :]
    tl.store(logits + rows.to(tl.int64)[:, None] * b + queries[None, :], value, mask=inside)
    high = tl.max(tl.where((rows < n)[:, None], value, float("-inf")), axis=0)
    tl.store(highs + tl.program_id(0) * b + queries, high, mask=queries < b)


@triton.jit
def _weighted(
    x, centre, half, logits, highs, best, parts, sums, n, b, d, tiles,
    NARROW: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    k = tl.program_id(0) * BD + tl.arange(0, BD)
    queries = tl.program_id(1) * BM + tl.arange(0, BM)
    split = tl.program_id(2)
    top = tl.load(best + queries, mask=queries < b, other=0)
    origin = tl.load(centre + k, mask=k < d, other=0)
    o = tl.zeros((BM, BD), tl.float32)
    total, squares, halves = (
        tl.zeros((BM,), tl.float32),
        tl.zeros((BM,), tl.float32),
        tl.zeros((BM,), tl.float32),
    )
    for tile in range(split, tiles, tl.num_programs(2)):
        high = tl.load(highs + tile * b + queries, mask=queries < b, other=float("-inf"))
        if tl.max(high - top, axis=0) > -FAR:
            rows = tile * BN + tl.arange(0, BN)
            inside = (queries < b)[:, None] & (rows < n)[None, :]
            at = logits + rows.to(tl.int64)[None, :] * b + queries[:, None]
            w = tl.exp(tl.load(at, mask=inside, other=float("-inf")) - top[:, None])
            total += tl.sum(w, axis=1)
            squares += tl.sum(w * w, axis=1)
            halves += tl.sum(w * tl.load(half + rows, mask=rows < n, other=0)[None, :], axis=1)
            inside = (rows < n)[:, None] & (k < d)[None, :]
            values = tl.load(x + rows.to(tl.int64)[:, None] * d + k[None, :], mask=inside, other=0)
            if NARROW:
                values = values.to(tl.float16)
                w *= 1024
                first = w.to(tl.float16)
                o = tl.dot(first, values, o)
                o = tl.dot((w - first.to(tl.float32)).to(tl.float16), values, o)
            else:
                o = tl.dot(w, values.to(tl.float32) - origin[None, :], o, input_precision=PRECISION)
    if NARROW:
        o *= 1.0 / 1024
    at = (split * b + queries.to(tl.int64))[:, None] * d + k[None, :]
    tl.store(parts + at, o, mask=(queries < b)[:, None] & (k < d)[None, :])
    if tl.program_id(0) == 0:
        at = sums + split * 3 * b + queries
        tl.store(at, total, mask=queries < b)
        tl.store(at + b, squares, mask=queries < b)
        tl.store(at + 2 * b, halves, mask=queries < b)


def _device(x: Tensor) -> tuple[int, int]:
    """Compute capability (80 for sm_80) and number of multiprocessors; an A100's for CPU tensors in
    the interpreter."""
    if not x.is_cuda:
        return 80, 108
    properties = torch.cuda.get_device_properties(x.device)
    return 10 * properties.major + properties.minor, properties.multi_processor_count


def plane_moments(x: Tensor, y: Tensor, rate: Tensor) -> Tensor:
    """The moments that `plane.plane_posterior` needs, (B, 3 + d + d (d + 1) / 2), for float64 x (N,
    d) and y (B, d).

    Differences, exponents and sums are float64, the exponential float32: the weights are off by
    1e-7 of each, and by the same in every sum.
    """
    (n, d), b = x.shape, len(y)
    x, y = (torch.nn.functional.pad(t, (0, 3 - d)).contiguous() for t in (x, y))
    out = x.new_empty(b, 12)
    _plane[(triton.cdiv(b, 64),)](x, y, rate.contiguous(), out, n, b, BM=64, BN=64)
    second = [(i, j) for i in range(3) for j in range(i, 3)]
    kept = [0, 1, 2, *range(3, 3 + d), *(6 + k for k, (i, j) in enumerate(second) if j < d)]
    return out[:, kept]


@triton.jit
def _exponents(x, points, inside, v0, v1, v2, scale):
    """Coordinates of some points and -|y - x|^2 rate, -inf outside the set."""
    x0 = tl.load(x + points * 3, mask=inside, other=0)[None, :]
    x1 = tl.load(x + points * 3 + 1, mask=inside, other=0)[None, :]
    x2 = tl.load(x + points * 3 + 2, mask=inside, other=0)[None, :]
    d0, d1, d2 = v0 - x0, v1 - x1, v2 - x2
    return (
        x0,
        x1,
        x2,
        tl.where(inside[None, :], -(d0 * d0 + d1 * d1 + d2 * d2) * scale, float("-inf")),
    )


@triton.jit
def _plane(x, y, rate, out, n, b, BM: tl.constexpr, BN: tl.constexpr):
    queries = tl.program_id(0) * BM + tl.arange(0, BM)
    own = queries < b
    scale = tl.load(rate + queries, mask=own, other=0)[:, None]
    v0 = tl.load(y + queries * 3, mask=own, other=0)[:, None]
    v1 = tl.load(y + queries * 3 + 1, mask=own, other=0)[:, None]
    v2 = tl.load(y + queries * 3 + 2, mask=own, other=0)[:, None]
    best = tl.full((BM,), float("-inf"), tl.float64)
    for start in range(0, n, BN):
        points = start + tl.arange(0, BN)
        _, _, _, exponent = _exponents(x, points, points < n, v0, v1, v2, scale)
        best = tl.maximum(best, tl.max(exponent, axis=1))
    zero = tl.zeros((BM,), tl.float64)
    s, ss, s0, s1, s2 = zero, zero, zero, zero, zero
    s00, s01, s02, s11, s12, s22 = zero, zero, zero, zero, zero, zero
    for start in range(0, n, BN):
        points = start + tl.arange(0, BN)
        x0, x1, x2, exponent = _exponents(x, points, points < n, v0, v1, v2, scale)
        w = tl.exp((exponent - best[:, None]).to(tl.float32)).to(tl.float64)
        s += tl.sum(w, axis=1)
        ss += tl.sum(w * w, axis=1)
        w0, w1, w2 = w * x0, w * x1, w * x2
        s0 += tl.sum(w0, axis=1)
        s1 += tl.sum(w1, axis=1)
        s2 += tl.sum(w2, axis=1)
        s00 += tl.sum(w0 * x0, axis=1)
        s01 += tl.sum(w0 * x1, axis=1)
        s02 += tl.sum(w0 * x2, axis=1)
        s11 += tl.sum(w1 * x1, axis=1)
        s12 += tl.sum(w1 * x2, axis=1)
        s22 += tl.sum(w2 * x2, axis=1)
    out += queries * 12
    tl.store(out, best, mask=own)
    tl.store(out + 1, s, mask=own)
    tl.store(out + 2, ss, mask=own)
    tl.store(out + 3, s0, mask=own)
    tl.store(out + 4, s1, mask=own)
    tl.store(out + 5, s2, mask=own)
    tl.store(out + 6, s00, mask=own)
    tl.store(out + 7, s01, mask=own)
    tl.store(out + 8, s02, mask=own)
    tl.store(out + 9, s11, mask=own)
    tl.store(out + 10, s12, mask=own)
    tl.store(out + 11, s22, mask=own)
