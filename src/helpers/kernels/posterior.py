r"""Posterior mean of a training set: exact at every noise level, streamed in memory O(B D + chunk),
never O(N D).

This is attention with queries y and with keys and values x_i, and is computed as flash attention
is: chunk by chunk, with a running maximum and running sums. Two things differ. The head dimension
is that of an image, so the accumulator (B x D) outgrows every cache, and chunks are cut to fit. And
the logits are divided by sigma^2, down to 1e-5, where the rounding of a long float32 product picks
the wrong neighbour. So the rounding error of each result is estimated from its own weights, and
where it is too large the points that matter are summed again in float64.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import accumulate_dtype, checked_sigma, widened
from . import plane
from .native import has_triton
from .summary import NARROW, Summary, rows_in_chunk, summarise

LOGITS = 2**25  # logits kept at a time: queries come in groups of LOGITS / N
TOLERANCE = 6e-6  # accepted estimate of float32's error, in units of the training set's radius


class Posterior(NamedTuple):
    """What a training set says about noisy points y (B, *event)."""

    mean: Tensor  # (B, *event), dtype of y: D(y, sigma)
    log_normaliser: Tensor  # (B,) float64: log sum_i exp( -|y - x_i|^2 / 2 sigma^2 )
    # (B,) float64: effective number of training points, 1 / sum_i w_i^2, between 1 and N
    neighbours: Tensor
    weights: Tensor  # (B, top) float64: the largest posterior weights, descending
    indices: Tensor  # (B, top) int64: the training points that have them


def posterior_mean(
    points: Tensor, y: Tensor, sigma: float | Tensor, top: int = 0, summary: Summary | None = None
) -> Posterior:
    r"""D(y, sigma) = sum_i w_i x_i with w = softmax_i( -|y - x_i|^2 / 2 sigma^2 ), and what else
    the weights say.

    points (N, *event) of any real dtype, also uint8 or a memory map under `torch.from_numpy`:
    chunks are converted and centred on the way. y (B, *event) floating and sigma, a float or (B,),
    in the units of points. `top` asks for that many largest weights; `summary` saves two of three
    passes over the points.

    Error for float32 y, at any sigma: mean at most 1e-5 of the training set's radius,
    log_normaliser 1e-3. float64 y is computed in float64, half precision in float32 and rounded at
    the end; on a device without float64 the rounding of float32 stays, which at small sigma takes
    the wrong neighbour. Rows do not influence each other. Gradients flow to y, sigma and points.
    `implementation` tells which code runs.
    Source: proposition P0; running maximum and sum: Milakov & Gimelshein 2018, Dao et al. 2022.
    Raises ValueError for shapes or devices that do not fit, values not finite, sigma <= 0, top not
    in 0...N, and a summary of other points.

    >>> found = posterior_mean(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5]]), 0.2)
    >>> found.mean.round(decimals=3), found.neighbours.round(decimals=3)
    (tensor([[0.5000]]), tensor([2.], dtype=torch.float64))
    """
    sigma = _checked(points, y, sigma, top)
    x, flat = points.detach().flatten(1), y.detach().flatten(1)
    summary = summary or summarise(x)
    if len(summary.half_squares) != len(x) or len(summary.centre) != x.shape[1]:
        known = f"({len(summary.half_squares)}, {len(summary.centre)})"
        raise ValueError(
            f"summary is of points {known}, points are {tuple(x.shape)}: call summarise(points) again"
        )
    size = _queries(x)
    parts = [
        _group(x, q, s, summary, top)
        for q, s in zip(flat.split(size), sigma.detach().split(size), strict=True)
    ]
    result = Posterior(*(torch.cat(field) for field in zip(*parts, strict=True)))
    mean = result.mean.to(y.dtype).view_as(y)
    tangent = any(
        torch.autograd.forward_ad.unpack_dual(t).tangent is not None for t in (points, y, sigma)
    )
    if tangent or torch.is_grad_enabled() and (points.requires_grad or sigma.requires_grad):
        centre = summary.centre.view(points.shape[1:])
        mean = (plain_mean(points - centre, y - centre, sigma) + centre).to(y.dtype)
    elif torch.is_grad_enabled() and y.requires_grad:
        mean = _WithGradient.apply(y, mean, points, sigma, summary)
    return result._replace(mean=mean)


def posterior_mean_and_jacobian(
    points: Tensor, y: Tensor, sigma: float | Tensor
) -> tuple[Tensor, Tensor]:
    r"""D(y, sigma), (B, d), and its Jacobian Cov(x | y) / sigma^2, (B, d, d), for points (N, d)
    with d from 1 to 3.

    Cov(x | y) = sum_i w_i x_i x_i^T - D D^T (second-order Miyasawa). Errors, units and raises as in
    `posterior_mean`. Proved: `thm-covariance`, `prop-span`.
    """
    sigma = _checked(points, y, sigma, 0)
    if points.ndim != 2 or points.shape[1] > 3:
        raise ValueError(
            f"points have shape {tuple(points.shape)}: pass (N, d) with d from 1 to 3, or use helpers.jacobian"
        )
    result = plane.plane_posterior(points, y, sigma)
    return result.mean.to(y), (result.covariance / sigma[:, None, None] ** 2).to(y)


def plain_mean(points: Tensor, y: Tensor, sigma: Tensor) -> Tensor:
    """The same mean as one expression with B x N logits in float64: for exported graphs, function
    transforms and second derivatives, where no rounding error can be looked after. Points should be
    centred, sigma is (B,)."""
    x, flat = widened(points.flatten(1)), widened(y.flatten(1))
    if x.shape[1] <= 3:  # differences are cheap here, and keep the digits that a small sigma needs
        negative = -0.5 * sum((flat[:, i, None] - x[:, i]).square() for i in range(x.shape[1]))
    # |y - x|^2 less |y|^2, which the softmax ignores: one product instead of (B, N, D) numbers
    else:
        negative = flat @ x.T - 0.5 * x.square().sum(1)
    weights = torch.softmax(negative / widened(sigma)[:, None] ** 2, dim=1)
    return (weights.to(y.dtype) @ points.flatten(1).to(y)).view_as(y)


def implementation(points: Tensor) -> str:
    """Which code computes the posterior mean of these points: "C", "Triton" or "torch"."""
    if math.prod(points.shape[1:]) <= 3:
        return plane.implementation(points.device)
    return "Triton" if _triton(points) else "torch"


# One group of queries: float32, then float64 where that is not enough -----------------------------


class Sums(NamedTuple):
    """Sums over points for each query; the weights w are relative to the largest, x is centred."""

    logits: Tensor  # (n, B)
    best: Tensor  # (B,): their maximum
    total: Tensor  # (B,): sum of w
    squares: Tensor  # (B,): sum of w^2
    halves: Tensor  # (B,): sum of w |x|^2 / 2
    weighted: Tensor  # (B, D): sum of w x
    moments: Tensor  # (B, D): sum of w (x . g) x, where a g was given


def _group(x: Tensor, y: Tensor, sigma: Tensor, summary: Summary, top: int) -> Posterior:
    if x.shape[1] <= 3 and top == 0:
        result = plane.plane_posterior(x, y, sigma)
        empty = result.mean.new_empty(len(y), 0)
        return Posterior(result.mean, result.log_normaliser, result.neighbours, empty, empty.long())
    y = y if y.dtype == torch.float64 else y.float()
    exact = x.shape[1] <= 3 or y.dtype == torch.float64  # in few dimensions float64 is cheap
    sums = _stream(x, None, widened(y) if exact else y, sigma, summary)
    relative = sums.logits.sub_(sums.best)
    mean, total, squares = (
        sums.weighted / sums.total[:, None],
        widened(sums.total),
        widened(sums.squares),
    )
    if not exact:
        reach = float(summary.centre.norm()) if _triton(x) and x.dtype in NARROW else 0.0
        again, rows = _in_doubt(sums, mean, y, sigma, summary, reach)
        if len(again):
            redone = _stream(x, rows, widened(y[again]), sigma[again], summary)
            mean[again] = (redone.weighted / redone.total[:, None]).to(mean)
            total[again], squares[again] = redone.total, redone.squares
            relative[rows[:, None], again] = (redone.logits - redone.best).to(relative)
    # the exponent of the best point from the difference itself: the logits lack |y|^2 and their own
    # digits
    gap = (widened(y) - widened(x[relative.argmax(0)])).square().sum(1)
    largest, indices = relative.topk(top, dim=0)
    return Posterior(
        mean + summary.centre.to(mean),
        total.log() - gap / (2 * sigma**2),
        total**2 / squares,
        (widened(largest).exp() / total).T,
        indices.T,
    )


def _in_doubt(
    sums: Sums, mean: Tensor, y: Tensor, sigma: Tensor, summary: Summary, uncentred: float
) -> tuple[Tensor, Tensor]:
    """Queries whose float32 result may be off by more than TOLERANCE, and the points that matter to
    any of them.

    An error e of the logits moves the mean by sum_i w_i e_i (x_i - D), about e spread /
    sqrt(neighbours). In units of 2^-24, e is a quarter of |y| |x| for the noise in the product, and
    three |x|^2 where all terms have one sign; points that were not centred are longer by
    `uncentred`.
    """
    unit = torch.finfo(torch.float32).eps / 2
    reach = math.sqrt(2 * float(summary.half_squares.max()))
    offset = (y - summary.centre).norm(dim=1)
    error = unit * (0.25 * offset * (reach + uncentred) + 3 * reach**2) / sigma**2
    square = 2 * sums.halves / sums.total - mean.square().sum(1)
    spread = square.clamp(min=8 * unit * reach**2).sqrt()  # of less, float32 cannot tell
    doubt = error * spread * sums.squares.sqrt() / sums.total > TOLERANCE * summary.radius
    window = (_far(y.dtype) + 8 * error).to(sums.logits)
    # when the logits are wrong so are the weights, and only a point without rivals is sure
    for part in (error > 3e-4).nonzero().flatten().split(64):
        doubt[part] = (sums.logits[:, part] > -window[part]).sum(0) > 1
    again = doubt.nonzero().flatten()
    matters = torch.zeros(len(sums.logits), dtype=torch.bool, device=y.device)
    for part in again.split(64):
        matters |= (sums.logits[:, part] > -window[part]).any(1)
    return again, matters.nonzero().flatten()


def _stream(
    x: Tensor,
    rows: Tensor | None,
    y: Tensor,
    sigma: Tensor,
    summary: Summary,
    g: Tensor | None = None,
) -> Sums:
    """The sums over the points x[rows], or all of them, for queries y (B, D) and in their dtype:
    one pass over x."""
    if rows is None and g is None and y.dtype == torch.float32 and _triton(x):
        from .posterior_triton import two_pass

        return Sums(*two_pass(x, y, sigma, summary), moments=y[:0])
    n = len(x) if rows is None else len(rows)
    wide = torch.promote_types(x.dtype, y.dtype)  # centred before it is rounded
    centre, centred = summary.centre.to(wide), not bool(summary.centre.any())
    rows_at_once = rows_in_chunk(x) if y.dtype == torch.float32 else max(1, rows_in_chunk(x) // 8)
    buffer = y.new_empty(min(n, rows_at_once), x.shape[1], dtype=wide)
    y, rate = (y - centre).to(y.dtype), sigma.to(y) ** -2
    columns = y.T.contiguous()
    logits, best = y.new_empty(n, len(y)), y.new_full((len(y),), torch.finfo(y.dtype).min)
    total, squares, halves = y.new_zeros(3, len(y))
    weighted, moments = torch.zeros_like(y), torch.zeros_like(y[:0] if g is None else y)
    for start in range(0, n, rows_at_once):
        here = slice(start, start + rows_at_once)
        c = x[here] if rows is None else x[rows[here]]
        if not centred:
            c = torch.sub(c, centre, out=buffer[: len(c)])
        elif c.dtype != wide:
            c = buffer[: len(c)].copy_(c)
        c = c.to(y.dtype)
        half = (
            summary.half_squares[here].to(y)
            if y.dtype == torch.float32
            else torch.linalg.vecdot(c, c) / 2
        )
        part = torch.mm(c, columns, out=logits[here]).sub_(half[:, None]).mul_(rate)
        top = torch.maximum(best, part.amax(0))
        shrink, best = (best - top).exp_(), top
        # e^-80 instead of less: denormal numbers would be slow
        w = (part - best).clamp_(min=-80).exp_()
        total = total * shrink + w.sum(0)
        squares = squares * shrink**2 + w.square().sum(0)
        halves = halves * shrink + half @ w
        weighted *= shrink[:, None]
        if g is not None:
            moments = moments * shrink[:, None]  # new each time: a g that stands for many is added
        if bool((w > math.exp(-_far(y.dtype))).any()):
            weighted.addmm_(w.T.contiguous(), c)
            if g is not None:
                moments = moments + (w * (c @ g.T)).T @ c
    return Sums(logits, best, total, squares, halves, weighted, moments)


def _far(dtype: torch.dtype) -> float:
    """Logits this far below the largest belong to weights below eps^2, which no sum of a type's
    digits can feel."""
    return -2 * math.log(torch.finfo(dtype).eps)


def _queries(x: Tensor) -> int:
    """Queries in a group."""
    return max(1, LOGITS // len(x))


def _triton(x: Tensor) -> bool:
    return x.device.type == "cuda" and x.dtype != torch.float64 and has_triton()


class _WithGradient(torch.autograd.Function):
    """A mean already computed, with its derivative J^T g = sum_i w_i (x_i - D) ((x_i - D) . g) /
    sigma^2."""

    @staticmethod
    def forward(ctx, y, mean, points, sigma, summary):
        ctx.save_for_backward(y, points, sigma)
        ctx.summary, ctx.covariance = summary, None
        return mean.clone()

    @staticmethod
    def backward(ctx, g):
        y, points, sigma = ctx.saved_tensors
        if torch.is_grad_enabled():  # the derivative is to be differentiated
            centre = ctx.summary.centre.view(points.shape[1:])
            mean = plain_mean(points - centre, y - centre, sigma)
            return (
                torch.autograd.grad(mean, y, g.to(mean), create_graph=True)[0],
                None,
                None,
                None,
                None,
            )
        x, flat, g = points.flatten(1), y.flatten(1), widened(g.reshape(len(y), -1))
        if x.shape[1] <= 3:
            if ctx.covariance is None:  # a Jacobian asks once for each coordinate
                ctx.covariance = plane.plane_posterior(x, flat, sigma).covariance
            pulled = (ctx.covariance @ g[:, :, None])[:, :, 0]
        else:
            rows = torch.arange(len(y), device=y.device).split(_queries(x))
            pulled = torch.cat([_pull_back(x, flat[i], sigma[i], g[i], ctx.summary) for i in rows])
        pulled = pulled / sigma[:, None] ** 2
        return pulled.to(y).view_as(y), None, None, None, None


def _pull_back(x: Tensor, y: Tensor, sigma: Tensor, g: Tensor, summary: Summary) -> Tensor:
    """Cov(x | y) g, (B, D), from one pass over the points."""
    sums = _stream(x, None, widened(y), sigma, summary, g)
    mean = sums.weighted / sums.total[:, None]
    return sums.moments / sums.total[:, None] - mean * (mean * g).sum(1, keepdim=True)


def _checked(points: Tensor, y: Tensor, sigma: float | Tensor, top: int) -> Tensor:
    """sigma as (B,) in `accumulate_dtype`, after checking everything a caller may get wrong."""
    if not isinstance(points, Tensor) or points.is_complex() or points.dtype == torch.bool:
        kind = getattr(points, "dtype", type(points).__name__)
        raise ValueError(f"points are {kind}: pass a real tensor (N, *event)")
    if points.ndim < 2 or points.numel() == 0:
        raise ValueError(
            f"points have shape {tuple(points.shape)}: pass (N, *event), at least one training point"
        )
    checked_sigma(y, sigma, tuple(points.shape[1:]))
    if points.device != y.device:
        raise ValueError(
            f"points are on {points.device}, y is on {y.device}: move one of them, y.to(points.device)"
        )
    if isinstance(top, bool) or not 0 <= top <= len(points):
        raise ValueError(
            f"top is {top} with {len(points)} training points: choose 0 to {len(points)}"
        )
    # not rounded to y's dtype: the exponent is its inverse square
    return (
        torch.as_tensor(sigma, dtype=accumulate_dtype(y.device), device=y.device)
        .reshape(-1)
        .expand(len(y))
    )
