"""Posterior means of coordinates that each see the image through a mask of their own."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from ..checks import widened
from .local import ROOM, absorb, checked


def masked_mean(
    points: Tensor, y: Tensor, sigma: float | Tensor, masks: Tensor, composite: bool = False
) -> Tensor:
    r"""Estimate every coordinate p from the coordinates that its mask shows.

        x_hat_p = sum_i w_ip x_ip,   w_p = softmax_i( -sum_n m_pn (y_n - x_in)^2 / (2 sigma^2) ),

    the locality of Lukoianov et al. (NeurIPS 2025) with m from `wiener_masks`, normalised over all
    images at once (their code averages mini-batches, each normalised for itself). With `composite`,
    PSPC-Flex of Niedoba et al. (ICML 2025): x_hat_n = sum_p m_pn sum_i w_ip x_in / sum_p m_pn,
    whole masked estimates averaged where they overlap.

    points (N, *event), y (B, *event), sigma a float or (B,); event (C, H, W) or (H, W). masks (d,
    d) with d = C H W, or (H W, d) for masks shared by the channels of a pixel; entries >= 0,
    usually 0 or 1. Costs 2 N d^2 per query as one float64 product, and once more for all. Raises
    ValueError for other input, naming it and the remedy.
    """
    images, queries, level = checked(points, y, sigma)
    d, pixels = math.prod(images.shape[1:]), math.prod(images.shape[2:])
    if masks.ndim != 2 or masks.shape[1] != d or masks.shape[0] not in (pixels, d):
        raise ValueError(
            f"masks has shape {tuple(masks.shape)}: pass ({pixels}, {d}) or ({d}, {d}), a row per output"
        )
    m = widened(masks.to(y.device))
    if not bool((torch.isfinite(m) & (m >= 0)).all()):
        raise ValueError(
            "masks holds NaN, infinity or a number below 0: pass weights >= 0, usually 0 and 1"
        )
    if composite and not bool((m.sum(0) > 0).all()):
        lost = int((m.sum(0) == 0).nonzero()[0])
        raise ValueError(
            f"no mask shows coordinate {lost}: a composite needs each in at least one mask"
        )
    centre = widened(images).mean((0, 2, 3), keepdim=True)
    z, precision = (widened(queries) - centre).flatten(1), 0.5 / widened(level) ** 2

    def chunks() -> Iterator[Tensor]:
        return (
            (widened(part) - centre).flatten(1) for part in images.split(max(1, ROOM // (2 * d)))
        )

    def logits(x: Tensor) -> Iterator[Tensor]:  # (rows, images) for one query after the other
        squares = m @ (x**2).T
        return (precision[b] * ((2 * m * z[b]) @ x.T - squares) for b in range(len(y)))

    def at_output(x: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda w: torch.einsum("rn,ngr->rg", w, x.view(len(x), -1, len(m)))

    if len(y) == 0:
        return y.clone()
    states: list[tuple] = [()] * len(y)
    for x in chunks():
        states = [
            absorb(state, part, at_output(x)) for state, part in zip(states, logits(x), strict=True)
        ]
    if composite:
        rows = [torch.zeros_like(z[0])] * len(y)
        for x in chunks():
            for b, (part, (best, total, _)) in enumerate(zip(logits(x), states, strict=True)):
                rows[b] = rows[b] + (((torch.exp(part - best) / total).T @ m) * x).sum(0) / m.sum(0)
    else:
        rows = [(mean / total).T.reshape(-1) for _, total, mean in states]
    return (torch.stack(rows).view_as(queries) + centre).to(y.dtype).view_as(y)


def wiener_masks(covariance: Tensor, sigma: float, threshold: float = 0.02) -> Tensor:
    r"""The masks of Lukoianov et al. (NeurIPS 2025): where the data's Wiener filter is large.

        W = S (S + sigma^2 I)^-1,
        m_pn = 1 where |W_np / W_nn| >= threshold * max |W / diag W|, else 0.

    covariance S (d, d) of the flattened images; threshold .005 (MNIST, Fashion-MNIST), .05
    (CIFAR-10) or .02 (faces) in the released code. A coordinate that hardly varies, W_nn <= 1e-6,
    belongs to no mask; its own mask is empty, so that its estimate is its mean. The largest ratio
    belongs to a coordinate that varies little beside one that it follows. Result (d, d), the dtype
    of `covariance`. Raises ValueError for a covariance that is not square, a sigma that is not
    positive and finite, and a threshold outside (0, 1].
    """
    if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
        raise ValueError(
            f"covariance has shape {tuple(covariance.shape)}: pass (d, d), for example torch.cov(x.T)"
        )
    if not (0 < sigma < math.inf and 0 < threshold <= 1):
        raise ValueError(
            f"sigma is {sigma}, threshold {threshold}: take 0 < sigma < inf and 0 < threshold <= 1"
        )
    values, vectors = torch.linalg.eigh(covariance.double())
    values = values.clamp(min=0.0)  # rounding below 0
    wiener = (vectors * (values / (values + sigma**2))) @ vectors.T
    varies = wiener.diagonal() > 1e-6
    ratio = torch.where(varies[:, None], wiener / wiener.diagonal()[:, None], 0.0).abs()
    return ((ratio >= threshold * ratio.max()).T & varies).to(covariance.dtype)
