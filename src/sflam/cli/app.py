"""What all commands share: the application, its options, where it writes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Annotated

import typer
from rich.console import Console

from sflam import __version__

app = typer.Typer(
    name="sflam",
    help="Fine-tune large transformers on devices that could never hold them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
stdout, stderr = Console(), Console(stderr=True)

Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="SECTION.KEY=VALUE", help="Override a setting; may be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of stdout.")]


def _version(asked: bool) -> None:
    if asked:
        print(f"sflam {__version__}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Fine-tune large transformers on devices that could never hold them."""


def status(text: str) -> AbstractContextManager[object]:
    """Show that something is going on, where somebody can see it."""
    return stderr.status(text) if stderr.is_terminal else nullcontext()
