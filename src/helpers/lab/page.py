"""What a lab leaves on the page: exported denoisers and data with a manifest, and the HTML of the
custom element."""

import gzip
import hashlib
import html
import json
import math
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from .. import metrics, noise
from ..files import write_atomically
from . import stills
from .export import export

# Evenly spaced directions, so that the page computes the same number
DIRECTIONS = torch.stack(
    [f(torch.arange(32, dtype=torch.float64) * math.pi / 32) for f in (torch.cos, torch.sin)]
)
DRAWS = 4  # of a target: their mean distance is that of a perfect denoiser
CHECKED = 16  # particles whose ends, by Python, are kept beside each exported denoiser


def write(lab: Any, folder: Path) -> dict[str, Any]:
    """Export everything that the lab can choose into `folder`, which is replaced when complete; the
    manifest.

    manifest.json names, for each ONNX file, its architecture, target and number of training points,
    checksum and size. check.json, which no page loads, has a state and what Python's Heun sampler
    finds from it with each denoiser: the numbers, and where the first CHECKED particles end. The
    page must agree with that.
    """
    new = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(new, ignore_errors=True)
    schedule = next(iter(lab.schedules))
    levels = (
        torch.cat([s[:-1] for v in lab.schedules.values() for s in v.values()]).unique().flip(0)
    )
    check = {**lab.start, "schedule": schedule, "seed": 0}
    # the fewest steps are enough to meet every part of a network, and quick in a browser
    if lab.image:
        check["steps"] = min(lab.schedules[schedule], key=int)
    manifest: dict[str, Any] = {"lab": lab.name, "targets": {}, "training": {}, "models": {}}
    found: dict[str, Any] = {}
    choices = [
        (count, f, str(value))
        for count in lab.counts
        for f in lab.families.values()
        for value in f.values
    ]
    for target in lab.targets:
        pictures: list[Tensor] = []
        for count, family, value in choices:
            denoiser = lab.denoiser(target, count, family.name, value)
            name = _file("-".join(filter(None, (target, count, family.name, value)))) + ".onnx"
            if (new / name).exists():
                raise ValueError(
                    f"two denoisers would both be {name}: give targets and families other names"
                )
            entry = _stored(new / name, export(denoiser, levels, lab.event))
            entry |= {
                "architecture": family.name,
                family.knob or "knob": value,
                "class": type(denoiser).__name__,
            }
            entry |= {"target": target, "points": lab.counts[count]}
            if not lab.image:
                picture, entry["total_variation"] = lab.densities(
                    target, count, family.name, value, schedule
                )
                entry["picture"] = len(pictures)
                pictures.append(picture)
            state = {
                **check,
                "target": target,
                "count": count,
                "left": [family.name, value, "Heun"],
            }
            end = lab.sample(state, "left")[-1]
            first = [None if math.isnan(v) else v for v in end[:CHECKED].flatten().tolist()]
            key = "/".join((target, count, family.name, value))
            found[key] = {"end": first} | lab.numbers(end, target, count)
            manifest["models"][key] = entry
        if not lab.image:
            arrays = {"generated": torch.stack(pictures), "target": lab.target_picture(target),
                      "reference": lab.reference(target).float()}  # fmt: skip
            manifest["targets"][target] = _stored(
                new / f"{_file(target)}.safetensors.gz", packed(arrays)
            )
        for count in lab.counts:
            points = lab.training(target, count)
            if points is not None:  # images come from 8 bits and go back to them
                points = torch.round(255 * points).to(torch.uint8) if lab.image else points.float()
                entry = _stored(
                    new / f"{_file(target)}-{count}.safetensors.gz", packed({"training": points})
                )
                manifest["training"][f"{target}/{count}"] = entry
    for name, content in (("manifest", manifest), ("check", {"state": check, "found": found})):
        write_atomically(new / f"{name}.json", json.dumps(content, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(new, folder)
    return manifest


def element(lab: Any, manifest: dict[str, Any]) -> str:
    """The custom element: the lab's choices, a still picture of what the first press shows, and the
    caption."""
    spec = lab.spec() | {
        "version": hashlib.sha256(json.dumps(manifest).encode()).hexdigest()[:12],
        "numbers": {},
    }
    target, count, runs = lab.start["target"], lab.start["count"], {}
    for side in ("left", "right"):
        runs[side] = lab.sample(lab.start, side)
        entry = manifest["models"]["/".join((target, count, *lab.start[side][:2]))]
        numbers = lab.numbers(runs[side][-1], target, count)
        spec["numbers"][side] = numbers | {"total variation": entry.get("total_variation")}
    text = json.dumps(spec, separators=(",", ":")).replace("</", "<\\/")
    return (
        f'<denoise-lab id="lab-{html.escape(lab.name)}"><script type="application/json">{text}</script>'
        f'<figure class="lab-still">{stills.picture(lab, runs)}'
        f"<figcaption>{html.escape(lab.caption)}</figcaption></figure>"
        '<p class="lab-press">Press to run: these denoisers run in your browser.</p>'
        "<noscript><p>The lab needs JavaScript; the picture shows what it draws first.</p></noscript></denoise-lab>"
    )


def scales(lab: Any) -> dict[str, list[float]]:
    """By target and number, the distance where there is nothing left to learn, and that of noise.

    Plane, for each number of particles: of points of the target, and of a round Gaussian with its
    mean and spread. Images, for each number of training images: of one of them to the nearest
    other, as of a new one, and of uniform noise.
    """
    found: dict[str, tuple[float, ...]] = {}
    for target, law in lab.targets.items():
        if lab.image:
            static = torch.rand(64, *lab.event, generator=torch.Generator().manual_seed(0))
            for count, n in lab.counts.items():
                images = (points := law[:n].float())[:200]
                if len(points) > 1:
                    both = ((images, 2), (static, 1))
                    away = (metrics.nearest(x, points, k=k)[0][:, -1].mean() for x, k in both)
                    found[f"{target}/{count}"] = tuple(map(float, away))
            continue
        reference = lab.reference(target)

        def apart(x: Tensor, reference: Tensor = reference) -> float:
            return metrics.sliced_w2(x.double(), reference, projections=DIRECTIONS)

        spread = reference.var(0).mean().sqrt()
        cloud = apart(reference.mean(0) + spread * noise.normal(len(reference), 2, seed=2))
        for n in lab.particles:
            drawn = [apart(law.sample(int(n), seed=2 + seed)) for seed in range(DRAWS)]
            found[f"{target}/{n}"] = sum(drawn) / DRAWS, cloud
    return {key: [float(f"{v:.3g}") for v in pair] for key, pair in found.items()}


def _file(name: str) -> str:
    return re.sub(r"[ ,']+", "_", name)


def packed(arrays: dict[str, Tensor]) -> bytes:
    return gzip.compress(save({k: v.contiguous() for k, v in arrays.items()}), mtime=0)


def _stored(path: Path, data: bytes) -> dict[str, Any]:
    write_atomically(path, data)
    return {"file": path.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
