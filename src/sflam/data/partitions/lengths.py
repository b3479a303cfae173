"""What skews a partition: classes, or lengths where texts have no labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sflam.data.partitions.contract import Division, Labels, Part, PartitionRequest

QUANTILES = 10
"""Groups of equal size that texts without labels are divided into by length."""


@dataclass(frozen=True, eq=False)
class Strata:
    """What tells samples apart.

    Attributes:
        ids: int64 [N].
        names: of the ids; none where they are the classes.
        note: a sentence for the user.
    """

    ids: Labels
    names: tuple[str, ...] = ()
    note: str = ""

    def division(self, parts: list[Part]) -> Division:
        """Return parts made by these."""
        return Division(parts, self.ids if self.names else None, self.names, self.note)


def classes_or_lengths(request: PartitionRequest) -> Strata:
    """Return the labels of the training part, or groups of equal length of texts without labels."""
    train = request.train
    if train.classes or train.lengths is None:
        return Strata(train.labels)
    note = (
        f"without labels, data.partition = {request.settings.partition} shares texts out by length, in {QUANTILES} "
        "groups"
    )
    return Strata(
        length_groups(train.lengths), tuple(f"length group {group}" for group in range(QUANTILES)), note
    )


def length_groups(lengths: NDArray[np.int32]) -> Labels:
    """Return int64 [N], the ``QUANTILES`` group of each text by its length, to skew where labels are missing.

    Equal lengths share a group, so groups of few distinct lengths are larger, and some may be empty.
    """
    edges = np.quantile(lengths, np.arange(1, QUANTILES) / QUANTILES)
    return np.searchsorted(edges, lengths, side="left").astype(np.int64)
