"""A chain of convolutions without pooling: BF-CNN and DnCNN, with a receptive field of choice."""

from torch import Tensor, nn

from ...checks import checked_size, positive
from ..base import Network, drawn_from
from .hearing import Hearing, Modulation, preconditioned
from .unet import BiasFreeNorm, as_images, check_options


class CNN(Network):
    r"""Convolutional chain that estimates the noise, blind, D(y) = y - F(y), or conditioned as
    `UNet` is.

    F: `depth` convolutions, `channels` wide and 3x3; all but the first and the last are followed by
    a normalisation and a ReLU. The defaults are BF-CNN (Mohan et al. 2020), the second network of
    Kadkhodaie et al. 2024. The blind DnCNN (Zhang et al. 2017) is CNN(20, normalisation="batch",
    bias=True, first_relu=True): a ReLU after the first one, too.

    receptive_field r, odd: of the `depth` convolutions (r - 1) / 2 stay 3x3, the first, the last
    and others evenly between them, and the rest become 1x1, as in the released code for r = 5, 13,
    23 and 43. Depth, width and the number of nonlinearities stay the same, so that only the reach
    is compared. None: all are 3x3, r = 2 depth + 1.

    Without bias, and with "bias-free" or no normalisation, the network is homogeneous in evaluation
    mode, D(c y) = c D(y) for c > 0, hence D(y) = J(y) y with J its Jacobian. padding "circular"
    makes it equivariant to every shift. The convolutions and normalisations have the names of the
    released checkpoints.

    blind=False: EDM's preconditioning with s = data_std; a gain and a shift of every channel of
    every convolution but the last tell F the noise level. F starts as 0.

    y (batch, image_channels, H, W), or (batch, H, W) for one channel, of any size. In training mode
    a normalised network depends on the whole batch; call eval() before use. Weights are drawn from
    `seed`. Proved: `thm-homogeneous`.
    """

    small = {"depth": 3, "channels": 4}

    def __init__(
        self,
        depth: int = 21,
        channels: int = 64,
        image_channels: int = 1,
        receptive_field: int | None = None,
        normalisation: str = "bias-free",
        padding: str = "zeros",
        bias: bool = False,
        first_relu: bool = False,
        blind: bool = True,
        data_std: float = 0.5,
        seed: int = 0,
    ):
        super().__init__()
        self.arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_options(self.arguments)
        if checked_size("depth", depth) < 2:
            raise ValueError("depth is 1: take at least 2, a first and a last convolution")
        most = 2 * depth + 1
        if receptive_field not in (None, *range(1, most + 1, 2)):
            raise ValueError(
                f"receptive_field is {receptive_field}: choose an odd number from 1 to {most}, or more depth"
            )
        n = (most if receptive_field is None else receptive_field) // 2
        large = {i * (depth - 1) // max(n - 1, 1) for i in range(n)}  # which convolutions are 3x3
        widths = (
            [image_channels] + [checked_size("channels", channels)] * (depth - 1) + [image_channels]
        )
        norm = {"bias-free": BiasFreeNorm, "batch": nn.BatchNorm2d, "none": nn.Identity}[
            normalisation
        ]
        self.image_channels, self.padding, self.first_relu = image_channels, padding, first_relu
        positive("data_std", data_std, "pass the standard deviation of the data, a positive number")
        self.heard: Hearing | None = None
        with drawn_from(seed):
            self.conv_layers = nn.ModuleList(
                nn.Conv2d(
                    a,
                    b,
                    3 if i in large else 1,
                    padding=int(i in large),
                    padding_mode=padding,
                    bias=bias,
                )
                for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
            )
            self.BN_layers = nn.ModuleList(norm(channels) for _ in range(depth - 2))
            for conv in self.conv_layers:
                nn.init.kaiming_normal_(conv.weight)
                if bias:
                    nn.init.zeros_(conv.bias)
            if not blind:
                self.data_std, self.heard = data_std, Hearing()
                self.modulations = nn.ModuleList(Modulation(channels) for _ in range(depth - 1))
                nn.init.zeros_(self.conv_layers[-1].weight)

    @property
    def receptive_field(self) -> int:
        """Width in pixels of the square of y on which a pixel of D(y) depends."""
        return 1 + sum(conv.kernel_size[0] - 1 for conv in self.conv_layers)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        images = as_images(y, self.image_channels)
        least = 2 if self.padding == "reflect" else 1
        if min(images.shape[2:]) < least:
            raise ValueError(
                f"y has shape {tuple(y.shape)}: {self.padding} padding needs at least {least} x {least}"
            )
        dtype = self.conv_layers[0].weight.dtype
        if self.heard is None:
            return (images - self.network(images.to(dtype)).to(y)).view_as(y)

        def f(z: Tensor, level: Tensor) -> Tensor:
            return self.network(z.to(dtype), level.flatten(1).to(dtype)).to(y)

        return preconditioned(images, sigma.reshape(-1, 1, 1, 1), self.data_std, f).view_as(y)

    def network(self, z: Tensor, level: Tensor | None = None) -> Tensor:
        """F: (batch, image_channels, H, W) -> the same shape; level (batch or 1, 1), log(sigma) /
        4."""
        heard = self.heard(level) if self.heard is not None and level is not None else None
        z = self._told(self.conv_layers[0](z), 0, heard)
        z = z.relu() if self.first_relu else z
        for i, norm in enumerate(self.BN_layers, 1):
            z = self._told(norm(self.conv_layers[i](z)), i, heard).relu()
        return self.conv_layers[-1](z)

    def _told(self, z: Tensor, layer: int, heard: Tensor | None) -> Tensor:
        return z if heard is None else self.modulations[layer](z, heard)
