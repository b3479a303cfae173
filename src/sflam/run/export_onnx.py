"""The model of a finished run as an ONNX file, with what turns raw samples into its inputs beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from sflam.files import writing
from sflam.model.backbone import read_config
from sflam.model.families import IMAGE
from sflam.model.onnx_export import write_onnx
from sflam.model.settings import IN_MEMORY
from sflam.model.structure import family_of
from sflam.records.run_folder import RunFolder
from sflam.run.assemble import write_preprocessing
from sflam.run.saved_model import saved_model

FILE = "model.onnx"


@dataclass(frozen=True)
class OnnxExport:
    """What an export left.

    Attributes:
        file: the ONNX file; its metadata hold the model's name and, as JSON, the names of its classes.
        files: names of what was written into its folder.
        difference: the largest difference of a logit from torch's, relative to the largest logit.
        notes: sentences about what was guessed on the way.
    """

    file: Path
    files: tuple[str, ...]
    difference: float
    notes: tuple[str, ...] = ()


def export_onnx(
    run_dir: str | Path, out: str | Path | None = None, *, device: int | None = None
) -> OnnxExport:
    """Write the merged model of a finished run as ONNX, once ONNX Runtime computes from it what torch computes.

    Args:
        run_dir: the run's folder.
        out: folder to write to, or a name that ends in ``.onnx`` for the file alone; None takes ``onnx`` in the run's.
        device: whose own model, of a run with ``learn.personal``.

    Raises:
        SflamError: the run is not finished or damaged, the model cannot be expressed, or ``out`` not be written.
    """
    run = RunFolder(Path(run_dir))
    job = run.read_job()
    job = replace(job, model=replace(job.model, trunk_weights=IN_MEMORY))  # to be merged
    classes = tuple(run.read_result()["classes"])
    kind = "image" if IMAGE in family_of(read_config(job.model.name).model_type).tasks else "text"
    backbone, model, notes = saved_model(run, job, kind, len(classes), device)
    whole = model if model is backbone.model else model.merge_and_unload()
    target = run.path / "onnx" if out is None else Path(out)
    file = target if target.suffix == ".onnx" else target / FILE
    with writing(target, "choose another --out"):
        file.parent.mkdir(parents=True, exist_ok=True)
        facts = {"model": job.model.name, "classes": json.dumps(classes)}
        difference = write_onnx(whole.float().cpu(), backbone.task, file, facts)
        if file is not target:
            write_preprocessing(job.model.name, kind, target)
    files = (file.name,) if file is target else tuple(sorted(path.name for path in target.iterdir()))
    return OnnxExport(file, files, difference, notes)
