"""How a round stands for a device, as the server reports it, checked: nothing that it sends is taken as it is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from sflam.errors import ServeError
from sflam.link.trunk_way import TrunkAt, trunk_at
from sflam.secure.ring import MOST_BYTES
from sflam.sizes import COUNT_LIMIT, IDENTITY, MAX_BITS, MIN_BITS

OPEN, ENDED = "open", "ended"
LARGEST_PROBE = 1 << 20
SLOWEST_PACE = 10_000.0
"""bit/s; a server takes no body that comes more slowly."""
PHASES = ("waiting", OPEN, "draining", ENDED)


@dataclass(frozen=True)
class Standing:
    """How a round stands.

    Attributes:
        phase: what the server is doing.
        known: whether it knows this device.
        seated: whether this device is in the round.
        delivered: whether it has what this device trained.
        round: number of the round; negative before the first.
        attempt: how often rounds were opened.
        exchange: of this device that is due.
        bits: per value up and down; None leaves them as they are.
        shares: rows of every step, where the server draws them.
        run: name of the server's run; None where it does not say.
        job: digest of its job; None likewise.
        probe: bytes, each way, of a probe that it asks for; 0 for none.
        pace: bit/s to send with at most; None sends as it can.
        server: the trunk server to make steps with; None makes them with the server that was asked.
        sum_width: bytes of a masked number, where what devices trained is summed under masks; else 0.
    """

    phase: str
    known: bool
    seated: bool
    delivered: bool
    round: int
    attempt: int
    exchange: int
    bits: tuple[int, int] | None
    shares: Any
    run: str | None = None
    job: str | None = None
    probe: int = 0
    pace: float | None = None
    server: TrunkAt | None = None
    sum_width: int = 0

    @property
    def waits_for_this_device(self) -> bool:
        """Whether the round is open, and this device is to take part in it."""
        return self.phase == OPEN and self.known and self.seated and not self.delivered


def standing_of(found: Any, scheme: str) -> Standing:
    """Return what ``GET /v1/round`` is answered with; raises ServeError where it is malformed.

    Args:
        found: the parsed answer.
        scheme: of the quantizer, which limits the bits.
    """
    if not isinstance(found, dict):
        raise _malformed("an object", found)
    for name in ("known", "seated", "delivered"):
        if not isinstance(found.get(name), bool):
            raise _malformed(f"{name} true or false", found.get(name))
    for name in ("round", "attempt", "exchange"):
        if not (type(found.get(name)) is int and -COUNT_LIMIT < found[name] < COUNT_LIMIT):
            raise _malformed(f"{name} a whole number", found.get(name))
    for name in ("run", "job"):
        if not isinstance(found.get(name, ""), str):
            raise _malformed(f"{name} a text", found.get(name))
    if found.get("phase") not in PHASES:
        raise _malformed(f"phase one of {', '.join(PHASES)}", found.get("phase"))
    if found["phase"] == OPEN and min(found[name] for name in ("round", "attempt", "exchange")) < 0:
        raise _malformed("an open round's numbers 0 or more", found["round"])
    return Standing(
        phase=found["phase"],
        known=found["known"],
        seated=found["seated"],
        delivered=found["delivered"],
        round=found["round"],
        attempt=found["attempt"],
        exchange=found["exchange"],
        bits=_bits(found.get("bits"), scheme),
        shares=found.get("shares"),
        run=found.get("run"),
        job=found.get("job"),
        probe=_probe(found.get("probe")),
        pace=_pace(found.get("pace")),
        server=_server(found.get("server")),
        sum_width=_width(found.get("sum_width", 0)),
    )


def _probe(found: Any) -> int:
    if found is None:
        return 0
    if type(found) is not int or not 0 < found <= LARGEST_PROBE:
        raise _malformed(f"probe a number of bytes up to {LARGEST_PROBE}", found)
    return found


def _width(found: Any) -> int:
    if type(found) is not int or not 0 <= found <= MOST_BYTES:
        raise _malformed(f"sum_width a number of bytes up to {MOST_BYTES}", found)
    return found


def _server(found: Any) -> TrunkAt | None:
    try:
        return trunk_at(found)
    except ValueError:
        raise _malformed("server a trunk server's name, url, certificate and token", found) from None


def _pace(found: Any) -> float | None:
    if found is None:
        return None
    if type(found) not in (int, float) or not 0 < found < math.inf:
        raise _malformed("pace a positive number of bit/s", found)
    return max(float(found), SLOWEST_PACE)


def _bits(found: Any, scheme: str) -> tuple[int, int] | None:
    if found is None:
        return None
    if not (isinstance(found, list) and len(found) == 2 and all(type(one) is int for one in found)):
        raise _malformed("bits two whole numbers, up and down", found)
    if scheme != IDENTITY and not all(MIN_BITS <= one <= MAX_BITS for one in found):
        raise _malformed(f"bits {MIN_BITS} to {MAX_BITS}", found)
    return found[0], found[1]


def _malformed(wanted: str, found: Any) -> ServeError:
    return ServeError(
        f"the server's report of the round is {str(found)[:60]!r} where {wanted} is due; use the same version of sflam "
        "on both sides"
    )
