"""Random sequences of requests, valid and not, between those of honest devices: the job is as if nobody had sent them.

Strangers, and an enrolled device all of whose uploads break a rule, beside two honest devices in canonical mode:
adapters are bit-equal to the run without it, memory is bounded, no request ends in an error of the server's own, and
every refusal of an enrolled device is logged with it.
"""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
from dataclasses import replace

import pytest

from sflam.link.https_client import Link
from sflam.serve import event_log
from sflam.serve.event_log import EventLog
from tests.serve.test_shared_trunk import JOB, MIXED, equal, replayed
from tests.serve.threads import Rig

HONEST, ENROLLED = (0, 1), 2
STEPS, ROUNDS = 3, 2

pytestmark = pytest.mark.usefixtures("one_thread")


class Attack:
    """Requests without end, from one seed."""

    def __init__(self, seed, rig):
        self.draw, self.rig = random.Random(seed), rig
        self.sent, self.answers, self.broken, self.most = 0, {}, 0, 0
        self.stop, self.captured = threading.Event(), [b"", b"{}"]
        self.thread = threading.Thread(target=self.run)

    def run(self):
        connection = None
        while not self.stop.is_set():
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.rig.server.port, timeout=30)
            try:
                if self.draw.random() < 0.03:
                    self.half_sent()
                status = self.request(connection)
                self.answers[status] = self.answers.get(status, 0) + 1
            except (OSError, http.client.HTTPException):
                connection.close()
                connection = None
                self.broken += 1
            self.sent += 1
            self.most = max(self.most, self.rig.ingress.bounds.bytes)
        if connection:
            connection.close()

    def request(self, connection):
        draw = self.draw
        method, path = draw.choice([
            ("POST", "/v1/session"), ("GET", "/v1/job"), ("GET", "/v1/round"), ("GET", "/v1/files/../devices.json"),
            ("PUT", "{at}/adapters"), ("GET", "{at}/adapters"), *[("POST", "{at}/steps/{step}")] * 3,
            ("POST", "{at}/steps/{step}/forward"), ("DELETE", "{at}/adapters"), ("GET", "/healthz"),
            ("GET", "/metrics"), ("GET", "/"), ("POST", "/v1/round"), ("GET", "/" + "x" * draw.randrange(200)),
        ])  # fmt: skip
        at = f"/v1/rounds/{draw.choice([-1, 0, 1, 7, 10**12])}/{draw.choice([0, 1, 2, 3, 99])}"
        path = path.format(at=at, step=draw.choice([-1, 0, 1, 2, 3, 10**10, "x"]))
        body = self.body() if method in ("POST", "PUT") else None
        headers = {"Authorization": f"Bearer {self.token()}"} if draw.random() < 0.9 else {}
        if draw.random() < 0.2:
            headers["Sflam-Tokens"] = str(draw.choice([-1, 0, 17, 1 << 40, "nan"]))
        if draw.random() < 0.1:
            headers["Sflam-Loss"] = draw.choice(["inf", "nan", "-1", "0"])
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status

    def token(self):
        wrong = ["sflam_wrong", "", "x" * 2000, "sflam_" + "0" * 64]
        # Never those of the honest devices: a token that is stolen is the device.
        return self.rig.tokens[ENROLLED] if self.draw.random() < 0.7 else self.draw.choice(wrong)

    def body(self):
        draw, body = self.draw, bytearray(self.draw.choice(self.captured))
        kind = draw.randrange(5)
        if kind == 0 and body:
            body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)
        elif kind == 1:
            body = body[: draw.randrange(len(body) + 1)]
        elif kind == 2:
            body = bytearray(draw.randbytes(draw.randrange(3000)))
        elif kind == 3:
            # With weights by samples what it reports counts, so there it reports nothing that could be.
            samples = draw.choice(
                [0, -1, 1e9, None, [], "5", *([] if self.rig.fleet.local.servers.shared else [5, 99])]
            )
            body = bytearray(json.dumps({"samples": samples}).encode())
        return bytes(body)

    def half_sent(self):
        """Open a connection that sends the beginning of a request, and leave it."""
        with socket.create_connection(("127.0.0.1", self.rig.server.port), timeout=30) as lost:
            head = b"POST /v1/rounds/0/1/steps/0 HTTP/1.1\r\nContent-Length: 900\r\nAuthorization: Bearer "
            lost.sendall(
                head[: self.draw.randrange(len(head))] + self.draw.randbytes(self.draw.randrange(20))
            )


def attacked(tmp_path, monkeypatch, seed, count, **options):
    """Run a job under ``count`` requests of an attack; return records, adapters, attack, rig and events."""
    monkeypatch.setattr(event_log, "REFUSALS", 10**9)
    done = {"steps": 0}
    ready = threading.Lock()

    class Gated(Link):
        """An honest device that makes a step when its part of the attack has come."""

        def _once(self, method, path, body, headers):
            if method == "POST" and "/steps/" in path:
                with ready:
                    done["steps"] += 1
                attack.captured.append(bytes(body))
                part = count * done["steps"] // (len(HONEST) * STEPS * ROUNDS)
                while attack.sent < part and attack.thread.is_alive():
                    attack.stop.wait(0.01)
            return super()._once(method, path, body, headers)

    rig = Rig(tmp_path, "vit", links=dict.fromkeys(HONEST, Gated), lives=1, quorum=2, **options)
    rig.ingress.event_log = EventLog(tmp_path / "events.jsonl")
    rig.ingress.pause = 0.0  # wrong tokens are answered at once, or they would be most of the time
    attack = Attack(seed, rig)

    def select(round):
        rig.dispatch.wait_present(lambda present: set(HONEST) <= set(present))
        rig.fleet.expect_running()
        return HONEST

    rig.fleet.select = select
    real, live = rig.server.start, rig.live
    rig.server.start = lambda: (real(), attack.thread.start())
    # The enrolled device is the attacker's alone.
    rig.live = lambda number: 0 if number == ENROLLED else live(number)
    try:
        records, found = rig.run()
    finally:
        attack.stop.set()
        attack.thread.join(60)
        rig.ingress.event_log.close()
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    return records, found, attack, rig, events


def expect_untouched(tmp_path, monkeypatch, seed, count, method):
    job = JOB | {"learn": replace(MIXED, method=method, rounds=ROUNDS, local_steps=STEPS)}
    records, found, attack, rig, events = attacked(tmp_path, monkeypatch, seed, count, **job)
    assert [record.participants for record in records] == [HONEST] * ROUNDS
    _, wanted = replayed("vit", records, monkeypatch, **job)
    assert equal(found, wanted), "bit for bit as without the attack"
    assert attack.sent >= count
    own = {status for status in attack.answers if status >= 500} - {503}
    assert not own, attack.answers
    frame = max(contract.largest() for contract in rig.contracts.values())
    assert attack.most <= 2 * frame * 3 and rig.ingress.bounds.bytes == 0
    refused = [event for event in events if event["event"] == "refused"]
    told = sum(attack.answers.get(status, 0) for status in (400, 401, 403, 408, 409, 411, 413, 422, 429))
    assert len(refused) + sum(event.get("untold") or 0 for event in refused) >= told
    of_device = {event.get("device") for event in refused if event["status"] in (409, 411, 413, 422)}
    assert of_device <= {ENROLLED, *HONEST} and ENROLLED in of_device
    assert all(event.get("device") is None for event in refused if event["status"] == 401)


@pytest.mark.parametrize(("seed", "method"), [(0, "sflam"), (1, "sflam-mixed")])
def test_the_job_is_as_without_the_attack(tmp_path, monkeypatch, seed, method):
    expect_untouched(tmp_path, monkeypatch, seed, 1000, method)


@pytest.mark.slow
def test_a_hundred_thousand_requests(tmp_path, monkeypatch):
    expect_untouched(tmp_path, monkeypatch, 2, 100_000, "sflam")
