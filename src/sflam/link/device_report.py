"""What a device reports of a round with what it trained, in one header: its own times, and how its machine fares.

Everything is the device's claim. It is checked in type and range as it is read, and a server that plans by it bounds
its times by what it measured itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from sflam.errors import Refused
from sflam.files import from_json
from sflam.sizes import COUNT_LIMIT

HEADER = "Sflam-Report"
LONGEST = 1024
"""Characters of the header."""
LIMITS: dict[str, tuple[float, float]] = {
    "steps": (0, COUNT_LIMIT - 1),
    "compute_s": (0, 1e9),
    "receive_s": (0, 1e9),
    "fetch_s": (0, 1e9),
    "memory": (0, 1 << 50),
    "memory_left": (0, 1 << 50),
    "temperature": (-100, 300),
    "battery": (0, 1),
}
"""Least and most of each number."""


@dataclass(frozen=True, kw_only=True)
class DeviceReport:
    """A device's round as it saw it, since it last came to life.

    Attributes:
        steps: those that its times are of.
        compute_s: s of them in which it waited for no answer.
        receive_s: s in which the bodies of their answers came.
        fetch_s: s in which the round's adapters came, from its request on.
        memory: bytes, the most that its process has held; 0 where it does not say.
        memory_left: bytes that it could still have had at its fullest: within the limits of the process and of its
            group, and of what the machine had free; None where it does not know.
        temperature: degrees Celsius of its hottest sensor; None where it has none.
        throttled: whether it is slowed down by heat or voltage; None where it does not know.
        battery: what is left of it, from 0 to 1; None where it has none.
    """

    steps: int = 0
    compute_s: float = 0.0
    receive_s: float = 0.0
    fetch_s: float = 0.0
    memory: int = 0
    memory_left: int | None = None
    temperature: float | None = None
    throttled: bool | None = None
    battery: float | None = None

    def to_header(self) -> str:
        """Return the header's value, JSON without what is not known."""
        found = {
            name: round(value, 6) if type(value) is float else value
            for name, value in asdict(self).items()
            if value is not None
        }
        return json.dumps(found, separators=(",", ":"))


def report_from(header: str | None) -> DeviceReport | None:
    """Return what a header reports; None without one, as from older devices. Keys that are not known are left alone.

    Raises:
        Refused: 422, it is malformed or a number is out of range.
    """
    if header is None:
        return None
    try:
        if len(header) > LONGEST:
            raise ValueError(f"{len(header)} characters where {LONGEST} are the most")
        found = from_json(header.encode())
        if not isinstance(found, dict):
            raise ValueError("no object")
        return DeviceReport(**_checked(found))
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:120]
        raise Refused(422, f"{HEADER} must be a JSON object of numbers in range ({reason})") from None


def _checked(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the known keys; raises ValueError where one holds what it cannot."""
    known: dict[str, Any] = {}
    for item in fields(DeviceReport):
        value = found.get(item.name)
        if value is None:
            continue
        if item.name == "throttled":
            if type(value) is not bool:
                raise ValueError("throttled is true or false")
            known[item.name] = value
            continue
        least, most = LIMITS[item.name]
        whole = item.name in ("steps", "memory", "memory_left")
        number = type(value) is int or (type(value) is float and not whole and math.isfinite(value))
        if not number or not least <= value <= most:
            raise ValueError(f"{item.name} from {least:g} to {most:g}")
        known[item.name] = value if whole else float(value)
    return known
