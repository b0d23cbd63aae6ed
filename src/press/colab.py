"""The chapters as notebooks that read well in Colab, JupyterLab and VS Code: `python -m press
colab` makes colab/ from book/.

Those three know Markdown and mathematics and nothing else of MyST. So statements become quotations,
solutions are folded, captions follow their figures, and what is referred to is named as on the
pages and leads there. Outputs are left out: what is shown is what the reader's own run made.
"""

import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from nbformat import v4

from press.chapters import Book, read_notebook, tags, write_notebook

FOLDER, REFERENCES = Path("colab"), Path("book/references.md")
# directives with a number: one count for each of these words, through the whole book
KINDS = {
    "prf:theorem": "Theorem",
    "prf:proposition": "Proposition",
    "prf:lemma": "Lemma",
    "exercise": "Exercise",
    "figure": "Fig.",
}
ADMONITIONS = {"admonition", "note", "tip", "important", "warning"}
DIRECTIVE = re.compile(
    r"^(?P<fence>:{3,}|`{3,})\{(?P<name>[\w:-]+)\} *(?P<title>[^\n]*)\n"
    r"(?P<options>(?::[\w-]+:[^\n]*\n)*)\n*(?P<body>.*?)\n*^(?P=fence)$",
    re.M | re.S,
)
EQUATION = re.compile(r"^\$\$ \((?P<label>[\w-]+)\)$", re.M)
# code comes first and stays as it is
INLINE = re.compile(
    r"^(?P<fence>`{3,})(?!\{).*?^(?P=fence)$"
    r"|\{(?P<role>[\w:]+)\}`(?P<text>[^`]+)`"
    r"|`[^`]+`"
    r"|(?P<before>\]\(|\bhref=\")(?P<link>(?!\w+:|#)[^)\"\s]+)",
    re.M | re.S,
)
MATH = re.compile(r"(\$\$?)[^$]+\1")
ABOUT = """
[The page of this chapter]({page}) shows all figures and labs at once; here you run it, cell by cell
or as a whole. [On Colab]({colab}) the first cell of code installs the package and keeps the torch
that is there. No GPU is needed. Where there is one it is taken: on Colab, *Runtime*, *Change runtime
type*, before you begin.
"""
SETUP = "# @title On Colab this installs the package of the book; elsewhere it does nothing\n"
SAID = 'print("This notebook computes on:", devices.hardware(device))'
METADATA = {"colab": {"toc_visible": True}, "language_info": {"name": "python"}}


class Target(NamedTuple):
    """What a label stands for: how the pages name it, and where it is."""

    name: str
    page: Path
    anchor: str


def option(directive: re.Match[str], *names: str) -> str:
    """The first of these options that a directive has, else an empty text."""
    given = dict(re.findall(r"(?m)^:([\w-]+): *(.*)$", directive["options"]))
    return next((given[name] for name in names if name in given), "")


def quoted(text: str) -> str:
    """A quotation. Its formulas stand on one line each: Jupyter would take the sign that begins a
    quoted line for a part of them."""
    text = MATH.sub(lambda match: " ".join(match[0].split()), text)
    return "\n".join(f"> {line}".rstrip() for line in text.split("\n"))


@dataclass(frozen=True)
class Converter:
    """Makes notebooks of the chapters of a book. What it cannot read is a ValueError."""

    book: Book

    def cells(self, page: Path) -> list[Any]:
        """The cells of a chapter; a page of Markdown is one."""
        if page.suffix == ".ipynb":
            return read_notebook(self.book.root / page).cells
        return [v4.new_markdown_cell((self.book.root / page).read_text("utf-8"))]

    @cached_property
    def targets(self) -> dict[str, Target]:
        """By label: statements, exercises, figures and equations, numbered in reading order."""
        found, counts = dict[str, Target](), Counter[str]()

        def count(kind: str, label: str, page: Path) -> None:
            counts[kind] += 1
            name = f"{kind} {counts[kind]}" if kind else f"({counts[kind]})"
            found[label] = Target(name, page, label if kind else f"equation-{label}")

        for page in self.book.pages:
            for cell in self.cells(page):
                figure = cell.metadata.get("mystnb", {}).get("figure", {})
                if "caption" in figure:
                    count("Fig.", figure.get("name", cell.id), page)
                text = cell.source if cell.cell_type == "markdown" else ""
                for match in DIRECTIVE.finditer(text):
                    if match["name"] in KINDS:
                        count(KINDS[match["name"]], option(match, "label", "name"), page)
                for match in EQUATION.finditer(text):
                    count("", match["label"], page)
        return found

    @cached_property
    def sources(self) -> dict[str, tuple[str, str]]:
        """By key of references.bib: names and year, as the pages cite them."""
        from pybtex.database import parse_file
        from pybtex.richtext import Text

        def named(person: Any) -> str:
            parts = person.prelast_names + person.last_names
            return str(Text.from_latex(" ".join(parts)))

        found = {}
        for key, entry in parse_file(str(self.book.root / "book/references.bib")).entries.items():
            names = [named(person) for person in entry.persons["author"]]
            short = " and ".join(names) if len(names) < 3 else f"{names[0]} et al."
            found[key] = short, entry.fields["year"]
        return found

    def address(self, page: Path, anchor: str = "") -> str:
        """Where a page is published, under the address that `_config.yml` names."""
        base = self.book.config["html"]["baseurl"].rstrip("/")
        return f"{base}/{page.with_suffix('.html').as_posix()}{anchor and f'#{anchor}'}"

    def page(self, here: Path, link: str) -> Path:
        """The page to which a link on another leads, with or without its suffix."""
        place = posixpath.normpath(posixpath.join("/", here.parent.as_posix(), link)).lstrip("/")
        for page in self.book.pages:
            if re.sub(r"[.](ipynb|md|html)$", "", place) == page.with_suffix("").as_posix():
                return page
        raise ValueError(f"{here}: '{link}' is no page of the book: list it in _toc.yml")

    def target(self, here: Path, label: str) -> Target:
        if label not in self.targets:
            raise ValueError(f"{here}: no '{label}' has a number: label what it means")
        return self.targets[label]

    def cited(self, here: Path, keys: list[str], textual: bool) -> str:
        """Sources by names and year, in the order of their names, as on the pages."""
        if unknown := set(keys) - set(self.sources):
            raise ValueError(f"{here} cites {unknown}: enter it in book/references.bib")
        parts = []
        for key in sorted(keys, key=self.sources.__getitem__):
            (names, year), place = self.sources[key], self.address(REFERENCES, key)
            parts.append(
                f"{names} [[{year}]({place})]" if textual else f"[{names}, {year}]({place})"
            )
        return ", ".join(parts) if textual else f"[{', '.join(parts)}]"

    def role(self, here: Path, role: str, text: str) -> str:
        """What a role shows, as a link."""
        if role in ("cite:t", "cite:p"):
            return self.cited(here, re.split(r",\s*", text), role == "cite:t")
        shown, goal = re.fullmatch(r"(?:(.*?)\s*<)?(.*?)>?", text, re.S).groups()  # type: ignore
        if role == "doc":
            page = self.page(here, goal)
            title = re.search(r"(?m)^# (.+)$", self.cells(page)[0].source)
            return f"[{shown or (title[1] if title else page.stem)}]({self.address(page)})"
        if role in ("prf:ref", "ref", "numref", "eq"):
            name, page, anchor = self.target(here, goal)
            return f"[{shown or name}]({self.address(page, anchor)})"
        raise ValueError(f"{here}: what does {{{role}}}`{text}` show in a notebook? press/colab.py")

    def directive(self, here: Path, match: re.Match[str]) -> str:
        """A box as a quotation, a proof as paragraphs, and folded what is folded on the page."""
        name, title, body = match["name"], match["title"].strip(), match["body"].strip("\n")
        if name == "prf:proof":
            gap = "\n\n" if re.match(r"\d+[.]|[-*] |\$\$", body) else " "
            end = "\n\n" if body.endswith(("$$", "```")) else " "
            return f"*Proof.*{gap}{body}{end}∎"
        if name == "solution":
            head, title = f"Solution to {self.target(here, title).name}", ""
        elif name in KINDS:
            head = self.target(here, option(match, "label")).name
            title = title and f" ({title})"
        elif name in ADMONITIONS:
            head, title = title or name.capitalize(), ""
        else:
            raise ValueError(f"{here}: what is a {{{name}}} in a notebook? press/colab.py")
        if "dropdown" in option(match, "class"):
            return f"<details>\n<summary><b>{head}</b></summary>\n\n{body}\n\n</details>"
        return quoted(f"**{head}**{title}\n\n{body}")

    def markdown(self, here: Path, text: str) -> str:
        """Markdown without anything that only MyST understands."""

        def inline(match: re.Match[str]) -> str:
            if match["role"]:
                return self.role(here, match["role"], match["text"])
            if match["link"]:
                path, rest = re.fullmatch(r"([^?#]*)(.*)", match["link"]).groups()  # type: ignore
                return f"{match['before']}{self.address(self.page(here, path))}{rest}"
            return match[0]

        text = EQUATION.sub(lambda m: f"\\tag{{{self.target(here, m['label']).name[1:-1]}}}\n$$",
                            INLINE.sub(inline, text))  # fmt: skip
        return DIRECTIVE.sub(lambda match: self.directive(here, match), text)

    def notebook(self, chapter: Path) -> Any:
        """A chapter as a notebook."""
        source = read_notebook(self.book.root / chapter)
        cells = []
        for cell in source.cells:
            if cell.cell_type == "markdown":
                cells.append(v4.new_markdown_cell(self.markdown(chapter, cell.source), id=cell.id))
                continue
            kept = {"tags": tags(cell)} if tags(cell) else {}
            cells.append(v4.new_code_cell(cell.source, id=cell.id, metadata=kept))
            if cell.id == "setup":
                cells[-1].source = SETUP + cell.source
                cells[-1].metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
            if re.search(r"(?m)^device = devices", cell.source):
                cells.append(v4.new_code_cell(SAID, id=f"{cell.id}-device"))
            figure = cell.metadata.get("mystnb", {}).get("figure", {})
            if "caption" in figure:
                number = self.target(chapter, figure.get("name", cell.id)).name
                caption = f"**{number}** {self.markdown(chapter, figure['caption'])}"
                cells.append(v4.new_markdown_cell(caption, id=f"{cell.id}-caption"))
        about = ABOUT.format(page=self.address(chapter), colab=address(self.book, chapter))
        title, *rest = cells[0].source.split("\n")
        cells[0].source = "\n".join([title, about.rstrip(), *rest])
        kept = {key: source.metadata[key] for key in ("kernelspec", "accelerator")
                if key in source.metadata}  # fmt: skip
        return v4.new_notebook(cells=cells, metadata=kept | METADATA)


def address(book: Book, chapter: Path) -> str:
    """Where Colab opens a chapter's notebook, at the place that `_config.yml` names."""
    repository, colab = book.config["repository"], book.config["launch_buttons"]["colab_url"]
    name = repository["url"].removeprefix("https://github.com/")
    return f"{colab}/github/{name}/blob/{repository['branch']}/{FOLDER}/{chapter.name}"


def convert(book: Book) -> list[Path]:
    """Writes colab/ anew: a notebook for each chapter, and nothing else."""
    converter = Converter(book)
    made = {
        book.root / FOLDER / chapter.name: converter.notebook(chapter) for chapter in book.chapters
    }
    (book.root / FOLDER).mkdir(exist_ok=True)
    for path in set((book.root / FOLDER).glob("*.ipynb")) - set(made):
        path.unlink()
    for path, notebook in made.items():
        write_notebook(path, notebook)
    return list(made)
