"""The workbench beside a kernel: its controls, and training that leaves the kernel free to answer."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

from .. import devices
from ..data.images import LOADERS
from . import bench
from .scripts import STATIC, joined
from .widget import Asked
from .workbench import SAMPLERS, Workbench

DATA = ("fashion-mnist", "celeba", "c-alpha", "disks", "folder")
BREATH = 0.005  # seconds between two slices, in which the kernel hears what is asked


class BenchWidget(Asked):
    """Answers the front end by the methods of a `Workbench`, and tells it of every slice and look.

    Training is a task of the kernel's event loop: a slice, then whatever else the kernel was asked,
    then the next slice. So a pause is heard within a slice, and a closed page stops nothing.
    """

    _esm = joined("workbench.js")
    _css = "\n".join((STATIC / f"{name}.css").read_text("utf-8") for name in ("lab", "workbench"))

    def __init__(self, work: Workbench):
        super().__init__("workbench", {}, "")
        self.work, self.task, self.wanted = work, None, False
        self.fault = ""
        self.asks: dict[str, Callable[[dict], tuple[dict, dict]]] = {
            "all": self._all, "choose": self._choose, "train": self._train, "pause": self._pause,
            "sample": self._sample, "eigenvectors": self._eigenvectors, "save": self._save,
            "agreement": lambda q: ({"found": self.work.agreement(q["which"])}, {}),
            "point": lambda q: ({"found": self.work.point(q["which"])}, {}),
            "landmarks": lambda q: ({"found": self.work.landmarks()}, {}),
            "row": lambda q: ({"found": _told(self.work.row(q["which"]))}, {}),
            "lab": self._lab,
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"{self.work!r}. Run this cell to use it."

    def reply(self, question: dict) -> tuple[dict, dict]:
        ask = question.get("ask")
        if ask not in self.asks:
            raise ValueError(f"asked for {ask!r}: this kernel answers {', '.join(self.asks)}")
        told, arrays = self.asks[ask](question)
        return json.loads(json.dumps(told, default=str)), arrays  # a class may have any default

    # Training -------------------------------------------------------------------------------------

    async def train(self) -> None:
        """Train until the end, a pause, or a fault, which the panel shows in words."""
        self.fault, fresh = "", {}
        try:
            if not self.work.runs:  # planning measures for a second: say so first
                self.push({"planning": True})
                await asyncio.sleep(BREATH)
            for run in self.work.slices():
                fresh = self._pictures(self.work.runs.index(run)) if run else {}
                self.push({}, fresh)
                await asyncio.sleep(BREATH)
                if not self.wanted:
                    break
        except Exception as error:  # of a reader's class, too
            self.fault = f"{type(error).__name__}: {error}"
        self.wanted = False
        self.push({})

    def push(self, about: dict, arrays: dict | None = None) -> None:
        """Tell the panel where the training is."""
        self.tell({"push": True, **self.state(), **about}, arrays or {})

    def state(self) -> dict[str, Any]:
        """What a panel shows of the training but its pictures."""
        runs = [
            {
                "name": run.name, "step": run.step, "steps": run.recipe.steps, "history": run.history,
                "near": run.near, "remaining": run.progress and _finite(run.progress.remaining),
                "loss": run.progress and _finite(run.progress.loss),
            }
            for run in self.work.runs
        ]  # fmt: skip
        ended = bool(runs) and all(run.ended for run in self.work.runs)
        return {"runs": runs, "running": self.wanted, "ended": ended, "fault": self.fault}

    def _train(self, question: dict) -> tuple[dict, dict]:
        if not self.wanted:
            self.wanted = True
            self.task = asyncio.get_running_loop().create_task(self.train())
        return {}, {}

    def _pause(self, question: dict) -> tuple[dict, dict]:
        self.wanted = False
        return {}, {}

    # What is asked --------------------------------------------------------------------------------

    def _all(self, question: dict) -> tuple[dict, dict]:
        """All that a panel needs that has just opened."""
        about = {
            "choices": self.work.choices,
            "architectures": {
                name: [list(control) for control in bench.controls(name)]
                for name in bench.architectures()
            },
            "data": [name for name in DATA if name in LOADERS],
            "samplers": list(SAMPLERS),
            "device": devices.hardware(self.work.device),
            "folder": str(self.work.folder or ""),
            "kept": self.work.kept(),
        }
        arrays: dict[str, Any] = {}
        for i in range(len(self.work.runs)):
            arrays |= self._pictures(i)
        return {**about, **self.state()}, arrays

    def _pictures(self, i: int) -> dict[str, Any]:
        run = self.work.runs[i]
        sheet = run.sheet if run.sheet is not None else run.data.images[:0]
        return {f"sheet{i}": sheet.float(), f"near{i}": run.data.images[run.near].float()}

    def _choose(self, question: dict) -> tuple[dict, dict]:
        self.wanted, self.fault = False, ""
        self.work.choose(**question["choices"])
        return {"choices": self.work.choices, **self.state()}, {}

    def _sample(self, question: dict) -> tuple[dict, dict]:
        which, steps, seed = (int(question[key]) for key in ("which", "steps", "seed"))
        made = self.work.samples(which, question["sampler"], steps, bench.SHOWN, seed)
        run = self.work.runs[which]
        run.show(made)
        return {"near": run.near}, self._pictures(which)

    def _eigenvectors(self, question: dict) -> tuple[dict, dict]:
        which, image = int(question["which"]), int(question["image"])
        run = self.work._run(which)
        sheet = run.data.images[run.near] if question.get("nearest") else run.sheet
        found = self.work.eigenvectors(sheet[image], which, float(question["sigma"]))
        vectors = found.vectors.mean(1) if found.vectors.ndim == 4 else found.vectors
        return {"values": found.values.tolist()}, {"vectors": vectors.float()}

    def _save(self, question: dict) -> tuple[dict, dict]:
        card = self.work.save(str(question["name"]), int(question["which"]))
        told = {key: card[key] for key in ("class", "parameters", "images_seen", "bytes")}
        return {"found": {"saved as": question["name"], **told}}, {}

    def _lab(self, question: dict) -> tuple[dict, dict]:
        if self.work.folder is None:
            raise ValueError(
                "there is no folder: Workbench(folder=...) says where labs are written"
            )
        manifest = self.work.lab().write(self.work.folder / "lab")
        sizes = {key: f"{entry['bytes']:,} bytes" for key, entry in manifest["models"].items()}
        return {"found": {"written to": str(self.work.folder / "lab"), **sizes}}, {}


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None


def _told(row: dict[str, Any]) -> dict[str, str]:
    """A row for the ledger in words; its open end is no JSON."""
    name, control = row["control"]
    return {
        "claim": row["claim"],
        "expected": f"at least {row['expected'][0]:g}",
        "measured": f"{row['measured']:.2f}",
        "control": f"{name}: {control:.2f}",
    }
