"""What a command line says when something is the user's to mend."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from ..files import refusals_named

console = Console()


@contextmanager
def message_not_traceback() -> Iterator[None]:
    """A ValueError, a full disk included, is the user's to mend, so its message is enough."""
    try:
        with refusals_named():
            yield
    except ValueError as error:
        console.print("[red]error:[/]", escape(str(error)), soft_wrap=True)
        raise typer.Exit(1) from None
