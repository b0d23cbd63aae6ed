"""A record's numbers are of the networks that it measured, and are shown beside no others."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import models, recorded

ROOT = Path(__file__).resolve().parents[2]
CARDS = models.manifest()
# of one shape
WEIGHTS = {n: (ROOT / f"models/{n}.safetensors").read_bytes() for n in ("disks", "sine")}
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


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A folder of models, and what puts weights into it, with the checksum on their card."""
    monkeypatch.setenv(models.MODELS, str(tmp_path))
    cards = {}

    def put(name: str, weights: bytes, **card) -> None:
        file = models.weights(name, card)
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(weights)
        cards[name] = {**CARDS[name], **card, "sha256": hashlib.sha256(weights).hexdigest()}
        (tmp_path / "manifest.json").write_text(json.dumps(cards))

    return put


NETWORKS = {"dynamics": "fashion-n10-a", "ablations": "faces-pool-max"}


@pytest.mark.parametrize("ships", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_no_old_number_beside_a_network_that_was_trained_again(name, ships, zoo):
    network = NETWORKS[name]
    weights = (ROOT / f"models/{network}.safetensors").read_bytes()
    zoo(network, weights, ships=ships)
    assert recorded.load(name)  # the others are not there, so that nothing new can be shown
    models.weights(network, {"ships": ships}).unlink()  # on the machine that trained it
    assert recorded.load(name)
    zoo(network, weights[:-1] + bytes([weights[-1] ^ 1]), ships=ships)
    refused = rf"{network} was trained again.*'{name}'.* python benchmarks/{name}.py "
    with pytest.raises(ValueError, match=refused):
        recorded.load(name)
    models.weights(network, {"ships": ships}).unlink()
    with pytest.raises(ValueError, match=refused):
        recorded.load(name)


def test_sections_keep_the_networks_they_open(record, zoo, tmp_path, monkeypatch):
    """Whoever opens them, and each section its own."""
    monkeypatch.setattr(record, "path", lambda name: tmp_path / f"{name}.json")
    monkeypatch.setattr(sys, "argv", ["toy.py"])
    for name in ("disks", "sine"):
        zoo(name, WEIGHTS[name], ships=name == "sine")
    sections = {name: lambda name=name: {"of": models.load(name).training} for name in WEIGHTS}
    record.main("", "toy", sections | {"none": dict})
    made = json.loads((tmp_path / "toy.json").read_text())
    for name in WEIGHTS:
        assert made[name]["networks"] == {name: CARDS[name]["sha256"]}
    assert "networks" not in made["none"]


def test_a_grid_is_measured_anew_when_one_of_its_networks_was_trained_again(
    record, zoo, tmp_path, monkeypatch
):
    import ablations

    asked = []
    monkeypatch.setattr(record, "path", lambda name: tmp_path / f"{name}.json")

    def one(name):
        asked.append(name)
        return {"of": models.load(name).training}

    rows = {name: lambda name=name: one(name) for name in WEIGHTS}
    monkeypatch.setitem(ablations.SECTIONS, "clothes", ("clothes", lambda _: rows))
    monkeypatch.setattr(ablations, "Source", lambda kind: None)
    for name, weights in WEIGHTS.items():
        zoo(name, weights)
    ablations.measure("clothes")
    ablations.measure("clothes")
    assert asked == [*WEIGHTS]
    zoo("disks", WEIGHTS["sine"])
    ablations.measure("clothes")
    assert asked == [*WEIGHTS, *WEIGHTS]
    kept = json.loads((tmp_path / "ablations.json").read_text())["clothes"]["networks"]
    assert kept == dict.fromkeys(WEIGHTS, CARDS["sine"]["sha256"])


def test_a_card_that_tells_of_looks_has_its_sheet():
    sheets = {path.stem for path in models.models_folder().glob("*.webp")}
    assert sheets == {name for name, card in CARDS.items() if "looks" in card}
