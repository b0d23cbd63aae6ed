"""A convolutional network through a narrow code: a bottleneck denoiser, and features by which
images are judged."""

import torch
from torch import Tensor, nn

from ...checks import checked_size
from ..base import Network, drawn_from


class Autoencoder(Network):
    r"""Denoising autoencoder (Vincent et al. 2008), blind: D(y) = g( e(y) ), a code e(y) of `code`
    numbers between.

    e: three 4x4 convolutions of stride 2 with c, 2c, 4c channels and SiLU, then a linear layer; g
    mirrors it. Every answer lies on the image of g, which has at most `code` dimensions
    (proposition P4f).

    y (batch, size, size), size a multiple of 8. Weights are drawn from `seed`.
    Proved: `prop-bottleneck-curve`.
    """

    small = {"size": 8, "code": 4, "channels": 2}

    def __init__(self, size: int, code: int = 64, channels: int = 8, seed: int = 0):
        super().__init__()
        self.arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if checked_size("size", size) % 8:
            raise ValueError(
                f"size is {size}: take a multiple of 8, the encoder halves three times"
            )
        self.event_shape = (size, size)
        c, inner, outer = checked_size("channels", channels), size // 8, checked_size("code", code)
        pairs = [(1, c), (c, 2 * c), (2 * c, 4 * c)]
        with drawn_from(seed):
            down = [m for a, b in pairs for m in (nn.Conv2d(a, b, 4, 2, 1), nn.SiLU())]
            up = [
                m
                for a, b in reversed(pairs)
                for m in (nn.SiLU(), nn.ConvTranspose2d(b, a, 4, 2, 1))
            ]
            flat = 4 * c * inner**2
            self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, outer))
            self.decoder = nn.Sequential(
                nn.Linear(outer, flat), nn.Unflatten(1, (4 * c, inner, inner)), *up
            )

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        code = self.encoder(y[:, None].to(self.encoder[0].weight.dtype))
        return self.decoder(code)[:, 0].to(y)

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The codes of clean images (N, size, size): (N, code)."""
        return torch.cat([self.encoder(part[:, None]) for part in images.split(500)])
