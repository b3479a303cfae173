"""What happened in each round: one JSON line per round, appended and synced before the next round starts.

The first line is a header with the configuration, the seed and the versions, so a history explains itself.
A line counts once its newline is on disk; a line torn by a crash is not read, and ``rewind`` removes it.

Lists of more than ``columns.INLINE`` numbers, as of many devices, are in a block of ``history.columns``, which is on
disk before the line that says where it begins, how long it is, and its CRC-32.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sflam.errors import RunError
from sflam.files import from_json, reading, replace_file, write_all, writing
from sflam.records import columns
from sflam.records.charge import Charge, wrong_charge
from sflam.records.codec import LATER, SELDOM, from_json_values, to_json_values
from sflam.records.privacy_spent import PrivacySpent
from sflam.records.secured import SecureRound
from sflam.records.served_round import ServedRound

TEST, VALIDATION = "test", "validation"
"""The parts of the data that rounds are scored on."""
_OPTIONAL = ("charge", "measured", "metric", "validation_loss", "validation_accuracy", "spent", "secured")
_VERSIONED = ("sflam", "numpy", "torch", "transformers", "peft", "scikit-learn")


@dataclass(frozen=True, kw_only=True)
class RoundRecord:
    """One finished round.

    Attributes:
        round: number of the round, from 0.
        loss: mean training loss over the round's samples.
        test_loss: mean test loss after the round; None when the round was not evaluated, or on a validation part.
        accuracy: share of test samples classified correctly, in [0, 1]; None when not evaluated, or on a validation
            part: then the test part is scored once, at the end, and the result holds it.
        validation_loss: mean validation loss after the round; None, and not written, when not evaluated on one.
        validation_accuracy: share of validation samples classified correctly; None, and not written, likewise.
        samples: training samples used in the round.
        device_steps: mini-batch steps summed over the devices.
        bytes_up: bytes of the steps, devices to server: activations, labels, headers.
        bytes_down: bytes of the steps, server to devices: gradients, losses, headers.
        code_bytes: of both, the packed codes alone, without side information, labels, lengths and headers.
        saved_bytes: packed codes that did not travel because the server keeps them (``learn.cache``).
        adapter_bytes_up: adapter bytes sent from the devices to the server.
        adapter_bytes_down: adapter bytes sent from the server to the devices.
        residual_bytes: bytes sent to the devices for the exact correction of the frozen weights.
        aggregation_error: norm of mean(BA) - mean(B) mean(A) relative to mean(BA); None when not measured.
        seconds: wall-clock time of the round, in s.
        planning_s: of it, time the planner took; 0 where no network is simulated.
        measuring_s: of it, time of measuring what the planner wants to know.
        evaluating_s: of it, time of evaluating the model.
        class_accuracy: share of each class's samples, of the part that was evaluated, classified correctly, None for a
            class without any; empty when not evaluated, and for language models.
        metric: what ``learn.metric`` makes of the same predictions; None, and not written, where that is the accuracy.
        participants: indices of the devices that took part, ascending.
        device_samples: training samples each of them used, in their order; empty where samples are pooled (``central``)
            and in histories written before they were kept.
        device_loss: mean training loss of each over its own samples; None for one without any.
        device_moved: Euclidean norm of all numbers that each of them trained less those of the round's beginning; None
            for one whose update did not count, empty where the server knows no device's
            (``privacy.secure_aggregation``) and in buffered rounds.
        device_class_accuracy: ``class_accuracy`` of each device's own model, where devices have parts of their own
            (``learn.personal``, ``local``); the figures above are then means over devices. Empty elsewhere.
        charge: what the round cost on the virtual clock; None where no network is simulated, and then not written.
        measured: what the round took over a real network; None in a simulation, and then not written.
        spent: differential privacy spent by its end; None without noise (``[privacy]``), and then not written.
        secured: how adapters were summed under masks; None where they were averaged in the clear, and then not written.
    """

    round: int
    loss: float
    test_loss: float | None = None
    accuracy: float | None = None
    samples: int = 0
    device_steps: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    code_bytes: int = 0
    saved_bytes: int = 0
    adapter_bytes_up: int = 0
    adapter_bytes_down: int = 0
    residual_bytes: int = 0
    aggregation_error: float | None = None
    seconds: float = 0.0
    planning_s: float = field(default=0.0, metadata=LATER)
    measuring_s: float = field(default=0.0, metadata=LATER)
    evaluating_s: float = field(default=0.0, metadata=SELDOM)
    class_accuracy: tuple[float | None, ...] = ()
    metric: float | None = field(default=None, metadata=LATER)
    participants: tuple[int, ...] = ()
    device_samples: tuple[int, ...] = field(default=(), metadata=LATER)
    device_loss: tuple[float | None, ...] = field(default=(), metadata=LATER)
    device_moved: tuple[float | None, ...] = field(default=(), metadata=LATER)
    device_class_accuracy: tuple[tuple[float | None, ...], ...] = field(default=(), metadata=LATER)
    charge: Charge | None = field(default=None, metadata=LATER)
    measured: ServedRound | None = field(default=None, metadata=LATER)
    validation_loss: float | None = field(default=None, metadata=LATER)
    validation_accuracy: float | None = field(default=None, metadata=LATER)
    spent: PrivacySpent | None = field(default=None, metadata=LATER)
    secured: SecureRound | None = field(default=None, metadata=LATER)

    @property
    def part(self) -> str:
        """The part of the data that the round was evaluated on, ``test`` or ``validation``; "" where it was not."""
        if self.validation_loss is not None or self.validation_accuracy is not None:
            return VALIDATION
        return "" if self.test_loss is None and self.accuracy is None else TEST

    @property
    def evaluated_loss(self) -> float | None:
        """The mean loss on that part."""
        return self.validation_loss if self.part == VALIDATION else self.test_loss

    @property
    def evaluated_accuracy(self) -> float | None:
        """The accuracy on that part, in [0, 1]."""
        return self.validation_accuracy if self.part == VALIDATION else self.accuracy

    @property
    def total_bytes(self) -> int:
        """Bytes of every kind that crossed the network in this round."""
        activations = self.bytes_up + self.bytes_down
        return activations + self.adapter_bytes_up + self.adapter_bytes_down + self.residual_bytes


def record_to_dict(record: RoundRecord) -> dict[str, Any]:
    """Return the record as plain JSON values; what only some runs have is written where there is one."""
    plain = to_json_values(record)
    return {key: value for key, value in plain.items() if value is not None or key not in _OPTIONAL}


def scored(part: str, loss: float, accuracy: float) -> dict[str, Any]:
    """Return the fields of a record that hold a score on a part of the data."""
    if part == VALIDATION:
        return {"validation_loss": loss, "validation_accuracy": accuracy}
    return {"test_loss": loss, "accuracy": accuracy}


def part_of(records: Sequence[RoundRecord]) -> str:
    """Return the part of the data that rounds were evaluated on; ``test`` where none was."""
    return next((record.part for record in records if record.part), TEST)


def record_from_dict(values: Mapping[str, Any]) -> RoundRecord:
    """Return the record that ``record_to_dict`` wrote; raises ValueError naming a missing or wrong key."""
    return from_json_values(RoundRecord, values)


class History:
    """The append-only history of one run: ``start`` writes the header, ``append`` one line per round.

    Opening a file that exists continues it. Raises RunError when it is damaged or ends in a torn line.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.columns = path, columns_of(path)
        self._last_round = -1
        self._end = 0  # of the last block
        self._descriptor: int | None = None
        if path.exists():
            raw = _read_bytes(path)
            _, records, self._end = _parse(path, raw)
            if not raw.endswith(b"\n"):
                raise RunError(
                    f"{path} ends in a torn line; resume the run, which rewinds it, before appending"
                )
            self._last_round = records[-1].round if records else -1

    def start(self, config: Mapping[str, Any], seed: int, versions: Mapping[str, str] | None = None) -> None:
        """Create the file with its header; raises RunError when there is one already or it cannot be written.

        Args:
            config: JSON-safe values of the resolved configuration.
            seed: the run's seed.
            versions: package versions; None takes the installed ones.
        """
        if self.path.exists():
            raise RunError(f"{self.path} already holds a run; choose another run folder, or resume that run")
        header = {
            "kind": "header",
            "config": config,
            "seed": seed,
            "versions": dict(installed_versions() if versions is None else versions),
        }
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.columns.unlink(missing_ok=True)
            replace_file(self.path, _line(header))

    def append(self, record: RoundRecord) -> None:
        """Write one round and wait until it is on disk.

        Raises RunError when the round is not later than the last one, when ``start`` was not called, or
        when the disk refuses.
        """
        if record.round <= self._last_round:
            raise RunError(
                f"{self.path} already holds round {self._last_round}, so round {record.round} is refused; "
                "rewind the history to repeat a round"
            )
        if self._descriptor is None and not self.path.exists():
            raise RunError(f"{self.path} does not exist; start the history before appending")
        with _writing(self.path):
            if self._descriptor is None:
                self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            values, block = columns.packed(record_to_dict(record))
            if block:
                values["columns"] = columns.reference(self._end, block)
                columns.append(self.columns, self._end, block)
            write_all(self._descriptor, _line({"kind": "round", **values}))
            os.fsync(self._descriptor)
        self._end += len(block)
        self._last_round = record.round

    def close(self) -> None:
        """Release the file; appending again reopens it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> tuple[dict[str, Any], list[RoundRecord]]:
    """Return the header and the records; a torn last line is left out, as it is while a run is writing.

    Raises RunError naming file and line when a line is damaged, repeated or out of order.
    """
    header, records, _ = _parse(path, _read_bytes(path))
    return header, records


def columns_of(path: Path) -> Path:
    """Return the file of the blocks of a history."""
    return path.with_suffix(".columns")


def expect_charges(
    path: Path, records: Sequence[RoundRecord], devices: int, blocks: int | None = None
) -> None:
    """Raise RunError where a record's charge is not one of its own devices, or of a model with so many blocks."""
    for record in records:
        charge = record.charge
        if charge and (reason := wrong_charge(charge, record.participants, devices, blocks)):
            raise RunError(
                f"{path} is damaged: in round {record.round + 1} {reason}; put the right one back, or start a new run"
            )


def rewind(path: Path, rounds: int) -> list[RoundRecord]:
    """Keep the header and the records of rounds below ``rounds``, atomically, and return those records.

    This is how a run resumes from a checkpoint older than its last line. Raises RunError as ``read`` does.
    """
    raw = _read_bytes(path)
    _, records, _ = _parse(path, raw)
    kept = [record for record in records if record.round < rounds]
    lines = raw.splitlines(keepends=True)
    with _writing(path):
        replace_file(path, b"".join(lines[: 1 + len(kept)]))
    return kept


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages a result depends on, without importing them."""
    return dict(_installed())


@lru_cache(maxsize=1)
def _installed() -> Mapping[str, str]:
    versions = {"python": platform.python_version()}
    for name in _VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _parse(path: Path, raw: bytes) -> tuple[dict[str, Any], list[RoundRecord], int]:
    """Return the header, the records, and where the last block of columns ends."""
    complete = raw[: raw.rfind(b"\n") + 1].splitlines()
    if not complete:
        raise RunError(f"{path} has no header line; delete the file and start the run again")
    header: dict[str, Any] = {}
    records: list[RoundRecord] = []
    blocks, end = b"", 0
    for number, line in enumerate(complete, start=1):
        try:
            values = from_json(line)
            kind = values.pop("kind") if isinstance(values, dict) else None
            if kind != ("header" if number == 1 else "round"):
                raise ValueError("is not a header" if number == 1 else "is not a round")
            if number == 1:
                header = {"kind": kind, **values}
                continue
            if where := values.pop("columns", None):
                blocks = blocks or _read_bytes(columns_of(path), "put it back beside history.jsonl")
                values, end = columns.unpacked(values, columns.block_at(blocks, where)), where[0] + where[1]
            record = record_from_dict(values)
            if records and record.round <= records[-1].round:
                raise ValueError(f"holds round {record.round} after round {records[-1].round}")
            records.append(record)
        except RunError:
            raise
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise RunError(
                f"{path}, line {number} is damaged ({error}); "
                "restore the file, or delete this line and those after it"
            ) from error
    return header, records, end


def _read_bytes(path: Path, advice: str = "give the folder of a run") -> bytes:
    with reading(path, advice):
        return path.read_bytes()


def _line(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, allow_nan=False) + "\n").encode()


def _writing(path: Path) -> AbstractContextManager[None]:
    return writing(path, "free space, or choose another run folder")
