"""Physics in the loss, where it is slow: `python benchmarks/physics.py [SECTION ...]`. Needs no
data.

weighting: networks on Darcy flow with the paper's weights of the data term and with the book's,
without physics and with virtual observations of several kinds and weights; three lengths of
training, three seeds but for the longest; residual, distribution and re-solve error of what each
generates, beside baselines that have learned nothing.
rivals: the networks without physics, corrected, guided and solved as they sample.
overfitting: sixty-four training pairs, with and without physics, over the time of training.
inequality: permeabilities that are to be no less than those of the training pairs.
circle: small networks on a law on the circle, beside the best denoisers there are, three seeds.

A training takes minutes and is kept in build/train/physics: a run that was killed goes on from
there. Each section is written to src/helpers/recorded/physics.json when it is done; *Diffusion that
obeys physics* draws it.
"""

import functools
import json
import math
from collections.abc import Callable
from dataclasses import replace

import record
import torch
from record import rounded

from helpers.denoisers import MLP, Denoiser
from helpers.experiments import runner
from helpers.experiments.entry import Entry
from helpers.experiments.zoo import zoo
from helpers.files import write_atomically
from helpers.metrics import sliced_w2
from helpers.sampling import initial_noise, last, reverse_sde
from helpers.systems.bastek.darcy import Corrected, Darcy, darcy, error_spectrum, report
from helpers.systems.bastek.physics import (
    HIGHEST,
    LOWEST,
    CircleDenoiser,
    CircleLaw,
    Guided,
    PhysicsRecipe,
    VirtualObservation,
    levels,
)
from helpers.training import run, train

SEEDS, SAMPLES = 3, 128
SHOWN = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)  # levels at which errors are told
FLOW, BASE = Darcy(), zoo()["darcy-vanilla"]
STEPS = BASE.recipe.steps
MEAN, SAMPLE = {"estimate": "mean"}, {"estimate": "sample", "weight": 1e-5}
WEIGHTS = {0.0: SEEDS, 1e-5: 1, 1e-4: SEEDS}  # of mean estimation, and their seeds
LONG = (
    0.0,
    1e-4,
)  # those that are also trained for a quarter of the steps, and for four times as many
STUDY = [  # the data weight, what is observed, length of training, seeds
    *((loss, {**MEAN, "weight": c}, STEPS, n) for loss, most in (("min-snr", SEEDS), ("snr", 1))
      for c, n in {**WEIGHTS, 1e-3: most}.items()),
    *((loss, SAMPLE, STEPS, SEEDS) for loss in ("min-snr", "snr")),
    *(("snr", {**MEAN, "weight": c}, steps, 1) for c in LONG for steps in (STEPS // 4, 4 * STEPS)),
]  # fmt: skip


@functools.cache
def held_out() -> torch.Tensor:
    return darcy("test", 1000).images


def entry(seed: int, n: int | None = None, **recipe) -> Entry:
    """The zoo's entry without physics, but for what is said."""
    return replace(
        BASE,
        options={**BASE.options, "seed": seed},
        data={**BASE.data, **({"n": n} if n else {})},
        recipe=replace(BASE.recipe, seed=seed, **recipe),
    )


def trained(
    made: Entry,
    look: Callable[[Denoiser], dict] | None = None,
    dues: tuple[int, ...] = (),
    residual: Callable | None = None,
) -> tuple[Denoiser, list[dict]]:
    """Its network, and what `look` saw of it after so many steps; both are kept."""
    folder = record.ROOT / "build/train/physics"
    folder.mkdir(parents=True, exist_ok=True)
    state = folder / f"{made.key()}.safetensors"
    kept = state.with_suffix(".json")
    seen = json.loads(kept.read_text()) if kept.exists() else {}
    data = runner.source(**made.data)
    network = runner.untrained(made, data)
    penalty = made.recipe.penalty(residual or FLOW.residual)
    for progress in train(network, data.images, made.recipe, state, penalty=penalty):
        if look and progress.step in dues and str(progress.step) not in seen:
            seen[str(progress.step)] = {"steps": progress.step} | look(progress.denoiser)
            write_atomically(kept, json.dumps(seen))
    return network, list(seen.values())


def generated(denoiser: Denoiser, n: int = SAMPLES, seed: int = 0, every: int = 1) -> torch.Tensor:
    """Pairs drawn by the paper's ancestral steps, or by every so many of them."""
    noise = initial_noise(n, 2, FLOW.size, FLOW.size, sigma=HIGHEST, seed=100 + seed)
    steps = torch.cat([levels()[:-1][::every], torch.zeros(1)])
    return last(reverse_sde(denoiser, noise.float(), steps, seed=seed))


@torch.no_grad()
def errors(network: Denoiser, x: torch.Tensor) -> dict[str, list]:
    """Mean squared error, and mean residual, of what the network makes of noisy pairs."""
    error, residual = [], []
    for sigma in SHOWN:
        x_hat = network(record.noisy(x, sigma), sigma)
        error.append(float((x_hat - x).square().mean()))
        residual.append(float(FLOW.residual(x_hat).abs().mean()))
    return {"error": rounded(error, 6), "residual of the mean": rounded(residual, 4)}


def short(numbers: dict[str, float]) -> dict[str, float]:
    return {k: float(f"{v:.5g}") for k, v in numbers.items()}


def judged(x: torch.Tensor) -> dict[str, float]:
    return short(report(FLOW, x, held_out()))


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


def weighed(loss: str, observed: dict, steps: int, seed: int) -> dict:
    """All that is recorded of a training of STUDY; measured once."""
    made = entry(seed, loss=loss, steps=steps, **observed)
    file = record.ROOT / f"build/train/physics/{made.key()}-row.json"
    if file.exists():
        return json.loads(file.read_text())
    network, _ = trained(made)
    x = generated(network, seed=seed)
    found = {"loss": loss, **observed, "steps": steps, "seed": seed} | judged(x)
    found |= errors(network, held_out()[:256]) | ({"spectrum": spectrum(x)} if seed == 0 else {})
    write_atomically(file, json.dumps(found))
    return found


def weighting() -> dict:
    rows = [weighed(*case, seed) for *case, seeds in STUDY for seed in range(seeds)]
    return {"samples": SAMPLES, "levels": list(SHOWN), "rows": rows, "baselines": baselines()}


def baselines() -> dict[str, list[dict]]:
    """What needs no learning, three draws: fresh pairs, and what is made of them."""
    rows: dict[str, list[dict]] = {}
    for seed in range(SEEDS):
        x = FLOW.sample(SAMPLES, 10 + seed)
        mean = FLOW.channels(*FLOW.fields(held_out())).mean(0)[0]
        made = {
            "fresh data": x[:, 0],
            "no pressure": 0 * x[:, 0],
            "mean pressure": mean.expand(len(x), -1, -1),
            "pressures shuffled": x[:, 0].roll(1, 0),
            "a quarter of the pressure": x[:, 0] / 4,
        }
        for name, p in made.items():
            rows.setdefault(name, []).append(judged(torch.stack([p, x[:, 1]], 1)))
    return rows


def rivals(below: float = 0.2) -> dict:
    """Passages through the network for each pair are counted, one back as two."""
    rows = []
    for seed in range(SEEDS):
        network, _ = trained(entry(seed, **MEAN, weight=0.0))

        def add(kind: str, strength: float, x: torch.Tensor, passages: int, seed=seed) -> None:
            row = {"kind": kind, "strength": strength, "seed": seed, "passages": passages}
            rows.append(row | judged(x) | ({"spectrum": spectrum(x)} if seed == 0 else {}))
            print(rows[-1], flush=True)

        for steps in (3, 30, 300):
            corrected = Corrected(network, FLOW, steps, below)
            add("corrected", steps, generated(corrected, seed=seed), len(levels()) - 1)
        for weight in (1e-7, 3e-7, 1e-6):  # from 1e-5 on its steps are unstable
            guided = Guided(network, FLOW.residual, weight)
            add("guided", weight, generated(guided, seed=seed, every=3), len(levels()) - 1)
        plain = generated(network, seed=seed)
        add("every third step", 0.0, generated(network, seed=seed, every=3), len(levels()) // 3)
        p, K = FLOW.fields(plain.double())
        add("a quarter of the pressure", 0.0, FLOW.channels(p / 4, K), len(levels()) - 1)
        add("solved", 0.0, FLOW.channels(FLOW.solve(K), K), len(levels()) - 1)
    return {"samples": SAMPLES, "below": below, "rows": rows}


def overfitting(n: int = 64) -> dict:
    dues, rows = tuple(STEPS // 16 * 2**k for k in range(4)), []
    x = {"training": darcy("train", n).images, "test": held_out()[:256]}

    def look(network: Denoiser) -> dict:
        made = generated(network)
        near = {k: torch.cdist(made.flatten(1), v[:n].flatten(1)).amin(1) for k, v in x.items()}
        closer = float((near["training"] < near["test"] / 2).double().mean())
        seen = {k: errors(network, v) for k, v in x.items()}
        return seen | judged(made) | {"copies": closer}

    for observed in ({**MEAN, "weight": 0.0}, {**MEAN, "weight": 1e-4}):
        for seed in range(SEEDS):
            _, seen = trained(entry(seed, n=n, steps=dues[-1], **observed), look, dues)
            rows.append({**observed, "seed": seed, "seen": seen})
            print(rows[-1], flush=True)
    return {"n": n, "levels": list(SHOWN), "rows": rows}


def inequality() -> dict:
    least = float(FLOW.fields(darcy("train", BASE.data["n"]).images)[1].min())
    rows = []
    for weight in (0.0, 1.0):
        for seed in range(SEEDS):
            told = {**MEAN, "weight": weight, "kind": "inequality" if weight else "equality"}
            network, _ = trained(entry(seed, **told), residual=lambda x: least - FLOW.fields(x)[1])
            x = generated(network, 4 * SAMPLES, seed)
            under = (FLOW.fields(x)[1] < least).flatten(1).any(1).double().mean()
            rows.append(
                {"weight": weight, "seed": seed, "below the least": float(under)} | judged(x)
            )
            print(rows[-1], flush=True)
    return {"samples": 4 * SAMPLES, "least": least, "rows": rows}


def circle(lengths: tuple[int, ...] = (1000, 4000), samples: int = 2000) -> dict:
    law, rows = CircleLaw([0.0, 2.1, 4.2], [8.0, 8.0, 8.0], [0.5, 0.3, 0.2]), []
    reference = law.sample(samples, seed=1000)
    recipe = PhysicsRecipe(batch=256, noise=("cosine", LOWEST, HIGHEST), ema=0.998)
    cases = [(0.0, "mean"), (0.01, "mean"), (0.1, "mean"), (0.005, "sample")]
    for loss, steps, (weight, estimate) in (
        (loss, steps, case) for loss in ("min-snr", "snr") for steps in lengths for case in cases
    ):
        for seed in range(SEEDS):
            points = law.sample(10_000, seed=seed).float()
            network = MLP(128, 3, data_std=0.7, seed=seed)
            r = replace(recipe, steps=steps, loss=loss, seed=seed)
            seen = VirtualObservation(law.residual, weight, estimate=estimate)
            run(train(network, points, r, penalty=seen if weight else None))
            noise = initial_noise(samples, 2, sigma=HIGHEST, seed=100 + seed)
            x = last(reverse_sde(network, noise, levels(), seed=seed))
            y = record.noisy(reference.float(), 2.0).double()
            with torch.no_grad():
                off = network(y, 2.0) - CircleDenoiser(law)(y, 2.0)
            row = {
                "loss": loss,
                "steps": steps,
                "estimate": estimate,
                "weight": weight,
                "seed": seed,
            }
            rows.append(row | short({
                "residual": float(law.residual(x).abs().mean()),
                "sliced W2": sliced_w2(x, reference),
                "off the posterior mean": math.sqrt(float(off.square().sum(1).mean())),
            }))  # fmt: skip
            print(rows[-1], flush=True)
    floor = [
        short({"w": sliced_w2(law.sample(samples, 2000 + s), reference)})["w"] for s in range(SEEDS)
    ]
    return {"samples": samples, "level": 2.0, "rows": rows, "fresh data": floor}


if __name__ == "__main__":
    record.main(__doc__, "physics", {
        "weighting": weighting, "rivals": rivals, "overfitting": overfitting,
        "inequality": inequality, "circle": circle,
    })  # fmt: skip
