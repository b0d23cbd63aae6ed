"""The convolutional network of the image chapters: a UNet with the options under study."""

from typing import Any

import torch
from torch import Tensor, nn

from ...checks import checked_size, positive, positive_int
from ..base import Network, drawn_from
from .hearing import Hearing, Modulation, Stage, preconditioned

OPTIONS = {
    "pooling": ("average", "max", "strided", "none"),
    "upsampling": ("transposed", "nearest", "bilinear"),
    "skip": ("concatenate", "none"),
    "normalisation": ("bias-free", "batch", "none"),
    "padding": ("zeros", "circular", "reflect"),
    "level": ("channel", "scale"),
}


class UNet(Network):
    r"""UNet of Kadkhodaie et al. 2024, blind as theirs or conditioned with the preconditioning of
    EDM, as `MLP` is.

        blind:        D(y) = y - F(y),
        conditioned:  D(y, sigma) = c_skip y + c_out F( c_in y, log(sigma) / 4 ),
        coefficients from s = data_std.

    F: `blocks` stages of two 3x3 convolutions, each followed by a normalisation and a ReLU, with c,
    2c, 4c, ... channels and a pooling by 2 between them; a middle stage; the same stages upwards,
    each on its input enlarged by 2 beside the output of the stage opposite (skip). The first
    convolution is not normalised, the last is linear. A conditioned F starts as 0 and hears
    log(sigma) / 4 by its `level`: "channel" as one more image channel, "scale" as a gain and a
    shift of every channel of every convolution but the last, z -> (1 + g(sigma)) z + s(sigma)
    (FiLM, Perez et al. 2018), both linear in 64 units on top of eight sines and cosines. "scale" is
    the better one to generate with: the network need not carry the level through its layers.

    Blind, without bias, and with "bias-free" or no normalisation, the network is homogeneous in
    evaluation mode, D(c y) = c D(y) for c > 0, hence D(y) = J(y) y with J its Jacobian.

    y (batch, image_channels, H, W), or (batch, H, W) for one channel; H and W multiples of
    2^blocks. In training mode a normalised network depends on the whole batch; call eval() before
    use. Weights are drawn from `seed`.

    pooling halves by the average or the maximum of windows of `window` pixels, padded as the
    convolutions are, or by a strided convolution of that width (released code of Kadkhodaie et al.:
    pool_window). "none" keeps the size and dilates the convolutions of stage b by 2^b instead;
    stages are then joined by 1x1 convolutions. upsampling "nearest" and "bilinear" are followed by
    a 1x1 convolution that halves the channels. normalisation "batch" is the usual one, whose shift
    is a bias even where the convolutions have none: with it and bias=False this is the network of
    Levine & Weiss 2026. padding "circular" makes the network equivariant to shifts by multiples of
    2^blocks (by any shift for pooling "none"), except that "bilinear" sees the border.
    Proved: `thm-homogeneous`.

    >>> network = UNet(blocks=1, channels=4)
    >>> network(torch.zeros(2, 16, 16), 0.1).shape, sum(w.numel() for w in network.parameters())
    (torch.Size([2, 16, 16]), 1520)
    """

    small = {"blocks": 1, "channels": 4}

    def __init__(
        self,
        blocks: int = 3,
        channels: int = 64,
        image_channels: int = 1,
        pooling: str = "average",
        window: int = 2,
        upsampling: str = "transposed",
        skip: str = "concatenate",
        normalisation: str = "bias-free",
        padding: str = "zeros",
        bias: bool = False,
        blind: bool = True,
        level: str = "channel",
        data_std: float = 0.5,
        seed: int = 0,
    ):
        super().__init__()
        self.arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        check_options(self.arguments, image_channels=(1, 2, 3))
        if blind and level != "channel":
            raise ValueError(f"level is {level!r}: a blind network hears none, take blind=False")
        if positive_int("blocks", blocks) > 5:
            raise ValueError(
                f"blocks is {blocks}: choose 1 to 5, each doubles the channels and the receptive field"
            )
        self.data_std = positive(
            "data_std", data_std, "pass the standard deviation of the data, a positive number"
        )
        self.blocks, self.pooling, self.padding, self.blind = blocks, pooling, padding, blind
        self.image_channels, self.skip = image_channels, skip != "none"
        if window not in (2, 3, 4, 5):
            raise ValueError(f"window is {window}: choose 2 to 5 pixels")
        widths = [checked_size("channels", channels) * 2**b for b in range(blocks + 1)]
        scaled = level == "scale"

        def conv(inputs: int, outputs: int, stage: int) -> nn.Conv2d:
            reach = 2**stage if pooling == "none" else 1
            return nn.Conv2d(
                inputs, outputs, 3, padding=reach, dilation=reach, padding_mode=padding, bias=bias
            )

        def norm(width: int) -> list[nn.Module]:
            after: list[nn.Module] = [Modulation(width)] if scaled else []
            if normalisation == "none":
                return after
            return [
                BiasFreeNorm(width) if normalisation == "bias-free" else nn.BatchNorm2d(width),
                *after,
            ]

        def stage(inputs: int, b: int) -> list[nn.Module]:
            w = widths[b]
            return [conv(inputs, w, b), *norm(w), nn.ReLU(), conv(w, w, b), *norm(w), nn.ReLU()]

        with drawn_from(seed):
            first: list[nn.Module] = [
                conv(image_channels + (not blind and not scaled), channels, 0)
            ]
            first += [Modulation(channels)] if scaled else []
            encoder = [[*first, nn.ReLU(), conv(channels, channels, 0), *norm(channels), nn.ReLU()]]
            encoder += [stage(widths[b - 1], b) for b in range(1, blocks)]
            decoder = [stage(widths[b] * (1 + self.skip), b) for b in range(blocks)]
            decoder[0] = [*decoder[0][: 2 + len(norm(1))], conv(channels, image_channels, 0)]
            # the names of the released checkpoints, so that those load
            self.encoder = nn.ModuleList(Stage(*layers) for layers in encoder)
            self.mid_block = Stage(*stage(widths[-2], blocks), *self.middle(widths[-1]))
            self.decoder = nn.ModuleList(Stage(*layers) for layers in decoder)
            self.heard = Hearing() if scaled else None
            self.downsample = nn.ModuleList(
                _downsample(pooling, window, padding, w, bias) for w in widths[:-1]
            )
            self.upsample = nn.ModuleList(
                _upsample("none" if pooling == "none" else upsampling, w, bias) for w in widths[:-1]
            )
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight)
                    if bias:
                        nn.init.zeros_(module.bias)
            # F = 0: training starts from the best denoiser that knows only s, not from noise
            if not blind:
                nn.init.zeros_(self.decoder[0][-1].weight)

    def middle(self, width: int) -> list[nn.Module]:
        """Layers at the end of the middle stage, (batch, width, h, w) -> the same: a subclass has
        some."""
        return []

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        images = as_images(y, self.image_channels)
        self._check(images)
        dtype = self.encoder[0][0].weight.dtype
        if self.blind:
            return (images - self.network(images.to(dtype)).to(y)).view_as(y)

        def f(z: Tensor, level: Tensor) -> Tensor:
            # shape[0], not len: len would fix the size of the batch in an export
            if self.heard is None:
                z = torch.cat([z, level.expand(y.shape[0], 1, *y.shape[-2:])], dim=1)
            return self.network(z.to(dtype), level.flatten(1).to(dtype)).to(y)

        return preconditioned(images, sigma.reshape(-1, 1, 1, 1), self.data_std, f).view_as(y)

    def network(self, z: Tensor, level: Tensor | None = None) -> Tensor:
        """F: (batch, input channels, H, W) -> (batch, image_channels, H, W); level (batch or 1, 1),
        log(sigma) / 4."""
        heard = self.heard(level) if self.heard is not None and level is not None else None
        across = []
        for stage, smaller in zip(self.encoder, self.downsample, strict=True):
            z = stage(z, heard)
            across.append(z)
            z = smaller(z)
        z = self.mid_block(z, heard)
        for b in reversed(range(self.blocks)):
            z = self.upsample[b](z)
            z = self.decoder[b](torch.cat([z, across[b]], dim=1) if self.skip else z, heard)
        return z

    def _check(self, images: Tensor) -> None:
        scale = 2**self.blocks
        multiple, reach = (1, scale) if self.pooling == "none" else (scale, 1)
        for name, size in zip(("height", "width"), images.shape[2:], strict=True):
            if size % multiple or size == 0:
                raise ValueError(
                    f"{name} is {size}: {self.blocks} poolings need a multiple of {multiple}; pad the images to "
                    f"{(size // multiple + 1) * multiple} or take fewer blocks"
                )
            least = {"zeros": 1, "circular": reach, "reflect": reach + 1}[self.padding]
            if size // multiple < least:
                raise ValueError(
                    f"{name} is {size}: {self.padding} padding needs at least {least * multiple} with {self.blocks} "
                    "blocks; take larger images, fewer blocks or zeros"
                )


class BiasFreeNorm(nn.Module):
    r"""Batch normalisation that neither centres nor shifts (Mohan et al. 2020): gamma x / s per
    channel.

    s = sqrt(Var + 1e-5) over batch and pixels in training; its running mean, with weight .1 for the
    newest, in evaluation, where the layer is linear and a row does not depend on the others. x
    (batch, channels, H, W).
    """

    def __init__(self, channels: int):
        super().__init__()
        # tiny and of random sign, as in the released code
        self.gammas = nn.Parameter(
            (torch.randn(1, channels, 1, 1) * 2 / 9 / 64).clamp(-0.025, 0.025)
        )
        self.register_buffer("running_sd", torch.ones(1, channels, 1, 1))

    running_sd: Tensor

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * (self.gammas / self.running_sd).to(x.dtype)
        wide = x.to(self.gammas.dtype)  # under autocast x is bfloat16
        sd = torch.sqrt(wide.var(dim=(0, 2, 3), keepdim=True, correction=0) + 1e-5)
        with torch.no_grad():
            self.running_sd.lerp_(sd, 0.1)
        return x * (self.gammas / sd).to(x.dtype)


def check_options(arguments: dict[str, Any], image_channels: tuple[int, ...] = (1, 3)) -> None:
    """ValueError naming the first of the arguments that is not among its choices."""
    for name, choices in OPTIONS.items():
        if name in arguments and arguments[name] not in choices:
            raise ValueError(f"{name} is {arguments[name]!r}: choose one of {', '.join(choices)}")
    if arguments["image_channels"] not in image_channels:
        pairs = ", or 2 for pairs of fields" if 2 in image_channels else ""
        raise ValueError(
            f"image_channels is {arguments['image_channels']}: choose 1 for gray or 3 for colour{pairs}"
        )


def as_images(y: Tensor, image_channels: int) -> Tensor:
    """y as (batch, image_channels, H, W); gray images may come as (batch, H, W). ValueError
    otherwise."""
    images = y[:, None] if y.ndim == 3 else y
    if images.ndim != 4 or images.shape[1] != image_channels:
        gray = " or (batch, H, W)" if image_channels == 1 else ""
        raise ValueError(
            f"y has shape {tuple(y.shape)}: this network takes (batch, {image_channels}, H, W){gray}"
        )
    return images


def _downsample(pooling: str, window: int, padding: str, width: int, bias: bool) -> nn.Module:
    if pooling == "none":
        return nn.Identity()
    halve: nn.Module
    if pooling == "strided":
        halve = nn.Conv2d(width, width, window, stride=2, bias=bias)
    else:
        halve = {"average": nn.AvgPool2d, "max": nn.MaxPool2d}[pooling](window, stride=2)
    pad = {"zeros": nn.ZeroPad2d, "circular": nn.CircularPad2d, "reflect": nn.ReflectionPad2d}[
        padding
    ]
    border = (window - 1) // 2
    return nn.Sequential(pad(border), halve) if border else halve


def _upsample(upsampling: str, width: int, bias: bool) -> nn.Module:
    if upsampling == "transposed":
        return nn.ConvTranspose2d(2 * width, width, 2, stride=2, bias=bias)
    halve = nn.Conv2d(2 * width, width, 1, bias=bias)
    # halving first costs a quarter, and the two commute
    return (
        halve
        if upsampling == "none"
        else nn.Sequential(halve, nn.Upsample(scale_factor=2, mode=upsampling))
    )
