"""Closed-form machines against trained networks: windows calibrated on the network's paths, samples
from one noise."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ... import metrics, sampling
from ...denoisers.base import Denoiser


class Calibration(NamedTuple):
    """Which window makes a machine most like a network, level by level."""

    sigmas: Tensor  # (L,), the levels
    sides: tuple[int, ...]
    cosines: Tensor  # (L, sides, batch): of the scores of machine and network

    def best(self) -> list[int]:
        """At each level the median over the noises of each noise's best side, always one of
        `sides`.

        Of an even number of noises the lower median. Of equal cosines the smaller side.
        """
        return [self.sides[i] for i in self.cosines.argmax(1).median(1).values.tolist()]

    def table(self) -> dict[float, int]:
        """{sigma: side}, the `patch` of `LocalMean`. Each level keeps its own side.

        The released code of Kamb & Ganguli (2025) stores the side of one step with its neighbour:
        off by one.
        """
        return dict(zip(self.sigmas.tolist(), self.best(), strict=True))


@torch.no_grad()
def calibrate(
    network: Denoiser,
    machine: Callable[[int], Denoiser],
    start: Tensor,
    sigmas: Tensor,
    sides: Sequence[int],
) -> Calibration:
    r"""Compare machines of several windows with a network where the network itself goes.

        c(sigma, side, b) = <D_net(y) - y, D_side(y) - y> / (|D_net(y) - y| |D_side(y) - y|),
        y = y_b(sigma),

    the cosine of the two scores at the states y_b(sigma) of the network's own Euler (DDIM) path, as
    Kamb & Ganguli (ICML 2025) choose the sides of their machines. At large sigma both scores are
    nearly -y / sigma^2 and every cosine
    is near 1: what chooses a side there are its last digits.

    machine: builds the denoiser of a side, as `lambda side: LocalMean(points, side)`. start (batch,
    *event) at sigmas[0]; sigmas a schedule that ends in 0. Costs len(sides) machine calls a level.
    Raises ValueError for no sides, or sides that do not increase.
    """
    if not sides or list(sides) != sorted(set(sides)):
        raise ValueError(
            f"sides is {list(sides)}: pass increasing window sides, as range(3, 28, 2)"
        )
    machines = [machine(side) for side in sides]
    y, cosines = start, []
    for state in sampling.euler(network, start, sigmas):
        sigma = float(sigmas[state.step - 1])
        net = (state.x_hat - y).flatten(1).double()
        own = [(closed(y, sigma) - y).flatten(1).double() for closed in machines]
        cosines.append(torch.stack([torch.cosine_similarity(net, s, dim=1) for s in own]))
        y = state.y
    return Calibration(sigmas[:-1], tuple(sides), torch.stack(cosines))


def compare(theory: Tensor, network: Tensor) -> dict[str, Tensor]:
    """How well samples of a theory foretell a network's from the same noise, per image (batch,),
    three measures.

    "r": Pearson's, the number in the tables of Kamb & Ganguli (2025). "r^2": its square, the number
    that their text names. "R^2": the share of the network's variance that the theory explains, of
    Lukoianov et al. (2025). They are
    three numbers for one pair of pictures: see `metrics.pearson` and `metrics.determination`.
    """
    r = metrics.pearson(theory, network)
    return {"r": r, "r^2": r**2, "R^2": metrics.determination(theory, network)}
