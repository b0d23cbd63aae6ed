"""The protocol that every denoiser of the book obeys, and the two lines that turn a denoiser into a score."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ..checks import checked_seed, checked_sigma, exporting


class Denoiser(nn.Module):
    """A map D(y, sigma) -> x_hat that estimates a clean x from y = x + sigma n, n ~ N(0, I).

    Subclasses implement `estimate(y, sigma)`; `forward` checks its input first, so that no denoiser repeats the checks.

    Shapes: y is (batch, *event); sigma is a positive float, a 0-d tensor or a tensor (batch,), in the units of y;
    the result has y's shape and dtype. The result for a row never depends on the other rows.
    Raises ValueError naming the value and the remedy when y or sigma breaks this.
    """

    event_shape: tuple[int, ...] | None = None  # None: any shape

    def forward(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        return self.estimate(y, checked_sigma(y, sigma, self.event_shape))

    def keep(self, **tensors: Tensor) -> None:
        """Register tensors that are not trained but follow the denoiser to a device and a precision."""
        for name, value in tensors.items():
            self.register_buffer(name, value)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        """x_hat for checked input: sigma is 0-d or (batch, 1, ..., 1), of y's dtype."""
        raise NotImplementedError


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Weights made in this block come from `seed`; the global generator stays as the reader left it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(checked_seed(seed))
        yield


def per_level(y: Tensor, sigma: Tensor, estimate: Callable[[Tensor, float | Tensor], Tensor]) -> Tensor:
    """Call `estimate(rows, level)` once per distinct noise level: for denoisers that are fitted anew at each sigma.

    While a graph is exported the one level is a tensor without a value: the denoiser looks it up with `nearest_level`.
    """
    if sigma.ndim == 0:
        return estimate(y, sigma if exporting() else float(sigma))
    x_hat = torch.empty_like(y)
    for level in sigma.unique():
        rows = (sigma == level).flatten()
        x_hat[rows] = estimate(y[rows], float(level))
    return x_hat


def nearest_level(levels: Tensor, sigma: Tensor) -> Tensor:
    """Index of the level nearest to sigma in log sigma, a 0-d tensor."""
    return (levels.to(sigma).log() - sigma.log()).abs().argmin()


def score(denoiser: Denoiser, y: Tensor, sigma: float | Tensor) -> Tensor:
    """The score that a denoiser implies, (D(y, sigma) - y) / sigma^2, shape of y (Miyasawa 1961; Tweedie's formula)."""
    return (denoiser(y, sigma) - y) / checked_sigma(y, sigma) ** 2
