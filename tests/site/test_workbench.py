"""The workbench: every architecture, training in slices, resuming, faults in words, what is asked of
a network afterwards, and its widget, by messages and in a browser."""

import asyncio
import base64
import gc
import inspect
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
import torch
from jupyter_client.manager import start_new_kernel
from torch import nn

from helpers import checkpoint, jacobian, looks, models, noise
from helpers.cards import MODELS
from helpers.data import load
from helpers.denoisers import Denoiser, PosteriorMean
from helpers.denoisers.base import Network, drawn_from
from helpers.experiments.ledger import Claim
from helpers.lab import Workbench, bench, verdicts
from helpers.lab.bench_widget import BenchWidget
from helpers.plots import SITE

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[2]
TINY = {"blocks": 1, "channels": 2}
DISKS = {"data": "disks", "n": 12, "size": 8, "device": "cpu"}


class OwnNet(Network):
    """What a reader may write in a cell; the options are read from its signature."""

    def __init__(self, width: int = 3, kind: Literal["plain", "twice"] = "plain", seed: int = 0):
        super().__init__()
        self.arguments = {"width": width, "kind": kind, "seed": seed}
        with drawn_from(seed):
            first, last = nn.Conv2d(1, width, 3, padding=1), nn.Conv2d(width, 1, 3, padding=1)
        self.layers = nn.Sequential(first, nn.ReLU(), last)

    def estimate(self, y, sigma):
        return y - self.layers(y[:, None].to(self.layers[0].weight.dtype))[:, 0].to(y)


class OwnShape(OwnNet):
    def estimate(self, y, sigma):
        return y.flatten(1)


class OwnBare(Denoiser):
    """No Network: it trains, and cannot be kept."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(0.5))

    def estimate(self, y, sigma):
        return self.gain * y


@pytest.fixture(scope="module")
def pair():
    """Two networks, trained for a few steps."""
    work = Workbench(**DISKS, networks=[("UNet", TINY), OwnNet], steps=6)
    work.run()
    return work


def weights(run):
    return torch.cat([p.flatten() for p in run.network.parameters()])


OURS = [name for name, cls in models.classes().items() if cls.__module__.startswith("helpers.")]


@pytest.mark.parametrize("network", [*OURS, "OwnNet", "OwnBare"])
def test_every_architecture_trains_with_its_first_options(network):
    options = {c.name: c.value for c in bench.controls(network)}
    work = Workbench(**DISKS, networks=[(network, options)], steps=2)
    work.run()
    (run,) = work.runs
    assert type(run.network) is bench.architectures()[network] and run.ended
    assert run.sheet.shape == (bench.SHOWN, 8, 8) and len(run.near) == bench.SHOWN


def test_controls_are_the_signature():
    for network, cls in bench.architectures().items():
        named = {c.name for c in bench.controls(network)}
        taken = {
            k for k, p in inspect.signature(cls).parameters.items() if p.kind is not p.VAR_KEYWORD
        }
        assert taken - {*bench.TOLD} <= named and not named & {*bench.TOLD}, network
    known = {c.name: c for c in bench.controls("UNet")}
    assert known["pooling"].choices == ("average", "max", "strided", "none")
    assert known["bias"].choices == (False, True) and known["blocks"].choices is None
    own = {c.name: c for c in bench.controls("OwnNet")}
    assert own["kind"].choices == ("plain", "twice") and own["width"].value == 3


def test_colour_is_told():
    clothes = load("fashion-mnist", n=4, size=28)
    rgb = clothes.images[:, None].expand(-1, 3, -1, -1)
    data = type(clothes)(rgb, "folder", "train", 28, "rgb", "a test")
    assert bench.built("UNet", {**TINY, "blocks": 2}, data).arguments["image_channels"] == 3


def test_two_networks_take_turns_on_the_same_noise(pair):
    first, second = pair.runs
    assert first.step == second.step == 6 and first.ended and second.ended
    alone = Workbench(**DISKS, networks=[OwnNet], steps=6)
    alone.run()
    assert torch.equal(weights(second), weights(alone.runs[0]))
    assert torch.equal(second.sheet, alone.runs[0].sheet)
    assert [row["images"] for row in first.history][0] == 0
    assert first.history[-1]["images"] == 6 * first.recipe.batch


def test_pausing_changes_nothing(pair):
    work = Workbench(**DISKS, networks=[("UNet", TINY), OwnNet], steps=6)
    for _ in range(8):  # each a fresh loop that is left after its first breath
        next(work.slices(1e-9), None)
    assert 0 < work.runs[0].step < 6
    work.run()
    assert torch.equal(weights(work.runs[0]), weights(pair.runs[0]))


def test_what_died_goes_on(tmp_path, pair, monkeypatch):
    """From the folder alone: choices, weights, and what was measured."""
    options = {**DISKS, "networks": [("UNet", TINY), OwnNet], "steps": 6, "folder": tmp_path}
    work = Workbench(**options)
    monkeypatch.setattr(bench, "KEPT", 0.0)  # a checkpoint after each step
    for _ in range(8):
        next(work.slices(1e-9), None)
    reached = work.runs[0].step
    again = Workbench(folder=tmp_path, device="cpu")
    assert again.choices == work.choices and again.kept()
    again.start()
    assert 0 < again.runs[0].step == reached < 6
    again.run()
    for run, other in zip(again.runs, pair.runs, strict=True):
        assert torch.equal(weights(run), weights(other))
        assert torch.equal(run.sheet, other.sheet)
        seen = [row["images"] for row in run.history]
        assert seen == sorted(set(seen)) and seen[-1] == 6 * run.recipe.batch
    # of other choices it is another training
    other = Workbench(**{**options, "seed": 1})
    assert not other.kept()
    other.start()
    assert other.runs[0].step == 0


def test_a_damaged_note_is_refused(tmp_path):
    (tmp_path / "z.json").write_text("{")  # not ours
    Workbench(folder=tmp_path)
    (tmp_path / "0123456789ab.json").write_text("{")
    with pytest.raises(ValueError, match=r"0123456789ab\.json is damaged: remove it"):
        Workbench(folder=tmp_path)


def test_minutes_are_planned_as_fast_as_it_is_here():
    work = Workbench(**DISKS, networks=[OwnNet, ("UNet", TINY)], minutes=0.5)
    work.start()
    cost = sum(bench.seconds_a_step(r.denoiser, r.data.images, r.recipe) for r in work.runs)
    planned = {run.recipe.steps for run in work.runs}
    assert len(planned) == 1 and 5 < planned.pop() * cost < 100  # seconds; 24 on a quiet machine


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"networks": ["Nobody"]}, "network is 'Nobody': choose one of UNet, .*run the cell"),
        (
            {"networks": [OwnShape]},
            r"OwnShape answers images \(2, 8, 8\) by \(2, 64\): .*shape of y",
        ),
        ({"networks": [("UNet", {"colour": 1})]}, "UNet has no colour: it has blocks"),
        ({"networks": [("UNet", {"blocks": 4})]}, "height is 8: 4 poolings need a multiple of 16"),
        ({"networks": []}, "0 networks: choose one, or two"),
        ({"networks": [OwnNet, OwnNet]}, "both networks are OwnNet: change an option"),
        ({"data": "fashion-mnist", "size": 28, "n": 99_999}, "99999"),
        ({"data": "nothing"}, "name is 'nothing': choose one of"),
        ({"changes": {"rate": -1.0}}, "rate is -1"),
        ({"minutes": 0.0}, "minutes is 0"),
        ({"steps": 0}, "steps is 0"),
    ],
)
def test_faults_are_said_in_words(options, words):
    with pytest.raises(ValueError, match=words):
        Workbench(**{**DISKS, "networks": [("UNet", TINY)], **options}).start()
    with pytest.raises(ValueError, match="no choice is called 'size'"):
        Workbench(**DISKS).choose(size=9)


def test_faces_that_are_not_there_are_named(monkeypatch, tmp_path):
    monkeypatch.delenv("CELEBA_ROOT", raising=False)
    with pytest.raises(ValueError, match="CELEBA_ROOT"):
        Workbench("celeba", n=8, size=20, networks=[("UNet", TINY)], device="cpu").start()


def test_divergence_is_said_and_what_was_seen_stays():
    options = {"networks": [OwnBare], "changes": {"rate": 1e30, "clip": None}, "steps": 99}
    work = Workbench(**{**DISKS, **options})
    with pytest.raises(ValueError, match="lower the learning rate"):
        work.run()
    assert work.runs[0].sheet is not None and work.runs[0].history


def test_a_folder_goes_on_only_where_nothing_else_is_asked(tmp_path):
    Workbench(**DISKS, networks=[("UNet", TINY)], steps=3, folder=tmp_path).run()
    (tmp_path / "zz.json").write_text("{")  # not ours
    assert Workbench(folder=tmp_path).choices["data"]["n"] == 12
    other = Workbench(n=32, networks=["CNN"], steps=5, folder=tmp_path).choices
    assert (other["data"]["n"], other["networks"], other["steps"]) == (32, [["CNN", {}]], 5)


def test_a_name_means_one_class(tmp_path, monkeypatch, pair):
    other = type("CNN", (OwnNet,), {"__module__": "cell"})
    with pytest.raises(ValueError, match="another network is called CNN: give your class another"):
        Workbench(**DISKS, networks=[other])
    del other
    gc.collect()
    for networks, words in (
        ("UNet", "pass a list"),
        ([("UNet", 2)], "is no network"),
        ([3], "3 is no"),
    ):
        with pytest.raises(ValueError, match=words):
            Workbench(**DISKS, networks=networks)
    # of the book's networks none is overwritten
    monkeypatch.setenv(MODELS, str(tmp_path))
    models.save("disks", pair.runs[0].delivered, {"recipe": "the book's"}, pair.runs[0].test.images)
    with pytest.raises(ValueError, match="disks is a network of the book: choose another name"):
        pair.save("disks")
    pair.save("mine")
    pair.save("mine")


def test_a_checkpoint_of_another_device_says_so(tmp_path, monkeypatch):
    Workbench(**DISKS, networks=[("UNet", TINY)], steps=3, folder=tmp_path).run()

    def read(*_):
        raise RuntimeError("Expected a CPUGeneratorImplState of size 5056")  # as torch says it

    monkeypatch.setattr(checkpoint.State, "read", read)
    with pytest.raises(ValueError, match="begun on another kind of device than cpu"):
        Workbench(folder=tmp_path, device="cpu").start()


def test_an_option_that_is_no_json_is_shown(pair):
    class OwnOdd(OwnNet):
        def __init__(self, width: int = 3, act=nn.GELU, seed: int = 0):
            super().__init__(width, seed=seed)

    told, _ = BenchWidget(pair).reply({"ask": "all"})
    assert "GELU" in json.dumps(told["architectures"]["OwnOdd"])


def test_what_is_asked_afterwards(pair, tmp_path, monkeypatch):
    first, second = pair.runs
    by = pair.samples(1, "Heun", 6, 3)
    assert by.shape == (3, 8, 8) and not torch.equal(by, pair.samples(0, "Heun", 6, 3))
    with pytest.raises(ValueError, match="sampler is 'none': choose one of Heun"):
        pair.samples(0, "none")
    found = pair.eigenvectors(first.data.images[0], 0, 0.1, 3)
    y = first.data.images[0] + 0.1 * noise.normal(8, 8, seed=0).float()
    expected = jacobian.eigen(jacobian.Jacobian(first.network, y[None], 0.1), 3)
    assert torch.equal(found.values, expected.values)
    assert {"linear", "local, 5", "ideal"} == set(pair.agreement(0, 4))
    assert {"closeness", "quadrants", "copies"} <= set(pair.point(1))
    assert Claim(**pair.row(0)).control is not None
    monkeypatch.setenv(MODELS, str(tmp_path))
    card, kept = pair.save("mine", 1), models.load("mine")
    assert card["class"] == "OwnNet" and card["images_seen"] == 6 * second.recipe.batch
    saved = torch.cat([p.flatten() for p in kept.parameters()])
    assert torch.allclose(weights(second), saved, atol=1e-3)
    manifest = pair.lab("pair").write(tmp_path / "lab")
    assert len(manifest["models"]) == 2 and all(
        (tmp_path / "lab" / m["file"]).exists() for m in manifest["models"].values()
    )
    with pytest.raises(ValueError, match="which is 2: there are networks 0 to 1"):
        pair.point(2)


def test_a_copier_copies_and_new_images_do_not():
    """closeness and the row for the ledger, of what is known."""
    data, test = load("disks", n=30, size=8), load("disks", "test", n=60, size=8)
    unet = bench.built("UNet", TINY, data)
    run = bench.Run("net", unet, bench.recipe_for(unet), data, test)
    copies, new = data.images[:20], load("disks", "test", n=60, size=8, seed=5).images
    closeness = partial(looks.closeness, seen=data.images, unseen=test.images)
    assert closeness(copies) == 0 and closeness(new) > 0.5
    assert math.isnan(closeness(torch.full((2, 8, 8), math.nan)))
    with pytest.raises(ValueError, match="lower|control|passes"):
        Claim(**{**verdicts.row(run), "expected": (-math.inf, 0.0)})


def test_copies_are_seen_in_a_look():
    """A network that answers as the posterior mean makes copies, and its sheet names of which."""

    class OwnCopier(OwnBare):
        def __init__(self):
            super().__init__()
            self.of = PosteriorMean(load("disks", n=12, size=8).images)

        def estimate(self, y, sigma):
            return self.of(y, sigma) + 0 * self.gain

    work = Workbench(**DISKS, networks=[OwnCopier], steps=1)
    row = work.look()
    run = work.runs[0]
    assert row["copies"] == 1 and row["psnr"][0] > row["psnr"][1]
    assert float((run.sheet - run.data.images[run.near]).abs().max()) < 0.02


# The widget ---------------------------------------------------------------------------------------


@pytest.fixture
def beside(monkeypatch):
    """A widget, what it has sent, and a function that asks it: the answer and its arrays."""
    sent = []
    monkeypatch.setattr(
        BenchWidget, "send", lambda self, content, buffers=None: sent.append((content, buffers))
    )

    def opened(**options):
        work = Workbench(**{**DISKS, "networks": [("UNet", TINY), OwnNet], "steps": 6, **options})
        widget = BenchWidget(work)

        def ask(what, **question):
            widget._answer(widget, {"id": 7, "ask": what, **question}, [])
            content, buffers = next(s for s in sent if s[0].get("id") == 7 and "arrays" in s[0])
            sent.clear()
            json.dumps(content, allow_nan=False)
            names = [(name, shape) for name, _, shape in content["arrays"]]
            arrays = {
                name: torch.frombuffer(bytearray(data), dtype=torch.float32).view(shape)
                for (name, shape), data in zip(names, buffers, strict=True)
                if len(data)
            }
            return content, arrays

        return widget, ask, sent

    return opened


def trained(widget, ask):
    """To the end, as a kernel's loop does it."""

    async def loop():
        answer, _ = ask("train")
        await widget.task
        return answer

    return apart(loop())


def apart(coroutine):
    """Run it in a thread: a browser of this process may have a loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


def test_the_widget_trains_in_the_kernels_loop(beside):
    widget, ask, sent = beside()
    opened, _ = ask("all")
    assert {"UNet", "OwnNet"} <= set(opened["architectures"]) and "disks" in opened["data"]
    assert opened["runs"] == [] and not opened["running"]
    heard = []

    async def pause():
        ask("train")
        while not widget.work.runs or widget.work.runs[0].step < 2:
            await asyncio.sleep(0)  # what else the kernel has to do is done meanwhile
            heard.append(widget.wanted)
        ask("pause")
        await widget.task
        return widget.work.runs[0].step

    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched:  # slices of one step
        patched.setattr(Workbench.slices, "__defaults__", (1e-9,))
        reached = apart(pause())
    assert 2 <= reached < 6 and any(heard) and not widget.wanted
    sent.clear()
    trained(widget, ask)
    pushes = [(content, buffers) for content, buffers in sent if content.get("push")]
    for content, _ in pushes:
        json.dumps(content, allow_nan=False)
    last = pushes[-1][0]
    assert last["ended"] and not last["running"] and last["fault"] == ""
    assert [run["step"] for run in last["runs"]] == [6, 6]
    reopened, arrays = ask("all")
    assert torch.equal(arrays["sheet1"], widget.work.runs[1].sheet)
    assert reopened["runs"] == json.loads(json.dumps(last["runs"]))


def test_what_the_widget_is_asked(beside, tmp_path, monkeypatch):
    widget, ask, _ = beside(folder=tmp_path)
    trained(widget, ask)
    work = widget.work
    answer, arrays = ask("sample", which=1, sampler="Heun", steps=5, seed=3)
    assert torch.equal(arrays["sheet1"], work.samples(1, "Heun", 5, bench.SHOWN, 3))
    assert answer["near"] == work.runs[1].near
    answer, arrays = ask("eigenvectors", which=0, image=2, sigma=0.3)
    found = work.eigenvectors(work.runs[0].sheet[2], 0, 0.3)
    assert torch.equal(arrays["vectors"], found.vectors) and len(answer["values"]) == 6
    _, arrays = ask("eigenvectors", which=0, image=2, sigma=0.3, nearest=True)
    under = work.runs[0].data.images[work.runs[0].near[2]]
    assert torch.equal(arrays["vectors"], work.eigenvectors(under, 0, 0.3).vectors)
    assert ask("agreement", which=0)[0]["found"] == work.agreement(0)
    assert ask("point", which=0)[0]["found"] == work.point(0)
    assert (
        ask("landmarks")[0]["found"]["copier"]["closeness"]
        == 0
        == work.landmarks()["copier"]["closeness"]
    )
    assert "untrained" in ask("row", which=0)[0]["found"]["control"]
    monkeypatch.setenv(MODELS, str(tmp_path / "models"))
    assert ask("save", which=1, name="kept")[0]["found"]["class"] == "OwnNet"
    assert ask("lab")[0]["found"]["written to"] == str(tmp_path / "lab")
    answer, _ = ask("choose", choices={**work.choices, "networks": [["OwnNet", {"width": 2}]]})
    assert answer["runs"] == [] and work.choices["networks"] == [["OwnNet", {"width": 2}]]
    trained(widget, ask)
    assert work.runs[0].network.arguments["width"] == 2


def test_the_widget_says_faults_in_words(beside):
    widget, ask, sent = beside(networks=[OwnShape])
    trained(widget, ask)
    assert "must return the shape of y" in widget.fault and not widget.wanted
    assert ask("nothing")[0]["error"].startswith("ValueError: asked for 'nothing': this kernel")
    assert "there is no folder" in ask("lab")[0]["error"]
    answer, _ = ask("choose", choices={**widget.work.choices, "networks": [["OwnNet", {}]]})
    assert answer["fault"] == ""
    trained(widget, ask)
    assert widget.fault == "" and widget.work.runs[0].ended


def test_the_widget_in_a_browser(tab, beside, monkeypatch):
    """Choices are read from the controls, training is shown, and a click asks for eigenvectors."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    from workbench import FRONT

    widget, _, sent = beside(networks=[("UNet", TINY)], steps=2)

    def post(question):
        if question["ask"] != "train":
            return widget._answer(widget, question, [])
        widget.wanted = True
        asker = threading.Thread(target=lambda: asyncio.run(widget.train()))
        asker.start()
        asker.join()
        return widget.tell({"id": question["id"]}, {})

    def drain():
        told = [[c, [base64.b64encode(b).decode() for b in buffers or []]] for c, buffers in sent]
        sent.clear()
        return told

    tab.expose_function("post", post)
    tab.expose_function("drain", drain)
    tab.set_content("<!doctype html><html lang=en><body></body></html>")
    tab.evaluate(FRONT, [widget._esm, widget._css])
    tab.get_by_role("spinbutton", name="channels").fill("3")
    tab.get_by_role("spinbutton", name="channels").press("Tab")
    tab.get_by_role("button", name="Train").click()
    tab.wait_for_selector(".bench-run canvas")
    tab.get_by_text("step 2 of 2").wait_for()
    assert widget.work.choices["networks"] == [["UNet", {"blocks": 1, "channels": 3}]]
    assert widget.work.runs[0].network.arguments["channels"] == 3
    canvas = tab.locator(".bench-run canvas")
    canvas.focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    tab.wait_for_selector(".bench-vectors canvas")
    assert tab.locator(".bench-vectors canvas").count() == 6
    assert "UNet blocks 1 channels 3, sample 2" in tab.locator(".bench p").last.inner_text()
    box = canvas.bounding_box()
    canvas.click(position={"x": 5, "y": box["height"] / (2 if box["width"] >= 520 else 4) * 0.75})
    tab.get_by_text("the training image under sample 1,").wait_for()
    tab.get_by_role("spinbutton", name="channels").fill("2")  # of what has ended: another one
    tab.get_by_role("spinbutton", name="channels").press("Tab")
    tab.get_by_role("button", name="Train").click()
    tab.get_by_text("UNet blocks 1 channels 2").first.wait_for()
    tab.get_by_text("step 2 of 2").wait_for()
    assert widget.work.runs[0].network.arguments["channels"] == 2
    tab.get_by_role("button", name="Write as a lab").click()
    tab.get_by_text("there is no folder").wait_for()
    assert tab.problems == []


def test_on_a_page_its_state_stands_still(pair, monkeypatch):
    monkeypatch.setenv(SITE, "1")
    found = pair._repr_mimebundle_()["text/html"]
    assert found.count("data:image/png") == 2 and "96 images seen" in found
    assert "OwnNet" in found and "<script" not in found
    before = Workbench(**DISKS)._repr_mimebundle_()["text/html"]
    assert "Beside a kernel" in before and "data:image" not in before


def test_a_kernel_trains_and_hears_a_pause():
    """In a kernel of Jupyter: messages are answered while it trains, and a pause stops it."""
    manager, kernel = start_new_kernel(kernel_name="python3")
    try:
        code = (
            "from helpers.lab import Workbench\n"
            "work = Workbench('disks', n=12, size=8, networks=[('UNet', {'blocks': 1})],"
            " steps=10**6, device='cpu')\n"
            "work"
        )
        comm = {}

        def hear(wanted):
            """The next message of a panel for which `wanted` holds."""
            while True:
                message = kernel.get_iopub_msg(timeout=60)
                content = message["content"]
                assert message["msg_type"] != "error", content
                if message["msg_type"] == "comm_open" and "_esm" in content["data"].get(
                    "state", {}
                ):
                    comm["id"] = content["comm_id"]
                    told = {}
                elif message["msg_type"] == "comm_msg":
                    told = content["data"].get("content", {})
                else:
                    continue
                if wanted(told):
                    return told

        def ask(what):
            content = {"id": what, "ask": what}
            data = {"comm_id": comm["id"], "data": {"method": "custom", "content": content}}
            kernel.shell_channel.send(kernel.session.msg("comm_msg", data))

        kernel.execute(code)
        hear(lambda told: "id" in comm)
        ask("train")
        assert hear(lambda told: told.get("push") and told["runs"] and told["runs"][0]["step"] > 2)
        ask("all")  # as a page does that opens meanwhile
        opened = hear(lambda told: told.get("id") == "all" and "arrays" in told)
        assert (
            opened["running"]
            and opened["runs"][0]["step"] > 2
            and "UNet" in opened["architectures"]
        )
        ask("pause")
        hear(lambda told: told.get("id") == "pause" and "arrays" in told)
        last = hear(lambda told: told.get("push") and not told["running"])
        assert last["runs"][0]["step"] < 10**6 and last["fault"] == ""
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
