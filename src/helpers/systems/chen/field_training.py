"""For `fields`: one scene at all sizes, what the networks are trained to do, and the weights that
ship."""

import json
from collections.abc import Callable

import torch
import torch.nn.functional as F
from safetensors.torch import load as read_tensors
from torch import Generator, Tensor, nn

from ... import recorded
from ...checks import checked_points, positive_int
from ...data import load
from ...denoisers import UNet
from ...realism import radii
from .fields import GRID, Coder, Renderer, Upscaler, interpolated, pictured, planes

DRAWN = 256  # pixels a side at which scenes are drawn
CHUNK = 250  # scenes at a time, each chunk of a seed of its own


def scenes(n: int, split: str = "train", size: int = GRID, alpha: float = 3.0) -> Tensor:
    """n C^alpha images, drawn at 256 pixels a side and reduced to size x size: one scene, whatever
    the size.

    float32 (n, size, size); `helpers.data.load` says what the class and the splits are. Raises its
    errors, and ValueError for a size above 256.
    """
    seeds = range(-(-positive_int("n", n) // CHUNK))
    parts = (
        load("c-alpha", split, min(CHUNK, n - CHUNK * k), DRAWN, seed=k, alpha=alpha).images
        for k in seeds
    )
    return torch.cat([reduced(part, size) for part in parts])


def reduced(images: Tensor, size: int) -> Tensor:
    """Images (N, H, H) or (N, 3, H, H) at size x size pixels, by bicubic interpolation whose kernel is as wide as the
    new pixels.

    Raises ValueError for a size that is above H or no positive integer.
    """
    side = checked_points(images, "images").shape[-1]
    if positive_int("size", size) > side:
        raise ValueError(
            f"size is {size}: reduced makes images smaller, take at most their {side} pixels a side"
        )
    if size == side:
        return images
    return pictured(F.interpolate(planes(images), (size, size), mode="bicubic", antialias=True))


def cut(images: Tensor, places: Tensor) -> Tensor:
    """A patch of 32 x 32 pixels of each picture (b, size, size), at places (b, 2) in [0, 1): (b,
    32, 32)."""
    corners = (places * (images.shape[-1] - GRID + 1)).long().tolist()
    return torch.stack(
        [x[..., i : i + GRID, j : j + GRID] for x, (i, j) in zip(images, corners, strict=True)]
    )


def patched(
    field: tuple[Tensor, Tensor], size: int, places: Tensor, renderer: Renderer | None = None
) -> Tensor:
    """The patches that `cut` takes from pictures of `size`, rendered alone; by bicubic
    interpolation for None."""
    top, left = (places * (size - GRID + 1)).long().T
    if renderer is not None:
        return renderer(field, size, top, left, GRID, GRID)
    rows, columns = (
        start[:, None] + torch.arange(GRID, device=top.device) for start in (top, left)
    )
    return interpolated(field[1], torch.full_like(rows[:, :1], size), rows, columns)


def detail(patches: Tensor) -> Tensor:
    """Log power of tapered patches (b, 32, 32) in rings of 1 to 16 periods: (b, 16), float64.

    The power of rounding to 8 bits, (1/255)^2 / 12 a pixel, is added: what no screen shows does not
    count.
    """
    window = torch.hann_window(GRID, device=patches.device).outer(
        torch.hann_window(GRID, device=patches.device)
    )
    tapered = ((patches - patches.mean((1, 2), keepdim=True)) * window).double()
    power, ring = torch.fft.fft2(tapered, norm="ortho").abs().square(), radii(GRID).round()
    means = torch.stack([power[:, ring == r].mean(1) for r in range(1, GRID // 2 + 1)], 1)
    return (means + 255**-2 / 12).log10()


def coder_loss(
    coder: Coder, pictures: Tensor, batch: int, noise: float = 0.05, weight: float = 1e-4
) -> Callable:
    """mean |x_hat - x| + weight mean z^2, x_hat decoded from z + noise n: latents that a little
    noise does not ruin.

    A KL autoencoder whose posterior has a fixed width. For `training.fit`: a function of the step
    and the generator.
    """

    def loss(step: int, g: Generator) -> Tensor:
        x = pictures[torch.randint(len(pictures), (batch,), generator=g, device=g.device)]
        z = coder.encode(x)
        x_hat = coder.field(z + noise * torch.randn(z.shape, generator=g, device=g.device))[1]
        return (x_hat.float() - x).abs().mean() + weight * z.float().square().mean()

    return loss


def crop_loss(
    renderer: Renderer,
    fields: tuple[Tensor, Tensor],
    images: Tensor,
    batch: int,
    patch: int = 32,
    known: Tensor | None = None,
) -> Callable:
    """mean |render - x| over patches of patch x patch pixels of pictures of all sizes, as INFD
    trains.

    For each image a size r ~ U{grid, ..., its own} and a place: the image is reduced to r, and only
    the patch of it is rendered. fields: of the coder, which is not trained. known (N,): the size of
    each image where it is less than that of `images`: a training set of mixed resolutions. For
    `training.fit`. Proved: `prop-fields-crops`.
    """
    grid = fields[0].shape[-1]
    known = torch.full((len(images),), images.shape[-1]) if known is None else known

    def loss(step: int, g: Generator) -> Tensor:
        def draw(low: Tensor | int, high: Tensor | int) -> Tensor:
            """Whole numbers from low to high, both included, one a row."""
            return (low + torch.rand(batch, generator=g, device=g.device) * (high - low + 1)).long()

        chosen = torch.randint(len(images), (batch,), generator=g, device=g.device)
        size = draw(grid, known.to(g.device)[chosen])
        top, left = draw(0, size - patch), draw(0, size - patch)
        x = torch.cat([
            reduced(images[i : i + 1], r)[..., a : a + patch, b : b + patch]
            for i, r, a, b in zip(*(v.tolist() for v in (chosen, size, top, left)), strict=True)
        ])  # fmt: skip
        made = renderer(tuple(v[chosen].float() for v in fields), size, top, left, patch, patch)
        return (made.float() - x).abs().mean()

    return loss


def upscaling_loss(
    upscaler: Upscaler, fields: tuple[Tensor, Tensor], images: Tensor, batch: int
) -> Callable:
    """mean |made - x| over whole pictures of the upscaler's one size. For `training.fit`."""

    def loss(step: int, g: Generator) -> Tensor:
        chosen = torch.randint(len(images), (batch,), generator=g, device=g.device)
        made = upscaler(tuple(v[chosen].float() for v in fields))
        return (made.float() - images[chosen]).abs().mean()

    return loss


# What ships ---------------------------------------------------------------------------------------

CLASSES = {"Coder": Coder, "Renderer": Renderer, "Upscaler": Upscaler, "UNet": UNet}


def packed(networks: dict[str, nn.Module], about: dict) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Networks as the tensors, float16, and the metadata of one safetensors file, from which
    `unpacked` makes them."""
    tensors = {
        f"{n}/{k}": v.half().contiguous()
        for n, net in networks.items()
        for k, v in net.state_dict().items()
    }
    cards = {
        n: {"class": type(net).__name__, "arguments": net.arguments} for n, net in networks.items()
    }
    return tensors, {"cards": json.dumps(cards), "about": json.dumps(about)}


def unpacked(data: bytes, *names: str) -> dict[str, nn.Module]:
    """The networks of a file made with `packed`, all or those named, float32 and in evaluation
    mode.

    Raises ValueError for a name that is not in the file.
    """
    about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    networks, weights, cards = {}, read_tensors(data), json.loads(about["cards"])
    for name in names or cards:
        if name not in cards:
            raise ValueError(f"no network is called {name!r}: choose one of {', '.join(cards)}")
        networks[name] = CLASSES[cards[name]["class"]](**cards[name]["arguments"])
        own = {
            k.removeprefix(f"{name}/"): v.float()
            for k, v in weights.items()
            if k.startswith(f"{name}/")
        }
        networks[name].load_state_dict(own)
    return {name: network.eval() for name, network in networks.items()}


def shipped(name: str) -> nn.Module:
    """A network of this chapter: "coder", "latent", "convolutional-0" to "-2", "pointwise-0" to
    "-2".

    Raises ValueError for another name, or a file that is not the recorded one. Made by `python
    benchmarks/fields.py networks`.
    """
    sha256 = recorded.load("fields")["networks"]["sha256"]
    return unpacked(recorded.weights("fields", sha256), name)[name]
