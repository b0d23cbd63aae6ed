"""A network for each noise level, as Levine & Weiss 2026 release theirs."""

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...checks import checked_seed, exporting, positive
from ..base import Network, per_level
from ..known import classes


class PerLevel(Network):
    """D(y, sigma) = D_k(y, sigma_k), with sigma_k the level nearest to sigma in log sigma and D_k a
    network of its own.

    Sample it at its levels and nowhere else. A normalisation by the batch, which a network for all
    levels cannot have since each level has a variance of its own, is at home here: train with the
    noise ("levels", *levels), whose batches hold one level each. levels: positive, in any order.
    network: the name of a class of `Network`; options: its own; the networks differ in their seed,
    from options["seed"] on. y as the network takes it.
    """

    small = {"levels": [0.1, 1.0, 9.0], "blocks": 1, "channels": 4}

    def __init__(self, levels: Sequence[float], network: str = "UNet", **options: Any):
        super().__init__()
        known = {name: cls for name, cls in classes().items() if cls is not PerLevel}
        if network not in known:
            raise ValueError(f"network is {network!r}: choose one of {', '.join(known)}")
        self.levels = [
            float(positive("a level", level, "take a positive number")) for level in levels
        ]
        if not self.levels or len(set(self.levels)) < len(self.levels):
            raise ValueError(f"levels is {self.levels}: pass one or more noise levels, each once")
        self.arguments = {"levels": self.levels, "network": network, **options}
        first = checked_seed(options.get("seed", 0))
        self.networks = nn.ModuleList(
            known[network](**{**options, "seed": first + k}) for k in range(len(self.levels))
        )
        one = self.networks[0]
        self.event_shape, self.data_std = one.event_shape, getattr(one, "data_std", 0.5)

    def estimate(self, y: Tensor, sigma: Tensor) -> Tensor:
        if exporting():
            raise NotImplementedError(
                "PerLevel cannot be exported as a graph: export one of its networks"
            )
        return per_level(y, sigma, self._estimate)

    def _estimate(self, y: Tensor, sigma: float | Tensor) -> Tensor:
        k = min(range(len(self.levels)), key=lambda i: abs(math.log(self.levels[i] / float(sigma))))
        return self.networks[k](y, self.levels[k])
