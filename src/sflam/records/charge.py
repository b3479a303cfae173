"""What a simulated round cost, by the model of the network, as one value that a history keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field, fields

from sflam.plan import ALL_LOCAL
from sflam.records.buffer import Buffer
from sflam.records.codec import LATER, SELDOM


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What was measured on this machine and charged, beside what the model gives instead (``modelled_``).

    Attributes:
        device_s: s of a mini-batch on the fastest device at its highest clock, mean over participants.
        server_s: s of a mini-batch at the server.
        up_bits: bits of all bodies up in the round; as modelled, of their codes and side information.
        modelled_s: T of the same plan as modelled, beside ``Charge.charged_s``.
        modelled_j: E of the same plan as modelled, beside ``Charge.charged_j``.
    """

    device_s: float
    modelled_device_s: float
    server_s: float
    modelled_server_s: float
    up_bits: int
    modelled_up_bits: int
    modelled_s: float
    modelled_j: float


@dataclass(frozen=True, kw_only=True)
class RoundClose:
    """Who was there for a simulated round whose devices come, go and fail, and how it ended.

    Attributes:
        absent: devices of the fleet that were not there when it opened.
        failed: devices that failed or left within it.
        late: devices that were still at work when it closed.
        stopped: clock of the run at which each of ``failed`` and then each of ``late`` stopped, s.
        steps: the local steps that each of these had made, in that order.
        spent_j: what each of these spent, J; it is part of the round's sums.
        openings: how often the round was opened; more than 1 after a missed quorum.
        waited_s: s before it opened in which too few devices were there.
        lost_s: s of openings that ended without the quorum.
    """

    absent: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    late: tuple[int, ...] = ()
    stopped: tuple[float, ...] = ()
    steps: tuple[int, ...] = ()
    spent_j: tuple[float, ...] = ()
    openings: int = 1
    waited_s: float = 0.0
    lost_s: float = 0.0

    @property
    def left_out(self) -> tuple[int, ...]:
        """Devices that began the round and have no part in its average, in the order of ``spent_j``."""
        return self.failed + self.late


@dataclass(frozen=True, kw_only=True)
class Charge:
    """Time and energy of one round on the virtual clock. SI units; per device means per participant, in their order.

    Attributes:
        seconds: of the round, its aggregation included.
        clock: seconds since the start of the run, at the end of the round.
        finish: per device, seconds until its last local step was done; the largest is the straggler's.
        compute_j: all devices' computing.
        transmit_j: all devices' activations on the way up, and gradients of halves averaged in every step.
        adapter_j: all devices' adapters on the way up.
        server_j: the server's computing.
        device_j: per device, what its battery paid.
        battery_j: of every device of the network, what is left after the round, below 0 where a round took more than
            was left; empty without batteries.
        cuts: per device, blocks on it.
        bits_up: per device, bits of an activation value; 0 where nothing crosses a cut.
        bits_down: per device, bits of a gradient value.
        payload_up: per device, bits of codes and side information it sent, and of gradients of its half that are
            averaged in every step, without headers.
        payload_down: per device, the same of what it received.
        dropped: devices chosen for the round that could not take part.
        planned: the round whose plan was carried out.
        method: the allocator.
        predicted_s: the plan's T; without aggregation where ``plan.counts`` is "activations".
        charged_s: s charged instead, with this round's channel and the bits really sent.
        predicted_j: the plan's E, as its objective counts energy.
        charged_j: J charged instead.
        objective: of the plan.
        gap: the plan's certified distance from the best; None without a bound.
        begin: per device, seconds from the round's start until its turn; later than 0 in a relay only.
        compute_s: per device, seconds it computed, over all its local steps; so are the next three.
        up_s: per device, seconds of sending activations.
        server_s: per device, seconds of the server's turn.
        down_s: per device, seconds of receiving gradients.
        adapter_s: per device, seconds of moving adapters, after the last step.
        bandwidth: per device, Hz it was given.
        airtime: per device, the share of the time in which it could send over that; empty where all had all of it.
        power: per device, W it sent with.
        speed: per device, Hz it computed at.
        sensitivity: per device, the chi that the plan counts, as measured (below 0 counts as 0) or as set; empty where
            it is neither measured nor needed.
        sensitivity_error: half the widths of their 95 % confidence intervals; empty where chi was not measured.
        bits_floor: per device, the fewest bits at which the measured bias of its gradient is small enough; empty where
            it was not measured.
        sensitivity_down: the same of chi of the way down, where plans choose its bits; else empty.
        servers: per device, the index of its server, ``ALL_LOCAL`` for none; empty with a single server.
        tuned: per device, ``model.tuned`` of its own; empty where all tune the model's.
        calibration: measured beside modelled, where ``network.calibrate`` is set; else None.
        idle_j: what devices that took part drew at any clock, waiting included; among several servers, static power is
            counted with computing.
        receive_j: all devices' receiving of gradients and adapters.
        rest_j: what static power drew beyond all plans, with ``network.idle_always``.
        late_s: s by which the round was longer than ``plan.deadline``, as where its plan is older than its channel.
        beyond_j: per device, the most J by which it broke one of the plan's caps; empty where none did.
        sent: per device, bytes of all bodies of its steps, where codes are of variable size; else empty.
        received: per device, the same of what it received.
        close: who was there and how the round ended, where devices come, go or fail, or a round need not wait for all;
            else None. Lists above are then of those that delivered, and sums of all that spent something.
        buffer: the updates of a buffered round; else None. Seconds are then those since the version before, sums what
            all devices spent in them, and per device the seconds of phases those of its updates, which may be longer.
    """

    seconds: float
    clock: float
    finish: tuple[float, ...]
    compute_j: float
    transmit_j: float
    adapter_j: float
    server_j: float
    device_j: tuple[float, ...]
    battery_j: tuple[float, ...]
    cuts: tuple[int, ...]
    bits_up: tuple[int, ...]
    bits_down: tuple[int, ...]
    payload_up: tuple[int, ...]
    payload_down: tuple[int, ...]
    dropped: tuple[int, ...]
    planned: int
    method: str
    predicted_s: float
    charged_s: float
    predicted_j: float
    charged_j: float
    objective: float
    gap: float | None
    begin: tuple[float, ...] = field(default=(), metadata=LATER)
    compute_s: tuple[float, ...] = field(default=(), metadata=LATER)
    up_s: tuple[float, ...] = field(default=(), metadata=LATER)
    server_s: tuple[float, ...] = field(default=(), metadata=LATER)
    down_s: tuple[float, ...] = field(default=(), metadata=LATER)
    adapter_s: tuple[float, ...] = field(default=(), metadata=LATER)
    bandwidth: tuple[float, ...] = field(default=(), metadata=LATER)
    power: tuple[float, ...] = field(default=(), metadata=LATER)
    speed: tuple[float, ...] = field(default=(), metadata=LATER)
    sensitivity: tuple[float, ...] = field(default=(), metadata=LATER)
    sensitivity_error: tuple[float, ...] = field(default=(), metadata=LATER)
    bits_floor: tuple[int, ...] = field(default=(), metadata=SELDOM)
    sensitivity_down: tuple[float, ...] = field(default=(), metadata=SELDOM)
    servers: tuple[int, ...] = field(default=(), metadata=LATER)
    tuned: tuple[int, ...] = field(default=(), metadata=SELDOM)
    airtime: tuple[float, ...] = field(default=(), metadata=SELDOM)
    calibration: Calibration | None = field(default=None, metadata=LATER)
    idle_j: float = field(default=0.0, metadata=SELDOM)
    receive_j: float = field(default=0.0, metadata=SELDOM)
    rest_j: float = field(default=0.0, metadata=SELDOM)
    late_s: float = field(default=0.0, metadata=SELDOM)
    beyond_j: tuple[float, ...] = field(default=(), metadata=SELDOM)
    sent: tuple[int, ...] = field(default=(), metadata=SELDOM)
    received: tuple[int, ...] = field(default=(), metadata=SELDOM)
    close: RoundClose | None = field(default=None, metadata=SELDOM)
    buffer: Buffer | None = field(default=None, metadata=SELDOM)

    @property
    def placed(self) -> bool:
        """Whether devices have places of their own: servers, or cuts that differ."""
        return bool(self.servers) or len(set(self.cuts)) > 1

    @property
    def energy(self) -> float:
        """Joules of every kind."""
        work = self.compute_j + self.transmit_j + self.adapter_j + self.server_j
        return work + self.idle_j + self.receive_j + self.rest_j


WHOLE = ("battery_j", "dropped")
"""Fields of a charge that list something else than a number per participant."""
LEAST = {"servers": float(ALL_LOCAL), "battery_j": -math.inf}
UNBOUNDED = ("objective", "gap", "predicted_s", "predicted_j", "sensitivity", "sensitivity_error")


def wrong_charge(charge: Charge, participants: Sequence[int], devices: int, blocks: int | None = None) -> str:
    """Return why a charge is not one of its participants, or nothing: it has a finite number for each of them.

    Args:
        charge: of a round.
        participants: of the round.
        devices: of the fleet.
        blocks: of the model, where it is known.
    """
    count = len(participants)
    if not count or not all(0 <= device < devices for device in participants):
        return f"participants are {list(participants)[:5]} of {devices} devices"
    for item in fields(Charge):
        value = getattr(charge, item.name)
        each = isinstance(value, tuple) and item.name not in WHOLE
        if each and len(value) not in ((count,) if item.default is MISSING else (0, count)):
            return f"charge.{item.name} has {len(value)} numbers for {count} devices"
        numbers = value if isinstance(value, tuple) else (value,) if isinstance(value, float) else ()
        least = LEAST.get(item.name, 0.0)
        if item.name not in UNBOUNDED and not all(
            math.isfinite(number) and number >= least for number in numbers
        ):
            return f"charge.{item.name} is {value!r}"
    if blocks is not None and max(charge.cuts) > blocks:
        return f"charge.cuts is {list(charge.cuts)}, but the model has {blocks} blocks"
    return ""
