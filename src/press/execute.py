"""Executes the chapters that need it, in parallel, and keeps what they measured."""

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from helpers.files import cache_folder, write_atomically
from press.chapters import (
    COLLECTING,
    PROFILES,
    Book,
    clean,
    lighter,
    own_cells,
    parameter_names,
    read_notebook,
    write_notebook,
)
from press.worker import OPENED, PARENT

ONE_THREAD = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def kernel_environment(book: Book) -> dict[str, str]:
    """What a chapter's kernel sees: one thread (the chapters share the cores), a fixed hash seed,
    where to record, and none of the user's settings of Matplotlib, which would show, as a home that
    may not be written would."""
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment |= {name: "1" for name in ONE_THREAD}
    environment |= {"MPLCONFIGDIR": str(cache_folder() / "matplotlib")}
    environment |= {"PYTHONHASHSEED": "0", "CREATIVE_DENOISER_SITE": "1"}
    return environment | {"CREATIVE_DENOISER_RESULTS": str(book.results)}


def first_error(notebook: Any) -> str:
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get(
                "tags", []
            ):
                return f"cell {cell.get('id')}: {output.ename}: {output.evalue}"
    return ""


class Run:
    """One run over some chapters. `failures` maps each chapter that has no fresh outputs to the
    reason."""

    def __init__(self, book: Book, profile: str, jobs: int, force: bool, console: Console):
        self.book, self.profile, self.jobs, self.force, self.console = (
            book,
            profile,
            jobs,
            force,
            console,
        )
        self.failures: dict[Path, str] = {}
        self.times: dict[Path, float] = {}
        self.processes: set[subprocess.Popen[str]] = set()

    def one(self, chapter: Path) -> str:
        """Executes a chapter, records the outcome and returns its error ("" for success)."""
        start, data = time.monotonic(), self.book.data()
        depends = self.book.dependencies(chapter, self.profile, data)
        target = self.book.executed(chapter)
        # outputs of another state of the book, never to be taken for this one's
        target.unlink(missing_ok=True)
        command = [
            sys.executable,
            "-m",
            "press.worker",
            str(self.book.root / chapter),
            str(target),
        ]
        environment = kernel_environment(self.book)
        if self.profile == "quick":  # every chapter's default, so that nothing needs to be injected
            environment |= {"CREATIVE_DENOISER_DEVICE": "cpu"}  # what is compared is no GPU's
        else:
            command.append(f"profile={self.profile}")
        with tempfile.TemporaryDirectory() as folder:
            opened = Path(folder) / "opened"
            # A session of its own: Ctrl-C reaches only this process, which then ends the workers
            # itself.
            process = subprocess.Popen(
                command,
                env=environment | {PARENT: str(os.getpid()), OPENED: str(opened)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            self.processes.add(process)
            _, stderr = process.communicate()
            names = os.fsdecode(opened.read_bytes()).splitlines() if opened.exists() else []
        error = ""
        if process.returncode:
            error = first_error(read_notebook(target)) if target.is_file() else ""
            error = (
                error
                or (
                    stderr.strip().splitlines() or [f"the process ended with {process.returncode}"]
                )[-1]
            )
        paths = {Path(path).as_posix() for name in names for path in (name, os.path.realpath(name))}
        read = {
            path.removeprefix(f"{self.book.root.as_posix()}/").removeprefix("src/")
            for path in paths
        }
        depends = {
            name: value for name, value in depends.items() if name not in data or name in read
        }
        self.times[chapter] = time.monotonic() - start
        self.book.record(chapter, not error, self.times[chapter], depends)
        return error

    def wave(self, chapters: list[Path]) -> None:
        """Executes those of the chapters that need it; the longest start first, so that none is
        left to the end."""
        todo = []
        for chapter in chapters:
            why = "forced" if self.force else self.book.why_run(chapter, self.profile)
            self.console.print(
                f"{chapter.stem}: [yellow]{why}[/]"
                if why
                else f"{chapter.stem}: [green]up to date[/]"
            )
            todo += [chapter] if why else []
        todo.sort(key=lambda c: -self.book.state(c).get("seconds", float("inf")))
        columns = TextColumn("executing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        pool = ThreadPoolExecutor(self.jobs)
        try:
            with Progress(*columns, console=self.console, transient=True) as progress:
                bar = progress.add_task("", total=len(todo))
                futures = {pool.submit(self.one, chapter): chapter for chapter in todo}
                for future in as_completed(futures):
                    chapter, error = futures[future], future.result()
                    if error:
                        self.failures[chapter] = error
                    progress.console.print(
                        f"{chapter.stem}: {'[red]failed[/]' if error else 'done'}"
                    )
                    progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in self.processes:
                process.kill()
            raise
        pool.shutdown()

    def report(self) -> None:
        table = Table("chapter", "time", "result", title=f"executed, {self.profile} profile")
        for chapter, seconds in sorted(self.times.items()):
            table.add_row(
                chapter.stem,
                f"{seconds:.1f} s",
                "[red]failed[/]" if chapter in self.failures else "ok",
            )
        if self.times:
            self.console.print(table)
        for chapter, error in self.failures.items():
            self.console.print(
                f"[red]{chapter.stem}[/]: {error}", markup=True, highlight=False, soft_wrap=True
            )
            if self.book.executed(chapter).is_file():
                self.console.print(
                    f"  to read it: {self.book.executed(chapter).relative_to(self.book.root)}"
                )


def execute(
    book: Book, names: list[str], profile: str, jobs: int, force: bool, console: Console
) -> bool:
    """Executes the named chapters (all for none) where needed; returns whether every one of them
    now has fresh outputs.

    Raises ValueError for an unknown chapter or profile, fewer than one job, or a chapter without
    the parameter."""
    if profile not in PROFILES:
        raise ValueError(f"profile '{profile}': must be one of {', '.join(PROFILES)}")
    if jobs < 1:
        raise ValueError(f"jobs {jobs}: must be at least 1")
    chosen = book.select(names)
    for chapter in chosen if profile != "quick" else []:
        if "profile" not in parameter_names(read_notebook(book.root / chapter)):
            raise ValueError(
                f"{chapter.stem} has no parameter 'profile': give it in the cell tagged 'parameters'"
            )
    stems = {chapter.stem for chapter in book.chapters}
    for file in [
        *book.run.rglob(".*.tmp"),
        *book.results.rglob("*.part"),
        *book.results.glob("claims/*.json"),
    ]:
        # half a file of a killed run; claims of a chapter gone
        if file.suffix != ".json" or file.stem not in stems:
            file.unlink()
    run = Run(book, profile, jobs, force, console)
    run.wave([c for c in chosen if c.stem not in COLLECTING])
    missing = [
        c.stem for c in book.chapters if c.stem not in COLLECTING and not book.state(c).get("ok")
    ]
    collecting = [c for c in chosen if c.stem in COLLECTING]
    if missing:
        reason = f"not executed: it lists the claims of {', '.join(missing)}, which did not succeed"
        run.failures |= dict.fromkeys(collecting, reason)
    else:
        run.wave(collecting)
    run.report()
    return not run.failures


def store(book: Book, console: Console) -> None:
    """Makes the fresh outputs the stored ones: notebooks into book/, what they measured into
    results/.

    Raises ValueError unless every chapter's quick run is up to date."""
    book.require_fresh()
    for chapter in book.chapters:
        notebook = clean(read_notebook(book.executed(chapter)))
        notebook.cells = own_cells(notebook)
        # what a chapter says of itself may be newer than its run
        notebook.metadata |= read_notebook(book.root / chapter).metadata
        write_notebook(book.root / chapter, notebook)
    files = [file.relative_to(book.results) for file in book.results.rglob("*") if file.is_file()]
    # every build exports the labs' denoisers anew
    fresh = [file for file in files if file.parts[0] != "labs"]
    for name in fresh:
        data = (book.results / name).read_bytes()
        write_atomically(
            book.root / "results" / name, lighter(data) if name.suffix == ".png" else data
        )
    console.print(f"stored: {len(book.chapters)} chapters in book/, {len(fresh)} files in results/")
