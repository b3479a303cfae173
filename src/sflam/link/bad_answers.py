"""What is shown of an answer that is no success: a server's reason, or what to do about a proxy or a wrong scheme."""

from __future__ import annotations

from sflam.files import from_json
from sflam.link.address import is_loopback


def too_small(host: str, port: int, size: int) -> str:
    """Return what to do about a proxy that takes no body of ``size`` bytes."""
    return (
        f"a proxy before {host}:{port} refuses a body of {size} bytes as too large (413); raise its "
        "limit: client_max_body_size 0 in nginx, LimitRequestBody 0 in Apache, request_body max_size in Caddy"
    )


def plain_http(host: str, port: int, path: str = "") -> str:
    """Return what to do about a server that answers a TLS handshake in plain HTTP; ``path`` is of its job there."""
    at = f"{host}:{port}"
    insecure = "" if is_loopback(host) else " with --insecure"
    return (
        f"{at} answers in plain HTTP, not HTTPS; give http://{at}{path}{insecure}, or start the server with --cert and "
        "--key"
    )


def reason(found: bytes) -> str | None:
    """Return the error message of an sflam server, one short line; None where something else has answered."""
    try:
        return one_line(str(from_json(found)["error"]))
    except (ValueError, KeyError, TypeError):
        return None


def one_line(text: str | bytes) -> str:
    """Return a text as one short line."""
    shown = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return " ".join(shown.split())[:300]
