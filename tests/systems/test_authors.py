"""Figures from released weights, by the script that draws them beside ours."""

import importlib
import os
import re
import sys

import pytest
import torch
from conftest import ROOT

from helpers.denoisers import UNet


@pytest.fixture
def authors(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("authors")
    small = {
        "LEVELS": [10.0, 100.0],
        "IMAGES": 2,
        "NOISES": 2,
        "RANKS": (1, 2),
        "TOP": 2,
        "BASIS": 4,
        "MIDDLE": slice(0, 2),
    }
    for name, value in {**small, "ROOT": tmp_path}.items():
        monkeypatch.setattr(module, name, value)
    return module


def silent() -> dict[str, torch.Tensor]:
    """Weights of a network that finds no noise anywhere: D(y) = y."""
    return {
        f"module.{k}": torch.zeros_like(v) + k.endswith("sd")
        for k, v in UNet(1, 2).state_dict().items()
    }


@pytest.fixture
def folder(tmp_path):
    for name in (
        "img_align_celeba_80x80/0to255_RF_90x90_set_size_1000",
        "img_align_celeba_80x80/0to255_RF_90x90_set_size_1000_swapped",
        "C_alpha4_beta4_line_80x80_blurredx2/0to255_RF_90x90_set_size_100000",
        "disks/0to255_RF_90x90_set_size_100000",
    ):
        place = tmp_path / "denoisers/UNet" / name
        place.mkdir(parents=True)
        torch.save(silent(), place / "model.pt")
    return tmp_path


def test_checkpoints_are_told_by_their_folders(authors, folder, capsys):
    want = {
        ("faces", 1000, "a"),
        ("faces", 1000, "b"),
        ("c-alpha-4", 100_000, "a"),
        ("disks", 100_000, "a"),
    }
    for other in (
        "UNet/LSUN_bedroom_80x80",
        "BF_CNN/img_align_celeba_80x80",
        "UNet/C_alpha1_beta8_line_80x80",
    ):
        (folder / "denoisers" / other).mkdir(parents=True)
        (folder / "denoisers" / other / "model.pt").touch()
    assert set(authors.found(folder)) == want
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 3 and all(line.startswith("left out: denoisers/") for line in said)
    with pytest.raises(SystemExit, match="no model.pt below"):
        authors.found(folder / "denoisers/UNet/disks/none")


@pytest.mark.skipif("CELEBA_ROOT" not in os.environ, reason="needs CELEBA_ROOT")
def test_a_network_of_theirs_is_measured_as_ours_are(authors, folder, monkeypatch, capsys):
    """What finds no noise leaves the PSNR as it is, has slope 1 and eigenvalues 1."""
    monkeypatch.setattr(sys, "argv", ["authors.py", str(folder)])
    authors.main()
    lines = capsys.readouterr().out.splitlines()
    rows = {
        line.split(" [")[0]: [float(v) for v in re.findall(r"-?[\d.]+", line.split(" [")[1])]
        for line in lines
        if " [" in line
    }
    into = [20 * torch.log10(torch.tensor(255 / level)).item() for level in authors.LEVELS]
    assert rows["figure 1: theirs, N = 1,000"] == pytest.approx(into, abs=0.1)
    assert all(a > b for a, b in zip(rows["figure 1: ours, N = 18,000"], into, strict=True))
    for figure in ("3: theirs, N = 1,000", "5: theirs", "4-alpha-4: theirs"):
        assert set(rows[f"figure {figure} eigenvalues"]) == {1.0}
    assert not {1.0} & set(rows["figure 5: ours eigenvalues"])
    (slope,) = (
        float(re.search(r"theirs: slope ([\d.]+)", line)[1])
        for line in lines
        if "theirs: slope" in line
    )
    assert slope == pytest.approx(1, abs=0.01)
    made = {path.name for path in (folder / "build/authors").iterdir()}
    assert made == {
        "figure-1.png",
        "figure-2.png",
        "figure-3-vectors.png",
        "figure-4-alpha-4-vectors.png",
        "figure-5-vectors.png",
    }
