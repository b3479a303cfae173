"""What all commands share: the application, the options of many commands, and where each writes."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console, RenderableType
from rich.text import Text

from sflam import __version__, config
from sflam.config import Job
from sflam.errors import ConfigError, SflamError
from sflam.printable import printable
from sflam.report.terminal.live_bar import animates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

app = typer.Typer(
    name="sflam",
    help="Fine-tune large transformers on devices that could never hold them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
Errors = type[BaseException] | tuple[type[BaseException], ...]
Command = TypeVar("Command", bound=Callable[..., Any])


class Terminal(Console):
    """A console that shows the words of others as they are: neither markup nor escape sequences act."""

    def render_str(self, text: str, **options: Any) -> Text:
        """Return what is shown of a string, be it printed or in a table."""
        lines = "\n".join(map(printable, text.split("\n")))
        return super().render_str(lines, **(options | {"markup": False, "emoji": False}))


stdout, stderr = Terminal(), Terminal(stderr=True)

JobFile = Annotated[Path | None, typer.Argument(help="A TOML job file; without one, the default job.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="SECTION.KEY=VALUE", help="Override a setting; may be repeated."),
]
RunOut = Annotated[
    Path | None, typer.Option("--out", help="Run folder to write; by default a new one in runs/.")
]
JobFiles = Annotated[
    list[Path] | None,
    typer.Argument(metavar="[JOB]...", help="TOML job files, several at once; without one, the default job."),
]
RunsOut = Annotated[
    Path | None,
    typer.Option("--out", help="Run folder to write, or that of several; else a new one in runs/."),
]
Resume = Annotated[Path | None, typer.Option(help="Run folder to resume after a stop or a crash.")]
FollowedPlan = Annotated[
    str | None,
    typer.Option(
        "--plan",
        help="Follow this plan.json; or computed: plan now; or measured: every served round.",
    ),
]
Merge = Annotated[bool, typer.Option(help="Also write the merged model.")]
Ranks = Annotated[
    int | None,
    typer.Option(metavar="N", help="Train on N processes of this host, as torchrun --nproc-per-node N does."),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin", metavar="FILE", help="Load this plug-in, a .py file or an entry point; may be repeated."
    ),
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


def command(*examples: str) -> Callable[[Command], Command]:
    """Register a function as a command, whose help ends with examples to copy."""
    lines = [f"Example{'s' * (len(examples) > 1)}:", *(f"  {each}" for each in examples)]
    return app.command(epilog="\n\n".join(lines))


def status(text: str) -> AbstractContextManager[object]:
    """Show a spinner on a terminal."""
    return stderr.status(text) if animates(sys.stderr) else nullcontext()


@contextmanager
def loading(text: str) -> Iterator[None]:
    """Show a spinner on a terminal while libraries and what they open are loaded.

    Garbage collection would walk the libraries again and again, a fifth of the time: there is none where torch is
    not loaded yet, and what is there in the end is left out of every later collection.
    """
    first = "torch" not in sys.modules and gc.isenabled()
    if first:
        gc.disable()
    try:
        with status(text):
            yield
    finally:
        if first:
            gc.freeze()
            gc.enable()


def remark(*lines: str) -> None:
    """Print lines that are no result: to stderr, at once."""
    for line in lines:
        print(printable(line), file=sys.stderr, flush=True)


def notes(found: Iterable[str]) -> None:
    """Print what the user should know beside the result."""
    remark(*(f"note: {note}" for note in found))


def show(as_json: bool, *tables: RenderableType) -> None:
    """Print tables to stdout, or to stderr where stdout is for JSON."""
    for table in tables:
        (stderr if as_json else stdout).print(table, markup=False)


def write(folder: Path, name: str, found: object, figure: Figure, error: type[SflamError]) -> None:
    """Write name.json and name.png into a folder, made where it is not there; raises ``error`` where it cannot be."""
    from sflam.files import replace_file, writing
    from sflam.report.charts.figure import save

    with writing(folder, "give another --out", error):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / f"{name}.json", (json.dumps(found, indent=2) + "\n").encode())
    save(figure, folder / f"{name}.png")
    remark(f"wrote {name}.json, {name}.png to {folder}")


def show_json(as_json: bool, found: object) -> None:
    """Print the one JSON object, if it was asked for."""
    if as_json:
        print(json.dumps(found))


def run_job(
    job: Path | None,
    overrides: list[str] | None,
    *,
    plan: str | None = None,
    out: Path | None = None,
    resume: Path | None = None,
    first: tuple[str, ...] = (),
) -> Job:
    """Return the job of a command that runs one; ``first`` are overrides of the command itself.

    Raises:
        ConfigError: a job that cannot be, or one given to a run that is resumed.
    """
    if resume and (job or overrides or out or plan):
        raise ConfigError(
            "--resume continues a run as it was; leave out the job file, --set, --out and --plan"
        )
    planned = [] if plan is None else [f"fleet.plan={config.toml_value(plan)}"]
    return config.load(job, [*first, *(overrides or []), *planned])


def follow_first() -> None:
    """Let a process that torchrun started beside the first one follow that one, and end."""
    from sflam.run.ranks import follow, follows

    if follows():
        follow()
        raise SystemExit(0)


def numbers(option: str, text: str) -> list[float]:
    """Return the numbers of an option; ConfigError names what is none."""
    found = []
    for word in text.split(","):
        try:
            found.append(float(word))
        except ValueError:
            raise ConfigError(f"{option} holds {word!r}; separate numbers by commas, e.g. 0.1,0.5") from None
    return found


@contextmanager
def stoppable(advice: str, stopped: Errors = KeyboardInterrupt) -> Iterator[None]:
    """Turn a stop by the user into one line of advice and exit code 130."""
    try:
        yield
    except stopped:
        remark(f"stopped; {advice}")
        raise SystemExit(130) from None
