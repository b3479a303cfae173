"""The files that a measured channel comes in, each read into columns: CSV, parquet, iperf3's JSON, mahimahi's traces.

iperf3 (``iperf3 -c HOST -J``) gives an interval's ``bits_per_second``. A mahimahi trace has a line per packet of 1500
bytes that the link could have delivered, its time in ms; packets are counted in seconds. Either is of one device, named
by the file; a folder has a file for each device. A second of mahimahi without a packet is an outage, with rate 0.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sflam.errors import ConfigError

Columns = dict[str, list[Any]]
PACKET_BITS = 1500 * 8
"""Of a mahimahi packet."""
SECOND = 1000
"""ms."""
MAHIMAHI = (".mahi", ".mahimahi", ".up", ".down")
"""How names of mahimahi's files end."""


def columns_of(path: Path) -> Columns:
    """Return the columns of a file, or of all files of a folder.

    Raises:
        ConfigError: it cannot be read, or is none of these.
    """
    if not path.is_dir():
        return _columns(path)
    files = sorted(each for each in path.iterdir() if each.is_file() and not each.name.startswith("."))
    if not files:
        raise ConfigError(f"trace {path} is an empty folder; put a file per device into it")
    every = [_columns(each) for each in files]
    for each, found in zip(files, every, strict=True):
        if found.keys() != every[0].keys():
            raise ConfigError(
                f"trace {path}: {files[0].name} and {each.name} have other columns; files of a folder must be alike"
            )
    return {name: [value for own in every for value in own[name]] for name in every[0]}


def _columns(path: Path) -> Columns:
    if path.suffix == ".parquet":
        return _parquet(path)
    if path.suffix == ".json":
        return _iperf3(path)
    if path.suffix in MAHIMAHI:
        return _mahimahi(path)
    return _csv(path)


def _rates(device: str, times: Sequence[float], rates: Sequence[float]) -> Columns:
    return {"device": [device] * len(times), "time": list(times), "rate_mbps": list(rates)}


def _iperf3(path: Path) -> Columns:
    """Return what ``iperf3 -J`` measured: of intervals that count, their start and the rate of all streams."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        sums = [one["sum"] for one in report["intervals"]]
        kept = [one for one in sums if not one.get("omitted", False)]
        times = [float(one["start"]) for one in kept]
        rates = [float(one["bits_per_second"]) / 1e6 for one in kept]
    except OSError as error:
        raise ConfigError(f"trace {path} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"trace {path} is no JSON of iperf3: it lacks intervals with start and bits_per_second; measure with "
            "iperf3 -c HOST -J"
        ) from error
    if not times:
        raise ConfigError(f"trace {path} has no intervals; measure for longer, as with iperf3 -t 60")
    return _rates(path.stem, times, rates)


def _mahimahi(path: Path) -> Columns:
    """Return the rate of every second of a mahimahi trace."""
    try:
        lines = path.read_text(encoding="ascii").split()
        at = np.array([int(line) for line in lines], dtype=np.int64)
    except OSError as error:
        raise ConfigError(f"trace {path} cannot be read: {error}") from error
    except (ValueError, OverflowError):
        raise ConfigError(
            f"trace {path} is no mahimahi trace: every line must be a time in whole ms"
        ) from None
    if not len(at) or at[0] < 0 or (np.diff(at) < 0).any() or at[-1] > 10**9:
        raise ConfigError(
            f"trace {path} is no mahimahi trace: its times must rise from 0 ms, and there must be some"
        )
    last = max(int(at[-1]), 1)
    ends = np.append(np.arange(SECOND, last, SECOND), last)
    counts = np.bincount(
        np.searchsorted(ends, at), minlength=len(ends)
    )  # a packet at 1000 ms is of the first second
    lengths = np.diff(ends, prepend=0)
    if len(ends) > 1 and lengths[-1] < SECOND / 2:  # too short to be a rate
        counts, lengths = counts[:-1], lengths[:-1]
    rates = counts * PACKET_BITS / lengths / 1e3
    return _rates(path.stem, list(range(len(rates))), rates.tolist())


def _csv(path: Path) -> Columns:
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


def _parquet(path: Path) -> Columns:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigError(
            f"trace {path}: reading parquet needs pyarrow; install it or give a CSV file"
        ) from error
    try:
        columns: Columns = parquet.read_table(path).to_pydict()
    except (OSError, ArrowException) as error:
        raise ConfigError(f"trace {path} cannot be read: {str(error).splitlines()[0]}") from error
    return columns
