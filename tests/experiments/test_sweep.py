"""Grids of trainings: what a file may say, the same table from every engine, and nothing lost or
doubled by kills."""

import contextlib
import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from helpers import models
from helpers.experiments import engines, runner, sweep
from helpers.experiments.__main__ import app
from helpers.experiments.sweep import Cell, train_cell
from helpers.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
KILLS = 50 if os.environ.get("SLOW") else 2
TABLE = """
[recipe]
steps = {steps}
batch = 4
noise = ["log-uniform", 0.05, 1.0]
loss = "sum"
ema = 0.9

[[sweep]]
name = "tiny"
n = {n}
seeds = [0, 1]
networks = {{ unet = {{ class = "UNet", blocks = 1, channels = 2 }} }}
data = {{ disks = {{ name = "disks", size = 8 }}, other = {{ name = "sine", size = {size} }} }}
"""


@pytest.fixture
def tiny(tmp_path):
    """Writes a sweep of 4 N cells, and reads it."""

    def write(text=TABLE, steps=8, n=(1,), size=8):
        path = tmp_path / "tiny.toml"
        path.write_text(text.format(steps=steps, n=list(n), size=size))
        return path

    return write


def cells(path) -> list[Cell]:
    return [cell for part in sweep.read(path)[1] for cell in part.cells()]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A sweep of eight trainings, and the table that one process makes of it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    path = folder / "tiny.toml"
    path.write_text(TABLE.format(steps=100, n=[1, 5], size=8))
    sweep.sweep(cells(path), folder, engines.on_process, report=str)
    return path, table(folder)


def table(folder) -> list[dict]:
    """Its rows, less what depends on the clock."""
    rows = list(csv.DictReader((folder / "table.csv").open()))
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows
    ]


def files(folder) -> dict[str, bytes]:
    return {
        file.name: file.read_bytes()
        for file in folder.iterdir()
        if file.suffix in (".json", ".safetensors")
    }


# The file -----------------------------------------------------------------------------------------


def test_a_sweep_is_the_product_of_its_axes(tiny):
    text = TABLE + "levels = [0.1, 0.5]\nrecipe.steps = 3\n"
    found = cells(tiny(text, n=(1, 5)))
    assert len(found) == len({cell.key() for cell in found}) == 16
    assert found[-1].place == {
        "sweep": "tiny", "network": "unet", "data": "other", "n": 5, "level": 0.5, "seed": 1,
    }  # fmt: skip
    entry = found[-1].entry
    assert entry.options == {"blocks": 1, "channels": 2, "seed": 1} and entry.data == {
        "name": "sine",
        "size": 8,
        "n": 5,
    }
    assert entry.recipe == Recipe(3, 4, noise=("fixed", 0.5), loss="sum", ema=0.9, seed=1)


def test_every_file_that_ships_is_a_sweep():
    for path in sorted((ROOT / "benchmarks/sweeps").glob("*.toml")):
        assert cells(path), path


def test_a_key_changes_with_all_that_decides_a_result_and_with_nothing_else(tiny):
    [cell, *others] = cells(tiny())
    changed = [
        replace(cell.entry, network="CNN"),
        replace(cell.entry, options={**cell.entry.options, "channels": 3}),
        replace(cell.entry, data={**cell.entry.data, "n": 2}),
        replace(cell.entry, recipe=replace(cell.entry.recipe, rate=1e-4)),
    ]
    keys = [c.key() for c in (cell, *others, *(replace(cell, entry=entry) for entry in changed))]
    assert len(set(keys)) == len(keys)
    assert replace(cell, place={"network": "another name"}).key() == cell.key()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("[recipe]", "[recipe"),
            "tiny.toml is no TOML, see benchmarks/sweeps/fashion.toml: Expected ']'",
        ),
        (("[[sweep]]", "[[net]]"), "'sweep' is missing"),
        (('name = "tiny"', 'name = "tiny"\nepochs = 3'), "unexpected keyword argument 'epochs'"),
        (("ema = 0.9", "momentum = 0.9"), "unexpected keyword argument 'momentum'"),
        (("ema = 0.9", "ema = 1.5"), "ema is 1.5: take a decay from 0 to below 1"),
        (("[recipe]", "seeds = [1]\n[recipe]"), "no sweep has seeds"),
        (('class = "UNet", ', ""), "'class' is missing"),
    ],
)
def test_what_no_sweep_has_is_named(change, message, tiny):
    path = tiny()
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(ValueError) as error:
        sweep.read(path)
    assert str(path) in str(error.value) and message in str(error.value)


def test_a_sweep_that_is_not_there(tmp_path):
    with pytest.raises(
        ValueError, match="none.toml is missing: name a file like those in benchmarks/sweeps"
    ):
        sweep.read(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("threads",), "engine is 'threads': choose one of process, cores, ray"),
        (("cores", "auto"), "address is 'auto': engine 'cores' has none, take ray"),
        (("cores", None, 0.5), "gpus is 0.5: engine 'cores' trains on cores, take ray or process"),
    ],
)
def test_engines_that_do_not_go_together_with_their_options(arguments, message):
    with pytest.raises(ValueError, match=message):
        engines.engine(*arguments)


def test_without_ray_the_command_says_what_to_install(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.chdir(ROOT)
    arguments = ["sweep", str(tiny()), "--engine", "ray", "--folder", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "300"})
    assert result.exit_code == 1 and not isinstance(result.exception, ValueError)
    assert (
        "error: engine is 'ray', which is not installed: pip install 'creative-denoiser[cluster]'"
        in result.output
    )


def test_an_address_where_nothing_answers():
    pytest.importorskip(
        "ray", reason="Ray is not installed: pip install 'creative-denoiser[cluster]'"
    )
    with pytest.raises(
        ValueError,
        match="address is '127.0.0.1:1', where no cluster answers: start one with `ray start`",
    ):
        list(engines.on_ray(str, [1], "127.0.0.1:1", 0.0))


# What a sweep leaves ------------------------------------------------------------------------------


def test_a_row_is_what_its_weights_do(tiny, tmp_path):
    """Whatever the threads of the caller."""
    [cell, *_], threads = cells(tiny(n=(3,))), torch.get_num_threads()
    assert sweep.sweep([cell], tmp_path / "out", engines.on_process, report=str) == []
    assert torch.get_num_threads() == threads
    row, data = (
        table(tmp_path / "out")[0],
        (tmp_path / "out" / f"{cell.key()}.safetensors").read_bytes(),
    )
    card = json.loads(
        json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["card"]
    )
    net = models.classes()[card["class"]](**card["arguments"])
    net.load_state_dict(models.read_tensors(data))
    images = runner.source(**{**cell.entry.data, "split": "test", "n": 200}).images
    psnr = models.psnr_table(net.eval(), images)["psnr"]
    assert [float(row[f"test_psnr_{level}"]) for level in models.LEVELS] == psnr
    assert row["key"] == cell.key() and (row["n"], row["level"], row["images_seen"]) == (
        "3",
        "",
        "32",
    )


def test_a_second_sweep_trains_what_is_missing_and_a_failure_stops_only_its_own(tiny, tmp_path):
    out, trained = tmp_path / "out", []

    def engine(task, items):
        trained.append(len(items := list(items)))
        return engines.on_process(task, items)

    said = []
    failed = sweep.sweep(cells(tiny(size=7)), out, engine, report=said.append)
    assert [cell.place["data"] for cell in failed] == ["other", "other"] and len(table(out)) == 2
    assert said[2].startswith(
        "3 of 4: sweep tiny, network unet, data other, n 1, seed 0: failed, ValueError: "
    )
    assert not list((out / "running").iterdir())
    before = files(out)
    assert sweep.sweep(cells(tiny()), out, engine, report=str) == [] and trained == [4, 2]
    assert before.items() < files(out).items() and len(table(out)) == 4
    next(out.glob("*.safetensors")).unlink()
    sweep.sweep(cells(tiny()), out, engine, report=str)
    sweep.sweep(cells(tiny()), out, engine, report=str)
    assert trained == [4, 2, 1, 0] and len(table(out)) == 4


def test_an_error_of_the_driver_loses_no_result_and_a_second_driver_is_refused(tiny, tmp_path):
    out = tmp_path / "out"

    def breaks(task, items):
        yield next(engines.on_process(task, items))
        with pytest.raises(
            ValueError,
            match="another sweep is at work in .*out: wait for it, or name another folder",
        ):
            sweep.sweep(cells(tiny()), out, engines.on_process)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(cells(tiny()), out, breaks, report=str)
    assert len(files(out)) == 2


def test_an_interrupted_training_goes_on_to_the_same_result(tiny, tmp_path, monkeypatch):
    [cell, *_] = cells(tiny())
    whole = train_cell(cell)

    def killed(*arguments):
        for p in steps(*arguments):
            yield p
            if p.step == 5:
                raise KeyboardInterrupt

    steps = runner.steps
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, "steps", killed)
        train_cell(cell, "cpu", tmp_path, 0.0)
    left = sweep.checkpoint(cell, "cpu", tmp_path)
    assert left.exists()
    row, weights = train_cell(cell, "cpu", tmp_path, 0.0)
    assert weights == whole[1] and all(row[k] == whole[0][k] for k in row if "second" not in k)


# Engines ------------------------------------------------------------------------------------------


def first_time_killed(flag: Path, item: int) -> int:
    """A task that dies with its process, once."""
    if item == 2 and not flag.exists():
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item**2


def always_killed(item: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_what_was_lost_with_its_process_is_done_again_and_not_for_ever(tmp_path, monkeypatch):
    task = partial(first_time_killed, tmp_path / "flag")
    assert (
        sorted(engines.on_cores(task, [1, 2, 3], 1)) == [(1, 1), (2, 4), (3, 9)]
        and (tmp_path / "flag").exists()
    )
    monkeypatch.setattr(engines, "RETRIES", 0)
    [(item, error)] = engines.on_cores(always_killed, [1], 1)
    assert item == 1 and isinstance(error, Exception)


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "helpers.experiments", "sweep", *map(str, arguments)]


def test_killed_at_random_moments_a_sweep_on_all_cores_loses_and_doubles_nothing(
    undisturbed, tmp_path
):
    """kill -9 of the driver, until it comes to its end; SLOW=1 for fifty kills."""
    path, rows = undisturbed
    moment, kills = random.Random(0), 0
    while kills < KILLS:
        out, status = tmp_path / f"after-{kills}", None
        while status != 0:
            process = subprocess.Popen(command(path, "--folder", out, "--seconds", 0.1), cwd=ROOT)
            if kills < KILLS:
                wait(process, out, moment.randint(0, 12))
                time.sleep(moment.uniform(0, 0.1))
                process.kill()
            status = process.wait()
            assert status in (0, -signal.SIGKILL)
            kills += status != 0
        assert table(out) == rows
        assert len(files(out)) == 2 * len(cells(path)) and not list(out.rglob("*.tmp"))


def wait(process, folder, changes):
    """Until the files in the folder have changed so often, or the process has ended: whatever the
    machine's speed."""
    before, seen = state(folder), 0
    while seen < changes and process.poll() is None:
        time.sleep(0.002)
        now = state(folder)
        seen, before = seen + (now != before), now


def state(folder) -> set:
    found = set()
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # renamed since
            found.add((file, file.stat().st_mtime_ns))
    return found


@pytest.fixture
def cluster(monkeypatch):
    """Two nodes of one CPU each on this machine."""
    pytest.importorskip(
        "ray", reason="Ray is not installed: pip install 'creative-denoiser[cluster]'"
    )
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    cluster.add_node(**node)
    yield cluster
    cluster.shutdown()


def children(pid: int) -> list[int]:
    return [
        int(child)
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    ]


def trains(pid: int) -> bool:
    """Whether a worker of Ray is at a task: it says so in its title."""
    title = Path(f"/proc/{pid}/cmdline").read_bytes()
    return title.startswith(b"ray::") and not title.startswith(b"ray::IDLE")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_node_killed_in_the_middle_of_a_sweep_loses_and_doubles_nothing(
    cluster, undisturbed, tmp_path
):
    """All of its processes, one of them at a training, with kill -9; the other node does what is
    left."""
    (path, rows), out = undisturbed, tmp_path / "ray"
    [victim] = cluster.worker_nodes
    [raylet] = [process.process.pid for process in victim.all_processes["raylet"]]
    options = (
        "--engine",
        "ray",
        "--address",
        cluster.address,
        "--folder",
        out,
        "--shared",
        "--seconds",
        0.1,
    )
    process = subprocess.Popen(command(path, *options), cwd=ROOT)
    while not (list(out.glob("*.json")) and any(map(trains, children(raylet)))):
        assert process.poll() is None
        time.sleep(0.05)
    before, killed = files(out), [raylet, *children(raylet)]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert process.wait() == 0
    assert (
        len(before) < len(files(out)) == 2 * len(cells(path))
        and before.items() <= files(out).items()
    )
    assert table(out) == rows and len({row["key"] for row in rows}) == len(cells(path))
