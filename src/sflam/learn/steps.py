"""What the local steps of a round did, and what averaging their adapters gave."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from sflam.codec.bodies import Body
from sflam.codec.quantizer import Packed
from sflam.learn.watching import learned
from sflam.model.adapters import State
from sflam.records.secured import SecureRound
from sflam.records.served_round import ServedRound
from sflam.sizes import HEADER_BYTES


@dataclass
class Steps:
    """What the local steps of one round did.

    Attributes:
        losses: sum of loss x rows over all mini-batches.
        samples: rows trained on, per device.
        device_steps: mini-batches, summed over devices.
        code_bytes: packed codes of all bodies, either way.
        saved_bytes: packed codes that the server already had.
        device_losses: device -> sum of loss x rows of its own.
        payload_up: device -> bits of codes and side information it sent, and of gradients of its half that are averaged
            in every step, without headers, labels and lengths.
        payload_down: device -> the same of what it received.
        pooled: devices' samples are trained on together, so that none is one device's.
        measured: what the steps took over a real network; None in a simulation.
        sent: device -> bytes of the bodies it sent during steps.
        received: device -> bytes of those it received.
    """

    losses: float = 0.0
    samples: dict[int, int] = field(default_factory=dict)
    device_steps: int = 0
    code_bytes: int = 0
    saved_bytes: int = 0
    device_losses: dict[int, float] = field(default_factory=dict)
    payload_up: dict[int, int] = field(default_factory=dict)
    payload_down: dict[int, int] = field(default_factory=dict)
    pooled: bool = False
    measured: ServedRound | None = None
    sent: dict[int, int] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)

    def learned(self, device: int, loss: float, rows: int) -> None:
        """Count a mini-batch of a device: its mean loss and its rows."""
        self.losses += loss * rows
        self.samples[device] += rows
        self.device_losses[device] = self.device_losses.get(device, 0.0) + loss * rows
        learned(device, loss, rows)

    def count(self, device: int, body: Body, tokens: Packed | None, *, up: bool) -> None:
        """Count a body that a device sent (``up``) or received, and the tokens packed in it."""
        bodies = self.sent if up else self.received
        bodies[device] = bodies.get(device, 0) + len(body)
        if tokens is not None:
            self.code_bytes += tokens.codes.nbytes
            payload = self.payload_up if up else self.payload_down
            payload[device] = payload.get(device, 0) + tokens.payload_bits

    def averaged(self, size: int, devices: Sequence[int]) -> None:
        """Count the gradients of the device half, a body of ``size`` bytes that devices send to be averaged, and their
        mean, which they get back; a size of 0 is no body."""
        bits = 8 * (size - HEADER_BYTES) if size else 0
        for device in devices:
            for bodies, payload in ((self.sent, self.payload_up), (self.received, self.payload_down)):
                bodies[device] = bodies.get(device, 0) + size
                payload[device] = payload.get(device, 0) + bits

    def add(self, other: Steps) -> None:
        """Count the steps of other devices, or more of the same, too."""
        for item in fields(self):
            if item.name in ("measured", "pooled"):  # what is added up here is simulated, device by device
                continue
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if isinstance(mine, dict):
                theirs = {device: mine.get(device, 0) + count for device, count in theirs.items()}
            setattr(self, item.name, mine | theirs if isinstance(mine, dict) else mine + theirs)

    def of(self, devices: Collection[int]) -> Steps:
        """Return the same where only these devices' samples were trained on."""
        return replace(self, samples={d: rows for d, rows in self.samples.items() if d in devices})

    @property
    def bytes_up(self) -> int:
        """Bytes of the bodies devices sent during steps."""
        return sum(self.sent.values())

    @property
    def bytes_down(self) -> int:
        """Bytes of the bodies they received during steps."""
        return sum(self.received.values())

    def of_devices(self) -> tuple[tuple[int, ...], tuple[float | None, ...]]:
        """Return samples and mean loss of each device, ascending; both empty where samples are pooled."""
        devices = [] if self.pooled else sorted(self.samples.items())
        losses = [self.device_losses.get(device, 0.0) / rows if rows else None for device, rows in devices]
        return tuple(rows for _, rows in devices), tuple(losses)

    @property
    def loss(self) -> float:
        """Mean training loss per sample."""
        return self.losses / max(1, sum(self.samples.values()))


@dataclass(frozen=True)
class Average:
    """What averaging one round's adapters did.

    Attributes:
        state: the new global adapters, by peft's names.
        error: ||mean(BA) - mean(B) mean(A)|| / ||mean(BA)||; None where no factors are averaged apart.
        bytes_up: bytes of the adapter bodies devices sent.
        residual_bytes: bytes of the exact correction of the frozen weights sent to devices.
        bytes_down: bytes of what devices received for it.
        secured: how the devices' halves were summed under masks; None where they were averaged in the clear.
        moved: device -> the norm of what its update moved; empty where that is not known, as under masks.
    """

    state: State
    error: float | None
    bytes_up: int = 0
    residual_bytes: int = 0
    bytes_down: int = 0
    secured: SecureRound | None = None
    moved: Mapping[int, float] = field(default_factory=dict)
