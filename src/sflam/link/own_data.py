"""What a device brings of its own to a served job: how it is read, and its labels as the server numbers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.settings import DataSettings
from sflam.errors import DataError


def own_settings(job: Job, data: str | None, column: str, label: str) -> DataSettings:
    """Return ``[data]`` of a device.

    Args:
        job: the server's.
        data: of this device alone; None for its share of the job's own.
        column: array or column of the inputs; the job's by default.
        label: array or column of the labels; the job's by default.
    """
    return replace(
        job.data,
        name=data or job.data.name,
        input=column or ("" if data else job.data.input),
        label=label or job.data.label,
        # What a device brings is its own alone: nothing is shared out, and no choice is made by a part of it.
        partition=DataSettings.partition if data else job.data.partition,
        validation=0.0 if data else job.samples.validation,
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
