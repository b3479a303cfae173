"""Tokens by which a trunk server knows the devices of one opening of a round, and of no other.

A coordinator draws a key for every opening and every server, and hands each device the token of that key and its own
number, each server its key: a server learns no token of another server's devices, nor one that the coordinator takes.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection

from sflam.errors import Refused
from sflam.link.token import PREFIX

KEY_BYTES = 32


def new_key() -> str:
    """Return the key of an opening, in hexadecimal."""
    return secrets.token_hex(KEY_BYTES)


def round_token(key: str, device: int) -> str:
    """Return the token of a device."""
    seal = hmac.new(bytes.fromhex(key), f"device {device}".encode(), hashlib.sha256).hexdigest()
    return f"{PREFIX}round_{device}_{seal}"


class RoundTokens:
    """The devices of the open round, in the place of a roster."""

    def __init__(self) -> None:
        self._key, self._devices = "", frozenset[int]()

    def open(self, key: str, devices: Collection[int]) -> None:
        """Let the devices of an opening in, and no others."""
        self._key, self._devices = key, frozenset(devices)

    def close(self) -> None:
        """Let no device in."""
        self._devices = frozenset()

    def device_of(self, token: str, now: float) -> int:
        """Return the device of a token; raises Refused, 401, for one that is not of this opening."""
        number = token.removeprefix(f"{PREFIX}round_").partition("_")[0]
        device = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else -1
        sound = device in self._devices and hmac.compare_digest(
            token.encode("utf-8", "replace"), round_token(self._key, device).encode()
        )
        if not sound:
            raise Refused(
                401, "the token is not of the round that is open here; ask the coordinator for the round"
            )
        return device
