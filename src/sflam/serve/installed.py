"""Whether the libraries of the extra ``serve`` are there."""

from __future__ import annotations

from importlib.util import find_spec

from sflam.errors import ServeError


def expect_installed() -> None:
    """Raise ServeError unless the web server's libraries are installed."""
    missing = [name for name in ("starlette", "uvicorn", "cryptography") if find_spec(name) is None]
    if missing:
        raise ServeError(f"serving needs {', '.join(missing)}; pip install 'sflam[serve]'")
