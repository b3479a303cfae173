"""What devices and server send each other for one sum, phase by phase.

phase          up                                    down
1 keys         Advert: two public keys               Neighbours: those of its neighbours
2 shares       SealedShares: of its secrets          SealedShares: those of its neighbours, for it
3 masked       MaskedVector: its numbers, masked     Roll: which neighbours' numbers came
4 unmasking    RevealedShares: of neighbours
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sflam.secure.ring import Vector

KEY_BYTES = 32
TAG_BYTES = 16
PHASES = ("keys", "shares", "masked", "unmasking")


def context_of(run: str, round: int, attempt: int) -> bytes:
    """Return what the sum of one opening of a round has in common, and no other sum has."""
    return b"sflam run %s round %d attempt %d" % (run.encode(), round, attempt)


@dataclass(frozen=True, kw_only=True)
class Advert:
    """The public keys of a device.

    Attributes:
        box: 32 bytes, by which shares are sealed.
        mask: 32 bytes, by which masks are agreed.
    """

    box: bytes
    mask: bytes


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """The public keys of a device's neighbours.

    Attributes:
        adverts: neighbour -> its keys.
    """

    adverts: Mapping[int, Advert]


@dataclass(frozen=True, kw_only=True)
class SealedShares:
    """A device's shares for its neighbours on the way up; its neighbours' shares for it on the way down.

    Attributes:
        boxes: neighbour -> the sealed share of either's two secrets.
        fingerprint: of the secret of the device's own mask, by which the server sees that it got it right; empty on the
            way down.
    """

    boxes: Mapping[int, bytes]
    fingerprint: bytes = b""


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedVector:
    """A device's numbers with its masks added.

    Attributes:
        values: [L], modulo 2^(8 width).
        width: bytes of a number.
    """

    values: Vector
    width: int


@dataclass(frozen=True, kw_only=True)
class Roll:
    """Which neighbours' numbers came to the sum: of each, the share of one secret is asked.

    Attributes:
        present: those in the sum.
        lost: those that shared their secrets, and are not.
    """

    present: tuple[int, ...]
    lost: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class RevealedShares:
    """Shares of secrets of a device's neighbours, and of its own, which is in the sum.

    Attributes:
        masks: device in the sum -> a share of the secret of its own mask.
        keys: lost device -> a share of the secret key by which it agreed on masks.
    """

    masks: Mapping[int, int]
    keys: Mapping[int, int]
