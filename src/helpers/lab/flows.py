"""A panel of flows that networks have drawn: their residual, their re-solved pressure, and what
squeezing or correcting a pressure does to both."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
from torch import Tensor

from .panel import Panel, as_png, as_text


class Flows(Panel):
    """The same noises through several networks of pairs (p, K): choose the network, the noise, an
    amplitude for the pressure and a number of steps down its residual.

    static/flows.js computes the residual, the steps and the solution from the fields that the
    figure carries; without JavaScript the picture of the first state stands.

    fields: by name of the network, pressures and permeabilities ((K, n, n), (K, n, n)) of the same
    noises. source (n, n), f of the equation A(K) p = f of `helpers.systems.bastek.darcy`.
    amplitudes, steps: to choose from. caption, alt: as for every figure. start: network, picture,
    amplitude, descent, where not the first (of amplitudes the 1). Raises ValueError where shapes or
    the start do not fit.
    """

    element, script = "flow-lab", "flows"

    def __init__(
        self,
        fields: Mapping[str, tuple[Tensor, Tensor]],
        source: Tensor,
        caption: str,
        alt: str,
        amplitudes: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25),
        steps: Sequence[int] = (0, 3, 30, 300),
        **start: Any,
    ):
        shapes = {tuple(t.shape) for pair in fields.values() for t in pair}
        if len(shapes) != 1 or (shape := shapes.pop())[1:] != source.shape or len(shape) != 3:
            told = {name: [tuple(t.shape) for t in pair] for name, pair in fields.items()}
            raise ValueError(
                f"fields have shapes {told}, the source {tuple(source.shape)}: pass p and K as "
                "(pictures, n, n) for each network, and a source (n, n)"
            )
        choices = {"network": tuple(fields), "picture": range(shape[0]), "amplitude": amplitudes,
                   "descent": steps}  # fmt: skip
        self.start = {key: values[0] for key, values in choices.items()} | {"amplitude": 1.0}
        for key, value in (self.start | start).items():
            if value not in choices.get(key, ()):
                known = choices.get(key, tuple(choices))
                raise ValueError(f"start has {key} = {value!r}: choose {key} from {known}")
        self.start |= start
        self.fields = {k: tuple(t.double().cpu() for t in pair) for k, pair in fields.items()}
        self.source, self.caption, self.alt = source.double().cpu(), caption, alt
        self.amplitudes, self.steps = list(amplitudes), list(steps)

    def carried(self) -> dict[str, Any]:
        """The choices, the source, and the fields of each network as base64."""
        # not fewer bits: a thousandth of a pressure is a residual that can be seen
        packed = {k: [as_text(field.float()) for field in pair] for k, pair in self.fields.items()}
        return {"size": len(self.source), "source": self.source.flatten().tolist(), "fields": packed,
                "pictures": len(next(iter(self.fields.values()))[0]), "amplitudes": self.amplitudes,
                "steps": self.steps, "start": self.start}  # fmt: skip

    def still(self) -> bytes:
        """The first state as PNG: permeability and pressure."""
        p, K = (f[self.start["picture"]] for f in self.fields[self.start["network"]])
        fig, axes = plt.subplots(1, 2, figsize=(4.8, 2.4))
        axes[0].imshow(K, cmap="gray", vmin=0, vmax=5)
        axes[1].imshow(p, cmap="RdBu_r", vmin=-0.3, vmax=0.3)
        for ax, title in zip(axes, ("permeability", "pressure"), strict=True):
            ax.set_title(title, fontsize=9)
            ax.set_axis_off()
        return as_png(fig)
