"""Predictions and metrics of a saved run on any data its model can read."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.nn import functional as F

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.settings import DataSettings
from sflam.data.sources import load_for_prediction, load_held_out
from sflam.errors import ConfigError, DataError, RunError
from sflam.files import replace_file, writing
from sflam.learn.evaluate import ROWS, logits_of
from sflam.model.adapters import load_state, reopen, state_of
from sflam.model.backbone import Backbone
from sflam.records.run_folder import RunFolder
from sflam.report.notebook import frame, html_table
from sflam.report.totals import percent
from sflam.run.assemble import backbone_of, examples_of, preprocessor_of


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a saved run predicts for N samples.

    Attributes:
        data: name of the data.
        classes: names of the labels.
        predicted: [N] the likeliest label of each sample.
        probability: [N] its probability.
        labels: [N] the true labels, or None where the data has none.
        loss: mean cross-entropy, or None.
        notes: sentences about what was guessed on the way.
    """

    data: str
    classes: tuple[str, ...]
    predicted: NDArray[np.int64]
    probability: NDArray[np.float64]
    labels: NDArray[np.int64] | None
    loss: float | None
    notes: tuple[str, ...] = ()

    @property
    def accuracy(self) -> float | None:
        """Share predicted right, in [0, 1]; None without labels."""
        return None if self.labels is None else float((self.predicted == self.labels).mean())

    @property
    def per_class(self) -> dict[str, float]:
        """Class -> share of its samples predicted right; classes without samples are left out."""
        if self.labels is None:
            return {}
        return {
            name: float((self.predicted[self.labels == label] == label).mean())
            for label, name in enumerate(self.classes)
            if (self.labels == label).any()
        }

    def metrics(self) -> dict[str, Any]:
        """Return the numbers ``sflam predict --json`` prints."""
        return {
            "data": self.data,
            "samples": len(self.predicted),
            "accuracy": self.accuracy,
            "loss": self.loss,
            "per_class": self.per_class,
        }

    def to_frame(self) -> Any:
        """Return a row per sample: a pandas DataFrame, or name -> array where pandas is not installed."""
        truth = (
            [None] * len(self.predicted) if self.labels is None else [self.classes[n] for n in self.labels]
        )
        return frame(
            [
                {"predicted": self.classes[label], "probability": float(share), "label": true}
                for label, share, true in zip(self.predicted, self.probability, truth, strict=True)
            ]
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: how many are right, and of which class."""
        accuracy = "no labels" if self.accuracy is None else f"{percent(self.accuracy)} right"
        rows = [(name, percent(share)) for name, share in self.per_class.items()]
        return html_table(["class", "right"], rows, f"{self.data}: {len(self.predicted)} samples, {accuracy}")

    def write_csv(self, path: str | Path) -> None:
        """Write one line per sample: index, predicted class, its probability, and the true class where known."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(
            ["index", "predicted", "probability", *(["label"] if self.labels is not None else [])]
        )
        for index, (label, probability) in enumerate(zip(self.predicted, self.probability, strict=True)):
            truth = [] if self.labels is None else [self.classes[self.labels[index]]]
            writer.writerow([index, self.classes[label], f"{probability:.6f}", *truth])
        with writing(path, "choose another --out"):
            replace_file(Path(path), text.getvalue().encode())


def predict(
    run_dir: str | Path,
    data: str | Path | None = None,
    *,
    column: str = "",
    label: str = "",
    device: int | None = None,
) -> Predictions:
    """Predict with the model of a finished run.

    Args:
        run_dir: the run's folder.
        data: a named dataset (its held-out part), or anything ``data.name`` accepts (its test split, or all of it);
            None takes what the run itself held out.
        column: the array or column that holds the inputs; empty guesses.
        label: the array or column that holds the labels, if there is one; empty means ``label``.
        device: whose own model predicts, of a run with ``learn.personal``; None takes the shared adapter, in which
            personal parts have their start values.

    Raises:
        SflamError: the run is not finished, or the data cannot be read by its model.
    """
    run = RunFolder(Path(run_dir))
    job = run.read_job()
    classes = tuple(run.read_result()["classes"])
    if not classes:
        raise RunError(
            f"{run.path} trained a language model, which predicts tokens, not labels; load its adapter as {run.adapter}"
            "/README.md shows"
        )
    expect_device(job, device)
    if data is not None:
        settings = replace(job.data, name=str(data), input=column, label=label or DataSettings.label)
        dataset, notes = load_for_prediction(settings, job.seed, preprocessor_of(job))
    elif column or label:
        raise ConfigError("--input and --label name arrays of the file given with --data; give that too")
    else:
        dataset, notes = load_held_out(job.data, job.seed, preprocessor_of(job))
    labels = _relabelled(dataset, classes)
    merged = run.merged.is_dir() and not run.adapter.is_dir()
    backbone = backbone_of(job, dataset, len(classes), str(run.merged) if merged else "")
    model: Any = backbone.model if merged else adapted(backbone, run)
    if job.learn.personal != "none":
        notes = (*notes, _own(model, run, device))
    examples = examples_of(dataset, backbone, job.model.name)
    model.eval()
    scores = torch.empty(len(examples), len(classes))
    with torch.no_grad():
        for indices in examples.in_length_order(ROWS):
            scores[torch.from_numpy(indices)] = logits_of(model, examples.take(indices)).float().cpu()
    probability, predicted = scores.softmax(-1).max(-1)
    loss = None if labels is None else float(F.cross_entropy(scores, torch.from_numpy(labels)))
    return Predictions(
        dataset.name, classes, predicted.numpy(), probability.double().numpy(), labels, loss, notes
    )


def expect_device(job: Job, device: int | None) -> None:
    """Raise ConfigError for a device that has no model of its own in the run of a job."""
    if device is None:
        return
    if job.learn.personal == "none":
        raise ConfigError(
            f'device {device} has no model of its own: the run has learn.personal = "none"; leave the device out'
        )
    if not 0 <= device < job.fleet.devices:
        raise ConfigError(f"device is {device}; it must be between 0 and {job.fleet.devices - 1}")


def _own(model: Any, run: RunFolder, device: int | None) -> str:
    """Put what a device keeps for itself into the model; return a note of whose model it is.

    Raises:
        RunError: its file is damaged, or of another model.
    """
    if device is None:
        return (
            "devices keep parts of their own (learn.personal), which have their start values here; name a device to "
            "predict with its model"
        )
    path = run.own_part(device)
    if not path.is_file():
        return f"device {device} never trained, so its own parts have their start values"
    shared = state_of(model)
    try:
        parts = load_file(path)
        strange = [n for n, t in parts.items() if n not in shared or shared[n].shape != t.shape]
        if strange:
            raise ValueError(f"{strange[0]} is not of this model")
    except (OSError, SafetensorError, ValueError) as error:
        raise RunError(
            f"{path} cannot be loaded ({error}); sflam train --resume {run.path} writes it again"
        ) from error
    load_state(model, shared | parts)
    return f"this is the model of device {device}"


def adapted(backbone: Backbone, run: RunFolder) -> Any:
    """Return the model with the run's adapter; raises RunError when that is missing, damaged or of another model."""
    try:
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if not (run.adapter / name).is_file():  # peft would look for it on the hub
                raise FileNotFoundError(f"{name} is missing")
        return reopen(backbone, run.adapter)
    except Exception as error:  # peft and safetensors may raise anything on a damaged file
        cause = error.__cause__ or error
        reason = " ".join(str(cause).split()) or type(cause).__name__
        raise RunError(
            f"the adapter of {run.path} cannot be loaded ({reason}); sflam train --resume {run.path} writes it again"
        ) from error


def _relabelled(dataset: Dataset, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the dataset's labels numbered as the run numbered its classes; None where it has none."""
    if not dataset.classes:
        return None
    strange = [
        dataset.classes[label] for label in np.unique(dataset.labels) if dataset.classes[label] not in classes
    ]
    if strange:
        raise DataError(
            f"data {dataset.name!r} has the class {json.dumps(strange[0])}, which the run does not know; it knows "
            f"{', '.join(classes)}"
        )
    numbers = np.array([classes.index(name) if name in classes else -1 for name in dataset.classes])
    return numbers[dataset.labels]
