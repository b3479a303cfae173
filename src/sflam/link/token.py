"""A device's token in a file."""

from __future__ import annotations

from pathlib import Path

from sflam.errors import ServeError

PREFIX = "sflam_"


def read_token(path: Path) -> str:
    """Return the token in a file; raises ServeError when there is none."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(
            f"token file {path} cannot be read ({error}); put the token of sflam enrol there"
        ) from error
    if not token.startswith(PREFIX) or not token.isascii() or any(letter.isspace() for letter in token):
        raise ServeError(
            f"{path} holds no token (they begin with {PREFIX}); put the one sflam enrol printed there"
        )
    return token
