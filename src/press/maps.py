"""The maps of README.md and of the book's first page: a row for each notebook of `_toc.yml`, in the
notebook's own words."""

import re
from collections.abc import Iterator

from helpers.files import write_atomically
from press.chapters import Book, read_notebook

PAGES = {  # and how a row reads there
    "README.md": "| {number} | [{title}](book/{path}.ipynb) | {line} |",
    "book/intro.md": "| {number} | [{title}]({path}) | {question} | {line} |",
}
# the rows, between the head of the table and this mark
ROWS = re.compile(r"(?<=-\|\n)(\|.*\n)+(?=<!-- rows: `python -m press maps` -->\n)")


def rows(book: Book, row: str) -> Iterator[str]:
    """The number of each chapter, its title and question from its first cell, and its line, the
    `description` in its metadata."""
    for chapter in book.chapters:
        notebook = read_notebook(book.root / chapter)
        found = re.match(r"# (.+)\n\n\*{1,2}(.+?)\*{1,2}\n", notebook.cells[0].source)
        line = notebook.metadata.get("description")
        if not (found and line):
            raise ValueError(
                f"{chapter} has no line for the map: its first cell begins with '# title' and "
                '\'**question?**\', its metadata with "description": "in one line"'
            )
        number = re.match(r"0*(\d+)_", chapter.name)
        path = chapter.with_suffix("").relative_to("book").as_posix()
        yield row.format(number=number[1] if number else "", title=found[1], question=found[2],
                         line=line, path=path)  # fmt: skip


def drawn(book: Book, page: str) -> str:
    """The text of a page with the map of today; ValueError where it has no place for one."""
    table = "\n".join(rows(book, PAGES[page])) + "\n"
    text, places = ROWS.subn(lambda _: table, (book.root / page).read_text("utf-8"))
    if places != 1:
        raise ValueError(
            f"{page} has {places} maps: mark the end of its rows by <!-- rows: ... -->"
        )
    return text


def draw(book: Book) -> list[str]:
    """Draws the maps again; the pages that changed."""
    changed = {
        page: text
        for page in PAGES
        if (text := drawn(book, page)) != (book.root / page).read_text("utf-8")
    }
    for page, text in changed.items():
        write_atomically(book.root / page, text)
    return list(changed)
