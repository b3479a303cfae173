"""The address of a server, as people write it."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from sflam.errors import ServeError

PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


def server_address(address: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and prefix of a server at ``https://host:port/prefix``.

    The scheme may be left out, and so may the prefix, which is a reverse proxy's; without a port it is 8443, or with a
    prefix that of the scheme.

    Raises:
        ServeError: ``address`` is none.
    """
    parts = urlsplit(address if "://" in address else f"https://{address}")
    prefix = parts.path.rstrip("/")
    try:
        port = parts.port or ({"https": 443, "http": 80}.get(parts.scheme, 0) if prefix else 8443)
    except ValueError:
        port = 0
    more = parts.query or parts.fragment or parts.username or not PREFIX.fullmatch(prefix)
    if parts.scheme not in ("http", "https") or not parts.hostname or not port or more:
        raise ServeError(f"server address {address!r}: write HOST, HOST:PORT or https://HOST:PORT/PREFIX")
    return parts.scheme, parts.hostname, port, prefix


def is_loopback(host: str) -> bool:
    """Whether ``host`` means this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
