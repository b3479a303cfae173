"""Measured channels: a file with a row per device and time, to gains per round.

Columns ``device`` (a name), ``time`` (seconds, a round number, or ISO 8601) and one of ``gain`` (linear), ``gain_db``
or ``rate_mbps`` (at full power over the whole band); other columns are not used. Also what iperf3 and mahimahi write;
see :mod:`sflam.network.trace_files`. Where every device has one row at every time, and times are evenly spaced, these
are the rounds. Otherwise rows are brought to even times, and ``notes`` say how; see :mod:`sflam.network.resample`.
After the last round the trace starts again.

A served run's trace also has ``contention``, how many devices sent at once over the one way to the server while this
one did, and ``active``, 1 where it was in the round: its rates are of devices that share time, each alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.errors import ConfigError, unknown
from sflam.network.network import Floats
from sflam.network.resample import GAP, JITTER, OUTAGE, Even, resampled
from sflam.network.trace_files import columns_of

VALUES = ("gain", "gain_db", "rate_mbps")
USE = ("contention", "active")
"""How a link was used while its rate was measured."""
COLUMNS = ("device", "time", *VALUES, *USE)
NAMED = 5
"""Most names in a note."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Trace:
    """Measured gains or rates of devices over rounds.

    Attributes:
        names: [K] devices, in the order they first appear.
        times: [R] s.
        kind: ``gain`` (linear) or ``rate`` (bit/s).
        values: [R, K].
        contention: [R, K] how many devices sent at once while each did, 0 where it did not; None where this is unknown.
        active: [R, K] whether a device was in the round, where this is known.
        notes: sentences on what was not taken as it was measured.
    """

    names: tuple[str, ...]
    times: Floats
    kind: str
    values: Floats
    contention: Floats | None = None
    active: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()

    @property
    def shares_time(self) -> bool:
        """Whether its devices shared the time of one way to the server."""
        return self.contention is not None

    def at(self, round_number: int) -> Floats:
        """Return the [K] values of a round; the trace is repeated from its start."""
        row: Floats = self.values[round_number % len(self.times)]
        return row


def read(path: str | Path) -> Trace:
    """Read a trace file, or a folder with one per device; one that did not change is read once.

    Raises:
        ConfigError: a file cannot be read, a column is missing, a time is none, a value is no number of 0 or more, a
            device has a time twice, or has no channel at any.
    """
    path = Path(path).expanduser()
    return _read(path, _stamp(path))


def _stamp(path: Path) -> tuple[Any, ...]:
    """Return what changes with the files of a trace."""
    try:
        every = [path, *(sorted(path.iterdir()) if path.is_dir() else [])]
        return tuple((each.name, each.stat().st_mtime_ns, each.stat().st_size) for each in every)
    except OSError:
        return ()  # reading it says why


@lru_cache(maxsize=8)
def _read(path: Path, stamp: tuple[Any, ...]) -> Trace:
    columns = columns_of(path)
    kinds = [name for name in VALUES if name in columns]
    strange = [name for name in columns if name not in COLUMNS]
    if strange and not kinds:
        raise ConfigError(f"trace {path}: {unknown('column', strange[0], COLUMNS)}")
    if "device" not in columns or "time" not in columns or len(kinds) != 1:
        raise ConfigError(
            f"trace {path} has the columns {', '.join(columns) or 'none'}; it needs device, time and one of "
            f"{', '.join(VALUES)}"
        )
    listed = [str(name) for name in columns["device"]]
    if not listed:
        raise ConfigError(f"trace {path} has no rows; give a row per device and time")
    kind, (times, dated) = kinds[0], _times(path, columns["time"])
    values = _values(path, kind, columns[kind])
    names = tuple(dict.fromkeys(listed))
    device = _whose(names, listed)
    _expect_once(path, names, device, times)
    try:
        even = resampled(device, times, values, len(names))
    except ValueError as error:
        raise ConfigError(
            f"trace {path} spans {error} between its first row and its last; cut it, or mend its times"
        ) from None
    if (dark := ~np.isfinite(even.values).all(axis=0)).any():
        raise ConfigError(
            f"trace {path}: {kind} of device {names[int(np.argmax(dark))]!r} must be positive at some time; leave the "
            "device out, or give it a value"
        )
    notes = [f"{', '.join(strange)} not used"] if strange else []
    if dated:
        notes.append(f"times are dates, counted in seconds from the first, {dated}")
    use = {name: _use(path, name, columns, device, even, len(names)) for name in USE if name in columns}
    active = use.get("active")
    rate = kind == "rate_mbps"
    return Trace(
        names=names,
        times=even.times,
        kind="rate" if rate else "gain",
        values=even.values * 1e6 if rate else even.values,
        contention=use.get("contention"),
        active=None if active is None else active > 0,
        notes=tuple(f"trace {path.name}: {note}" for note in (*notes, *_changes(even, names))),
    )


def _changes(even: Even, names: tuple[str, ...]) -> list[str]:
    """Return what was not taken as it was measured."""
    if not even.changed:
        return []
    far = float(even.moved.max())
    found = [f"{len(even.times)} rounds of {even.step:.6g}"]
    if far > JITTER * even.step:
        found[0] += f", to which rows were moved by {far:.3g} at most"
    if even.merged:
        found.append(f"{even.merged} rows averaged with others of their round")
    for which, what in (
        (even.filled, f"filled from the values around them, in gaps of up to {GAP}"),
        (even.outage, f"outages, where {OUTAGE:g} of a device's least value stands for no channel"),
    ):
        if which.any():
            whose = [names[device] for device in np.flatnonzero(which.any(axis=0))]
            more = ", ..." if len(whose) > NAMED else ""
            found.append(f"{int(which.sum())} of {which.size} {what} ({', '.join(whose[:NAMED])}{more})")
    return found


def _whose(names: tuple[str, ...], listed: list[str]) -> NDArray[np.int64]:
    place = {name: index for index, name in enumerate(names)}
    return np.array([place[name] for name in listed], np.int64)


def _expect_once(path: Path, names: tuple[str, ...], device: NDArray[np.int64], times: Floats) -> None:
    """Raise ConfigError where a device has a time twice."""
    every, row = np.unique(times, return_inverse=True)
    cells, counts = np.unique(row * len(names) + device, return_counts=True)
    if counts.max() > 1:
        twice = int(cells[np.argmax(counts)])
        raise ConfigError(
            f"trace {path}: device {names[twice % len(names)]!r} has time {every[twice // len(names)]:g} "
            f"{counts.max()} times; keep one row"
        )


def _times(path: Path, column: list[Any]) -> tuple[Floats, str]:
    """Return times in s, or whatever they are counted in, and the first date where they are dates.

    Raises:
        ConfigError: one is neither, or they are of both kinds.
    """
    try:
        return _numbers(path, "time", column), ""
    except ConfigError:
        dates = [_date(value) for value in column]
        if not any(dates):
            raise
    for index, date in enumerate(dates):
        if date is None:
            raise ConfigError(
                f"trace {path}, row {index + 1}: time is {column[index]!r}, and others are dates; give all as seconds, "
                "or all as dates like 2026-03-01T12:00:00Z"
            )
    known = [date for date in dates if date is not None]
    begin = min(known)
    return np.array([(date - begin).total_seconds() for date in known]), begin.isoformat()


def _date(value: Any) -> datetime | None:
    """Return a date of ISO 8601, one without a zone as UTC; None for anything else."""
    try:
        date = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return date.replace(tzinfo=UTC) if date.tzinfo is None else date


def _values(path: Path, kind: str, column: list[Any]) -> Floats:
    """Return gains, linear, or rates; 0 where there was none.

    Raises:
        ConfigError: one is no number, or is negative.
    """
    values = _numbers(path, kind, column)
    if kind == "gain_db":
        with np.errstate(over="ignore", under="ignore"):  # reported below
            values = 10.0 ** (values / 10.0)
    wrong = np.flatnonzero(~((values >= 0) & (values < math.inf)))
    if len(wrong):
        raise ConfigError(
            f"trace {path}, row {wrong[0] + 1}: {kind} gives {values[wrong[0]]}; it must be positive, or 0 in an outage"
        )
    return values


def _use(
    path: Path, name: str, columns: dict[str, list[Any]], device: NDArray[np.int64], even: Even, count: int
) -> Floats:
    """Return [R, K] of a column on how the link was used; raises ConfigError where a number cannot be one."""
    numbers = _numbers(path, name, columns[name])
    wrong = (numbers != 0) & (numbers != 1) if name == "active" else (numbers != 0) & (numbers < 1)
    if wrong.any():
        rule = "0 or 1" if name == "active" else "1 or more, or 0 where a device sent nothing"
        row = int(np.argmax(wrong))
        raise ConfigError(f"trace {path}, row {row + 1}: {name} is {numbers[row]:g}; it must be {rule}")
    found = np.zeros((len(even.times), count))
    np.maximum.at(found, (even.row, device), numbers)
    return found


def _numbers(path: Path, name: str, column: list[Any]) -> Floats:
    numbers = np.empty(len(column))
    for index, value in enumerate(column):
        try:
            numbers[index] = float(value)
        except (TypeError, ValueError):
            numbers[index] = math.nan
        if not math.isfinite(numbers[index]):
            raise ConfigError(
                f"trace {path}, row {index + 1}: {name} is {value!r}; it must be a finite number"
            )
    return numbers
