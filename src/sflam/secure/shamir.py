"""Secrets shared out so that any t of the shares give them back, and fewer tell nothing (Shamir, CACM 1979).

A secret of 32 bytes is the value at 0 of a random polynomial of degree t - 1 modulo the prime 2^256 + 297; a share is
its value at a place above 0. The cryptography library has no secret sharing, so it is written out here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

from sflam.errors import SecureSumError

PRIME = 2**256 + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, places: Sequence[int], threshold: int) -> dict[int, int]:
    """Return place -> its share of a ``secret`` of 32 bytes, any ``threshold`` of which give it back."""
    assert len(secret) == SECRET_BYTES and 1 <= threshold <= len(places) and min(places) > 0
    above = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    found = {}
    for place in places:
        value = 0
        for coefficient in above:
            value = (value + coefficient) * place % PRIME
        found[place] = (value + int.from_bytes(secret, "big")) % PRIME
    return found


def join(
    shares: Mapping[int, int], threshold: int, right: Callable[[bytes], bool] = lambda secret: True
) -> bytes | None:
    """Return the secret of shares by place; None for shares that belong to none, or to one that is not ``right``.

    Raises:
        SecureSumError: fewer than ``threshold`` shares.
    """
    if len(shares) < threshold:
        raise SecureSumError(
            f"{len(shares)} shares of a secret came, and it takes {threshold}; the round has to begin anew"
        )
    places = tuple(sorted(shares)[:threshold])
    value = sum(shares[place] * factor for place, factor in zip(places, _factors(places), strict=True))
    value %= PRIME
    if value >> (8 * SECRET_BYTES):
        return None
    secret = value.to_bytes(SECRET_BYTES, "big")
    return secret if right(secret) else None


@lru_cache(maxsize=256)
def _factors(places: tuple[int, ...]) -> tuple[int, ...]:
    """Return what the share of each place counts at 0 (Lagrange)."""
    found = []
    for place in places:
        above = below = 1
        for other in places:
            if other != place:
                above = above * other % PRIME
                below = below * (other - place) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return tuple(found)
