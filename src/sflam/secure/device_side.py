"""A device's part of one sum: four answers, in order, of which no other device and no server learns its numbers.

Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning" (CCS 2017). Device u adds to its
numbers x_u the masks

    y_u = x_u + PRG(b_u) + sum over neighbours v > u of PRG(s_uv) - sum over neighbours v < u of PRG(s_uv)

modulo 2^(8 w), where s_uv is what its key and v's agree on, and b_u random. Its key and b_u are shared out among its
neighbours: if u is lost its key takes its masks off the others' numbers, and if it is not, b_u takes the last one off
the sum. Both would bare x_u, so a device reveals one of the two of each neighbour, once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from sflam.errors import SecureSumError, WireError
from sflam.secure.graph import LEAST_DEVICES, fewest, threshold
from sflam.secure.keys import KeyPair, fingerprint, opened, seal, stretched
from sflam.secure.messages import (
    Advert,
    MaskedVector,
    Neighbours,
    RevealedShares,
    Roll,
    SealedShares,
)
from sflam.secure.ring import Vector, top
from sflam.secure.shamir import SECRET_BYTES, SHARE_BYTES, split

LEAST_NEIGHBOURS = LEAST_DEVICES - 1


class MaskingDevice:
    """One device in one sum; keys and secrets are fresh ones, and serve for it alone.

    Args:
        device: its number.
        context: what all devices of the sum have in common, and no other sum has: run, round, attempt.
        share: of the holders of a secret that give it back, above 0.5 and at most 1.
    """

    def __init__(self, device: int, context: bytes, share: float) -> None:
        self.device, self._context, self._share = device, context, share
        self._box, self._pair = KeyPair(), KeyPair()
        self._seed = secrets.token_bytes(SECRET_BYTES)
        self._adverts: Mapping[int, Advert] = {}
        self._own = (0, 0)
        """Its own shares of its two secrets: of its mask, of its key."""
        self._kept: dict[int, tuple[int, int]] = {}
        """Neighbour -> its shares of either secret of that neighbour."""
        self._revealed: Roll | None = None

    def advertise(self) -> Advert:
        """Return its public keys."""
        return Advert(box=self._box.public, mask=self._pair.public)

    def share(self, found: Neighbours) -> SealedShares:
        """Return shares of its secrets for its neighbours, each sealed.

        Raises:
            SecureSumError: too few neighbours, or twice.
            WireError: neighbours that cannot be.
        """
        if self._adverts:
            raise SecureSumError("secrets are shared out once; the round has to begin anew")
        if self.device in found.adverts or len(found.adverts) < LEAST_NEIGHBOURS:
            raise SecureSumError(
                f"{len(found.adverts)} other devices came to a secure sum; it takes {LEAST_NEIGHBOURS} at least, "
                "or what one trained would show"
            )
        public = [key for advert in found.adverts.values() for key in (advert.box, advert.mask)]
        if len({*public, self._box.public, self._pair.public}) != len(public) + 2:
            raise WireError("two devices of a secure sum have one public key; restart the round")
        self._adverts = dict(found.adverts)
        holders = [self.device, *self._adverts]
        enough = threshold(self._share, len(holders))
        places = [holder + 1 for holder in holders]
        masks, keys = (split(secret, places, enough) for secret in (self._seed, self._pair.secret))
        self._own = masks[self.device + 1], keys[self.device + 1]
        boxes = {}
        for other, advert in self._adverts.items():
            text = b"".join(part[other + 1].to_bytes(SHARE_BYTES, "big") for part in (masks, keys))
            boxes[other] = seal(self._box.agree(advert.box, self._way(self.device, other)), text)
        return SealedShares(boxes=boxes, fingerprint=fingerprint(self._seed))

    def mask(self, came: SealedShares, vector: Vector, width: int) -> MaskedVector:
        """Return its numbers [L] with masks, modulo 2^(8 width).

        Args:
            came: the shares of its neighbours that shared their secrets.
            vector: its numbers.
            width: bytes of a number.

        Raises:
            SecureSumError: too few neighbours shared theirs, or twice.
            WireError: a share that it cannot open, or of a stranger.
        """
        if not self._adverts or self._kept:
            raise SecureSumError(
                "numbers are masked once, after secrets were shared out; begin the round anew"
            )
        if not came.boxes.keys() <= self._adverts.keys():
            raise WireError("shares of a device that is no neighbour came; restart the round")
        self._expect(1 + len(came.boxes))
        kept = {}
        for other, box in came.boxes.items():
            text = opened(self._box.agree(self._adverts[other].box, self._way(other, self.device)), box)
            if len(text) != 2 * SHARE_BYTES:
                raise WireError(f"a share has {len(text)} bytes; {2 * SHARE_BYTES} were agreed")
            kept[other] = (
                int.from_bytes(text[:SHARE_BYTES], "big"),
                int.from_bytes(text[SHARE_BYTES:], "big"),
            )
        self._kept = kept
        values = vector + stretched(self._seed, len(vector), width)
        for other in kept:
            key = self._pair.agree(self._adverts[other].mask, between(self._context, self.device, other))
            add(values, stretched(key, len(vector), width), self.device, other)
        values &= top(width)
        return MaskedVector(values=values, width=width)

    def reveal(self, roll: Roll) -> RevealedShares:
        """Return its share of one secret of each neighbour: of the mask of one in the sum, of the key of one lost.

        Raises:
            SecureSumError: another roll than before, one that names a device twice or leaves one out, or too few left.
        """
        if self._revealed not in (None, roll):
            raise SecureSumError(
                "another roll came after shares were revealed; together they would bare a device"
            )
        named = [*roll.present, *roll.lost]
        if not self._kept or sorted(named) != sorted(self._kept):
            raise SecureSumError(
                f"a roll names {sorted(named)}; it must have each of the neighbours {sorted(self._kept)} once, "
                "in the sum or lost"
            )
        self._expect(1 + len(roll.present))
        self._revealed = roll
        masks = {other: self._kept[other][0] for other in roll.present}
        return RevealedShares(
            masks=masks | {self.device: self._own[0]},
            keys={other: self._kept[other][1] for other in roll.lost},
        )

    def _expect(self, left: int) -> None:
        """Raise SecureSumError where fewer holders of its secrets are left than give one back, or than hide it."""
        holders = 1 + len(self._adverts)
        enough = fewest(self._share, holders)
        if left < enough:
            raise SecureSumError(too_few(left, holders, enough))

    def _way(self, sender: int, receiver: int) -> bytes:
        return self._context + b" box %d %d" % (sender, receiver)


def between(context: bytes, one: int, other: int) -> bytes:
    """Return the purpose of the mask of two devices."""
    return context + b" mask %d %d" % (min(one, other), max(one, other))


def add(values: Vector, mask: Vector, device: int, other: int) -> None:
    """Add to ``device``'s values its mask with ``other``, which takes the same off its own; in place."""
    if device < other:
        values += mask
    else:
        values -= mask


def too_few(left: int, count: int, enough: int) -> str:
    """Return the sentence for a sum of which too few devices are left."""
    lower = ", or lower privacy.secure_threshold" if enough > LEAST_DEVICES else ""
    return f"{left} of {count} devices are left of a secure sum, and it takes {enough}; begin the round anew{lower}"
