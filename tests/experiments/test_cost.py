"""The cost plan: its arithmetic, on speeds that are given, and one that is measured."""

import json
import math
from dataclasses import replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from helpers.denoisers import UNet
from helpers.experiments import cost, runner, zoo
from helpers.experiments.cost import Measured, figures, kind, plan, span, wall
from helpers.recipe import Recipe
from helpers.systems.bastek.physics import PhysicsRecipe

RECIPE = Recipe(steps=20, batch=4, noise=("log-uniform", 0.05, 1.0), loss="sum", ema=0.9)
ENTRY = zoo.Entry(
    "UNet", {"blocks": 1, "channels": 2, "seed": 3}, {"name": "disks", "size": 8, "n": 10}, RECIPE
)


@pytest.mark.parametrize(
    ("hours", "devices", "expected"),
    [
        ([3.0, 1.0, 2.0], 1, 6.0),
        ([3.0, 1.0, 2.0], 2, 3.0),
        ([3.0, 1.0, 2.0], 64, 3.0),  # more devices than runs help none
        ([5.0, 5.0, 4.0, 4.0, 3.0, 3.0], 2, 12.0),
        ([1.0] * 65, 64, 2.0),
    ],
)
def test_the_wall_time_is_that_of_the_device_that_ends_last(hours, devices, expected):
    assert wall(hours, devices) == expected
    assert max(hours) <= wall(hours, devices) and sum(hours) / devices <= wall(hours, devices)


def test_a_plan_adds_up_runs_of_unlike_speed():
    """Ten million images at 1000 a second and twice 3.6 million at 100."""
    fast, slow = Measured(1000.0, 2_000_000, 6_000_000), Measured(100.0, 500_000, 1_500_000)
    entries = [
        replace(ENTRY, recipe=replace(RECIPE, steps=n, batch=b))
        for n, b in ((10**5, 100), (10**4, 360))
    ]
    runs = plan([*entries, entries[1]], lambda entry: fast if entry.recipe.batch == 100 else slow)
    assert [run.images for run in runs] == [10_000_000, 3_600_000, 3_600_000]
    assert [run.hours for run in runs] == [10**7 / 1000 / 3600, 10.0, 10.0]
    numbers = [
        "3",
        "17,200,000",
        "100-1,000",
        "22.8",
        "3.0 MB",
        "6.0 MB",
        "22.8 h",
        "10.0 h",
        "10.0 h",
    ]
    assert figures(runs) == numbers and len(numbers) == len(cost.HEADS) - 1


def test_of_a_network_that_is_not_in_the_book_only_the_images_are_known():
    runs = plan([ENTRY, replace(ENTRY, network="Transformer")], lambda entry: Measured(10.0, 1, 1))
    assert runs[1].kind is None and math.isnan(runs[1].hours)
    assert figures(runs) == ["2", "160", *["-"] * 7]


@pytest.mark.parametrize(
    ("hours", "text"),
    [
        (0.0, "0.0 s"),
        (1 / 60, "60.0 s"),
        (0.5, "30.0 min"),
        (30.0, "30.0 h"),
        (72.0, "3.0 days"),
        (87_600, "10.0 years"),
    ],
)
def test_a_time_is_told_in_a_unit_of_its_size(hours, text):
    assert span(hours) == text


def test_runs_are_of_one_kind_where_nothing_differs_that_takes_time():
    same = [
        replace(ENTRY, options={**ENTRY.options, "seed": 4}),
        replace(ENTRY, data={"name": "sine", "size": 8, "n": 10_000, "split": "disjoint"}),
        replace(
            ENTRY,
            recipe=replace(RECIPE, steps=9, rate=1.0, noise=("fixed", 2.0), epoch=100, seed=1),
        ),
    ]
    other = [
        replace(ENTRY, options={**ENTRY.options, "padding": "circular"}),
        replace(ENTRY, data={**ENTRY.data, "size": 16}),
        replace(ENTRY, recipe=replace(RECIPE, batch=8)),
        replace(ENTRY, recipe=replace(RECIPE, precision="mixed")),
    ]
    assert {kind(entry).key() for entry in same} == {kind(ENTRY).key()}
    assert len({kind(entry).key() for entry in [ENTRY, *other]}) == 5


def test_a_kind_is_measured_once_and_its_files_are_those_of_a_training(tmp_path):
    """Weights, their average and the two moments of Adam are what a training leaves, names and
    small change aside."""
    measured = cost.meter("cpu", 0.05)
    found = measured(ENTRY)
    assert (
        found.images_per_second > 0
        and measured(replace(ENTRY, options={"blocks": 1, "channels": 2})) is found
    )
    net, path = UNet(1, channels=2), tmp_path / "state.safetensors"
    list(runner.steps(ENTRY, net, torch.rand(10, 8, 8), path))
    assert found.weights == 4 * sum(v.numel() for v in net.state_dict().values())
    data = path.read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    kept = [
        about["data_offsets"]
        for name, about in head.items()
        if name.split("/")[0] in ("denoiser", "average")
    ]
    moments = [
        about["data_offsets"]
        for name, about in head.items()
        if name.startswith("adam/") and "exp_avg" in name
    ]
    assert found.checkpoint == sum(end - begin for begin, end in kept + moments)


def test_what_a_residual_costs_is_measured_with_it(monkeypatch):
    recipe = PhysicsRecipe(steps=2, batch=1, noise=("fixed", 0.5), loss="snr", weight=1e-3)
    options, asked = (
        {"blocks": 1, "channels": 2, "image_channels": 2, "bias": True, "blind": False},
        [],
    )
    penalty = PhysicsRecipe.penalty
    monkeypatch.setattr(
        PhysicsRecipe, "penalty", lambda *arguments: asked.append(arguments) or penalty(*arguments)
    )
    entry = zoo.Entry("UNet", options, {"name": "darcy", "size": 8, "modes": 4}, recipe)
    assert cost.measure(kind(entry), "cpu", 0.01).images_per_second > 0 and asked


def test_what_is_shown_names_source_assumptions_and_device(tmp_path, monkeypatch):
    path = tmp_path / "paper.toml"
    path.write_text("""
title = "A paper"
recipe = { steps = 3600, batch = 10 }
[[sweep]]
name = "known"
source = "its Table 1"
assumed = "the batch"
n = [1, 2]
networks.unet = { class = "UNet" }
data.disks = { name = "disks" }
[[sweep]]
name = "unknown"
n = [1]
networks.transformer = { class = "Transformer" }
data.disks = { name = "disks" }
""")
    monkeypatch.setattr(
        cost, "meter", lambda device, seconds: lambda entry: Measured(10.0, 1_000_000, 4_000_000)
    )
    cost.show([str(path)], 1.0, Console(file=(out := StringIO()), width=80))
    [title, _, heads, _, known, unknown, *notes] = [
        " ".join(line.split()) for line in out.getvalue().splitlines()
    ]
    assert title == "A paper" and heads.split()[-6:] == ["on", "1", "on", "8", "on", "64"]
    assert known == "known 2 72,000 10 2.0 2.0 MB 4.0 MB 2.0 h 60.0 min 60.0 min"
    assert unknown == "unknown 1 36,000 - - - - - - -"
    assert "known: its Table 1; not stated, but assumed: the batch" in notes
    here = runner.machine("cuda" if torch.cuda.is_available() else "cpu")
    assert notes[-1] == f"Measured on {here['hardware']}, {here['software']}; that is one device."
