"""A fully connected denoiser for the plane, conditioned on the noise level."""

import torch
from torch import Tensor, nn

from ..checks import checked_size, positive
from .base import Denoiser, drawn_from
from .networks.hearing import preconditioned

ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "tanh": nn.Tanh}


class MLP(Denoiser):
    r"""Multi-layer perceptron with the preconditioning of Karras et al. 2022 (EDM, table 1).

        D(y, sigma) = c_skip y + c_out F( c_in y, log(sigma) / 4 ),
        c_skip = s^2 / (s^2 + sigma^2), c_out = s sigma / sqrt(s^2 + sigma^2),
        c_in = 1 / sqrt(s^2 + sigma^2),

    s the standard deviation of the data, F with `depth` hidden layers of `width` units. y (batch,
    d).
    """

    def __init__(
        self,
        width: int,
        depth: int = 3,
        activation: str = "silu",
        data_std: float = 1.0,
        dimension: int = 2,
        seed: int = 0,
    ):
        super().__init__()
        if activation not in tuple(ACTIVATIONS):
            raise ValueError(
                f"activation is {activation!r}: choose one of {', '.join(ACTIVATIONS)}"
            )
        positive("data_std", data_std, "pass the standard deviation of the data, a positive number")
        dimension, width = checked_size("dimension", dimension), checked_size("width", width)
        sizes = [dimension + 1] + [width] * checked_size("depth", depth)
        with drawn_from(seed):
            hidden = [
                m
                for a, b in zip(sizes, sizes[1:], strict=False)
                for m in (nn.Linear(a, b), ACTIVATIONS[activation]())
            ]
            self.network = nn.Sequential(*hidden, nn.Linear(sizes[-1], dimension))
        self.event_shape, self.data_std = (dimension,), data_std

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        def f(z: Tensor, level: Tensor) -> Tensor:
            z = torch.cat([z, level.expand(y.shape[0], 1)], dim=1)
            return self.network(z.to(self.network[0].weight.dtype)).to(y)

        return preconditioned(y, sigma, self.data_std, f)
