"""``predict`` and ``verify``: a trained model's predictions, and whether split == whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sflam.cli import shared
from sflam.errors import ConfigError


@shared.command(
    "sflam predict runs/digits-nano-vit-sflam-1 --data digits --out predictions.csv",
    "sflam predict runs/digits-nano-vit-sflam-1 --plot confusion.png",
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
    device: Annotated[
        int | None, typer.Option(help="Device whose own model predicts, of a run with learn.personal.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write one line per sample to this CSV file.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of every class there, too.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw what was taken for what, and the calibration, into this PNG, PDF or SVG."),
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Predict with a saved run, and report its accuracy."""
    if probabilities and out is None:
        raise ConfigError("--probabilities goes into the file of --out; give that too")
    with shared.status("loading model and data"):
        from sflam.run.predict import predict as predict_run

        found = predict_run(run_dir, data, column=column, label=label, device=device)
    shared.notes(found.notes)
    if out:
        found.write_csv(out, every_class=probabilities)
    if plot:
        from sflam.report.charts.figure import save

        save(found.draw(), plot)
    table = Table("class", "predicted", "right")
    for number, name in enumerate(found.classes):
        right = found.per_class.get(name)
        count = int((found.predicted == number).sum())
        table.add_row(name, str(count), "" if right is None else f"{right:.1%}")
    shared.show(as_json, table)
    if found.accuracy is not None:
        shared.show(
            as_json,
            f"accuracy {found.accuracy:.2%}, loss {found.loss:.4f}, {len(found.predicted)} samples",
            f"calibration error {found.calibration_error:.3f}, Brier score {found.brier:.4f}",
        )
    written = {"out": None if out is None else str(out), "plot": None if plot is None else str(plot)}
    shared.show_json(as_json, found.metrics() | written)


@shared.command("sflam verify nano-vit", "sflam verify path/to/model --cut 2 --dtype float32")
def verify(
    model: Annotated[str, typer.Argument(help="Bundled name, local folder, or hub name.")],
    cut: Annotated[str, typer.Option(help="A number of blocks, or all.")] = "all",
    dtype: Annotated[str, typer.Option(help="float64 (sharp) or float32 (half the memory).")] = "float64",
    task: Annotated[str | None, typer.Option(help="Which head; the config's own by default.")] = None,
    perturb: Annotated[
        float, typer.Option(help="Add this to one value at the cut: the check must then fail.")
    ] = 0.0,
    plugins: shared.Plugins = None,
    as_json: shared.Json = False,
) -> None:
    """Check that the model, cut, is still the model: loss, activations and adapter gradients.

    Compares with the unmodified Hugging Face class. Exit code 1 when a difference is above tolerance.
    """
    if not (cut == "all" or cut.isdecimal()):
        raise ConfigError(f"--cut is {cut!r}; give a number of blocks or all")
    if dtype not in ("float32", "float64"):
        raise ConfigError(f"--dtype is {dtype!r}; choose float64 or float32")
    with shared.status("loading the model"):
        from sflam.model.verify import tolerance
        from sflam.model.verify import verify as differences
        from sflam.plugins import load_plugins
        from sflam.run.assemble import open_model

        load_plugins(plugins or [])
        backbone = open_model(model, task=task, dtype=dtype)
        cuts = range(backbone.depth + 1) if cut == "all" else [int(cut)]
        found = list(differences(backbone, cuts, perturb=perturb))
    limit = tolerance(backbone)
    equal = all(item.largest <= limit for item in found)
    table = Table(
        "cut", "loss", "activations", "gradients", "equal", title=f"{model}: largest relative difference"
    )
    for item in found:
        numbers = (f"{value:.1e}" for value in (item.loss, item.activations, item.gradients))
        table.add_row(str(item.cut), *numbers, "yes" if item.largest <= limit else "NO")
    verdict = "split == whole" if equal else "the split model is NOT the whole model"
    shared.show(as_json, table, f"{verdict} (tolerance {limit:.0e} in {dtype}, task {backbone.task})")
    cuts_found = [asdict(item) for item in found]
    shared.show_json(as_json, {"model": model, "equal": equal, "tolerance": limit, "cuts": cuts_found})
    if not equal:
        raise SystemExit(1)
