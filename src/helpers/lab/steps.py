"""Training in the reader's browser: the networks, their start and the batches that page and Python
share. `helpers.lab.graphs` has the steps."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..checks import checked_points, positive_int
from ..denoisers.base import Denoiser
from ..denoisers.mlp import ACTIVATIONS
from ..noise import normal, threefry

LOW, HIGH = 0.03, 8.0  # the levels of training, log-uniform
DEEPEST = 8


class Layers(Denoiser):
    r"""A small network of the plane, D(y, sigma) = a y + b F(c y, t), in one of four forms:

        hears, skip:  a = s^2 / (s^2 + sigma^2), b = s sigma / r, c = 1 / r, t = log(sigma) / 4,
                      r = sqrt(s^2 + sigma^2), s = data_std (Karras et al. 2022, table 1)
        hears alone:  a = 0, b = 1, c = 1 / r, t = log(sigma) / 4
        skip alone:   a = b = c = 1, t = 0
        neither:      a = t = 0, b = c = 1

    F has hidden layers of any widths, at most eight, one of them narrow if you like: without the
    skip every answer then lies on the image of the layers after it. With a degree k and no widths F
    is a polynomial: linear in the Hermite polynomials of its first two arguments to that degree.
    The weights are `start`'s.
    """

    small = {"widths": (8,)}
    event_shape = (2,)

    def __init__(
        self,
        widths: tuple[int, ...] = (),
        activation: str = "silu",
        degree: int = 0,
        hears: bool = True,
        skip: bool = True,
        data_std: float = 1.0,
        seed: int = 0,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation is {activation!r}: choose from {', '.join(ACTIVATIONS)}")
        if bool(widths) == bool(degree) or len(widths) > DEEPEST:
            raise ValueError(
                f"widths {widths}, degree {degree}: pass one to eight widths, or a degree"
            )
        self.degree, self.activation, self.data_std = degree, activation, data_std
        self.hears, self.skip = hears, skip
        first = len(exponents(positive_int("degree", degree))) if degree else 3
        sizes = [first, *(positive_int("a width", w) for w in widths), 2]
        linear = [
            nn.utils.skip_init(nn.Linear, a, b) for a, b in zip(sizes, sizes[1:], strict=False)
        ]
        hidden = [m for layer in linear[:-1] for m in (layer, ACTIVATIONS[activation]())]
        self.network = nn.Sequential(*hidden, linear[-1])
        start(self, seed)

    def coefficients(self, sigma: Tensor) -> tuple[Tensor, ...]:
        """a, b, c and t at levels of noise, each of their shape."""
        s, one, none = self.data_std, torch.ones_like(sigma), torch.zeros_like(sigma)
        r = (s**2 + sigma**2).sqrt()
        c, t = (1 / r, sigma.log() / 4) if self.hears else (one, none)
        if not self.skip:
            return none, one, c, t
        return (s**2 / r**2, s * sigma / r, c, t) if self.hears else (one, one, c, t)

    def formed(self, y: Tensor, a: Tensor, b: Tensor, c: Tensor, t: Tensor) -> Tensor:
        """a y + b F(c y, t), coefficients (batch or 1, 1)."""
        z = torch.cat([c * y, t.expand(y.shape[0], 1)], dim=1).to(self.network[0].weight.dtype)
        z = hermite(z[:, :2], self.degree) if self.degree else z
        return a * y + b * self.network(z).to(y)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return self.formed(y, *(v.view(-1, 1) for v in self.coefficients(sigma)))


class Levels(Denoiser):
    """A network for each of `count` levels, evenly spaced in log sigma; between two levels both, in
    parts that are linear in log sigma. A step trains one of them, in turns, at its level alone."""

    small = {"count": 3, "widths": (8,)}
    event_shape = (2,)

    def __init__(self, count: int, seed: int = 0, **options: Any):
        super().__init__()
        self.networks = nn.ModuleList(
            Layers(**options) for _ in range(positive_int("count", count))
        )
        self.data_std = self.networks[0].data_std
        start(self, seed)

    def sigma(self, i: int) -> float:
        return LOW * (HIGH / LOW) ** (i / max(1, len(self.networks) - 1))

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        last = len(self.networks) - 1
        at = (last * (sigma / LOW).log() / math.log(HIGH / LOW)).clamp(0, last).view(-1, 1)
        found = torch.zeros_like(y)
        for i, network in enumerate(self.networks):
            found = found + (1 - (at - i).abs()).clamp(min=0) * network.estimate(y, sigma)
        return found


def exponents(degree: int) -> list[tuple[int, int]]:
    return [(n - j, j) for n in range(1, degree + 1) for j in range(n + 1)]


def hermite(z: Tensor, degree: int) -> Tensor:
    """He_i(z_1) He_j(z_2) / sqrt(i! j!) for 1 <= i + j <= degree: orthonormal for normal z."""
    he = [torch.ones_like(z), z]
    for n in range(1, degree):
        he.append((z * he[n] - math.sqrt(n) * he[n - 1]) / math.sqrt(n + 1))
    return torch.stack([he[i][:, 0] * he[j][:, 1] for i, j in exponents(degree)], 1)


def uniform(rows: int, seed: int, stream: int) -> Tensor:
    """Independent numbers, uniform in (0, 1), (rows, 2) float64: bits that `noise.normal` of the same
    seed and stream does not use. static/train.js has the same."""
    words = threefry((seed, stream), np.arange(rows, dtype=np.uint32), high=1)
    return torch.from_numpy((np.stack(words, 1) + 0.5) / 2**32)


def start(denoiser: nn.Module, seed: int = 0) -> None:
    """Fills the linear layers, in place: uniform in (-b, b), b = 1 / sqrt(inputs), which is torch's
    own law, with the same bits in the browser."""
    layers = [m for m in denoiser.modules() if isinstance(m, nn.Linear)]
    count = sum(p.numel() for m in layers for p in m.parameters())
    u = 2 * uniform((count + 1) // 2, seed, 0).flatten()[:count] - 1
    with torch.no_grad():
        for m in layers:
            for p in m.parameters():
                p.copy_(u[: p.numel()].view_as(p) / math.sqrt(m.in_features))
                u = u[p.numel() :]


def batch(points: Tensor, size: int, step: int, seed: int = 0, sigma: float = 0.0) -> Tensor:
    """What a step takes, (size, 2 d + 1) float64: rows x of points (N, d), normal noise, and the
    level: `sigma`, or where that is 0 log-uniform from LOW to HIGH.

    Drawn from `helpers.noise`, stream `step`, from 1: page and Python train on the same batches.
    """
    points = checked_points(points)
    u = uniform(positive_int("size", size), seed, positive_int("step", step))
    x = points[(u[:, 0] * len(points)).long()].double()
    levels = LOW * (HIGH / LOW) ** u[:, 1:] if not sigma else torch.full_like(u[:, 1:], sigma)
    return torch.cat([x, normal(size, x.shape[1], seed=seed, stream=step), levels], 1)


def rows(denoiser: Layers, drawn: Tensor) -> Tensor:
    """What the graph of a step takes, (size, 9) float32: x, y = x + sigma n, the coefficients a, b, c
    and t at sigma, and the weight (s^2 + sigma^2) / (s sigma)^2 of the loss "edm"."""
    x, n, sigma = drawn[:, :2], drawn[:, 2:4], drawn[:, 4:]
    s = denoiser.data_std
    weight = (s**2 + sigma**2) / (s * sigma) ** 2
    return torch.cat([x, x + sigma * n, *denoiser.coefficients(sigma), weight], 1).float()
