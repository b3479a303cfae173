"""Tokens in files: a device's, and an operator's, which are of two kinds."""

from __future__ import annotations

from pathlib import Path

from sflam.errors import ServeError

PREFIX = "sflam_"
OPERATOR, TRUNK = "sflam-operator_", "sflam-trunk_"
"""An operator's token begins so, and a trunk server's: where the wrong one was given, a message can name it."""


def read_token(path: Path) -> str:
    """Return the token in a file; raises ServeError when there is none, or it is an operator's."""
    token = _read(path, "put the token of sflam enrol there")
    if token.startswith(OPERATOR):
        raise ServeError(
            f"{path} holds an operator's token; a device needs its own, which sflam enrol prints"
        )
    if not _is_token(token, PREFIX):
        raise ServeError(
            f"{path} holds no token (they begin with {PREFIX}); put the one sflam enrol printed there"
        )
    return token


def read_operator_token(path: Path) -> str:
    """Return the operator's token in a file; raises ServeError when there is none."""
    token = _read(path, "put the token of sflam operator there")
    if not _is_token(token, OPERATOR):
        raise ServeError(
            f"{path} holds no operator's token (they begin with {OPERATOR}); put the one sflam operator printed there"
        )
    return token


def read_trunk_token(path: Path) -> str:
    """Return a trunk server's token in a file; raises ServeError when there is none."""
    token = _read(path, "put the token of sflam enrol --trunk there")
    if not _is_token(token, TRUNK):
        raise ServeError(
            f"{path} holds no trunk server's token (they begin with {TRUNK}); put the one of sflam enrol --trunk there"
        )
    return token


def _read(path: Path, advice: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"token file {path} cannot be read ({error}); {advice}") from error


def _is_token(text: str, prefix: str) -> bool:
    return text.startswith(prefix) and text.isascii() and not any(letter.isspace() for letter in text)
