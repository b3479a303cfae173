"""How what a device trained is summed under masks: four exchanges, after which the server knows the sum alone.

    POST {opening}/sum/keys        its public keys up, those of its neighbours down
    POST {opening}/sum/shares      shares of its secrets for them up, sealed; theirs for it down
    POST {opening}/sum/masked      its numbers under masks up, whose numbers came down
    POST {opening}/sum/unmasking   of each neighbour the share of one secret up

An answer waits for the other devices of the phase. Keys and secrets are of one opening and one life of the device: one
that dies in the middle is lost to that sum. This file needs the cryptography library.
"""

from __future__ import annotations

from sflam.codec.common_grid import is_grid
from sflam.codec.summed_change import counted_change
from sflam.data.counting import counts_of
from sflam.errors import Refused, SecureSumError, WireError
from sflam.learn.settings import LearnSettings
from sflam.link.https_client import Link
from sflam.link.place import Place
from sflam.link.round_work import RoundWork
from sflam.secure.bodies import Message, SecureMessage, body_bytes, decode_message, encode_message
from sflam.secure.device_side import MaskingDevice
from sflam.secure.messages import Neighbours, Roll, SealedShares, context_of
from sflam.secure.ring import Vector, weighted

REASONS = 1 << 12
"""Bytes of an answer there may be at least: a refusal says why."""


class MaskedWay:
    """The sums of a device's rounds.

    Args:
        link: the way to the server.
        place: its number, run and samples.
        learn: how a round is run.
        bits: of a code.
        devices: most there may be in a sum.
        share: of the holders of a secret that give it back; the job's, and not of the server's choice.
    """

    def __init__(
        self, link: Link, place: Place, learn: LearnSettings, bits: int, devices: int, share: float
    ) -> None:
        self._link, self._place, self._learn = link, place, learn
        self._bits, self._devices, self._share = bits, devices, share

    def deliver(self, work: RoundWork, headers: dict[str, str]) -> None:
        """Take part in the sum of a round.

        Args:
            work: what the device trained.
            headers: of its first request.

        Raises:
            Refused: 409, this device is not in the sum, or cannot be; it waits for the next opening.
        """
        place, at = self._place, f"/v1/rounds/{work.round}/{work.attempt}/sum"
        try:
            numbers = self._numbers(work)
            own = MaskingDevice(place.number, context_of(place.run, work.round, work.attempt), self._share)
            known = self._asked(f"{at}/keys", own.advertise(), Neighbours, headers)
            handed = self._asked(f"{at}/shares", own.share(known), SealedShares)
            roll = self._asked(f"{at}/masked", own.mask(handed, numbers, work.width), Roll)
            self._link.call("POST", f"{at}/unmasking", encode_message(own.reveal(roll)), most=REASONS)
        except (SecureSumError, WireError) as error:
            raise Refused(409, f"this device leaves the secure sum: {error}") from error

    def _numbers(self, work: RoundWork) -> Vector:
        """Return what this device adds to the sum; it counts as much as it says itself, and not the server."""
        if not work.width or not is_grid(work.grid):
            raise WireError("the server gave neither the width of a sum nor grids; use one version of sflam")
        codes, marks = counted_change(
            work.values,
            work.start,
            work.grid,
            self._bits,
            seed=self._place.seed,
            round=work.round,
            device=self._place.number,
        )
        held = len(self._place.own)
        weight = counts_of(self._learn, self._place.sampling, work.samples, held)
        return weighted(codes, weight, work.width, marks)

    def _asked(
        self, path: str, message: SecureMessage, kind: type[Message], headers: dict[str, str] | None = None
    ) -> Message:
        """Return what the server answers to a phase."""
        most = max(REASONS, body_bytes(kind, self._devices))
        return decode_message(
            self._link.call("POST", path, encode_message(message), headers, most=most), kind, self._devices
        )
