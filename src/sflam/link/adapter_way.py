"""How the adapters of a round come to a device, and what it trained goes back: the one seam for another carrier."""

from __future__ import annotations

from sflam.codec.messages import AdapterFrame
from sflam.errors import WireError
from sflam.link.exchange import opened
from sflam.link.https_client import Link
from sflam.sizes import adapter_body_bytes, grid_bytes


class AdapterWay:
    """Over the device's own link to the server.

    Args:
        link: the way to the server.
    """

    def __init__(self, link: Link) -> None:
        self._link = link

    def prepare(self, round: int, attempt: int) -> None:
        """Bring what a device holds, beside what it trains, to where a round begins that it takes part in."""

    def fetch(self, round: int, attempt: int, count: int) -> AdapterFrame | None:
        """Return the ``count`` adapters [P] that a round begins with; None where a device trains none.

        Raises:
            WireError: another number of them came.
            ServeError: they cannot be had.
        """
        most = adapter_body_bytes(count, 64) + grid_bytes(count)
        body = self._link.call("GET", f"/v1/rounds/{round}/{attempt}/adapters", most=most)
        return adapters_in(body, count)

    def deliver(self, round: int, attempt: int, body: bytes, headers: dict[str, str]) -> None:
        """Send what was trained in a round, a body of the link's protocol, with what goes beside it."""
        self._link.call("PUT", f"/v1/rounds/{round}/{attempt}/adapters", body, headers)

    def over(self, round: int) -> bool:
        """Return whether the device leaves, now that it took part in a round or that round is open without it."""
        return False


def adapters_in(body: bytes, count: int) -> AdapterFrame | None:
    """Return the adapters [P] that a body carries, None for none; raises WireError where there are not ``count``."""
    if not count:
        return None
    frame = opened(body, AdapterFrame)
    if frame.values.shape != (count,):
        raise WireError(f"{len(frame.values)} adapter values came; {count} were agreed: restart the round")
    return frame
