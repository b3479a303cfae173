"""Who is there when, on the clock of a simulated run, and who fails within a round. K devices.

A file of presence is a CSV with the columns ``device``, ``since_s`` and ``until_s``: a row per stay, from ``since_s``
up to, and not including, ``until_s``. Failures are drawn from a stream of their own, by round and opening, so that
they move no other draw.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.errors import ConfigError
from sflam.network.network import Floats
from sflam.network.settings import DeviceEntry, NetworkSettings
from sflam.seeds import generator

COLUMNS = ("device", "since_s", "until_s")
Stay = tuple[float, float]
"""From when to when a device is there, s; inf for good."""
ALWAYS: tuple[Stay, ...] = ((0.0, math.inf),)


def uncertain(job: Job) -> str:
    """Return the key by which rounds of a simulated run may end without some of their devices; "" where none does."""
    network, fleet = job.network, job.fleet
    own = any(
        each.failure or each.joins_s is not None or each.leaves_s is not None for each in network.device
    )
    found = {
        "network.failure": network.failure > 0,
        "network.presence": bool(network.presence),
        "network.device": own,
        "fleet.quorum": fleet.quorum > 0,
        "fleet.over_select": fleet.over_select > 0,
    }
    return next((key for key, holds in found.items() if holds), "") if network.simulate else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Presence:
    """When devices are there, and how often each fails.

    Attributes:
        stays: of each device, ascending and apart from each other.
        failure: [K] probability of failing within a round.
    """

    stays: tuple[tuple[Stay, ...], ...]
    failure: Floats

    def __len__(self) -> int:
        return len(self.stays)

    def there(self, at: float) -> NDArray[np.bool_]:
        """Return [K] whether a device is there at ``at`` s."""
        return np.array([any(since <= at < until for since, until in own) for own in self.stays])

    def leaves(self, at: float) -> Floats:
        """Return [K] s at which each that is there at ``at`` s leaves; ``at`` itself of one that is not."""
        return np.array(
            [next((until for since, until in own if since <= at < until), at) for own in self.stays]
        )

    def comes(self, at: float) -> Floats:
        """Return [K] s at which each is there next, ``at`` itself where it is; inf for never."""
        return np.array(
            [next((max(since, at) for since, until in own if at < until), math.inf) for own in self.stays]
        )

    def failing(self, seed: int, round: int, opening: int = 0) -> Floats:
        """Return [K] the share of its own part of a round after which each fails, in [0, 1); inf where it does not."""
        draw = generator(seed, "failure", round, opening)
        fails, share = draw.random(len(self)) < self.failure, draw.random(len(self))
        return np.where(fails, share, math.inf)


def presence_of(settings: NetworkSettings, names: Sequence[str]) -> Presence:
    """Return the presence of the devices ``names`` of a network.

    Raises:
        ConfigError: see :func:`read`.
    """
    listed = read(settings.presence, names) if settings.presence else {}
    entries = _entries(settings, len(names))
    stays = []
    for name, entry in zip(names, entries, strict=True):
        since, until = entry.joins_s or 0.0, math.inf if entry.leaves_s is None else entry.leaves_s
        own = [(max(a, since), min(b, until)) for a, b in listed.get(name, ALWAYS)]
        stays.append(tuple((a, b) for a, b in own if a < b))
    return Presence(
        stays=tuple(stays),
        failure=np.array([settings.failure if one.failure is None else one.failure for one in entries]),
    )


def _entries(settings: NetworkSettings, count: int) -> list[DeviceEntry]:
    """Return the table of each device, in the order of the network: tables first, then profiles."""
    listed = [entry for entry in settings.device for _ in range(entry.count)]
    return listed + [DeviceEntry()] * (count - len(listed))


def read(path: str | Path, names: Sequence[str]) -> dict[str, tuple[Stay, ...]]:
    """Return device -> its stays, from a file of presence.

    Raises:
        ConfigError: the file cannot be read, a column is missing, a device unknown, a time no number of 0 or more, a
            stay without length, or two stays of a device overlap.
    """
    path = Path(path).expanduser()
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, restval="", skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"network.presence {path} cannot be read: {error}") from error
    columns = tuple(rows[0]) if rows else ()
    if missing := [name for name in COLUMNS if name not in columns]:
        raise ConfigError(
            f"network.presence {path} has no {' and no '.join(missing)}; it needs rows of {', '.join(COLUMNS)}"
        )
    found: dict[str, list[Stay]] = {}
    for number, row in enumerate(rows, start=1):
        where = f"network.presence {path}, row {number}"
        name = row["device"].strip()
        if name not in names:
            raise ConfigError(f"{where}: no device {name!r}; the network has {', '.join(names[:3])}, ...")
        since, until = _seconds(where, row, "since_s"), _seconds(where, row, "until_s")
        if not since < until:
            raise ConfigError(
                f"{where}: since_s is {since:g} and until_s {until:g}; a stay must have a length"
            )
        found.setdefault(name, []).append((since, until))
    for name, stays in found.items():
        stays.sort()
        for (_, until), (since, _) in pairwise(stays):
            if since < until:
                raise ConfigError(
                    f"network.presence {path}: stays of device {name!r} overlap, one until {until:g} s and one from "
                    f"{since:g} s; make them one row"
                )
    return {name: tuple(stays) for name, stays in found.items()}


def _seconds(where: str, row: dict[str, str], key: str) -> float:
    text = row[key].strip()
    if key == "until_s" and not text:
        return math.inf
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise ConfigError(f"{where}: {key} is {text!r}; it must be seconds, 0 or more")
    return value
