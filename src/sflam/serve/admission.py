"""Which connections a server keeps: places for strangers, and places that only a valid token gives.

A connection begins silent: it costs a file and nothing else, until its first byte. Then it speaks: it has buffers for
TLS and a parser. With a valid token it is a device's. Each state has places of its own. Where those of strangers are
taken, the one that has had its place longest leaves, so that a newcomer always gets a handshake; strangers never take
the place of a device.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from sflam.errors import ServeError

if sys.platform != "win32":
    import resource

FILES = 1 << 16
"""Open files that are asked of the operating system, where it allows as many."""
OWN = 128
"""Open files that are left to the run itself: its history, checkpoints, logs, data."""
MOST_SILENT, MOST_SPEAKING = 4096, 256
"""Places of strangers; one that speaks TLS has about 0.3 MB of buffers."""


@dataclass(frozen=True)
class ConnectionPlaces:
    """How many connections there may be at once.

    Attributes:
        silent: of those that have sent nothing yet.
        speaking: of those that have, without a valid token so far.
        devices: of those with one.
        each: of strangers from one address.
    """

    silent: int = MOST_SILENT
    speaking: int = MOST_SPEAKING
    devices: int = 256
    each: int = 64


def places_for(devices: int, files: int) -> ConnectionPlaces:
    """Return the places of a job of so many devices where this process may open ``files`` files.

    A device has two connections while it comes again after a loss, and a connection a second file for a download.

    Raises:
        ServeError: those are too few.
    """
    reserved = 2 * devices + 16
    strangers = files - OWN - 2 * reserved
    if strangers < 64:
        raise ServeError(
            f"this process may open {files} files, and {devices} devices need {OWN + 2 * reserved + 64}; raise the "
            "limit (ulimit -n, or LimitNOFILE in a systemd unit)"
        )
    # After a restart all devices come at once, perhaps from one address.
    speaking = min(max(MOST_SPEAKING, devices), strangers // 2)
    silent = min(MOST_SILENT, strangers - speaking)
    return ConnectionPlaces(silent, speaking, reserved, each=max(64, 2 * devices))


def raise_file_limit(wanted: int = FILES) -> int:
    """Let this process open as many files as it may, up to ``wanted``; return how many."""
    if sys.platform == "win32":
        return wanted  # nothing of the kind is limited
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return wanted if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


@dataclass(eq=False)
class Connection:
    """One connection.

    Attributes:
        address: where it comes from.
        close: ends it at once.
        admission: what it was let in by.
        device: the device whose token it showed last; None for a stranger.
        certificate: that it was made with, DER; empty where none is asked for.
    """

    address: str
    close: Callable[[], None]
    admission: Admission
    device: int | None = None
    certificate: bytes = b""
    place: OrderedDict[Connection, None] | None = field(default=None, repr=False)

    def prove(self, device: int) -> None:
        """It has shown the valid token of a device."""
        self.admission.prove(self, device)


class Admission:
    """The connections there are; used from one thread only.

    Args:
        places: how many there may be.
        unlimited: whether an address may have any number of strangers: this machine's own, or a trusted proxy's.
    """

    def __init__(
        self, places: ConnectionPlaces | None = None, unlimited: Callable[[str], bool] = lambda address: False
    ) -> None:
        self.places, self.unlimited = places or ConnectionPlaces(), unlimited
        self.silent: OrderedDict[Connection, None] = OrderedDict()
        self.speaking: OrderedDict[Connection, None] = OrderedDict()
        self.devices: OrderedDict[Connection, None] = OrderedDict()
        self.evicted = 0
        """Connections that left for others, so far."""
        self._strangers: Counter[str] = Counter()

    def arrive(self, connection: Connection) -> None:
        """Let a new connection in, silent so far; another may leave for it."""
        address = connection.address
        if self._strangers[address] >= self.places.each and not self.unlimited(address):
            self._evict(next(c for c in (*self.silent, *self.speaking) if c.address == address))
        self._strangers[address] += 1
        self._move(connection, self.silent, self.places.silent)

    def speaks(self, connection: Connection) -> None:
        """It has sent its first bytes."""
        if connection.place is self.silent:
            self._move(connection, self.speaking, self.places.speaking)

    def prove(self, connection: Connection, device: int) -> None:
        """It has shown the valid token of a device.

        Where the places of devices are taken, the device with the most connections loses its oldest.
        """
        connection.device = device
        if connection.place is None or connection.place is self.devices:
            return
        self._forget_stranger(connection)
        if len(self.devices) >= self.places.devices:
            most = Counter(c.device for c in self.devices).most_common(1)[0][0]
            self._evict(next(c for c in self.devices if c.device == most))
        self._move(connection, self.devices, self.places.devices)

    def leave(self, connection: Connection) -> None:
        """It is over, for whatever reason; twice is once."""
        if connection.place is None:
            return
        if connection.place is not self.devices:
            self._forget_stranger(connection)
        del connection.place[connection]
        connection.place = None

    def relieve(self) -> bool:
        """End the oldest stranger, as there are no more files; return False where there is none."""
        for strangers in (self.silent, self.speaking):
            if strangers:
                self._evict(next(iter(strangers)))
                return True
        return False

    def _move(self, connection: Connection, place: OrderedDict[Connection, None], most: int) -> None:
        if connection.place is not None:
            del connection.place[connection]
        while len(place) >= most:
            self._evict(next(iter(place)))
        place[connection] = None
        connection.place = place

    def _evict(self, connection: Connection) -> None:
        self.leave(connection)
        self.evicted += 1
        connection.close()

    def _forget_stranger(self, connection: Connection) -> None:
        self._strangers[connection.address] -= 1
        if not self._strangers[connection.address]:
            del self._strangers[connection.address]
