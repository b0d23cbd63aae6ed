"""The workbench: build a denoiser for images, train it, and look at what it creates."""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import devices, looks, models, sampling
from ..checks import positive_int
from ..data import load
from ..files import write_atomically
from ..jacobian import Eigen, Jacobian, eigen
from ..noise import normal
from ..plots import SITE
from . import bench, still, verdicts
from . import lab as labs
from .lab import Family, Lab

SLICE = 0.2  # seconds of training between two chances to pause
NOTES = f"{'[0-9a-f]' * 12}.json"  # what the folder keeps of a training
SAMPLERS = {**labs.SAMPLERS, "reverse SDE": sampling.reverse_sde}  # whose noise may lie on a GPU


class Workbench:
    """Networks of your choice in training on images of your choice, and what can be asked of them.

    In Jupyter, VS Code and Colab it shows itself with controls; everything that these do is an
    attribute or a method here and needs no front end. data, n, size, colour and other `options`, as
    alpha or path, are those of `helpers.data.load`. networks: one, or two that are trained in turns
    on the same images in the same order, each the name of a class or the class, or (name, its
    options); `bench.architectures` has the names and `bench.controls` the options, those of classes
    from a cell of yours among them. minutes: of training and looks together, from which the number
    of `steps` is planned on this machine unless it is given. every: a look after so many steps; None
    takes as many looks as fit into a fifth of the time. changes: of the recipe, as
    {"rate": 1e-3}. device: as `helpers.devices.resolve`. seed: of weights, batches and noise.
    folder: where it keeps itself every few seconds, as on Google Drive; with a folder and nothing
    else it is the last training that is kept there, which goes on where it was, on a device of the
    same kind.

    `runs` are the networks (`bench.Run`), each with its history, samples and weights. Raises
    ValueError in words for what is not there or does not fit.

    >>> work = Workbench("disks", n=20, size=8, networks=[("UNet", {"blocks": 1})], steps=3)
    >>> work.run()
    >>> work.runs[0].history[-1]["images"]
    48
    """

    def __init__(
        self,
        data: str | None = None,
        n: int = 1000,
        size: int = 32,
        colour: str = "gray",
        networks: Sequence = ("UNet",),
        minutes: float = 2.0,
        steps: int | None = None,
        every: int | None = None,
        changes: dict[str, Any] | None = None,
        device: str | torch.device = "auto",
        seed: int = 0,
        folder: str | Path | None = None,
        **options: Any,
    ):
        self.folder = Path(folder).expanduser() if folder else None
        self.device = devices.resolve(device)
        self.choices: dict[str, Any] = {
            "data": {"name": data or "fashion-mnist", "n": n, "size": size, "colour": colour, **options},
            "networks": _pairs(networks),
            "minutes": minutes, "steps": steps, "every": every, "changes": changes or {}, "seed": seed,
        }  # fmt: skip
        others = n, size, colour, *networks, minutes, steps, every, changes, seed, options
        alone = data is None and others == (1000, 32, "gray", "UNet", 2.0, None, None, None, 0, {})
        if alone and self.folder and (kept := sorted(self.folder.glob(NOTES), key=_age)):
            self.choices = _read(kept[-1])["choices"]
        self.runs: list[bench.Run] = []

    # Training -------------------------------------------------------------------------------------

    def choose(self, **choices: Any) -> None:
        """Other choices, of `data`, `networks`, `minutes`, `steps`, `every`, `changes`, `seed`: the next
        training starts with them, and of the same as before it goes on from what the folder keeps."""
        if unknown := set(choices) - set(self.choices):
            raise ValueError(f"no choice is called {unknown.pop()!r}: {', '.join(self.choices)}")
        self.choices |= choices
        self.choices["networks"] = _pairs(self.choices["networks"])
        self.runs = []

    def kept(self) -> bool:
        """Whether the folder keeps a training of these choices."""
        note = self._file(".json")
        return note is not None and note.exists()

    def start(self) -> None:
        """Load the data, build the networks, and plan their training, or find it in the folder."""
        chosen = self.choices
        if not 1 <= len(chosen["networks"]) <= 2:
            raise ValueError(f"{len(chosen['networks'])} networks: choose one, or two in turns")
        data, test = load(**chosen["data"]), load(**{**chosen["data"], "split": "test", "n": None})
        runs = []
        for i, (name, options) in enumerate(chosen["networks"]):
            denoiser = bench.built(name, options, data, chosen["seed"]).to(self.device)
            recipe = bench.recipe_for(denoiser, seed=chosen["seed"], **chosen["changes"])
            there = self._file(f"-{i}.safetensors")
            runs.append(bench.Run(_label(name, options), denoiser, recipe, data, test, there))
        if len({run.name for run in runs}) < len(runs):
            raise ValueError(f"both networks are {runs[0].name}: change an option of one of them")
        kept = _read(note) if self.kept() and (note := self._file(".json")) else {}
        steps = kept.get("steps") if chosen["steps"] is None else chosen["steps"]
        steps = bench.planned(runs, chosen["minutes"]) if steps is None else steps
        for run, rows in zip(runs, kept.get("history", [[] for _ in runs]), strict=True):
            run.plan(positive_int("steps", steps))
            run.history = [row for row in rows if row["images"] < run.step * run.recipe.batch]
        self.runs = runs
        self._note()

    def slices(self, seconds: float = SLICE) -> Iterator["bench.Run | None"]:
        """Trains, and comes up for air after so many seconds of it: with the run that was just
        looked at, or None.

        The network that has done fewer steps goes next, so that two stay side by side. Looks take
        LOOKING of the time. Whoever stops asking has paused, and goes on by asking again.
        """
        if not self.runs:
            self.start()
        for run in self.runs:
            if run.sheet is None:
                run.look()
                yield run
        every = self.choices["every"]
        trained, looking = dict.fromkeys(range(len(self.runs)), 0.0), 1.0
        while not all(run.ended for run in self.runs):
            begun = time.perf_counter()
            while True:
                i, run = min(enumerate(self.runs), key=lambda one: (one[1].ended, one[1].step))
                before = time.perf_counter()
                run.advance()
                now = time.perf_counter()
                trained[i] += now - before
                full = trained[i] * bench.LOOKING > looking * (1 - bench.LOOKING)
                due = run.ended or (full if every is None else run.step % every == 0)
                if due or now - begun > seconds:
                    break
            if due:
                run.look()
                looking, trained[i] = time.perf_counter() - now, 0.0
                self._note()
            yield run if due else None

    def run(self, seconds: float | None = None) -> None:
        """Train to the end, or for so many seconds; call it again to go on."""
        begun = time.perf_counter()
        for _ in self.slices():
            if seconds is not None and time.perf_counter() - begun > seconds:
                break

    def _file(self, ending: str) -> Path | None:
        text = json.dumps(self.choices, sort_keys=True, default=str)
        key = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.folder / f"{key}{ending}" if self.folder else None

    def _note(self) -> None:
        """What a later session must know: choices, the plan, and what was measured."""
        if note := self._file(".json"):
            history = [run.history for run in self.runs]
            about = {
                "choices": self.choices,
                "steps": self.runs[0].recipe.steps,
                "history": history,
            }
            write_atomically(note, json.dumps(about, default=str))

    # Looks ----------------------------------------------------------------------------------------

    def _run(self, which: int) -> bench.Run:
        if not self.runs:
            self.start()
        if which not in range(len(self.runs)):
            raise ValueError(f"which is {which!r}: there are networks 0 to {len(self.runs) - 1}")
        return self.runs[which]

    def look(self, which: int = 0) -> dict[str, Any]:
        """A look at a network as it is now, see `bench.Run`; the row of its history."""
        return self._run(which).look()

    def samples(
        self, which: int = 0, sampler: str = "reverse SDE", steps: int = 18, count: int = 16, seed: int = 0
    ) -> Tensor:  # fmt: skip
        """`count` images (count, *event) of a network, from the same noise for both networks."""
        if sampler not in SAMPLERS:
            raise ValueError(f"sampler is {sampler!r}: choose one of {', '.join(SAMPLERS)}")
        network = self._run(which).network
        levels = looks.levels(network, positive_int("steps", steps))
        images, by = self.runs[which].data.images, SAMPLERS[sampler]
        return looks.samples(network, images, self.device, count, levels, by, seed)

    def eigenvectors(self, image: Tensor, which: int = 0, sigma: float = 0.2, k: int = 6) -> Eigen:
        """The k leading eigenvectors of the symmetric part of a network's Jacobian at an image
        (*event) with noise of level sigma; see `helpers.jacobian.eigen`."""
        network = self._run(which).network
        y = (image + sigma * normal(*image.shape, seed=self.choices["seed"]).float())[None]
        return Eigen(*(t.cpu() for t in eigen(Jacobian(network, y.to(self.device), sigma), k)))

    def agreement(self, which: int = 0, count: int = 16) -> dict[str, float]:
        """How much of what a network makes closed forms make too, see `verdicts.agreement`."""
        return verdicts.agreement(self._run(which), count)

    def point(self, which: int = 0) -> dict[str, float]:
        """A network's place in the plane of creativity, see `verdicts.point`."""
        return verdicts.point(self._run(which))

    def landmarks(self) -> dict[str, dict[str, float]]:
        """What is known in that plane, see `verdicts.landmarks`."""
        return verdicts.landmarks(self._run(0))

    def row(self, which: int = 0) -> dict[str, Any]:
        """A row for the ledger, `Claim(**row)`, see `verdicts.row`."""
        return verdicts.row(self._run(which))

    # Leaving --------------------------------------------------------------------------------------

    def save(self, name: str, which: int = 0) -> dict[str, Any]:
        """Weights and card into the folder of models, see `helpers.models.save`; the card. Raises
        ValueError for the name of a network that no workbench has saved."""
        run, maker = self._run(which), "helpers.lab.Workbench"
        try:
            there = models.manifest().get(name, {})
        except ValueError:  # no network has been saved yet
            there = {}
        if not there.get("recipe", maker).startswith(maker):
            raise ValueError(f"{name} is a network of the book: choose another name")
        card = {
            "recipe": f"{maker} with {json.dumps(self.choices, default=str)}",
            "data": str(run.data), "N": len(run.data), "mean": round(float(run.data.images.mean()), 3),
            "seed": self.choices["seed"], "images_seen": run.step * run.recipe.batch,
            "hardware": devices.hardware(self.device), "seconds": round(run.progress.seconds) if run.progress else 0,
        }  # fmt: skip
        return models.save(name, run.delivered, card, run.test.images, run.data.images)

    def lab(self, name: str = "workbench") -> Lab:
        """The networks side by side as a lab, which runs here, and in any browser once
        `lab.write(folder)` has exported them."""
        self._run(0)
        data, networks = self.runs[0].data, {run.name: run.delivered for run in self.runs}
        names, level = list(networks), min(float(looks.levels(net)[0]) for net in networks.values())
        return Lab(
            name,
            {"training images": data.images},
            [Family("network", lambda _, key: networks[key], "variant", names)],
            counts=[len(data)],
            caption=f"{' and '.join(names)}, trained on {len(data)} images of {data.name}.",
            alt="Training images, and samples of the networks.",
            schedules={"EDM": lambda steps: sampling.edm(steps, 0.01, level)},
            centre=float(data.images.mean()),
            right=("network", names[-1]),
        )

    def _repr_mimebundle_(self, **arguments: Any) -> Any:
        if os.environ.get(SITE):
            return {"text/html": still.html(self), "text/plain": repr(self)}
        from .bench_widget import BenchWidget

        return BenchWidget(self)._repr_mimebundle_(**arguments)

    def __repr__(self) -> str:
        chosen = self.choices
        names = " and ".join(_label(*pair) for pair in chosen["networks"])
        return f"Workbench: {names} on {chosen['data']['n']} images of {chosen['data']['name']}"


def _pairs(networks: Sequence) -> list:
    """Names and options of networks, as JSON keeps them."""
    if isinstance(networks, (str, type)):
        raise ValueError(f"networks is {networks!r}: pass a list, as [{networks!r}]")
    return [_pair(network) for network in networks]


def _pair(network: Any) -> list:
    name, options = network if isinstance(network, (tuple, list)) else (network, {})
    if not isinstance(name, (str, type)) or not isinstance(options, dict):
        raise ValueError(f"{network!r} is no network: pass a class or its name, or (name, options)")
    if isinstance(name, type) and bench.known(name.__name__) is not name:
        raise ValueError(f"another network is called {name.__name__}: give your class another name")
    return [name.__name__ if isinstance(name, type) else name, options]


def _label(name: str, options: dict[str, Any]) -> str:
    """What is said of a network: its class, and the options that were changed."""
    return " ".join([name, *(f"{k} {v}" for k, v in options.items())])


def _age(path: Path) -> float:
    return path.stat().st_mtime


def _read(note: Path) -> dict[str, Any]:
    try:
        kept = json.loads(note.read_text("utf-8"))
        return {key: kept[key] for key in ("choices", "steps", "history")}
    except (OSError, ValueError, LookupError, TypeError):
        raise ValueError(f"{note} is damaged: remove it to start this training anew") from None
