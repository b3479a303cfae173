"""A device lets itself in by a join secret: it makes its token itself, keeps it, and shows the server its hash alone.

The token is on disk before the server learns of it, so that one who dies in between is the same device when it comes
again, and a lost answer is only asked for once more.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sflam.errors import Refused, ServeError
from sflam.files import from_json, replace_file, writing
from sflam.link.https_client import SHORT, Link
from sflam.link.job import expect_no_links
from sflam.link.token import PREFIX, read_token

FILE = "token"
"""In the folder of a device."""
PATH = "/v1/enrol"
SCHEME = "Join"
"""In the header Authorization, before the secret."""
LEAST, MOST = 16, 200
"""Characters of a secret."""
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 30.0
"""Seconds until it is asked again whether the operator has approved."""


@dataclass(frozen=True)
class Credentials:
    """By what a device comes in.

    Attributes:
        token: its own.
        file: that it is in.
        secret: the job's join secret; "" where the device is enrolled otherwise.
        name: that it enrols by.
        stored: whether the token was there before, so that the device may be enrolled already.
    """

    token: str
    file: Path
    secret: str = ""
    name: str = ""
    stored: bool = True


def read_secret(path: Path) -> str:
    """Return the join secret in a file; raises ServeError where there is none that is long enough."""
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"join secret {path} cannot be read ({error}); put one line there") from error
    if not (LEAST <= len(secret) <= MOST and secret.isascii() and secret.isprintable() and " " not in secret):
        raise ServeError(
            f"{path} holds no join secret: one line of {LEAST} to {MOST} letters, digits and marks without spaces, as "
            "openssl rand -hex 24 prints"
        )
    return secret


def credentials(token_file: Path | None, secret_file: Path | None, name: str, folder: Path) -> Credentials:
    """Return by what a device comes in: a token given, or one of its own in ``folder``, made where there is none.

    Args:
        token_file: file with a token that the operator gave it.
        secret_file: file with the join secret.
        name: to enrol by; "" takes the machine's.
        folder: of the device.

    Raises:
        ServeError: both are given or neither; what they hold is none; the folder cannot be written.
    """
    own = folder / FILE
    if token_file is not None:
        if secret_file is not None or name:
            raise ServeError("give --token-file, or --join-secret-file with --name, and not both")
        return Credentials(read_token(token_file), token_file)
    if secret_file is None:
        if name:
            raise ServeError(f"--name {name} is for enrolling; give --join-secret-file as well")
        if not own.is_file():
            raise ServeError(
                "give --token-file with the token that sflam enrol printed, or --join-secret-file where the server "
                "takes one"
            )
        return Credentials(read_token(own), own)
    secret, name = (
        read_secret(secret_file),
        name or re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname())[:64],
    )
    if not NAME.fullmatch(name):
        raise ServeError(f"--name {name!r}: use 1..64 letters, digits, '-', '_' or '.'")
    if own.exists() or own.is_symlink():
        expect_no_links(folder)
        return Credentials(read_token(own), own, secret, name)
    token = PREFIX + secrets.token_urlsafe(32)
    with writing(own, "choose another --folder", ServeError):
        folder.mkdir(parents=True, exist_ok=True)
        expect_no_links(folder)
        replace_file(own, token.encode(), mode=0o600)
    return Credentials(token, own, secret, name, stored=False)


def enrol(link: Link, own: Credentials, notify: Callable[[str], None]) -> None:
    """Let a device in that has a join secret, unless it is in already; wait until the operator approves.

    Raises:
        Refused: the secret is wrong, the name another device's, no place is left, or the device was revoked.
        ServeError: there is no answer, or another one than was agreed.
    """
    if not own.secret or (own.stored and _known(link)):
        return
    sent = json.dumps({"name": own.name, "sha256": hashlib.sha256(own.token.encode()).hexdigest()}).encode()
    pause, shown = FIRST_PAUSE, False
    while True:
        found = link.call("POST", PATH, sent, {"Authorization": f"{SCHEME} {own.secret}"}, most=SHORT)
        try:
            approved = from_json(found)["approved"]
        except (ValueError, KeyError, TypeError):
            raise ServeError(
                f"{link.host}:{link.port} answers {PATH} with something else; is it an sflam server?"
            ) from None
        if approved is True:
            notify(f"enrolled as {own.name}")
            return
        if not shown:
            notify(f"waits until the operator lets it in: sflam admin SERVER approve {own.name}")
            shown = True
        link.sleep(pause)
        pause = min(LONGEST_PAUSE, 1.5 * pause)


def _known(link: Link) -> bool:
    """Return whether the server takes the device's token."""
    try:
        link.call("GET", "/v1/round", most=SHORT)
        return True
    except Refused as refused:
        if refused.status not in (401, 403):
            raise
        return False
