"""What tests of networks share: noise from a seed, and networks as a training leaves them."""

import torch

from helpers.denoisers.networks.unet import BiasFreeNorm


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def state(denoiser: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in denoiser.state_dict().items()}


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=dtype)


def settled(net: torch.nn.Module) -> torch.nn.Module:
    """The network after a few batches, in evaluation mode, its gains and what starts as 0 of
    visible size."""
    dtype = next(net.parameters()).dtype
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, BiasFreeNorm):
                module.gammas.copy_(1 + 0.1 * noise(*module.gammas.shape))
        for i, weight in enumerate(p for p in net.parameters() if p.ndim > 1 and not p.any()):
            weight.copy_(0.1 * noise(*weight.shape, seed=i))
        for i in range(20):
            net(noise(4, net.image_channels, 16, 16, seed=i, dtype=dtype), 1.0)
    return net.eval()
