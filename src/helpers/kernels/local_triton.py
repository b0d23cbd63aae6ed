"""The local machines on a GPU, in Triton: tiles of query pixels by patches, with the running
softmax of attention.

A tile sums direct differences tap by tap: the squared distances are float32, first along a row of
the window and then over rows, which keeps them to about 1e-7 of themselves. Where the nearest patch
is more than about 30 sigma away the weights therefore lose digits that local.c and torch keep.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BQ, BK = 32, 64  # query pixels and patches in a tile


def patch_mean(
    x: Tensor, y: Tensor, sigma: Tensor, groups: list, reach: int, circular: bool
) -> Tensor:
    """x_hat of `local.local_mean` for float32 x (N, C, H, W), y (B, C, H, W), sigma (B,), and
    `local.groups`."""
    (B, C, H, W), n = y.shape, len(x)
    x, y, rate = x.contiguous(), y.contiguous(), (0.5 / sigma.double() ** 2).float().contiguous()
    centre = x.double().mean((0, 2, 3)).float()
    x_hat = torch.empty(B, C, H * W, device=y.device)
    multiprocessors = (
        torch.cuda.get_device_properties(y.device).multi_processor_count if y.is_cuda else 1
    )
    for here, there in groups:
        here, there = here.contiguous(), None if there is None else there.contiguous()
        entries = n if there is None else n * len(there)
        across = triton.cdiv(len(here), BQ) * B
        # fill the whole GPU
        splits = max(1, min(triton.cdiv(entries, BK), 4 * multiprocessors // across + 1))
        best, total = (torch.empty(splits, B, len(here), device=y.device) for _ in range(2))
        mean = torch.empty(splits, B, C, len(here), device=y.device)
        _patch_mean[triton.cdiv(len(here), BQ), splits, B](
            x, y, rate, centre, here, here if there is None else there, best, total, mean,
            len(here), 1 if there is None else len(there), n, H, W, triton.cdiv(entries, splits),
            C=C, CHANNELS=triton.next_power_of_2(C), REACH=reach, CIRCULAR=circular, SAME=there is None, BQ=BQ, BK=BK,
        )  # fmt: skip
        # each split's sums are relative to its own largest logit
        part = torch.exp(best - best.amax(0))
        share = (part[:, :, None] * mean).sum(0) / (part * total).sum(0)[:, None]
        x_hat[:, :, here] = share + centre[:, None]
    return x_hat.view(B, C, H, W)


@triton.jit
def _patch_mean(
    x, y, rate, centre, here, there, best, total, mean, queries, places, n, H, W, each,
    C: tl.constexpr, CHANNELS: tl.constexpr, REACH: tl.constexpr, CIRCULAR: tl.constexpr, SAME: tl.constexpr,
    BQ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    at, split, batch = tl.program_id(0) * BQ + tl.arange(0, BQ), tl.program_id(1), tl.program_id(2)
    q = tl.load(here + at, mask=at < queries, other=0)
    y += batch * C * H * W
    precision = tl.load(rate + batch)
    high, weights = tl.full((BQ,), -1e38, tl.float32), tl.zeros((BQ,), tl.float32)
    sums = tl.zeros((BQ, CHANNELS), tl.float32)
    first, end = split * each, tl.minimum(split * each + each, n * places)
    for start in range(first, end, BK):
        entry = start + tl.arange(0, BK)
        valid = entry < end
        image = (entry // places).to(tl.int64)[None, :] * (C * H * W)  # N C H W passes 2^31
        if SAME:  # the patch of every image at the query's own place
            u = q[:, None] + tl.zeros((1, BK), q.dtype)
        else:
            u = tl.load(there + entry % places, mask=valid, other=0)[None, :]
        distance = tl.zeros((BQ, BK), tl.float32)
        for a in range(-REACH, REACH + 1):
            row = tl.zeros((BQ, BK), tl.float32)
            for b in range(-REACH, REACH + 1):
                i, j, k, m = q // W + a, q % W + b, u // W + a, u % W + b
                if CIRCULAR:
                    i, j, k, m = (i + H) % H, (j + W) % W, (k + H) % H, (m + W) % W
                seen = (i >= 0) & (i < H) & (j >= 0) & (j < W)
                exists = (k >= 0) & (k < H) & (m >= 0) & (m < W) & valid[None, :]
                for c in tl.static_range(C):
                    window = tl.load(y + c * H * W + i * W + j, mask=seen, other=0)
                    patch = tl.load(x + image + c * H * W + k * W + m, mask=exists, other=0)
                    difference = tl.where(seen[:, None], window[:, None] - patch, 0.0)
                    row += difference * difference
            distance += row
        logit = tl.where(valid[None, :], -precision * distance, float("-inf"))
        higher = tl.maximum(high, tl.max(logit, axis=1))
        w = tl.exp(logit - higher[:, None])
        scale = tl.exp(high - higher)
        high, weights = higher, weights * scale + tl.sum(w, axis=1)
        sums *= scale[:, None]
        for c in tl.static_range(C):
            value = tl.load(x + image + c * H * W + u, mask=valid[None, :], other=0) - tl.load(
                centre + c
            )
            sums += tl.sum(w * value, axis=1)[:, None] * (tl.arange(0, CHANNELS) == c)[None, :]
    out = (split * tl.num_programs(2) + batch) * queries + at
    tl.store(best + out, high, mask=at < queries)
    tl.store(total + out, weights, mask=at < queries)
    channel = tl.arange(0, CHANNELS)
    to = ((split * tl.num_programs(2) + batch) * C + channel[None, :]) * queries + at[:, None]
    tl.store(mean + to, sums, mask=(at < queries)[:, None] & (channel < C)[None, :])
