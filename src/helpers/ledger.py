"""The ledger: claims, what was expected, what was measured, and a verdict that the machine computes."""

import html
import json
import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

RESULTS = "CREATIVE_DENOISER_RESULTS"  # environment variable: the folder of results, else ./results


@dataclass(frozen=True)
class Claim:
    """One claim of a source and the numbers that test it.

    source: paper and place ("Levine & Weiss 2026, abstract"; "this book, P2"); claim: in our words.
    expected: closed interval [low, high] in which every measured value must lie; use +-math.inf for one-sided claims,
    and `around(value, tolerance)` for a number. measured: one value or several (seeds, targets, orders of magnitude).
    Verdict: "reproduced" when all values lie in the interval, "partly" when some do, "not reproduced" when none does. A value
    that is not finite lies in no interval.
    """

    source: str
    claim: str
    expected: tuple[float, float]
    measured: float | Sequence[float]

    def __post_init__(self) -> None:
        low, high = self.expected
        if not low <= high:
            raise ValueError(f"expected is [{low}, {high}]: the lower bound must not exceed the upper")
        if not self.values:
            raise ValueError(f"nothing was measured for {self.claim!r}: pass a number or several")

    @property
    def values(self) -> list[float]:
        several = self.measured if isinstance(self.measured, Sequence) else [self.measured]
        return [float(v) for v in several]

    @property
    def verdict(self) -> str:
        inside = [math.isfinite(v) and self.expected[0] <= v <= self.expected[1] for v in self.values]
        return "reproduced" if all(inside) else "partly" if any(inside) else "not reproduced"

    def row(self) -> dict[str, str]:
        """The claim as the table shows it, all text: numbers to three digits, several values as their range."""
        values = self.values
        measured = _text(values[0]) if len(values) == 1 else f"{_text(min(values))} to {_text(max(values))} ({len(values)})"
        return {
            "source": self.source, "claim": self.claim, "expected": _interval(*self.expected), "measured": measured,
            "verdict": self.verdict,
        }


def around(value: float, tolerance: float) -> tuple[float, float]:
    """The interval value -+ tolerance."""
    return value - tolerance, value + tolerance


class Table:
    """Claims as a table: HTML on the page, plain text elsewhere."""

    def __init__(self, rows: Sequence[dict[str, str]]):
        self.rows = list(rows)

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{k}</th>' for k in self.rows[0]) if self.rows else ""
        body = "".join(
            "<tr>" + "".join(f'<td class="ledger-{k}">{html.escape(v)}</td>' for k, v in r.items()) + "</tr>"
            for r in self.rows
        )
        return f'<table class="ledger"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'

    def __repr__(self) -> str:
        return "\n".join(" | ".join(r.values()) for r in self.rows)


def record(chapter: str, claims: Iterable[Claim]) -> Table:
    """Write a chapter's claims to <results>/claims/<chapter>.json, atomically, and return their table."""
    claims = list(claims)
    data = {"chapter": chapter, "claims": [{**asdict(c), "measured": c.values, "verdict": c.verdict} for c in claims]}
    write_json(results_folder() / "claims" / f"{chapter}.json", data)
    return Table([c.row() for c in claims])


def read_all(folder: Path | None = None) -> dict[str, list[Claim]]:
    """All recorded claims by chapter, in the chapters' order; ValueError when none is there."""
    folder = folder or results_folder() / "claims"
    paths = sorted(folder.glob("*.json"))
    if not paths:
        raise ValueError(f"no claims in {folder}: execute the chapters first")
    chapters = {}
    for path in paths:
        data = json.loads(path.read_text("utf-8"))
        keys = ("source", "claim", "measured")
        chapters[data["chapter"]] = [
            Claim(expected=tuple(c["expected"]), **{k: c[k] for k in keys}) for c in data["claims"]
        ]
    return chapters


def results_folder() -> Path:
    """Where results are written: $CREATIVE_DENOISER_RESULTS, or ./results."""
    return Path(os.environ.get(RESULTS, "results"))


def write_json(path: Path, data: object) -> None:
    """Write JSON so that a reader of the file sees the old text or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8") as f:
        json.dump(data, f, indent=1, ensure_ascii=False)
        f.write("\n")
    os.replace(f.name, path)


def _text(x: float) -> str:
    return f"{x:.3g}".replace("e-0", "e-").replace("e+0", "e")


def _interval(low: float, high: float) -> str:
    if low == -math.inf:
        return f"at most {_text(high)}"
    if high == math.inf:
        return f"at least {_text(low)}"
    if low == high:
        return f"exactly {_text(low)}"
    middle, half = (low + high) / 2, (high - low) / 2
    return f"{_text(middle)} ± {_text(half)}" if half < abs(middle) else f"{_text(low)} to {_text(high)}"
