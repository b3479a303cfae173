"""An operator pauses, drains, kicks and closes by name: the round goes on as it should, and so does a killed server."""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest
import torch

from sflam.codec.settings import QuantSettings
from sflam.errors import Refused, ServeError
from sflam.link.https_client import Link
from sflam.link.operator import ask, request_of
from sflam.serve.operators import Operators
from sflam.serve.orders import Orders
from sflam.serve.roster import DAY, Roster
from sflam.serve.session import Phase, Session, Verdict
from tests.learn.builders import LEARN
from tests.serve.network import adapters_of, network
from tests.serve.test_hostile import Site
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets
from tests.serve.test_served_is_simulated import simulated as simulated_run
from tests.serve.threads import SIZES, Rig, simulated

JOB = {
    "cuts": (1, 1, 1),
    "labels": "server",
    "quant": QuantSettings(bits_up=4, bits_down=4),
    "learn": replace(LEARN, canonical=True, local_steps=3, rounds=3),
}
ALL = (0, 1, 2)
pytestmark = pytest.mark.usefixtures("one_thread")


def acting(end, act, round=0):
    """Return a link that calls ``act`` once, before its first request to a path like ``end`` in a round."""

    class Acting(Link):
        due = True

        def _once(self, method, path, body, headers):
            if type(self).due and f"/rounds/{round}/" in path and path.endswith(end) and method != "GET":
                type(self).due = False
                act()
            return super()._once(method, path, body, headers)

    return Acting


def soon(what, seconds=30.0):
    """Wait until something is so."""
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not come about"
        time.sleep(0.01)


def events(folder):
    return [json.loads(line) for line in (folder / "served.jsonl").read_text().splitlines()]


def who(records):
    return [record.participants for record in records]


def equal(found, wanted):
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def drawn(rounds):
    """Return the devices of each round, as the simulation is given them."""
    return lambda fleet, round: rounds[round]


def test_a_paused_run_begins_no_round_and_then_ends_as_without(tmp_path):
    token, rig, seen = "", None, []

    def operator():
        seen.append(asked(rig, "pause", token=token))
        soon(lambda: rig.dispatch.session.phase is Phase.WAITING and rig.dispatch.session.round == 0)
        time.sleep(0.5)
        seen.append(asked(rig, "list", token=token))
        seen.append(asked(rig, "resume", token=token))

    def pauses():
        work = threading.Thread(target=operator)
        work.start()
        soon(lambda: rig.orders.paused)

    rig = Rig(tmp_path, "vit", links={0: acting("/adapters", pauses)}, **JOB)
    token = rig.operators.add("alice")
    records, adapters = rig.run()
    assert "no other begins" in seen[0]["done"] and seen[2]["done"] == "goes on"
    assert (seen[1]["phase"], seen[1]["round"], seen[1]["paused"], seen[1]["waiting"]) == (
        "waiting",
        1,
        True,
        [],
    )
    assert [device["state"] for device in seen[1]["devices"]] == ["waits"] * 3
    assert who(records) == [ALL] * 3
    assert equal(adapters, simulated("vit", **JOB)[1])
    assert [(e["event"], e["by"]) for e in events(tmp_path)] == [("pause", "alice"), ("resume", "alice")]


def test_a_drained_device_ends_its_round_and_is_in_no_further_one_until_it_is_undrained(tmp_path):
    rig = None
    links = {
        0: acting("steps/1", lambda: rig.operation.drain("alice", ["device-2"])),
        1: acting("steps/1", lambda: rig.operation.undrain("alice", ["device-2"]), round=1),
    }
    rig = Rig(tmp_path, "vit", links=links, **JOB)
    records, adapters = rig.run()
    assert who(records) == [ALL, (0, 1), ALL]
    assert rig.rounds == [3, 3, 2]  # it stayed, and waited
    assert equal(adapters, simulated("vit", selected=drawn([ALL, (0, 1), ALL]), **JOB)[1])


def test_a_kicked_device_is_out_at_once_and_the_round_goes_on_by_its_quorum(tmp_path):
    rig = None
    links = {0: acting("steps/1", lambda: rig.operation.kick("alice", ["device-2"]))}
    rig = Rig(tmp_path, "vit", links=links, quorum=2, **JOB)
    records, _ = rig.run()
    assert who(records) == [(0, 1), ALL, ALL]
    assert [record.measured.openings for record in records] == [1, 1, 1]


def test_below_the_quorum_a_kick_opens_the_round_again_without_and_is_nobodys_failure(tmp_path):
    rig, said = None, []
    links = {
        0: acting("steps/1", lambda: said.append(rig.operation.kick("alice", ["device-2"]))),
        1: acting("2/steps/1", lambda: said.append(rig.operation.kick("alice", ["device-0"]))),
    }
    rig = Rig(tmp_path, "vit", links=links, **JOB)
    records, adapters = rig.run()
    assert said[0] == "device-2: out of round 1; it is opened again without, as its quorum is gone"
    assert who(records) == [(1,), ALL, ALL]
    assert records[0].measured.openings == 3
    assert equal(adapters, simulated("vit", selected=drawn([(1,), ALL, ALL]), **JOB)[1])


def test_a_revoked_device_is_not_waited_for(tmp_path):
    rig = None
    links = {0: acting("steps/1", lambda: rig.operation.revoke("alice", ["device-1"]))}
    rig = Rig(tmp_path, "vit", links=links, quorum=2, **JOB)

    def live(number, plain=rig.live):
        if number != 1:
            return plain(number)
        link = Link(f"http://127.0.0.1:{rig.server.port}", rig.tokens[1], patience=60)
        with closing(link), pytest.raises(Refused, match="revoked"):  # it alone ends, and not the server
            rig.client(1, link).run()
        return 0

    rig.live = live
    records, _ = rig.run()
    assert who(records) == [(0, 2)] * 3
    assert rig.operation.seen()["devices"][1]["state"] == "revoked"


@pytest.fixture
def hall(tmp_path):
    """A server with one open round, and an operator's token."""
    with Site(tmp_path) as site:
        site.operator = site.operators.add("alice")
        yield site


def asked(site, act, *words, token=None):
    with closing(Link(f"http://127.0.0.1:{site.server.port}", token or site.operator, patience=5)) as link:
        return ask(link, act, words)


def test_names_states_and_what_is_waited_for(hall):
    hall.ask()
    found = asked(hall, "list")
    by_name = {device["name"]: device for device in found["devices"]}
    assert by_name["a"]["state"] == "at work" and by_name["a"]["exchange"] == 1
    assert (by_name["c"]["state"], by_name["d"]["state"]) == ("expired", "revoked")
    assert by_name["e"]["state"] == "beyond the job's places"
    assert found["waiting"] == ["a", "b"] and found["quorum"] == 1 and found["phase"] == "open"
    for token in (hall.operator, hall.token, "sha256"):
        assert token not in json.dumps(found)


def test_a_deadline_moves_the_end_of_the_round_both_ways(hall):
    for seconds in (3600, 5):
        assert f"{seconds} s from now" in asked(hall, "deadline", str(seconds))["done"]
        assert asked(hall, "list")["seconds"] == pytest.approx(seconds, abs=4)


def test_a_deadline_of_an_operator_is_not_shortened_by_the_grace_of_late_devices():
    for ordered, verdict in ((True, Verdict.RUNNING), (False, Verdict.COMPLETE)):
        session = Session(1, patience=1000.0, grace=lambda elapsed, late: 10.0)
        for device in (0, 1):
            session.hello(device, 4, 0.0)
        session.open(0, 1, {0: 1, 1: 1}, 100.0, now=0.0)
        if ordered:
            session.end_at(500.0)
        session.exchange(0, 0, 1, 0, 1.0)
        session.answer(0, 1, 0, b"", 1.0)
        session.deliver(0, 0, 1, object(), 1.0)
        assert session.verdict(60.0) is verdict


def test_a_round_is_closed_with_a_quorum_alone(hall):
    with pytest.raises(Refused, match="0 of at least 1 devices have delivered in round 1") as found:
        asked(hall, "close")
    assert found.value.status == 409
    with hall.dispatch.locked() as session:
        seat = session.seats[0]
        seat.next = seat.exchanges
        session.deliver(0, 0, 1, (None, 0.0, 0), hall.dispatch.clock())
    assert "closed with what 1 devices delivered" in asked(hall, "close")["done"]
    with hall.dispatch.locked() as session:
        assert session.verdict(hall.dispatch.clock()) is Verdict.COMPLETE


@pytest.mark.parametrize(
    ("act", "words", "status", "message"),
    [
        ("kick", ["nobody"], 404, "no device 'nobody'; there are a, b, c, d, e"),
        ("drain", ["a", "nobody"], 404, "no device 'nobody'"),
        ("drain", ["d"], 409, "d is revoked"),
        ("kick", ["e"], 409, "e has no part in a round"),
        ("deadline", ["nan"], 422, "a deadline is"),
        ("deadline", ["-1"], 422, "a deadline is"),
        ("deadline", ["1e9"], 422, "a deadline is"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_changes_nothing(hall, act, words, status, message):
    before = hall.state()
    with pytest.raises(Refused, match=message) as found:
        asked(hall, act, *words)
    assert found.value.status == status and hall.state() == before
    assert not hall.orders.drained and not hall.orders.paused


@pytest.mark.parametrize(
    ("act", "words", "message"),
    [
        ("dance", [], "no act 'dance'; there are list, pause"),
        ("kick", [], "kick what"),
        ("pause", ["a"], "pause takes nothing more"),
        ("deadline", [], "the seconds that the open round may last"),
        ("deadline", ["soon"], "soon was given"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_asked(act, words, message):
    with pytest.raises(ServeError, match=message):
        request_of(act, words)


@pytest.mark.parametrize(
    "body", [b"[]", b"{", b'{"names": "a"}', b'{"names": []}', b'{"names": [1]}', b"null", b"{}"]
)
def test_odd_bodies_are_refused(hall, body):
    before = hall.state()
    assert hall.ask("POST", "/v1/admin/kick", body, token=hall.operator)[0] == 422
    assert hall.state() == before


def test_devices_and_operators_have_tokens_of_their_own_kinds(hall):
    watch = hall.operators.add("eve", watches=True)
    for token in (hall.token, "sflam-operator_wrong", "sflam_wrong", hall.operator[:-1]):
        status, body = hall.ask("POST", "/v1/admin/pause", b"{}", token=token)
        assert status == 401 and b"operator" in body, body
    for path in ("/v1/round", "/v1/job", "/v1/rounds/0/1/adapters"):
        assert hall.ask("GET", path, None, token=hall.operator)[0] == 401
    assert hall.ask("GET", "/v1/admin", None, token=watch)[0] == 200
    status, body = hall.ask("POST", "/v1/admin/pause", b"{}", token=watch)
    assert status == 403 and b"for watching alone" in body and not hall.orders.paused
    for change in (lambda: hall.operators.revoke("alice"), lambda: hall.operators.add("alice", 1e-9)):
        change()
        assert hall.ask("GET", "/v1/admin", None, token=hall.operator)[0] in (401, 403)


def test_wrong_operator_tokens_are_slowed_down(hall):
    hall.ingress.pause = 0.01
    found = [hall.ask("GET", "/v1/admin", None, token="sflam-operator_x")[0] for _ in range(25)]
    assert found[:20] == [401] * 20 and found[-1] == 429
    assert hall.ask("GET", "/v1/admin", None, token=hall.operator)[0] == 200  # a right one never is


def test_the_file_of_operators_holds_no_token(tmp_path):
    operators = Operators(tmp_path / "operators.json")
    token = operators.add("alice", 2)
    assert token[15:] not in operators.path.read_text() and operators.path.stat().st_mode & 0o077 == 0
    with pytest.raises(Refused, match="has expired"):
        operators.operator_of(token, time.time() + 2 * DAY)
    with pytest.raises(ServeError, match="no operator 'bob'"):
        operators.revoke("bob")


def test_orders_survive_a_restart_and_damaged_ones_are_one_line(tmp_path):
    roster = Roster(tmp_path / "devices.json")
    roster.enrol_all(["a", "b", "c"])
    path = tmp_path / "orders.json"
    orders = Orders(path, roster, 3)
    orders.pause(True)
    orders.drain(["b"])
    orders.kick(["c"], 4, 9)
    again = Orders(path, roster, 3)
    assert again.paused and again.out(4) == {1, 2} and again.out(5) == {1}
    assert again.held(0) == "paused by the operator" and len(again.notes()) == 2
    again.cut(["device-1", "device-0"], 2)
    again.cut(["device-0"], None)
    assert Orders(path, roster, 3).notes()[2:] == [
        "cuts as ordered, until sflam admin SERVER cut NAME auto: device-1 2"
    ]
    again.cut(["device-1"], None)
    again.server(["a", "b"], 1)
    again.server(["b"], None)
    assert Orders(path, roster, 3).servers_ordered() == {0: 1}
    assert Orders(path, roster, 3).notes()[2:] == [
        "servers as ordered, until sflam admin SERVER server NAME auto: a 1"
    ]
    again.server(["a"], None)
    assert len(Orders(path, roster, 3).notes()) == 2
    again.pause(False)
    roster.revoke("b")
    assert again.held(0) == "" and again.out(5) == {1}
    roster.enrol("new")  # has the number of the one that was taken out, and is not drained
    assert again.out(5) == frozenset()
    for damaged in ("[]", '{"paused": false, "drained": [], "kicked": {}, "cuts": {"a": 1e999}}'):
        path.write_text(damaged)
        with pytest.raises(ServeError, match="holds no orders"):
            Orders(path, roster, 3)


@pytest.mark.slow
def test_a_killed_server_is_still_paused_and_ends_as_it_would_have(room, tmp_path, cli):
    settings = job_of(room, *FOUR_BITS, "learn.local_steps=4", "learn.rounds=3")
    with network(tmp_path) as net:
        (tmp_path / "alice.token").write_text(Operators(tmp_path / "operators.json").add("alice"))
        with_operators = ("--operators", tmp_path / "operators.json")

        def admin(*words):
            return cli(
                "admin", f"127.0.0.1:{net.port}", *words, "--token-file", tmp_path / "alice.token",
                "--ca", tmp_path / "certs/ca.pem", "--json",
            )  # fmt: skip

        server = net.serve(*sets(settings), "--out", tmp_path / "run", *with_operators)
        assert admin("pause").code == 0
        joined = [net.join(device) for device in range(3)]
        soon(lambda: json.loads(admin("list").out[-1])["present"] == 3)
        time.sleep(1)
        server.kill()
        server.wait()
        server = net.serve("--resume", tmp_path / "run", *with_operators)
        server.wait_for("paused by the operator; sflam admin SERVER resume goes on")
        soon(lambda: json.loads(admin("list").out[-1])["present"] == 3)
        found = json.loads(admin("list").out[-1])
        assert (found["phase"], found["paused"]) == ("waiting", True)
        assert [device["state"] for device in found["devices"]] == ["waits"] * 3
        assert admin("resume").code == 0
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0]
    wanted = simulated_run(tmp_path / "alone", settings)
    assert equal(adapters_of(tmp_path / "run"), wanted)
    acts = [event["event"] for event in events(tmp_path / "run") if "by" in event]
    assert acts == ["pause", "resume"]


def test_the_command_line_is_one_line_for_what_is_wrong(cli, tmp_path, hall):
    token = tmp_path / "alice.token"
    token.write_text(hall.operator)
    (tmp_path / "device.token").write_text(hall.token)
    server = f"http://127.0.0.1:{hall.server.port}"
    for arguments, message in (
        (["dance"], "no act 'dance'"),
        (["kick", "nobody"], "no device 'nobody'; there are a, b"),
        (["list", "--token-file", tmp_path / "device.token"], "no operator's token"),
        (["list", "--token-file", tmp_path / "none"], "cannot be read"),
    ):
        done = cli(
            "admin", server, *arguments, *([] if "--token-file" in arguments else ["--token-file", token])
        )
        assert done.code == 2 and len(done.err) == 1 and message in done.err[0], done
    done = cli("admin", server, "list", "--token-file", token, "--json")
    assert done.code == 0 and json.loads(done.out[-1])["waiting"] == ["a", "b"]
    done = cli("admin", server, "list", "--token-file", token)
    assert "waits for a, b" in done.out[0] and any("revoked" in line for line in done.out)
    done = cli("operator", "bob", "--watch", "--operators", tmp_path / "o.json")
    assert done.code == 0 and [line.startswith("sflam-operator_") for line in done.out] == [True]


assert len(SIZES) == len(ALL)
