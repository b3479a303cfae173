"""The secure sum of an open round: whose messages came phase by phase, what they are answered, and who is waited for.

No HTTP, no clock and no lock: callers hold the session's. A device is lost to a sum when its message of a phase does
not come in time, or when it comes to life anew, as its secrets are gone then. What it sent until then counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from sflam.errors import Refused, WireError
from sflam.secure.bodies import SecureMessage, body_bytes, encode_message
from sflam.secure.in_process import SecureSum
from sflam.secure.keys import expect_public
from sflam.secure.messages import (
    PHASES,
    Advert,
    MaskedVector,
    RevealedShares,
    Roll,
    SealedShares,
)
from sflam.secure.server_side import SummingServer

KEYS, SHARES, MASKED, UNMASKING = PHASES
KINDS: dict[str, type[Any]] = {
    KEYS: Advert,
    SHARES: SealedShares,
    MASKED: MaskedVector,
    UNMASKING: RevealedShares,
}
"""Phase -> what devices send in it."""


class OpenSum:
    """One sum.

    Args:
        round: number of the round.
        attempt: of its opening.
        server: the part that learns the sum.

    Attributes:
        phase: the one that is under way.
        members: devices whose message of it is waited for; of the first phase, all of the round.
        over: phase -> done when it is over, or the sum is off: for those who wait without a thread.
    """

    def __init__(self, round: int, attempt: int, server: SummingServer) -> None:
        self.round, self.attempt, self.server = round, attempt, server
        self.phase = KEYS
        self.members: frozenset[int] = frozenset()
        self.over: dict[str, Future[None]] = {phase: Future() for phase in PHASES}
        self._came: dict[str, dict[int, Any]] = {phase: {} for phase in PHASES}
        self._seals: dict[tuple[str, int], bytes] = {}
        self._answers: dict[str, dict[int, bytes]] = {phase: {} for phase in PHASES}
        self._rolls: dict[int, Roll] = {}
        self._sent, self._received = Counter[int](), Counter[int]()
        self._receiving, self._gone = Counter[int](), set[int]()
        self._off, self._since = "", 0.0

    # what requests call

    def came(self, device: int, phase: str) -> bool:
        """Return whether a device's message of a phase was taken."""
        return (phase, device) in self._seals

    def agreed(self, device: int, phase: str) -> tuple[type[SecureMessage], int, int]:
        """Return what a device sends in a phase: kind, entries, and bytes of a masked number.

        Raises:
            Refused: 409, the device has no part in it, or not now.
        """
        self._expect_on()
        due = phase == self.phase and (phase == KEYS or device in self.members)
        if not due and not self.came(device, phase):
            raise Refused(
                409,
                f"device {device} has no part in the phase {phase!r} of this secure sum, which is at {self.phase!r}; "
                "ask for the round",
            )
        if phase == SHARES:
            return SealedShares, len(self.server.graph[device]), 0
        if phase == MASKED:
            return MaskedVector, self.server.length, self.server.width
        if phase == UNMASKING:
            roll = self._rolls[device]
            return RevealedShares, 1 + len(roll.present) + len(roll.lost), 0
        return Advert, 1, 0

    def size(self, device: int, phase: str) -> int:
        """Return the bytes of a device's body in a phase; raises Refused as :meth:`agreed` does."""
        return body_bytes(*self.agreed(device, phase))

    def check(self, device: int, phase: str, message: Any, seal: bytes) -> None:
        """Raise an error where a message is not what the device may send, and change nothing.

        Raises:
            WireError: it holds something else than was agreed.
            Refused: 409, it is late, or another one was taken before.
        """
        self.agreed(device, phase)
        if self.came(device, phase):
            if self._seals[phase, device] != seal:
                raise Refused(
                    409, f"device {device} sent another body in the phase {phase!r} before; ask for the round"
                )
        elif phase == KEYS:
            self._check_keys(message)
        elif phase == SHARES:
            if message.boxes.keys() != set(self.server.graph[device]) or not message.fingerprint:
                raise WireError("shares are not for the neighbours that were named, one for each")
        elif phase == MASKED:
            if message.width != self.server.width or len(message.values) != self.server.length:
                raise WireError(
                    f"{len(message.values)} masked numbers of {message.width} bytes; {self.server.length} of "
                    f"{self.server.width} were agreed"
                )
        else:
            roll = self._rolls[device]
            if message.masks.keys() != {*roll.present, device} or message.keys.keys() != {*roll.lost}:
                raise WireError("shares of other secrets were revealed than were asked for")

    def take(self, device: int, phase: str, message: Any, seal: bytes) -> None:
        """Take a checked message; one that came before changes nothing."""
        if self.came(device, phase):
            return
        self._sent[device] += self.size(device, phase)
        self._seals[phase, device] = seal
        if phase == MASKED:  # of numbers the sum alone is kept
            self.server.add(device, message)
            message = None
        elif phase == UNMASKING:
            self._answers[phase][device] = b""
        self._came[phase][device] = message

    def answer(self, device: int, phase: str) -> bytes | None:
        """Return what a device's message is answered; None while others are waited for.

        Raises:
            Refused: 409, the device is not in the sum any more, or the sum is off.
        """
        self._expect_on()
        found = self._answers[phase].get(device)
        if found is None and self.over[phase].done():
            raise Refused(409, f"device {device} is not in this secure sum any more; wait for the next round")
        return found

    @contextmanager
    def receiving(self, device: int) -> Iterator[None]:
        """A body of a device arrives meanwhile."""
        self._receiving[device] += 1
        try:
            yield
        finally:
            self._receiving[device] -= 1

    def back(self, device: int) -> None:
        """Note that a device came to life anew, without the secrets that it had."""
        if self.came(device, KEYS):
            self._gone.add(device)

    # what the fleet calls

    def done(self, now: float, here: Collection[int], patience: float) -> bool:
        """Return whether a phase waits for no one: who lacks is away, or had its time, longer while its body comes."""
        lacking = self.members - self._came[self.phase].keys() - self._gone
        spent = now - self._since
        return not any(
            device in here and spent <= patience * (4 if self._receiving[device] else 1) for device in lacking
        )

    def introduce(self, devices: Collection[int], now: float) -> None:
        """End the first phase with the keys of ``devices``; raises SecureSumError where they are too few."""
        keys = self._came[KEYS]
        self._end(
            self.server.introduce({d: keys[d] for d in sorted(devices) if d in keys.keys() - self._gone}), now
        )

    def end(self, now: float) -> None:
        """End the phase of shares, or of numbers, with what came; raises SecureSumError where that is too little."""
        if self.phase == SHARES:
            self._end(self.server.hand_on(self._came[SHARES]), now)
        else:
            self._rolls = self.server.call_roll()
            self._end(self._rolls, now)

    def total(self) -> SecureSum:
        """Return the sum, by the shares that came; raises SecureSumError where they are too few, or wrong."""
        total = self.server.total(dict(self._came[UNMASKING]))
        near = max(map(len, self.server.graph.values()))
        devices = tuple(sorted(self.server.masked))
        wrong = tuple(sorted(self.server.wrong))
        return SecureSum(total, devices, near, dict(self._sent), dict(self._received), wrong=wrong)

    def end_off(self, reason: str) -> None:
        """Make no sum of it, or none any more; those who wait are refused for the ``reason``."""
        self._off = self._off or reason
        for future in self.over.values():
            if not future.done():
                future.set_result(None)

    def _end(self, answers: Any, now: float) -> None:
        """Answer those of a phase who go on to the next, which begins."""
        phase, self._since = self.phase, now
        self._answers[phase] = {device: encode_message(one) for device, one in answers.items()}
        for device, body in self._answers[phase].items():
            self._received[device] += len(body)
        self.members = frozenset(answers)
        self.phase = PHASES[PHASES.index(phase) + 1]
        self.over[phase].set_result(None)

    def _check_keys(self, advert: Advert) -> None:
        """Raise WireError for keys by which the other devices could agree on nothing."""
        own = (advert.box, advert.mask)
        others = {key for one in self._came[KEYS].values() for key in (one.box, one.mask)}
        if len({*own} - others) != len(own):
            raise WireError("a device of this secure sum has this public key already; make fresh ones")
        for key in own:
            expect_public(key)

    def _expect_on(self) -> None:
        if self._off:
            raise Refused(409, self._off)


class Sums:
    """The secure sum of the open round, where requests and the fleet meet; under the session's lock."""

    def __init__(self) -> None:
        self._now: OpenSum | None = None

    @property
    def width(self) -> int:
        """Bytes of a masked number; 0 before the first sum."""
        return 0 if self._now is None else self._now.server.width

    def begin(self, one: OpenSum) -> None:
        """Take up another sum; those who wait for the one before are refused."""
        self.end_off("the round is over; ask for the next")
        self._now = one

    def at(self, round: int, attempt: int) -> OpenSum:
        """Return the sum of an opening; raises Refused, 409, where it is not that of the open round."""
        if self._now is None or (round, attempt) != (self._now.round, self._now.attempt):
            raise Refused(409, f"round {round}, attempt {attempt} has no secure sum now; ask for the round")
        return self._now

    def back(self, device: int) -> None:
        """Note that a device came to life anew."""
        if self._now is not None:
            self._now.back(device)

    def end_off(self, reason: str) -> None:
        """Make no sum of what is open."""
        if self._now is not None:
            self._now.end_off(reason)
