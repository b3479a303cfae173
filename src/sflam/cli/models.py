"""``predict``, ``verify`` and ``export``: a trained model's predictions, whether split == whole, a half as graphs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sflam import config
from sflam.cli import shared
from sflam.errors import ConfigError


@shared.command("sflam predict runs/digits-nano-vit-sflam-1 --data digits --out predictions.csv")
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
    as_json: shared.Json = False,
) -> None:
    """Predict with a saved run, and report its accuracy."""
    with shared.status("loading model and data"):
        from sflam.run.predict import predict as predict_run

        found = predict_run(run_dir, data, column=column, label=label, device=device)
    shared.notes(found.notes)
    if out:
        found.write_csv(out)
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
        )
    shared.show_json(as_json, found.metrics() | {"out": None if out is None else str(out)})


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


@shared.command("sflam export --device job.toml --cut 1 --out bundle/")
def export(
    device: Annotated[Path, typer.Option(help="Run folder or job file whose device half is exported.")],
    out: Annotated[Path, typer.Option(help="Folder to write to.")],
    cut: Annotated[int, typer.Option(help="Blocks the device keeps.")] = 1,
    overrides: shared.Set = None,
    as_json: shared.Json = False,
) -> None:
    """Export a device half for a device of another make: graphs, frozen tensors, test vectors."""
    job = config.load(device / "config.toml" if device.is_dir() else device, overrides or [])
    with shared.status("tracing the device half"):
        from sflam.graph.alive import peak_bytes
        from sflam.serve.device_export import export_device

        found = export_device(job, cut, out)
    graphs = found.graphs
    n = min(graphs.tokens, 128) if graphs.text else 1
    each = [graph for kind in graphs.kinds for graph in (kind.forward, kind.joint) if graph is not None]
    alive = max((peak_bytes(graph, n) for graph in [graphs.embed.graph, *each]), default=0)
    rows = f"a text of {n} tokens" if graphs.text else "one image"
    shared.show(
        as_json,
        f"{found.folder}: {', '.join(found.files)}",
        f"compared with torch; at most {alive / 2**20:.1f} MiB of activations alive for {rows}",
    )
    shared.show_json(as_json, {"folder": str(found.folder), "files": list(found.files), "alive_bytes": alive})
