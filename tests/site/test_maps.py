"""The maps of README.md and of the first page say what the notebooks say."""

import re
import shutil

import nbformat
import pytest
from conftest import ROOT

from press import maps
from press.chapters import Book, read_notebook

BOOK = Book(ROOT)
HEAD = "| | chapter |\n|---|---|\n"
MARK = "<!-- rows: `python -m press maps` -->\n"


@pytest.mark.parametrize("page", maps.PAGES)
def test_the_maps_are_up_to_date(page):
    found = (ROOT / page).read_text("utf-8")
    assert found == maps.drawn(BOOK, page), "python -m press maps draws them again"


def test_a_chapter_is_its_notebook_and_a_line_of_the_contents(tmp_path):
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / BOOK.chapters[0], tmp_path / "book/01_old.ipynb")
    (tmp_path / "_toc.yml").write_text("root: book/01_old\n")
    for page in maps.PAGES:
        (tmp_path / page).write_text(f"before\n\n{HEAD}| | gone |\n{MARK}\nafter | all |\n")
    assert maps.draw(Book(tmp_path)) == list(maps.PAGES) and maps.draw(Book(tmp_path)) == []

    new = nbformat.v4.new_markdown_cell("# A new one\n\n**What is it?**\n\nMore.")
    notebook = nbformat.v4.new_notebook(cells=[new], metadata={"description": "all of it"})
    nbformat.write(notebook, tmp_path / "book/22_new.ipynb")
    (tmp_path / "_toc.yml").write_text("root: book/01_old\nchapters:\n- file: book/22_new\n")
    assert maps.draw(Book(tmp_path)) == list(maps.PAGES)
    readme, intro = ((tmp_path / page).read_text() for page in maps.PAGES)
    assert f"| 22 | [A new one](book/22_new.ipynb) | all of it |\n{MARK}\nafter | all |\n" in readme
    assert f"| 22 | [A new one](22_new) | What is it? | all of it |\n{MARK}" in intro
    assert readme.count("\n|") == 4 and "gone" not in readme + intro

    for broken in ({"metadata": {}}, {"cells": [nbformat.v4.new_markdown_cell("# No question")]}):
        nbformat.write(nbformat.from_dict({**notebook, **broken}), tmp_path / "book/22_new.ipynb")
        with pytest.raises(ValueError, match="22_new.ipynb has no line for the map.*description"):
            maps.draw(Book(tmp_path))
    (tmp_path / "README.md").write_text("no map")
    nbformat.write(notebook, tmp_path / "book/22_new.ipynb")
    with pytest.raises(ValueError, match=r"README.md has 0 maps: mark the end of its rows"):
        maps.draw(Book(tmp_path))


WINGS = sorted(path.parent for path in (ROOT / "src/helpers/systems").glob("*/__init__.py"))


@pytest.mark.parametrize("wing", WINGS, ids=lambda wing: wing.name)
def test_a_wing_names_the_chapters_that_use_it(wing):
    named = re.search(r"\(chapters?\s([^)]*)\)", (wing / "__init__.py").read_text("utf-8"))
    using = [
        int(chapter.name[:2])
        for chapter in BOOK.chapters
        if any(f"systems.{wing.name}" in c.source for c in read_notebook(ROOT / chapter).cells)
    ]
    assert named and [int(number) for number in re.findall(r"\d+", named[1])] == using
