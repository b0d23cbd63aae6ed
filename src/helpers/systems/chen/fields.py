"""Images as fields: an autoencoder whose decoder's features are rendered at any resolution, window
by window.

After Chen et al. 2024, "Image Neural Field Diffusion Models" (INFD), and their released code; where
this differs, it says so. Images, training and weights are in `helpers.systems.chen.field_training`.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...checks import positive_int
from ...denoisers.base import drawn_from

GRID = 32  # pixels a side of what the encoder sees, and cells a side of the features


def planes(pictures: Tensor) -> Tensor:
    """Gray pictures (b, n, m), or coloured ones (b, 3, n, m), as what a convolution takes."""
    return pictures if pictures.ndim == 4 else pictures[:, None]


def pictured(maps: Tensor) -> Tensor:
    """And back: (b, 1 or 3, n, m) as pictures."""
    return maps if maps.shape[1] > 1 else maps[:, 0]


def query(
    features: Tensor, size: int | Tensor, rows: Tensor, columns: Tensor, pitch: float | None = None
) -> Tensor:
    r"""What a renderer is told at a pixel: the nearest feature, where the pixel lies in its cell,
    and how large it is.

    Pixel i of `size` along a side has its centre at u = (i + 1/2) s in cells of the feature grid, s
    = grid / size the pitch. The nearest feature is k = floor(u), and the offset u - (k + 1/2) lies
    in [-1/2, 1/2). Both come from whole numbers, so they do not depend on the window in which a
    pixel is asked for, and for size = grid the offset is 0 exactly. Pixels outside of the frame are
    those mirrored at it.

    features (b, C, grid, grid); size a number or (b,); rows (b or 1, h) and columns (b or 1, w),
    whole numbers.
    pitch: told instead of s. Returns (b, C + 3, h, w): features, offsets along rows and columns,
    pitch. Proved: `prop-fields-grid`.
    """
    b, grid = len(features), features.shape[-1]
    sizes = torch.as_tensor(size, device=features.device).reshape(-1, 1).expand(b, 1)
    (row, down), (column, right) = (
        _nearest(pixels.to(sizes.device), sizes, grid) for pixels in (rows, columns)
    )
    # (b, h, w, C)
    near = features.movedim(1, -1)[torch.arange(b)[:, None, None], row[:, :, None], column[:, None]]
    told = grid / sizes if pitch is None else torch.full_like(sizes, 1, dtype=torch.float64) * pitch
    where = torch.broadcast_tensors(down[:, :, None], right[:, None], told[:, None].to(down))
    return torch.cat([near, torch.stack(where, -1).to(near)], -1).movedim(-1, 1)


def _nearest(pixels: Tensor, sizes: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Cell (b, h) and offset in it, float64, of pixels (b or 1, h) along a side of `sizes` (b, 1)."""
    if bool(((pixels < -sizes) | (pixels >= 2 * sizes)).any()):
        raise ValueError(
            f"pixels {int(pixels.min())} to {int(pixels.max())} of a side of {int(sizes.min())}: "
            "stay within one image's width of the frame"
        )
    inside = torch.where(
        pixels < 0, -1 - pixels, torch.where(pixels < sizes, pixels, 2 * sizes - 1 - pixels)
    )
    centre = (2 * inside + 1) * grid  # in cells over 2 size
    cell = centre // (2 * sizes)
    return cell, (centre - (2 * cell + 1) * sizes).double() / (2 * sizes)


class Residual(nn.Module):
    """x + two convolutions, each after an optional group normalisation and a SiLU."""

    def __init__(self, width: int, kernel: int = 3, normalised: bool = False):
        super().__init__()

        def layer() -> list[nn.Module]:
            norm = [nn.GroupNorm(4, width)] if normalised else []
            return [*norm, nn.SiLU(), nn.Conv2d(width, width, kernel, padding=kernel // 2)]

        self.layers = nn.Sequential(*layer(), *layer())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Renderer(nn.Module):
    """The picture of a field in a window: bicubic interpolation of the fixed picture, plus a
    network of the queries.

    The network is that of INFD: a convolution, two residual blocks, a convolution, all on the grid
    of the pixels that are asked for. kernel=3 is their local renderer (CLIF), kernel=1 the
    point-wise one (LIIF, Chen et al. 2021). The last layer begins at zero, so training begins at
    bicubic interpolation; that, base=True, is our addition. normalised=True puts their group
    normalisation in, which looks at the whole window.

    radius: how many pixels away a pixel looks, 6 for kernel=3 and 0 for kernel=1. colours: 1 for
    gray pictures (b, n, n), 3 for coloured ones (b, 3, n, n). Weights are drawn from `seed`. Proved:
    `prop-fields-windows`.
    """

    def __init__(
        self, features: int = 32, width: int = 32, kernel: int = 3, base: bool = True, normalised: bool = False,
        seed: int = 0, colours: int = 1,
    ):  # fmt: skip
        super().__init__()
        self.arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        if kernel not in (1, 3):
            raise ValueError(
                f"kernel is {kernel}: choose 3 for the convolutional renderer or 1 for the point-wise one"
            )
        self.radius, self.base = 6 * (kernel // 2), base
        with drawn_from(seed):
            blocks = [Residual(positive_int("width", width), kernel, normalised) for _ in range(2)]
            last = nn.Conv2d(width, colours, kernel, padding=kernel // 2)
            first = nn.Conv2d(
                positive_int("features", features) + 3, width, kernel, padding=kernel // 2
            )
            self.network = nn.Sequential(first, *blocks, nn.SiLU(), last)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(
        self, field: tuple[Tensor, Tensor], size: int | Tensor, top: int | Tensor = 0, left: int | Tensor = 0,
        height: int | None = None, width: int | None = None, halo: int | None = None, pitch: float | None = None,
    ) -> Tensor:  # fmt: skip
        """height x width pixels from (top, left) of the picture with `size` pixels a side: (b,
        height, width).

        field: features (b, C, grid, grid) and fixed picture (b, grid, grid) of `Coder.field`. size,
        top, left: a number or (b,). The window is queried with `halo` more pixels on every side,
        default `radius`, which are rendered and
        cut off: so its pixels are those of the whole picture. Fewer leave seams. pitch: see
        `query`.

        Raises ValueError for a size below the grid: such a picture is one of the grid's size,
        reduced.
        """
        features, picture = field
        sizes = torch.as_tensor(size, device=picture.device).reshape(-1, 1)
        if int(sizes.min()) < features.shape[-1]:
            raise ValueError(
                f"size is {int(sizes.min())}, the features are {features.shape[-1]} a side: render those, and reduce"
            )
        halo = self.radius if halo is None else halo
        rows, columns = (
            torch.as_tensor(start, device=sizes.device).reshape(-1, 1)
            + torch.arange(
                -halo, (positive_int("window", count or int(sizes[0]))) + halo, device=sizes.device
            )
            for start, count in ((top, height), (left, width))
        )
        made = pictured(self.network(query(features, size, rows, columns, pitch)))
        inner = [slice(halo, side - halo) for side in made.shape[-2:]]
        made = made[..., *inner]
        if not self.base:
            return made
        return made + interpolated(picture, sizes, rows[:, inner[0]], columns[:, inner[1]])


class Upscaler(nn.Module):
    """Super-resolution by a fixed factor: the renderer's network on the 32 x 32 grid, whose last layer
    makes the scale x scale pixels of each cell (sub-pixel convolution, Shi et al. 2016).

    It sees the fixed picture alone, as a network that enlarges what another model drew. Like a
    renderer it adds to bicubic interpolation, and its last layer begins at zero. Weights are drawn
    from `seed`.
    """

    def __init__(self, width: int = 32, scale: int = 4, seed: int = 0, colours: int = 1):
        super().__init__()
        self.arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        self.scale = positive_int("scale", scale)
        with drawn_from(seed):
            first = nn.Conv2d(colours, positive_int("width", width), 3, padding=1)
            last = nn.Conv2d(width, colours * scale**2, 3, padding=1)
            blocks = Residual(width), Residual(width), nn.SiLU()
        self.network = nn.Sequential(first, *blocks, last, nn.PixelShuffle(scale))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, field: tuple[Tensor, Tensor]) -> Tensor:
        """The pictures (b, scale * grid, scale * grid) of a field."""
        picture = field[1]
        enlarged = bicubic(picture, self.scale * picture.shape[-1])
        return enlarged + pictured(self.network(planes(picture)))


def interpolated(picture: Tensor, sizes: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Bicubic interpolation of pictures (b, grid, grid) at the centres of pixels, as `query` takes
    them: (b, h, w)."""
    y, x = (
        ((2 * pixels + 1).to(torch.float64) / sizes - 1).expand(len(picture), -1)
        for pixels in (rows, columns)
    )
    places = torch.stack(torch.broadcast_tensors(x[:, None], y[:, :, None]), -1).to(picture)
    return pictured(F.grid_sample(
        planes(picture), places, mode="bicubic", padding_mode="border", align_corners=False
    ))  # fmt: skip


def bicubic(picture: Tensor, size: int) -> Tensor:
    """The baseline: the fixed pictures (b, grid, grid) enlarged to (b, size, size) by bicubic
    interpolation."""
    pixels = torch.arange(positive_int("size", size), device=picture.device)[None]
    return interpolated(picture, torch.tensor([[size]], device=picture.device), pixels, pixels)


def tiled(
    renderer: Renderer,
    field: tuple[Tensor, Tensor],
    size: int,
    tile: int = 64,
    halo: int | None = None,
) -> Tensor:
    """The whole picture (b, size, size) from windows of tile x tile pixels, rendered one after the
    other. Proved: `prop-fields-windows`."""
    starts = range(0, size, positive_int("tile", tile))
    rows = [
        torch.cat(
            [
                renderer(field, size, i, j, min(tile, size - i), min(tile, size - j), halo)
                for j in starts
            ],
            -1,
        )
        for i in starts
    ]
    return torch.cat(rows, -2)


class Coder(nn.Module):
    """Autoencoder: picture (b, 32, 32) -> latent (b, 3, 8, 8) -> features (b, C, 32, 32) -> fixed
    picture (b, 32, 32).

    halvings of the side between picture and latent: 2 as published, 1 for latents of 16 x 16. colours:
    as of `Renderer`. Latents have mean 0 and standard deviation 1 in each channel after `standardise`.
    Weights are drawn from `seed`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, channels: int = 3, width: int = 32, seed: int = 0, colours: int = 1, halvings: int = 2
    ):
        super().__init__()
        self.arguments = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        w = positive_int("width", width)
        widths = [w << k for k in range(positive_int("halvings", halvings))]
        with drawn_from(seed):
            down: list[nn.Module] = [nn.Conv2d(colours, w // 2, 3, padding=1), nn.SiLU()]
            for a, b in itertools.pairwise([w // 2, *widths]):
                down += [nn.Conv2d(a, b, 4, 2, 1), Residual(b), nn.SiLU()]
            down += [nn.Conv2d(widths[-1], positive_int("channels", channels), 3, padding=1)]
            up: list[nn.Module] = [
                nn.Conv2d(channels, widths[-1], 3, padding=1),
                Residual(widths[-1]),
            ]
            for a, b in itertools.pairwise([*widths[::-1], w]):
                up += [nn.SiLU(), nn.ConvTranspose2d(a, b, 4, 2, 1), Residual(b)]
            self.encoder, self.decoder = nn.Sequential(*down), nn.Sequential(*up)
            self.head = nn.Conv2d(w, colours, 3, padding=1)
        self.register_buffer("mean", torch.zeros(channels, 1, 1))
        self.register_buffer("std", torch.ones(channels, 1, 1))

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents (b, 3, 8, 8) of pictures (b, 32, 32), or (b, 3, 32, 32) in colour; ValueError for
        another size."""
        maps, colours = planes(pictures), self.head.out_channels
        if maps.shape[1:] != (colours, GRID, GRID):
            raise ValueError(
                f"pictures have shape {tuple(pictures.shape)}: pass (N, {GRID}, {GRID}), or "
                f"(N, 3, {GRID}, {GRID}) to a coder of 3 colours, see reduced"
            )
        return (self.encoder(maps) - self.mean) / self.std

    def field(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Features (b, C, 32, 32) and fixed picture (b, 32, 32) of latents: what a renderer takes."""
        features = self.decoder(z * self.std + self.mean)
        return features, pictured(self.head(features))

    @torch.no_grad()
    def latents(self, pictures: Tensor) -> Tensor:
        """`encode` of many pictures, a part at a time."""
        return torch.cat([self.encode(part) for part in pictures.split(500)]).contiguous()

    @torch.no_grad()
    def standardise(self, pictures: Tensor) -> None:
        """Make mean 0 and standard deviation 1 of each channel of the latents of these pictures;
        the field stays."""
        z = self.latents(pictures) * self.std + self.mean
        self.mean.copy_(z.mean((0, 2, 3), keepdim=True)[0])
        self.std.copy_(z.std((0, 2, 3), keepdim=True)[0])
