"""How long a round may last, and how long it goes on once its quorum is there: from what the last rounds took.

deadline   the first round has 3600 s; a later one 4 times the longest of the last five, at least 10 times the patience
grace      once a quorum has delivered, every other device may take twice what it took in its last round; one whose
           last round is not known, 3 times what the quorum took; and at least the patience more

A device that was at work when it was left out gets, once, twice the time that it would have taken, or six times that of
the round if this is less. If it is late again, it counts as not known until it delivers. So a slow device takes part,
and one that drags its feet costs the fleet one long round.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping

from sflam.records.history import RoundRecord

FIRST = 3600.0
"""Seconds that the first round may last."""
LAST = 5
"""Rounds that count."""


class Pace:
    """What the last rounds took, and what the next may take, s.

    Args:
        patience: seconds of silence after which a device counts as absent.
        deadline: of every round; None learns it.
        grace: after the quorum; None learns it.
    """

    def __init__(self, patience: float, deadline: float | None = None, grace: float | None = None) -> None:
        self.patience, self._deadline, self._grace = patience, deadline, grace
        self._rounds: deque[float] = deque(maxlen=LAST)
        self._devices: dict[int, float] = {}
        self._late: Counter[int] = Counter()
        """Rounds in a row that a device was left out of while at work."""

    def deadline(self, opening: int = 1) -> float:
        """Return the seconds a round may last, a learned one longer where it is opened once more."""
        if self._deadline is not None:
            return self._deadline
        return opening * max(10 * self.patience, 4 * max(self._rounds)) if self._rounds else FIRST

    def grace(self, elapsed: float, devices: Iterable[int]) -> float:
        """Return the seconds a round goes on for ``devices`` when the others were done after ``elapsed``."""
        if self._grace is not None:
            return self._grace
        needed = [2 * self._devices.get(device, 1.5 * elapsed) - elapsed for device in devices]
        return max(self.patience, *needed)

    def learn(self, records: Iterable[RoundRecord]) -> None:
        """Note the rounds of a run that is gone on with."""
        for record in records:
            if record.measured is not None:
                finish = dict(zip(record.participants, record.measured.finish, strict=False))
                self.closed(finish, {}, record.measured.seconds)

    def closed(
        self, finish: Mapping[int, float], made: Mapping[int, tuple[int, int]], seconds: float
    ) -> None:
        """Note a round.

        Args:
            finish: device -> seconds until its adapters came.
            made: device that was left out at work -> the steps it made, and all it had to make.
            seconds: of the round.
        """
        for device, took in finish.items():
            if took:
                self._devices[device] = took
                self._late.pop(device, None)
        for device, (done, of) in made.items():
            self._late[device] += 1
            if done and self._late[device] == 1:
                self._devices[device] = seconds * min(3, of / done)
            else:
                self._devices.pop(device, None)
        self._rounds.append(seconds)
