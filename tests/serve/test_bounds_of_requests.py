"""Heads without end, bodies that crawl or never come, refusals that must arrive: time and memory are bounded."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from sflam.codec.bodies import encode
from sflam.codec.messages import AdapterFrame
from sflam.serve.event_log import REFUSALS, EventLog
from sflam.sizes import HEADER_BYTES
from tests.codec.test_fuzz import PREFIX
from tests.serve.test_hostile import GOOD, STEP, Site, step_body


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path, seconds=1.0) as made:
        made.ingress.stall = 0.4
        yield made


def connected(site):
    return socket.create_connection(("127.0.0.1", site.server.port), timeout=30)


def head(site, size, token=None):
    return (
        f"POST {STEP} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token or site.token}\r\nSflam-Tokens: 7\r\n"
        f"Content-Length: {size}\r\n\r\n"
    ).encode()


def resident():
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_a_connection_that_never_makes_a_request_is_closed(site):
    with connected(site) as silent, connected(site) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nX: ")
        with suppress(ConnectionError):
            assert silent.recv(100) == b""
        try:
            for _ in range(400):
                slow.sendall(b"x")
                time.sleep(0.05)
            raise AssertionError("still open")
        except OSError:
            pass
    assert site.ask("GET", "/healthz", None)[0] == 200


def test_a_head_without_end_is_cut_off(site):
    before = resident()
    with connected(site) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(OSError):
            for _ in range(2000):
                stranger.sendall(b"X: " + b"x" * 65536 + b"\r\n")
    assert resident() - before < 32 << 20


def test_a_body_that_stalls_or_crawls_is_given_up(site):
    site.ingress.slowest = 1e9
    state = site.state()
    for step in (0.0, 0.1):  # nothing at all; a little, often enough, but far too slowly
        with connected(site) as slow:
            slow.sendall(head(site, len(GOOD)) + GOOD[:10])
            with suppress(OSError):
                for at in range(10, 50 if step else 10):
                    slow.sendall(GOOD[at : at + 1])
                    time.sleep(step)
            assert slow.recv(300).startswith(b"HTTP/1.1 408")
    assert site.state() == state and site.computed == [] and site.ingress.bounds.bytes == 0


def test_a_device_that_hangs_up_in_the_middle_of_a_body_leaves_nothing(site):
    for share in (0, 1, len(GOOD) // 2, len(GOOD) - 1):
        with connected(site) as one:
            one.sendall(head(site, len(GOOD)) + GOOD[:share])
    until = time.monotonic() + 30
    while site.ingress.bounds.bytes and time.monotonic() < until:
        time.sleep(0.01)
    assert site.ingress.bounds.bytes == 0 and site.computed == []
    assert site.ask() == (200, b"answer 0")


def test_a_refusal_arrives_though_the_body_is_large(site):
    """A device must read 409 after a long body, not lose the connection and try again for minutes."""
    site.ingress.contracts[0] = type(site.ingress.contracts[0])(
        **(vars(site.ingress.contracts[0]) | {"adapters": 1 << 21})
    )
    body = b"x" * (8 << 20)
    for path, token, status in (
        ("/v1/rounds/0/9/steps/0", None, 409),
        ("/v1/rounds/0/1/adapters", None, 409),
    ):
        method = "PUT" if path.endswith("adapters") else "POST"
        connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=30)
        for _ in range(2):  # and the connection goes on
            connection.request(method, path, body, {"Authorization": f"Bearer {token or site.token}"})
            answer = connection.getresponse()
            assert answer.status == status and "error" in json.loads(answer.read())
        connection.close()


def test_many_bodies_at_once_are_bounded(site):
    """Of one device two bodies may be in flight; the rest are asked to come again."""
    site.ingress.stall, site.ingress.bounds.each = 30.0, 2 * len(GOOD)
    held = [connected(site) for _ in range(2)]
    for item in held:
        item.sendall(head(site, len(GOOD)) + GOOD[:-1])
    until = time.monotonic() + 30
    while site.ingress.bounds.bytes < 2 * len(GOOD) and time.monotonic() < until:
        time.sleep(0.01)
    assert site.ask()[0] == 429
    assert site.ask("GET", "/healthz", None)[0] == 200
    other = step_body(device=1)
    assert site.ask(body=other, token=site.second) == (200, b"answer 0")  # others are not disturbed
    for item in held:
        item.sendall(GOOD[-1:])
        assert item.recv(300).startswith(b"HTTP/1.1 200")
        item.close()
    assert site.computed == [(1, 0), (0, 0)]


HEADERS = {
    "deep": b"[" * (HEADER_BYTES - 8),
    "deep objects": b'{"a":' * 100,
    "a number without end": b'{"__metadata__":{"kind":"step"},"x":' + b"9" * 500 + b"}",
    "an exponent": b'{"__metadata__":{"kind":"step"},"codes":{"shape":[1e999999]}}',
    "a shape beyond memory": b'{"__metadata__":{"kind":"adapter","round":"0","device":"0","samples":"1"},'
    b'"values":{"dtype":"F64","shape":[999999999],"data_offsets":[0,7999999992]}}',
    "the same key twice": b'{"__metadata__":{},"__metadata__":{"kind":"step"}}',
    "no object": b'"step"',
    "not UTF-8": b"\xff\xfe{}",
    "NaN": b'{"__metadata__":{"kind":"gradient"},"x":NaN}',
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_are_bombs(site, name):
    before, state = resident(), site.state()
    body = (PREFIX + HEADERS[name].ljust(HEADER_BYTES - 8)).ljust(len(GOOD), b"\0")[: len(GOOD)]
    status, _ = site.ask(body=body)
    assert status == 422 and site.state() == state
    lying = b"\xff" * 8 + body[8:]
    assert site.ask(body=lying)[0] == 422
    assert resident() - before < 32 << 20


def test_codes_and_adapters_that_are_not_finite(site):
    side = 592 + 2 * 4 * 2  # labels and lengths come first
    for pattern in (b"\x80\x7f", b"\xc0\x7f", b"\x80\xff"):  # inf, NaN, -inf as bfloat16
        body = bytearray(GOOD)
        body[side : side + 2] = pattern
        assert site.ask(body=bytes(body))[0] == 422
    for step in range(3):
        assert site.ask(path=f"/v1/rounds/0/1/steps/{step}", body=step_body(step=step))[0] == 200
    good = encode(AdapterFrame(0, 0, 8, np.zeros(6, np.float32)))
    for value in (np.nan, np.inf, -np.inf):
        body = good[:-4] + np.float32(value).tobytes()
        assert site.ask("PUT", "/v1/rounds/0/1/adapters", body)[0] == 422
    with site.dispatch.looked() as session:
        assert session.seats[0].result is None
    assert site.ask("PUT", "/v1/rounds/0/1/adapters", good)[0] == 204


def test_the_event_log_is_structured_and_cannot_be_flooded(tmp_path):
    now = [100.0]
    event_log = EventLog(tmp_path / "log", clock=lambda: now[0])
    event_log("delivered", device=3, round=1, attempt=2, nothing=None)
    many = [
        threading.Thread(target=event_log.refused, args=(401, "no token", None, "/x")) for _ in range(100)
    ]
    for item in many:
        item.start()
    for item in many:
        item.join()
    now[0] = 101.0
    event_log.refused(409, "late", 3, "/y")
    event_log.close()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines[0] == {"time": 100.0, "event": "delivered", "device": 3, "round": 1, "attempt": 2}
    assert len(lines) == 1 + REFUSALS + 1
    assert lines[-1] == {
        "time": 101.0, "event": "refused", "status": 409, "reason": "late", "device": 3, "path": "/y",
        "untold": 100 - REFUSALS,
    }  # fmt: skip
