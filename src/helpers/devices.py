"""Where a chapter computes, and in which numbers."""

import os

import torch

from .checks import WITHOUT_DOUBLE

PROFILES = ("quick", "full")
# environment variable: what "auto" means, instead of the best device that is there
BEST = "CREATIVE_DENOISER_DEVICE"
KINDS = {
    "cuda": torch.cuda.is_available,
    "mps": torch.backends.mps.is_available,
    "cpu": lambda: True,
}  # best first


def chosen(profile: str, device: str | torch.device = "auto", double: bool = False) -> torch.device:
    """`resolve` for the first cell of a chapter, which refuses an unknown profile too: both with a
    ValueError."""
    if profile not in PROFILES:
        raise ValueError(f"profile is {profile!r}: choose {' or '.join(PROFILES)}")
    return resolve(device, double)


def resolve(device: str | torch.device = "auto", double: bool = False) -> torch.device:
    """The device of a name: "cuda", "mps" (Apple's GPUs), "cpu", or "auto", the first of them that
    is there, or what $CREATIVE_DENOISER_DEVICE says: quick outputs are compared with stored ones,
    and are made on a CPU.

    double: what will be computed there is float64, which Apple's GPUs do not have, so that "auto"
    passes them over. Raises ValueError for another name, a device that is not there, and float64
    where there is none.
    """
    kind = str(device)
    choices = [k for k in KINDS if not (double and k in WITHOUT_DOUBLE)]
    if kind == "auto":
        kind = os.environ.get(BEST) or next(k for k in choices if KINDS[k]())
    if kind not in KINDS:
        raise ValueError(f"device is {kind!r}: choose one of auto, {', '.join(choices)}")
    if kind not in choices:
        raise ValueError(
            f"device is {kind!r}, which has no float64: choose one of auto, {', '.join(choices)}"
        )
    if not KINDS[kind]():
        raise ValueError(f"device is {kind!r}, and this torch sees none: choose auto or cpu")
    return torch.device(kind)


def hardware(device: torch.device | str = "cpu") -> str:
    """What a device is called in results: the GPU's own name, "Apple GPU" or "CPU"."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return "Apple GPU" if device.type == "mps" else device.type.upper()


def native(device: torch.device) -> torch.dtype:
    """The shortest float type that the device multiplies faster than float32: bfloat16, float16 or
    float32 itself.

    GPUs: bfloat16 from sm_80 on, float16, whose range needs a scaled loss, from sm_70 on. A CPU:
    bfloat16 where it has instructions for its products and oneDNN uses them; elsewhere bfloat16 is
    emulated, ten times slower than float32.
    """
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability >= (7, 0):
            return torch.bfloat16 if capability >= (8, 0) else torch.float16
    elif device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported():
        # which says no where torch is held to AVX2; the last name is ARM's
        has = torch.cpu.get_capabilities()
        if any(has.get(name) for name in ("avx512_bf16", "amx_bf16", "bf16")):
            return torch.bfloat16
    return torch.float32
