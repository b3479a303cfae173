"""The command line: each command is a few lines over the Python API. Heavy imports happen inside commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sflam.cli import (  # noqa: F401 (each adds its commands)
    answering,
    auditing,
    comparing,
    exporting,
    models,
    network,
    operating,
    planning,
    replaying,
    reporting,
    stability,
    theory,
    training,
    trunks,
)
from sflam.cli.shared import app
from sflam.errors import ConfigError, RunsError, SflamError
from sflam.printable import printable

__all__ = ["app", "main", "user_errors"]

ORDER = (
    "train simulate compare study replay report init plan profile stability theory audit predict verify export serve "
    "answer trunk join device enrol operator admin certs"
).split()
app.registered_commands.sort(key=lambda command: ORDER.index(getattr(command.callback, "__name__", "")))


def main() -> None:
    """Run the command line: exit code 2 for what a user can correct, one line for each problem."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # an unreachable hub is reported once, here
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with user_errors():
        app()


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn the errors a user can cause into lines on stderr and exit code 2."""
    try:
        yield
    except SflamError as error:
        for problem in error.problems if isinstance(error, ConfigError | RunsError) else [str(error)]:
            # A quoted cause may have several lines.
            print(f"sflam: {printable(' '.join(problem.split()))}", file=sys.stderr)
        raise SystemExit(2) from None
