"""Messages of a secure sum to bytes and back, of sizes known beforehand. Whole numbers are little-endian.

every body       "SFS1", kind (1 byte), width of a number (1 byte), 2 bytes of zero, count (4 bytes)
Advert           its two keys, 32 bytes each
Neighbours       of each: device (4 bytes), its two keys
SealedShares     fingerprint (32 bytes; zeros on the way down); of each: device (4), the box (82)
MaskedVector     the numbers, ``width`` bytes each
Roll             of each: device (4), 1 where it is in the sum and 0 where it is lost (1)
RevealedShares   of each: device (4), 1 for its mask and 0 for its key (1), the share (33)
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, TypeVar

from sflam.errors import WireError
from sflam.secure.messages import (
    KEY_BYTES,
    TAG_BYTES,
    Advert,
    MaskedVector,
    Neighbours,
    RevealedShares,
    Roll,
    SealedShares,
)
from sflam.secure.ring import from_bytes, to_bytes
from sflam.secure.shamir import SHARE_BYTES

SecureMessage = Advert | Neighbours | SealedShares | MaskedVector | Roll | RevealedShares
MAGIC = b"SFS1"
HEAD = struct.Struct("<4sBBHI")
HEAD_BYTES = HEAD.size
DEVICE_BYTES = 4
BOX_BYTES = 2 * SHARE_BYTES + TAG_BYTES
EACH: dict[type[SecureMessage], int] = {
    Advert: 2 * KEY_BYTES,
    Neighbours: DEVICE_BYTES + 2 * KEY_BYTES,
    SealedShares: DEVICE_BYTES + BOX_BYTES,
    Roll: DEVICE_BYTES + 1,
    RevealedShares: DEVICE_BYTES + 1 + SHARE_BYTES,
}
"""Kind of message -> bytes of one entry; those of :class:`MaskedVector` have its width."""
Message = TypeVar("Message", Advert, Neighbours, SealedShares, MaskedVector, Roll, RevealedShares)
KINDS: tuple[type[SecureMessage], ...] = (
    Advert,
    Neighbours,
    SealedShares,
    MaskedVector,
    Roll,
    RevealedShares,
)


def body_bytes(kind: type[SecureMessage], count: int, width: int = 0) -> int:
    """Return the bytes of a body of ``count`` entries; of masked numbers ``width`` bytes each."""
    return HEAD_BYTES + KEY_BYTES * (kind is SealedShares) + count * EACH.get(kind, width)


def bytes_up(numbers: int, width: int, others: int) -> int:
    """Return the bytes of all that a device sends for a sum.

    Args:
        numbers: L, those of its vector.
        width: bytes of each.
        others: its neighbours.
    """
    return (
        body_bytes(Advert, 1)
        + body_bytes(SealedShares, others)
        + body_bytes(MaskedVector, numbers, width)
        + body_bytes(RevealedShares, others + 1)
    )


def bytes_down(others: int) -> int:
    """Return the bytes of all that a device with so many neighbours receives for a sum."""
    return body_bytes(Neighbours, others) + body_bytes(SealedShares, others) + body_bytes(Roll, others)


def encode_message(message: SecureMessage) -> bytes:
    """Return the body of a message."""
    kind, first = type(message), b""
    if isinstance(message, MaskedVector):
        return _head(kind, message.width, len(message.values)) + to_bytes(message.values, message.width)
    if isinstance(message, Advert):
        entries = [message.box + message.mask]
    elif isinstance(message, Neighbours):
        entries = [_device(d) + own.box + own.mask for d, own in sorted(message.adverts.items())]
    elif isinstance(message, SealedShares):
        first = message.fingerprint or bytes(KEY_BYTES)
        entries = [_device(d) + box for d, box in sorted(message.boxes.items())]
    elif isinstance(message, Roll):
        flags = {d: True for d in message.present} | {d: False for d in message.lost}
        entries = [_device(d) + _flag(there) for d, there in sorted(flags.items())]
    else:
        masks = [(d, True, share) for d, share in message.masks.items()]
        keys = [(d, False, share) for d, share in message.keys.items()]
        entries = [
            _device(d) + _flag(there) + share.to_bytes(SHARE_BYTES, "big")
            for d, there, share in sorted(masks + keys)
        ]
    return _head(kind, 0, len(entries)) + first + b"".join(entries)


def decode_message(body: bytes, kind: type[Message], most: int) -> Message:
    """Return the message of a body.

    Args:
        body: as it came.
        kind: of message that is agreed.
        most: entries of it, or numbers of a masked vector.

    Raises:
        WireError: another kind, a wrong size, or an entry that cannot be.
    """
    if len(body) < HEAD_BYTES:
        raise WireError(f"{len(body)} bytes are no message of a secure sum, which has {HEAD_BYTES} at least")
    magic, number, width, zero, count = HEAD.unpack_from(body)
    if magic != MAGIC or zero or not number < len(KINDS) or KINDS[number] is not kind:
        raise WireError(f"a body is no {kind.__name__} of a secure sum, which was agreed; restart the round")
    if count > most or (kind is MaskedVector) != (width > 0) or len(body) != body_bytes(kind, count, width):
        raise WireError(
            f"a {kind.__name__} has {count} entries in {len(body)} bytes; at most {most}, of the size agreed, may come"
        )
    found: Any = _PARTS[kind](memoryview(body)[HEAD_BYTES:], width)
    return found  # type: ignore[no-any-return]


def _head(kind: type[SecureMessage], width: int, count: int) -> bytes:
    return HEAD.pack(MAGIC, KINDS.index(kind), width, 0, count)


def _device(device: int) -> bytes:
    return device.to_bytes(DEVICE_BYTES, "little")


def _flag(there: bool) -> bytes:
    return bytes((there,))


def _entries(raw: memoryview, kind: type[SecureMessage]) -> dict[int, bytes]:
    """Return device -> the rest of its entry.

    Raises:
        WireError: a device has two.
    """
    size = EACH[kind]
    each = [bytes(raw[at : at + size]) for at in range(0, len(raw), size)]
    found = {int.from_bytes(one[:DEVICE_BYTES], "little"): one[DEVICE_BYTES:] for one in each}
    if len(found) != len(each):
        raise WireError(f"a {kind.__name__} names a device twice; restart the round")
    return found


def _flagged(raw: memoryview, kind: type[SecureMessage]) -> tuple[dict[int, bytes], dict[int, bytes]]:
    """Return the entries whose flag is 1, and those where it is 0, without it."""
    found = _entries(raw, kind)
    if any(one[0] > 1 for one in found.values()):
        raise WireError(f"a {kind.__name__} has a flag that is neither 0 nor 1; restart the round")
    there = {device: one[1:] for device, one in found.items() if one[0]}
    return there, {device: one[1:] for device, one in found.items() if not one[0]}


def _advert(raw: bytes) -> Advert:
    return Advert(box=raw[:KEY_BYTES], mask=raw[KEY_BYTES:])


def _adverts(raw: memoryview, width: int) -> Advert:
    if len(raw) != EACH[Advert]:
        raise WireError("an Advert has other than one entry; restart the round")
    return _advert(bytes(raw))


def _neighbours(raw: memoryview, width: int) -> Neighbours:
    return Neighbours(adverts={device: _advert(one) for device, one in _entries(raw, Neighbours).items()})


def _sealed(raw: memoryview, width: int) -> SealedShares:
    mark = bytes(raw[:KEY_BYTES])
    boxes = _entries(raw[KEY_BYTES:], SealedShares)
    return SealedShares(boxes=boxes, fingerprint=mark if any(mark) else b"")


def _masked(raw: memoryview, width: int) -> MaskedVector:
    return MaskedVector(values=from_bytes(bytes(raw), width), width=width)


def _roll(raw: memoryview, width: int) -> Roll:
    present, lost = _flagged(raw, Roll)
    return Roll(present=tuple(present), lost=tuple(lost))


def _revealed(raw: memoryview, width: int) -> RevealedShares:
    masks, keys = _flagged(raw, RevealedShares)
    return RevealedShares(
        masks={device: int.from_bytes(one, "big") for device, one in masks.items()},
        keys={device: int.from_bytes(one, "big") for device, one in keys.items()},
    )


_PARTS: dict[type[SecureMessage], Callable[[memoryview, int], SecureMessage]] = {
    Advert: _adverts,
    Neighbours: _neighbours,
    SealedShares: _sealed,
    MaskedVector: _masked,
    Roll: _roll,
    RevealedShares: _revealed,
}
