"""The book as files: its chapters, what each of them depends on, and what is known of its last run."""

import ast
import base64
import hashlib
import io
import json
import platform
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import yaml
from PIL import Image

from helpers.files import write_atomically
from press.reach import digest, reached

PROFILES = ("quick", "full")
LEDGER = "ledger"
# what reads what the others measured: it runs last and depends on their claims
COLLECTING = (LEDGER, "corrections")
MANIFEST = "models/manifest.json"
CARDS = re.compile(r"manifest|atlas\.trained")  # code that reads more of it than one card
WIDGET = "application/vnd.jupyter.widget-view+json"
PNG = "image/png"
RUN_METADATA = {
    "papermill",
    "execution",
    "ExecuteTime",
    "collapsed",
    "scrolled",
    "jp-MarkdownHeadingCollapsed",
}


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@cache
def _hash_unchanged(path: Path, size: int, modified: int) -> str:
    return sha256(path.read_bytes())


def hash_file(path: Path) -> str:
    stat = path.stat()
    return _hash_unchanged(path, stat.st_size, stat.st_mtime_ns)


def read_notebook(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def lighter(png: bytes) -> bytes:
    """A picture with a palette that keeps its colours, or as it was where none does: of 1000 pixels
    all but one differ by at most 12 of 255 in every channel.

    The palette covers all colours, not only the frequent ones: a thin curve has few pixels, and its
    colour is its name.
    """
    with Image.open(io.BytesIO(png)) as picture:
        if picture.mode == "P":  # has been made lighter
            return png
        rgb = picture.convert("RGB")
    few = rgb.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    apart = np.abs(np.asarray(few.convert("RGB"), dtype=np.int16) - np.asarray(rgb)).max(2)
    if np.quantile(apart, 0.999) > 12:
        return png
    data = io.BytesIO()
    few.save(data, "PNG", optimize=True)
    return min(png, data.getvalue(), key=len)


def whole_streams(outputs: list[Any]) -> list[Any]:
    """Successive texts of one stream as one output: where a kernel cuts what is printed is chance."""
    whole: list[Any] = []
    for output in outputs:
        if (
            whole
            and output.output_type == "stream" == whole[-1].output_type
            and output.name == whole[-1].name
        ):
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def clean(notebook: Any) -> Any:
    """Removes what differs between two equal runs: times, paths, random widget ids, the
    interpreter's patch level, and where a stream was cut."""
    for metadata in [notebook.metadata, *(cell.metadata for cell in notebook.cells)]:
        for key in RUN_METADATA & set(metadata) | (
            {"tags"} if metadata.get("tags") == [] else set()
        ):
            del metadata[key]
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:  # a widget without its kernel is a dead picture with a random name
        if cell.cell_type == "code":
            cell.outputs = whole_streams(
                [output for output in cell.outputs if WIDGET not in output.get("data", {})]
            )
    notebook.metadata.get("language_info", {}).pop("version", None)
    return notebook


def lightened(notebook: Any) -> Any:
    """Every picture made `lighter`."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if PNG in output.get("data", {}):
                output.data[PNG] = base64.b64encode(
                    lighter(base64.b64decode(output.data[PNG]))
                ).decode()
    return notebook


def tags(cell: Any) -> list[str]:
    return cell.metadata.get("tags", [])


def own_cells(notebook: Any) -> list[Any]:
    """The chapter's own cells: without papermill's injected parameters and without its marks of a
    failure."""
    foreign = {"injected-parameters", "papermill-error-cell-tag"}
    return [cell for cell in notebook.cells if not foreign & set(tags(cell))]


def write_notebook(path: Path, notebook: Any) -> None:
    text = nbformat.writes(notebook) + "\n"
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)


def parameter_names(notebook: Any) -> set[str]:
    """Names that the cell tagged `parameters` assigns; papermill only warns about others, so
    callers must look."""
    code = "\n".join(cell.source for cell in notebook.cells if "parameters" in tags(cell))
    names = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)]
    return {name.id for name in names if isinstance(name.ctx, ast.Store)}


@dataclass(frozen=True)
class Book:
    """A book rooted at the folder that holds `_config.yml` and `_toc.yml`. Pages are paths relative
    to that folder."""

    root: Path

    @classmethod
    def find(cls) -> "Book":
        """The book around the current folder. Raises ValueError where there is none."""
        here = Path.cwd().resolve()
        for folder in (here, *here.parents):
            if (folder / "_toc.yml").is_file():
                return cls(folder)
        raise ValueError(
            f"no _toc.yml in {here} or above it: run this inside a checkout of the book"
        )

    @property
    def run(self) -> Path:
        return self.root / "build" / "run"

    @property
    def results(self) -> Path:
        return self.root / "build" / "results"

    @cached_property
    def config(self) -> dict[str, Any]:
        return yaml.safe_load((self.root / "_config.yml").read_text(encoding="utf-8"))

    @cached_property
    def pages(self) -> list[Path]:
        """Every page of `_toc.yml`, in reading order. Raises ValueError for an entry that is no
        file."""

        def entries(node: Any) -> Iterable[str]:
            if isinstance(node, dict):
                yield from (node[key] for key in ("root", "file") if key in node)
                for key in ("parts", "chapters", "sections"):
                    yield from entries(node.get(key, []))
            elif isinstance(node, list):
                for child in node:
                    yield from entries(child)

        pages = []
        for name in entries(yaml.safe_load((self.root / "_toc.yml").read_text(encoding="utf-8"))):
            names = (name, f"{name}.ipynb", f"{name}.md")
            found = next((Path(n) for n in names if (self.root / n).is_file()), None)
            if found is None:
                raise ValueError(
                    f"_toc.yml lists '{name}', but neither {name}.ipynb nor {name}.md exists"
                )
            pages.append(found)
        return pages

    @property
    def chapters(self) -> list[Path]:
        return [page for page in self.pages if page.suffix == ".ipynb"]

    def select(self, names: Iterable[str]) -> list[Path]:
        """Chapters by stem or number ("03_linear" or "03"); all of them for no name. ValueError for
        an unknown one."""
        chosen = set()
        for name in names:
            match = [
                c for c in self.chapters if name in (c.stem, c.stem.split("_")[0], c.as_posix())
            ]
            if not match:
                raise ValueError(
                    f"no chapter '{name}'; there are: {', '.join(c.stem for c in self.chapters)}"
                )
            chosen.update(match)
        return [c for c in self.chapters if c in chosen] if chosen else self.chapters

    # What a chapter depends on --------------------------------------------------------------------

    def data(self) -> dict[str, str]:
        """Content hashes, by name, of what helpers may read: files of the package, and the weights.

        A network's hash is that of its weights and its card."""
        found = {}
        for part in ("src/helpers", "models"):
            for file in (self.root / part).rglob("*.*"):
                if file.is_file() and file.suffix not in {".py", ".pyc", ".js", ".tmp"}:
                    found[file.relative_to(self.root).as_posix().removeprefix("src/")] = hash_file(
                        file
                    )
        try:
            cards = json.loads((self.root / MANIFEST).read_text("utf-8"))
        except (FileNotFoundError, ValueError):  # a chapter that needs it will say so
            cards = {}
        for name, card in cards.items():
            if (weights := f"models/{name}.safetensors") in found:
                found[weights] = sha256(json.dumps([found[weights], card]).encode())
        return found

    def dependencies(
        self, chapter: Path, profile: str, opened: Iterable[str] = ()
    ) -> dict[str, str]:
        """Content hashes, by name, of all that decides a chapter's outputs. Imports are not run.

        opened: the data that its run has opened; another run opens the same until something
        differs.
        """
        notebook = clean(read_notebook(self.root / chapter))
        cells = [[c.get("id"), c.cell_type, c.source, c.metadata] for c in notebook.cells]
        code = "\n".join(c.source for c in notebook.cells if c.cell_type == "code")
        magic = r"(?m)^(\s*)([%!].*)"
        words = re.findall(r"\w+", " ".join(line for _, line in re.findall(magic, code)))
        files = {self.root / "requirements.txt"}
        try:
            files |= reached(re.sub(magic, r"\1pass", code), self.root / "src", words)
        except SyntaxError:  # the run itself will show it, with the cell
            pass
        if chapter.stem in COLLECTING:
            files |= {file for file in self.results.glob("claims/*.json")}
        found = {"the chapter": sha256(json.dumps(cells, sort_keys=True).encode())}
        found |= {"python": platform.python_version(), "profile": profile}
        for file in sorted(file for file in files if file.is_file()):
            name = file.relative_to(self.root).as_posix().removeprefix("src/")
            found[name] = digest(file.read_bytes()) if file.suffix == ".py" else hash_file(file)
        data = self.data() if opened else {}
        # Every model that is loaded opens the manifest, of which only its card counts, unless the
        # chapter itself looks at others.
        return found | {
            n: data[n] for n in opened if n in data and (n != MANIFEST or CARDS.search(code))
        }

    # What is known of its last run ----------------------------------------------------------------

    def executed(self, chapter: Path) -> Path:
        return self.run / chapter

    def state(self, chapter: Path) -> dict[str, Any]:
        try:
            return json.loads(
                self.executed(chapter).with_suffix(".json").read_text(encoding="utf-8")
            )
        except (FileNotFoundError, ValueError):  # damaged is as good as not there
            return {}

    def record(self, chapter: Path, ok: bool, seconds: float, depends: dict[str, str]) -> None:
        state = {"ok": ok, "seconds": round(seconds, 1), "depends": depends}
        write_atomically(
            self.executed(chapter).with_suffix(".json"), json.dumps(state, indent=1) + "\n"
        )

    def why_run(self, chapter: Path, profile: str = "quick") -> str:
        """Why the chapter must be executed again; empty where its last run still stands."""
        state = self.state(chapter)
        if not state or not self.executed(chapter).is_file():
            return "not executed yet"
        if not state["ok"]:
            return "failed last time"
        old = state["depends"]
        new = self.dependencies(chapter, profile, old)
        reasons = [f"{name} changed" for name in new if name in old and old[name] != new[name]]
        reasons += [f"{name} is new" for name in new if name not in old]
        reasons += [f"{name} is no longer used" for name in old if name not in new]
        return ", ".join(reasons)

    def require_fresh(self, profile: str = "quick", chapters: Iterable[Path] | None = None) -> None:
        """Raises ValueError unless the executed copy of every chapter, or of those named, belongs
        to what is in the book now."""
        asked = self.chapters if chapters is None else chapters
        stale = [f"{c.stem} ({why})" for c in asked if (why := self.why_run(c, profile))]
        if stale:
            raise ValueError(f"to be executed first (python -m press execute): {'; '.join(stale)}")
