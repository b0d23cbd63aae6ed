"""A record's numbers are of the networks that it measured, and are shown beside no others."""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import models, recorded

ROOT = Path(__file__).resolve().parents[1]
CARDS = models.manifest()
RECORDS = sorted(path.stem for path in (ROOT / "src/helpers/recorded").glob("*.json"))


@pytest.fixture
def record(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import record

    return record


def words(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from words(part)
    elif isinstance(value, str):
        yield value


@pytest.mark.parametrize("name", RECORDS)
def test_records_are_of_the_present_networks(name):
    for section in recorded.load(name).values():
        kept = section.get("networks", {})
        assert kept == {network: CARDS[network]["sha256"] for network in kept}
        assert {word for word in words(section) if word in CARDS} <= set(kept)


@pytest.mark.parametrize(("name", "network"), [("dynamics", "fashion-n10-a"), ("ablations", "faces-pool-max")])
def test_no_old_number_beside_a_network_that_was_trained_again(name, network, tmp_path, monkeypatch):
    weights = (models.models_folder() / f"{network}.safetensors").read_bytes()
    (tmp_path / f"{network}.safetensors").write_bytes(weights)
    monkeypatch.setenv(models.MODELS, str(tmp_path))
    assert recorded.load(name)  # the others are not there, so that nothing new can be shown
    (tmp_path / f"{network}.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ValueError, match=rf"{network} was trained again.*'{name}'.* python benchmarks/{name}.py "):
        recorded.load(name)


def test_sections_keep_the_networks_they_open(record, tmp_path, monkeypatch):
    """Whoever opens them, and each section its own."""
    monkeypatch.setattr(record, "path", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(sys, "argv", ["toy.py"])
    found = {"one": lambda: {"n": len(list(models.load("ray").parameters()))}, "none": lambda: {"n": 0}}
    record.main("", "toy", found)
    made = json.loads((tmp_path / "toy.json").read_text())
    assert made["one"]["networks"] == {"ray": CARDS["ray"]["sha256"]} and "networks" not in made["none"]


def test_a_grid_is_measured_anew_when_one_of_its_networks_was_trained_again(record, tmp_path, monkeypatch):
    import ablations

    folder, asked = tmp_path / "models", []
    folder.mkdir()
    for network in ("ray", "sine"):
        shutil.copy(models.models_folder() / f"{network}.safetensors", folder)
    (folder / "manifest.json").write_text(json.dumps({name: CARDS[name] for name in ("ray", "sine")}))
    monkeypatch.setenv(models.MODELS, str(folder))
    monkeypatch.setattr(record, "path", lambda name: tmp_path / f"{name}.json")

    def one(network):
        asked.append(network)
        return {"n": len(list(models.load(network).parameters()))}

    rows = {network: lambda network=network: one(network) for network in ("ray", "sine")}
    monkeypatch.setitem(ablations.SECTIONS, "clothes", ("clothes", lambda _: rows))
    monkeypatch.setattr(ablations, "Source", lambda kind: None)
    ablations.measure("clothes")
    ablations.measure("clothes")
    assert asked == ["ray", "sine"]
    weights = (folder / "sine.safetensors").read_bytes()
    (folder / "ray.safetensors").write_bytes(weights)
    card = CARDS["sine"] | {"sha256": hashlib.sha256(weights).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps({"ray": card, "sine": card}))
    ablations.measure("clothes")
    assert asked == ["ray", "sine", "ray", "sine"]
    kept = json.loads((tmp_path / "ablations.json").read_text())["clothes"]["networks"]
    assert kept == {"ray": card["sha256"], "sine": card["sha256"]}


def test_a_card_that_tells_of_looks_has_its_sheet():
    sheets = {path.stem for path in models.models_folder().glob("*.webp")}
    assert sheets == {name for name, card in CARDS.items() if "looks" in card}
