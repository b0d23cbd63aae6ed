"""The controls of a live notebook: change target, training set and one knob of an architecture, and sample again."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets
import matplotlib.pyplot as plt
from torch import Tensor

from . import metrics, plots, sampling
from .data import TARGETS
from .denoisers import Denoiser


def explore(
    build: Callable[[Tensor, Any], Denoiser], values: Sequence, knob: str, particles: int = 1000
) -> widgets.Widget:
    """A panel of controls for `build(points, value) -> Denoiser`, needing a kernel (Jupyter, Colab).

    points (N, 2) is a training set of the chosen target and seed, value one of `values`, shown under the name `knob`.
    Each change samples `particles` points by Heun's method from the same noise, and tells the sliced W2 distance to the
    target, the share of copies and how many diverged.
    """
    chosen: dict[str, widgets.Widget] = {
        "target": widgets.Dropdown(options=list(TARGETS), value="moons", description="target"),
        "value": widgets.SelectionSlider(options=list(values), description=knob),
        "n": widgets.SelectionSlider(options=[3, 10, 30, 100, 300, 1000], value=100, description="points N"),
        "steps": widgets.IntSlider(value=40, min=2, max=100, description="steps"),
        "seed": widgets.IntText(value=0, description="seed"),
    }
    start = sampling.initial_noise(particles, 2, sigma=80.0)

    def draw(target: str, value: Any, n: int, steps: int, seed: int) -> None:
        law = TARGETS[target]()
        points = law.sample(n, seed)
        y = sampling.last(sampling.heun(build(points, value), start, sampling.edm(steps)))
        kept = metrics.finite(y)
        fig, (ax,) = plots.panels(1, size=4.0, extent=3.0)
        plots.scatter(ax, kept)
        plots.scatter(ax, points, color=plots.TRAINING, size=8)
        plt.show()
        distance = metrics.sliced_w2(kept, law.sample(particles, seed + 1)) if len(kept) else float("nan")
        copies = metrics.share_of_copies(y, points)
        print(f"sliced W2 {distance:.3f}   copies {copies:.0%}   diverged {metrics.diverged(y)} of {particles}")

    return widgets.VBox([*chosen.values(), widgets.interactive_output(draw, chosen)])
