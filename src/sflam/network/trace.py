"""Measured channels: a CSV or parquet file with a row per device and time, to gains per round.

Columns ``device`` (a name), ``time`` (seconds or a round number) and one of ``gain`` (linear), ``gain_db`` or
``rate_mbps`` (at full power over the whole band). Every device has one row at every time, and times are evenly spaced:
the rounds. After the last round the trace starts again.

A served run's trace also has ``contention``, how many devices sent at once over the one way to the server while this
one did, and ``active``, 1 where it was in the round: its rates are of devices that share time, each alone.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.errors import ConfigError, unknown
from sflam.network.network import Floats

VALUES = ("gain", "gain_db", "rate_mbps")
USE = ("contention", "active")
"""How a link was used while its rate was measured."""
COLUMNS = ("device", "time", *VALUES, *USE)


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
    """

    names: tuple[str, ...]
    times: Floats
    kind: str
    values: Floats
    contention: Floats | None = None
    active: NDArray[np.bool_] | None = None

    @property
    def shares_time(self) -> bool:
        """Whether its devices shared the time of one way to the server."""
        return self.contention is not None

    def at(self, round_number: int) -> Floats:
        """Return the [K] values of a round; the trace is repeated from its start."""
        row: Floats = self.values[round_number % len(self.times)]
        return row


def read(path: str | Path) -> Trace:
    """Read a trace file.

    Raises:
        ConfigError: the file cannot be read, a column is unknown or missing, a number is not finite or a gain or rate
            not positive, a device lacks a time or has it twice, or times are not evenly spaced.
    """
    path = Path(path).expanduser()
    columns = _parquet(path) if path.suffix == ".parquet" else _csv(path)
    for name in columns:
        if name not in COLUMNS:
            raise ConfigError(f"trace {path}: {unknown('column', name, COLUMNS)}")
    kinds = [name for name in VALUES if name in columns]
    if "device" not in columns or "time" not in columns or len(kinds) != 1:
        raise ConfigError(
            f"trace {path} has the columns {', '.join(columns) or 'none'}; it needs device, time and one of "
            f"{', '.join(VALUES)}"
        )
    devices = [str(name) for name in columns["device"]]
    if not devices:
        raise ConfigError(f"trace {path} has no rows; give a row per device and time")
    times, values = (_numbers(path, name, columns[name]) for name in ("time", kinds[0]))
    if kinds[0] == "gain_db":
        with np.errstate(over="ignore", under="ignore"):  # reported below
            values = 10.0 ** (values / 10.0)
    wrong = np.flatnonzero(~((values > 0) & (values < math.inf)))
    if len(wrong):
        raise ConfigError(
            f"trace {path}, row {wrong[0] + 1}: {kinds[0]} gives {values[wrong[0]]}; it must be positive"
        )
    names = tuple(dict.fromkeys(devices))
    table = _table(path, names, devices, times, values)
    use = {name: _use(path, name, columns, names, devices, times) for name in USE if name in columns}
    active = use.get("active")
    rate = kinds[0] == "rate_mbps"
    return Trace(
        names=names,
        times=np.unique(times),
        kind="rate" if rate else "gain",
        values=table * 1e6 if rate else table,
        contention=use.get("contention"),
        active=None if active is None else active > 0,
    )


def _use(
    path: Path,
    name: str,
    columns: dict[str, list[Any]],
    names: tuple[str, ...],
    devices: list[str],
    times: Floats,
) -> Floats:
    """Return [R, K] of a column on how the link was used; raises ConfigError where a number cannot be one."""
    numbers = _numbers(path, name, columns[name])
    wrong = (numbers != 0) & (numbers != 1) if name == "active" else (numbers != 0) & (numbers < 1)
    if wrong.any():
        rule = "0 or 1" if name == "active" else "1 or more, or 0 where a device sent nothing"
        row = int(np.argmax(wrong))
        raise ConfigError(f"trace {path}, row {row + 1}: {name} is {numbers[row]:g}; it must be {rule}")
    return _table(path, names, devices, times, numbers)


def _table(path: Path, names: tuple[str, ...], devices: list[str], times: Floats, values: Floats) -> Floats:
    """Return [R, K] after checking that every device has every time once and no time is skipped."""
    rounds, row = np.unique(times, return_inverse=True)
    if len(rounds) > 2:
        steps = np.diff(rounds)
        gap = int(np.argmax(steps))
        if steps[gap] > 1.001 * steps.min():
            raise ConfigError(
                f"trace {path} has a gap: nothing between time {rounds[gap]:g} and {rounds[gap + 1]:g}, else a row "
                f"every {steps.min():g}; fill it or cut the trace there"
            )
    place = {name: index for index, name in enumerate(names)}
    column = np.array([place[name] for name in devices])
    table = np.full((len(rounds), len(names)), np.nan)
    cells, counts = np.unique(row * len(names) + column, return_counts=True)
    if counts.max() > 1:
        twice = int(cells[np.argmax(counts)])
        raise ConfigError(
            f"trace {path}: device {names[twice % len(names)]!r} has time {rounds[twice // len(names)]:g} "
            f"{counts.max()} times; keep one row"
        )
    table[row, column] = values
    missing = np.argwhere(np.isnan(table))
    if len(missing):
        first, device = missing[0]
        raise ConfigError(
            f"trace {path} has a gap: device {names[device]!r} has no row at time {rounds[first]:g} "
            f"({len(missing)} missing in all); every device needs a row at every time"
        )
    return table


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


def _csv(path: Path) -> dict[str, list[Any]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"trace {path} cannot be read: {error}") from error
    header = [name.strip() for name in rows[0]] if rows else []
    if len(set(header)) != len(header):
        raise ConfigError(f"trace {path} names a column twice: {', '.join(header)}")
    for index, row in enumerate(rows[1:], start=1):
        if len(row) != len(header):
            raise ConfigError(
                f"trace {path}, row {index} has {len(row)} values; the header has {len(header)}"
            )
    return {name: [row[place].strip() for row in rows[1:]] for place, name in enumerate(header)}


def _parquet(path: Path) -> dict[str, list[Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigError(
            f"trace {path}: reading parquet needs pyarrow; install it or give a CSV file"
        ) from error
    try:
        columns: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    except (OSError, ArrowException) as error:
        raise ConfigError(f"trace {path} cannot be read: {str(error).splitlines()[0]}") from error
    return columns
