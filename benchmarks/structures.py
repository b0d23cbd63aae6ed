"""Plates designed by a diffusion, trained and measured: `python benchmarks/structures.py [SECTION
...]`. Needs no data.

data: how long the optimiser takes for the designs that are learned from and those that are held out;
kept in build/train/structures.
networks: trains the designers of VARIANTS, without physics and with the paper's, three seeds, each
of which begins anew; some minutes of a core for a seed, and what was killed goes on from there.
Measures after each share of the training, and at its end on all held-out cases.
ships: writes the designer that the chapter runs to src/helpers/recorded/structures.safetensors.
starts: the optimiser stopped early, from the even plate and from what is drawn or copied.
baselines: what stands in the same table without a network.

Sections are written to src/helpers/recorded/structures.json; *Structures that carry* draws them.
"""

import copy
import functools
import hashlib
import json
import time
from dataclasses import replace

import record
import torch
from record import encoded
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from helpers.files import write_atomically
from helpers.systems.bastek.plates import Cases, Plate
from helpers.systems.bastek.structures import (
    Designer,
    Weights,
    channels,
    conditions,
    generated,
    judged,
    matching,
    nearest,
    observations,
)
from helpers.training import Recipe, fit

PLATE, TRAINED, TEST, ITERATIONS = Plate(), 2000, 128, 40
FOLDER = record.ROOT / "build/train/structures"
SEEDS = 3
# all of a seed begin as the same network without physics, and go on for as long with theirs
FIRST = Recipe(
    steps=4000, batch=32, rate=2e-3, noise=("cosine", 0.02, 40.0), warmup=50, clip=1.0, ema=0.998
)
RECIPE = replace(FIRST, steps=1500, rate=1e-3, ema=0.995, seed=1)
VARIANTS = {
    "no physics": Weights(),
    "residual": Weights(1e-3),
    "weak residual": Weights(1e-4),
    "residual, volume, adjoint": Weights(1e-3, 1.0, 1e-3, "adjoint"),
    "residual, volume, work": Weights(1e-3, 1.0, 1e-3, "work"),
}
SHIPS = "no physics"
LOOKS = (500, 1000, 1500, 2000, 4000)
SHOWN = range(6)  # held-out cases whose designs are kept as pictures


@functools.cache
def designs(split: str) -> tuple[Cases, Tensor]:
    """Cases and the optimiser's designs for them, kept in 8 bits."""
    n, seed = {"train": (TRAINED, 0), "test": (TEST, 1)}[split]
    file, cases = FOLDER / f"{split}-{n}.safetensors", PLATE.cases(n, seed)
    if not file.exists():
        parts = [
            PLATE.simp(cases[torch.arange(i, min(i + 100, n))], ITERATIONS)
            for i in range(0, n, 100)
        ]
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"rho": (255 * torch.cat(parts)).round().byte()}, file)
    return cases, load_file(file)["rho"].double() / 255


def data() -> dict:
    (cases, rho), (known, learned) = designs("test"), designs("train")
    residual = PLATE.residual(rho, PLATE.solve(rho, cases), cases).abs().max()
    begun = time.process_time()
    PLATE.simp(cases, ITERATIONS)
    return {
        "trained": TRAINED, "held out": TEST, "iterations": ITERATIONS,
        "seconds per design": round((time.process_time() - begun) / TEST, 4),
        "nearest": short(nearest(rho, learned)[0]), "residual": float(f"{residual:.2g}"),
        "gray": float(f"{((rho > 0.1) & (rho < 0.9)).double().mean():.3g}"),
        "loads": len(known.f.norm(dim=1).flatten(1).argmax(1).unique()),
    }  # fmt: skip


def short(values: Tensor, digits: int = 4) -> list[float]:
    return [float(f"{v:.{digits}g}") for v in values.tolist()]


def trained(
    name: str, weights: Weights, seed: int, recipe: Recipe = RECIPE
) -> tuple[Designer, list]:
    """The designer at the end, and what it made at each of LOOKS, after so many seconds of a core."""
    cases, rho = designs("train")
    x, told = channels(rho, PLATE.solve(rho, cases), cases).float(), conditions(PLATE, cases)
    single = Cases(*(v.float() for v in tuple(cases)))
    begun = time.process_time()
    designer = Designer(seed=seed) if recipe is FIRST else copy.deepcopy(first(seed)[0])
    recipe = replace(recipe, seed=recipe.seed + 2 * seed)

    def loss(step: int, g: torch.Generator) -> Tensor:
        i = torch.randint(len(x), (recipe.batch,), generator=g)
        sigma = RECIPE.levels(recipe.batch, g)
        noise = torch.randn(x[i].shape, generator=g)
        return matching(
            designer, x[i], sigma, noise, told[i], observations(PLATE, single[i], weights)
        )

    key = hashlib.sha256(repr((weights, recipe, TRAINED)).encode()).hexdigest()[:8]
    file, seen = (FOLDER / f"{name}-{seed}-{key}.{kind}" for kind in ("safetensors", "json"))
    looks = json.loads(seen.read_text()) if seen.exists() and file.exists() else []
    for now in fit(designer, loss, recipe, x, file):
        if now.step in LOOKS and now.step not in [look["step"] for look in looks]:
            spent = {"step": now.step, "seconds": round(time.process_time() - begun)}
            looks.append(spent | medians(measured(now.denoiser, 64, seed)))
            write_atomically(seen, json.dumps(looks))
            print(name, seed, looks[-1], flush=True)
    return designer, looks


@functools.cache
def first(seed: int) -> tuple[Designer, list]:
    return trained("first", Weights(), seed, FIRST)


def measured(designer: Designer, n: int, seed: int) -> dict[str, Tensor]:
    """Of each held-out case, `judged`, and how far the nearest training design is."""
    cases, best = (part[torch.arange(n)] for part in designs("test"))
    rho, u = generated(designer, PLATE, cases, seed=seed)
    found = judged(PLATE, rho, cases, best, u)
    found["residual"] = PLATE.residual(rho.double(), u.double(), cases).abs().mean((1, 2, 3))
    return found | {"nearest": nearest(rho.clamp(0, 1), designs("train")[1])[0]}


def medians(found: dict[str, Tensor]) -> dict[str, float]:
    """Shares of what is 0 or 1, medians of the rest."""
    middle = {k: v.mean() if k in ("loose", "broken") else v.median() for k, v in found.items()}
    return {k: float(f"{v:.4g}") for k, v in middle.items()}


def pictures(rho: Tensor) -> str:
    """Designs (n, side, side) beside each other, a PNG in base64."""
    return encoded((255 * rho.clamp(0, 1)).round().transpose(0, 1).flatten(1), "PNG", optimize=True)


def row(name: str, seed: int) -> dict:
    """All that is recorded of a training; measured once."""
    file = FOLDER / f"{name}-{seed}-row.json"
    if file.exists():
        return json.loads(file.read_text())
    (designer, looks), (cases, _) = trained(name, VARIANTS[name], seed), designs("test")
    shown = cases[torch.tensor(SHOWN)]
    several = torch.stack([generated(designer, PLATE, shown, seed=s)[0] for s in range(3)])
    # less those with themselves
    apart = (several[:, None] - several[None]).abs().mean() * 3 / 2
    found = {
        "curves": looks,
        "held out": {k: short(v) for k, v in measured(designer, TEST, seed).items()},
        "pictures": pictures(several[0]),
        "spread": float(f"{apart:.4g}"),
    }
    file.write_text(json.dumps(found))
    return found


def together(rows: list[dict]) -> dict:
    """The rows of the seeds of a variant: a list for each number, and the pictures of seed 0."""
    held_out = {
        key: [short(torch.tensor(r["held out"][key]), 3) for r in rows]
        for key in rows[0]["held out"]
    }
    return {
        "curves": [r["curves"] for r in rows],
        "held out": held_out,
        "pictures": rows[0]["pictures"],
        "spread": [r["spread"] for r in rows],
    }


def networks() -> dict:
    rows = {name: together([row(name, s) for s in range(SEEDS)]) for name in VARIANTS}
    designer, _ = first(0)
    begun = time.process_time()
    generated(designer, PLATE, designs("test")[0])
    return {
        "steps": RECIPE.steps,
        "batch": RECIPE.batch,
        "seeds": SEEDS,
        "weights": {name: weights._asdict() for name, weights in VARIANTS.items()},
        **{key: {name: found[key] for name, found in rows.items()} for key in rows[SHIPS]},
        "seconds per design": round((time.process_time() - begun) / TEST, 4),
        "first": [first(s)[1] for s in range(SEEDS)],
        "parameters": sum(w.numel() for w in designer.parameters()),
    }


def ships() -> dict:
    designer, _ = trained(SHIPS, VARIANTS[SHIPS], 0)
    data = save({k: v.half().contiguous() for k, v in designer.state_dict().items()})
    write_atomically(record.path("structures").with_suffix(".safetensors"), data)
    return {"name": SHIPS, "sha256": hashlib.sha256(data).hexdigest()}


def baselines() -> dict:
    (cases, best), (known, learned) = designs("test"), designs("train")
    told, asked = (conditions(PLATE, c).flatten(1) for c in (known, cases))
    alike = torch.cdist(asked, told).argmin(1)
    others = {
        "gray": cases.volume[:, None, None].expand_as(best),
        "nearest task": learned[alike],
        "shuffled": best.roll(1, 0),
        **{f"SIMP, {k} steps": PLATE.simp(cases, k) for k in (3, 5, 10, 20)},
        "optimiser": best,
    }
    found = {}
    for name, rho in others.items():
        values = judged(PLATE, rho, cases, best) | {"nearest": nearest(rho, learned)[0]}
        found[name] = {k: short(v) for k, v in values.items()}
    shown = torch.tensor(SHOWN)
    _, copied = nearest(best[shown], learned)
    kept = {
        "nearest task": pictures(learned[alike[shown]]),
        "nearest design": pictures(learned[copied]),
    }
    return {"rows": found, "pictures": kept}


def starts(n: int = 64) -> dict:
    """The optimiser after few steps, from gray, from the copier's design and from the network's."""
    cases, best = (part[torch.arange(n)] for part in designs("test"))
    known, learned = designs("train")
    told, asked = (conditions(PLATE, c).flatten(1) for c in (known, cases))
    drawn = [
        generated(trained(SHIPS, VARIANTS[SHIPS], s)[0], PLATE, cases, seed=s)[0]
        for s in range(SEEDS)
    ]
    begins: dict[str, list] = {
        "gray": [None],
        "nearest task": [learned[torch.cdist(asked, told).argmin(1)]],
        SHIPS: drawn,
    }
    return {
        name: {
            str(k): [
                short(judged(PLATE, PLATE.simp(cases, k, start), cases, best)["compliance"])
                for start in several
            ]
            for k in (1, 2, 3)
        }
        for name, several in begins.items()
    }


if __name__ == "__main__":
    record.main(
        __doc__,
        "structures",
        {
            "data": data,
            "networks": networks,
            "ships": ships,
            "starts": starts,
            "baselines": baselines,
        },
    )
