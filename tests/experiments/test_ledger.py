"""The ledger: the machine's verdicts, the table's digits, and the files between chapters and ledger
page."""

import json
import math
from collections import Counter

import pytest
import torch
from conftest import ROOT

from helpers.experiments.ledger import Claim, Figure, Table, around, figures, read_all, record
from helpers.files import RESULTS


@pytest.mark.parametrize(
    "measured, verdict",
    [(1.0, "reproduced"), ([1.0, 1.1], "reproduced"), ([1.0, 2.0], "partly"), (2.0, "not reproduced"),
     (math.nan, "not reproduced"), ([1.0, math.inf], "partly")],
)  # fmt: skip
def test_verdict_follows_from_the_numbers(measured, verdict):
    assert Claim("source", "claim", around(1.0, 0.1), measured).verdict == verdict


def test_a_value_that_is_not_finite_satisfies_no_one_sided_claim():
    assert Claim("source", "claim", (0, math.inf), math.inf).verdict == "not reproduced"


def test_row_shows_as_many_digits_as_the_tolerance_is_sharp():
    row = Claim("source", "claim", around(-2.6267, 5e-5), [-2.62672, -2.62668]).row()
    assert (row["expected"], row["measured"]) == ("-2.6267 ± 5e-5", "-2.6267 (2)")
    assert Claim("source", "claim", (0, 1e-6), 3e-17).row()["measured"] == "below 1e-9"
    assert Claim("source", "claim", (0, 1e-6), 3e-7).row()["measured"] == "3e-7"
    assert Claim("source", "claim", (0, 1e-4), 3e-7).row()["measured"] == "below 1e-6"
    assert Claim("source", "claim", (0, 1e-3), [0.0, 5e-17]).row()["measured"] == "below 1e-5 (2)"
    assert Claim("source", "claim", (-1e-9, 1e-9), 0.0).row()["measured"] == "below 1e-9"
    # a share, and there is none
    assert Claim("source", "claim", (0, 0.05), 0.0).row()["measured"] == "0"
    assert Claim("source", "claim", (0, 0), 0.0).row()["measured"] == "0"
    assert Claim("source", "claim", (0.9, math.inf), 1).row()["expected"] == "at least 0.9"


def test_what_is_recorded_is_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv(RESULTS, str(tmp_path))
    claims = [
        Claim("Paper, fig. 1", "an order", (2, math.inf), [3.0, 4.0]),
        Claim("Paper, <abstract>", "a number", around(1, 0.1), math.nan),
    ]
    table = record("02_second", claims)
    record("01_first", claims[:1])
    assert "&lt;abstract&gt;" in table._repr_html_()
    again = read_all()
    assert list(again) == ["01_first", "02_second"]
    assert [c.row() for c in again["02_second"]] == [c.row() for c in claims]
    text = (tmp_path / "claims/02_second.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert [path.name for path in (tmp_path / "claims").iterdir() if path.suffix != ".json"] == []


def test_what_must_not_pass_does_not():
    """The control is outside of the interval, or the row is refused."""
    kept = Claim("source", "claim", (0, 0.1), [0.02, 0.05], control=("noise", [0.4, 0.6]))
    assert kept.row()["control"] == "noise: 0.4 to 0.6" and Claim.read(kept.data()) == kept
    with pytest.raises(ValueError, match="the control of 'claim', noise, passes with 0.07"):
        Claim("source", "claim", (0, 0.1), 0.05, control=("noise", 0.07))
    for nothing in ([], [0.5, math.nan], torch.tensor(math.nan), math.inf):
        with pytest.raises(ValueError, match="the control of 'claim', noise, is .*: measure it"):
            Claim("source", "claim", (0, 0.1), 0.05, control=("noise", nothing))
    for nothing in (None, "none", [None]):
        with pytest.raises(ValueError, match="is no number: pass one, several, or a tensor"):
            Claim("source", "claim", (0, 0.1), 0.05, control=("noise", nothing))
    with pytest.raises(ValueError, match="passes"):
        Claim(
            "source",
            "claim",
            (0, 0.1),
            torch.tensor(0.05),
            control=("noise", torch.tensor([0.5, 0.07])),
        )


def test_a_row_says_why_it_fails_and_where_its_numbers_come_from(tmp_path, monkeypatch):
    monkeypatch.setenv(RESULTS, str(tmp_path))
    why = "the network is smaller"
    claims = [
        Claim("Paper", "a", (0, 1), 2.0, why),
        Claim("Paper", "b", (0, 1), 0.5, why, recorded="agreement"),
    ]
    table = record("07_third", claims, "full")
    assert [row["verdict"] for row in table.rows] == [f"not reproduced: {why}", "reproduced"]
    assert 'id="claim-07-2"' in table._repr_html_()
    failed, held = read_all()["07_third"]
    assert failed.made.startswith("full, ") and held.made == "recorded, 1 thread of x86_64"
    assert failed.row()["verdict"] == f"not reproduced: {why}"
    linked = Table([{"row": "7.1", "claim": "<b>"}], links=["page.html#claim-07-1"])._repr_html_()
    assert '<td><a href="page.html#claim-07-1">7.1</a></td><td>&lt;b&gt;</td>' in linked
    with pytest.raises(ValueError, match="no record 'nothing'"):
        record("07_third", [Claim("Paper", "a", (0, 1), 2.0, recorded="nothing")])


def test_bad_claims_and_an_empty_ledger_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected is \[2, 1\]"):
        Claim("source", "claim", (2, 1), 1.5)
    with pytest.raises(ValueError, match="nothing was measured"):
        Claim("source", "claim", (0, 1), [])
    with pytest.raises(ValueError, match="execute the chapters first"):
        read_all(tmp_path)


def test_figures_gather_the_rows_that_test_them():
    chapters = {
        "02_second": [
            Claim("Paper", "fig. 1: a number", (0, 1), 0.5),
            Claim("Paper", "fig. 2", (0, 1), 2.0),
        ]
    }
    listed = [
        Figure("1", "a curve", [("02", "fig. 1")], "smaller"),
        Figure("9", "another", [], "no data"),
    ]
    rows = figures(chapters, listed).rows
    assert (
        rows[0]["ours"] == "02, fig. 1: a number: 0.5, reproduced"
        and rows[1]["ours"] == "not tested here"
    )
    with pytest.raises(ValueError, match="figure 1: no claim of chapter 03 begins with 'fig'"):
        figures(chapters, [Figure("1", "a curve", [("03", "fig")], "")])


# The ledger of the book ---------------------------------------------------------------------------

STORED = read_all(ROOT / "results/claims")
FRESH = ROOT / "build/results/claims"


@pytest.mark.parametrize("chapter", STORED)
def test_no_measured_value_left_its_tolerance(chapter):
    """Fresh outputs against the stored ones, row by row: a verdict that changes is news, whichever
    way."""
    assert (FRESH / f"{chapter}.json").is_file(), "to be executed first: python -m press execute"
    fresh = json.loads((FRESH / f"{chapter}.json").read_text("utf-8"))["claims"]
    assert [(c["claim"], c["verdict"]) for c in fresh] == [
        (c.claim, c.verdict) for c in STORED[chapter]
    ]


@pytest.mark.parametrize("chapter", STORED)
def test_every_row_that_fails_says_why(chapter):
    assert [c.claim for c in STORED[chapter] if c.verdict != "reproduced" and not c.why] == []
    assert [
        c.claim for c in STORED[chapter] if c.made.split(",")[0] not in ("quick", "recorded")
    ] == []


def test_all_sources_are_there():
    count = Counter(c.source.split(",")[0] for claims in STORED.values() for c in claims)
    assert count.total() >= 80
    papers = (
        "Levine & Weiss 2026",
        "Kadkhodaie et al. 2024",
        "Campagne 2024",
        "Permenter & Yuan 2024",
    )
    papers += ("Bastek et al. 2025", "Chen et al. 2024")
    theories = (
        "Kamb & Ganguli 2025",
        "Bonnaire et al. 2025",
        "Wang & Vastola 2024",
        "Li et al. 2024",
    )
    theories += (
        "Biroli et al. 2024",
        "Scarvelis et al. 2025",
        "Lukoianov et al. 2025",
        "Miyasawa 1961",
    )
    assert [name for name in papers if count[name] < 3] == []
    assert [name for name in theories if not count[name]] == []


@pytest.mark.parametrize("chapter", [name for name in STORED if name[:2] <= "08"])
def test_every_claim_of_the_first_two_parts_names_what_must_not_pass(chapter):
    """`Claim` itself refuses a control that passes; a row that fails needs none."""
    held = [claim for claim in STORED[chapter] if claim.verdict == "reproduced"]
    assert [claim.claim for claim in held if not claim.control] == []
