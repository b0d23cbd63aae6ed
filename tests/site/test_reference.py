"""Statements, functions and tests find each other; the reference holds every module; docstrings
are shown as they read."""

import re

import pytest
from conftest import ROOT
from press_fixtures import BOOK

from press import reference
from press.chapters import read_notebook

# Statements that no function computes and no test holds, and why.
APART = {
    "prop-agreement": "an identity of means over training sets; chapter 15 measures both sides",
}
# Modules that the reference leaves out, and why.
HIDDEN = {
    "experiments.__main__": "a command line, which says --help",
    "kernels.local_triton": "needs Triton; what calls it is there",
    "kernels.posterior_triton": "needs Triton; what calls it is there",
}
TEXTS = {
    page: [cell.source for cell in read_notebook(ROOT / page).cells if cell.cell_type == "markdown"]
    for page in BOOK.chapters
}
STATED = [
    match["label"]
    for cells in TEXTS.values()
    for cell in cells
    for match in reference.STATEMENT.finditer(cell)
]
PAGES = {page: page.read_text("utf-8") for page in (ROOT / "book/reference").glob("*.md")}


def test_every_statement_is_found():
    """Whatever its directive looks like, a statement has a label, and one of its own."""
    written = sum(
        len(re.findall(r"\{prf:(?!proof|ref)", cell)) for cells in TEXTS.values() for cell in cells
    )
    assert written == len(STATED) == len(set(STATED)) > 60


@pytest.mark.parametrize("named", [reference.computed, reference.held])
def test_every_statement_has_a_function_and_a_test(named):
    found = named(ROOT)
    assert sorted(set(found) - set(STATED)) == [], "no chapter states this"
    assert sorted(set(STATED) - set(found)) == sorted(APART)


def test_what_holds_a_statement_is_a_test():
    names = [place.name for places in reference.held(ROOT).values() for place in places]
    assert [name for name in names if not name.startswith("test_")] == []


def test_a_statement_leads_to_what_computes_and_holds_it():
    link = reference.links(ROOT, BOOK.config["repository"])
    cells = [cell for cells in TEXTS.values() for cell in cells if reference.STATEMENT.search(cell)]
    for cell in cells:
        label = reference.STATEMENT.search(cell)["label"]
        # within the directive, so that it stands in its box
        line = re.search(r"<small>(.*)</small>\n(`{3,}|:{3,})$", link(cell), re.M)
        if label in APART:
            continue
        for words, file, number in re.findall(r"\[([^]]+)\]\(\S+/main/(\S+)#L(\d+)\)", line[1]):
            there = (ROOT / file).read_text("utf-8").split("\n")[int(number) - 1]
            assert there.startswith(f"def test_{words.replace(' ', '_')}(")
        assert "py:obj" in line[1] and "tests/" in line[1]


def test_the_reference_holds_every_module_once():
    source = ROOT / "src"
    pages = "\n".join(PAGES.values())
    shown = re.findall(
        r"automodule:: helpers\.(\S+)",
        "\n".join(reference.modules(text, source, pages) for text in PAGES.values()),
    )
    packages = {"helpers"} | {name.rpartition(".")[0] for name in shown}
    there = {reference.dotted(file, source / "helpers") for file in source.glob("helpers/**/*.py")}
    assert sorted(shown) == sorted(set(shown))
    assert set(shown) <= there, "moved or gone"
    assert sorted(there - set(shown) - packages) == sorted(HIDDEN)
    assert {f"book/reference/{page.stem}" for page in PAGES} <= {
        page.with_suffix("").as_posix() for page in BOOK.pages
    }


WORDS = """A map D(y, *rest) of `code`, |y| and x_hat; proved: `thm-tweedie`.

    y = x + sigma n,   n ~ N(0, I)

points: the training set.
sigma: a level; see
note: which is no argument.

- one
thing
- another

>>> 1 + 1
2
"""


def test_docstrings_are_shown_as_they_read():
    assert reference.markup(WORDS).split("\n\n") == [
        r"A map D(y, \*rest) of \ ``code``\ , \|y\| and x\_hat; proved: \ :prf:ref:`thm-tweedie`\ .",
        ".. code-block:: none",
        "        y = x + sigma n,   n ~ N(0, I)",
        "\\ ``points``\\ : the training set.",
        "\\ ``sigma``\\ : a level; see\nnote: which is no argument.",
        "- one\n  thing\n- another",
        ">>> 1 + 1\n2",
    ]


# Built --------------------------------------------------------------------------------------------


@pytest.mark.site
def test_code_in_chapters_leads_to_the_reference_and_reads_as_before(soup):
    for chapter in BOOK.chapters:
        page = soup[chapter.with_suffix(".html").as_posix()]
        links = page.select("div.cell_input pre a")
        assert links and all("reference/" in link["href"] for link in links), chapter
        shown = [pre.get_text().strip() for pre in page.select("div.cell_input pre")]
        cells = read_notebook(ROOT / chapter).cells
        code = {cell.source.strip() for cell in cells if cell.cell_type == "code"}
        assert shown and set(shown) <= code


@pytest.mark.site
def test_a_function_leads_back_to_its_statements(soup):
    pages = [soup[page.relative_to(ROOT).with_suffix(".html").as_posix()] for page in PAGES]
    for label, places in reference.computed(ROOT).items():
        for place in places:
            signature = next(filter(None, (page.find(id=place.name) for page in pages)))
            words = signature.find_next_sibling("dd")
            assert words.select(f'a[href$="#{label}"]'), place
