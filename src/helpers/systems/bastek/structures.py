"""A diffusion that designs plates for a load it is told: the network, its loss, and how designs are
judged."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import scipy.ndimage
import torch
from safetensors.torch import load
from torch import Tensor, nn

from ... import recorded
from ...denoisers.base import drawn_from
from ...denoisers.networks.attention import AttentionUNet
from ...denoisers.networks.hearing import preconditioned
from ...sampling import cosine_vp, initial_noise, last, reverse_sde
from .physics import VirtualObservation, data_weight
from .plates import Cases, Plate

OBJECTIVES, HIGHEST = ("work", "adjoint"), 40.0  # level of the start


class Designer(nn.Module):
    r"""D(y, sigma, conditions) of the three fields of a design, x (batch, 3, nodes, nodes):

        u_x / c_0, u_y / c_0, 2 rho - 1,   c_0 the compliance of the solid plate,

    where the last row and column of the third, which lie beside no element, hold -1. As `UNet`,
    conditioned by its preconditioning and with a `SelfAttention` in the middle; the conditions are
    more channels of its input, without noise. width: channels at full resolution.
    """

    told = 7  # channels of the conditions

    def __init__(self, width: int = 12, blocks: int = 2, seed: int = 0):
        super().__init__()
        self.arguments = {"width": width, "blocks": blocks, "seed": seed}
        self.data_std = 0.8
        options = {"normalisation": "none", "bias": True, "blind": False, "level": "scale"}
        self.unet = AttentionUNet(blocks, width, 3, seed=seed, **options)  # type: ignore[arg-type]
        with drawn_from(seed):
            self.unet.encoder[0][0] = nn.Conv2d(3 + self.told, width, 3, padding=1)

    def forward(self, y: Tensor, sigma: Tensor, conditions: Tensor) -> Tensor:
        level = torch.as_tensor(sigma, dtype=y.dtype, device=y.device).reshape(-1, 1, 1, 1)

        def f(z: Tensor, heard: Tensor) -> Tensor:
            both = torch.cat([z, conditions.to(z)], 1).to(self.unet.encoder[0][0].weight.dtype)
            return self.unet.network(both, heard.flatten(1).to(both)).to(y)

        return preconditioned(y, level, self.data_std, f)

    def given(self, conditions: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The denoiser of those conditions, for samplers: (y, sigma) -> x_hat."""
        return lambda y, sigma: self(y, sigma, conditions)


def conditions(plate: Plate, cases: Cases) -> Tensor:
    """What a Designer is told, (batch, 7, nodes, nodes) float32: where it is held, the load (2), the
    volume, the displacement of the solid plate over its compliance (2), and the logarithm of its
    energy, element by element, over the mean."""
    held = 1 - cases.free[:, :1]
    volume = (10 * (cases.volume - 0.4))[:, None, None, None].expand_as(held)
    solid = cases.solid / cases.compliance[:, None, None, None]
    energy = plate.energy(cases.solid)
    energy = (energy / energy.mean((1, 2), keepdim=True)).clamp(min=1e-3).log() / 4
    energy = nn.functional.pad(energy, (0, 1, 0, 1))[:, None]
    return torch.cat([held, cases.f, volume, solid, energy], 1).float()


def channels(rho: Tensor, u: Tensor, cases: Cases) -> Tensor:
    """x of a design and its displacement, in their dtype; the inverse of `fields`."""
    u = u / cases.compliance[:, None, None, None].to(u)
    return torch.cat([u, 2 * nn.functional.pad(rho, (0, 1, 0, 1))[:, None].to(u) - 1], 1)


def fields(x: Tensor, cases: Cases) -> tuple[Tensor, Tensor]:
    """rho (batch, nodes - 1, nodes - 1), not held to [0, 1], and u of x, in its dtype."""
    return (x[:, 2, :-1, :-1] + 1) / 2, x[:, :2] * cases.compliance[:, None, None, None].to(x)


def generated(
    designer: Designer, plate: Plate, cases: Cases, steps: int = 50, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """rho and u that the designer draws for the cases, a step of reverse diffusion for each of
    `steps` levels of a cosine schedule; on the CPU, where plates are solved. See `fields`."""
    told = conditions(plate, cases).to(next(designer.parameters()).device)
    shape = (len(told), 3, plate.nodes, plate.nodes)
    noise = initial_noise(*shape, sigma=HIGHEST, seed=seed, dtype=torch.float32).to(told.device)
    x = last(reverse_sde(designer.given(told), noise, cosine_vp(steps, HIGHEST), seed))
    return fields(x.cpu(), cases)


def shipped() -> Designer:
    """The designer of the chapter, made by `python benchmarks/structures.py ships`.

    Raises ValueError for a file that is not the recorded one.
    """
    sha256, designer = recorded.load("structures")["ships"]["sha256"], Designer()
    designer.load_state_dict(load(recorded.weights("structures", sha256)))
    return designer.eval()


class Weights(NamedTuple):
    """Of the virtual observations: equilibrium, the volume's inequality, the objective; and which.

    objective "work": c = u.K(rho) u / c_0 with both fields as generated, as the released code has
    it. "adjoint": -u.K(rho) u / c_0 with u held fixed, whose slope in rho is the slope of the
    compliance where u is in equilibrium. Proved: `prop-objective`.
    """

    residual: float = 0.0
    volume: float = 0.0
    compliance: float = 0.0
    objective: str = "work"


def observations(plate: Plate, cases: Cases, weights: Weights) -> list[VirtualObservation]:
    """The penalties of a batch with those cases, those of weight 0 left out."""
    if weights.objective not in OBJECTIVES:
        raise ValueError(
            f"objective is {weights.objective!r}: choose one of {', '.join(OBJECTIVES)}"
        )

    def residual(x: Tensor) -> Tensor:
        return plate.residual(*fields(x, cases), cases)

    def excess(x: Tensor) -> Tensor:
        return fields(x, cases)[0].mean((1, 2)) - cases.volume.to(x)

    def compliance(x: Tensor) -> Tensor:
        rho, u = fields(x, cases)
        u, sign = (u.detach(), -1) if weights.objective == "adjoint" else (u, 1)
        u = u * cases.free.to(u)
        return sign * (u * plate.forces(rho, u)).sum((1, 2, 3)) / cases.compliance.to(x)

    listed = (
        (residual, weights.residual, "equality"),
        (excess, weights.volume, "inequality"),
        (compliance, weights.compliance, "objective"),
    )
    return [VirtualObservation(*one) for one in listed if one[1]]


def matching(designer: nn.Module, x: Tensor, sigma: Tensor, noise: Tensor, told: Tensor,
             seen: list[VirtualObservation]) -> Tensor:  # fmt: skip
    """The paper's loss of a batch: min(1 / sigma^2, 5) |D - x|^2, and what is observed."""
    y = x + sigma.view(-1, 1, 1, 1) * noise
    x_hat = designer(y, sigma, told)
    loss = (data_weight(sigma) * (x_hat - x).square().mean((1, 2, 3))).mean()
    return loss + sum(one(None, y, sigma, x_hat) for one in seen)  # type: ignore[arg-type]


# Judging ------------------------------------------------------------------------------------------


def black_and_white(rho: Tensor, volume: Tensor) -> Tensor:
    """The stiffest elements of each design solid, as many as its volume allows, the others void: no
    gray, and no design that is light or heavy; shape of rho."""
    flat = rho.flatten(1)
    rank = flat.argsort(1, descending=True).argsort(1)
    return (rank < (volume * flat.shape[1]).round()[:, None]).view_as(rho).double()


def carries(rho: Tensor, cases: Cases) -> tuple[Tensor, Tensor]:
    """Of designs that are 0 or 1: whether the solid parts at the load's node reach what is held, and
    how many parts hang loose, (batch,) each. Parts are joined by whole sides."""
    reached, loose = [], []
    for one, f, free in zip(rho.numpy(force=True), cases.f, cases.free, strict=True):
        parts, count = scipy.ndimage.label(one > 0.5)
        at = np.pad(parts, 1)  # an element is above and below, left and right of its nodes
        near = np.stack(
            [at[r : r + len(one) + 1, c : c + len(one) + 1] for r in (0, 1) for c in (0, 1)]
        )
        loaded = {*near[:, f.norm(dim=0).numpy(force=True) > 0].flat} - {0}
        held = {*near[:, free[0].numpy(force=True) == 0].flat} - {0}
        reached.append(bool(loaded & held))
        loose.append(count - len(held))
    return torch.tensor(reached), torch.tensor(loose)


def judged(
    plate: Plate, rho: Tensor, cases: Cases, best: Tensor, u: Tensor | None = None
) -> dict[str, Tensor]:
    r"""Of each design, (batch,) float64, against the optimiser's, `best`:

    compliance: c / c_best - 1, of the densities as they are, cut to [0, 1]; so a heavy design may be
    below 0. compliance, black and white: the same of both after `black_and_white`. volume:
    |mean rho - V| / V. excess: mean rho / V - 1, below 0 for a light design. loose: 1 where a solid
    part hangs loose, black and white. broken: 1 where no solid part joins the load and a support.
    distance: mean |rho - best|. re-solve: |u - solve(rho)| / |solve(rho)| for a generated u.
    """
    rho, cut = (
        rho.double().clamp(0, 1),
        [black_and_white(r.double(), cases.volume) for r in (rho, best)],
    )
    solved = plate.solve(rho, cases)
    c = [(cases.f * solved).sum((1, 2, 3))]
    c += [plate.compliance(r, cases) for r in (best, *cut)]
    reached, loose = carries(cut[0], cases)
    found = {
        "compliance": c[0] / c[1] - 1,
        "compliance, black and white": c[2] / c[3] - 1,
        "volume": (excess := rho.mean((1, 2)) / cases.volume - 1).abs(),
        "excess": excess,
        "loose": (loose > 0).double(),
        "broken": (~reached).double(),
        "distance": (rho - best).abs().mean((1, 2)),
    }
    if u is not None:
        found["re-solve"] = (u.double() * cases.free - solved).flatten(1).norm(
            dim=1
        ) / solved.flatten(1).norm(dim=1)
    return found


def nearest(designs: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The mean |difference| from each design to the nearest of `known`, and which, (batch,) each."""
    apart = torch.cdist(designs.flatten(1).double(), known.flatten(1).double(), p=1)
    least = apart.min(1)
    return least.values / designs[0].numel(), least.indices
