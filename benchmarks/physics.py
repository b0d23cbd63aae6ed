"""Physics in the loss, where it is slow: `python benchmarks/physics.py [SECTION ...]`. Needs no
data.

sweep: networks on Darcy flow, without physics and with virtual observations of several kinds and
weights, three seeds but for the largest weight; residual, distribution and re-solve error of what
each generates. A training takes a minute or two and is kept in build/train/physics: a run that was
killed goes on from there.
corrections: what moving samples down their residual makes of those of the networks without physics.
circle: small networks on a law on the circle, beside the best denoisers there are, three seeds.

Each section is written to src/helpers/recorded/physics.json when it is done; *Diffusion that obeys
physics* draws it.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

import record
import torch
from record import rounded

from helpers.denoisers import MLP, Denoiser, UNet
from helpers.experiments import runner
from helpers.experiments.zoo import zoo
from helpers.metrics import sliced_w2
from helpers.sampling import cosine_vp, initial_noise, last, reverse_sde
from helpers.systems.bastek.darcy import Corrected, Darcy, darcy, error_spectrum, report
from helpers.systems.bastek.physics import CircleDenoiser, CircleLaw, PhysicsRecipe
from helpers.training import run, train

SEEDS, SAMPLES, STEPS, SIGMA = 3, 128, 100, 40.0
CASES = (  # estimate, weight, below, seeds
    ("mean", 0.0, None, SEEDS), ("mean", 1e-7, None, SEEDS), ("mean", 1e-6, None, SEEDS), ("mean", 1e-5, None, SEEDS),
    ("mean", 1e-4, None, 1), ("mean", 1e-6, 0.5, SEEDS), ("mean", 1e-4, 0.5, 1), ("sample", 1e-6, None, SEEDS),
)  # fmt: skip
LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 15.0)
FLOW = Darcy()


@functools.cache
def held_out() -> torch.Tensor:
    return darcy("test", 1000).images


def trained(estimate: str, weight: float, below: float | None, seed: int) -> UNet:
    """The network of the zoo's entry without physics, with its recipe but for the penalty and the
    seed."""
    entry = zoo()["darcy-vanilla"]
    changes = {"weight": weight, "estimate": estimate, "below": below, "seed": seed}
    options, recipe = {**entry.options, "seed": seed}, replace(entry.recipe, **changes)
    state = record.ROOT / f"build/train/physics/{estimate}-{weight:g}-{below}-{seed}.safetensors"
    state.parent.mkdir(parents=True, exist_ok=True)
    return runner.trained(replace(entry, options=options, recipe=recipe), state=state)[0]


def generated(denoiser: Denoiser, n: int = SAMPLES, seed: int = 0) -> torch.Tensor:
    noise = initial_noise(
        n, 2, FLOW.size, FLOW.size, sigma=SIGMA, seed=100 + seed, dtype=torch.float32
    )
    return last(reverse_sde(denoiser, noise, cosine_vp(STEPS, SIGMA), seed=seed))


@torch.no_grad()
def at_levels(network: Denoiser) -> dict[str, list]:
    """Mean squared error, and mean residual, of what the network makes of noisy held-out pairs."""
    x, error, residual = held_out()[:256], [], []
    for sigma in LEVELS:
        x_hat = network(
            x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(3)), sigma
        )
        error.append(float((x_hat - x).square().mean()))
        residual.append(float(FLOW.residual(x_hat).abs().mean()))
    return {"error": rounded(error, 6), "residual of the mean": rounded(residual, 4)}


def short(numbers: dict[str, float]) -> dict[str, float]:
    return {k: float(f"{v:.5g}") for k, v in numbers.items()}


def spectrum(x: torch.Tensor, bins: int = 15) -> dict[str, list]:
    """Squared error and squared residual, summed over equal ranges of rank, smallest eigenvalue
    first.

    Medians over 32 pairs: a permeability that is not positive leaves an error without bound.
    """
    squares, values = error_spectrum(FLOW, x[:32])
    found = {
        "error": squares,
        "residual": squares * values**2,
        "eigenvalue": values.abs() * bins / values.shape[1],
    }
    summed = {k: v.unflatten(1, (bins, -1)).sum(2).median(0).values for k, v in found.items()}
    return {k: [float(f"{v:.4g}") for v in values] for k, values in summed.items()}


def sweep() -> dict:
    rows = []
    for estimate, weight, below, seeds in CASES:
        for seed in range(seeds):
            network = trained(estimate, weight, below, seed)
            x = generated(network, seed=seed)
            found = {"estimate": estimate, "weight": weight, "below": below, "seed": seed}
            found |= short(report(FLOW, x, held_out())) | at_levels(network)
            rows.append(found | ({"spectrum": spectrum(x)} if seed == 0 else {}))
            print(rows[-1], flush=True)
    floors = [short(report(FLOW, FLOW.sample(SAMPLES, 10 + s), held_out())) for s in range(SEEDS)]
    entry = zoo()["darcy-vanilla"]
    about = {"steps": entry.recipe.steps, "batch": entry.recipe.batch, "pairs": entry.data["n"]}
    return {
        "samples": SAMPLES,
        "levels": list(LEVELS),
        "training": about,
        "rows": rows,
        "fresh data": floors,
    }


def corrections(below: float = 0.2, counts: Sequence[int] = (3, 30, 300)) -> dict:
    """`steps` of descent at every level of at most `below`; and the solver, on the same
    permeabilities."""
    rows = []
    for seed in range(SEEDS):
        network = trained("mean", 0.0, None, seed)
        for steps in counts:
            x = generated(Corrected(network, FLOW, steps, below), seed=seed)
            rows.append({"steps": steps, "seed": seed} | short(report(FLOW, x, held_out())))
            rows[-1] |= {"spectrum": spectrum(x)} if seed == 0 else {}
            print(rows[-1], flush=True)
        _, K = FLOW.fields(generated(network, seed=seed).double())
        x = FLOW.channels(FLOW.solve(K), K)
        rows.append({"steps": "solver", "seed": seed} | short(report(FLOW, x, held_out())))
    return {"samples": SAMPLES, "below": below, "rows": rows}


def circle(steps: int = 1000, samples: int = 2000) -> dict:
    law, rows = CircleLaw([0.0, 2.1, 4.2], [8.0, 8.0, 8.0], [0.5, 0.3, 0.2]), []
    reference, schedule = law.sample(samples, seed=1000), cosine_vp(STEPS, SIGMA)
    recipe = PhysicsRecipe(
        steps=steps, batch=256, noise=("cosine", 0.0157, SIGMA), loss="snr", ema=0.998
    )
    for seed in range(SEEDS):
        points = law.sample(10_000, seed=seed).float()
        for estimate, weight in (("mean", 0.0), ("mean", 0.01), ("mean", 0.1), ("sample", 0.005)):
            r = replace(recipe, weight=weight, estimate=estimate, seed=seed)
            network = MLP(128, 3, data_std=0.7, seed=seed)
            run(train(network, points, r, penalty=r.penalty(law.residual)))
            x = last(
                reverse_sde(
                    network,
                    initial_noise(samples, 2, sigma=SIGMA, seed=100 + seed),
                    schedule,
                    seed=seed,
                )
            )
            y = (
                reference
                + 2
                * torch.randn(reference.shape, generator=torch.Generator().manual_seed(3)).double()
            )
            with torch.no_grad():
                x_hat, m = network(y, 2.0), CircleDenoiser(law)(y, 2.0)
            rows.append({"estimate": estimate, "weight": weight, "seed": seed} | short({
                "residual": float(law.residual(x).abs().mean()),
                "sliced W2": sliced_w2(x, reference),
                "off the posterior mean": math.sqrt(float((x_hat - m).square().sum(1).mean())),
            }))  # fmt: skip
            print(rows[-1], flush=True)
    floor = [
        short({"w": sliced_w2(law.sample(samples, 2000 + s), reference)})["w"] for s in range(SEEDS)
    ]
    return {"steps": steps, "samples": samples, "level": 2.0, "rows": rows, "fresh data": floor}


if __name__ == "__main__":
    record.main(__doc__, "physics", {"sweep": sweep, "corrections": corrections, "circle": circle})
