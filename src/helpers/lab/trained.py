"""A network of the trainer's page, trained by torch, and what is exact about what it generates."""

import math
from typing import Any

import torch
from torch import Tensor

from .. import density, metrics, sampling
from ..checks import checked_points
from ..denoisers import GaussianMixture, PosteriorMean
from ..noise import normal
from . import steps

EXTENT, BLUR, DENSITY_STEPS = 3.0, 0.1, 24
CELLS = density.grid(EXTENT, 48)
SIZE, LEVELS, PARTICLES, REFERENCE = 128, 12, 500, 2000
SIGMAS = sampling.edm(20, sigma_min=0.02, sigma_max=steps.HIGH).float().double().tolist()
LAST = 2**31 - 1  # a stream of noise that no step reaches
RECENT = 96  # steps, of which each of LEVELS networks has equally many


class Training:
    """A network of the page and its training by torch. settings: the state with one side's choices."""

    def __init__(self, points: Tensor, settings: dict[str, Any], law: Any = None):
        self.law, self.steps, self.seed = law, int(settings["steps"]), int(settings["seed"])
        self.points = checked_points(points)
        self.rate, self.losses = float(settings["rate"]), list[float]()
        options = {"activation": settings["activation"], "skip": settings["skip"] == "yes"}
        widths = [int(settings["width"])] * int(settings["depth"])
        if settings["narrow"] != "none":
            widths[len(widths) // 2] = int(settings["narrow"])
        polynomial = settings["kind"] == "polynomial"
        if polynomial:
            options["degree"] = int(settings["degree"])
        else:
            options |= {"widths": tuple(widths), "hears": settings["level"] != "not told"}
        self.apart = polynomial or settings["level"] == "one each"
        self.denoiser: steps.Layers | steps.Levels
        if self.apart:
            self.denoiser = steps.Levels(LEVELS, seed=self.seed, **options)
            self.networks = list(self.denoiser.networks)
        else:
            self.denoiser = steps.Layers(seed=self.seed, **options)
            self.networks = [self.denoiser]
        self.optimisers = [torch.optim.Adam(n.parameters(), self.rate) for n in self.networks]

    @property
    def step(self) -> int:
        """How many are done."""
        return len(self.losses)

    def next(self) -> float:
        """One step; the loss of its batch."""
        i = self.step % len(self.networks)
        x, y, a, b, c, t, w = self.rows(self.step + 1).split([2, 2, 1, 1, 1, 1, 1], 1)
        loss = (w * (self.networks[i].formed(y, a, b, c, t) - x).square()).mean()
        for group in self.optimisers[i].param_groups:
            group["lr"] = self.rate * (1 + math.cos(math.pi * self.step / self.steps)) / 2
        self.optimisers[i].zero_grad()
        loss.backward()
        if not loss.isfinite():
            raise ValueError(
                f"the loss is {float(loss)} at step {self.step + 1}: lower the learning rate"
            )
        self.optimisers[i].step()
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def rows(self, step: int, size: int = SIZE, stream: int = 0) -> Tensor:
        """What that step, from 1, takes; or other draws for its network, from a stream of theirs."""
        i = (step - 1) % len(self.networks)
        sigma = self.denoiser.sigma(i) if self.apart else 0.0
        drawn = steps.batch(self.points, size, stream or step, self.seed, sigma)
        return steps.rows(self.networks[i], drawn)

    def copied(self, rows: Tensor) -> float:
        """The copier's loss on the rows of a step."""
        x, y, *_, w = rows.double().split([2, 2, 1, 1, 1, 1, 1], 1)
        x_hat = PosteriorMean(self.points)(y, (w[:, 0] - 1) ** -0.5)
        return float((w * (x_hat - x).square()).mean())

    def run(self, steps: int | None = None) -> list[float]:
        """So many steps, or all that are left; their losses."""
        left = self.steps - self.step
        return [self.next() for _ in range(left if steps is None else min(steps, left))]

    def frames(self, seed: int | None = None) -> Tensor:
        """Start and every later point of the particles, (21, PARTICLES, 2), by Heun's sampler."""
        z = normal(PARTICLES, 2, seed=self.seed if seed is None else seed)
        y, sigmas = steps.HIGH * z, torch.tensor(SIGMAS, dtype=torch.float64)
        with torch.no_grad():
            return sampling.trajectory(y, sampling.heun(self.denoiser, y, sigmas))

    def log_density(self) -> Tensor:
        """log of the generated density at the noise BLUR on the grid, exact for the flow."""
        return density.generated_log_density(
            self.denoiser, CELLS.points, BLUR, steps.HIGH, DENSITY_STEPS
        )

    def look(self, asked: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What static/files.js tells and draws: numbers, and arrays. asked: seed, and perhaps density,
        and a lattice (2 n,) with its sigma."""
        frames, known = self.frames(int(asked["seed"])), len(self.points.unique(dim=0)) > 1
        inside, kept = frames[-1].abs().amax(1) <= EXTENT, metrics.finite(frames[-1])
        reference = None if self.law is None else self.law.sample(REFERENCE, seed=1)

        def copies(y: Tensor | None) -> float | None:
            return (
                metrics.share_of_copies(y, self.points)
                if known and y is not None and len(y)
                else None
            )

        numbers = {"copies": copies(kept), "chance": copies(reference)}
        numbers["outside"] = PARTICLES - int(inside.sum())
        told, arrays = {"numbers": numbers}, {"frames": frames.float()}
        if asked.get("lattice"):
            lattice = torch.tensor(asked["lattice"], dtype=torch.float64).view(-1, 2)
            with torch.no_grad():
                arrays["answers"] = self.denoiser(lattice, float(asked["sigma"])).float()
        if asked.get("density"):
            log_q = self.log_density()
            arrays["generated"] = pictured(log_q)
            laws = {"target": self.law, "copier": GaussianMixture(self.points)}
            told |= {
                name: apart(law.log_prob(CELLS.points, BLUR), log_q)
                for name, law in laws.items()
                if law is not None
            }
            told["above"] = self.above()
        return told, arrays

    def weights(self) -> int:
        return sum(p.numel() for p in self.denoiser.parameters())

    def floor(self) -> float:
        """The copier's mean loss, the least that there is, by 2048 rows of a stream of their own."""
        count = len(self.networks)
        rows = [self.rows(i + 1, 2048 // count, LAST) for i in range(count)]
        return sum(map(self.copied, rows)) / count

    def above(self) -> float | None:
        """Mean over the last RECENT steps of their loss less the copier's, on the same batches."""
        done = range(max(0, self.step - RECENT), self.step)
        gaps = [self.losses[t] - self.copied(self.rows(t + 1)) for t in done]
        return sum(gaps) / len(gaps) if gaps else None


def apart(log_p: Tensor, log_q: Tensor) -> float:
    """The total variation of two laws on the grid, as the mass of p that q lacks, which is right
    where q lies outside of the grid, in part or in all, and where only q is thinner than a cell."""
    return float((log_p.exp() - log_q.exp()).clamp(min=0).sum() * CELLS.cell)


def pictured(log_p: Tensor, power: float = 0.7) -> Tensor:
    """A density's power on the grid as 8-bit rows from the top, brightest at its own peak."""
    p = (power * (log_p - log_p.max())).exp().view(CELLS.n, CELLS.n).T.flip(0)
    return (255 * p.nan_to_num()).round().to(torch.uint8).contiguous()
