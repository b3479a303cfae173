"""The server's part of one sum: it hands on what devices send each other, and learns the sum of those who remained.

Phase by phase devices may be lost. What each phase's last message makes of the sum:

    keys        the device is not in it, and no other has a mask with it
    shares      the same
    masked      it is not in it; its neighbours' shares of its key take its masks off the others' numbers
    unmasking   it is in it; its neighbours' shares of its mask take that off
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from sflam.errors import SecureSumError, WireError
from sflam.secure.device_side import LEAST_NEIGHBOURS, add, between, too_few
from sflam.secure.graph import degree, fewest, neighbours, threshold
from sflam.secure.keys import KeyPair, fingerprint, stretched
from sflam.secure.messages import (
    Advert,
    MaskedVector,
    Neighbours,
    RevealedShares,
    Roll,
    SealedShares,
)
from sflam.secure.ring import Vector, top
from sflam.secure.shamir import join


class SummingServer:
    """One sum; it takes the messages of a phase, which the answers of the phase end.

    Args:
        context: as the devices have it.
        share: of the holders of a secret that give it back.
        length: L, the numbers of a device.
        width: bytes of a number.
        seed: of the order of devices in large rounds.
        most: neighbours of a device; None takes those that are safe.
    """

    def __init__(
        self, context: bytes, share: float, length: int, width: int, *, seed: int = 0, most: int | None = None
    ) -> None:
        self._context, self._share = context, share
        self.length, self.width = length, width
        self._seed, self._most = seed, most
        self.adverts: dict[int, Advert] = {}
        self.graph: dict[int, tuple[int, ...]] = {}
        self.shared: dict[int, SealedShares] = {}
        self.masked: set[int] = set()
        self._added: Vector = np.zeros(length, np.uint64)
        self.wrong: set[int] = set()
        """Devices whose shares belonged to no secret; those of the others sufficed."""
        self.revealed: dict[int, RevealedShares] = {}
        self._rolls: dict[int, Roll] = {}

    def introduce(self, adverts: Mapping[int, Advert]) -> dict[int, Neighbours]:
        """End the first phase with the keys that came; return for each device those of its neighbours.

        Raises:
            SecureSumError: fewer than three devices came.
        """
        self.adverts = dict(adverts)
        devices = sorted(self.adverts)
        if len(devices) <= LEAST_NEIGHBOURS:
            raise SecureSumError(
                f"{len(devices)} devices came to a secure sum; it takes {LEAST_NEIGHBOURS + 1}, "
                "or what one trained would show"
            )
        most = self._most or degree(len(devices), self._share)
        self.graph = neighbours(devices, most, self._seed)
        return {
            device: Neighbours(adverts={other: self.adverts[other] for other in self.graph[device]})
            for device in devices
        }

    def hand_on(self, shared: Mapping[int, SealedShares]) -> dict[int, SealedShares]:
        """End the second phase with the shares that came; return for each device those that are for it.

        Raises:
            SecureSumError: too few remain.
            WireError: shares for others than its neighbours.
        """
        for device, found in shared.items():
            if set(found.boxes) != set(self.graph.get(device, ())):
                raise WireError(
                    f"device {device} sent shares for others than its neighbours; restart the round"
                )
        self.shared = dict(shared)
        self._expect(self.shared)
        return {
            device: SealedShares(
                boxes={
                    other: self.shared[other].boxes[device] for other in self.graph[device] if other in shared
                }
            )
            for device in sorted(self.shared)
        }

    def add(self, device: int, found: MaskedVector) -> None:
        """Add a device's numbers to those that came in the third phase; only their sum is kept.

        Raises:
            WireError: numbers of another count or width, or of a device that shared no secrets.
        """
        if device not in self.shared or len(found.values) != self.length or found.width != self.width:
            raise WireError(
                f"device {device} sent {len(found.values)} masked numbers of {found.width} bytes; "
                f"{self.length} of {self.width} were agreed"
            )
        assert device not in self.masked, "numbers are added once"
        self.masked.add(device)
        self._added += found.values

    def call_roll(self) -> dict[int, Roll]:
        """End the third phase with the numbers that were added; return for each device which secrets are asked for.

        Raises:
            SecureSumError: too few remain.
        """
        self._expect(self.masked)
        for device in sorted(self.masked):
            others = [other for other in self.graph[device] if other in self.shared]
            self._rolls[device] = Roll(
                present=tuple(other for other in others if other in self.masked),
                lost=tuple(other for other in others if other not in self.masked),
            )
        return dict(self._rolls)

    def total(self, revealed: Mapping[int, RevealedShares]) -> Vector:
        """Return the sum [L] of the numbers that came, modulo 2^(8 w), by the shares that came of their masks.

        Raises:
            SecureSumError: too few shares of a secret came, or wrong ones.
            WireError: others than were asked for.
        """
        for device, found in revealed.items():
            roll = self._rolls.get(device)
            if roll is None or {*found.masks} != {*roll.present, device} or {*found.keys} != {*roll.lost}:
                raise WireError(
                    f"device {device} revealed other shares than it was asked for; restart the round"
                )
        self.revealed = dict(revealed)
        self._expect(self.revealed, threshold(self._share, len(self.adverts)))
        total = self._added.copy()
        for device in sorted(self.masked):
            total -= stretched(self._mask_of(device), self.length, self.width)
        for lost in sorted(self.shared.keys() - self.masked):
            left = [other for other in self.graph[lost] if other in self.masked]
            if left:
                pair = self._pair_of(lost)
                for other in left:
                    key = pair.agree(self.adverts[other].mask, between(self._context, lost, other))
                    add(total, stretched(key, self.length, self.width), lost, other)
        total &= top(self.width)
        return total

    def _mask_of(self, device: int) -> bytes:
        """Return the secret of the own mask of a device in the sum."""
        shares = {
            holder: came.masks[device] for holder, came in self.revealed.items() if device in came.masks
        }
        mark = self.shared[device].fingerprint
        return self._secret(device, shares, lambda secret: fingerprint(secret) == mark)

    def _pair_of(self, device: int) -> KeyPair:
        """Return the keys of a lost device."""
        shares = {holder: came.keys[device] for holder, came in self.revealed.items() if device in came.keys}
        public = self.adverts[device].mask
        return KeyPair(self._secret(device, shares, lambda secret: KeyPair(secret).public == public))

    def _secret(self, device: int, shares: Mapping[int, int], right: Callable[[bytes], bool]) -> bytes:
        """Return the secret of shares by holder, one of whom may have sent a wrong one where others suffice.

        Raises:
            SecureSumError: too few, or more wrong ones.
        """
        enough = threshold(self._share, 1 + len(self.graph[device]))
        good = {holder: share for holder, share in shares.items() if holder not in self.wrong}
        for out in (None, *sorted(good)):
            rest = {holder + 1: share for holder, share in good.items() if holder != out}
            if out is not None and len(rest) < enough:
                break
            secret = join(rest, enough, right)
            if secret is not None:
                self.wrong |= set() if out is None else {out}
                return secret
        raise SecureSumError(f"shares of a secret of device {device} are wrong; begin the round anew")

    def _expect(self, left: Collection[int], enough: int = 0) -> None:
        """Raise SecureSumError where fewer devices are left than ``enough``; by default, than may be in a sum."""
        enough = enough or fewest(self._share, len(self.adverts))
        if len(left) < enough:
            raise SecureSumError(too_few(len(left), len(self.adverts), enough))
