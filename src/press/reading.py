"""How a chapter reads as a page: its number, how long it takes to read, which sections may be left
out, and which of its code lies folded behind a line that says what it does."""

import ast
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from press.chapters import PNG, tags

WORDS, FIGURE = 220, 20  # words read in a minute, seconds spent on a figure
OPEN = "open"  # the tag of a cell whose code is shown whatever the rules say
SECTION = re.compile(r"^(?=##+ )", re.M)
# The line under the heading of a section that may be left out; in the text, so that it is seen in
# every place where the notebook is.
OPTIONAL = "*Optional: "
FENCE = re.compile(r"^ *(?:`{3,}|:{3,}).*$|^:[\w-]+:.*$", re.M)  # directives and their options
FORMULA = re.compile(r"\$\$.*?\$\$|\$[^$]+\$|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.S)
LINK = re.compile(r"\]\([^)]*\)|<[^>]*>|\{[a-z:]+\}")
# What a cell shows, by how its output begins; another element of our own is a lab.
SHOWN = {"<figure class=": "slider", "<reader-guess": "question", "<table": "table"}


def number(chapter: Path) -> str:
    """The number of a chapter by the name of its file, "7"; empty where it has none."""
    found = re.match(r"0*(\d+)_", chapter.name)
    return found[1] if found else ""


def shown(cell: Any) -> list[str]:
    """What a code cell shows, in a word for each output: figure, slider, lab, question, table, or
    text."""
    words = []
    for data in (output.get("data", {}) for output in cell.get("outputs", [])):
        text = "".join(data.get("text/html", ""))
        known = [word for start, word in SHOWN.items() if text.startswith(start)]
        lab = ["lab"] if re.match(r"<[a-z]+-[a-z]+\b|<figure\b", text) else []
        words += ["figure"] if PNG in data else known or lab or ["text"]
    return words


def sections(cells: Iterable[Any]) -> Iterator[tuple[Any, str, bool]]:
    """The cells in parts that begin with a heading: cell, text of the part, and whether it is optional.

    What is below an optional heading is optional, up to the next heading of its own level or above.
    """
    level = 0  # of the optional heading, 0 outside
    for cell in cells:
        text = cell.cell_type == "markdown"
        for part in filter(None, SECTION.split(cell.source)) if text else [cell.source]:
            head = re.match(r"(##+) .*(?:\n\s*|$)", part) if text else None
            if head and not 0 < level < len(head[1]):
                level = len(head[1]) if part.startswith(OPTIONAL, head.end()) else 0
            yield cell, part, level > 0


def minutes(cells: Iterable[Any]) -> tuple[int, int]:
    """Minutes to read the text and look at the figures, of what all should read and of what is
    optional; a formula counts as a word."""
    spent = {False: 0.0, True: 0.0}
    for cell, part, optional in sections(cells):
        if cell.cell_type == "markdown":
            words = len(LINK.sub(" ", FENCE.sub(" ", FORMULA.sub(" x ", part))).split())
            spent[optional] += words / WORDS
        figures = len(set(shown(cell)) & {"figure", "slider", "lab"})
        spent[optional] += figures * FIGURE / 60
    return max(1, round(spent[False])), round(spent[True])


# Folds --------------------------------------------------------------------------------------------


def syntax(cell: Any) -> list[ast.stmt]:
    """The statements of a cell; none where it is not Python alone."""
    try:
        return ast.parse(cell.source).body
    except SyntaxError:
        return []


def imported(cells: Iterable[Any]) -> set[str]:
    """Names that the code has from `helpers`."""
    return {
        name.asname or name.name
        for cell in cells
        if cell.cell_type == "code"
        for node in ast.walk(ast.Module(syntax(cell), []))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "helpers"
        for name in node.names
    }


def called(cell: Any, known: set[str]) -> list[str]:
    """What of `known` a cell calls, as it is written, in order."""
    calls = [node for node in ast.walk(ast.Module(syntax(cell), [])) if isinstance(node, ast.Call)]
    names = [ast.unparse(node.func) for node in sorted(calls, key=lambda node: node.lineno)]
    whole = [name for name in names if re.fullmatch(r"[\w.]+", name)]
    return list(dict.fromkeys(name for name in whole if name.split(".")[0] in known))


def lines(cell: Any) -> str:
    count = len(cell.source.splitlines())
    return f"{count} line{'s' * (count != 1)}"


def fold(cells: list[Any]) -> Iterator[tuple[Any, str]]:
    """The code cells that are folded, each with the line that stands for its code.

    Folded are the set-up, cells that draw what they show, and the claims at the end with what is
    computed for them alone. Definitions, and what prints or computes, stay open.
    """
    known = imported(cells)
    for kind, run in groupby(cells, key=lambda cell: cell.cell_type):
        code = [cell for cell in run if not {"remove-cell", "remove-input"} & set(tags(cell))]
        claims = any("record" in called(cell, known) for cell in code)
        for cell in code if kind == "code" else []:
            if OPEN in tags(cell):
                continue
            names = called(cell, known)
            what = [w for w in shown(cell) if w in ("figure", "slider", "lab", "table")]
            defines = any(isinstance(s, ast.FunctionDef | ast.ClassDef) for s in syntax(cell))
            few = ", ".join(names[:3]) + f" and {len(names) - 3} more" * (len(names) > 3)
            calls = f"; calls {few}" if names else ""
            if "parameters" in tags(code[0]):
                values = [ast.unparse(s.targets[0]) for s in syntax(cell) if type(s) is ast.Assign]
                choices = f"; chooses {', '.join(values)}" if cell is code[0] and values else ""
                yield cell, f"Set-up, {lines(cell)}{choices}"
            elif "record" in names:
                yield cell, f"The claims of this chapter as code, {lines(cell)}"
            elif "question" in shown(cell):
                yield cell, f"Code of this question, {lines(cell)}"
            elif what and (not defines or "table" in what):
                yield cell, f"Code of this {what[0]}, {lines(cell)}{calls}"
            elif claims:
                yield cell, f"What the claims need, {lines(cell)}{calls}"


def folded(cells: list[Any]) -> None:
    """Marks the cells that `fold` names as myst-nb wants it; `press.finish` draws the line."""
    for cell, line in list(fold(cells)):
        cell.metadata["tags"] = [*tags(cell), "hide-input"]
        own = cell.metadata.get("mystnb", {})
        cell.metadata["mystnb"] = own | {"code_prompt_show": line, "code_prompt_hide": line}
