"""The fully connected network of the image chapters: every pixel sees every pixel, through a narrow
middle."""

from torch import Tensor, nn

from ...checks import checked_size
from ..base import Network, drawn_from
from .hearing import Hearing, Modulation, Stage
from .unet import check_options


class ImageMLP(Network):
    r"""Image bottleneck of Levine & Weiss 2026, released code: one network for one noise level.

        D(y, sigma) = ( 1 + tanh F( (2 y - 1) / sqrt(1 + 4 sigma^2) ) ) / 2.

    They take intensities in [-1, 1] and the variance-preserving x_t = sqrt(1 - t) x_0 + sqrt(t) n,
    t in (0, 1); the argument of F is their x_t at t = 4 sigma^2 / (1 + 4 sigma^2). F itself is
    blind.

    F: a linear layer to `width` units, `depth` more of that width, each followed by a leaky ReLU
    (slope .2), the last by a ReLU, and a linear layer back to the image. So D(y) lies in the tanh
    of an affine space of `width` dimensions.

    blind=False: one network for all levels, told its level by a gain and a shift of every unit. The
    skip connection of EDM's preconditioning would lead around the narrow middle, so there is none.

    y (batch, 3, size, size), or (batch, size, size) for image_channels=1. Weights are drawn from
    `seed`. Proved: `prop-width`.
    """

    small = {"size": 6, "image_channels": 1, "width": 6, "depth": 2}

    def __init__(
        self,
        size: int = 64,
        image_channels: int = 3,
        width: int = 200,
        depth: int = 8,
        blind: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        self.arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_options(self.arguments)
        side, width = checked_size("size", size), checked_size("width", width)
        self.event_shape = (side, side) if image_channels == 1 else (3, side, side)
        pixels = image_channels * side**2
        sizes = [pixels] + [width] * (1 + checked_size("depth", depth))
        with drawn_from(seed):
            layers: list[nn.Module] = []
            for a, b in zip(sizes, sizes[1:], strict=False):
                layers += [nn.Linear(a, b), *([] if blind else [Modulation(b)]), nn.LeakyReLU(0.2)]
            # the names of the released code, so that its weights load
            self.encoder = Stage(*layers[:-1], nn.ReLU())
            self.decoder = nn.Sequential(nn.Linear(width, pixels), nn.Tanh())
            self.heard = None if blind else Hearing()

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        x_t = (2 * y - 1) / (1 + 4 * sigma**2).sqrt()
        dtype = self.decoder[0].weight.dtype
        heard = None
        if self.heard is not None:
            heard = self.heard((sigma.reshape(-1, 1).log() / 4).to(dtype))
        code = self.encoder(x_t.flatten(1).to(dtype), heard)
        return (1 + self.decoder(code).to(y).view_as(y)) / 2
