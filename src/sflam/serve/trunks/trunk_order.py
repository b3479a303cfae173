"""What a coordinator asks of a trunk server in an opening of a round, and what comes back at its end, as JSON."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sflam.learn.steps import Steps
from sflam.serve.round_stats import Reading
from sflam.sizes import COUNT_LIMIT

OPEN, GATHER, OVER = "open", "gather", "over"
"""A round's phases at a trunk server: make its steps, hand over what was trained, forget it."""
LISTS = ("devices", "present", "samples", "servers")
COUNTED = ("samples", "payload_up", "payload_down", "sent", "received")
TIMES = ("upload_s", "link_s", "away_s", "wait_s")
BYTES = ("bytes_up", "bytes_down")
LARGEST = 1 << 62
Copy = tuple[int, int]
"""A server, and a device whose copy of its adapters stands for itself; for all where one copy serves all."""


@dataclass(frozen=True)
class TrunkOrder:
    """An opening of a round at one trunk server.

    Attributes:
        round: its number.
        attempt: of the opening.
        key: of the tokens of its devices.
        devices: that it serves.
        present: all devices of the round.
        samples: n_k of every device that ever came, -1 of the others.
        servers: of all devices: whose devices learn and are averaged together.
    """

    round: int
    attempt: int
    key: str
    devices: tuple[int, ...]
    present: tuple[int, ...]
    samples: tuple[int, ...]
    servers: tuple[int, ...]

    def known(self) -> dict[int, int]:
        """Return device -> n_k, of those that ever came."""
        return {device: count for device, count in enumerate(self.samples) if count >= 0}

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def order_of(found: Any, devices: int) -> TrunkOrder:
    """Return an order of a run of so many devices; raises ValueError, KeyError or TypeError where it is malformed."""
    key = found["key"]
    if not isinstance(key, str) or len(bytes.fromhex(key)) < 16:
        raise ValueError("a key")
    lists = [tuple(count(each, -1) for each in found[name]) for name in LISTS]
    if (
        len(lists[2]) != devices
        or len(lists[3]) != devices
        or min(lists[3], default=0) < 0
        or not set(lists[0]) <= set(lists[1]) <= set(range(devices))
    ):
        raise ValueError("devices of the run")
    return TrunkOrder(count(found["round"]), count(found["attempt"]), key, *lists)


@dataclass(frozen=True)
class TrunkReport:
    """What a trunk server did in a round.

    Attributes:
        steps: of its devices.
        made: device -> exchanges it made.
        out: devices that it dropped.
        busy: seconds of computing.
        readings: device -> what its way measured.
    """

    steps: Steps
    made: Mapping[int, int]
    out: tuple[int, ...]
    busy: float
    readings: Mapping[int, Reading]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        done = self.steps
        return {
            "device_steps": done.device_steps,
            "code_bytes": done.code_bytes,
            "losses": done.device_losses,
            **{name: getattr(done, name) for name in COUNTED},
            "made": dict(self.made),
            "out": list(self.out),
            "busy": self.busy,
            "readings": {
                device: {name: getattr(reading, name) for name in (*TIMES, *BYTES)}
                for device, reading in self.readings.items()
            },
        }


def report_of(found: Any, devices: Collection[int]) -> TrunkReport:
    """Return the report on ``devices``; raises ValueError, KeyError, TypeError or AttributeError where malformed."""

    def each(name: str) -> dict[int, Any]:
        own = {int(device): value for device, value in found[name].items()}
        if not own.keys() <= set(devices):
            raise ValueError(f"{name} of its own devices")
        return own

    steps = Steps(
        device_steps=count(found["device_steps"]),
        code_bytes=count(found["code_bytes"], most=LARGEST),
        device_losses={device: _number(loss) for device, loss in each("losses").items()},
    )
    for name in COUNTED:
        setattr(steps, name, {device: count(value, most=LARGEST) for device, value in each(name).items()})
    steps.samples = dict.fromkeys(devices, 0) | steps.samples
    readings = {device: _reading(value) for device, value in each("readings").items()}
    out = tuple(map(count, found["out"]))
    made = {device: count(value) for device, value in each("made").items()}
    return TrunkReport(steps, made, out, _number(found["busy"]), readings)


def count(found: Any, least: int = 0, most: int = COUNT_LIMIT) -> int:
    """Return a whole number in its range; raises ValueError for anything else."""
    if type(found) is not int or not least <= found < most:
        raise ValueError(f"a whole number where {str(found)[:30]!r} stands")
    return found


def _reading(found: Any) -> Reading:
    made = Reading()
    for name in TIMES:
        setattr(made, name, _number(found[name]))
    for name in BYTES:
        setattr(made, name, count(found[name], most=LARGEST))
    return made


def _number(found: Any) -> float:
    if type(found) not in (int, float) or not math.isfinite(found):
        raise ValueError(f"a number where {str(found)[:30]!r} stands")
    return float(found)


assert {*TIMES, *BYTES} <= {each.name for each in fields(Reading)}
