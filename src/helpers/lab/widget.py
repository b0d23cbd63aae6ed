"""Labs beside a kernel: the scripts of the page as anywidgets, and this kernel's answers."""

import math
import time
from typing import Any

import anywidget
import traitlets

from .scripts import STATIC, joined


class PanelWidget(anywidget.AnyWidget):
    """A lab whose front end computes by itself, by the name of its element on the page."""

    _esm, _css = joined(), (STATIC / "lab.css").read_text(encoding="utf-8")
    element = traitlets.Unicode().tag(sync=True)
    spec = traitlets.Dict().tag(sync=True)
    caption = traitlets.Unicode().tag(sync=True)

    def __init__(self, element: str, spec: dict, caption: str):
        super().__init__(element=element, spec=spec, caption=caption)


class Asked(PanelWidget):
    """Answers what its front end asks, by `reply`; whatever goes wrong there is said in the panel."""

    def __init__(self, element: str, spec: dict, caption: str):
        super().__init__(element, spec, caption)
        self.on_msg(self._answer)

    def reply(self, question: dict) -> tuple[dict, dict]:
        """What is told, such as JSON can hold, and arrays by name."""
        raise NotImplementedError

    def _answer(self, _: Any, question: dict, buffers: Any) -> None:
        about = question if isinstance(question, dict) else {}
        # so that the front end knows that there is a kernel
        self.send({"id": about.get("id"), "working": True})
        try:
            answer, arrays = self.reply(about)
        # a reader's own denoiser may fail in any way: the panel shows how
        except Exception as error:
            answer, arrays = {"error": f"{type(error).__name__}: {error}"}, {}
        self.tell({**answer, "id": about.get("id")}, arrays)

    def tell(self, content: dict, arrays: dict) -> None:
        """Send both."""
        content["arrays"] = [[k, str(v.dtype)[6:], list(v.shape)] for k, v in arrays.items()]
        self.send(content, [v.contiguous().numpy().tobytes() for v in arrays.values()])


class Widget(Asked):
    """Sends a lab's choices to its front end and answers what it asks: data of a target, or samples
    of a state."""

    def __init__(self, lab: Any):
        super().__init__("denoise-lab", lab.spec(), lab.caption)
        self.lab = lab

    def __repr__(
        self,
    ) -> str:
        return f"Lab: {self.caption} Run this cell to use it."

    def reply(self, question: dict) -> tuple[dict, dict]:
        if question.get("ask") not in ("data", "sample"):
            raise ValueError(
                f"asked for {question.get('ask')!r}: this kernel answers data and sample"
            )
        return self._data(question) if question["ask"] == "data" else self._sample(question)

    def _data(self, question: dict) -> tuple[dict, dict]:
        target, count = (self.lab.checked(question, key) for key in ("target", "count"))
        points = self.lab.training(target, count)
        arrays = {} if points is None else {"training": points.float()}
        return {}, arrays if self.lab.image else arrays | {
            "target": self.lab.target_picture(target)
        }

    def _sample(self, question: dict) -> tuple[dict, dict]:
        state, side = question.get("state"), question.get("side")
        if side not in ("left", "right"):
            raise ValueError(f"side is {side!r}: there are left and right")
        frames = self.lab.sample(state, side)
        numbers, arrays = (
            self.lab.numbers(frames[-1], state["target"], state["count"]),
            {"frames": frames.float()},
        )
        if not self.lab.image:
            picture, numbers["total variation"] = self.lab.densities(
                state["target"], state["count"], *state[side][:2], state["schedule"]
            )
            arrays["generated"] = picture
        return {"numbers": numbers}, arrays


class TrainWidget(Asked):
    """Trains both sides of a `Trainer`, in slices, as its front end asks."""

    def __init__(self, lab: Any):
        super().__init__("train-lab", lab.spec(), lab.caption)
        self.lab = lab
        self.trainings: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"Lab: {self.caption} Run this cell to use it."

    def reply(self, question: dict) -> tuple[dict, dict]:
        asked, side = question.get("ask"), question.get("side")
        if side not in (sides := self.lab.sides):
            raise ValueError(f"side is {side!r}: there are {', '.join(sides)}")
        if asked in ("data", "begin"):
            state = self.lab.checked(question.get("state"))
            if asked == "data":
                return {}, self.lab.data(state)
            self.trainings[side] = training = self.lab.training(state, side)
            return {"floor": training.floor(), "weights": training.weights()}, {}
        if asked not in ("train", "look") or side not in self.trainings:
            raise ValueError(f"asked for {asked!r}: begin, then train and look")
        training = self.trainings[side]
        if asked == "look":
            return training.look(question)
        began, took, most = time.perf_counter(), 0.0, question.get("steps") or math.inf
        losses: list[float] = []
        while training.step < training.steps and len(losses) < most:
            losses.append(training.next())
            if 1000 * (took := time.perf_counter() - began) > question.get("milliseconds", 100):
                break
        return {"step": training.step, "losses": losses, "milliseconds": 1000 * took}, {}
