"""Posterior means in one to three dimensions, with their covariance: fused loops over all pairs, in
float64."""

from concurrent.futures import ThreadPoolExecutor
from ctypes import c_int, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import widened
from .native import has_triton, library

PAIRS = 2**24  # pairs of query and point at a time in the torch path: 128 MB


class PlanePosterior(NamedTuple):
    """Posterior of queries (B, d), all float64."""

    mean: Tensor  # (B, d)
    covariance: Tensor  # (B, d, d)
    log_normaliser: Tensor  # (B,): log sum_i exp( -|y - x_i|^2 / 2 sigma^2 )
    neighbours: Tensor  # (B,): 1 / sum_i w_i^2


def implementation(device: torch.device) -> str:
    """Which code runs on this device: "Triton", "C", or "torch" where there is neither GPU nor
    compiler."""
    if device.type == "cuda" and has_triton():
        return "Triton"
    return "C" if device.type == "cpu" and library("plane") else "torch"


def plane_posterior(x: Tensor, y: Tensor, sigma: Tensor) -> PlanePosterior:
    """Posterior mean and covariance for points x (N, d), queries y (B, d), sigma (B,); d from 1 to
    3.

    Differences, exponents and sums are float64, so that neither a small sigma nor far queries cost
    digits. The covariance is sum_i w_i x_i x_i^T less the mean's square, both about the centre of
    the points.
    """
    centre = widened(x).mean(0)
    x, y, rate = widened(x) - centre, widened(y) - centre, 0.5 / sigma**2
    moments = {"C": _c, "torch": _torch, "Triton": _triton}[implementation(x.device)](x, y, rate)
    best, total, squares, first, second = moments.split(
        [1, 1, 1, x.shape[1], moments.shape[1] - 3 - x.shape[1]], dim=1
    )
    mean = first / total
    i, j = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    covariance = x.new_empty(len(y), x.shape[1], x.shape[1])
    covariance[:, i, j] = covariance[:, j, i] = second / total - mean[:, i] * mean[:, j]
    return PlanePosterior(
        mean + centre, covariance, (best + total.log())[:, 0], (total**2 / squares)[:, 0]
    )


# Each path returns, for every query, max l, sum w, sum w^2, sum w x and sum w x x^T (upper half),
# with l_i = -|y - x_i|^2 rate and w_i = exp(l_i - max l).


def _c(x: Tensor, y: Tensor, rate: Tensor) -> Tensor:
    (n, d), loop = x.shape, library("plane").plane  # type: ignore[union-attr]
    points = x.T.contiguous()

    def part(queries: Tensor, rates: Tensor) -> Tensor:
        queries, rates = queries.T.contiguous(), rates.contiguous()
        scratch, out = (
            x.new_empty(n + n // 256 + 1),
            x.new_empty(len(rates), 3 + d + d * (d + 1) // 2),
        )
        address = [c_void_p(t.data_ptr()) for t in (points, queries, rates, scratch, out)]
        loop(
            c_int(d),
            address[0],
            c_int64(n),
            address[1],
            address[2],
            c_int64(len(rates)),
            address[3],
            address[4],
        )
        return out

    size = max(1024, -(-len(y) // torch.get_num_threads()))
    if len(y) <= size:
        return part(y, rate)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # ctypes lets the other threads run
        return torch.cat(list(pool.map(part, y.split(size), rate.split(size))))


def _torch(x: Tensor, y: Tensor, rate: Tensor) -> Tensor:
    i, j = torch.triu_indices(x.shape[1], x.shape[1], device=x.device)
    features = torch.cat([torch.ones_like(x[:, :1]), x, x[:, i] * x[:, j]], dim=1)
    parts = []
    size = max(1, PAIRS // len(x))
    for q, r in zip(y.split(size), rate.split(size), strict=True):
        logits = -sum((q[:, k, None] - x[:, k]).square() for k in range(x.shape[1])) * r[:, None]
        best = logits.amax(1, keepdim=True)
        w = (logits - best).exp_()
        sums = w @ features
        parts.append(
            torch.cat([best, sums[:, :1], w.square().sum(1, keepdim=True), sums[:, 1:]], dim=1)
        )
    return torch.cat(parts)


def _triton(x: Tensor, y: Tensor, rate: Tensor) -> Tensor:
    from .posterior_triton import plane_moments

    return plane_moments(x, y, rate)
