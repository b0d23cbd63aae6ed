"""What thresholds cost, exactly, against what an oracle reaches in the same orthonormal basis, and
both as a figure.

Donoho & Johnstone, *Ideal spatial adaptation by wavelet shrinkage*, Biometrika 81 (1994). The
oracle's own error is `geometry.oracle_risk`.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ... import geometry, plots
from ...checks import checked_points, positive_int

KINDS = ("soft", "hard")


def universal(n: int) -> float:
    """The universal threshold of n coefficients, in noise levels: sqrt(2 ln n) (Donoho & Johnstone
    1994). Proved: `thm-universal`."""
    return math.sqrt(2 * math.log(positive_int("n", n)))


def shrunk(c: Tensor, least: float | Tensor, kind: str = "soft") -> Tensor:
    """Coefficients after a threshold, shape of c: hard keeps c where |c| > least; soft also takes
    `least` off it."""
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: choose one of {', '.join(KINDS)}")
    return (
        torch.where(c.abs() > least, c, 0)
        if kind == "hard"
        else c.sign() * (c.abs() - least).clamp(min=0)
    )


def threshold_risk(
    coefficients: Tensor, sigma: float, threshold: float, kind: str = "soft"
) -> Tensor:
    r"""Expected squared error of thresholding at `threshold` noise levels, for each row (n,
    *event), (n,), float64.

    Exact. With m = c / sigma, t the threshold, P the chance that |m + z| <= t for a standard normal
    z, a coefficient costs sigma^2 times

        soft   1 + t^2 + (m^2 - 1 - t^2) P - (t - m) phi(t + m) - (t + m) phi(t - m),
        hard   m^2 P + Q(t - m) + (t - m) phi(t - m) + Q(t + m) + (t + m) phi(t + m),

    phi the normal density and Q its upper tail. coefficients: of the clean image, in any
    orthonormal basis, in the units of sigma. Raises ValueError for a threshold that is negative or
    not finite, and as `geometry.risk`. Proved: `thm-universal`.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: choose one of {', '.join(KINDS)}")
    if not 0 <= threshold < math.inf:
        raise ValueError(f"threshold is {threshold}: give it in noise levels, from 0 on")
    geometry.oracle_risk(coefficients[:1], sigma)  # checks both
    m, t = coefficients.double().abs() / sigma, torch.tensor(threshold, dtype=torch.float64)
    normal = torch.distributions.Normal(*torch.tensor([0.0, 1.0], dtype=torch.float64))
    near, far = normal.cdf(m - t), normal.cdf(-m - t)  # the chances to lie above t and below -t
    at_near, at_far = normal.log_prob(t - m).exp(), normal.log_prob(t + m).exp()
    if kind == "soft":
        inside = (1 - near - far) * (m**2 - 1 - t**2)
        cost = 1 + t**2 + inside - (t - m) * at_far - (t + m) * at_near
    else:
        cost = m**2 * (1 - near - far) + near + far + (t - m) * at_near + (t + m) * at_far
    return sigma**2 * cost.flatten(1).sum(1)


def approximation(coefficients: Tensor) -> Tensor:
    """Squared error ||x - x_M||^2 of the best M terms, M = 0 to all, of each row (n, *event), (n,
    size + 1). Proved: `thm-terms`."""
    c2 = checked_points(coefficients, "coefficients").double().square().flatten(1)
    tail = c2.sort(1).values.cumsum(1).flip(1)  # what is left over, from all to the smallest alone
    return torch.cat([tail, torch.zeros_like(tail[:, :1])], 1)


def live(coefficients: Tensor, sigmas: Sequence[float], points: int = 40) -> list[list[dict]]:
    """Frames for `plots.Slider`, one a noise level: decibels that one image, coefficients (1, N),
    gains over its noise.

    -10 log10 of an expected squared error over N sigma^2. On Plotly's axes 1, against M: if the
    best M terms were free of noise, if nothing were left over, and as it is; on axes 2, against the
    threshold in noise levels: the error `threshold_risk`. On both that of the oracle, and the band
    of 3 dB from m to m / 2 in which it lies.
    """
    coefficients, size, frames = coefficients.cpu(), coefficients[0].numel(), []
    kept = torch.logspace(0, math.log10(size), points).round().long().unique()
    left_over, ts = approximation(coefficients)[0][kept], torch.linspace(0, 5, points + 1)
    for sigma in sigmas:

        def gain(error: Tensor, noise: float = size * sigma**2) -> Tensor:
            return -10 * (error / noise).log10()

        m = coefficients.double().square().clamp(max=sigma**2).sum()
        soft, hard = (
            torch.cat([threshold_risk(coefficients, sigma, float(t), k) for t in ts]) for k in KINDS
        )
        left = [
            plots.line_trace(kept, gain(left_over), "left over", "#5a1fb8", "dash"),
            plots.line_trace(kept, gain(kept * sigma**2), "noise kept", "#e9a23b", "dash"),
            plots.line_trace(kept, gain(left_over + kept * sigma**2), "M terms", plots.TRAINING),
        ]
        right = [
            plots.line_trace(ts, gain(soft), "soft", plots.TARGET),
            plots.line_trace(ts, gain(hard), "hard", plots.GENERATED),
            plots.line_trace([universal(size)] * 2, [-6, 24], "universal", "#6c757d", "dot"),
        ]
        bounds = {
            "oracle": (geometry.oracle_risk(coefficients, sigma), None),
            "m": (m, "dot"),
            "m / 2": (m / 2, "dot"),
        }
        for part, ends in ((left, [1, size]), (right, [0, 5])):
            for name, (error, dash) in bounds.items():
                line = plots.line_trace(ends, [float(gain(error))] * 2, name, plots.ACCENT, dash)
                part.append({**line, "showlegend": part is left and name == "oracle"})
        frames.append(left + [{**trace, "xaxis": "x2", "yaxis": "y2"} for trace in right])
    return frames


def panels() -> dict:
    """Plotly's layout of the two panels of `live`: `plots.Slider(live(...), ..., **panels())`."""
    gain = {"range": [-6, 24], "zeroline": False}
    return {
        "xaxis": {"type": "log", "domain": [0, 0.46], "title": {"text": "M"}},
        "yaxis": {**gain, "title": {"text": "gain over the noisy image, dB"}},
        "xaxis2": {"domain": [0.56, 1], "anchor": "y2", "title": {"text": "threshold over sigma"}},
        "yaxis2": {**gain, "anchor": "x2"},
        "legend": {"orientation": "h", "y": 1.2},
        "margin": {"l": 45, "r": 15, "t": 75, "b": 40},
        "height": 470,
    }
