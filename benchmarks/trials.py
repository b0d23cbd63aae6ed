"""What makes a small network generate faces at equal CPU time? `python benchmarks/trials.py` (needs
CELEBA_ROOT).

A reference, the recipe with which the zoo trains the networks that generate, and variants of one
change each. A step of each is timed in turns once; then every variant gets as many steps as fill
the same time, with three seeds, each of which decides the network, its training and the noise from
which it samples. A finished trial is kept at once: after a kill the same command goes on, and the
rows of a record that is not whole say how many seeds they have.

Written to src/helpers/recorded/trials.json; *Training a denoiser* draws from it. About an hour and
a half on one core.
"""

import base64
import copy
import statistics
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import record
import torch
from torch import Tensor

from helpers import looks, metrics, models, realism, sampling
from helpers.data import ImageSet, load
from helpers.denoisers import Denoiser, UNet
from helpers.experiments.zoo import BASE, GENERATE, GENERATING
from helpers.recipe import Recipe
from helpers.training import train

NAME, SHEETS = "trials", record.ROOT / "build/trials"
# of a training on one core; the zoo's 500 steps of warm-up would be half of it
SEEDS, SECONDS, WARMUP = 3, 100.0, 100
# images by the reverse SDE and by Heun's method; test images for the PSNR
MADE, BY_HEUN, TESTED = 128, 64, 100
LARGE = (200, 500, 1000)  # of 255: where sampling decides what is in the picture
PART, HEUN = 16, 18  # images at a time, which fit a cache; steps of Heun's method, two calls each
NETWORK: dict[str, Any] = {**GENERATING, "blocks": 3, "channels": 16}
BLIND = {"blocks": 2, "bias": False, "blind": True, "level": "channel"}
ROWS: dict[
    str, tuple[dict[str, Any], dict[str, Any]]
] = {  # what differs in the network, and in the recipe
    "reference": ({}, {}),
    "blind, for the Jacobian": (
        BLIND,
        {k: v for k, v in asdict(BASE).items() if k not in ("steps", "seed", "warmup")},
    ),
    "level as a channel": ({"level": "channel"}, {}),
    "log-uniform law, level weights": (
        {},
        {"noise": ("log-uniform", 0.01, looks.SIGMA_MAX), "loss": "level"},
    ),
    "batch of 32": ({}, {"batch": 32}),
    "two blocks, 24 channels": ({"blocks": 2, "channels": 24}, {}),
    "rate 0.001": ({}, {"rate": 1e-3}),
    "no decay of the rate": ({}, {"decay": "none"}),
}
RAW = "no average of weights"  # the end of the reference's own training, without its average
SHOWN = (
    "blind, for the Jacobian",
    "level as a channel",
    "rate 0.001",
    "no decay of the rate",
    "reference",
)


def network(row: str, data: ImageSet, seed: int = 0) -> UNet:
    options = {**NETWORK, **ROWS[row][0], "image_channels": 3, "seed": seed}
    return UNet(**options, data_std=round(float(data.images.std()), 3))


def recipe(row: str, steps: int, seed: int = 0) -> Recipe:
    return replace(GENERATE, **{**ROWS[row][1], "warmup": WARMUP, "steps": steps, "seed": seed})


def plan(data: ImageSet, rounds: int = 7, each: int = 3) -> dict:
    """Steps that cost what the reference costs: medians over rounds in which all take turns."""
    running = {row: train(network(row, data), data.images, recipe(row, 10**6)) for row in ROWS}
    for steps in running.values():
        next(steps)
    cost: dict[str, list[float]] = {row: [] for row in ROWS}
    for _ in range(rounds):
        for row, steps in running.items():
            start = time.process_time()
            for _ in range(each):
                next(steps)
            cost[row].append((time.process_time() - start) / each)
    # what others do on this machine lengthens a step, nothing shortens it
    least = min(cost["reference"])
    rows = {}
    for row, (options, changes) in ROWS.items():
        ratio = statistics.median(a / b for a, b in zip(cost[row], cost["reference"], strict=True))
        count = round(SECONDS / least / ratio)
        rows[row] = {"network": options, "recipe": changes, "cost": round(ratio, 3), "steps": count,
                     "images": count * recipe(row, count).batch,
                     "parameters": sum(p.numel() for p in network(row, data).parameters())}  # fmt: skip
        print(row, rows[row], flush=True)
    return {
        "data": str(data),
        "network": NETWORK,
        "recipe": {
            k: v for k, v in asdict(recipe("reference", 1)).items() if k not in ("steps", "seed")
        },
        "products": str(GENERATE.products(torch.device("cpu"))).removeprefix("torch."),
        "seconds": SECONDS,
        "step_seconds": round(least, 4),
        "large": list(LARGE),
        "made": {"reverse SDE": MADE, "Heun": BY_HEUN},
        "rows": rows,
    }


@torch.no_grad()
def samples(denoiser: Denoiser, data: ImageSet, blind: bool, seed: int) -> dict[str, Tensor]:
    """By both samplers from the same noise, with as many calls of the network."""
    # as far up as it was trained
    top, event = 5.0 if blind else looks.SIGMA_MAX, tuple(data.images.shape[1:])
    noise = sampling.initial_noise(MADE, *event, sigma=top, seed=seed, dtype=torch.float32)
    start = noise + (data.images.mean() if blind else 0)
    schedules = [sampling.edm(steps, 0.01, top).float() for steps in (looks.STEPS, HEUN)]
    made: dict[str, list[Tensor]] = {"reverse SDE": [], "Heun": []}
    with GENERATE.autocast(torch.device("cpu")):
        for k, part in enumerate(start.split(PART)):
            states = sampling.reverse_sde(denoiser, part, schedules[0], seed=seed * MADE + k)
            made["reverse SDE"].append(sampling.last(states))
            if k * PART < BY_HEUN:
                made["Heun"].append(sampling.last(sampling.heun(denoiser, part, schedules[1])))
    return {sampler: torch.cat(parts) for sampler, parts in made.items()}


def judged(made: Tensor, data: ImageSet, test: ImageSet) -> dict[str, float]:
    """What a campaign asks of samples, and broken: the share whose power above a third of the
    frequencies is more than twice what 95 % of the test images stay below."""
    found, kept = looks.judged(made, data, test), metrics.finite(made)
    if len(kept):
        high = [realism.grain(images.mean(1)) for images in (kept, test.images)]
        found["broken"] = round(float((high[0] > 2 * high[1].quantile(0.95)).double().mean()), 4)
    return found


def colour_grain(made: Tensor, test: ImageSet) -> float:
    """What judges of gray cannot see: power above a third of the frequencies of the channels less
    their mean, of the images that are shown as they are shown, over that of the test images."""
    shown = made[: looks.SHOWN].clamp(0, 1), test.images
    high = [realism.grain((x - x.mean(1, True)).flatten(0, 1)).mean() for x in shown]
    return round(float(high[0] / high[1]), 3)


def controls(data: ImageSet, test: ImageSet) -> dict:
    """What the judges say of images whose quality is known, and of two faults that they cannot see."""
    real, g = data.images[:MADE], torch.Generator().manual_seed(0)
    noise = torch.randn(real.shape, generator=g)
    shown = {
        "training images": real,
        "noise in their colours alone": real + 0.1 * (noise - noise.mean(1, keepdim=True)),
        "their grain of 5/255": real + 5 / 255 * noise,
        "noise of their mean and spread": real.mean() + real.std() * noise,
        "the mean face, every time": data.images.mean(0) + 1e-3 * noise,
    }
    return {
        name: judged(images, data, test) | {"colour_grain": colour_grain(images, test)}
        for name, images in shown.items()
    }


def trial(row: str, steps: int, seed: int, data: ImageSet, test: ImageSet) -> dict[str, dict]:
    """Train once and judge; of the reference also the weights that were not averaged."""
    begun, denoiser, ends = time.process_time(), network(row, data, seed), {}
    for progress in train(denoiser, data.images, recipe(row, steps, seed)):
        if progress.step == steps and row == "reference":
            ends[RAW] = copy.deepcopy(denoiser).eval()
    seconds, found = round(time.process_time() - begun, 1), {}
    for name, end in {row: denoiser, **ends}.items():
        made = samples(end, data, denoiser.blind, seed)
        found[name] = {
            "seed": seed,
            "psnr": models.psnr_table(end, test.images[:TESTED])["psnr"],
            "psnr_large": models.psnr_table(end, test.images[:TESTED], LARGE)["psnr"],
            **{sampler: judged(images, data, test) for sampler, images in made.items()},
            "seconds": seconds,
        }
        if seed == 0:
            looks.add_row(SHEETS / f"{name}.png", made["reverse SDE"], 0)
            found[name]["colour_grain"] = colour_grain(made["reverse SDE"], test)
        print(seed, name, found[name], flush=True)
    return found


def webp(row: str) -> str:
    """Its first samples, as WebP in base64."""
    return base64.b64encode(looks.as_webp(Path(SHEETS / f"{row}.png").read_bytes())).decode()


def main() -> None:
    torch.set_num_threads(1)
    data, test = (
        load("celeba", split, n, 64, "rgb") for split, n in (("train", 1000), ("test", None))
    )

    def keep(section: str, found: dict) -> None:
        of = {"networks": record.networks()} if record.networks() else {}  # the judge
        record.write(NAME, section, found | of | {"provenance": record.provenance()})

    if "plan" not in record.read(NAME):
        keep("plan", plan(data))
    if "controls" not in record.read(NAME):
        keep("controls", {"images": controls(data, test)})
    rows = record.read(NAME)["plan"]["rows"]
    for seed in range(SEEDS):
        for row, planned in rows.items():
            done = record.read(NAME).get("trials", {"rows": {}})["rows"]
            if all(one["seed"] != seed for one in done.get(row, [])):
                found = trial(row, planned["steps"], seed, data, test)
                keep(
                    "trials",
                    {"rows": done | {k: [*done.get(k, []), one] for k, one in found.items()}},
                )
        if "pictures" not in record.read(NAME):
            keep("pictures", {"webp": {row: webp(row) for row in SHOWN}})


if __name__ == "__main__":
    main()
