"""Denoisers that see an image through windows: the local machines and masks, as posterior means
over patches."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..checks import checked_points, exporting
from ..kernels.local import checked_window, local_mean
from ..kernels.masked import masked_mean
from .base import Denoiser, nearest_level, per_level


class LocalMean(Denoiser):
    r"""A local machine as a denoiser: `helpers.kernels.local.local_mean` with a window that may
    depend on the noise.

    LS, ELS and boundary-broken ELS of Kamb & Ganguli (ICML 2025) and PSPC-Square of Niedoba et al.
    (ICML 2025) for `machine` "local", "equivariant", "boundary" and "composite"; `padding` and the
    limits of patch as there.

    points (N, C, H, W) or (N, H, W). patch: a side in pixels, or a table {sigma: side}, from which
    the level nearest in
    log sigma is taken: the papers measure the side of a network's window noise level by noise
    level. Raises ValueError for other input, and NotImplementedError where a graph is exported: it
    has no such loop.

    >>> images = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)])
    >>> half = torch.tensor([[0.0, 0.0, 0.0, 1.0]]).repeat(4, 1)
    >>> LocalMean(images, patch=3)(half[None], 0.1)[0, 0].round()
    tensor([0., 0., 0., 0.])
    """

    def __init__(
        self,
        points: Tensor,
        patch: int | dict[float, int],
        machine: str = "local",
        padding: str = "zeros",
    ):
        super().__init__()
        points = checked_points(points)
        self.event_shape, self.machine, self.padding = tuple(points.shape[1:]), machine, padding
        table = patch if isinstance(patch, dict) else {1.0: patch}
        if not table or not all(0 < level < float("inf") for level in table):
            raise ValueError(
                f"patch has levels {list(table)}: pass {{sigma: side}} with each sigma positive and finite"
            )
        self.sides = [
            checked_window(side, machine, padding, self.event_shape[-2:]) for side in table.values()
        ]
        self.register_buffer("levels", torch.tensor(list(table), dtype=torch.float64))
        self.register_buffer("points", points)

    levels: Tensor
    points: Tensor

    def side(self, sigma: float) -> int:
        """The window's side at noise sigma."""
        return self.sides[int(nearest_level(self.levels, torch.tensor(sigma, dtype=torch.float64)))]

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        _refuse_export(self)
        points = self.points.to(y)

        def mean(rows: Tensor, level: float | Tensor, side: int) -> Tensor:
            return local_mean(points, rows, level, side, self.machine, self.padding)

        if len(self.sides) == 1:  # all levels at once
            return mean(y, sigma.flatten() if sigma.ndim else sigma, self.sides[0])
        return per_level(y, sigma, lambda rows, level: mean(rows, level, self.side(float(level))))


class MaskedMean(Denoiser):
    r"""Each coordinate from the coordinates that its mask shows:
    `helpers.kernels.masked.masked_mean` as a denoiser.

    points (N, C, H, W) or (N, H, W). masks: a tensor (d, d) or (H W, d), d = C H W, or a function
    of sigma that gives one, called once per noise level, for example `lambda s:
    wiener_masks(covariance, s)` for Lukoianov et al. (NeurIPS 2025). composite=True averages whole
    masked estimates: PSPC-Flex of Niedoba et al. (ICML 2025). Raises ValueError for other input,
    and NotImplementedError where a graph is exported.
    """

    def __init__(
        self, points: Tensor, masks: Tensor | Callable[[float], Tensor], composite: bool = False
    ):
        super().__init__()
        points = checked_points(points)
        self.event_shape, self.composite = tuple(points.shape[1:]), composite
        self.register_buffer("points", points)
        self.register_buffer("fixed", masks if isinstance(masks, Tensor) else None)
        self.masks = None if isinstance(masks, Tensor) else masks

    points: Tensor
    fixed: Tensor | None

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        _refuse_export(self)
        points = self.points.to(y)
        if self.masks is None:
            level = sigma.flatten() if sigma.ndim else sigma
            return masked_mean(points, y, level, self.fixed, self.composite)
        masks = self.masks
        return per_level(
            y, sigma, lambda rows, s: masked_mean(points, rows, s, masks(float(s)), self.composite)
        )


def _refuse_export(denoiser: Denoiser) -> None:
    if exporting():
        name = type(denoiser).__name__
        raise NotImplementedError(
            f"{name} cannot be exported as a graph: export PosteriorMean or a network instead"
        )
