"""What a served round really took, as the server measured it: one value that a history keeps, and planning can read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sflam.records.buffer import Buffer
from sflam.records.codec import LATER, SELDOM

FASTEST = 1e11
"""bit/s that stand for bodies that came in no time."""


@dataclass(frozen=True, kw_only=True)
class TrunkPass:
    """A local step of devices that one copy of the server's adapters took together.

    Attributes:
        step: its number.
        devices: those in it, ascending.
    """

    step: int
    devices: tuple[int, ...]


REASONS = {
    "ordered": "as the operator ordered",
    "released": "as the operator orders no more",
    "memory": "it is short of memory",
    "time": "it is slow",
    "late": "it is late",
    "settled": "it is no longer overloaded",
    "measured": "the round is shorter by it",
}
"""Why a device moved, in words."""


@dataclass(frozen=True, kw_only=True)
class CutMove:
    """A device that was given another cut before a round.

    Attributes:
        round: before which.
        device: its number.
        before: blocks that it had.
        cut: blocks that it has from then on.
        why: ``ordered`` by an operator, or ``released`` by one; ``memory``, ``time`` or ``late``: it was overloaded; or
            ``settled``: it no longer is.
        detail: what was measured, in words.
    """

    round: int
    device: int
    before: int
    cut: int
    why: str
    detail: str = ""

    @property
    def reason(self) -> str:
        """Why, for people."""
        return reason_of(self.why, self.detail)

    @property
    def to(self) -> int:
        """What it was given."""
        return self.cut

    def __str__(self) -> str:
        blocks = "1 block" if self.cut == 1 else f"{self.cut} blocks"
        return (
            f"round {self.round + 1}: device {self.device} has {blocks} from now on, of {self.before} before "
            f"({self.reason})"
        )


@dataclass(frozen=True, kw_only=True)
class ServerMove:
    """A device that was given another server before a round.

    Attributes:
        round: before which.
        device: its number.
        before: the server that it had.
        server: the one that it has from then on.
        why: ``ordered`` by an operator, or ``released`` by one; or ``measured``: a plan of what rounds took.
        detail: what was planned, in words.
    """

    round: int
    device: int
    before: int
    server: int
    why: str
    detail: str = ""

    @property
    def reason(self) -> str:
        """Why, for people."""
        return reason_of(self.why, self.detail)

    @property
    def to(self) -> int:
        """What it was given."""
        return self.server

    def __str__(self) -> str:
        return (
            f"round {self.round + 1}: device {self.device} is at server {self.server} from now on, at {self.before} "
            f"before ({self.reason})"
        )


def reason_of(why: str, detail: str) -> str:
    """Return why a device moved, for people."""
    known = REASONS.get(why, why)
    return f"{known}: {detail}" if detail else known


PHASES = ("compute_s", "up_s", "wait_s", "down_s", "adapter_s")
"""What a device's round is made of, as it was measured and as it was predicted."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What was expected of a served round before it. Per device means per participant, in their order.

    Attributes:
        source: what it is from: ``measured``, the rounds before or a probe; or ``network``, the job's calibrated one.
        seconds: of the round: the longest chain of a device that it was planned for.
        compute_s: per device; so are the next four, which are those of :class:`ServedRound`.
        rate_mbps: per device, Mbit/s that it was planned to send with.
        rounds: times the rounds that a run without quantization needs, as the planner counts noise; 1 without.
        gap: certified distance from the best plan; None without a bound.
        planned: the round in which its plan was made.
        dropped: devices that could not keep ``plan.deadline``, so were left out.
    """

    source: str
    seconds: float
    compute_s: tuple[float, ...]
    up_s: tuple[float, ...]
    wait_s: tuple[float, ...]
    down_s: tuple[float, ...]
    adapter_s: tuple[float, ...]
    rate_mbps: tuple[float, ...] = ()
    rounds: float = 1.0
    gap: float | None = None
    planned: int = 0
    dropped: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ServedRound:
    """Times and bytes of one served round. Per device means per participant, in their order.

    Attributes:
        seconds: from the opening of the round that counted to its close.
        openings: how often the round was opened; more than 1 after a missed quorum.
        server_s: of those, in which the server computed.
        finish: per device, seconds from the opening until its adapters had come.
        upload_s: per device, seconds in which its bodies came.
        away_s: per device, seconds between answers and its next requests: its computing, and both ways of the network.
        bytes_up: per device, bytes of the bodies that came from it, repeated ones included.
        bytes_down: per device, bytes of the bodies that went to it.
        payload_up: per device, bits of codes and side information it sent, without headers.
        payload_down: per device, the same of what it received.
        cuts: per device, blocks on it.
        bits_up: per device, bits of an activation value.
        bits_down: per device, bits of a gradient value.
        left_out: devices that began the round and have no part in its average.
        left_steps: per device left out, its steps that had been computed. With one copy of the server's adapters per
            device they count for nothing; with one for all (sfl-v2) the shared copy keeps them.
        passes: with one copy for all, the steps it took, in order; empty where every device came to each of its own.
        link_s: per device, its own part of ``upload_s``: of seconds in which n bodies came at once, an nth. Empty in
            older records.
        midway: with labels on devices, those left out that stayed away between the two exchanges of a step: after as
            many steps as they had made, one more had been computed forward.
        unheard: devices of the fleet that had not reported their samples yet, so were counted by no weight.
        asked: devices that were asked at any opening of the round, over restarts of the server; empty in older records.
        times: of each of these, at how many openings.
        compute_s: per device, seconds of computing as it reports them, at most those it was away; of one that reports
            none, all of these. Empty in older records, as the next nine are.
        up_s: per device, seconds in which the bodies of its steps came.
        wait_s: per device, seconds from its bodies to their answers: the server's computing, and waiting for others.
        down_s: per device, seconds in which answers were on their way, and requests before their bodies.
        adapter_s: per device, seconds in which adapters came and went.
        receive_s: per device, of ``down_s`` those in which the bodies of answers came, as it reports them; 0 where it
            does not, or they came with their headers.
        bytes_handed: per device, of ``bytes_up`` those of what it trained.
        bytes_fetched: per device, of ``bytes_down`` those of the adapters it began with.
        exchanges: per device, requests of the round that were answered by a body.
        memory: per device, bytes that its process held at most, as it reports; 0 where it does not.
        memory_left: per device, bytes of memory that it could still have had at its fullest, as it reports; empty where
            none knows.
        temperature: per device, degrees Celsius of its hottest sensor; empty where none reports any.
        throttled: per device, whether heat or voltage slowed it down; empty where none knows.
        battery: per device, what was left of it, from 0 to 1; empty where none has one.
        predicted: what was expected of the round; None where nothing could be.
        moves: devices whose cut changed before the round.
        servers: per device, the server whose devices it was averaged with; empty where devices do not move.
        server_busy: of each server from 0 on, seconds in which its trunk server computed for its devices; empty where
            devices do not move, and in a round in which a trunk server had those of another, as that one was gone.
        server_moves: devices whose server changed before the round.
        buffer: the updates of a buffered round; else None. Seconds are then those since the version before was made,
            and a device's are those of all it did meanwhile.
    """

    seconds: float
    openings: int
    server_s: float
    finish: tuple[float, ...]
    upload_s: tuple[float, ...]
    away_s: tuple[float, ...]
    bytes_up: tuple[int, ...]
    bytes_down: tuple[int, ...]
    payload_up: tuple[int, ...]
    payload_down: tuple[int, ...]
    cuts: tuple[int, ...]
    bits_up: tuple[int, ...]
    bits_down: tuple[int, ...]
    left_out: tuple[int, ...] = ()
    left_steps: tuple[int, ...] = ()
    passes: tuple[TrunkPass, ...] = field(default=(), metadata=LATER)
    unheard: tuple[int, ...] = field(default=(), metadata=LATER)
    midway: tuple[int, ...] = field(default=(), metadata=LATER)
    asked: tuple[int, ...] = field(default=(), metadata=LATER)
    times: tuple[int, ...] = field(default=(), metadata=LATER)
    link_s: tuple[float, ...] = field(default=(), metadata=LATER)
    compute_s: tuple[float, ...] = field(default=(), metadata=LATER)
    up_s: tuple[float, ...] = field(default=(), metadata=LATER)
    wait_s: tuple[float, ...] = field(default=(), metadata=LATER)
    down_s: tuple[float, ...] = field(default=(), metadata=LATER)
    adapter_s: tuple[float, ...] = field(default=(), metadata=LATER)
    receive_s: tuple[float, ...] = field(default=(), metadata=LATER)
    bytes_handed: tuple[int, ...] = field(default=(), metadata=LATER)
    bytes_fetched: tuple[int, ...] = field(default=(), metadata=LATER)
    exchanges: tuple[int, ...] = field(default=(), metadata=LATER)
    memory: tuple[int, ...] = field(default=(), metadata=LATER)
    memory_left: tuple[int | None, ...] = field(default=(), metadata=SELDOM)
    temperature: tuple[float | None, ...] = field(default=(), metadata=SELDOM)
    throttled: tuple[bool | None, ...] = field(default=(), metadata=SELDOM)
    battery: tuple[float | None, ...] = field(default=(), metadata=SELDOM)
    predicted: Prediction | None = field(default=None, metadata=SELDOM)
    moves: tuple[CutMove, ...] = field(default=(), metadata=SELDOM)
    servers: tuple[int, ...] = field(default=(), metadata=SELDOM)
    server_busy: tuple[float, ...] = field(default=(), metadata=SELDOM)
    server_moves: tuple[ServerMove, ...] = field(default=(), metadata=SELDOM)
    buffer: Buffer | None = field(default=None, metadata=SELDOM)

    @property
    def link_rates(self) -> tuple[float, ...]:
        """Per device, bit/s that the way to the server carries for it alone; inf where its bodies came in no time."""
        pairs = zip(self.bytes_up, self.link_s or self.upload_s, strict=True)
        return tuple(8 * size / seconds if seconds else float("inf") for size, seconds in pairs)

    @property
    def contention(self) -> tuple[float, ...]:
        """Per device, how many sent at once while it did, itself included: what the link's rate is divided by."""
        pairs = zip(self.upload_s, self.link_s or self.upload_s, strict=True)
        return tuple(max(whole / own, 1.0) if own else 1.0 for whole, own in pairs)


def errors(rounds: Sequence[ServedRound]) -> list[float]:
    """Return by how much what was expected of each round differed from what it took, relative to that."""
    pairs = [(one.predicted.seconds, one.seconds) for one in rounds if one.predicted is not None]
    return [expected / took - 1 for expected, took in pairs if took > 0]


def of_those(devices: Sequence[int], expected: Prediction, some: Sequence[int]) -> Prediction:
    """Return what was expected of some of a round's devices; the round's seconds stay those of all."""
    places = [devices.index(device) for device in some]
    each: dict[str, Any] = {
        name: tuple(values[place] for place in places)
        for name in (*PHASES, "rate_mbps")
        if (values := getattr(expected, name))
    }
    return replace(expected, **each)


def trace_csv(rounds: Sequence[tuple[Sequence[int], ServedRound]]) -> str:
    """Return what served rounds measured as a file for ``network.trace``, so that planning can use it.

    A row per device and round: ``rate_mbps``, what its way to the server carries for it alone; ``contention``, how many
    sent at once while it did; and ``active``, 1 where it was in the round. A device that missed a round has the rate of
    its last one before, or else of its first, and no contention.

    Args:
        rounds: participants and what was measured, round after round.
    """
    rates = [dict(zip(devices, item.link_rates, strict=True)) for devices, item in rounds]
    crowds = [dict(zip(devices, item.contention, strict=True)) for devices, item in rounds]
    lines = ["device,time,rate_mbps,contention,active"]
    for device in sorted(set().union(*rates)):
        known = next(own[device] for own in rates if device in own)
        for number, (own, crowd) in enumerate(zip(rates, crowds, strict=True)):
            known = own.get(device, known)
            share = f"{crowd[device]:.4g},1" if device in crowd else "0,0"
            lines.append(f"{device},{number},{min(known, FASTEST) / 1e6:.6g},{share}")
    return "\n".join(lines) + "\n"
