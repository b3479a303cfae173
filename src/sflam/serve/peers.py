"""Where requests come from, and how many wrong tokens an address may try."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sflam.errors import ServeError
from sflam.link.address import is_loopback

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Peers:
    """The proxies whose word on an origin is believed.

    Attributes:
        proxies: their addresses.
    """

    proxies: tuple[Network, ...] = ()

    @classmethod
    def of(cls, texts: Sequence[str]) -> Peers:
        """Return those given as addresses or networks; raises ServeError for what is neither."""
        try:
            return cls(tuple(ipaddress.ip_network(text, strict=False) for text in texts))
        except ValueError as error:
            raise ServeError(
                f"--trusted-proxy: {error}; give the proxy's address, or its network as 10.0.0.0/8"
            ) from error

    def trusts(self, address: str) -> bool:
        """Whether an address is a trusted proxy's."""
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in network for network in self.proxies)

    def unlimited(self, address: str) -> bool:
        """Whether an address may have any number of strangers: this machine's, or a trusted proxy's."""
        return is_loopback(address) or self.trusts(address)

    def origin(self, address: str, forwarded: str) -> str:
        """Return where a request came from: the last of ``forwarded`` that no trusted proxy has.

        ``forwarded`` is its X-Forwarded-For; anybody but a trusted proxy may have written it.
        """
        for hop in reversed([part.strip() for part in forwarded.split(",") if part.strip()]):
            if not self.trusts(address):
                break
            address = hop
        return address


class WrongTokens:
    """How many wrong tokens an address may try at once, and how many a second after that.

    Args:
        burst: at once.
        rate: a second.
        most: addresses remembered; the one least recently seen is forgotten.
        clock: s.
    """

    def __init__(
        self,
        burst: int = 20,
        rate: float = 1.0,
        *,
        most: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.burst, self.rate, self.most, self.clock = burst, rate, most, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def admit(self, address: str) -> bool:
        """Return whether an address may have one more wrong token looked at."""
        now, key = self.clock(), _household(address)
        left, at = self._left.pop(key, (float(self.burst), now))
        left = min(float(self.burst), left + self.rate * (now - at))
        admitted = left >= 1
        self._left[key] = (left - admitted, now)
        while len(self._left) > self.most:
            self._left.popitem(last=False)
        return admitted


def _household(address: str) -> str:
    """Return what one party has many of: the /64 of an IPv6 address, an IPv4 address itself."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address
