"""Exercises that answer: what a guess carries and refuses, what it says, and that every chapter asks
one."""

import json
import math
import re

import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from press_fixtures import BOOK, serious_faults, show_panel

from helpers.lab import Guess
from helpers.lab.scripts import joined
from helpers.plots import SITE
from press.chapters import COLLECTING, read_notebook

ASKED = "Which share of the samples is <b>new</b>?"
# the workbench asks by training
CHAPTERS = [c for c in BOOK.chapters if c.stem not in COLLECTING and c.stem[3:] != "workbench"]
SAID = """
const { typed, comparison } = await import(process.argv[2]);
const said = (text, value, unit = "") => comparison(typed(text, unit), value);
console.log(JSON.stringify([
  ["0.3", "0,3", "1/4", "25 %", " 2 ", "-1e-3"].map((text) => typed(text, "%")),
  ["", "a", "1/", "1/2/3", "%", "three", "1,000"].map((text) => Number.isNaN(typed(text, "%"))),
  said("0.3", 0.12), said("0.04", 0.12), said("0.125", 0.12), said("3", 3), said("0", 0.5), said("2", -1),
]));
"""


def test_what_is_typed_is_read_and_compared(javascript, labs):
    numbers, none, *said = javascript(SAID, labs)
    assert numbers == [0.3, 0.3, 0.25, 25, 2, -0.001] and none == [True] * 7
    assert said == [
        "your guess is 2.5 times too large",
        "your guess is 3 times too small",
        "your guess is right to a tenth",
        "just as you said",
        "your guess is 0.5 too small",
        "your guess is 3 too large",
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": " "}, r"question is ' ': ask something"),
        ({"value": 2}, r"value is 2\.0: it lies in the range 0 to 1"),
        ({"value": math.nan}, r"value is nan: it lies in the range"),
        ({"low": 1}, r"low is 1, high is 1: a range goes from"),
        ({"high": math.inf}, r"low is 0, high is inf: a range goes from"),
        ({"log": True}, r"low is 0: a line with log=True begins above 0"),
    ],
)
def test_what_is_no_question_is_refused(changed, message):
    with pytest.raises(ValueError, match=message):
        Guess(**{"question": ASKED, "value": 0.5, "low": 0, "high": 1} | changed)


def test_the_answer_has_two_digits_and_stands_in_the_fold_alone():
    guess = Guess(ASKED, 0.12345, 0, 1, "of them")
    page = BeautifulSoup(guess.html(), "html.parser")
    carried = page.select_one("reader-guess > script").extract()
    assert json.loads(carried.string)["value"] == 0.12
    fold = page.select_one("details").extract()
    assert not fold.has_attr("open") and fold.get_text() == "Measured0.12 of them"
    assert page.get_text() == ASKED


def test_a_guess_in_the_browser(tab):
    show_panel(tab, Guess(ASKED, 0.12345, 0, 1, "of them"), ".guess")
    status, scale, box = (tab.locator(part) for part in (".lab-status", ".guess-scale", "input"))
    assert tab.locator("figcaption").inner_text() == ASKED
    assert "0.12" not in tab.locator("body").inner_text() and not scale.is_visible()
    for text, said in (
        ("", "Nothing is typed: type a number from 0 to 1."),
        ("<b>", "“<b>” is no number: type a number from 0 to 1."),
        ("7", "7 lies outside: type a number from 0 to 1."),
    ):
        box.fill(text)
        tab.get_by_role("button", name="Compare").click()
        assert status.inner_text() == said and status.get_attribute("data-bad") is not None
        assert not scale.is_visible()
    box.fill("0,3 of them")
    box.press("Enter")
    told = "You said 0.3 of them; measured 0.12 of them: your guess is 2.5 times too large."
    assert status.inner_text() == told and status.get_attribute("data-bad") is None
    assert scale.locator("text").all_text_contents() == ["measured 0.12", "you 0.3"]
    marks = [float(c.get_attribute("cx")[:-1]) for c in scale.locator("circle").all()]
    assert marks == pytest.approx([12, 30])
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390 and scale.is_visible()
    box.fill("8")
    box.press("Enter")
    assert not scale.is_visible()  # marks of another guess
    assert tab.problems == []
    for theme in ("light", "dark"):
        assert serious_faults(tab, theme, ".guess") == []


def test_a_line_of_factors(tab):
    show_panel(tab, Guess(ASKED, 100, 1, 10_000, log=True), ".guess")
    tab.locator("input").fill("10")
    tab.locator("input").press("Enter")
    marks = [float(c.get_attribute("cx")[:-1]) for c in tab.locator(".guess-scale circle").all()]
    assert marks == pytest.approx([50, 25])


@pytest.mark.parametrize("chapter", CHAPTERS, ids=[c.stem for c in CHAPTERS])
def test_every_chapter_asks_once_and_hides_the_answer(chapter):
    cells = read_notebook(ROOT / chapter).cells
    (at,) = (i for i, c in enumerate(cells) if re.search(r"(?m)^Guess\(", c.source))
    # the exercise is before, what explains it after
    assert "{exercise}" in cells[at - 1].source and "{solution}" in cells[at + 1].source
    (output,) = cells[at].outputs
    page = BeautifulSoup(output["data"]["text/html"], "html.parser")
    value = json.loads(page.select_one("reader-guess > script").extract().string)["value"]
    assert page.select_one("details").extract().get_text().startswith(f"Measured{value:g}")
    assert not re.search(rf"(?<![\d.]){re.escape(f'{value:g}')}(?![\d.])", page.get_text())


BESIDE_A_KERNEL = """async ([text, carried]) => {
  const module = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const model = { get: (key) => carried[key], on() {}, off() {}, send() {} };
  module.default.render({ model, el: document.body });
}"""


def test_a_guess_beside_a_kernel(tab, monkeypatch):
    """Jupyter and Colab: the same element by anywidget, from what the widget carries."""
    monkeypatch.delenv(SITE, raising=False)
    guess = Guess(ASKED, 0.12345, 0, 1)
    assert "application/vnd.jupyter.widget-view+json" in guess._repr_mimebundle_()[0]
    carried = {"element": guess.element, "spec": guess.carried(), "caption": guess.caption}
    tab.evaluate(BESIDE_A_KERNEL, [joined(), carried])
    tab.locator("input").fill("0.12")
    tab.locator("input").press("Enter")
    assert tab.locator(".lab-status").inner_text().endswith("measured 0.12: just as you said.")
    assert tab.problems == []
