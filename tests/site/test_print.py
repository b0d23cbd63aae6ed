"""The pages on paper, and the book as one PDF."""

import os
import re
import shutil
import subprocess
import sys
from collections import Counter

import pytest
from press_fixtures import BOOK
from pypdf import PdfReader
from pypdf.generic import ContentStream

pytestmark = pytest.mark.site
FEW = [page for page in BOOK.pages if page.stem in ("intro", "04_polynomial", "references")]
CHAPTER = FEW[1].with_suffix(".html").as_posix()


BIND = """
import sys
from pathlib import Path
from press.chapters import Book
from press.pdf import bind
try:
    print(bind(Book(Path(sys.argv[1])), [Path(page) for page in sys.argv[3:]], Path(sys.argv[2])))
except ValueError as error:
    sys.exit(str(error))
"""


def bind(root, target, **environment):
    """Prints FEW in a process of its own: playwright runs once in a process, and the tests' browser
    may be open."""
    command = [sys.executable, "-c", BIND, str(root), str(target), *map(str, FEW)]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def printed(tmp_path_factory, fresh_site):
    """A PDF of three pages of the book."""
    target = tmp_path_factory.mktemp("pdf") / "few.pdf"
    result = bind(BOOK.root, target)
    if "no Chromium" in result.stderr:
        pytest.skip(result.stderr)
    assert result.returncode == 0, result.stderr
    reader = PdfReader(target)
    assert len(reader.pages) == int(result.stdout)
    return reader


def bookmarks(reader, items=None, depth=0):
    for item in reader.outline if items is None else items:
        if isinstance(item, list):
            yield from bookmarks(reader, item, depth + 1)
        else:
            yield depth, item.title, reader.get_destination_page_number(item)


def test_the_pdf_has_a_title_a4_pages_and_numbers_from_first_to_last(printed):
    assert printed.metadata.title == BOOK.config["title"] and printed.metadata.author
    for number, page in enumerate(printed.pages, 1):
        assert abs(page.mediabox.width - 595) < 2 and abs(page.mediabox.height - 842) < 2
        assert str(number) in page.extract_text().split("\n")


def test_bookmarks_lead_to_parts_and_chapters(printed):
    found = list(bookmarks(printed))
    assert [(depth, title) for depth, title, _ in found] == [
        (0, "The Creative Denoiser"), (0, "I  The plane"), (1, "4. Polynomials: what moments can buy"),
        (0, "Back matter"), (1, "References"),
    ]  # fmt: skip
    for depth, title, number in found:
        if depth or not number:
            assert title in printed.pages[number].extract_text()


def test_links_between_pages_are_links_within_the_pdf(printed):
    starts = [
        number
        for _, title, number in bookmarks(printed)
        if title in ("4. Polynomials: what moments can buy", "References")
    ]
    ends, outside = [], []
    for page in printed.pages[starts[0] : starts[1]]:
        for note in page.get("/Annots", []):
            link = note.get_object()
            if "/Dest" in link:
                ends.append(
                    (printed.get_page_number(link["/Dest"][0].get_object()), link["/Dest"][3])
                )
            elif "/A" in link:
                outside.append(link["/A"]["/URI"])
    assert any(number >= starts[1] and height for number, height in ends), (
        "a citation leads to its entry"
    )
    assert any(starts[0] <= number < starts[1] for number, _ in ends)
    assert outside and all(
        url.startswith("https://") and "book.invalid" not in url for url in outside
    )


def test_solutions_and_mathematics_are_printed(printed):
    text = "\n".join(page.extract_text() for page in printed.pages)
    assert (
        "Solution to Exercise" in text
        and "Degrees 1 to 3 give the same samples, degrees 4 and 5 do not." in text
    )
    assert not re.search(r"\\(frac|sigma|mathbb)\b", text)


def kids(item):
    found = item.get("/K", [])
    return found if isinstance(found, list) else [found]


def structure(item, page=None):
    """An element and all below it; for a mark its number, the number of its page, and whose it is."""
    yield item
    page = item.get("/Pg", page)
    for kid in (kid.get_object() for kid in kids(item)):
        if isinstance(kid, int):
            yield kid, page.indirect_reference.idnum, item
        elif kid.get("/Type") == "/MCR":
            yield kid["/MCID"], kid["/Pg"].indirect_reference.idnum, item
        elif "/S" in kid:
            yield from structure(kid, page)


def test_tags_reach_every_page_and_every_figure_says_what_it_shows(printed):
    root = printed.root_object
    tree = root["/StructTreeRoot"]
    assert root["/MarkInfo"]["/Marked"] and root["/Lang"] == "en"
    numbers = tree["/ParentTree"]["/Nums"]
    owners = dict(zip(numbers[::2], numbers[1::2], strict=True))
    found = list(structure(tree["/K"]))
    marks = {(page, mark): owner for mark, page, owner in (x for x in found if type(x) is tuple)}
    for page in (printed.pages[k] for k in (0, len(printed.pages) // 2, -1)):
        shown = [
            operands[1]["/MCID"]
            for operands, operator in ContentStream(page["/Contents"], printed).operations
            if operator == b"BDC" and "/MCID" in operands[1]
        ]
        assert len(shown) > 20
        whose = owners[page["/StructParents"]].get_object()
        for mark in shown:
            owner = marks[page.indirect_reference.idnum, mark]
            assert whose[mark].get_object() is owner and "/NonStruct" != owner["/S"]
        for note in (note.get_object() for note in page.get("/Annots", [])):
            ours = owners[note["/StructParent"]].get_object()
            objects = [k.get_object() for k in kids(ours) if not isinstance(k, int)]
            assert ours["/S"] == "/Link" and note in [o["/Obj"] for o in objects if "/Obj" in o]
    elements = [x for x in found if type(x) is not tuple]
    kinds = Counter(element["/S"] for element in elements)
    assert kinds["/H1"] == kinds["/Part"] == len(FEW) and kinds["/Table"] and kinds["/Code"]
    figures = [element for element in elements if element["/S"] == "/Figure"]
    drawn = (BOOK.root / "build/site" / CHAPTER).read_text("utf-8").count('class="plotly-target"')
    assert drawn and len(figures) > drawn and all(figure.get("/Alt") for figure in figures)


def test_without_a_chromium_or_a_site_it_says_what_to_do(fresh_site, tmp_path):
    nowhere = {"PATH": str(tmp_path), "CHROMIUM": "", "PLAYWRIGHT_BROWSERS_PATH": str(tmp_path)}
    result = bind(BOOK.root, tmp_path / "book.pdf", **nowhere)
    assert result.returncode == 1 and result.stderr.startswith("no Chromium to print with"), (
        result.stderr
    )
    for file in ("_config.yml", "_toc.yml"):
        shutil.copy(BOOK.root / file, tmp_path)
    assert bind(tmp_path, tmp_path / "book.pdf").stderr.startswith("not built yet: intro")
    assert not (tmp_path / "book.pdf").exists()


def test_on_paper_a_page_is_light_and_has_nothing_to_press(opened):
    tab = opened(CHAPTER)
    tab.evaluate("document.documentElement.dataset.theme = 'dark'")
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("html").get_attribute("data-theme") == "light"
    assert (
        tab.locator(
            "button:visible, input:visible, nav:visible, dialog:visible, .headerlink:visible"
        ).count()
        == 0
    )
    for part in (
        ".solution .section, .solution section",
        "figure.lab",
        "figure.plotly-lab .main-svg",
        "article h1, #jb-print-docs-body h1",
    ):
        tab.locator(part).locator("visible=true").first.wait_for()
    lines = tab.locator("figure.lab figcaption, figure.plotly-lab figcaption").evaluate_all(
        "all => all.map((caption) => getComputedStyle(caption, '::after').content)"
    )
    assert len(lines) > 1 and all("page" in line for line in lines)
    assert tab.locator("div.cell pre").evaluate_all(
        "all => all.every((pre) => pre.scrollWidth <= pre.clientWidth)"
    )
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("html").get_attribute("data-theme") == "dark"
