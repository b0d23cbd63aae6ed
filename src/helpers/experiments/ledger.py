"""The ledger: claims, what was expected, what was measured, and a verdict that the machine
computes."""

import html
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from .. import devices
from .. import recorded as records
from ..files import results_folder, write_atomically


@dataclass(frozen=True)
class Claim:
    """One claim of a source and the numbers that test it.

    source: paper and place ("Levine & Weiss 2026, abstract"; "this book, P2"); claim: in our words.
    expected: closed interval [low, high] in which every measured value must lie; use +-math.inf for
    one-sided claims, and `around(value, tolerance)` for a number. measured: one value or several
    (seeds, targets, orders of magnitude).
    Verdict: "reproduced" when all values lie in the interval, "partly" when some do, "not
    reproduced" when none does. A value that is not finite lies in no interval.

    control: what must not pass, (name, value or values): the same number measured of noise, of the
    training set, of a constant or of the opposite architecture. Where it lies in the interval the
    row says nothing, and is refused.
    why: the reason, in a clause, for a row that is not reproduced or only partly. recorded: the
    name of the record from which values come; none where the chapter measures them all. made:
    profile and hardware, which `record` fills in.

    >>> Claim("this book, P2", "variance on the first axis", around(4.0, 0.1), [3.98, 4.2]).verdict
    'partly'
    """

    source: str
    claim: str
    expected: tuple[float, float]
    measured: float | Sequence[float]
    why: str = ""
    recorded: str = ""
    made: str = ""
    control: tuple[str, float | Sequence[float]] | None = None

    def __post_init__(self) -> None:
        low, high = self.expected
        if not low <= high:
            raise ValueError(
                f"expected is [{low}, {high}]: the lower bound must not exceed the upper"
            )
        if not self.values:
            raise ValueError(f"nothing was measured for {self.claim!r}: pass a number or several")
        name, control = self.control or ("none", -math.inf)
        controls = numbers(control)
        if self.control and not (name and controls and all(map(math.isfinite, controls))):
            raise ValueError(
                f"the control of {self.claim!r}, {name}, is {controls}: measure it, or leave it out"
            )
        if any(map(self.holds, controls)):
            raise ValueError(
                f"the control of {self.claim!r}, {name}, passes with {control}: "
                f"expect what it does not show, or drop the row"
            )

    @property
    def values(self) -> list[float]:
        return numbers(self.measured)

    def holds(self, value: float) -> bool:
        """Whether a value is as expected."""
        return math.isfinite(value) and self.expected[0] <= value <= self.expected[1]

    @property
    def verdict(self) -> str:
        inside = [self.holds(v) for v in self.values]
        return "reproduced" if all(inside) else "partly" if any(inside) else "not reproduced"

    def row(self) -> dict[str, str]:
        """The claim as the table shows it, all text: as many digits as the interval is sharp; their
        range if many."""
        low, high, values = *self.expected, self.values
        width, middle = (high - low) / 2, abs(high + low) / 2
        digits = (
            max(3, math.ceil(math.log10(middle / width))) if 0 < width < middle < math.inf else 3
        )
        # Rounding, of float32 where that is allowed, differs from machine to machine: it may be 0
        # on one of them. An interval that narrow around 0 holds nothing else; in a wider one 0 is a
        # share or a count.
        tiny = "1e-9" if high < 1e-4 or high == math.inf else "1e-6" if high < 1e-3 else "1e-5"
        rounding = -1e-3 <= low <= 0 < high <= 1e-3

        def span(values: list[float]) -> str:
            ends = [
                f"below {tiny}" if abs(v) < float(tiny) and (v or rounding) else _text(v, digits)
                for v in (min(values), max(values))
            ]
            return " to ".join(dict.fromkeys(ends))

        name, control = self.control or ("", None)
        return {
            "source": self.source,
            "claim": self.claim,
            "expected": _interval(low, high, digits),
            "measured": span(values) + (f" ({len(values)})" if len(values) > 1 else ""),
            "control": f"{name}: {span(numbers(control))}" if name else "",
            "verdict": self.verdict
            if self.verdict == "reproduced" or not self.why
            else f"{self.verdict}: {self.why}",
        }

    def data(self) -> dict:
        """The claim for a JSON file: an open end of the interval and a value that is not finite are
        null."""
        nulled = {
            k: [v if math.isfinite(v) else None for v in values]
            for k, values in (("expected", self.expected), ("measured", self.values))
        }
        name, values = self.control or ("", 0.0)
        finite = [v if math.isfinite(v) else None for v in numbers(values)]
        control = {"control": [name, finite]} if name else {}
        reason = {"why": self.why} if self.why and self.verdict != "reproduced" else {}
        return {
            "source": self.source,
            "claim": self.claim,
            **nulled,
            "verdict": self.verdict,
            **reason,
            **control,
            "made": self.made,
        }

    @classmethod
    def read(cls, data: dict) -> "Claim":
        """The inverse of `data`."""
        low, high = data["expected"]
        expected = -math.inf if low is None else low, math.inf if high is None else high
        measured = [math.nan if v is None else v for v in data["measured"]]
        name, values = data.get("control", ("", []))
        control = (name, [math.nan if v is None else v for v in values]) if name else None
        return cls(
            data["source"],
            data["claim"],
            expected,
            measured,
            data.get("why", ""),
            made=data["made"],
            control=control,
        )


def numbers(measured: float | Sequence[float]) -> list[float]:
    """One value or several, a tensor or numbers, as a list."""
    try:
        return torch.as_tensor(measured, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{measured!r} is no number: pass one, several, or a tensor") from None


def around(value: float, tolerance: float) -> tuple[float, float]:
    """The interval value -+ tolerance."""
    return value - tolerance, value + tolerance


class Table:
    """Rows of text as a table: HTML on the page, plain text elsewhere.

    anchors: what links to each row end with. links: where the first cell of each row leads.
    """

    def __init__(
        self, rows: Iterable[dict[str, str]], anchors: Iterable[str] = (), links: Iterable[str] = ()
    ):
        self.rows, self.anchors, self.links = list(rows), list(anchors), list(links)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{k}</th>' for k in self.rows[0]) if self.rows else ""
        body = []
        for i, row in enumerate(self.rows):
            cells = [html.escape(v) for v in row.values()]
            if self.links:
                cells[0] = f'<a href="{html.escape(self.links[i])}">{cells[0]}</a>'
            place = f' id="{self.anchors[i]}"' if self.anchors else ""
            body.append(f"<tr{place}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
        return f'<table class="ledger"><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'

    def __repr__(self) -> str:
        return "\n".join(" | ".join(r.values()) for r in self.rows)


def record(
    chapter: str,
    claims: Iterable[Claim],
    profile: str = "quick",
    device: torch.device | str = "cpu",
) -> Table:
    """Write a chapter's claims to <results>/claims/<chapter>.json, atomically, and return their
    table.

    device: where the tensors lay that were measured, which need not be the best device of the
    machine.
    """
    here = f"{profile}, {devices.hardware(device)}"
    claims = list(claims)
    # once for each record: to read one is to read the weights behind it
    made = {
        name: f"recorded, {records.hardware(name)}" for name in {c.recorded for c in claims} if name
    }
    claims = [replace(c, made=made.get(c.recorded, here)) for c in claims]
    data = {"chapter": chapter, "claims": [c.data() for c in claims]}
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(results_folder() / "claims" / f"{chapter}.json", text)
    rows = [c.row() for c in claims]
    if not any(row["control"] for row in rows):
        rows = [{k: v for k, v in row.items() if k != "control"} for row in rows]
    return Table(rows, [anchor(chapter, i) for i in range(len(claims))])


def anchor(chapter: str, row: int) -> str:
    """The name of a row of a chapter's table, from 0, on its page."""
    return f"claim-{chapter[:2]}-{row + 1}"


def read_all(folder: Path | None = None) -> dict[str, list[Claim]]:
    """All recorded claims by chapter, in the chapters' order; ValueError when none is there or one
    is damaged.

    folder: by default that of the results, or where it has none what was installed with this
    package, as on Colab.
    """
    installed = Path(__file__).parents[1] / "claims"
    folder = folder or results_folder() / "claims"
    paths = sorted(folder.glob("*.json")) or sorted(installed.glob("*.json"))
    if not paths:
        raise ValueError(f"no claims in {folder}: execute the chapters first")
    chapters = {}
    for path in paths:
        try:
            data = json.loads(path.read_text("utf-8"))
            chapters[data["chapter"]] = [Claim.read(c) for c in data["claims"]]
        except (ValueError, LookupError, TypeError):
            raise ValueError(f"{path} is damaged: remove it and execute its chapter") from None
    return chapters


class Figure(NamedTuple):
    """A figure or headline number of a paper: what it shows, the rows that test it, and in a
    sentence what differs.

    rows: (first characters of the chapter, first characters of the claim); none where nothing here
    tests it.
    """

    name: str
    shows: str
    rows: Sequence[tuple[str, str]]
    differs: str


def figures(chapters: dict[str, list[Claim]], listed: Iterable[Figure]) -> Table:
    """Figures with what their rows measured; ValueError where a figure names a row that no chapter
    has."""
    table = []
    for figure in listed:
        measured = []
        for number, words in figure.rows:
            found = [
                (k, c) for k, claims in chapters.items() if k.startswith(number) for c in claims
            ]
            found = [(k, c) for k, c in found if c.claim.startswith(words)]
            if not found:
                raise ValueError(
                    f"figure {figure.name}: no claim of chapter {number} begins with {words!r}"
                )
            for k, c in found:
                row = c.row()
                control = f" ({row['control']})" if c.control else ""
                measured.append(f"{k[:2]}, {c.claim}: {row['measured']}{control}, {c.verdict}")
        ours = "; ".join(measured) or "not tested here"
        table.append(
            {"figure": figure.name, "shows": figure.shows, "ours": ours, "differs": figure.differs}
        )
    return Table(table)


def _text(x: float, digits: int = 3) -> str:
    return f"{x:.{digits}g}".replace("e-0", "e-").replace("e+0", "e")


def _interval(low: float, high: float, digits: int) -> str:
    if low == -math.inf:
        return f"at most {_text(high)}"
    if high == math.inf:
        return f"at least {_text(low)}"
    if low == high:
        return f"exactly {_text(low)}"
    middle, half = (low + high) / 2, (high - low) / 2
    return (
        f"{_text(middle, digits)} ± {_text(half)}"
        if half < abs(middle)
        else f"{_text(low)} to {_text(high)}"
    )
