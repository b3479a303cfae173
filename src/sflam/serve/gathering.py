"""Who is waited for before a round opens, and until when: an absent device is waited for once."""

from __future__ import annotations

from collections.abc import Callable, Set

from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog


class Gathering:
    """The wait for the devices of a round.

    A device that came once and fell silent has been waited for already, for the patience; one that never came is waited
    for ``seconds``. Neither is waited for again before it comes. Below the quorum there is no limit.

    Args:
        dispatch: where devices arrive.
        seconds: for devices that never came.
        notify: shows a line to the user of the server.
        event_log: one line per event.
        held: returns why a round may not begin, whatever devices are here; "" where it may.
    """

    def __init__(
        self,
        dispatch: Dispatch,
        seconds: float,
        notify: Callable[[str], None],
        event_log: EventLog,
        held: Callable[[int], str] = lambda round: "",
    ) -> None:
        self.dispatch, self.seconds, self.notify, self.event_log = dispatch, seconds, notify, event_log
        self.held, self._given_up = held, set[int]()

    def wait(
        self,
        round: int,
        needed: Callable[[], Set[int]],
        without: Callable[[], Set[int]] = frozenset,
    ) -> tuple[int, ...]:
        """Wait until the devices ``needed`` are here, or enough others; return those present.

        Devices in ``without`` take no part in the round and count as absent.
        """
        session, clock = self.dispatch.session, self.dispatch.clock
        until, began = 0.0, clock()
        shown: object = None

        def enough(present: tuple[int, ...]) -> bool:
            nonlocal until, shown
            if reason := self.held(round):
                session.wait_for((), None)
                if shown != reason:
                    shown = reason
                    self.notify(f"round {round + 1}: {reason}")
                    self.event_log("held", round=round, reason=reason)
                return False
            now, wanted, there = clock(), needed(), set(present) - without()
            fewest = min(session.quorum, len(wanted))
            here = len(there) >= fewest
            self._given_up -= there
            missing = wanted - there
            awaited = missing - self._given_up - session.silent(now)
            if here and not until:  # those that come in the wake of the last one needed
                until = max(began + self.seconds, now + min(self.seconds, session.patience))
            if here and now >= until:
                self._given_up |= awaited
                awaited = set()
            if not missing or (here and not awaited):
                session.wait_for((), None, fewest)
                return True
            session.wait_for(awaited if here else missing, until if here else None, fewest)
            if shown != (found := (session.wanted, here)):
                shown = found
                self._report(round, now, len(there))
            return False

        return self.dispatch.wait_present(enough)

    def _report(self, round: int, now: float, present: int) -> None:
        session = self.dispatch.session
        left = None if session.until is None else session.until - now
        limit = f", for at most {left:.0f} s" if left is not None else ""
        devices = ", ".join(map(str, session.wanted))
        self.notify(
            f"round {round + 1}: waiting for devices {devices} ({present} are here, at least {session.fewest} needed)"
            f"{limit}"
        )
        self.event_log(
            "waiting",
            round=round,
            devices=list(session.wanted),
            present=present,
            quorum=session.fewest,
            seconds=left,
        )
