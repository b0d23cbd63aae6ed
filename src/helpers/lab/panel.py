"""What the panels share that need no kernel: an element of the page, a widget elsewhere, a picture
without scripts."""

import base64
import html
import io
import json
import os
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from ..plots import SITE


class Panel:
    """A figure that the reader drives: Python computes what it needs, static/<script>.js draws it.

    A subclass names its custom element and its script, and gives `carried`, all that the script
    needs as JSON, and `still`, a PNG of the first state, which stands where there is no JavaScript.
    """

    element = script = ""
    name = ""  # of a panel that links set
    caption: str
    alt: str

    def carried(self) -> dict[str, Any]:
        raise NotImplementedError

    def still(self) -> bytes:
        raise NotImplementedError

    def html(self) -> str:
        """The custom element of the page, with the picture inside."""
        return self.tag(self.carried())

    def tag(self, carried: dict[str, Any], more: str = "") -> str:
        """The element with what its script needs, the picture, and `more` of HTML after it."""
        text = json.dumps(carried, separators=(",", ":")).replace("</", "<\\/")
        png, alt = base64.b64encode(self.still()).decode(), html.escape(self.alt, quote=True)
        place = f' id="lab-{html.escape(self.name)}"' if self.name else ""
        return (
            f'<{self.element}{place}><script type="application/json">{text}</script>'
            f'<figure class="{self.script}-still">'
            f'<img src="data:image/png;base64,{png}" alt="{alt}">'
            f"<figcaption>{html.escape(self.caption)}</figcaption></figure>{more}</{self.element}>"
        )

    def _repr_mimebundle_(self, **arguments: Any) -> Any:
        if os.environ.get(SITE):
            return {"text/html": self.html(), "text/plain": f"{self.caption} {self.alt}"}
        from .widget import PanelWidget

        shown = PanelWidget(self.element, self.carried(), self.caption)
        return shown._repr_mimebundle_(**arguments)


def as_png(fig: Figure) -> bytes:
    """A still picture, the same bytes each time it is drawn; closes the figure."""
    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=110, metadata={"Software": None})
    plt.close(fig)
    return file.getvalue()


def as_text(values: Tensor) -> str:
    """The bytes of a tensor in base64, as a script takes them."""
    return base64.b64encode(values.contiguous().numpy().tobytes()).decode()
