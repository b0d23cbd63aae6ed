"""Weights that others have released, read without running any code from the file."""

import contextlib
import hashlib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensor_bytes
from torch import Tensor, nn
from torch.nn.functional import pad

from .denoisers.base import Denoiser
from .denoisers.networks.cnn import CNN
from .denoisers.networks.unet import UNet, as_images
from .files import cache_folder, refuse_bomb, write_atomically

LARGEST = 2**28  # bytes of one array: theirs have at most ten million


class DilatedUNet(Denoiser):
    """UNet of Mohan et al. 2020 (released code), gray, blind and without bias: D(y) = F(y),
    homogeneous.

    One pooling, a strided convolution; two dilated convolutions at the lower resolution; a
    transposed convolution back; one skip connection; a ReLU after each convolution but the last. y
    (batch, 1, H, W) or (batch, H, W); an odd height or width is padded with a line of zeros, which
    is cut from the result.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5, padding=2, bias=False)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1, stride=2, bias=False)
        self.conv4 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.conv5 = nn.Conv2d(64, 64, 3, padding=2, dilation=2, bias=False)
        self.conv6 = nn.Conv2d(64, 64, 3, padding=4, dilation=4, bias=False)
        self.conv7 = nn.ConvTranspose2d(64, 64, 4, padding=1, stride=2, bias=False)
        self.conv8 = nn.Conv2d(96, 32, 3, padding=1, bias=False)
        self.conv9 = nn.Conv2d(32, 1, 5, padding=2, bias=False)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        height, width = y.shape[-2:]
        z = pad(as_images(y, 1), (0, width % 2, 0, height % 2)).to(self.conv1.weight.dtype)
        across = self.conv2(self.conv1(z).relu()).relu()
        z = across
        for conv in (self.conv3, self.conv4, self.conv5, self.conv6, self.conv7):
            z = conv(z).relu()
        z = self.conv9(self.conv8(torch.cat([z, across], dim=1)).relu())
        return z[:, :, :height, :width].to(y).reshape(y.shape)


def load_released(path: str | Path) -> Denoiser:
    """A checkpoint `model.pt` of Kadkhodaie et al. 2024, in evaluation mode on the CPU: a UNet, or
    BF-CNN as a CNN.

    The file is a PyTorch state dict, as their repository offers it; a prefix `module.` of its keys
    is dropped, sizes are read from the shapes. It is unpickled once: a copy as safetensors is kept in
    the cache folder under the checksum of the file. Raises ValueError naming the file and the remedy
    when it is missing, damaged, of another network, or would have to run code to be read.
    """

    def read(file: Path) -> dict[str, Tensor]:
        with file.open("rb") as data:
            checksum = hashlib.file_digest(data, "sha256").hexdigest()
        kept = cache_folder() / "released" / f"{checksum}.safetensors"
        if kept.is_file():
            try:
                return read_tensors(kept.read_bytes())
            except SafetensorError:
                kept.unlink()  # damaged: the file itself is read again
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                refuse_bomb(archive, LARGEST)
                if archive.testzip():  # torch.load does not look at the checksums
                    raise ValueError("a checksum differs")
        state = torch.load(file, map_location="cpu", weights_only=True)
        whole = tensor_bytes({k: v.clone().contiguous() for k, v in state.items()})
        with contextlib.suppress(ValueError):  # a full disk does not make the weights worse
            write_atomically(kept, whole)
        return state

    return _load(path, read)


def load_peer(path: str | Path) -> Denoiser:
    """The same weights, or those of a DilatedUNet, kept as the arrays of an `npz` file under the
    keys of a state dict.

    Raises ValueError as load_released does.
    """

    def read(file: Path) -> dict[str, Tensor]:
        with zipfile.ZipFile(file) as archive:
            refuse_bomb(archive, LARGEST)
        with np.load(file, allow_pickle=False) as arrays:
            return {k: torch.from_numpy(arrays[k]) for k in arrays.files}

    return _load(path, read)


def _load(path: str | Path, read: Callable[[Path], Any]) -> Denoiser:
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing: download it from the repository of its authors")
    try:
        state = {k.removeprefix("module."): v.float() for k, v in read(path).items()}
    except Exception as error:  # a damaged archive or pickle fails in every way there is
        raise ValueError(
            f"{path} is not a whole file of weights and nothing else: download it again from the repository of its "
            "authors, and never one that needs more than weights_only=True or allow_pickle=False"
        ) from error
    try:
        with torch.device("meta"):  # shapes alone: the weights come from the file
            denoiser = _network({k: tuple(v.shape) for k, v in state.items()})
        denoiser.load_state_dict(state, assign=True)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path} holds another network than those of Kadkhodaie et al. 2024 and the UNet of Mohan et al. 2020: "
            "take one of their checkpoints"
        ) from error
    if not all(v.isfinite().all() for v in state.values()):
        raise ValueError(
            f"{path} holds NaN or infinity: download it again from the repository of its authors"
        )
    return denoiser.eval()


def _network(shapes: dict[str, tuple[int, ...]]) -> Denoiser:
    if "conv_layers.0.weight" in shapes:
        kernels = [shape for k, shape in shapes.items() if k.startswith("conv_layers.")]
        channels, image_channels = shapes["conv_layers.0.weight"][:2]
        reach = 1 + sum(shape[-1] - 1 for shape in kernels)
        return CNN(len(kernels), channels, image_channels, reach)
    if "conv9.weight" in shapes:
        return DilatedUNet()
    channels, image_channels = shapes["encoder.0.0.weight"][:2]
    return UNet(sum(k.startswith("upsample.") for k in shapes), channels, image_channels)
