"""The notebooks of colab/: those of these sources, with the numbers and links of the pages, and no
markup that Colab shows as it stands."""

import re

import nbformat
import pytest
from bs4 import BeautifulSoup
from conftest import ROOT
from markdown_it import MarkdownIt
from press_fixtures import BOOK, SITE

from press.chapters import read_notebook
from press.colab import FOLDER, Converter

CONVERTER = Converter(BOOK)
BASE = BOOK.config["html"]["baseurl"]
each = pytest.mark.parametrize("chapter", BOOK.chapters, ids=lambda chapter: chapter.stem)


def rendered(chapter):
    """What a reader sees of the Markdown, and its links."""
    cells = read_notebook(ROOT / FOLDER / chapter.name).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return BeautifulSoup(MarkdownIt().enable("table").render(text), "html.parser")


@each
def test_it_is_what_its_source_becomes(chapter):
    stored = ROOT / FOLDER / chapter.name
    made = nbformat.writes(CONVERTER.notebook(chapter)) + "\n"
    assert stored.is_file() and stored.read_text("utf-8") == made, (
        "its chapter, or what it is numbered after, has changed: run `python -m press colab`"
    )


def test_there_is_one_for_each_chapter():
    made = {file.name for file in (ROOT / FOLDER).iterdir() if not file.name.startswith(".")}
    assert made == {chapter.name for chapter in BOOK.chapters}, "run `python -m press colab`"


@each
def test_its_code_is_the_chapters_and_says_where_it_runs(chapter):
    cells = [c for c in read_notebook(ROOT / FOLDER / chapter.name).cells if c.cell_type == "code"]
    sources = [c.source for c in read_notebook(ROOT / chapter).cells if c.cell_type == "code"]
    said = [cell.source for cell in cells if cell.id.endswith("-device")]
    assert [cell.source for cell in cells[1:] if cell.source not in said] == sources[1:]
    assert cells[0].source.endswith(sources[0]) and cells[0].metadata["cellView"] == "form"
    assert len(said) == any("device = devices" in source for source in sources)
    assert not any(cell.outputs or cell.execution_count for cell in cells)


@each
def test_nothing_is_left_that_only_myst_reads(chapter):
    soup = rendered(chapter)
    for code in soup.select("pre"):
        code.decompose()
    odd = re.compile(r"\{[\w:-]+\}(?!\$)[`<]|:{3}|\$\$ \(|^:\w+:|\(\w[\w-]*\)=", re.M)
    assert odd.findall(re.sub(r"\$\$.*?\$\$", "", soup.get_text(), flags=re.S)) == []
    assert not [a["href"] for a in soup.select("a") if not a["href"].startswith("https://")]


# Small pieces -------------------------------------------------------------------------------------

HERE = BOOK.chapters[3]


@pytest.fixture
def convert():
    return lambda text: CONVERTER.markdown(HERE, text)


def test_a_statement_is_a_quotation_whose_formulas_stand_on_one_line(convert):
    name, page, anchor = CONVERTER.targets["prop-moments"]
    box = ":::{prf:proposition} of $k$\n:label: prop-moments\n\nIf $a\n= b$, then\n\n$$\nx\n$$\n:::"
    assert convert(box) == f"> **{name}** (of $k$)\n>\n> If $a = b$, then\n>\n> $$ x $$"
    assert (
        convert("{prf:ref}`prop-moments`")
        == f"[{name}]({BASE}{page.with_suffix('.html').as_posix()}#{anchor})"
    )


def test_a_proof_ends_where_it_ends(convert):
    assert convert(":::{prf:proof}\nClear.\n:::") == "*Proof.* Clear. ∎"
    assert convert(":::{prf:proof}\n1. Clear:\n\n$$\nx\n$$\n:::") == (
        "*Proof.*\n\n1. Clear:\n\n$$\nx\n$$\n\n∎"
    )


def test_a_solution_is_folded_and_its_code_is_code(convert):
    code = '```python\nprint(a[0](b), f"{c}`{d}`")\n```'
    text = f"::::{{solution}} ex-polynomial-1\n:class: dropdown\n\n{code}\n::::"
    head = f"Solution to {CONVERTER.targets['ex-polynomial-1'].name}"
    assert convert(text) == (f"<details>\n<summary><b>{head}</b></summary>\n\n{code}\n\n</details>")


def test_an_equation_has_its_number(convert):
    number = CONVERTER.targets["eq-posterior-mean"].name
    assert convert("$$\nx\n$$ (eq-posterior-mean)") == f"$$\nx\n\\tag{{{number[1:-1]}}}\n$$"
    assert convert("{eq}`eq-posterior-mean`").startswith(f"[{number}](")


def test_links_between_pages_lead_to_the_published_ones(convert):
    chapter = f"{BASE}book/part1_plane/05_bottleneck.html"
    assert convert("{doc}`this <05_bottleneck>`") == f"[this]({chapter})"
    assert convert("[this](05_bottleneck.ipynb#a)") == f"[this]({chapter}#a)"
    assert convert('<a href="05_bottleneck.html?lab=b#c">') == f'<a href="{chapter}?lab=b#c">'
    title = (ROOT / "book/notation.md").read_text("utf-8").splitlines()[0].removeprefix("# ")
    assert convert("{doc}`../notation`") == f"[{title}]({BASE}book/notation.html)"
    assert convert("{doc}`it </book/notation>`") == f"[it]({BASE}book/notation.html)"
    assert convert("`a[0](b)` and [out](https://example.org)").endswith("(https://example.org)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{prf:ref}`prop-nowhere`", "no 'prop-nowhere' has a number"),
        ("{cite:t}`nobody1900`", "nobody1900.*references.bib"),
        ("{doc}`06_nowhere`", "no page of the book"),
        ("{term}`score`", r"\{term\}.*press/colab.py"),
        (":::{tabs}\nx\n:::", r"\{tabs\}.*press/colab.py"),
    ],
)
def test_what_it_cannot_read_it_names(convert, text, words):
    with pytest.raises(ValueError, match=words):
        convert(text)


# Beside the pages ---------------------------------------------------------------------------------


@pytest.mark.site
def test_numbers_are_those_of_the_pages(soup):
    shown = {}
    for label, (_, page, anchor) in CONVERTER.targets.items():
        place = soup[page.with_suffix(".html").as_posix()].find(id=anchor)
        number = place and place.select_one(".caption-number, .eqno")
        shown[label] = number.get_text().rstrip("# \n") if number else None
    assert shown == {label: target.name for label, target in CONVERTER.targets.items()}


@pytest.mark.site
@each
def test_citations_are_those_of_the_page(soup, chapter):
    def plain(text):
        return " ".join(text.split())  # no line is broken, no space is hard

    page = soup[chapter.with_suffix(".html").as_posix()].select(".bibtex-citation")
    ours = plain(rendered(chapter).get_text())
    assert [c for c in (plain(tag.get_text()) for tag in page) if c not in ours] == []


@pytest.mark.site
@each
def test_links_lead_to_places_of_the_pages(soup, chapter):
    links = {a["href"] for a in rendered(chapter).select("a") if a["href"].startswith(BASE)}
    assert links
    missing = []
    for link in links:
        page, anchor = re.fullmatch(
            r"([^?#]*)(?:[?][^#]*)?#?(.*)", link.removeprefix(BASE)
        ).groups()
        if not (SITE / page).is_file() or anchor and not soup[page].find(id=anchor):
            missing.append(link)
    assert missing == []
