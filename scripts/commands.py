"""Rewrite docs/reference/command_line.md from the commands' own help. Run it after changing a command."""

from __future__ import annotations

import re
from pathlib import Path

import typer
import typer.cli

from sflam.cli import app

HEAD = """# Command line

Every command, with its options, as `sflam COMMAND --help` prints them. Exit code 2 means that something in the input
needs to change, and one line on stderr says what. This page is written by `scripts/commands.py`.

"""


def commands() -> str:
    """Return the reference of all commands as Markdown."""
    command = typer.main.get_command(app)
    text = typer.cli.get_docs_for_click(
        obj=command, ctx=typer.Context(command, info_name="sflam"), name="sflam"
    )
    text = text.partition("**Commands**:")[2].partition("\n## ")[
        2
    ]  # the list of commands is the page's own contents
    text = re.sub(r"^(Examples?:)\n\n((?:  .*\n+)+)", _as_block, "## " + text, flags=re.MULTILINE)
    return HEAD + text.rstrip() + "\n"


def _as_block(found: re.Match[str]) -> str:
    lines = [line.strip() for line in found[2].splitlines() if line.strip()]
    return f"**{found[1][:-1]}**:\n\n```sh\n" + "\n".join(lines) + "\n```\n\n"


if __name__ == "__main__":
    page = Path(__file__).parents[1] / "docs" / "reference" / "command_line.md"
    page.write_text(commands(), encoding="utf-8")
