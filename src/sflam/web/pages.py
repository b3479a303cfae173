"""The files of the page, as a server sends them, and the link by which a browser opens it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sflam.link.address import server_address

FOLDER = Path(__file__).parent
STATIC = "join/static"
MEDIA = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".wasm": "application/wasm"}

HEADERS = {
    "Cache-Control": "no-cache",
    # Nothing from elsewhere, nothing inline, and no frame around it: the page holds a token. The engine's product is
    # WebAssembly, made by the page itself.
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self'; "
    "connect-src 'self'; worker-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True)
class PageFile:
    """One file of the page.

    Attributes:
        body: its bytes.
        media: its media type.
    """

    body: bytes
    media: str


def page_files() -> dict[str, PageFile]:
    """Return path of a request, without the first slash -> the file, of all files of the page."""
    paths = {"join": FOLDER / "join.html"} | {
        f"{STATIC}/{path.relative_to(FOLDER / 'static').as_posix()}": path
        for path in sorted((FOLDER / "static").rglob("*"))
        if path.suffix in MEDIA
    }
    return {name: PageFile(path.read_bytes(), _media(path)) for name, path in paths.items()}


def _media(path: Path) -> str:
    media = MEDIA[path.suffix]
    return f"{media}; charset=utf-8" if media.startswith("text/") else media


def join_link(address: str, token: str) -> str:
    """Return the link of a device: what follows its ``#`` is never sent to a server, nor written to its logs.

    Raises:
        ServeError: ``address`` is none of a server.
    """
    scheme, host, port, prefix = server_address(address)
    bracketed = f"[{host}]" if ":" in host else host
    return f"{scheme}://{bracketed}:{port}{prefix}/join#token={token}"
