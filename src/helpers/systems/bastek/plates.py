r"""Plates that carry a load: finite elements, the classical optimiser, and how designs are judged.

A square plate in plane stress: `nodes` x `nodes` nodes, between them square elements of side 1,
bilinear, Young's modulus 1, Poisson's ratio .3, thickness 1. x goes along columns, y along rows,
both components of a displacement u (batch, 2, nodes, nodes) and of a force f are ordered so: y
points down. A design is a density rho in [0, 1] of each element, (batch, nodes - 1, nodes - 1), and
scales its stiffness by the modulus

    E(rho) = E_0 + (1 - E_0) rho^p,   p = 3, E_0 = 1e-3   (SIMP, Bendsoe & Sigmund 1999),

so that equilibrium is K(rho) u = f at free nodes and u = 0 at supports. The compliance of a design
is c = f.u, the work of the load (twice the energy that is stored): the smaller, the stiffer.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.ndimage
import torch
from skfem import Basis, ElementQuad1, ElementVector, MeshQuad
from skfem.models.elasticity import linear_elasticity, plane_stress
from torch import Tensor

from ...checks import positive_int

POISSON, VOID, POWER = 0.3, 1e-3, 3
SUPPORTS = ("left edge", "corners on the left", "corners below")
CORNERS = ((0, 0), (0, 1), (1, 1), (1, 0))  # of an element: row and column of its nodes


def element_stiffness() -> Tensor:
    """The stiffness of a solid element, (8, 8) float64: x of its four CORNERS, then y; by
    scikit-fem."""
    mesh = MeshQuad(np.array([[0.0, 1, 1, 0], [0, 0, 1, 1]]), np.arange(4)[:, None])
    basis = Basis(mesh, ElementVector(ElementQuad1()))
    K = linear_elasticity(*plane_stress(1.0, POISSON)).assemble(basis)
    dofs = basis.nodal_dofs.ravel()  # (component, node), and the mesh has our nodes in our order
    return torch.from_numpy(K.toarray()[np.ix_(dofs, dofs)])


class Cases(NamedTuple):
    """What a designer is told of a batch of tasks, float64; `Plate.cases` and `tasks`
    make them.

    f: the load (batch, 2, nodes, nodes), one node's force of length 1. free: 1 where a node may
    move in that direction, 0 where it is held. volume: mean density allowed, (batch,). solid: the
    displacement of the plate that is solid everywhere, as f.
    """

    f: Tensor
    free: Tensor
    volume: Tensor
    solid: Tensor

    def __getitem__(self, rows):  # type: ignore[override, no-untyped-def]
        """Those rows of each: a batch, not a field."""
        return Cases(*(field[rows] for field in tuple(self)))

    @property
    def compliance(self) -> Tensor:
        """Of the solid plate, (batch,): no design is stiffer, and our unit of displacement."""
        return (self.f * self.solid).sum((1, 2, 3))


class Plate:
    """Equilibrium of `nodes` x `nodes` nodes."""

    def __init__(self, nodes: int = 24):
        if positive_int("nodes", nodes) < 8:
            raise ValueError(f"nodes is {nodes}: supports are an eighth of a side, take at least 8")
        self.nodes, self.stiffness = nodes, element_stiffness()
        at = 2 * torch.arange(nodes**2).view(nodes, nodes)  # x of a node, then y: a narrow band
        corners = torch.stack([at[r : nodes - 1 + r, c : nodes - 1 + c] for r, c in CORNERS])
        of = torch.cat([corners, corners + 1]).flatten(1)  # (8, elements)
        row, column = (v.numpy() for v in torch.broadcast_tensors(of[:, None], of[None]))
        self._below = row >= column
        self._width = int((row - column).max()) + 1
        self._place = ((row - column) * 2 * nodes**2 + column)[self._below]

    # Equilibrium ----------------------------------------------------------------------------------

    def _corners(self, u: Tensor) -> Tensor:
        """u at the corners of each element, (batch, 8, nodes - 1, nodes - 1)."""
        n = self.nodes - 1
        return torch.stack([u[:, :, r : n + r, c : n + c] for r, c in CORNERS], 2).flatten(1, 2)

    def forces(self, rho: Tensor, u: Tensor) -> Tensor:
        """K(rho) u, (batch, 2, nodes, nodes); differentiable, linear in u."""
        parts = torch.einsum("ij,bjrc->birc", self.stiffness.to(u), self._corners(u))
        parts = (modulus(rho)[:, None] * parts).unflatten(1, (2, 4))
        pad = torch.nn.functional.pad
        return sum(pad(parts[:, :, k], (c, 1 - c, r, 1 - r)) for k, (r, c) in enumerate(CORNERS))  # type: ignore[return-value]

    def residual(self, rho: Tensor, u: Tensor, cases: Cases) -> Tensor:
        """K(rho) u - f at free nodes, 0 at supports, where u is taken for 0; shape of u.

        Proved: `prop-plate-blind`."""
        free = cases.free.to(u)
        return free * (self.forces(rho, free * u) - cases.f.to(u))

    def energy(self, u: Tensor) -> Tensor:
        """u_e.k_0 u_e of each element, were it solid, (batch, nodes - 1, nodes - 1): twice its
        energy."""
        corners = self._corners(u)
        return torch.einsum("birc,ij,bjrc->brc", corners, self.stiffness.to(u), corners)

    def solve(self, rho: Tensor, cases: Cases) -> Tensor:
        """u with residual 0, (batch, 2, nodes, nodes) float64: Cholesky of a banded matrix, one by
        one."""
        E, size = modulus(rho.double()).flatten(1).numpy(force=True), 2 * self.nodes**2
        if E.shape[1] != (self.nodes - 1) ** 2 or len(E) != len(cases.f):
            raise ValueError(
                f"rho has shape {tuple(rho.shape)} for {len(cases.f)} cases: pass (batch, {self.nodes - 1}, "
                f"{self.nodes - 1})"
            )
        free = cases.free.permute(0, 2, 3, 1).flatten(1).numpy(force=True)
        f = cases.f.permute(0, 2, 3, 1).flatten(1).numpy(force=True) * free
        k = np.broadcast_to(self.stiffness.numpy()[..., None], self._below.shape)[self._below]
        element = np.broadcast_to(np.arange(E.shape[1]), self._below.shape)[self._below]
        lower, column = np.divmod(self._place, size)
        solved = []
        for modulus_, held, load in zip(E, free, f, strict=True):
            entries = k * modulus_[element] * held[column] * held[column + lower]
            band = np.bincount(self._place, entries, self._width * size).reshape(-1, size)
            band[0] += 1 - held
            solved.append(scipy.linalg.solveh_banded(band, load, lower=True, check_finite=False))
        u = torch.from_numpy(np.stack(solved)).view(-1, self.nodes, self.nodes, 2)
        return u.permute(0, 3, 1, 2).to(rho.device)

    # Tasks and designs ----------------------------------------------------------------------------

    def tasks(
        self,
        supports: Sequence[int],
        nodes: Sequence[tuple[int, int]],
        angles: Sequence[float],
        volumes: Sequence[float],
    ) -> Cases:
        """Tasks of your own: which of SUPPORTS, the node that is loaded (row, column), the angle of
        the force, from x towards y, in radians, and the volume, a share of the plate.

        Raises ValueError for lists of unequal length, a support or a node that is none, and a volume
        that is no share.
        """
        counts = [len(supports), len(nodes), len(angles), len(volumes)]
        if len(set(counts)) != 1 or not nodes:
            raise ValueError(
                f"{counts} supports, nodes, angles, volumes: pass one of each for every task"
            )
        if any(s not in range(len(SUPPORTS)) for s in supports):
            raise ValueError(
                f"supports are {list(supports)}: take 0 to {len(SUPPORTS) - 1}, of {', '.join(SUPPORTS)}"
            )
        if not all(0 < v <= 1 for v in volumes):
            raise ValueError(
                f"volumes are {list(volumes)}: a volume is a share of the plate, above 0, at most 1"
            )
        side, eighth = self.nodes, self.nodes // 8
        held = torch.zeros(len(SUPPORTS), side, side, dtype=torch.float64)
        held[0, :, 0] = held[1, :eighth, 0] = held[1, -eighth:, 0] = 1
        held[2, -1, :eighth] = held[2, -1, -eighth:] = 1
        held, f = held[list(supports)], torch.zeros(len(nodes), 2, side, side, dtype=torch.float64)
        for i, ((row, column), angle) in enumerate(zip(nodes, angles, strict=True)):
            if not (0 <= row < side and 0 <= column < side) or held[i, row, column]:
                raise ValueError(
                    f"node ({row}, {column}) is held or is none: load another, of {side} x {side}"
                )
            f[i, :, row, column] = torch.tensor(
                [math.cos(angle), math.sin(angle)], dtype=torch.float64
            )
        cases = Cases(
            f, (1 - held)[:, None].expand_as(f), torch.tensor(volumes, dtype=torch.float64), f
        )
        return cases._replace(solid=self.solve(torch.ones(len(f), side - 1, side - 1), cases))

    def cases(self, n: int, seed: int = 0) -> Cases:
        """n tasks: one of SUPPORTS, a force at a node of the boundary at least a quarter of the side
        from what is held, its angle uniform in half a turn, the volume uniform in [.3, .5]."""
        g, side = np.random.default_rng(seed), self.nodes
        kinds, angles = g.integers(len(SUPPORTS), size=positive_int("n", n)), np.pi * g.random(n)
        edge = np.ones((side, side), bool)
        edge[1:-1, 1:-1] = False
        allowed = []
        for kind in range(len(SUPPORTS)):
            held = 1 - self.tasks([kind], [(1, side // 2)], [0.0], [1.0]).free[0, 0].numpy()
            near = scipy.ndimage.binary_dilation(held, np.ones((3, 3)), iterations=side // 4)
            allowed.append(np.argwhere(edge & ~near))
        nodes = [tuple(allowed[kind][g.integers(len(allowed[kind]))]) for kind in kinds]
        return self.tasks(
            kinds.tolist(), nodes, angles.tolist(), (0.3 + 0.2 * g.random(n)).tolist()
        )

    def compliance(self, rho: Tensor, cases: Cases) -> Tensor:
        """f.u of the solution, (batch,) float64. Proved: `prop-compliance`."""
        return (cases.f * self.solve(rho, cases)).sum((1, 2, 3))

    def simp(
        self, cases: Cases, steps: int = 50, start: Tensor | None = None, radius: float = 1.5,
        move: float = 0.2,
    ) -> Tensor:  # fmt: skip
        r"""Designs of the classical optimiser, (batch, nodes - 1, nodes - 1) float64: SIMP by the
        optimality criteria, as in the 88 lines of Andreassen et al. 2011.

        `steps` times, from the even plate, or from designs `start` held to [.1, 1], as void would
        stay void: solve; dc/drho by `prop-compliance`; carry it back
        through the filter, a mean over elements with weights max(0, radius - distance); and
        z <- z sqrt(-c'/l) within `move` and [0, 1], with l so that the volume is kept. rho is z
        filtered. One step costs one solution.
        """
        n, reach = self.nodes - 1, int(np.ceil(radius)) - 1
        at = torch.arange(-reach, reach + 1, dtype=torch.float64)
        cone = (radius - (at[:, None] ** 2 + at**2).sqrt()).clamp(min=0)[None, None]

        def spread(z: Tensor) -> Tensor:
            return torch.nn.functional.conv2d(z[:, None], cone, padding=reach)[:, 0]

        norm, volume = spread(torch.ones(1, n, n).double()), cases.volume[:, None, None]
        z = volume.expand(-1, n, n) if start is None else start.double().clamp(0.1, 1)
        even = spread(1 / norm.expand_as(z))  # how much of the volume an element of z makes
        for _ in range(steps):
            rho = spread(z) / norm
            slope = (1 - VOID) * POWER * rho ** (POWER - 1) * self.energy(self.solve(rho, cases))
            gain = spread(slope / norm) / even
            low, high = torch.full_like(volume, 1e-9), torch.full_like(volume, 1e9)
            for _ in range(60):
                level = (low * high).sqrt()
                wanted = z * (gain / level).sqrt()
                new = wanted.clamp(min=z - move, max=z + move).clamp(0, 1)
                above = (spread(new) / norm).mean((1, 2), keepdim=True) > volume
                low, high = torch.where(above, level, low), torch.where(above, high, level)
            z = new
        return spread(z) / norm


def modulus(rho: Tensor) -> Tensor:
    """E(rho), its shape: no element is weaker than void or stiffer than solid, whatever rho."""
    return VOID + (1 - VOID) * rho.clamp(0, 1) ** POWER
