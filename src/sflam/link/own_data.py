"""What a device brings of its own to a served job: how it is read, and its labels as the server numbers them.

A device reads what its own user named, and nothing that a server names: not the file, not the column of the labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.settings import DataSettings
from sflam.data.sources import DATASETS, is_path
from sflam.errors import DataError


def own_settings(job: Job, data: str | None, column: str, label: str, *, share: bool = False) -> DataSettings:
    """Return ``[data]`` of a device.

    Args:
        job: the server's.
        data: what its user named: data of this device alone or, with ``share``, a copy of the job's.
        column: array or column of the inputs; guessed by default, or that of the job's data.
        label: array or column of the labels; ``label`` by default, or that of the job's data.
        share: take this device's share of the job's data; where none is named, of a public data set alone.

    Raises:
        DataError: the user named nothing, or what the server names is the user's to name.
    """
    theirs = job.data
    if data is None:
        _expect_public(theirs, share)
    if share:
        if theirs.partition == "file":
            raise DataError(
                f"the job shares its data out by a file of the server ({theirs.indices[:60]!r}), which a device does "
                "not read; give this device's own samples with --data alone"
            )
        own = replace(theirs, name=data or theirs.name, validation=job.samples.validation)
        return replace(own, input=column or theirs.input, label=label or theirs.label)
    assert data is not None
    if theirs.label not in (DataSettings.label, "") and not label:
        raise DataError(
            f"the job calls its labels {theirs.label[:60]!r}; name the column of {data} that holds them with --label, "
            "as a server does not choose what is read"
        )
    # What a device brings is its own alone: nothing is shared out, and no choice is made by a part of it.
    return replace(
        theirs,
        name=data,
        input=column,
        label=label or theirs.label,
        partition=DataSettings.partition,
        indices="",
        validation=0.0,
    )


def _expect_public(theirs: DataSettings, share: bool) -> None:
    """Raise DataError unless the job's data is a public data set, and the user agreed to train on it."""
    name = theirs.name
    if name not in DATASETS and is_path(name):
        raise DataError(
            f"the job's data is the server's file {name[:60]!r}, and a device reads no file that a server names; give "
            "this device's own samples with --data, or a copy of the job's with --data and --share"
        )
    if not share:
        raise DataError(
            f"name what this device trains on: its own samples with --data, or with --share its share of the job's "
            f"public data set {name[:60]!r}"
        )


def with_classes(dataset: Dataset, classes: Sequence[str], data: str) -> Dataset:
    """Return the samples of ``data`` with the server's classes; raises DataError for one that it does not know."""
    unknown = sorted(set(dataset.classes) - set(classes))
    if unknown:
        raise DataError(
            f"data {data} holds the class {unknown[0]!r}, which the job does not know (it has "
            f"{', '.join(list(classes)[:20])}); rename it, or leave its samples out"
        )
    if not dataset.classes:
        return dataset
    numbers = np.array([list(classes).index(name) for name in dataset.classes], np.int64)
    return replace(dataset, labels=numbers[dataset.labels], classes=tuple(classes))
