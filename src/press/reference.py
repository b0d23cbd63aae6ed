"""The reference: a Sphinx extension that shows docstrings, which are plain prose, as they read in
the code, and the links between the statements of the chapters, functions and tests.

A docstring names a statement by its label in backticks, as `thm-tweedie`; a test carries the mark
`@pytest.mark.theorem("thm-tweedie")`. Both are read, and the statement's page leads to them.
"""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import helpers

LABEL = r"(?:thm|prop|lem)-[a-z0-9-]+"
STATEMENT = re.compile(  # without its last line, the closing fence
    r"^(?P<fence>`{3,}|:{3,})\{prf:(?!proof)[a-z]+\}.*?^:label: (?P<label>\S+)$.*?(?=^(?P=fence)$)",
    re.M | re.S,
)
MODULES = re.compile(r"^```\{modules\}\n(.*?)^```$", re.M | re.S)
CODE = re.compile(r"`([^`]+)`")
SPECIAL = re.compile(r"[\\*|_]")  # what reStructuredText would take for markup
ARGUMENT = re.compile(r"(?<![^.;:)]\n)^([a-z_]+(?:, [a-z_]+)*): ", re.M)


class Place(NamedTuple):
    """A function, class or test: its dotted name, its file and its line."""

    name: str
    file: Path
    line: int


# Statements, functions and tests ------------------------------------------------------------------


def dotted(file: Path, source: Path) -> str:
    """The name of a module below `source`."""
    parts = file.relative_to(source).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def definitions(file: Path, module: str = "") -> Iterator[tuple[Place, Any]]:
    """The functions and classes of a file, with those in classes, and their syntax."""
    todo = [(module, node) for node in ast.parse(file.read_bytes()).body]
    for above, node in todo:  # grows as it goes
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{above}.{node.name}".lstrip(".")
            yield Place(name, file, node.lineno), node
            if isinstance(node, ast.ClassDef):
                todo += [(name, inner) for inner in node.body]


def computed(root: Path) -> dict[str, list[Place]]:
    """By label: the functions and classes of `helpers` whose docstrings name it."""
    found: dict[str, list[Place]] = {}
    for file in sorted((root / "src/helpers").rglob("*.py")):
        for place, node in definitions(file, dotted(file, root / "src")):
            for label in re.findall(f"`({LABEL})`", ast.get_docstring(node) or ""):
                found.setdefault(label, []).append(place)
    return found


def held(root: Path) -> dict[str, list[Place]]:
    """By label: the tests that carry its mark."""
    found: dict[str, list[Place]] = {}
    for file in sorted((root / "tests").rglob("test_*.py")):
        for place, node in definitions(file):
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.theorem":
                    for label in mark.args:
                        found.setdefault(ast.literal_eval(label), []).append(place)
    return found


def links(root: Path, repository: dict[str, str]) -> Callable[[str], str]:
    """A function that ends each statement in the Markdown of a page with a line that leads to what
    computes it and to what holds it."""
    functions, tests = computed(root), held(root)
    address = f"{repository['url']}/blob/{repository['branch']}"

    def line(match: re.Match[str]) -> str:
        parts = []
        if places := functions.get(match["label"]):
            short = [p.name.removeprefix(f"{dotted(p.file, root / 'src')}.") for p in places]
            names = zip(short, places, strict=True)
            parts.append("In code: " + ", ".join(f"{{py:obj}}`{s} <{p.name}>`" for s, p in names))
        if places := tests.get(match["label"]):
            tested = [
                f"[{p.name.removeprefix('test_').replace('_', ' ')}]"
                f"({address}/{p.file.relative_to(root).as_posix()}#L{p.line})"
                for p in places
            ]
            parts.append("Tests: " + ", ".join(tested))
        return match[0] + (f"\n<small>{'. '.join(parts)}.</small>\n" if parts else "")

    return lambda text: STATEMENT.sub(line, text)


# Pages of the reference ---------------------------------------------------------------------------


def modules(text: str, source: Path, pages: str) -> str:
    """Markdown of a page, with a section for each module that its blocks `{modules}` name.

    `systems.*` stands for the package and all in it that none of the `pages` names itself, `*` for
    such modules that are in no package."""
    named = set(" ".join(MODULES.findall(pages)).split())

    def chosen(name: str) -> list[str]:
        if not name.endswith("*"):
            return [name]
        room = source / "helpers" / name.rstrip(".*").replace(".", "/")
        files = sorted(room.glob("[!_]*.py" if name == "*" else "**/*.py"))
        inner = [dotted(file, source / "helpers") for file in files if file.stem != "__main__"]
        return [name for name in inner if name not in named]

    def sections(match: re.Match[str]) -> str:
        return "\n\n".join(
            f"### `helpers.{name}`\n\n```{{eval-rst}}\n.. automodule:: helpers.{name}\n```"
            for pattern in match[1].split()
            for name in chosen(pattern)
        )

    return MODULES.sub(sections, text)


def markup(docstring: str) -> str:
    """A docstring as reStructuredText: examples, and what is indented or in columns, as it stands;
    each argument a paragraph; code between backticks is code, the label of a statement a link."""
    found = []
    for block in re.split(r"\n\s*\n", docstring.strip("\n")):
        if block.startswith(">>>"):
            found.append(block)
        elif block.startswith(" ") or re.search(r"\S {3,}\S", block):
            found.append(".. code-block:: none\n\n    " + block.replace("\n", "\n    "))
        elif block.startswith("- "):
            found.append(prose(re.sub(r"\n(?!- ) *", "\n  ", block)))
        else:
            lines = re.sub(r"(?m)^ +", "", block)
            found.append(prose(ARGUMENT.sub(r"\n`\1`: ", lines).strip()))
    return "\n\n".join(found)


def prose(text: str) -> str:
    parts = CODE.split(text)  # in turn: words, code
    parts[::2] = [SPECIAL.sub(r"\\\g<0>", words) for words in parts[::2]]
    for i, code in enumerate(parts[1::2]):
        label = re.fullmatch(LABEL, code)
        shown = f":prf:ref:`{code}`" if label else f"``{' '.join(code.split())}``"
        parts[2 * i + 1] = f"\\ {shown}\\ "
    return "".join(parts)


def setup(app: Any) -> dict[str, bool]:
    """Connects the pages to Sphinx."""
    from sphinx_codeautolink.extension.block import CodeBlockAnalyser

    def expand(app: Any, page: str, text: list[str]) -> None:
        pages = [file.read_text("utf-8") for file in (Path(app.srcdir) / page).parent.glob("*.md")]
        text[0] = modules(text[0], Path(helpers.__file__).parents[1], "\n".join(pages))

    def show(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
        lines[:] = [*markup("\n".join(lines)).split("\n"), ""]

    app.setup_extension("sphinx.ext.autodoc")
    app.connect("source-read", expand)
    app.connect("autodoc-process-docstring", show)
    # It takes back a title with each section, and theorems, exercises and solutions have none.
    CodeBlockAnalyser.depart_section = lambda self, node: None
    return {"parallel_read_safe": True}
