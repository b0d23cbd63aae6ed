"""The zoo and its campaign: entries, what is missing, what is made, kept, packed and shipped."""

import functools
import hashlib
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from nets import equal, generator, state
from torch import nn

from helpers import models
from helpers.data import load
from helpers.denoisers import (
    Network,
    UNet,
)
from helpers.experiments import campaign, cost, engines, runner, zoo
from helpers.training import Recipe, run, train

IMAGES = torch.rand(12, 8, 8, generator=generator())

# The zoo ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", zoo.PROFILES)
def test_entries_have_names_keys_and_networks(profile):
    listed = list(zoo._entries(profile))
    entries = zoo.zoo(profile)
    assert len(entries) == len(listed) == len({e.key() for e in entries.values()})
    assert len(entries) > (60 if profile not in zoo.MINUTES else 5)
    for name, entry in entries.items():
        assert name == name.lower() and "--" not in name and name.replace("-", "").isalnum()
        with torch.device("meta"):
            models.classes()[entry.network](**entry.options)
        assert entry.data.get("split", "train") in ("train", "disjoint")
    with pytest.raises(
        ValueError, match="profile is 'tpu': choose one of cpu, gpu, full, t4, h200"
    ):
        zoo.zoo("tpu")


def test_what_ships_is_under_34_megabytes():
    """Two bytes a number, and 2 KB of names and shapes for each."""
    entries = [entry for entry in zoo.zoo("cpu").values() if entry.ships]
    with torch.device("meta"):
        nets = [models.classes()[e.network](**e.options) for e in entries]
    assert sum(2 * sum(v.numel() for v in net.state_dict().values()) + 2048 for net in nets) < 34e6


STUDIES = [profile for profile in zoo.PROFILES if profile not in zoo.MINUTES]


@pytest.mark.parametrize("profile", STUDIES)
@pytest.mark.parametrize("source", ["faces", "fashion"])
def test_variants_change_one_thing(source, profile):
    entries = zoo.zoo(profile)
    names = [f"{source}-{variant}" for variant in zoo.VARIANTS]
    assert set(names) <= set(entries)
    base = entries[f"{source}-base"]
    for name in names:
        assert entries[name].data == base.data
    unets = [v for v in zoo.VARIANTS if entries[f"{source}-{v}"].network == "UNet"]
    assert len(unets) == 14
    for variant in set(unets) - {"base"}:
        entry = entries[f"{source}-{variant}"]
        # one that hears the noise level is no longer homogeneous either way, and is compared with a
        # bias
        other = entries[f"{source}-bias"] if variant == "conditioned" else base
        options = {**defaults(UNet), **other.options}, {**defaults(UNet), **entry.options}
        assert sum(options[0][k] != options[1][k] for k in options[0]) == 1, variant
        assert entry.recipe == base.recipe


@functools.cache
def defaults(network) -> dict:
    with torch.device("meta"):
        return network().arguments


def test_networks_of_faces_are_blind_and_without_bias():
    """So that D(c y) = c D(y): a blind one does not know the scale."""
    for profile in STUDIES:
        for name, entry in zoo.zoo(profile).items():
            if name.startswith(("faces", "copying")) and name.removeprefix("faces-") not in (
                "bias",
                "conditioned",
                "mlp",
                "autoencoder",
            ):
                options = {**defaults(models.classes()[entry.network]), **entry.options}
                assert not options["bias"] and options.get("blind", True), name


def test_disjoint_sets_fit_in_the_pool():
    for profile in STUDIES:
        entries = zoo.zoo(profile)
        for source, pool in (("faces", 18_884), ("fashion", 10_000)):
            for n in (1, 10, 100, 1000, pool // 2):
                a, b = (entries[f"{source}-n{n}-{letter}"] for letter in "ab")
                assert (a.data.pop("split"), b.data.pop("split")) == ("train", "disjoint")
                assert replace(a, ships=b.ships) == b and a.data["n"] == n


def test_the_full_profile_takes_the_papers_schedule():
    """Adam at 1e-3, halved after each tenth of 1000 epochs, batches of 512, sigma = u^2, sums of
    squares."""
    studied = [e for e in zoo.zoo("full").values() if e.network != "Autoencoder"]
    assert {e.recipe for e in studied} == {zoo.PAPER}
    judges = [
        {n: e.key() for n, e in zoo.zoo(p).items() if e.network == "Autoencoder"} for p in STUDIES
    ]
    # one judge, whoever is judged
    assert len(judges[0]) == 2 and judges[0] == judges[1] == judges[2]
    r = zoo.PAPER
    assert (r.rate, r.batch, r.loss, r.decay, r.noise) == (
        1e-3,
        512,
        "sum",
        "halving",
        ("quadratic", 1.0),
    )
    assert r.epoch == 250_000 and r.steps // (r.epoch // r.batch) == 1000
    face = zoo.zoo("full")["faces-n1000-a"]
    assert (
        sum(p.numel() for p in UNet(**face.options).parameters()) == 7_659_264
        and face.data["size"] == 80
    )


# Making and shipping them -------------------------------------------------------------------------

TINY = Recipe(12, 4, 1e-2, ("log-uniform", 0.05, 1.0), "sum", ema=0.9)
DISKS = {"name": "disks", "size": 8, "n": 10}


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A zoo of three small networks, one of which fails, in a folder of models of its own."""
    entries = {
        "good": zoo.Entry("UNet", {"blocks": 1, "channels": 2}, DISKS, TINY),
        "bad": zoo.Entry("UNet", {"blocks": 1, "channels": 2}, {**DISKS, "size": 7}, TINY),
        "chain": zoo.Entry("CNN", {"depth": 2, "channels": 2}, DISKS, replace(TINY, steps=3)),
    }
    monkeypatch.setattr(zoo, "zoo", lambda profile="cpu": entries)
    monkeypatch.setenv(models.MODELS, str(tmp_path / "models"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return entries


@pytest.fixture
def here(monkeypatch):
    """The sweep's trainings run in this process, which knows the tiny zoo; their names."""
    called = []

    def engine(task, rows, workers, humble):
        called.extend(name for name, _ in rows)
        return engines.on_process(task, rows)

    monkeypatch.setattr(campaign, "on_cores", engine)
    return called


def test_a_sweep_trains_what_is_missing_and_a_failure_stops_only_its_own(tiny, here, tmp_path):
    assert campaign.pending([], tiny) == ["good", "bad", "chain"]
    failed = campaign.campaign([], tiny, "cpu", "cpu", 1, tmp_path / "train")
    assert (
        here == ["good", "bad", "chain"] and list(failed) == ["bad"] and "7" in str(failed["bad"])
    )
    assert campaign.pending([], tiny) == ["bad"] and set(models.manifest()) == {"good", "chain"}
    assert list((tmp_path / "train" / "cpu").iterdir()) == []
    here.clear()
    assert (
        campaign.campaign(["good"], tiny, "cpu", "cpu", 1, tmp_path / "train") == {} and here == []
    )


def test_what_is_made_another_way_or_gone_is_pending(tiny, here, tmp_path):
    campaign.campaign(["good", "chain"], tiny, "cpu", "cpu", 1, tmp_path)
    assert campaign.pending(["good", "chain"], tiny) == []
    before = tiny["good"]
    for change in (
        {"recipe": replace(TINY, seed=1)},
        {"data": {**DISKS, "n": 11}},
        {"options": {"blocks": 1, "channels": 3}},
    ):
        tiny["good"] = replace(before, **change)
        assert campaign.pending(["good", "chain"], tiny) == ["good"]
    tiny["good"] = before
    (models.models_folder() / "chain.safetensors").unlink()
    assert campaign.pending(["chain", "good"], tiny) == ["chain"]


def test_pending_names(tiny):
    assert campaign.pending(["chain", "good"], tiny) == ["chain", "good"]
    # two processes would write to one checkpoint
    assert campaign.pending(["chain", "chain"], tiny) == ["chain"]
    with pytest.raises(
        ValueError, match="no entry of the zoo is called x, y: choose among good, bad, chain"
    ):
        campaign.pending(["x", "good", "y"], tiny)


class Mine(Network):
    """As a reader would write it: a convolution that is told nothing but how much its images vary."""

    def __init__(self, width: int = 3, data_std: float = 0.5):
        super().__init__()
        self.arguments, self.data_std = {"width": width, "data_std": data_std}, data_std
        self.layer = nn.Conv2d(1, 1, width, padding=width // 2)

    def estimate(self, y, sigma):
        return self.layer(y[:, None].to(self.layer.weight.dtype))[:, 0].to(y)


def test_an_architecture_needs_its_class_and_a_row(tiny, here, tmp_path):
    tiny["mine"] = zoo.Entry("Mine", {"width": 5}, DISKS, TINY)
    assert campaign.campaign(["mine"], tiny, "cpu", "cpu", 1, tmp_path) == {}
    net, card = models.load("mine"), models.manifest()["mine"]
    assert isinstance(net, Mine) and net.layer.kernel_size == (5, 5) and card["class"] == "Mine"
    assert net.data_std == pytest.approx(float(load(**DISKS).images.std()), abs=1e-3)


def test_what_only_this_process_defines_is_refused_in_another(tiny, tmp_path):
    tiny["mine"] = zoo.Entry("Mine", {}, DISKS, TINY)
    failed = campaign.campaign(["mine"], tiny, "cpu", "cpu", 1, tmp_path)
    with pytest.raises(ValueError, match="network is 'Mine': .*, or put its class into a file of"):
        raise failed["mine"]
    runner.make("mine", tiny["mine"], "cpu", "cpu", tmp_path)
    assert isinstance(models.load("mine"), Mine)


def test_the_newest_class_of_a_name_counts_and_none_takes_a_name_of_the_book(tiny):
    for version in range(9):
        cell = type("Again", (Network,), {"version": version})
        assert models.classes()["Again"] is cell
    other = type("UNet", (UNet,), {})
    assert models.classes()["UNet"] is UNet
    with pytest.raises(ValueError, match="denoiser is a UNet, as another network is called"):
        models.save("one", other(1, channels=2), {}, IMAGES)


def test_a_card_that_cannot_be_kept_leaves_what_was_there(tiny):
    card = models.save("one", UNet(1, channels=2), {}, IMAGES)
    for wrong in ({"loss": math.nan}, {"loss": torch.ones(1)}):
        with pytest.raises(ValueError, match="the card of one is no JSON"):
            models.save("one", UNet(1, channels=2, seed=1), wrong, IMAGES)
    assert models.load("one").arguments == card["arguments"]


def test_what_lies_damaged_among_the_trainings_is_named(tiny, tmp_path):
    state = runner.checkpoint("good", tiny["good"], tmp_path / "cpu")
    state.parent.mkdir()
    state.write_bytes(b"{}")
    with pytest.raises(ValueError, match="is damaged: remove it to train from the start"):
        campaign.progress(["good"], tiny, "cpu", tmp_path)
    state.with_suffix(".json").write_text("{")
    with pytest.raises(ValueError, match=r"\.json is damaged: remove it and good-"):
        runner.make("good", tiny["good"], "cpu", "cpu", tmp_path / "cpu")
    state.unlink()
    for text in ("[]", "{", '{"a": 0}', "5", "", '{"a": null}'):
        (tmp_path / "speeds.json").write_text(text)
        told = campaign.progress(["good"], tiny, "cpu", tmp_path, seconds=0.01)
        assert told[-1].startswith("0 networks are there, 1 to go")


def test_weights_that_do_not_ship_stay_on_the_machine_and_are_not_asked_for_again(
    tiny, here, tmp_path
):
    tiny["good"] = replace(tiny["good"], ships=False)
    campaign.campaign(["good"], tiny, "cpu", "cpu", 1, tmp_path)
    kept = models.models_folder() / "unshipped" / "good.safetensors"
    assert kept.exists() and not (models.models_folder() / "good.safetensors").exists()
    assert models.load("good").blocks == 1
    kept.unlink()  # as for whoever clones the book
    assert campaign.pending([], {"good": tiny["good"]}) == []
    with pytest.raises(
        ValueError,
        match="good.safetensors is missing: train it: python -m helpers.experiments train",
    ):
        models.load("good")
    assert campaign.pending(["good"], tiny) == ["good"], "the remedy works"


def test_a_profile_of_minutes_is_planned_once_by_what_is_measured(tiny, tmp_path, monkeypatch):
    """Two thirds of the time for one of three kinds that is twice as slow; a plan that is there is
    kept."""
    speed = {"UNet": 100.0, "CNN": 50.0}
    monkeypatch.setattr(
        campaign, "on_cores", lambda task, items, workers: engines.on_process(task, items)
    )
    monkeypatch.setattr(
        campaign,
        "measure",
        lambda entry, device, seconds: cost.Measured(speed[entry.network], 1, 1),
    )
    monkeypatch.setitem(zoo.MINUTES, "t4", 1)
    planned = campaign.entries("t4", "cpu", 1, tmp_path)
    steps = {name: entry.recipe.steps for name, entry in planned.items()}
    assert steps == {"good": 450, "bad": 450, "chain": 225}  # .9 of 20 s each, batches of 4
    assert {
        n: e.recipe.steps for n, e in campaign.entries("t4", "cpu", 3, tmp_path).items()
    } == steps
    (tmp_path / "t4" / "plan.json").unlink()
    assert campaign.entries("t4", "cpu", 3, tmp_path)["good"].recipe.steps == 3 * 450
    (tmp_path / "t4" / "plan.json").write_text('{"good": 3}')
    with pytest.raises(ValueError, match="plan.json is damaged, or of an older list: remove it"):
        campaign.entries("t4", "cpu", 1, tmp_path)


def test_a_profile_of_minutes_trains_what_it_planned(tiny, tmp_path, monkeypatch):
    """In a reduced form, here: measured, planned, trained, packed, unpacked."""
    del tiny["bad"]
    monkeypatch.setattr(
        campaign, "on_cores", lambda task, items, *others: engines.on_process(task, items)
    )
    monkeypatch.setitem(zoo.MINUTES, "h200", 1e-3)
    planned = campaign.entries("h200", "cpu", 2, tmp_path)
    assert campaign.campaign(
        [], planned, "h200", "cpu", 2, tmp_path
    ) == {} and not campaign.pending([], planned)
    cards = models.manifest()
    assert {n: c["images_seen"] for n, c in cards.items()} == {
        n: 4 * e.recipe.steps for n, e in planned.items()
    }
    files = campaign.pack(
        planned, tmp_path / "out", most=models.weights("good", cards["good"]).stat().st_size + 1
    )
    assert [path.name for path in files] == ["models-1.zip", "models-2.zip", "models-3.zip"]
    monkeypatch.setenv(models.MODELS, str(tmp_path / "elsewhere"))
    own = models.save("own", UNet(1, channels=2), {}, IMAGES)
    assert campaign.unpack(tmp_path / "out") == ["good", "chain"]
    assert (
        models.manifest() == {"own": own, **cards} and models.load("chain").arguments["depth"] == 2
    )
    with pytest.raises(ValueError, match="elsewhere holds no archive of models"):
        campaign.unpack(tmp_path / "elsewhere")


def test_a_damaged_manifest_is_met_before_the_training(tiny):
    models.models_folder().mkdir()
    (models.models_folder() / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json is damaged"):
        campaign.pending([], tiny)


def test_the_card_says_how_a_network_was_made(tiny, tmp_path, capsys):
    runner.make("good", tiny["good"], "cpu", "cpu", tmp_path)
    card, net = models.manifest()["good"], models.load("good")
    assert Recipe(**card["training"], seed=card["seed"]) == TINY
    assert (
        card["recipe"] == "python -m helpers.experiments train good --profile cpu"
        and card["key"] == tiny["good"].key()
    )
    assert card["N"] == 10 and card["data"] == "10 images, train, 8x8 gray: synthetic disks, seed 0"
    assert card["images_seen"] == 48 and card["parameters"] == sum(
        p.numel() for p in net.parameters()
    )
    assert card["arguments"]["data_std"] == pytest.approx(
        float(load(**DISKS).images.std()), abs=1e-3
    )
    assert [images for images, *_ in card["curve"]] == [
        4 * k for k in (1, 2, 3, 4, 6, 7, 8, 9, 10, 12)
    ]
    assert card["test"]["images"] == 1000 and card["train"]["images"] == 100
    assert "good: step 12 of 12" in capsys.readouterr().out


def test_the_weights_are_those_of_the_recipe(tiny, tmp_path):
    """The same training by hand; the model is stored in half precision."""
    runner.make("good", tiny["good"], "cpu", "cpu", tmp_path)
    net, x = models.load("good"), load(**DISKS).images
    again = UNet(1, channels=2, data_std=net.data_std)
    run(train(again, x, TINY))
    torch.testing.assert_close(net(x, 0.1), again(x, 0.1), rtol=0, atol=5e-3)


@pytest.mark.parametrize("ema", [None, 0.9])
def test_an_interrupted_network_has_the_same_curve_and_weights(ema, tiny, tmp_path, monkeypatch):
    tiny["good"] = replace(tiny["good"], recipe=replace(TINY, ema=ema))
    runner.make("good", tiny["good"], "cpu", "cpu", tmp_path)
    card, weights = models.manifest()["good"], state(models.load("good"))

    def killed(*arguments):
        for p in train(*arguments, checkpoint_seconds=0.0):
            yield p
            if p.step == 5:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, "train", killed)
        runner.make("good", tiny["good"], "cpu", "cpu", tmp_path)
    assert list(tmp_path.glob("good-*.safetensors"))
    runner.make("good", tiny["good"], "cpu", "cpu", tmp_path)
    again = models.manifest()["good"]
    assert (
        again["curve"] == card["curve"]
        and again["sha256"] == card["sha256"]
        and again["test"] == card["test"]
    )
    assert equal(state(models.load("good")), weights) and not list(tmp_path.glob("good-*"))


@pytest.mark.parametrize(
    ("test_images", "training_images"), [(1000, 3), (6, 1000), (6, 2), (200, 150)]
)
def test_the_table_of_training_images_has_a_hundred_drawings(test_images, training_images, tiny):
    """As many training images as test images, each as often as it takes."""
    net, x = UNet(1, channels=2), torch.rand(1000, 4, 4, generator=generator())
    card = models.save("one", net, {}, x[:test_images], x[:training_images])
    assert card["train"]["images"] >= 100 and card["test"]["images"] == test_images


SAVING = """
import multiprocessing, torch
from helpers import models
from helpers.denoisers import UNet
torch.set_num_threads(1)
images = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
multiprocessing.set_start_method("fork")
barrier = multiprocessing.Barrier(8)

def save(i):
    net = UNet(1, channels=2, seed=i)
    for j in range(3):
        barrier.wait(60)
        models.save(f"net-{i}-{j}", net, {"i": i}, images)

processes = [multiprocessing.Process(target=save, args=(i,)) for i in range(8)]
for process in processes:
    process.start()
for process in processes:
    process.join()
    assert process.exitcode == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_eight_processes_at_once_lose_no_card(tiny, tmp_path):
    (tmp_path / "script.py").write_text(SAVING)
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True)
    cards = models.manifest()
    assert set(cards) == {f"net-{i}-{j}" for i in range(8) for j in range(3)}
    assert all(card["i"] == int(name[4]) for name, card in cards.items())
    assert len(list(models.models_folder().iterdir())) == 25 and not models.load("net-7-2").training


# What ships ---------------------------------------------------------------------------------------

CARDS = models.manifest()
SHIPPED = {name: card for name, card in CARDS.items() if card.get("ships", True)}


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_networks_are_those_of_the_zoo(name):
    """A network whose entry has changed since must be trained again."""
    card, net = SHIPPED[name], models.load(name)
    entry = zoo.zoo(card["profile"])[name]
    assert card["parameters"] == sum(p.numel() for p in net.parameters())
    assert type(entry.recipe)(**card["training"], seed=card["seed"]) == entry.recipe
    assert entry.options.items() <= card["arguments"].items()


def test_cards_are_those_of_the_zoo_and_have_their_samples():
    """Also of networks whose weights do not ship."""
    for name, card in CARDS.items():
        entry = zoo.zoo(card["profile"])[name]
        assert (
            card["key"] == entry.key()
            and card["class"] == entry.network
            and card.get("ships", True) == entry.ships
        )
        sheet = models.models_folder() / f"{name}.webp"
        assert entry.watched == ("looks" in card) == sheet.exists(), name
        if "sheet" in card:
            assert hashlib.sha256(sheet.read_bytes()).hexdigest() == card["sheet"]


CLOTHES = [name for name, card in SHIPPED.items() if "Fashion-MNIST" in card["data"]]


@pytest.mark.parametrize("name", CLOTHES)
def test_shipped_networks_do_what_their_cards_say(name):
    """The first 50 test images at one level: within a decibel of the table, which is over all of
    them."""
    card = SHIPPED[name]
    images = load("fashion-mnist", "test", 50, zoo.zoo(card["profile"])[name].data["size"]).images
    table = models.psnr_table(models.load(name), images, (50,))
    assert table["psnr"] == pytest.approx(card["test"]["psnr"][2:3], abs=1)


def test_nothing_ships_that_no_card_knows():
    folder = models.models_folder()
    weights = {path.stem: path.stat().st_size for path in folder.glob("*.safetensors")}
    assert weights == {name: card["bytes"] for name, card in SHIPPED.items()}
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 34e6
