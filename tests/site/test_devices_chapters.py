"""Every chapter's code on the pretend device, with few points, particles and steps.

The sizes are those of the chapter's parameters where it has them, else words of a cell replaced.
Labs are not exported here, and nothing is compared: numbers of so few samples mean nothing.
"""

import importlib
import json
import pkgutil
from contextlib import suppress

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch
from conftest import ROOT
from pretend import Dice, Machine

import helpers.lab
from helpers import checks, devices
from helpers.experiments import ledger
from helpers.files import RESULTS
from press.chapters import COLLECTING, Book, tags

# what is imported for the first time is not to meet another Generator, or that device
for name in (
    "torch._dynamo",
    *(m.name for m in pkgutil.walk_packages(helpers.__path__, "helpers.")),
):
    if not name.endswith("__main__"):
        # Colab has neither what the command line needs nor, without a GPU, Triton
        with suppress(ModuleNotFoundError):
            importlib.import_module(name)
CHAPTERS = {
    path.stem[:2]: path
    for path in (ROOT / c for c in Book(ROOT).chapters)
    if path.stem not in COLLECTING
}
SMALLER = {  # {parameter: value} and {cell: {words: fewer}}
    "01": (
        {"n_points": 100, "cells": 15},
        {
            "start": {"(3.2, 51)": "(3.2, 9)"},
            "fig-steps": {"edm(400)": "edm(40)", ", 40, 80, 160]": "]"},
        },
    ),
    "02": (
        {"N_smooth": 12},
        {
            "sizes": {
                "10_000 if": "200 if",
                "101 if": "15 if",
                "600 if": "60 if",
                "(2000, 200)": "(100, 20)",
            },
            "smooth-data": {"edm(20": "edm(4"},
            "smoothing-sweep": {"seed + 3)": "seed + 1)"},
            "basin-functions": {"edm(40": "edm(4"},
            "fig-ghosts": {"edm(20": "edm(4"},
            "claims-runs": {"edm(40": "edm(4", "edm(30": "edm(4", "seed + 5": "seed + 1"},
        },
    ),
    "03": (
        {"samples": 50, "cloud": 30},
        {
            "densities": {"steps=60": "steps=4"},
            "fit-images": {"fashion_mnist()": "fashion_mnist(800)"},
            "measure-flow": {"edm(5000": "edm(50"},
        },
    ),
    "04": (
        {"samples": 200, "repeats": 1, "cloud": 50},
        {
            "slider": {"edm(30": "edm(4"},
            "moons": {"edm(20": "edm(4"},
            "pairs": {"edm(30": "edm(4"},
            "sample-symmetric": {"cosine_vp(60)": "cosine_vp(6)"},
            "watershed": {"log_linear(400": "log_linear(40"},
            "count-escapes": {"(10, 40, 200) if": "(2, 10) if"},
            "three-samplers": {
                "down(100)": "down(10)",
                "down(300)": "down(30)",
                "down(40)": "down(4)",
            },
            "relax": {"0, 10, 30, 100, 300, 600 if": "0, 1, 2, 6 if"},
            "exact-laws": {"401": "41", "sigma_max, 50": "sigma_max, 5"},
            "laws": {"sigma_max, 100": "sigma_max, 5"},
            "law": {"300 if": "30 if", "40, d": "12, d", "1000.0, 70": "1000.0, 7"},
            "law-degrees": {"161": "21", "0.02, sigma_max)": "0.02, sigma_max, 10)"},
            "support-edge": {
                "901": "41",
                "stop, sigma_max).cpu": "stop, sigma_max, 10).cpu",
                "log_linear(400": "log_linear(40",
            },
            "plane-escapes": {"steps=60": "steps=6", "linear(60": "linear(6"},
            "own": {
                "5.0, 40": "5.0, 12",
                "0.05, sigma_max)": "0.05, sigma_max, 10)",
                "directions, far)": "directions, far, steps=6)",
            },
            "predict-escapes": {
                "log_linear(120": "log_linear(12",
                '("three", 5), ("three", 7), ': "",
                "(2, 3, 4, 5)": "(2,)",
            },
        },
    ),
    "05": (
        {"samples": 100, "train_steps": 5},
        {
            "shadow": {"n=161": "n=21", "steps=60": "steps=6"},
            "start": {"n=4001": "n=401", "steps=60": "steps=6"},
            "fig-flat": {"edm(100)": "edm(10)"},
            "fig-angle": {"136, 5)": "136, 45)"},
            "fig-graph": {"edm(40,": "edm(4,"},
            "fig-projected": {"edm(60,": "edm(6,"},
            "zigzag": {"20_000": "500"},
            "measure-flat": {"edm(60)": "edm(6)"},
            "measure-kinds": {"6000": "300", "100_000": "1000"},
            "chains": {"log_linear(200)": "log_linear(20)"},
            "measure-bars": {"20_000": "500", "log_linear(200)": "log_linear(20)"},
        },
    ),
    "06": (
        {"steps": 12, "batch": 16},
        {
            "sizes": {"61 if": "9 if", "1000, 2": "100, 2"},
            "learn": {"steps=20": "steps=4"},
            "run": {"(10, 30, 60, 100, 200, 400, 700)": "(100, 700)"},
            "longer-run": {"4000 if": "12 if", "512, 1e-2": "16, 1e-2"},
            "lab-time": {"start=4": "start=0"},
            "features-runs": {"4, 8, 16, 32, 64, 128": "4, 8", "edm(14": "edm(4"},
            "lab-features": {"start=2": "start=0"},
            "hero-fit": {"edm(40": "edm(4"},
        },
    ),
    "07": (
        {"n_points": 60},
        {
            "set-up-samplers": {'"ascent, paper": {}': '"ascent, paper": {"h": 0.3}'},
            "slider": {"edm(200)": "edm(20)", ", 40, 80]": "]"},
            "fig-schedules": {", 20, 40, 80]": "]"},
            "fig-gamma": {"1.5, 1.75, 2.0, 2.25, 2.5]": "2.0]"},
            "fig-calls": {", 80, 160, 320]": "]"},
            "fig-order": {"edm(800)": "edm(80)", ", 40, 80, 160]": "]"},
            "fig-imperfect": {"(heun, 100)": "(heun, 10)", "300)": "30)", "=5), 100)": "=5), 10)"},
            "diagnosis": {"edm(200)": "edm(20)"},
            "claims-data": {"edm(2000,": "edm(50,", "4001": "41"},
            "fig-second": {", 160, 320]": "]"},
            "adds-run": {"(40,": "(8,", "(20,": "(4,", "(8, partial": "(2, partial"},
            "adds-measured": {"edm(100)": "edm(10)"},
            "adds-table": {"range(3)": "range(1)"},
        },
    ),
    "08": (
        {"N": 60, "samples": 30, "seeds": 1},
        {
            "network-run": {"log_linear(41": "log_linear(9", "(24, 32": "(4, 32", "48": "4"},
            "unet-run": {"edm(40": "edm(4", "(24, 32": "(12, 32"},
        },
    ),
    "09": (
        {"seeds": 1, "count": 2},
        {
            "check-oracle": {'("test", 64)': '("test", 4)'},
            "generate": {"edm(20": "edm(3"},
            "bases": {"range(3)": "range(1)"},
        },
    ),
    "10": (
        {"steps": 12, "N": 100},
        {"live-data": {"200": "20"}, "fig-samples": {"edm(60": "edm(6"}},
    ),
    "11": (
        {"N": 220, "shown": 2},
        {
            "fig-descent": {"(training, seed": "(training, 16, seed"},
            "denoisers": {
                "(training, seed": "(training, 16, seed",
                "patch=windows[0.5]": "features=8",
                "patch=windows[0.125]": "features=8",
            },
            "data": {'"test", 200': '"test", 10', "cosine_vp(100)": "cosine_vp(12)"},
            "ranks": {"(1000, 32": "(300, 32"},
            "descent": {", 512, 1024, 4096]": ", 512]"},
        },
    ),
    "12": (
        {"N": 20, "noises": 2, "steps": 3},
        {
            "machines-build": {
                "range(28)": "range(0, 28, 7)",
                '("fashion-mnist", size': '("fashion-mnist", n=500, size',
            },
            "live-network": {"n=1000)": "n=60)", "edm(20": "edm(4"},
            "live-calibrate": {"3, 5, 7, 9, 11, 13, 15, 19, 23, 27, 31": "3, 31"},
        },
    ),
    "13": ({"shown": 1}, {"samples": {"edm(40": "edm(4"}}),
    "14": ({"N": 300}, {"sizes": {"B = 24": "B = 4"}}),
    "15": (
        {"noises": 4},
        {
            "samples": {"edm(40": "edm(4"},
            "sizes": {"split, n)": "split, min(n, 100))"},
            "curves": {"[:100]": "[:10]"},
            "variance": {"[:200]": "[:20]"},
        },
    ),
    "16": (
        {"top": 8},
        {
            "faces": {"edm(60": "edm(6", "2, 40, 40": "2, 16, 16", "(40, 40": "(16, 16"},
            "full": {"12 * top": "2 * top"},
            "fig-vectors": {", 1279]": "]"},
            "fig-clothes": {"topk(4)": "topk(2)", "basis=280": "basis=113"},
            "clothes": {"n=1000": "n=60", '"test", 100': '"test", 5', "(400": "(10"},
            "fig-copying": {"(10, 100, 1000, 5000)": "(10, 5000)", "basis=96": "basis=16"},
            "fig-counts": {", 9, 14, 19]": "]", "basis=8": "basis=2"},
            "fig-architectures": {"basis=8": "basis=2"},
            "lab": {"basis=160": "basis=16"},
        },
    ),
    "17": (
        {},
        {"fig-vectors": {"20, basis=128": "20, basis=20"}, "lab-vectors": {"basis=72": "basis=16"}},
    ),
    "18": (
        {"disks_shown": 3},
        {
            "disk": {"size = 40": "size = 24"},
            "taken-apart": {"basis=100": "basis=32", "probes=8": "probes=1"},
            "disk-psnr": {"[:100]": "[:5]"},
            "shuffled": {"edm(60": "edm(6"},
            "shape": {"basis=240": "basis=32"},
            "lab": {"basis=160": "basis=16"},
        },
    ),
    "19": (
        {"p": 48},
        {
            "descent": {"20_001": "101"},
            "teleport-saved": {"200)": "20)"},
            "ascent-run": {"1025": "65", "1024": "64"},
        },
    ),
    "20": (
        {"samples": 8, "steps": 5},
        {
            "sizes": {"physics.levels()": "physics.levels()[3::12]"},
            "fig-data": {"permeability(1000": "permeability(100"},
            **{f"circle-{part}": {"4000": "400"} for part in ("run", "table", "estimates")},
            "own-hole": {"range(3)": "range(2)"},
        },
    ),
    "21": (
        {"angles": 2},
        {
            "sizes": {
                'held_out = plate.cases(trials["data"]["held out"]': "held_out = plate.cases(6"
            },
            "simp-run": {", 8, 12, 20, 40)": ")"},
            "descent-run": {"600": "3"},
            "turn-run": {"simp(around, 40)": "simp(around, 4)"},
        },
    ),
    "22": (
        {"n": 8},
        {"tiles-run": {"(0, 2, 4, 5, 6, 8)": "(0, 4, 5, 6, 8)"}, "detail-run": {"6 * n": "3 * n"}},
    ),
    "23": (
        {"steps": 2},
        {
            "copy-numbers": {"images, device)": "images, device, 8)"},
            "place-table": {"images, device)": "images, device, 8)"},
            "place-run": {"n=500": "n=20"},
            "own-class": {"n=500": "n=20"},
            "own-numbers": {"18)": "3)"},
            "theory-which": {"64": "8", "18)": "3)"},
        },
    ),
}
LEFT_OUT = {"15": "claims"}  # no pair of four noises parts


@pytest.mark.parametrize("number", CHAPTERS)
def test_it_runs_where_its_device_is(number, monkeypatch, tmp_path):
    plain = torch.Generator
    monkeypatch.setattr(
        torch, "Generator", lambda device="cpu": Dice() if "pretend" in str(device) else plain()
    )
    monkeypatch.setitem(devices.KINDS, "pretend", lambda: True)
    monkeypatch.setattr(helpers.lab, "Lab", lambda *arguments, **options: None)
    # so few samples measure nothing that could be guessed, and part nothing from its control
    monkeypatch.setattr(helpers.lab, "Guess", lambda *arguments, **options: None)
    monkeypatch.setattr(ledger.Claim, "__post_init__", lambda claim: None)
    monkeypatch.setattr(plt, "show", lambda: plt.close("all"))
    monkeypatch.setenv(RESULTS, str(tmp_path))
    monkeypatch.chdir(ROOT / "book")
    parameters, smaller = SMALLER.get(number, ({}, {}))
    names, threads, gradients = (
        {"__name__": "__main__"},
        torch.get_num_threads(),
        torch.is_grad_enabled(),
    )
    cells = nbformat.read(CHAPTERS[number], as_version=4).cells
    # else it runs on Apple's GPUs, too
    double = any("double=True" in cell.source for cell in cells)
    monkeypatch.setattr(checks, "WITHOUT_DOUBLE", set() if double else {"pretend"})
    try:
        with Machine(double):
            for cell in cells:
                if cell.cell_type != "code" or cell.id in ("setup", LEFT_OUT.get(number)):
                    continue
                source = cell.source
                for words, fewer in smaller.get(cell.id, {}).items():
                    assert words in source, f"{cell.id} no longer says {words}"
                    source = source.replace(words, fewer)
                exec(compile(source, f"{number}: {cell.id}", "exec"), names)
                if "parameters" in tags(cell):
                    assert parameters.keys() < names.keys()
                    names |= parameters | {"device": "pretend"}
    finally:
        torch.set_num_threads(threads)
        torch.set_grad_enabled(gradients)
    if number not in LEFT_OUT:
        (written,) = (tmp_path / "claims").glob("*.json")
        made = {claim["made"] for claim in json.loads(written.read_text("utf-8"))["claims"]}
        assert {line for line in made if not line.startswith("recorded")} <= {"quick, PRETEND"}
