"""A small network with a narrow middle for each level of noise."""

import torch
from torch import Tensor, nn

from ..checks import positive_int
from .base import Denoiser, nearest_level, per_level


class PerLevelMLP(Denoiser):
    """One small network per noise level, sizes d - h - m - h - d with leaky ReLU (slope .2), D =
    network(y / scale).

    The last layer is linear; scale = sqrt(data_std^2 + sigma^2) keeps the input of unit size. All
    levels live in one batched weight tensor and are trained together. Every sample lies on the
    m-dimensional image of the last decoder (P4f). Source: Levine & Weiss 2026, released code
    (2-64-1-64-2, one network per level).

    sigmas (L,) decreasing, as a schedule without its final 0; at another sigma the nearest level in
    log sigma answers. Proved: `prop-bottleneck-curve`.
    """

    def __init__(
        self,
        sigmas: Tensor,
        data_std: float = 1.0,
        width: int = 64,
        code: int = 1,
        dimension: int = 2,
        seed: int = 0,
    ):
        super().__init__()
        if sigmas.ndim != 1 or len(sigmas) == 0 or not bool((sigmas > 0).all()):
            last = [round(s, 4) for s in sigmas.flatten().tolist()[-6:]]
            raise ValueError(
                f"sigmas {last}: pass the positive levels of a schedule, schedule[:-1]"
            )
        if not data_std > 0:
            raise ValueError(
                f"data_std is {data_std}: pass the standard deviation of the data, a positive number"
            )
        self.event_shape, self.data_std = (dimension,), data_std
        self.register_buffer("sigmas", sigmas.float())
        h, m, g = (
            positive_int("width", width),
            positive_int("code", code),
            torch.Generator().manual_seed(seed),
        )
        sizes = [dimension, h, m, h, dimension]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for fan_in, fan_out in zip(sizes, sizes[1:], strict=False):
            bound = fan_in**-0.5  # torch's default for nn.Linear
            self.weights.append(
                bound * (2 * torch.rand(len(sigmas), fan_in, fan_out, generator=g) - 1)
            )
            self.biases.append(bound * (2 * torch.rand(len(sigmas), 1, fan_out, generator=g) - 1))

    def levels(self, y: Tensor) -> Tensor:
        """D at every level at once: y (L, batch, d) -> (L, batch, d), row l at sigmas[l]."""
        h = y / torch.sqrt(self.data_std**2 + self.sigmas.to(y) ** 2)[:, None, None]
        return self._layers(h, slice(None), y)

    def decode(self, code: Tensor, sigma: float) -> Tensor:
        """The decoder's image of codes (batch, m) at one level: the curve on which its samples lie."""
        level = nearest_level(self.sigmas, torch.as_tensor(sigma).to(code))
        return self._layers(nn.functional.leaky_relu(code, 0.2)[None], level[None], code, first=2)[
            0
        ]

    def _layers(self, h: Tensor, level: slice | Tensor, like: Tensor, first: int = 0) -> Tensor:
        last = len(self.weights) - 1
        for i in range(first, last + 1):
            h = torch.baddbmm(self.biases[i][level].to(like), h, self.weights[i][level].to(like))
            h = h if i == last else nn.functional.leaky_relu(h, 0.2)
        return h

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        return per_level(y, sigma, self._estimate)

    def _estimate(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        level = nearest_level(self.sigmas, torch.as_tensor(sigma).to(y))
        h = y / torch.sqrt(self.data_std**2 + self.sigmas[level].to(y) ** 2)
        return self._layers(h[None], level[None], y)[0]
