"""Bodies bent in every way: refused as WireError, or exactly what was agreed; nothing else, and no memory."""

from __future__ import annotations

import json
import random
import tracemalloc

import pytest

from sflam.codec.bodies import decode
from sflam.errors import WireError
from sflam.sizes import HEADER_BYTES
from tests.codec.test_fuzz import PREFIX
from tests.serve.test_hostile import GOOD, TERMS

VALUES = [
    0,
    1,
    -1,
    7,
    10**9,
    10**18,
    1.5,
    1e308,
    "",
    "1",
    "step",
    "U8",
    "F64",
    None,
    True,
    [],
    {},
    [0],
    [[]],
    {"a": 1},
]
USED = len(GOOD[:HEADER_BYTES].rstrip())


def change_a_value(draw, body):
    """Change one value of a body's header, where that can be read."""
    try:
        result = json.loads(body[8:HEADER_BYTES])
        place = result[draw.choice(sorted(result))]
        place[draw.choice(sorted(place))] = draw.choice(VALUES)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError):
        return
    text = json.dumps(result).encode()[: HEADER_BYTES - 8]
    body[:HEADER_BYTES] = PREFIX + text.ljust(HEADER_BYTES - 8)


def bent(draw: random.Random) -> bytes:
    """Return a good body with one to four things wrong."""
    body = bytearray(GOOD)
    for _ in range(draw.randint(1, 4)):
        match draw.randrange(6):
            case 0:  # a bit
                at = draw.randrange(USED)
                body[at] ^= 1 << draw.randrange(8)
            case 1:  # a byte of data
                body[draw.randrange(HEADER_BYTES, len(body))] = draw.randrange(256)
            case 2:  # a piece of the header twice, or not at all
                a, b = sorted((draw.randrange(8, USED), draw.randrange(8, USED)))
                text = bytes(body[8:a]) + bytes(body[a:b]) * draw.choice((0, 2)) + bytes(body[b:HEADER_BYTES])
                body[8:HEADER_BYTES] = text[: HEADER_BYTES - 8].ljust(HEADER_BYTES - 8)
            case 3:  # the length of the header
                body[:8] = draw.getrandbits(64).to_bytes(8, "little")
            case 4:  # a value of the header
                change_a_value(draw, body)
            case 5:  # its end
                del body[draw.randrange(len(body)) :]
                if not body:
                    body += b"\0"
                return bytes(body)
    return bytes(body)


def fuzz(count: int, seed: int) -> int:
    """Send ``count`` bent bodies through every check there is before a body counts; return how many were refused."""
    draw, refused = random.Random(seed), 0
    tracemalloc.start()
    try:
        for number in range(count):
            body = bent(draw)
            try:
                TERMS.check(decode(body), 0, 0, 0, 2, 7)
            except WireError as error:
                refused += 1
                assert len(str(error)) < 3000
            else:
                assert len(body) == len(GOOD)
            if number % 1000 == 0:
                assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
    return refused


def test_some_bent_bodies():
    assert fuzz(3000, 1) > 2000


@pytest.mark.slow
def test_a_hundred_thousand_bent_bodies():
    assert fuzz(100_000, 2) > 60_000
