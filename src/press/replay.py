"""A pytest plugin: compares stored with fresh outputs by nbval's own rules, without executing
anything.

    pytest -p press.replay --replay build/run book

Cells are matched by id; nbval's tags (`nbval-ignore-output`, ...) hold as usual. nbval does not
compare images. A Plotly figure is one, and so is a picture inside HTML; their numbers differ in the
last digits from machine to machine, so they are left out in the same way. What a chapter claims
must therefore be printed, rounded to what is meant.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbval.plugin import IPyNbCell, IPyNbFile, coalesce_streams

from press.chapters import Book, own_cells, read_notebook

PICTURES = (
    r'(?s)(<script type="application/json"[^>]*>).*?(</script>)',
    r"(data:image/[\w+.-]+;base64,)[\w+/=]*()",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--replay",
        metavar="FOLDER",
        help="take fresh outputs from the executed notebooks in FOLDER",
    )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if parent.config.option.replay and file_path.suffix == ".ipynb":
        return ReplayFile.from_parent(parent, path=file_path)
    return None


class ReplayFile(IPyNbFile):
    """A stored chapter beside its executed copy."""

    def setup(self) -> None:
        self.sanitize_patterns.update(dict.fromkeys(PICTURES, r"\1\2"))

    def collect(self) -> Iterator[pytest.Item]:
        root = self.config.rootpath
        chapter = self.path.relative_to(root)
        executed = root / self.config.option.replay / chapter
        self.fresh = {}
        problem = "" if chapter not in Book(root).chapters else Book(root).why_run(chapter)
        if problem or not executed.is_file():
            problem = (
                f"no fresh outputs ({problem or 'not executed yet'}): run `python -m press execute`"
            )
        else:
            self.fresh = {cell.id: cell for cell in own_cells(read_notebook(executed))}
        items = list(super().collect())
        cells = {cell.id: cell for cell in self.nb.cells}
        if self.fresh and list(cells) != list(self.fresh):
            odd = ", ".join(sorted(set(cells) ^ set(self.fresh))) or "their order"
            problem = f"stored and executed cells differ ({odd}): run `make store`"
        changed = [
            id for id in cells if id in self.fresh and cells[id].source != self.fresh[id].source
        ]
        if changed:
            problem = f"source changed since the execution ({', '.join(changed)}): run `make book`, then `make store`"
        yield Cells.from_parent(self, name="cells", problem=problem)
        for item in items:
            if item.cell.id in self.fresh:
                yield ReplayCell.from_parent(
                    self,
                    name=item.cell.id,
                    cell_num=item.cell_num,
                    cell=item.cell,
                    options=item.options,
                )


class Cells(pytest.Item):
    """The chapter has the cells of its executed copy, in the same order and with the same source."""

    def __init__(self, *, problem: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.problem = problem

    def runtest(self) -> None:
        if self.problem:
            pytest.fail(f"{self.path.name}: {self.problem}", pytrace=False)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}: cells"


class ReplayCell(IPyNbCell):
    """A code cell whose fresh outputs were recorded earlier."""

    def runtest(self) -> None:
        if self.options["skip"]:
            pytest.skip("tagged nbval-skip")
        fresh = coalesce_streams(self.parent.fresh[self.cell.id].outputs)
        # nbval passes a stored cell that was never run; here that is drift like any other.
        if self.options["check"] and not self.compare_outputs(
            fresh, coalesce_streams(self.cell.outputs)
        ):
            where = "Cell outputs differ (if the fresh ones are right: `make store`)"
            self.raise_cell_error(where, "\n".join(self.comparison_traceback))
