"""What an operator has ordered and what stays in force: a pause, devices that are drained, devices out of a round.

Kept in the run folder, so that a server that was killed goes on with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from sflam.errors import ServeError
from sflam.files import from_json, reading, replace_file, writing
from sflam.serve.roster import Roster

ADVICE = "mend or delete it: without it nothing is paused or drained"


class Orders:
    """The orders of a run; read and changed under the lock of its session.

    Args:
        path: the file that holds them; None keeps them in memory alone.
        roster: the numbers of the devices, which orders name; None knows none.
        devices: places there are.

    Raises:
        ServeError: the file cannot be read, or holds something else.
    """

    def __init__(self, path: Path | None = None, roster: Roster | None = None, devices: int = 1) -> None:
        self.path, self.roster, self.devices = path, roster, devices
        self.paused = False
        """Whether no further round begins."""
        self.drained: set[str] = set()
        """Devices that take part in no further round."""
        self.kicked: dict[str, int] = {}
        """Devices that are out of a round -> its number."""
        self.cuts: dict[str, int] = {}
        """Devices -> the blocks that they are given, until they are released."""
        self.servers: dict[str, int] = {}
        """Devices -> the trunk server that they are given, until they are released."""
        self.shortened: set[int] = set()
        """Openings of rounds that a kick made short, by their attempts: no fault of the devices."""
        if path is not None and path.exists():
            with reading(path, ADVICE, ServeError):
                text = path.read_bytes()
            try:
                found = from_json(text)
                self.paused, self.drained = bool(found["paused"]), set(map(str, found["drained"]))
                self.kicked = {str(name): int(number) for name, number in found["kicked"].items()}
                self.cuts = {str(name): int(blocks) for name, blocks in found.get("cuts", {}).items()}
                self.servers = {str(name): int(number) for name, number in found.get("servers", {}).items()}
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
                raise ServeError(f"{path} holds no orders ({error}); {ADVICE}") from None

    def pause(self, paused: bool) -> None:
        """Begin no further round, or go on."""
        self.paused = paused
        self._save()

    def drain(self, names: Iterable[str]) -> None:
        """Let devices finish their round, and begin no other."""
        self.drained |= set(names)
        self._save()

    def undrain(self, names: Iterable[str]) -> None:
        """Let drained devices, and those out of the open round, take part again."""
        for name in names:
            self.drained.discard(name)
            self.kicked.pop(name, None)
        self._save()

    def kick(self, names: Iterable[str], round: int, attempt: int) -> None:
        """Keep devices out of a round, however often it is opened."""
        self.kicked = {name: last for name, last in self.kicked.items() if last >= round}
        self.kicked |= dict.fromkeys(names, round)
        self.shortened.add(attempt)
        self._save()

    def cut(self, names: Iterable[str], blocks: int | None) -> None:
        """Give devices so many blocks from the next round on; None gives them back what they had without orders."""
        for name in names:
            self.cuts.pop(name, None)
            if blocks is not None:
                self.cuts[name] = blocks
        self._save()

    def server(self, names: Iterable[str], number: int | None) -> None:
        """Give devices a trunk server from the next round on; None leaves theirs to the run again."""
        for name in names:
            self.servers.pop(name, None)
            if number is not None:
                self.servers[name] = number
        self._save()

    def servers_ordered(self) -> dict[int, int]:
        """Return device -> the trunk server that it is given."""
        numbers, _ = self._numbers()
        return {numbers[name]: server for name, server in self.servers.items() if name in numbers}

    def cuts_ordered(self) -> dict[int, int]:
        """Return device -> the blocks that it is given."""
        numbers, _ = self._numbers()
        return {numbers[name]: blocks for name, blocks in self.cuts.items() if name in numbers}

    def out(self, round: int) -> frozenset[int]:
        """Return the devices that take no part in a round: drained, out of this one, or revoked and not replaced."""
        numbers, gone = self._numbers()
        kicked = {name for name, last in self.kicked.items() if last == round}
        return frozenset(numbers[name] for name in self.drained | kicked if name in numbers) | gone

    def drained_numbers(self) -> frozenset[int]:
        """Return the devices that are drained."""
        numbers, _ = self._numbers()
        return frozenset(numbers[name] for name in self.drained if name in numbers)

    def held(self, round: int) -> str:
        """Return why a round may not begin; "" where it may."""
        if self.paused:
            return "paused by the operator"
        if self.out(round) >= set(range(self.devices)):
            return "every device is drained, kicked or revoked"
        return ""

    def notes(self) -> list[str]:
        """Return what of them is in force, in lines for the user of the server."""
        drained = ", ".join(sorted(self.drained))
        cuts, servers = (
            ", ".join(f"{name} {given}" for name, given in sorted(all.items()))
            for all in (self.cuts, self.servers)
        )
        return [
            *(["paused by the operator; sflam admin SERVER resume goes on"] if self.paused else []),
            *([f"drained, without a part in the rounds: {drained}"] if drained else []),
            *([f"cuts as ordered, until sflam admin SERVER cut NAME auto: {cuts}"] if cuts else []),
            *(
                [f"servers as ordered, until sflam admin SERVER server NAME auto: {servers}"]
                if servers
                else []
            ),
        ]

    def _numbers(self) -> tuple[Mapping[str, int], frozenset[int]]:
        """Return name -> number of the devices that are not revoked, and the numbers that only revoked ones have."""
        if self.roster is None:
            return {}, frozenset()
        entries = self.roster.known()
        numbers = {
            name: entry.device for name, entry in entries.items() if not (entry.revoked or entry.pending)
        }
        return numbers, frozenset(e.device for e in entries.values() if e.revoked and e.device >= 0) - set(
            numbers.values()
        )

    def _save(self) -> None:
        if self.path is None:
            return
        found = {"paused": self.paused, "drained": sorted(self.drained), "kicked": self.kicked}
        found |= {"cuts": self.cuts} if self.cuts else {}
        found |= {"servers": self.servers} if self.servers else {}
        with writing(f"orders {self.path}", "make room, or the next start forgets them", ServeError):
            replace_file(self.path, (json.dumps(found) + "\n").encode())
