"""``export``: a trained model as ONNX, or a device half as graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli import shared
from sflam.errors import ConfigError


@shared.command(
    "sflam export --onnx runs/digits-nano-vit-sflam-1",
    "sflam export --device job.toml --cut 1 --out bundle/",
)
def export(
    onnx: Annotated[
        Path | None, typer.Option(help="Folder of a finished run whose whole model is written as ONNX.")
    ] = None,
    device: Annotated[
        Path | None, typer.Option(help="Run folder or job file whose device half is exported.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder to write to, or an .onnx file; the folder onnx of the run by default."),
    ] = None,
    cut: Annotated[int, typer.Option(help="Blocks the device keeps.")] = 1,
    whose: Annotated[
        int | None, typer.Option(help="Device whose own model is written, of a run with learn.personal.")
    ] = None,
    overrides: shared.Set = None,
    as_json: shared.Json = False,
) -> None:
    """Export a run's whole model as ONNX, or a device half for a device of another make.

    An ONNX file is compared with torch before it is offered; a device half is graphs, frozen tensors, test vectors.
    """
    if (onnx is None) == (device is None):
        raise ConfigError("give one of --onnx RUN and --device RUN|JOB")
    if onnx is not None:
        if overrides or cut != 1:
            raise ConfigError(
                "--cut and --set go with --device; a run's whole model is what it was trained to be"
            )
        _onnx(onnx, out, whose, as_json)
    elif device is not None:
        if out is None or whose is not None:
            raise ConfigError("--device needs --out FOLDER" if out is None else "--whose goes with --onnx")
        _device_half(device, out, cut, overrides, as_json)


def _onnx(run: Path, out: Path | None, whose: int | None, as_json: bool) -> None:
    with shared.status("writing the model as ONNX"):
        from sflam.run.export_onnx import export_onnx

        found = export_onnx(run, out, device=whose)
    shared.notes(found.notes)
    shared.show(
        as_json,
        f"{found.file.parent}: {', '.join(found.files)}",
        f"compared with torch in ONNX Runtime: largest difference {found.difference:.1e} of the largest logit",
    )
    shared.show_json(
        as_json, {"file": str(found.file), "files": list(found.files), "difference": found.difference}
    )


def _device_half(device: Path, out: Path, cut: int, overrides: list[str] | None, as_json: bool) -> None:
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
