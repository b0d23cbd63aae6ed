"""The chapter contract of CONTRIBUTING.md, held by every notebook of the book as it is stored."""

import ast
import re

import nbformat
import pytest
from conftest import ROOT

from press.chapters import COLLECTING, Book, tags

BOOK = Book(ROOT)
NOTEBOOKS = sorted((ROOT / "book").rglob("*.ipynb"))
# they teach nothing: they collect
TAUGHT = [path for path in NOTEBOOKS if path.stem not in COLLECTING]
# of a code cell; longer belongs into helpers. Lists of names and the table of claims are no code to
# follow:
LINES = 18
IMPORTS = re.compile(r"(?ms)^(?:import|from) (?:[^(\n]*\(.*?\)|[^(\n]*)$")
TABLE = re.compile(r"(?ms)^(?:rows = )?(?:record|figures)\(.*")
MACHINE_PATH = re.compile(r"(?<![\w./:])/(home|root|tmp|Users|mnt|usr|opt|var|private)/|[A-Z]:\\\\")


def load(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in load(path).cells if cell.cell_type == "code"]


def text(path):
    return "\n".join(cell.source for cell in load(path).cells if cell.cell_type == "markdown")


each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
each_taught = pytest.mark.parametrize("path", TAUGHT, ids=lambda path: path.stem)


def test_every_notebook_is_in_the_contents():
    assert sorted(ROOT / chapter for chapter in BOOK.chapters) == NOTEBOOKS


@each
def test_it_opens_with_a_title_and_a_question(path):
    first = load(path).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ") and "?" in first.source


@each
def test_set_up_cell_then_parameters(path):
    cells = code_cells(path)
    assert "remove-cell" in tags(cells[0]), (
        "the first code cell sets up Colab and is tagged remove-cell"
    )
    parameters = [cell for cell in cells if "parameters" in tags(cell)]
    assert [cell.id for cell in parameters] == [cells[1].id], (
        "exactly one cell is tagged parameters, after the set-up"
    )
    values = {}
    for statement in ast.parse(parameters[0].source).body:
        assert isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name), (
            "plain assignments"
        )
        # ValueError unless a literal
        values[statement.targets[0].id] = ast.literal_eval(statement.value)
    assert values["profile"] == "quick"
    assert ("chosen(profile, device" if path in TAUGHT else "chosen(profile)") in cells[
        2
    ].source + cells[3].source
    assert path not in TAUGHT or values["device"] == "auto"


@each
def test_cells_are_short_and_quiet(path):
    for cell in code_cells(path):
        code = TABLE.sub("", IMPORTS.sub("", cell.source))
        lines = [line for line in code.splitlines() if line.strip()]
        assert len(lines) <= LINES, f"cell {cell.id} has {len(lines)} lines"
        assert not re.search(r"(?m)^\s*%%?time", cell.source), cell.id


@each
def test_outputs_are_stored_and_clean(path):
    cells = code_cells(path)
    assert any(cell.outputs for cell in cells), (
        "no outputs are stored: run `make book`, then `make store`"
    )
    assert [cell.id for cell in cells if cell.execution_count is None] == []
    for cell in cells:
        assert [
            o for o in cell.outputs if o.output_type == "error" or o.get("name") == "stderr"
        ] == [], cell.id


@each
def test_no_path_of_a_machine(path):
    assert MACHINE_PATH.findall(path.read_text(encoding="utf-8")) == []


@each
def test_cell_ids_are_there_and_differ(path):
    ids = [cell.get("id") for cell in load(path).cells]
    assert all(ids) and len(set(ids)) == len(ids)


@each
def test_every_figure_has_alt_text_and_a_caption(path):
    names = []
    for cell in code_cells(path):
        if any("image/png" in output.get("data", {}) for output in cell.outputs):
            described = cell.metadata.get("mystnb", {})
            alt, figure = described.get("image", {}).get("alt", ""), described.get("figure", {})
            assert len(alt) > 20, (
                f"cell {cell.id}: mystnb.image.alt says what a reader who cannot see must know"
            )
            assert figure.get("caption"), f"cell {cell.id}: mystnb.figure.caption"
            names.append(figure.get("name"))
            assert re.fullmatch(r"fig-[\w-]+", names[-1] or ""), (
                f"cell {cell.id}: mystnb.figure.name is fig-..."
            )
    assert len(set(names)) == len(names)


@each_taught
def test_two_exercises_with_solutions(path):
    exercises = re.findall(r"(?m)^[`:]{3,}\{exercise(?:-start)?\}", text(path))
    solutions = re.findall(r"(?m)^[`:]{3,}\{solution(?:-start)?\}", text(path))
    assert len(exercises) >= 2 and len(solutions) == len(exercises)


@each_taught
def test_claims_are_recorded_and_shown(path):
    cells = [cell for cell in code_cells(path) if re.search(r"\brecord\(", cell.source)]
    assert len(cells) == 1 and cells[0].outputs, (
        "one cell records the claims and shows them as a table"
    )
    assert (ROOT / "results/claims" / f"{path.stem}.json").is_file(), (
        "its claims are not stored: run `make store`"
    )
