"""The command line: each command is a few lines over the Python API. Heavy imports happen inside commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sflam import __version__, cli_network, config
from sflam.errors import ConfigError, SflamError

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


def main() -> None:
    """Run the command line: exit code 2 for what a user can mend, said in one line each."""
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # that the hub cannot be reached is said once, by us
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    with mended():
        app()


@contextmanager
def mended() -> Iterator[None]:
    """Turn the errors a user can cause into lines on stderr and exit code 2."""
    try:
        yield
    except SflamError as error:
        for problem in error.problems if isinstance(error, ConfigError) else [str(error)]:
            print(
                f"sflam: {' '.join(problem.split())}", file=sys.stderr
            )  # a quoted cause may have several lines
        raise SystemExit(2) from None


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


@app.command(
    epilog="Examples:\n\n  sflam train\n\n  sflam train job.toml --set learn.rounds=50 --set quant.bits_up=4\n\n"
    "  sflam train --resume runs/digits-nano-vit-sflam-1"
)
def train(
    job: Annotated[
        Path | None, typer.Argument(help="A TOML job file; the bundled default without one.")
    ] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write; runs/... by default.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Run folder to go on with after a crash.")] = None,
    merge: Annotated[bool, typer.Option(help="Also write the merged model.")] = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a model cut between devices and a server.

    Without arguments: the bundled nano ViT on handwritten digits, ten devices, Dirichlet 0.5, 8 bits each way.
    """
    if resume and (job or overrides or out):
        raise ConfigError("--resume goes on with a run as it was; leave out the job file, --set and --out")
    wanted = config.load(job, overrides or [])  # a typo is told before seconds of imports
    with status("loading model and data"):
        from sflam import job as jobs
        from sflam.report.progress import Progress
        from sflam.report.table import rounds_table

        run = jobs.resume(resume) if resume else jobs.start(wanted, out)
    for note in run.assembly.notes:
        print(f"note: {note}", file=sys.stderr)
    try:
        with Progress(run.job.learn.rounds, resumed=run.records) as progress:
            for record in run.rounds():
                progress.update(record)
    except KeyboardInterrupt:
        print(f"stopped; go on with: sflam train --resume {run.folder.path}", file=sys.stderr)
        raise SystemExit(130) from None
    with status("writing the run folder"):
        result = run.finish(merge=merge)
    (stderr if as_json else stdout).print(
        rounds_table(run.records, perplexity=result.perplexity, devices=result.device_accuracy)
    )
    if run.job.learn.keep == "best":
        print(
            f"kept the model of round {result.kept_round}: accuracy {result.accuracy:.1%}, test loss {result.loss:.4f}",
            file=sys.stderr,
        )
    kept = run.folder.adapter.name if run.folder.adapter.is_dir() else run.folder.merged.name
    print(f"run folder: {result.run_dir} (curves.png, {kept}/, history.jsonl, ...)", file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(result)))


@app.command(epilog="Example:\n\n  sflam init job.toml && sflam train job.toml")
def init(
    path: Annotated[Path, typer.Argument(help="The job file to write.")] = Path("job.toml"),
) -> None:
    """Write a job file that says every key, what it means, and its default."""
    from sflam.template import template

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except FileExistsError:
        raise ConfigError(f"{path} exists already; give another name, or remove it first") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror}); give another path") from error
    print(f"wrote {path}; run it with: sflam train {path}")


@app.command(
    epilog="Example:\n\n  sflam predict runs/digits-nano-vit-sflam-1 --data digits --out predictions.csv"
)
def predict(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    data: Annotated[
        str | None,
        typer.Option(help="Named dataset, file, folder or hub name; the run's own held-out data by default."),
    ] = None,
    column: Annotated[str, typer.Option("--input", help="Array or column that holds the inputs.")] = "",
    label: Annotated[
        str, typer.Option(help="Array or column that holds the labels, if any; 'label' by default.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Write one line per sample to this CSV file.")] = None,
    as_json: Json = False,
) -> None:
    """Predict with a saved run, and say how well it does."""
    with status("loading model and data"):
        from sflam.prediction import predict as predict_run

        found = predict_run(run_dir, data, column=column, label=label)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    if out:
        found.write_csv(out)
    table = Table("class", "predicted", "right")
    for number, name in enumerate(found.classes):
        right = found.per_class.get(name)
        count = int((found.predicted == number).sum())
        table.add_row(name, str(count), "" if right is None else f"{right:.1%}")
    screen = stderr if as_json else stdout
    screen.print(table)
    if found.accuracy is not None:
        screen.print(f"accuracy {found.accuracy:.2%}, loss {found.loss:.4f}, {len(found.predicted)} samples")
    if as_json:
        print(json.dumps(found.metrics() | {"out": None if out is None else str(out)}))


@app.command(
    epilog="Examples:\n\n  sflam verify nano-vit\n\n  sflam verify path/to/model --cut 2 --dtype float32"
)
def verify(
    model: Annotated[str, typer.Argument(help="Bundled name, local folder, or hub name.")],
    cut: Annotated[str, typer.Option(help="A number of blocks, or all.")] = "all",
    dtype: Annotated[str, typer.Option(help="float64 (sharp) or float32 (half the memory).")] = "float64",
    task: Annotated[str | None, typer.Option(help="Which head; the config's own by default.")] = None,
    perturb: Annotated[
        float, typer.Option(help="Add this to one value at the cut: the check must then fail.")
    ] = 0.0,
    as_json: Json = False,
) -> None:
    """Check that the model, cut, is still the model: loss, activations and adapter gradients.

    Compares with the unmodified Hugging Face class. Exit code 1 when a difference is above tolerance.
    """
    if not (cut == "all" or cut.isdecimal()):
        raise ConfigError(f"--cut is {cut!r}; give a number of blocks or all")
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"--dtype is {dtype!r}; choose float64 or float32")
    with status("loading the model"):
        from sflam.assembly import open_model
        from sflam.model.verify import tolerance
        from sflam.model.verify import verify as differences

        backbone = open_model(model, task=task, dtype=dtype)
        cuts = range(backbone.depth + 1) if cut == "all" else [int(cut)]
        found = []
        for one in differences(backbone, cuts, perturb=perturb):
            found.append(one)
    limit = tolerance(backbone)
    equal = all(one.largest <= limit for one in found)
    table = Table(
        "cut", "loss", "activations", "gradients", "equal", title=f"{model}: largest relative difference"
    )
    for one in found:
        numbers = (f"{value:.1e}" for value in (one.loss, one.activations, one.gradients))
        table.add_row(str(one.cut), *numbers, "yes" if one.largest <= limit else "NO")
    screen = stderr if as_json else stdout
    screen.print(table)
    verdict = "split == whole" if equal else "the split model is NOT the whole model"
    screen.print(f"{verdict} (tolerance {limit:.0e} in {dtype}, task {backbone.task})")
    if as_json:
        rows = [asdict(one) for one in found]
        print(json.dumps({"model": model, "equal": equal, "tolerance": limit, "cuts": rows}))
    if not equal:
        raise SystemExit(1)


@app.command(
    epilog="Examples:\n\n  sflam plan network.toml --out plans/office\n\n"
    "  sflam plan --scenario refA --devices 50 --latency-weight 0.9 --compare\n\n"
    "  sflam plan network.toml --optimize bits,clock,cut --json"
)
def plan(
    file: Annotated[
        Path | None, typer.Argument(help="A TOML network file; the defaults without one.")
    ] = None,
    overrides: Set = None,
    scenario: Annotated[str | None, typer.Option(help="cell, square or refA.")] = None,
    devices: Annotated[int | None, typer.Option(help="How many devices.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every draw.")] = None,
    latency_weight: Annotated[
        float | None, typer.Option(help="Weight of time, 0..1; energy the rest.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="The allocator; docs/choosing.md lists them.")] = None,
    compare: Annotated[bool, typer.Option(help="Plan with all methods: ratio to the optimum.")] = False,
    optimize: Annotated[str | None, typer.Option(help="Choose these too: bits,clock,cut.")] = None,
    subchannels: Annotated[int | None, typer.Option(help="Equal pieces the band comes in.")] = None,
    pareto: Annotated[int, typer.Option(help="Points of the front between time and energy.")] = 0,
    trace: Annotated[str | None, typer.Option(help="CSV or parquet of measured gains or rates.")] = None,
    round_number: Annotated[int, typer.Option("--round", help="Whose fading, or time of the trace.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.json, plan.csv and pictures.")] = None,
    as_json: Json = False,
) -> None:
    """Give every device its bandwidth, power, clock, bits and cut, and say how far that is from the best.

    Exit code 1 when no plan holds the limits.
    """
    said = {
        "network.scenario": scenario,
        "network.devices": devices,
        "network.trace": trace,
        "seed": seed,
        "plan.latency_weight": latency_weight,
        "plan.method": method,
        "plan.subchannels": subchannels,
        "plan.optimize": None if optimize is None else [word for word in optimize.split(",") if word],
    }
    options = [f"{key}={config.toml_value(value)}" for key, value in said.items() if value is not None]
    job = config.load(file, [*(overrides or []), *options])
    from sflam import planning
    from sflam.report import plan_table

    with status("planning"):
        found = planning.decide(
            job, compare=compare, points=pareto, round_number=round_number, draw=out is not None
        )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    screen = stderr if as_json else stdout
    screen.print(plan_table.plan_table(found.plan, found.names, found.title))
    if found.others:
        screen.print(plan_table.methods_table([found.plan, *found.others]))
    if pareto and not as_json:
        screen.print(plan_table.front_table(found.front))
    if out:
        print(f"wrote {', '.join(found.write(out))} to {out}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_dict()))
    if not len(found.plan.devices):
        raise SystemExit(1)


@app.command(epilog="Example:\n\n  sflam profile --out mine.toml --power-w 6 --idle-w 3 --rate-mbps 40")
def profile(
    out: Annotated[Path, typer.Option(help="The profile file to write.")] = Path("device.toml"),
    seconds: Annotated[float, typer.Option(help="How long to multiply matrices.")] = 1.0,
    clock_ghz: Annotated[
        float | None, typer.Option(help="Highest clock; the system's word by default.")
    ] = None,
    power_w: Annotated[
        float | None, typer.Option(help="Drawn at full load above idle, from a meter.")
    ] = None,
    idle_w: Annotated[float | None, typer.Option(help="Drawn when idle, from a meter.")] = None,
    rate_mbps: Annotated[float | None, typer.Option(help="Measured rate of the uplink, Mbit/s.")] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine and write the profile that a network file names it by."""
    from sflam.machine import write_profile

    scaled = {"clock": (clock_ghz, 1e9), "power": (power_w, 1), "idle": (idle_w, 1), "rate": (rate_mbps, 1e6)}
    said = {name: value * unit for name, (value, unit) in scaled.items() if value is not None}
    found = write_profile(out, seconds=seconds, **said)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    screen = stderr if as_json else stdout
    screen.print(f'{found.summary}; use it in a network file: profiles = {{"{out}" = 1}}', markup=False)
    if as_json:
        print(json.dumps(found.numbers | {"out": str(out)}))


def status(text: str) -> AbstractContextManager[object]:
    """Show that something is going on, where somebody can see it."""
    return stderr.status(text) if stderr.is_terminal else nullcontext()


cli_network.register(app)
