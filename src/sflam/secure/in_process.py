"""One secure sum of devices that are all in this process; every message goes through its body."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sflam.secure.bodies import Message, decode_message, encode_message
from sflam.secure.device_side import MaskingDevice
from sflam.secure.ring import Vector
from sflam.secure.server_side import SummingServer

NONE_LOST: Mapping[str, Collection[int]] = {}


@dataclass
class SecureSum:
    """What a sum gave, and took.

    Attributes:
        total: [L], modulo 2^(8 w).
        devices: whose numbers are in it, ascending.
        neighbours: of a device, with which it shared masks.
        sent: device -> bytes of its bodies.
        received: device -> bytes of those it got.
        bodies: (phase, device) -> what it sent, as the server saw it, where they are kept.
        wrong: devices whose shares of the others' secrets were wrong, ascending.
    """

    total: Vector
    devices: tuple[int, ...] = ()
    neighbours: int = 0
    sent: dict[int, int] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)
    bodies: dict[tuple[str, int], bytes] = field(default_factory=dict)
    wrong: tuple[int, ...] = ()


def sum_in_process(
    vectors: Mapping[int, Vector],
    width: int,
    context: bytes,
    share: float,
    *,
    seed: int = 0,
    most: int | None = None,
    lost: Mapping[str, Collection[int]] = NONE_LOST,
    keep: bool = False,
) -> SecureSum:
    """Return the sum of the devices' vectors, all of one length, made by all four phases.

    Args:
        vectors: device -> its numbers [L].
        width: bytes of a number.
        context: of this sum alone.
        share: of the holders of a secret that give it back.
        seed: of the order of devices.
        most: neighbours of a device; None takes those that are safe.
        lost: phase -> devices whose message of that phase, and of all later ones, does not come.
        keep: whether bodies are kept.

    Raises:
        SecureSumError: too few devices remain.
    """
    length = len(next(iter(vectors.values())))
    done = SecureSum(vectors[next(iter(vectors))][:0])
    devices = {device: MaskingDevice(device, context, share) for device in sorted(vectors)}
    server = SummingServer(context, share, length, width, seed=seed, most=most)
    gone: set[int] = set()

    def came(phase: str, answers: Mapping[int, Message]) -> dict[int, Message]:
        gone.update(lost.get(phase, ()))
        found = {}
        for device, message in answers.items():
            if device not in gone:
                body = encode_message(message)
                done.sent[device] = done.sent.get(device, 0) + len(body)
                if keep:
                    done.bodies[phase, device] = body
                found[device] = decode_message(body, type(message), max(length, 2 * len(vectors)))
        return found

    def handed_on(answers: Mapping[int, Message]) -> dict[int, Message]:
        found = {}
        for device, message in answers.items():
            body = encode_message(message)
            if device not in gone:
                done.received[device] = done.received.get(device, 0) + len(body)
                found[device] = decode_message(body, type(message), max(length, 2 * len(vectors)))
        return found

    adverts = came("keys", {device: own.advertise() for device, own in devices.items()})
    known = handed_on(server.introduce(adverts))
    done.neighbours = max(map(len, server.graph.values()))
    shared = came("shares", {device: devices[device].share(found) for device, found in known.items()})
    handed = handed_on(server.hand_on(shared))
    masked = came(
        "masked",
        {device: devices[device].mask(found, vectors[device], width) for device, found in handed.items()},
    )
    for device, numbers in masked.items():
        server.add(device, numbers)
    rolls = handed_on(server.call_roll())
    revealed = came("unmasking", {device: devices[device].reveal(roll) for device, roll in rolls.items()})
    done.total, done.devices = server.total(revealed), tuple(sorted(masked))
    return done
