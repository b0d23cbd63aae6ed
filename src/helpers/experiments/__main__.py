"""The command line: `python -m helpers.experiments --help`."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from helpers.experiments.console import console, message_not_traceback

app = typer.Typer(
    help="Trains what the tables of networks list.", no_args_is_help=True, add_completion=False
)


def build() -> Path:
    """What can be made again: `build` of the checkout around the current folder, or in it."""
    here = Path.cwd()
    return next((f for f in (here, *here.parents) if (f / "_toc.yml").is_file()), here) / "build"


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
        int,
        typer.Option(
            min=0, help="Networks at a time; 0 means one for each core, or four on a GPU."
        ),
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

    from . import campaign as work

    with message_not_traceback():
        if not torch.cuda.is_available():
            torch.set_num_threads(1)
        if unpack:
            console.print(", ".join(work.unpack(unpack)), soft_wrap=True)
            return
        folder, device = build() / "train", "cuda" if torch.cuda.is_available() else "cpu"
        workers = workers or (
            1 if campaign and device == "cpu" else 4 if device == "cuda" else os.cpu_count() or 1
        )
        entries = work.entries(profile, device, workers, folder)
        failed = {}
        if list_only or not work.pending(names or [], entries):
            lines = work.progress(names or [], entries, profile, folder)
            console.print("\n".join(lines), highlight=False, soft_wrap=True)
        else:
            failed = work.campaign(
                names or [], entries, profile, device, workers, folder, humble=campaign
            )
        if pack:
            done = [name for name in names or entries if name not in work.pending([], entries)]
            console.print(*work.pack(done, pack), sep="\n", soft_wrap=True)
    for name, error in failed.items():
        console.print(
            f"[red]{name} failed:[/]", escape(f"{error}; run again to go on"), soft_wrap=True
        )
    raise typer.Exit(bool(failed))


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="A file like those in benchmarks/sweeps.")],
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
        typer.Option(help="Of the results; none means build/sweep/ and the file's."),
    ] = None,
    shared: Annotated[
        bool, typer.Option("--shared", help="With ray: every node sees the folder.")
    ] = False,
    seconds: Annotated[float, typer.Option(help="Between two checkpoints.")] = 60.0,
) -> None:
    """Train the cells of a sweep that have no result yet, and write table.csv; goes on where it was
    interrupted."""
    from . import engines, sweep
    from . import sweep as sweeps

    with message_not_traceback():
        cells = [cell for part in sweeps.read(file)[1] for cell in part.cells()]
        where = folder or build() / "sweep" / file.stem
        run, device = engines.engine(engine, address or None, gpus)
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
            help="Files of sweeps, or profiles of the zoo; none means all in benchmarks/sweeps."
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="For which each kind of training is measured.")
    ] = 3.0,
) -> None:
    """Measure how fast the networks of the papers train here, and say what their sweeps would take."""
    from . import cost

    with message_not_traceback():
        files = sorted((build().parent / "benchmarks/sweeps").glob("*.toml"))
        everything = [*map(str, files), *cost.zoo.PROFILES]
        cost.show(what or everything, seconds, console)


if __name__ == "__main__":
    app()
