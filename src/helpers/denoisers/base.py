"""The protocol that every denoiser of the book obeys, and the two lines that turn a denoiser into a
score."""

import inspect
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..checks import checked_seed, checked_sigma, differentiated, exporting

HALF = (torch.float16, torch.bfloat16)
T = TypeVar("T")
# torch.compiler.disable would import the compiler, more than a second, now
uncompiled = torch._disable_dynamo


class _Denoising(type):
    """Denoisers built under torch.inference_mode work outside of it: their tensors are made as
    everywhere else."""

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        with torch.inference_mode(False):
            return super().__call__(*arguments, **options)

    @property
    def __signature__(cls) -> inspect.Signature:  # for help: what the class takes, not the call
        takes = inspect.signature(cls.__init__)
        return takes.replace(parameters=[*takes.parameters.values()][1:])


class Denoiser(nn.Module, metaclass=_Denoising):
    """A map D(y, sigma) -> x_hat that estimates a clean x from y = x + sigma n, n ~ N(0, I).

    Subclasses implement `estimate(y, sigma)`; `forward` checks its input first, so that no denoiser
    repeats the checks.

    Shapes: y is (batch, *event), an empty batch too; sigma is a positive float, a 0-d tensor or a
    tensor (batch,), in the units of y; the result has y's shape, dtype and device. Half precision
    is computed in float32. Autocast and torch.compile are for networks: a denoiser without
    parameters runs as it does without them. The result for a row never depends on the other rows.
    Raises ValueError naming the value and the remedy when y or sigma breaks this.

    `small`: options of an example that is quick to test. The tests add images where the class, or
    its `from_points`, takes `points`, and a network's `seed`.
    """

    event_shape: tuple[int, ...] | None = None  # None: any shape
    small: ClassVar[dict[str, Any]] = {}
    _kept: tuple[list[tuple[Tensor, int]], dict] | None = None

    def forward(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        wide = y.float() if y.dtype in HALF else y
        if y.is_inference() and not torch.is_inference_mode_enabled():  # autograd could not save it
            wide = wide.clone()
        level = checked_sigma(wide, sigma, self.event_shape)
        if y.shape[0] == 0:  # not len, which would fix the size of the batch in an export
            return y.clone()
        altered = torch.compiler.is_compiling() and not exporting()
        altered = altered or torch.is_autocast_enabled(y.device.type)
        if altered and next(self.parameters(), None) is None:
            return _as_it_is(self.estimate, wide, level).to(y.dtype)
        return self.estimate(wide, level).to(y.dtype)

    def keep(self, **tensors: Tensor) -> None:
        """Register tensors, not trained, that follow the denoiser to a device and a precision."""
        for name, value in tensors.items():
            self.register_buffer(name, value)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        if tensor is not None and tensor.is_inference():  # autograd could not save it
            tensor = tensor.clone()
        super().register_buffer(name, tensor, persistent)

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """make(), computed once for each key, and again when the buffers have moved or were loaded
        into."""
        now = [(t, t._version) for t in self.buffers()]
        state, found = self._kept or ([], {})
        if len(now) != len(state) or any(
            a is not b or v != w for (a, v), (b, w) in zip(now, state, strict=True)
        ):
            found = {}
        self._kept = now, found  # at once: threads share it
        if key not in found:
            with torch.inference_mode(False), torch.no_grad():  # what is kept serves outside, too
                found[key] = make()
        return found[key]

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        """x_hat for checked input: sigma is 0-d or (batch, 1, ..., 1), of y's dtype, float32 or
        float64."""
        raise NotImplementedError


class Network(Denoiser):
    """A denoiser whose weights are trained and kept, with the `arguments` of which its class builds
    it again.

    A subclass, wherever it is defined, sets them in `__init__`, such as JSON can hold, draws its
    weights from one called `seed`, and can then stand in a row of the table of networks. One that
    takes `data_std` is told the standard deviation of its training images.
    """

    arguments: dict[str, Any]


@uncompiled
def _as_it_is(estimate: Callable[[Tensor, Tensor], Tensor], y: Tensor, sigma: Tensor) -> Tensor:
    with torch.autocast(y.device.type, enabled=False):
        return estimate(y, sigma)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Weights made in this block come from `seed`; the global generator stays as the reader left
    it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(checked_seed(seed))
        yield


@uncompiled
def per_level(
    y: Tensor, sigma: Tensor, estimate: Callable[[Tensor, float | Tensor], Tensor]
) -> Tensor:
    """Call `estimate(rows, level)` once per distinct noise level: for denoisers that are fitted
    anew at each sigma.

    While a graph is exported the one level is a tensor without a value: the denoiser looks it up
    with `nearest_level`. Raises ValueError where sigma has no value, under vmap, or its derivative
    would be lost.
    """
    if exporting() and sigma.ndim == 0:
        return estimate(y, sigma)
    try:
        levels = sigma.flatten().tolist()
    except RuntimeError:  # of vmap: each value would be many
        levels = []
    if not levels or differentiated(sigma):
        raise ValueError(
            "sigma is under vmap or differentiated, and this denoiser is fitted anew at each level: pass a batch with "
            "sigma (batch,) instead of vmap, a difference quotient instead of the derivative"
        )
    if sigma.ndim == 0:
        return estimate(y, levels[0])
    rows: dict[float, list[int]] = {}
    for row, level in enumerate(levels):
        rows.setdefault(level, []).append(row)
    x_hat = torch.cat([estimate(y[here], level) for level, here in rows.items()])
    order = [row for here in rows.values() for row in here]
    return x_hat[sorted(range(len(order)), key=order.__getitem__)]


def nearest_level(levels: Tensor, sigma: Tensor) -> Tensor:
    """Index of the level nearest to sigma in log sigma, a 0-d tensor."""
    return (levels.to(sigma).log() - sigma.log()).abs().argmin()


def score(denoiser: Denoiser, y: Tensor, sigma: float | Tensor) -> Tensor:
    """The score that a denoiser implies, (D(y, sigma) - y) / sigma^2, shape of y (Miyasawa 1961;
    Tweedie's formula). Proved: `thm-tweedie`."""
    wide = y.float() if y.dtype in HALF else y  # whose squares of small sigma would be 0
    return ((denoiser(wide, sigma) - wide) / checked_sigma(wide, sigma) ** 2).to(y.dtype)
