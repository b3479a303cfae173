"""A finished run, or a comparison, as its folder holds it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sflam.config import Job
from sflam.errors import RunError
from sflam.files import from_json
from sflam.records import history
from sflam.records.history import RoundRecord
from sflam.records.partition import PartitionRecord, read_partition
from sflam.records.run_folder import RunFolder
from sflam.records.saved_intervals import expect_intervals
from sflam.records.saved_rates import is_finite, later

SAVED = "comparison.json"
"""What a comparison leaves beside its runs."""
NEEDED = ("accuracy", "rounds", "bytes_up", "bytes_down")
NUMBERS = (*NEEDED, "accuracy_spread", "virtual_s", "energy_j", "device_memory_bytes", "device_flop")
COSTS = ("reached", "rounds", "virtual_s", "energy_j", "bytes")
FRONT = "weight"
"""The swept axis whose picture is a front: virtual seconds against joules of a run."""


@dataclass(frozen=True, kw_only=True)
class SavedRun:
    """A finished run.

    Attributes:
        name: of its folder.
        job: what was asked for.
        versions: of Python and the packages it ran with.
        records: its rounds, at least one.
        result: its final numbers; empty where it has not finished.
        partition: which device holds which rows; None of runs that were written before it was kept.
    """

    name: str
    job: Job
    versions: dict[str, str]
    records: tuple[RoundRecord, ...]
    result: dict[str, Any]
    partition: PartitionRecord | None = None


@dataclass(frozen=True, kw_only=True)
class SavedComparison:
    """A finished comparison.

    Attributes:
        name: of its folder.
        values: what ``Comparison.save`` wrote.
        runs: method -> its runs, by seed.
        sweeps: axis -> method -> (value, row of means), values ascending.
    """

    name: str
    values: dict[str, Any]
    runs: dict[str, tuple[SavedRun, ...]]
    sweeps: dict[str, dict[str, list[tuple[float, dict[str, Any]]]]]


def is_comparison(folder: Path) -> bool:
    """Return whether a folder is that of a finished comparison."""
    return (folder / SAVED).is_file()


def read_run(folder: Path, *, unfinished: bool = False) -> SavedRun:
    """Return the run in ``folder``.

    Args:
        folder: of the run.
        unfinished: also take one that has no result yet, which is then empty.

    Raises:
        RunError: it holds none, or one that has not finished, or whose files cannot be read.
    """
    run = RunFolder(folder)
    job = run.read_job()
    result = {} if unfinished and not run.result.exists() else run.read_result()
    header, records = history.read(run.history)
    if not records:
        raise RunError(f"{run.history} holds no round; finish the run with sflam train --resume {folder}")
    history.expect_charges(run.history, records, job.fleet.devices)
    versions = header.get("versions")
    return SavedRun(
        name=folder.resolve().name,
        job=job,
        versions={str(name): str(version) for name, version in _items(versions)},
        records=tuple(records),
        result=result,
        partition=read_partition(run.partition) if run.partition.exists() else None,
    )


def read_comparison(folder: Path) -> SavedComparison:
    """Return the comparison in ``folder``; raises RunError where it or one of its runs cannot be read."""
    path = folder / SAVED
    try:
        values = from_json(path.read_text(encoding="utf-8"))
        names = {str(name): [str(run) for run in runs] for name, runs in values["run_names"].items()}
        sweeps = {
            str(axis): {
                str(name): [(float(point["value"]), _expect_row(point)) for point in line]
                for name, line in lines.items()
            }
            for axis, lines in values["sweeps"].items()
        }
        for row in values["methods"].values():
            _expect_row(row)
        several = {name for lines in sweeps.values() for name in lines}
        whole = names and all(names.values()) and names.keys() == values["methods"].keys() >= several
        if not whole or any(Path(run).name != run for runs in names.values() for run in runs):
            raise ValueError("its runs are not named")
        if sweeps.keys() - values["labels"].keys() or "rule" not in values["target"]:
            raise ValueError("its sweeps or its target are not named")
        if not (type(values["seeds"]) is int and isinstance(values["set"], list)):
            raise ValueError("its seeds or settings are missing")
        values["target"]["accuracy"] = float(values["target"]["accuracy"])
        values["labels"] = {str(axis): str(label) for axis, label in values["labels"].items()}
        options = values["options"].items()
        values["options"] = {str(option): list(map(float, numbers)) for option, numbers in options}
        values |= later(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RunError(
            f"{path} is damaged ({reason}); ask sflam compare for the same again, which repeats no finished run"
        ) from error
    runs = {name: tuple(read_run(folder / run) for run in of_name) for name, of_name in names.items()}
    return SavedComparison(name=folder.resolve().name, values=values, runs=runs, sweeps=sweeps)


def _expect_row(row: Any) -> dict[str, Any]:
    """Return the numbers of one method; raises KeyError or ValueError where some are missing, or none."""
    for holder, keys in ((row, NUMBERS), (row["to_target"], COSTS)):
        for key in keys:
            if holder[key] is not None and not is_finite(holder[key]):
                raise ValueError(f"{key} is {holder[key]!r}")
    worst = row.get("worst_device_accuracy")  # not in comparisons that were written before
    if worst is not None and not is_finite(worst):
        raise ValueError(f"worst_device_accuracy is {worst!r}")
    expect_intervals(row)
    if missing := [key for key in NEEDED if row[key] is None]:
        raise ValueError(f"{missing[0]} is missing")
    return dict(row)


def _items(values: object) -> Iterable[tuple[Any, Any]]:
    return values.items() if isinstance(values, dict) else ()
