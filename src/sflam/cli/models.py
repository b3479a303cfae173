"""``predict`` and ``verify``: a trained model's predictions, and whether split == whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from sflam.cli import shared
from sflam.errors import ConfigError

if TYPE_CHECKING:
    from sflam.link.https_client import Link
    from sflam.run.predictions import Predictions


@shared.command(
    "sflam predict runs/digits-nano-vit-sflam-1 --data digits --out predictions.csv",
    "sflam predict runs/digits-nano-vit-sflam-1 --plot confusion.png",
    "sflam predict runs/digits-nano-vit-sflam-1 --per-device",
    'sflam predict runs/helper-gpt2-sflam-1 --generate --prompt "How do I reset it?"',
    "sflam predict --split my-laptop.local:8443 --token-file phone.token --ca ca.pem --data mine.npz",
)
def predict(
    run_dir: Annotated[
        Path | None, typer.Argument(help="Folder of a finished run; none with --split.", show_default=False)
    ] = None,
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
    per_device: Annotated[
        bool,
        typer.Option("--per-device", help="Also predict every device's own share of the run's data."),
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Write one line per sample to this CSV file.")] = None,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write the probability of every class there, too.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(help="Draw what was taken for what, and the calibration, into this PNG, PDF or SVG."),
    ] = None,
    generate: Annotated[
        bool, typer.Option("--generate", help="Go on with --prompt, by a run's language model.")
    ] = False,
    prompt: Annotated[list[str] | None, typer.Option(help="Text to go on with; may be repeated.")] = None,
    new_tokens: Annotated[
        int | None,
        typer.Option(
            help="At most so many tokens follow a prompt; 64 by default, where the model sees as many."
        ),
    ] = None,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token each time; above, one is drawn.")
    ] = 0.0,
    top_p: Annotated[float, typer.Option(help="Draw among the likeliest tokens of this probability.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Seed of these draws.")] = 0,
    split: Annotated[
        str | None,
        typer.Option(
            metavar="SERVER", help="Predict with the first blocks here, and the rest at SERVER: sflam answer."
        ),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="With --split, the file with the device's token.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="With --split, what was downloaded.")] = Path("device"),
    ca: Annotated[
        Path | None, typer.Option(help="With --split, authority that signed the server's certificate.")
    ] = None,
    cert: Annotated[
        Path | None, typer.Option(help="With --split, this device's certificate, where required.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="With --split, its private key.")] = None,
    plugins: shared.Plugins = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="With --split, allow plain HTTP beyond this machine.")
    ] = False,
    as_json: shared.Json = False,
) -> None:
    """Predict with a saved run, and report its accuracy; or go on with texts, by a language model.

    With --split no device holds the model: samples and labels stay here, activations of the run's bits go up.
    """
    if split is not None:
        if run_dir or generate or per_device or device is not None:
            raise ConfigError(
                "--split predicts with a server's run; leave out the run's folder, --device, --per-device, --generate"
            )
        if data is None or token_file is None:
            raise ConfigError("--split predicts samples of this device; give --data and --token-file too")
    elif token_file or ca or cert or key or insecure or plugins:
        raise ConfigError(
            "--token-file, --ca, --cert, --key, --plugin and --insecure are for a server; give --split too"
        )
    elif run_dir is None:
        raise ConfigError("give the folder of a finished run, or --split SERVER")
    if generate and run_dir:
        if data or column or label or out or plot or probabilities or per_device:
            raise ConfigError("--generate goes on with --prompt; leave out what is for predictions of data")
        _go_on(run_dir, prompt or [], new_tokens, temperature, top_p, seed, device, as_json)
        return
    if prompt:
        raise ConfigError("--prompt is gone on with by --generate; give that too")
    if probabilities and out is None:
        raise ConfigError("--probabilities goes into the file of --out; give that too")
    if split and data and token_file:
        from sflam.link.https_client import Link
        from sflam.link.token import read_token

        link = Link(
            split,
            read_token(token_file),
            ca=ca,
            certificate=cert,
            key=key,
            insecure=insecure,
            notify=shared.remark,
        )
        found = _by_halves(link, data, folder, column, label, plugins or [])
    elif run_dir:
        with shared.status("loading model and data"):
            from sflam.run.predict import predict as predict_run

            found = predict_run(
                run_dir, data, column=column, label=label, device=device, per_device=per_device
            )
    shared.notes(found.notes)
    of_devices = None
    if out:
        found.write_csv(out, every_class=probabilities)
    if out and per_device:
        of_devices = out.with_name(f"{out.stem}-devices.csv")
        found.write_devices(of_devices)
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
    if found.devices:
        shared.show(as_json, _devices_table(found))
    files = {"out": out, "devices_out": of_devices, "plot": plot}
    written = {name: None if path is None else str(path) for name, path in files.items()}
    shared.show_json(as_json, found.metrics() | written)


def _by_halves(
    link: Link, data: str, folder: Path, column: str, label: str, plugins: list[str]
) -> Predictions:
    """Predict with the first blocks here and the rest at a server, with a bar."""
    from rich.progress import Progress

    from sflam.serve.answers.asking import predict_split

    with Progress(console=shared.stderr, transient=True) as bar:
        task = bar.add_task("predicting", total=None)
        return predict_split(
            link,
            data,
            folder,
            column=column,
            label=label,
            plugins=plugins,
            progress=lambda done, of: bar.update(task, completed=done, total=of),
        )


def _devices_table(found: Predictions) -> Table:
    """Return the worst, median and best device on their own samples."""
    metrics = list(found.devices[0].metrics)
    title = f"{len(found.devices)} devices on their own samples"
    table = Table("", "device", "samples", "right", "loss", *metrics, title=title)
    for name, of in found.device_rows():
        shares = (f"{of.metrics[metric]:.1%}" for metric in metrics[:2])
        more = (f"{of.metrics[metric]:.4g}" for metric in metrics[2:])
        table.add_row(
            name, str(of.device), str(of.samples), f"{of.accuracy:.1%}", f"{of.loss:.4f}", *shares, *more
        )
    return table


def _go_on(
    run_dir: Path,
    prompts: list[str],
    new_tokens: int | None,
    temperature: float,
    top_p: float,
    seed: int,
    device: int | None,
    as_json: bool,
) -> None:
    with shared.status("loading the model"):
        from sflam.run.generate import generate as go_on

        found = go_on(
            run_dir,
            prompts,
            new_tokens=new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
            device=device,
        )
    for each in found:
        shared.show(as_json, Text.assemble((each.prompt, "bold"), " ", each.text))
    shared.show_json(as_json, {"generated": [asdict(each) for each in found]})


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
        from sflam.run.job_model import open_model

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
