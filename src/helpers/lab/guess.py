"""An exercise that answers: the reader types a prediction, then sees what was measured."""

import html
import json
import math
from typing import Any

from .panel import Panel


class Guess(Panel):
    """A question with a number for an answer, which stays hidden until the reader has typed one.

    static/guess.js says how far the guess lies from `value` and draws both on a line from `low` to
    `high`, on the page and in Jupyter and Colab. Without JavaScript the value stands in a fold.
    `value` is what the chapter measured or proved, never typed; it is shown with two digits.

    `unit` follows numbers, as "dB" or "%". `log` spaces the line by factors. Raises ValueError for
    an empty question, a value that is not finite or outside of the range, and a range that is none.

    >>> Guess("Which share of twelve samples are copies?", 3 / 12, low=0, high=1).value
    0.25
    """

    element = "reader-guess"

    def __init__(
        self,
        question: str,
        value: float,
        low: float,
        high: float,
        unit: str = "",
        log: bool = False,
    ):
        value = float(value)
        if not question.strip():
            raise ValueError(f"question is {question!r}: ask something")
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(
                f"low is {low}, high is {high}: a range goes from a number up to another"
            )
        if log and low <= 0:
            raise ValueError(f"low is {low}: a line with log=True begins above 0")
        if not low <= value <= high:
            raise ValueError(
                f"value is {value}: it lies in the range {low} to {high} or there is no guess"
            )
        self.caption, self.value, self.unit = question, float(f"{value:.2g}"), unit
        self.low, self.high, self.log = low, high, log
        self.alt = f"(a number from {low:g} to {high:g})"

    def carried(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("value", "low", "high", "unit", "log")}

    def html(self) -> str:
        text = json.dumps(self.carried()).replace("</", "<\\/")
        answer = html.escape(f"{self.value:g} {self.unit}".strip())
        return (
            f'<{self.element}><script type="application/json">{text}</script><figure>'
            f"<figcaption>{html.escape(self.caption)}</figcaption>"
            f"<details><summary>Measured</summary>{answer}</details></figure></{self.element}>"
        )
