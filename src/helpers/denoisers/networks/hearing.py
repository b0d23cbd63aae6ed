"""How a network hears the noise level: EDM's preconditioning, and a gain and a shift of every
channel (FiLM)."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

OCTAVES, HEARD = 8, 64  # half octaves of the sines of log(sigma); units on top of them


def preconditioned(
    y: Tensor, sigma: Tensor, data_std: float, network: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    r"""c_skip y + c_out F( c_in y, log(sigma) / 4 ), with s = data_std (Karras et al. 2022, table
    1):

        c_skip = s^2 / (s^2 + sigma^2), c_out = s sigma / sqrt(s^2 + sigma^2),
        c_in = 1 / sqrt(s^2 + sigma^2).

    sigma has a dimension for each of y, or none.
    """
    total = data_std**2 + sigma**2
    f = network(y / total.sqrt(), sigma.log() / 4)
    return data_std**2 / total * y + data_std * sigma / total.sqrt() * f


class Hearing(nn.Sequential):
    """log(sigma) / 4, (batch or 1, 1), as HEARD units on top of OCTAVES sines and as many cosines."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2 * OCTAVES, HEARD), nn.SiLU())

    def forward(self, level: Tensor) -> Tensor:
        angle = level * math.pi / 4 * 2 ** (torch.arange(OCTAVES).to(level) / 2)
        return super().forward(torch.cat([angle.sin(), angle.cos()], dim=1))


class Modulation(nn.Module):
    """z -> (1 + g) z + s per channel, g and s linear in `heard` (batch or 1, HEARD); the identity
    at first.

    z (batch, channels) or (batch, channels, H, W). Perez et al. 2018.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.linear = nn.Linear(HEARD, 2 * channels)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, z: Tensor, heard: Tensor) -> Tensor:
        both = self.linear(heard)
        gain, shift = (both[..., None, None] if z.ndim == 4 else both).chunk(2, dim=1)
        return (1 + gain) * z + shift


class Stage(nn.Sequential):
    """Layers one after the other; each Modulation among them is told what was heard of the noise
    level."""

    def forward(self, z: Tensor, heard: Tensor | None = None) -> Tensor:
        for layer in self:
            z = layer(z, heard) if isinstance(layer, Modulation) else layer(z)
        return z
