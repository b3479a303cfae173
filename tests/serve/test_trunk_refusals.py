"""Trunk servers at their coordinator: who is let in, who is not, and what each is shown; every refusal one line."""

from __future__ import annotations

import json
import urllib.request
from contextlib import closing, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sflam.codec.bodies import encode
from sflam.codec.messages import AdapterFrame
from sflam.errors import Refused, ServeError
from sflam.learn.steps import Steps
from sflam.link.contract import PROTOCOL
from sflam.link.https_client import Link
from sflam.link.trunk_way import TrunkAt, trunk_at
from sflam.serve.event_log import EventLog
from sflam.serve.round_stats import Reading
from sflam.serve.trunks.coordinator_link import CoordinatorLink
from sflam.serve.trunks.round_token import RoundTokens, new_key, round_token
from sflam.serve.trunks.trunk_hosts import TrunkHosts
from sflam.serve.trunks.trunk_order import OPEN, TrunkOrder, TrunkReport, order_of, report_of
from sflam.serve.trunks.trunk_roster import TrunkRoster
from sflam.serve.trunks.trunk_routes import trunk_routes
from tests.serve.test_hostile import Site

HELLO = {"protocol": PROTOCOL, "version": "0", "url": "https://edge-a:8444", "certificate": "PEM"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@contextmanager
def coordinated(folder, silence=1000.0):
    """Yield a coordinator without a model, its trunk servers and a way to it by a token."""
    roster, made = TrunkRoster(folder / "servers.json"), SimpleNamespace(lines=[])
    made.tokens = {name: roster.enrol(name) for name in ("edge-a", "edge-b")}
    body = encode(AdapterFrame(0, 0, 0, np.zeros(3, np.float32)))

    def routes(ingress):
        made.hosts = TrunkHosts(ingress.dispatch, silence, made.lines.append, EventLog())
        ingress.trunk_servers = made.hosts.seen
        hosted = SimpleNamespace(
            hosts=made.hosts, start=lambda server: body, copy_bytes=lambda device: len(body)
        )
        return trunk_routes(ingress, roster, hosted, {"digest": "abc"}, {})

    with Site(folder, more=routes) as site:
        made.site, made.roster = site, roster
        made.way = lambda token, instance="x": closing(
            CoordinatorLink(Link(f"http://127.0.0.1:{site.server.port}", token, patience=5), instance)
        )
        yield made


def refusal(way, method, path, body=None):
    with way as coordinator, pytest.raises(Refused) as raised:
        coordinator.json(method, path, body)
    return raised.value.status, str(raised.value)


def test_who_is_let_in(tmp_path):
    with coordinated(tmp_path) as made:
        device = made.site.token
        assert refusal(made.way(device), "POST", "/v1/trunk/hello", HELLO)[0] == 401
        assert refusal(made.way("sflam-trunk_wrong"), "POST", "/v1/trunk/hello", HELLO)[0] == 401
        for path in (
            "/v1/trunk/job",
            "/v1/trunk/files/x",
            "/v1/trunk/rounds/0/1",
            "/v1/trunk/rounds/0/1/start/0",
        ):
            assert refusal(made.way(device), "GET", path)[0] == 401
        assert refusal(made.way(made.tokens["edge-a"]), "GET", "/v1/round")[0] == 401, "it is no device"
        made.roster.revoke("edge-b")
        status, why = refusal(made.way(made.tokens["edge-b"]), "POST", "/v1/trunk/hello", HELLO)
        assert status == 403 and "edge-b was revoked" in why
        with made.way(made.tokens["edge-a"]) as coordinator:
            assert coordinator.json("POST", "/v1/trunk/hello", HELLO)["server"] == 0


def test_another_protocol_is_named(tmp_path):
    with coordinated(tmp_path) as made:
        found = refusal(made.way(made.tokens["edge-a"]), "POST", "/v1/trunk/hello", HELLO | {"protocol": 7})
        assert found[0] == 403 and "edge-a" in found[1] and "speaks protocol 7" in found[1]


@pytest.mark.parametrize(
    "wrong", [{"url": "ftp://x"}, {"url": 5}, {"certificate": "x" * 70000}, {"url": "h\u00f6st"}]
)
def test_a_malformed_hello_changes_nothing(tmp_path, wrong):
    with coordinated(tmp_path) as made:
        assert refusal(made.way(made.tokens["edge-a"]), "POST", "/v1/trunk/hello", HELLO | wrong)[0] == 422
        assert not made.hosts.hosts


def test_two_of_one_name(tmp_path):
    with coordinated(tmp_path) as made:
        token = made.tokens["edge-a"]
        with made.way(token, "first") as first:
            first.json("POST", "/v1/trunk/hello", HELLO)
            status, why = refusal(made.way(token, "second"), "POST", "/v1/trunk/hello", HELLO)
            assert status == 409 and "edge-a is here already, at https://edge-a:8444" in why
            made.hosts.silence = -1.0  # the first one has died
            with made.way(token, "second") as second:
                second.json("POST", "/v1/trunk/hello", HELLO)
            made.hosts.silence = 1000.0
            assert (
                first.json("POST", "/v1/trunk/beat", {"serial": 0, "attempt": 0, "seats": {}})["known"]
                is False
            )


def test_what_is_not_asked_of_a_trunk_server_is_refused(tmp_path):
    with coordinated(tmp_path) as made:
        with made.way(made.tokens["edge-a"]) as coordinator:
            coordinator.json("POST", "/v1/trunk/hello", HELLO)
        host = made.hosts.hosts["edge-a"]
        host.ask(TrunkOrder(0, 1, new_key(), (0,), (0, 1), (4, 4), (0, 1)), OPEN)
        at = "/v1/trunk/rounds/0/1"
        own = made.tokens["edge-a"]
        for method, path in (
            ("PUT", f"{at}/copies/0"),
            ("POST", f"{at}/done"),
            ("POST", "/v1/trunk/rounds/0/2/ready"),
        ):
            assert refusal(made.way(own), method, path, {})[0] == 409
        beat = {"serial": 0, "attempt": 1, "seats": {"1": [1, False, False]}}
        assert refusal(made.way(own), "POST", "/v1/trunk/beat", beat)[0] == 422, "device 1 is not its own"
        with made.way(own) as coordinator:
            assert coordinator.json("GET", at)["devices"] == [0]
            coordinator.send("POST", f"{at}/ready", b"{}")
            found = coordinator.json("POST", "/v1/trunk/beat", beat | {"seats": {"0": [2, True, False]}})
        assert (found["phase"], found["attempt"], host.ready) == (OPEN, 1, 1)
        assert made.site.session.seats[0].next == 2 and made.site.session.seats[0].computing
        assert refusal(made.way(made.tokens["edge-b"]), "GET", at)[0] == 409


def test_pages_show_numbers_and_operators_names(tmp_path):
    with coordinated(tmp_path) as made:
        with made.way(made.tokens["edge-a"]) as coordinator:
            coordinator.json("POST", "/v1/trunk/hello", HELLO)
        at = f"http://127.0.0.1:{made.site.server.port}"
        page, metrics = (urllib.request.urlopen(at + path).read().decode() for path in ("/", "/metrics"))
        assert "Trunk servers" in page and "edge-a" not in page + metrics
        assert 'sflam_trunk_server_present{server="0"} 1' in metrics
        operator = {"Authorization": f"Bearer {made.site.operators.add('alice')}"}
        shown = (
            urllib.request.urlopen(urllib.request.Request(at + "/metrics", headers=operator)).read().decode()
        )
        assert 'sflam_trunk_server_present{server="edge-a"} 1' in shown


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_token_is_of_one_device_of_one_opening(device, other):
    key, tokens = new_key(), RoundTokens()
    tokens.open(key, [device, 11])
    assert tokens.device_of(round_token(key, device), 0.0) == device
    for wrong in (round_token(new_key(), device), round_token(key, device)[:-1], "sflam_round_x", ""):
        with pytest.raises(Refused):
            tokens.device_of(wrong, 0.0)
    if other != device:
        with pytest.raises(Refused):
            tokens.device_of(round_token(key, other), 0.0)
    tokens.close()
    with pytest.raises(Refused):
        tokens.device_of(round_token(key, device), 0.0)


ORDER = TrunkOrder(3, 5, "ab" * 32, (0, 2), (0, 1, 2), (4, -1, 7), (0, 1, 0))
REPORT = TrunkReport(
    Steps(device_steps=4, code_bytes=9, samples={0: 8, 2: 8}, device_losses={0: 1.25}, sent={0: 5}),
    {0: 2, 2: 2},
    (2,),
    0.5,
    {0: Reading(bytes_up=3, upload_s=0.25)},
)


def test_orders_and_reports_survive_json():
    assert order_of(json.loads(json.dumps(ORDER.to_json())), 3) == ORDER
    assert report_of(json.loads(json.dumps(REPORT.to_json())), (0, 2)) == REPORT


@given(st.data())
def test_malformed_orders_and_reports_are_refused_or_whole(data):
    for good, read in (
        (ORDER.to_json(), lambda found: order_of(found, 3)),
        (REPORT.to_json(), lambda found: report_of(found, (0, 2))),
    ):
        found = json.loads(json.dumps(good))
        found[data.draw(st.sampled_from(sorted(found)))] = data.draw(JSON)
        try:
            read(found)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue


@given(JSON)
def test_malformed_servers_in_a_round_are_refused(wrong):
    good = {"name": "edge-a", "url": "https://edge-a:8444", "certificate": "", "token": "sflam_round_0_ab"}
    assert trunk_at(good) == TrunkAt(**good) and trunk_at(None) is None
    for name in good:
        if not isinstance(wrong, str):
            with pytest.raises(ValueError):
                trunk_at(good | {name: wrong})


def test_the_command_line_says_it_in_one_line(cli, tmp_path):
    token = tmp_path / "edge-a.token"
    token.write_text(TrunkRoster(tmp_path / "servers.json").enrol("edge-a"))
    (tmp_path / "device.token").write_text("sflam_abc")
    more = ("--folder", tmp_path / "trunk", "--port", 0, "--patience", 0.2)
    away, plain = "http://127.0.0.1:9", "http://example.org"
    for words, sentence in (
        (("trunk", away, "--token-file", token, *more), "no answer from 127.0.0.1:9 for 0.2 s"),
        (("trunk", plain, "--token-file", token, *more), "would send the token in the clear"),
        (("trunk", away, "--token-file", tmp_path / "device.token", *more), "holds no trunk server"),
        (("trunk", away, "--token-file", token, *more, "--host", "0.0.0.0"), "without a certificate"),
        (("trunk", away, "--token-file", token, *more, "--url", "edge a:x"), "server address 'edge a:x'"),
        (("enrol", "--trunk"), "a trunk server is enrolled by its name alone"),
        (
            ("enrol", "x", "--trunk", "--revoke", "--servers", tmp_path / "servers.json"),
            "no trunk server 'x' in",
        ),
    ):
        done = cli(*words)
        lines = [line for line in done.err if line.startswith("sflam: ")]
        assert done.code == 2 and len(lines) == 1 and sentence in lines[0], (words, done)
    with pytest.raises(ServeError):
        TrunkRoster(tmp_path / "servers.json").enrol("a b")
