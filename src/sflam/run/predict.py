"""A saved run predicts the classes of any data its model can read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.settings import DataSettings
from sflam.data.sources import load_for_prediction, load_held_out
from sflam.errors import ConfigError, DataError, RunError
from sflam.learn.evaluate import scores_of
from sflam.records.run_folder import RunFolder
from sflam.run.assemble import examples_of, preprocessor_of
from sflam.run.device_shares import device_shares, expect_shares
from sflam.run.predictions import Predictions
from sflam.run.saved_model import expect_device, saved_model


def predict(
    run_dir: str | Path,
    data: str | Path | None = None,
    *,
    column: str = "",
    label: str = "",
    device: int | None = None,
    per_device: bool = False,
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
        per_device: also predict every device's own share of the run's data, with the model that the device has.

    Raises:
        SflamError: the run is not finished, the data cannot be read by its model, or the run cannot tell what its
            devices have.
    """
    run = RunFolder(Path(run_dir))
    job = run.read_job()
    classes = tuple(run.read_result()["classes"])
    if not classes:
        raise RunError(
            f"{run.path} trained a language model, which predicts tokens, not labels; go on with texts by --generate, "
            f"or load its adapter as {run.adapter}/README.md shows"
        )
    expect_device(job, device)
    if per_device:
        _expect_all_devices(run, job, data, device)
    if data is not None:
        settings = replace(job.data, name=str(data), input=column, label=label or DataSettings.label)
        dataset, notes = load_for_prediction(settings, job.seed, preprocessor_of(job))
    elif column or label:
        raise ConfigError("--input and --label name arrays of the file given with --data; give that too")
    else:
        dataset, notes = load_held_out(job.data, job.seed, preprocessor_of(job))
    labels = relabelled(dataset, classes)
    backbone, model, more = saved_model(run, job, dataset.kind, len(classes), device, dataset.name)
    notes = (*notes, *more)
    scores = scores_of(model, examples_of(dataset, backbone, job.model.name), len(classes))
    loss = None if labels is None else float(F.cross_entropy(scores, torch.from_numpy(labels)))
    devices = device_shares(run, job, backbone, model, classes) if per_device else ()
    probabilities = scores.double().softmax(-1).numpy()
    return Predictions(dataset.name, classes, probabilities, labels, loss, notes, devices)


def _expect_all_devices(run: RunFolder, job: Job, data: str | Path | None, device: int | None) -> None:
    """Raise an error where every device's share of the run's data is not what else is asked for, or not known."""
    if data is not None:
        raise ConfigError(
            f"--per-device is of every device's share of the run's own data, and --data is {str(data)!r}; leave one out"
        )
    if device is not None:
        raise ConfigError(f"--per-device is of all devices, and --device is {device}; leave one out")
    expect_shares(run, job)


def relabelled(dataset: Dataset, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the dataset's labels numbered as the run numbered its classes; None where it has none.

    Raises:
        DataError: a label is none of them.
    """
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
