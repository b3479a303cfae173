"""Which device holds which rows of the data: what a run writes once, reads again when it is resumed, and draws."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from sflam.errors import RunError
from sflam.files import from_json, reading, replace_file, writing
from sflam.records.codec import from_json_values, to_json_values


@dataclass(frozen=True, kw_only=True)
class DeviceSamples:
    """The training samples of one device.

    Attributes:
        rows: their rows in the source, counted from 0, ascending.
        counts: how many there are of each group, by the true labels.
        flips: how many of its labels are wrong (``data.flipped``).
    """

    rows: tuple[int, ...]
    counts: tuple[int, ...]
    flips: int = 0


@dataclass(frozen=True, kw_only=True)
class PartitionRecord:
    """The partition of a run.

    Attributes:
        partition: ``data.partition``.
        names: of the groups that are counted: classes, or what texts without labels were distinguished by; none where
            there are neither, and each device then has one count.
        devices: what each holds.
    """

    partition: str
    names: tuple[str, ...]
    devices: tuple[DeviceSamples, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Samples of each device."""
        return tuple(len(device.rows) for device in self.devices)


def write_partition(path: Path, record: PartitionRecord) -> None:
    """Write a partition, all of it or nothing; raises RunError where that fails."""
    with writing(path, "free space, or choose another run folder"):
        replace_file(path, (json.dumps(to_json_values(record)) + "\n").encode())


def read_partition(path: Path) -> PartitionRecord:
    """Return the partition in a file; raises RunError where it is missing or damaged."""
    with reading(path, "give the folder of a run"):
        raw = path.read_bytes()
    try:
        record = from_json_values(PartitionRecord, from_json(raw))
        groups = max(1, len(record.names))
        for number, device in enumerate(record.devices):
            if len(device.counts) != groups or sum(device.counts) != len(device.rows):
                raise ValueError(f"the counts of device {number} are not those of its rows")
        return record
    except (ValueError, TypeError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error}); put the right one back, or start a new run") from error


def difference(before: PartitionRecord, now: PartitionRecord) -> str:
    """Return how two partitions differ, in words; "" where they are the same."""
    if before.names != now.names:
        return f"its classes were {_listed(before.names)} and are {_listed(now.names)}"
    for number, (old, new) in enumerate(zip(before.devices, now.devices, strict=False)):
        if old != new:
            what = f"held {len(old.rows)} samples and would hold {len(new.rows)}"
            if old.rows == new.rows:
                what = f"held {list(old.counts)} samples of the classes and would hold {list(new.counts)}"
            elif len(old.rows) == len(new.rows):
                what = f"held {len(old.rows)} samples and would hold as many, but others"
            return f"device {number} {what}"
    if len(before.devices) != len(now.devices):
        return f"there were {len(before.devices)} devices and are {len(now.devices)}"
    return ""


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "") or "none"
