"""The command line: `python -m helpers.pipeline --help`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from helpers import pipeline
from helpers.files import refusals_named
from helpers.pipeline import execute as execution
from helpers.pipeline import plain as plain_sphinx
from helpers.pipeline import site
from helpers.pipeline.chapters import Book

app = typer.Typer(help=pipeline.__doc__, no_args_is_help=True, add_completion=False)
console = Console()
Profile = Annotated[str, typer.Option(help="quick: minutes on two cores; full: the sizes of the papers, on a GPU.")]


@contextmanager
def message_not_traceback() -> Iterator[Book]:
    """Hands out the book; a ValueError, a full disk included, is the user's to mend, so its message is enough."""
    try:
        with refusals_named():
            yield Book.find()
    except ValueError as error:
        console.print("[red]error:[/]", escape(str(error)), soft_wrap=True)
        raise typer.Exit(1) from None


def pytest(book: Book, *arguments: str) -> None:
    """Runs pytest on the book and ends with its status."""
    raise typer.Exit(subprocess.run([sys.executable, "-m", "pytest", "-q", *arguments], cwd=book.root).returncode)


@app.command()
def execute(
    chapters: Annotated[list[str] | None, typer.Argument(help='Stems or numbers, as "03"; none means all.')] = None,
    profile: Profile = "quick",
    jobs: Annotated[int, typer.Option(help="Chapters at a time.")] = os.cpu_count() or 1,
    force: Annotated[bool, typer.Option("--force", help="Execute also what is up to date.")] = False,
) -> None:
    """Execute the chapters whose code, helpers, data or models changed, into build/run."""
    with message_not_traceback() as book:
        if not execution.execute(book, chapters or [], profile, jobs, force, console):
            raise typer.Exit(1)


@app.command()
def compare() -> None:
    """Compare the stored outputs with the fresh ones."""
    with message_not_traceback() as book:
        book.require_fresh()
        pytest(book, "-p", "helpers.pipeline.replay", "--replay", "build/run", *map(str, book.chapters))


@app.command()
def store() -> None:
    """Make the fresh outputs the stored ones, in book/ and results/."""
    with message_not_traceback() as book:
        execution.store(book, console)


@app.command()
def build(
    profile: Profile = "quick",
    plain: Annotated[bool, typer.Option("--plain", help="By Sphinx without Jupyter Book, into build/plain.")] = False,
) -> None:
    """Build the site from the executed chapters, into build/site."""
    with message_not_traceback() as book:
        if plain:
            pages = plain_sphinx.build(book, site.prepare(book, profile)[0], book.root / "build" / "plain")
            console.print(f"the pages are built: {pages}", soft_wrap=True)
        else:
            site.build(book, profile, console)


@app.command()
def pdf() -> None:
    """Print the built pages into build/the-creative-denoiser.pdf; needs a Chromium."""
    from helpers.pipeline import pdf as printing  # the other commands need no browser

    with message_not_traceback() as book:
        target = book.root / "build" / "the-creative-denoiser.pdf"
        pages = printing.bind(book, book.pages, target)
        console.print(f"{pages} pages, {target.stat().st_size / 1e6:.1f} MB: {target}", soft_wrap=True)


@app.command()
def train(
    names: Annotated[list[str] | None, typer.Argument(help="Entries of the zoo; none means all.")] = None,
    profile: Annotated[
        str, typer.Option(help="cpu: hours on two cores; gpu: eight times the images; full: the papers' schedules.")
    ] = "cpu",
    workers: Annotated[int, typer.Option(help="Networks at a time; 0 means one for each core, or four on a GPU.")] = 0,
    list_only: Annotated[bool, typer.Option("--list", help="Only say what is missing.")] = False,
) -> None:
    """Train the networks of the zoo that are missing or whose recipe changed; goes on where it was interrupted."""
    import torch  # the other commands start faster without it

    from helpers.pipeline import sweep

    with message_not_traceback() as book:
        todo = sweep.pending(names or [], profile)
        if list_only or not todo:
            console.print("\n".join(todo) or "all networks are there", highlight=False)
            return
        device = "cuda" if torch.cuda.is_available() else "cpu"
        workers = workers or (4 if device == "cuda" else os.cpu_count() or 1)
        failed = sweep.sweep_zoo(todo, profile, device, workers, book.root / "build" / "train")
    for name, error in failed.items():
        console.print(f"[red]{name} failed:[/]", escape(f"{error}; run again to go on"), soft_wrap=True)
    raise typer.Exit(bool(failed))


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="A file like those in benchmarks/grids.")],
    engine: Annotated[
        str, typer.Option(help="process: one after the other; cores: all cores; ray: a cluster.")
    ] = "cores",
    address: Annotated[str, typer.Option(help="Of a Ray cluster; none starts one on this machine.")] = "",
    gpus: Annotated[float, typer.Option(help="GPUs for each training, or a share of one; 0 means a CPU core.")] = 0.0,
    folder: Annotated[
        Path | None, typer.Option(help="Of the results; none means build/sweep/ and the grid's name.")
    ] = None,
    shared: Annotated[bool, typer.Option("--shared", help="With ray: every node sees the folder.")] = False,
    seconds: Annotated[float, typer.Option(help="Between two checkpoints.")] = 60.0,
) -> None:
    """Train the cells of a grid that have no result yet, and write table.csv; goes on where it was interrupted."""
    from helpers import grid as grids
    from helpers.pipeline import sweep

    with message_not_traceback() as book:
        cells = [cell for part in grids.read(grid)[1] for cell in part.cells()]
        where = folder or book.root / "build" / "sweep" / grid.stem
        run, device = sweep.engine(engine, address or None, gpus)
        report = partial(console.print, markup=False, soft_wrap=True)
        failed = sweep.sweep(cells, where, run, device, shared or engine != "ray", seconds, report)
    console.print(f"{where / 'table.csv'}: {len(cells) - len(failed)} of {len(cells)} cells", soft_wrap=True)
    raise typer.Exit(bool(failed))


@app.command()
def cost(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="Files of grids, or profiles of the zoo; none means all in benchmarks/grids."),
    ] = None,
    seconds: Annotated[float, typer.Option(help="For which each kind of training is measured.")] = 3.0,
) -> None:
    """Measure how fast the networks of the papers train here, and say what their grids would take."""
    from helpers.pipeline import cost

    with message_not_traceback() as book:
        everything = [*map(str, sorted(book.root.glob("benchmarks/grids/*.toml"))), *cost.zoo.PROFILES]
        cost.show(what or everything, seconds, console)


@app.command()
def check() -> None:
    """Check the built pages: links, figures, weight; with a Chromium also scripts, mathematics and accessibility."""
    with message_not_traceback() as book:
        pytest(book, "tests/test_site.py", "-rs")


if __name__ == "__main__":
    app()
