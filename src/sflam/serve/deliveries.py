"""What the devices of a round delivered: both sides of the cut of each, judged before anything is averaged."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sflam.codec.messages import AdapterFrame, ChangeFrame
from sflam.learn.adapter_exchange import arrived, flatten, unflatten
from sflam.learn.finite import is_finite
from sflam.learn.screening import Screen, Screened, Trained, reach_of
from sflam.learn.settings.schedule import Moment
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import State
from sflam.serve.event_log import EventLog
from sflam.serve.quarantine import Quarantine

Result = tuple[AdapterFrame | ChangeFrame | None, float, int]
"""What a device sent at the end of a round: its adapters, its mean loss, the bytes of the body."""


class Deliveries:
    """Judges what came of the steps of a round, and remembers who sits out.

    Args:
        local: the job's simulated fleet, whose trunks hold what was trained behind the cut.
        screen: the rule.
        notify: shows a line to the user of the server.
        event_log: one line per event.
    """

    def __init__(
        self, local: LocalFleet, screen: Screen, notify: Callable[[str], None], event_log: EventLog
    ) -> None:
        self.local, self.screen, self.notify, self.event_log = local, screen, notify, event_log
        self.quarantine = Quarantine()

    def finite(self, results: Mapping[int, Result]) -> dict[int, Result]:
        """Return the results of the devices whose copy of the server's adapters is finite."""
        row = self.local.servers.row
        return {device: result for device, result in results.items() if is_finite(row(device))}

    def judged(
        self, round: int, results: Mapping[int, Result], start: State, moments: Mapping[int, Sequence[Moment]]
    ) -> dict[int, State]:
        """Return device -> what counts of what it trained, without the refused, who are named and sit rounds out.

        Args:
            round: its number.
            results: device -> what it sent.
            start: the global adapters of the round's beginning.
            moments: device -> the steps it made.
        """
        trained = {device: self.sides(device, result, start) for device, result in results.items()}
        sides = self.screened(round, trained, {device: moments[device] for device in results})
        return {device: self.whole(device, own, start) for device, own in sides.items()}

    def screened(
        self,
        round: int,
        trained: Mapping[int, Sequence[Trained]],
        moments: Mapping[int, Sequence[Moment]],
        of: Mapping[int, int] | None = None,
    ) -> dict[int, tuple[State, ...]]:
        """Return key -> what counts of what was trained, side by side, without the refused.

        Args:
            round: its number.
            trained: key -> what was trained, as :meth:`sides` returns it.
            moments: key -> the steps that were made for it.
            of: key -> its device; keys are devices by default.
        """
        reach = {key: reach_of(self.local.learn, moments[key]) for key in trained}
        found = self.screen(trained, reach)
        self._report(round, found, of or {key: key for key in trained})
        return found.sides

    def counted(self, devices: Sequence[int]) -> None:
        """Note that a round counts, with the work of these devices."""
        for device in devices:
            self.quarantine.counted(device)

    def sides(self, device: int, result: Result, start: State) -> tuple[Trained, Trained]:
        """Return what a device trained before the cut and, where it has a copy of its own, behind it.

        Args:
            device: whose it is.
            result: what it sent.
            start: the global adapters that it began with.
        """
        ranks = self.local.ranks
        names, message = self.local.devices.names(device), result[0]
        before = Trained({}, {})
        if message is not None:
            like = ranks.own(device, start, names)
            values = arrived(message, flatten(like, names))
            rounding = self.local.adapters.rounding(like, names)
            before = Trained(like, unflatten(values, like, names), rounding)
        if self.local.servers.shared:
            return before, Trained({}, {})
        theirs = self._served(device)
        begun = {name: start[name].to(tensor) for name, tensor in theirs.items()}
        return before, Trained(ranks.truncated(device, begun), theirs)

    def _served(self, device: int) -> State:
        """Return what is averaged of the server's copy for a device."""
        trunk = self.local.servers.trunk_of(device)
        theirs = trunk.segment.stack.read(trunk.copy_of(device))
        names = trunk.segment.names(self.local.devices.cuts[device], device)
        shared = self.local.personal.shared(names)
        return {name: theirs[name] for name in shared}

    def whole(self, device: int, sides: tuple[State, ...], start: State) -> State:
        """Return what counts of both sides of a device, by name, which began with ``start``."""
        own, theirs = sides
        padded = self.local.ranks.padded(device, own, start) if own else {}
        return padded | (self._served(device) if self.local.servers.shared else theirs)

    def _report(self, round: int, found: Screened, of: Mapping[int, int]) -> None:
        """Name the devices that were refused, or whose differences were shortened."""
        for key, reason in found.refused.items():
            device = of[key]
            rounds = self.quarantine.strike(device, round)
            self.notify(
                f"round {round + 1}: what device {device} trained is refused ({reason}); it sits out {rounds} "
                f"round{'s' * (rounds > 1)}"
            )
            self.event_log("distrusted", device=device, round=round, reason=reason, sits_out=rounds)
        for key, times in found.clipped.items():
            device = of[key]
            self.notify(
                f"round {round + 1}: what device {device} trained is shortened: it moved {times:.3g} times as far as "
                "the others allow"
            )
            self.event_log("clipped", device=device, round=round, times=_round_figures(times))


def _round_figures(value: float) -> float:
    """Return a number with four significant figures."""
    return float(f"{value:.4g}")


def shortfall(
    round: int,
    attempt: int,
    came: Mapping[int, Result],
    sound: Mapping[int, Result],
    quorum: int,
    rows: int,
    lacking: str = "",
) -> tuple[str, str]:
    """Return what an opening of a round lacked, and what to do about it.

    Args:
        round: its number.
        attempt: of the opening.
        came: device -> what it sent.
        sound: those of them that count.
        quorum: devices it needed.
        rows: they have between them.
        lacking: why what came could not be brought together, where enough came.
    """
    if lacking:
        return f"round {round + 1}, attempt {attempt}: {lacking}", "bring devices back"
    short = f"round {round + 1}, attempt {attempt}: {len(sound)} of at least {quorum} devices delivered"
    if sound and not rows:
        short += ", none of them with rows"
    if refused := sorted(came.keys() - sound.keys()):
        short += f"; what devices {', '.join(map(str, refused))} trained was refused"
        return short, "see served.jsonl for why, and revoke devices that are not sound"
    return short, "bring devices back, lower --quorum or raise --deadline"
