"""Answers bent in every way, to devices of either kind: a clear refusal or a value that was agreed, and nothing else.

The other way, bodies that a server gets, is in ``test_fuzzed_bodies``.
"""

from __future__ import annotations

import itertools
import json
import random
import tracemalloc
from dataclasses import replace

import pytest

from sflam.codec.settings import QuantSettings
from sflam.device.engines import Engines
from sflam.errors import SflamError
from sflam.link.https_client import Link
from tests.learn.builders import LEARN, adapted
from tests.serve.test_fuzzed_bodies import VALUES, change_a_value
from tests.serve.threads import LEAN, Rig

pytestmark = pytest.mark.usefixtures("one_thread")
NUMBER = 1
JOB = {
    "cuts": (1, 1, 1),
    "quant": QuantSettings(bits_up=4, bits_down=4),
    "learn": replace(LEARN, canonical=True, state="keep", optimizer="adam", local_steps=2, rounds=2),
}


class Recording(Link):
    """Keeps what every request was answered with."""

    tape: list[tuple[str, str, bytes]]

    def _once(self, method, path, body, headers):
        found = super()._once(method, path, body, headers)
        if found[0] < 300:
            self.tape.append((method, path, found[2]))
        return found


class Response:
    """An answer that is read while it comes."""

    will_close = False

    def __init__(self, body):
        self.body, self.length = body, len(body)

    def read(self, count):
        found, self.body = self.body[:count], self.body[count:]
        return found

    def close(self):
        """Nothing is open."""


class Replayed(Link):
    """Answers every request with what it was answered with before, number ``at`` with something else."""

    def __init__(self, tape, at, answer):
        super().__init__("http://127.0.0.1:9", "token", patience=0.0, sleep=self._waits)
        self.tape, self.at, self.answer, self.asked = tape, at, answer, 0

    def _waits(self, seconds):
        raise AssertionError("there is nothing to wait for")

    def _once(self, method, path, body, headers):
        number, self.asked = self.asked, self.asked + 1
        if number >= len(self.tape) or self.tape[number][:2] != (method, path):
            return 404, None, b'{"error": "another request was due"}'
        found = self.answer if number == self.at else self.tape[number][2]
        if len(found) > self.most:
            found = found[: self.most + 1]
        if self._streams:
            self._open = Response(found)
            return 200, None, b""
        return 200, None, found


def bent(draw, good):
    """Return another answer than ``good``."""
    body = bytearray(good)
    if good[:1] == b"{":
        found = json.loads(good)
        for _ in range(draw.randint(1, 2)):
            key = draw.choice(sorted(found) or ["phase"])
            if draw.random() < 0.3:
                found.pop(key, None)
            else:
                found[key] = draw.choice(VALUES)
        return draw.choice((json.dumps(found).encode(), json.dumps(draw.choice(VALUES)).encode()))
    for _ in range(draw.randint(1, 3)):
        match draw.randrange(6) if body else 5:
            case 0:  # a bit, of the header's used part or of the values
                at = draw.randrange(min(len(body), draw.choice((200, len(body)))))
                body[at] ^= 1 << draw.randrange(8)
            case 1:  # the length of the header
                body[:8] = draw.getrandbits(64).to_bytes(8, "little")
            case 2:  # a value of the header
                change_a_value(draw, body)
            case 3:  # its end
                del body[draw.randrange(len(body)) :]
            case 4:  # more than its end
                body += bytes(draw.randrange(1, 40))
            case 5:  # something else altogether
                return draw.choice((b"", b"{}", b"null", bytes(draw.randrange(700)), b"\xff" * 700))
    return bytes(body)


@pytest.fixture(scope="module", params=["server", "device"])
def recorded(request, tmp_path_factory):
    """The rig of a run without faults, and all that device 1 was answered with."""
    labels = request.param
    link = type("Taped", (Recording,), {"tape": []})
    rig = Rig(tmp_path_factory.mktemp("taped"), "bert", labels=labels, links={NUMBER: link}, lean=LEAN, **JOB)
    close = rig.halves.close
    rig.halves.close = lambda: None
    rig.run()
    yield rig, link.tape
    close()


@pytest.fixture(params=["lean", "torch"])
def client_of(request, recorded, tmp_path):
    """What was recorded, and a new device: the way to a server, whether its answers are read while they come."""
    rig, tape = recorded
    halves = rig.halves
    halves.engines = {1: Engines(halves.bundles[1, 0])}
    count = itertools.count()
    model = adapted("bert")

    def made(link, streaming):
        rig.folder = tmp_path / str(next(count))
        rig.folder.mkdir()
        rig.lean, rig.models[NUMBER] = (set(LEAN), []) if request.param == "lean" else (set(), [model])
        client = rig.client(NUMBER, link)
        client.streaming = streaming
        return client

    return tape, made


def outcome(client):
    """Return the error a device ends with; None where it goes on to the end."""
    try:
        client.run()
    except SflamError as error:
        return error
    return None


def fuzz(client_of, count, seed, most=None):
    """Bend one answer of each of ``count`` runs; return how many devices refused it."""
    tape, made = client_of
    assert outcome(made(Replayed(tape, -1, b""), False)) is None, "what was recorded is all there is to ask"
    draw, refused = random.Random(seed), 0
    if most:
        tracemalloc.start()
    try:
        for number in range(count):
            at = draw.randrange(len(tape))
            answer = bent(draw, tape[at][2])
            error = outcome(made(Replayed(tape, at, answer), bool(number % 2)))
            if error is not None:
                refused += 1
                assert len(str(error)) < 3000
        if most:
            assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    return refused


def test_some_bent_answers(client_of):
    assert fuzz(client_of, 30, 1) > 10


@pytest.mark.slow
def test_thousands_of_bent_answers(client_of):
    assert fuzz(client_of, 1000, 2, most=32 << 20) > 400
