"""A pretend device: its tensors say that they live elsewhere, are computed on the CPU, and mix no
better than a GPU's.

Inside `Machine()` a tensor is moved there by `.to(DEVICE)`. What no GPU does raises a RuntimeError:
an operation on its tensors and a CPU tensor of one dimension or more, and a random number from a
CPU generator. Reading one as a NumPy array is a TypeError. `Machine(double=False)` has no float64
either, as Apple's have none.
"""

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

aten = torch.ops.aten
MOVES = {aten._to_copy.default, aten.copy_.default}  # between devices
CPU_INDEX = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
}  # which GPUs take too


class Backend(_DummyBackendModule):
    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


_setup_privateuseone_for_python_backend("pretend", Backend())
DEVICE = torch.device("pretend", 0)
FOREIGN = 2**40  # seeds from here on are those of the device's own generators


class Dice(torch.Generator):
    """A generator of the device. Python sees only its seed again, which tells it from the CPU's."""

    device = DEVICE

    def manual_seed(self, seed: int) -> torch.Generator:
        return super().manual_seed(seed + FOREIGN)


class Elsewhere(Tensor):
    """A tensor on the pretend device; `here` holds its numbers."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> "Elsewhere":
        layout = {
            "strides": here.stride(),
            "storage_offset": here.storage_offset(),
            "dtype": here.dtype,
        }
        made = torch.Tensor._make_wrapper_subclass(cls, here.shape, **layout, device=DEVICE)
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} outside the machine")

    def __tensor_flatten__(
        self,
    ) -> tuple[list[str], None]:  # so that Module.double() swaps parameters as a whole
        return ["here"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], *rest: Any) -> "Elsewhere":
        return Elsewhere(inner["here"])

    def __format__(self, spec: str) -> str:
        return format(self.here if self.ndim else self.here.item(), spec)

    def tolist(self) -> list:  # torch's own refuses subclasses
        return self.here.tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray:
        if not force:
            raise TypeError(f"a tensor on {DEVICE} is no NumPy array: call .cpu() first")
        return self.here.numpy(force=True)

    def __array__(self, dtype=None) -> np.ndarray:
        return self.numpy()

    def __repr__(self) -> str:
        return f"Elsewhere({self.here})"


def _tensors(part: Any) -> list[Tensor]:
    parts = part if isinstance(part, (list, tuple)) else [part]
    return [t for t in parts if isinstance(t, Tensor)]


def _unwrapped(part: Any) -> Any:
    if isinstance(part, (list, tuple)):
        return type(part)(map(_unwrapped, part))
    return part.here if isinstance(part, Elsewhere) else part


def _wrapped(out: Any) -> Any:
    if isinstance(out, (list, tuple)):
        return type(out)(map(_wrapped, out))
    return Elsewhere(out) if isinstance(out, Tensor) else out


@functools.cache
def _shares(func: Any) -> bool:
    """Whether a result may be an argument or a view of one."""
    return any(a.alias_info is not None for a in func._schema.arguments)


class Machine(TorchDispatchMode):
    def __init__(self, double: bool = True):
        super().__init__()
        self.double = double

    def __enter__(self) -> "Machine":
        self.lifted = torch._C._only_lift_cpu_tensors()
        # torch.tensor(..., device=DEVICE) comes by here, too
        torch._C._set_only_lift_cpu_tensors(True)
        return super().__enter__()

    def __exit__(self, *raised) -> None:
        torch._C._set_only_lift_cpu_tensors(self.lifted)
        super().__exit__(*raised)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is aten._efficientzerotensor.default:  # has no memory that could be wrapped
            func = aten.zeros.default
        given = [t for part in (*args, *kwargs.values()) for t in _tensors(part)]
        there = any(isinstance(t, Elsewhere) for t in given)
        device = kwargs.get("device")
        onto = there if device is None else torch.device(device).type == DEVICE.type
        if not there and not onto:
            return func(*args, **kwargs)
        if device is not None and onto:
            kwargs["device"] = torch.device("cpu")
        self._refuse(func, args, kwargs, given, there, onto)
        out = func(*map(_unwrapped, args), **{k: _unwrapped(v) for k, v in kwargs.items()})
        if not onto:
            return out
        if not self.double and any(t.dtype == torch.float64 for t in _tensors(out)):
            raise TypeError(f"{func}: {DEVICE} has no float64")
        out = _wrapped(out)
        return (
            return_and_correct_aliasing(func, args, kwargs, out) if there and _shares(func) else out
        )

    def _refuse(self, func, args, kwargs, given, there, onto) -> None:
        generator = kwargs.get("generator")
        if onto and generator is not None and generator.initial_seed() < FOREIGN:
            raise RuntimeError(f"{func}: a CPU generator for the device {DEVICE}")
        free = func in MOVES or func in CPU_INDEX and isinstance(args[0], Elsewhere)
        alone = [t for t in given if not isinstance(t, Elsewhere)]
        if there and not free and any(t.ndim for t in alone):
            raise RuntimeError(
                f"{func}: tensors on {DEVICE} and on the CPU, {[tuple(t.shape) for t in given]}"
            )
