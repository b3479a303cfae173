"""Whatever a stranger or a broken device sends is refused by its status, and changes nothing."""

from __future__ import annotations

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sflam.codec.bodies import encode
from sflam.codec.messages import AdapterFrame, StepFrame
from sflam.codec.quantizers import quantizer
from sflam.errors import Refused, ServeError
from sflam.link.contract import Contract
from sflam.link.https_client import Link
from sflam.serve.app import application
from sflam.serve.dispatch import Dispatch
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.operation import RunOperation
from sflam.serve.operator_routes import operator_routes
from sflam.serve.operators import Operators
from sflam.serve.orders import Orders
from sflam.serve.roster import Roster
from sflam.serve.session import Session
from sflam.serve.web_server import Listen, WebServer

TERMS = Contract(
    device=0, scheme="uniform", bits=4, dim=8, tokens=5, text=True, labels_up=True, per_token=False, classes=3,
    batch=2, local_steps=3, local_epochs=1, adapters=6,
)  # fmt: skip
STEP = "/v1/rounds/0/1/steps/0"


def step_body(**changes):
    lengths = np.array([3, 4], np.int32)
    tokens = np.random.default_rng(0).normal(size=(7, 8)).astype(np.float32)
    values = {
        "round": 0, "step": 0, "device": 0, "rows": 2, "lengths": lengths, "labels": np.array([0, 2], np.int32),
        "activations": quantizer("uniform").encode(tokens, changes.pop("bits", 4), 1),
    }  # fmt: skip
    return encode(StepFrame(**(values | changes)))


GOOD = step_body()


class Site:
    """A server with one open round and no trunk: a thread answers every arrival."""

    def __init__(
        self,
        folder,
        devices=2,
        certificate=None,
        key=None,
        works=True,
        more=lambda ingress: [],
        log=None,
        **guard,
    ):
        roster = Roster(folder / "devices.json")
        self.tokens = [roster.enrol("abfghijk"[device]) for device in range(devices)]
        self.token, self.second = self.tokens[:2]
        self.expired, self.revoked = roster.enrol("c", days=1e-9), roster.enrol("d")
        self.stranger = roster.enrol("e")  # enrolled, but the job has fewer devices
        roster.revoke("d")
        self.session = Session(1, patience=1000.0)
        self.dispatch = Dispatch(self.session)
        contracts = {n: Contract(**(vars(TERMS) | {"device": n})) for n in range(devices + 2)}
        self.ingress = Ingress(
            self.dispatch, roster, contracts, lambda device: {"device": device}, {}, Bounds(1 << 20, 1 << 14)
        )
        listen = Listen(port=0, certificate=certificate, key=key)
        self.ingress.event_log = log or self.ingress.event_log
        self.orders = Orders(folder / "orders.json", roster, len(contracts))
        self.ingress.orders = self.orders
        self.operators = Operators(folder / "operators.json")
        self.operation = RunOperation(
            self.dispatch, roster, self.orders, self.ingress.event_log, len(contracts)
        )
        routes = [*operator_routes(self.ingress, self.operators, self.operation), *more(self.ingress)]
        self.server = WebServer(application(self.ingress, more=routes), self.dispatch, listen, **guard)
        self.server.start()
        self.computed = []
        for device in range(devices):
            self.dispatch.session.hello(device, 4, self.dispatch.clock())
        self.dispatch.open(0, 1, dict.fromkeys(range(devices), 3), 1000.0, {0: b"zero", 1: b"one"})
        if works:
            threading.Thread(target=self.work, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.dispatch.stop()
        self.server.stop()

    def work(self):
        while arrivals := self.dispatch.collect():
            for arrival in arrivals:
                self.computed.append((arrival.device, arrival.number))
                self.dispatch.answer(arrival, 1, b"answer %d" % arrival.number)

    def ask(self, method="POST", path=STEP, body=GOOD, token=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=20)
        try:
            sent = {"Authorization": f"Bearer {token or self.token}", "Sflam-Tokens": "7"}
            sent |= {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {k: v for k, v in sent.items() if v is not None})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def state(self):
        with self.dispatch.locked() as session:
            return repr(session.seats), session.phase, session.attempt, dict(session.samples)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with Site(tmp_path_factory.mktemp("site")) as made:
        yield made


def refused(site, status, *arguments, **options):
    before = site.state()
    found, body = site.ask(*arguments, **options)
    assert found == status, body
    assert site.state() == before and site.computed == []
    return json.loads(body)["error"]


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [("expired", 403, "expired"), ("revoked", 403, "revoked"), ("stranger", 403, "has 4 devices")],
)
def test_tokens_that_no_longer_serve(site, name, status, message):
    assert message in refused(site, status, token=getattr(site, name))


@pytest.mark.parametrize(
    "header", [None, "Bearer", "Bearer sflam_wrong", "Basic abc", "Bearer " + "x" * 4000]
)
def test_no_token_or_a_wrong_one(site, header):
    refused(site, 401, Authorization=header)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/rounds/1/1/steps/0", 409),
        ("/v1/rounds/0/2/steps/0", 409),
        ("/v1/rounds/0/1/steps/1", 409),
        ("/v1/rounds/0/1/steps/3", 409),
        ("/v1/rounds/0/1/steps/-1", 404),
        ("/v1/rounds/x/1/steps/0", 404),
        ("/v1/rounds/0/1/steps/99999999999999999999", 404),
        ("/v1/rounds/0/1/steps/0/forward", 404),
        ("/v1/files/..%2Fdevices.json", 404),
    ],
)
def test_other_places(site, path, status):
    before = site.state()
    assert site.ask("GET" if "files" in path else "POST", path)[0] == status
    assert site.state() == before


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (GOOD[:-1], 422),
        (GOOD + b"x", 413),
        (b"", 422),
        (b"\0" * len(GOOD), 422),
        (step_body(round=1), 422),
        (step_body(step=1), 422),
        (step_body(device=1), 422),
        (step_body(labels=np.array([0, 3], np.int32)), 422),
        (step_body(labels=np.array([-1, 0], np.int32)), 422),
        (step_body(lengths=np.array([1, 6], np.int32)), 422),
        (step_body(lengths=np.array([7, 0], np.int32)), 422),
        (step_body(bits=5), 413),
        (step_body(bits=3), 422),
        (step_body(labels=None), 422),
        (encode(AdapterFrame(0, 0, 8, np.zeros(6, np.float32))).ljust(len(GOOD), b"\0"), 422),
    ],
)
def test_bodies_that_were_not_agreed(site, body, status):
    refused(site, status, body=body)


@pytest.mark.parametrize("tokens", [None, "", "1", "11", "-7", "7.0", "seven", "9" * 30, "٧"])
def test_token_counts_outside_the_plan(site, tokens):
    if tokens is not None and not tokens.isascii():
        tokens = tokens.encode()
    refused(site, 422, Sflam_Tokens=tokens)


def test_a_body_in_chunks(site):
    refused(site, 411, body=iter([GOOD]))


def test_adapters_before_the_last_step(site):
    body = encode(AdapterFrame(0, 0, 8, np.zeros(6, np.float32)))
    refused(site, 409, "PUT", "/v1/rounds/0/1/adapters", body)


@pytest.mark.parametrize(
    "body",
    [b"{}", b"[]", b"x", b'{"samples": 0}', b'{"samples": true}', b'{"samples": 1e9}', b'{"samples": 9}'],
)
def test_a_session_with_odd_samples(site, body):
    refused(
        site, 409 if b"9}" in body and b"e" not in body.split(b":")[1] else 422, "POST", "/v1/session", body
    )


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_a_changed_byte_is_refused_or_is_another_valid_body(site, at, change):
    body = bytearray(GOOD)
    body[at] ^= change
    if at >= 592:
        return  # other codes, labels or lengths of the same form: tested above and by the codec
    if bytes(body) == step_body(device=1):
        return  # just what device 1 may send
    before = site.state()
    status, _ = site.ask(body=bytes(body), token=site.second)  # device 1 may not send what names device 0
    assert status == 422 and site.state() == before


@given(st.binary(max_size=60))
@settings(max_examples=40, deadline=None)
def test_malformed_requests_leave_the_server_up(site, raw):
    import socket

    with socket.create_connection(("127.0.0.1", site.server.port), timeout=10) as connection:
        connection.sendall(b"POST " + STEP.encode() + b" HTTP/1.1\r\n" + raw + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        try:
            found = connection.recv(64)
        except ConnectionError:
            found = b""
    assert not found or found.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4"))
    assert site.ask("GET", "/healthz", None)[0] == 200


def test_public_pages_hold_no_names(site):
    assert site.ask(token="sflam_wrong")[0] == 401
    for path in ("/healthz", "/metrics", "/"):
        status, body = site.ask("GET", path, None, Authorization=None)
        assert status == 200 and b"sflam_" + b"x" not in body and site.token.encode() not in body
    assert b'sflam_refused_total{status="401"}' in site.ask("GET", "/metrics", None)[1]


def test_zz_duplicates_at_once_are_computed_once(site):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: site.ask(), range(12)))
    assert {status for status, _ in found} <= {200, 429} and (200, b"answer 0") in found
    assert site.computed == [(0, 0)]
    assert site.ask() == (200, b"answer 0")  # answered again
    assert site.ask(path="/v1/rounds/0/1/steps/1", body=step_body(step=1)) == (200, b"answer 1")
    assert site.ask()[0] == 409  # answered long ago
    assert site.ask("GET", "/v1/rounds/0/1/adapters", None) == (200, b"zero")


def test_plain_http_beyond_this_machine_is_refused():
    with pytest.raises(ServeError, match="in the clear"):
        Listen("0.0.0.0").check()
    with pytest.raises(ServeError, match="both --cert and --key"):
        Listen(certificate="a.pem").check()
    with pytest.raises(ServeError, match="in the clear"):
        Link("http://example.org", "sflam_x")
    with pytest.raises(ServeError, match="server address"):
        Link("example.org:port", "sflam_x")


def test_bytes_in_flight_are_bounded():
    bounds = Bounds(total=10, each=6)
    with bounds.hold(0, 6):
        with pytest.raises(Refused) as found, bounds.hold(0, 1):
            pass
        assert found.value.status == 429
        with pytest.raises(Refused) as found, bounds.hold(1, 5):
            pass
        assert found.value.status == 503
        with bounds.hold(1, 4):
            assert bounds.bytes == 10
    assert bounds.bytes == 0


def test_more_samples_than_the_job_takes_are_refused_and_change_nothing(tmp_path):
    with Site(tmp_path) as site:
        for number, contract in list(site.ingress.contracts.items()):
            site.ingress.contracts[number] = replace(contract, most_samples=5)
        before = site.state()
        status, body = site.ask("POST", "/v1/session", b'{"samples": 6}', Sflam_Tokens=None)
        assert status == 422 and b"announces 6 samples, and fleet.most_samples is 5" in body
        assert site.state() == before
        assert site.ask("POST", "/v1/session", b'{"samples": 5}', token=site.second)[0] in (200, 409)
