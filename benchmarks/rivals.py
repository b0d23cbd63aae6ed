"""Rivals of Permenter & Yuan's sampler at few evaluations, by the schedulers of diffusers: `python
benchmarks/rivals.py [SECTION ...]`.

digits-rivals: the exact denoiser of 8x8 digits with a ball of fog around each (needs
scikit-learn). clothes-rivals: the UNet of 5000 pieces of clothing. clothes-start: gradient
estimation and a fine solver on it, from the level at which the rivals start.

Each section is written to src/helpers/recorded/projection.json beside those of
`benchmarks/projection.py`; *Denoising is projection* draws it.
"""

from collections.abc import Callable
from functools import partial

import diffusers
import record
import torch
from projection import WIDTH, Case, digits, rounded
from torch import Tensor

from helpers import realism, sampling
from helpers.denoisers import Denoiser
from helpers.systems.permenter_yuan import projection, rivals


def samplers(unit: float) -> dict[str, Callable[[Denoiser, Tensor, int], Tensor]]:
    """Name: (denoiser, standard normal noise, evaluations) to samples. The rivals as
    diffusers builds them."""

    def ours(make: Callable[[int], Tensor], gamma: float) -> Callable:
        def run(denoiser: Denoiser, noise: Tensor, steps: int) -> Tensor:
            sigmas = unit * make(steps).to(noise)
            states = sampling.gradient_estimation(denoiser, sigmas[0] * noise, sigmas, gamma)
            return sampling.last(states)

        return run

    def theirs(make: Callable) -> Callable:
        return lambda *a: sampling.last(rivals.scheduled(make(), *a, unit=unit))

    multistep = {
        "DPM-Solver++(2M)": diffusers.DPMSolverMultistepScheduler,
        "DEIS": diffusers.DEISMultistepScheduler,
        "UniPC": diffusers.UniPCMultistepScheduler,
    }
    return {
        "DDIM": ours(sampling.ddim_linear, 1.0),
        "gradient estimation": ours(projection.permenter_yuan, 2.0),
        "PNDM": theirs(partial(diffusers.PNDMScheduler, skip_prk_steps=True)),
        **{name: theirs(make) for name, make in multistep.items()},
    }


def compared(
    denoiser: Denoiser,
    noises: list[Tensor],
    finely: Callable[[Tensor], Tensor],
    unit: float,
    counts: tuple[int, ...],
    judge: Callable[[int, Tensor], dict[str, float]],
) -> list[dict]:
    """For each sampler and count the measures of `judge(seed, samples)`, a number a seed, and "off":
    the root mean square distance of a value to the fine solution from the same noise."""
    fine, rows = [finely(noise) for noise in noises], []
    for name, run in samplers(unit).items():
        for steps in counts:
            found = []
            for seed, noise in enumerate(noises):
                part = 25 if noise.ndim > 2 else len(noise)
                made = torch.cat([run(denoiser, y, steps) for y in noise.split(part)])
                off = float((made - fine[seed]).square().mean().sqrt())
                found.append(judge(seed, made) | {"off": off})
            measures = {key: rounded([row[key] for row in found]) for key in found[0]}
            rows.append({"sampler": name, "evaluations": steps, **measures})
    return rows


def digits_rivals(n: int = 1000, seeds: int = 4) -> dict:
    law = projection.KernelDensity(digits(), WIDTH)
    real = [law.sample(n, seed=100 + seed) for seed in range(seeds)]
    more = [law.sample(n, seed=200 + seed) for seed in range(seeds)]
    noises = [sampling.initial_noise(n, 64, sigma=1.0, seed=seed) for seed in range(seeds)]
    rows = compared(
        law,
        noises,
        lambda z: sampling.last(sampling.heun(law, 40 * z, sampling.edm(60, 0.01, 40.0))),
        1.0,
        (5, 10, 14, 20, 28, 50),
        lambda seed, made: {"frechet": realism.frechet(real[seed], made)},
    )
    floor = rounded([realism.frechet(a, b) for a, b in zip(real, more, strict=True)])
    return {"samples": n, "seeds": seeds, "width": WIDTH, "floor": floor, "rows": rows}


def clothes_rivals(n: int = 250, seeds: int = 4) -> dict:
    case = Case("clothes")
    noises = [
        sampling.initial_noise(n, case.size, case.size, sigma=1.0, seed=seed).float()
        for seed in range(seeds)
    ]
    sigmas = sampling.edm(25, 0.005, 20.0).float()

    def finely(noise: Tensor) -> Tensor:
        parts = [sampling.heun(case.network, 20 * z, sigmas) for z in noise.split(25)]
        return torch.cat([sampling.last(part) for part in parts])

    def judge(seed: int, made: Tensor) -> dict[str, float]:
        return dict(zip(("kid", "fid"), case.distances(case.features(made)), strict=True))

    rows = compared(case.network, noises, finely, 0.5, (5, 10, 20, 50), judge)
    return {"model": case.model, "images": n, "seeds": seeds, "rows": rows}


def clothes_start(n: int = 250, seeds: int = 4) -> dict:
    """Two evaluations a step of the fine solver but the last."""
    case, rows, highest = Case("clothes"), [], float(sampling.ddim_linear(1000)[0])
    for evaluations in (5, 10, 20, 49):
        found = []
        for seed in range(seeds):
            z = sampling.initial_noise(n, case.size, case.size, sigma=1.0, seed=seed).float()
            if fine := evaluations == 49:
                sigmas = sampling.edm(25, 0.005, highest / 2).float()
            else:
                sigmas = projection.permenter_yuan(evaluations, highest).float() / 2
            sampler = sampling.heun if fine else sampling.gradient_estimation
            parts = [sampler(case.network, sigmas[0] * y, sigmas) for y in z.split(25)]
            made = torch.cat([sampling.last(part) for part in parts])
            found.append(case.distances(case.features(made)))
        kid, fid = map(rounded, zip(*found, strict=True))
        name = "fine solver" if fine else "gradient estimation"
        rows.append({"sampler": name, "evaluations": evaluations, "kid": kid, "fid": fid})
    return {"model": case.model, "images": n, "seeds": seeds, "start": highest / 2, "rows": rows}


if __name__ == "__main__":
    sections = {
        "digits-rivals": digits_rivals,
        "clothes-rivals": clothes_rivals,
        "clothes-start": clothes_start,
    }
    record.main(__doc__, "projection", sections)
