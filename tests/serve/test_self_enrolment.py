"""Devices that enrol themselves: each once, under its name, with a token that never travels; and many at once."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import closing

import pytest

from sflam.errors import Refused, ServeError
from sflam.link.enrolment import credentials, enrol, read_secret
from sflam.link.https_client import Link
from sflam.link.token import read_token
from sflam.serve.bulk import enrol_many
from sflam.serve.event_log import EventLog
from sflam.serve.operators import Operators
from sflam.serve.roster import DAY, Roster
from sflam.serve.self_enrolment import SelfEnrolment
from tests.serve.network import adapters_of, network
from tests.serve.test_hostile import Site
from tests.serve.test_operation import asked, equal, events
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets
from tests.serve.test_served_is_simulated import simulated as simulated_run

SECRET = "a-secret-of-the-job"


class Gate:
    """A server that takes a join secret, with as many free places as are asked for, and devices that come to it."""

    def __init__(self, folder, approve=False, free=2):
        self.folder, self.lines = folder, []
        self.secret = folder / "join.secret"
        self.secret.write_text(f"{SECRET}\n")
        self.log = EventLog(folder / "served.jsonl")
        self.site = Site(folder, more=self.routes)
        self.roster, self.ingress = self.site.ingress.roster, self.site.ingress
        self.enrolment.approve = approve
        self.enrolment.places = (
            5 + free - 1
        )  # a, b, c and e have theirs; the one of d, who was revoked, is free

    def routes(self, ingress):
        self.enrolment = SelfEnrolment(ingress, self.secret, False, self.lines.append, self.log)
        return [self.enrolment.route()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.site.__exit__()
        self.log.close()

    def come(self, name, folder=None, secret=None, sleep=None):
        """Enrol a device; return its token and the lines it showed."""
        file = self.folder / "given.secret"
        file.write_text(secret or SECRET)
        own = credentials(None, file, name, self.folder / (folder or name))
        lines = []
        address = f"http://127.0.0.1:{self.site.server.port}"
        with closing(Link(address, own.token, patience=5, sleep=sleep or (lambda s: None))) as link:
            enrol(link, own, lines.append)
        return own.token, lines

    def post(self, body, secret=SECRET):
        return self.site.ask("POST", "/v1/enrol", body, Authorization=f"Join {secret}")


@pytest.fixture
def gate(tmp_path):
    with Gate(tmp_path) as made:
        yield made


def entry(name="pi", token="sflam_x"):
    return json.dumps({"name": name, "sha256": hashlib.sha256(token.encode()).hexdigest()}).encode()


def test_a_device_gets_a_place_and_keeps_its_own_token(gate):
    token, lines = gate.come("hall-pi")
    assert lines == ["enrolled as hall-pi"]
    kept = gate.folder / "hall-pi" / "token"
    assert kept.read_text() == token and kept.stat().st_mode & 0o777 == 0o600
    assert token not in gate.roster.path.read_text()
    assert gate.roster.entries()["hall-pi"].device == 3  # that of the one that was revoked
    assert gate.lines == ["hall-pi enrolled itself and is device 3"]
    assert [(e["event"], e["name"]) for e in events(gate.folder)] == [("enrolled", "hall-pi")]


def test_it_is_the_same_device_whenever_it_comes_again(gate):
    token, _ = gate.come("pi")
    assert gate.come("pi") == (token, [])  # known by its token: nothing is asked
    gate.roster.path.unlink()
    gate.roster._entries = {}
    assert gate.come("pi")[0] == token  # a roster that was lost
    assert credentials(None, None, "", gate.folder / "pi").token == token


def test_a_lost_answer_is_asked_for_again_and_enrols_once(gate):
    assert [gate.post(entry())[0] for _ in range(3)] == [200] * 3
    assert sum(name == "pi" for name in gate.roster.entries()) == 1


def test_a_name_is_one_devices(gate):
    gate.come("pi")
    with pytest.raises(Refused, match="the name pi is another device's; choose another --name"):
        gate.come("pi", folder="other")
    with pytest.raises(Refused, match="this device is enrolled as pi"):
        own = read_token(gate.folder / "pi/token")
        gate.roster.let_in("tau", hashlib.sha256(own.encode()).hexdigest(), places=9, pending=False)


def test_places_are_bounded(gate):
    gate.come("one")
    gate.come("two")
    with pytest.raises(Refused, match="all 6 places of the job are taken"):
        gate.come("three")
    gate.roster.revoke("one")
    gate.come("three", folder="four")
    assert gate.roster.entries()["three"].device == 3


def test_a_revoked_device_does_not_let_itself_in_again(gate):
    gate.come("pi")
    gate.roster.revoke("pi")
    with pytest.raises(Refused, match="pi was revoked"):
        gate.come("pi")


def test_an_expiring_token_is_renewed_by_the_secret(gate, monkeypatch):
    token, _ = gate.come("pi")
    before = gate.roster.entries()["pi"].expires
    monkeypatch.setattr("sflam.serve.roster.time.time", lambda: before + DAY)
    sha256 = hashlib.sha256(token.encode()).hexdigest()
    gate.roster.let_in("pi", sha256, places=6, pending=True)
    assert gate.roster.entries()["pi"].expires == before + 31 * DAY
    assert gate.roster.device_of(token, before + 2 * DAY) == 3


def test_a_wrong_secret_is_one_line_and_slowed_down(gate):
    gate.ingress.pause = 0.01
    with pytest.raises(Refused, match="the join secret is wrong; ask the operator"):
        gate.come("pi", secret="another-secret-here")
    found = [gate.post(entry(), "wrong-wrong-wrong-x")[0] for _ in range(25)]
    assert found[0] == 401 and found[-1] == 429
    assert gate.post(entry())[0] == 200
    for _ in range(100):  # what is slowed down comes in its time
        status = gate.site.ask("POST", "/v1/enrol", entry())[0]
        if status != 429:
            break
        time.sleep(0.05)
    assert status == 401  # a device's token is no secret


def test_many_requests_from_one_address_are_slowed_down_too(gate):
    found = [gate.post(entry())[0] for _ in range(40)]
    assert found[0] == 200 and found[-1] == 429


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"null", b'{"name": "pi"}', entry("a b"), entry("../x"), entry("\u202egnp"), entry("x" * 65),
        entry("-" * 65), b'{"name": "pi", "sha256": "00"}', b'{"name": 1, "sha256": 2}', b"x" * 2000,
    ],
)  # fmt: skip
def test_odd_requests_are_refused_and_change_nothing(gate, body):
    before = gate.roster.path.read_bytes()
    assert gate.post(body)[0] in (413, 422)
    assert gate.roster.path.read_bytes() == before


def test_a_new_secret_is_good_at_once(gate):
    gate.secret.write_text("the-second-secret-x")
    assert gate.post(entry())[0] == 401 and gate.post(entry(), "the-second-secret-x")[0] == 200
    gate.secret.write_text("short")
    assert gate.post(entry(), "short")[0] == 503


def test_an_operator_approves_by_name(tmp_path):
    with Gate(tmp_path, approve=True, free=1) as gate:
        token = Operators(tmp_path / "operators.json").add("alice")
        gate.site.operation.devices = gate.enrolment.places
        waits = []

        def approves(seconds):
            waits.append(seconds)
            if len(waits) == 3:
                found = asked(gate.site, "list", token=token)["devices"]
                assert [one["state"] for one in found if one["name"] == "pi"] == ["waits for approval"]
                asked(gate.site, "approve", "pi", token=token)

        with pytest.raises(Refused, match="waits for approval"):
            gate.post(entry("early", "sflam_early"))
            gate.roster.device_of("sflam_early", 0.0)
        own, lines = gate.come("pi", sleep=approves)
        assert lines == [
            "waits until the operator lets it in: sflam admin SERVER approve pi",
            "enrolled as pi",
        ]
        assert gate.roster.device_of(own, 0.0) == 3 and waits == [2.0, 3.0, 4.5]
        with pytest.raises(Refused, match="all 5 places"):
            asked(gate.site, "approve", "early", token=token)
        for number in range(4):
            assert gate.post(entry(f"late-{number}", f"sflam_{number}"))[0] == 202
        assert gate.post(entry("late-4", "sflam_4"))[0] == 409  # so many may wait, and no more
        asked(gate.site, "revoke", "late-0", token=token)
        assert gate.post(entry("late-0", "sflam_0"))[0] == 403


@pytest.mark.parametrize("text", ["", "short", "with a space in it", "x" * 201, "ü" * 20])
def test_a_secret_is_one_long_word(tmp_path, text):
    (tmp_path / "s").write_text(text)
    with pytest.raises(ServeError, match="one line of 16 to 200"):
        read_secret(tmp_path / "s")


def test_the_command_line_names_what_is_missing(cli, tmp_path):
    (tmp_path / "s").write_text(SECRET)
    (tmp_path / "bad").write_text("short")
    for kind in ("join", "device"):
        for more, message in (
            ([], "give --token-file with the token that sflam enrol printed, or --join-secret-file"),
            (["--name", "pi"], "--name pi is for enrolling"),
            (["--token-file", "t", "--join-secret-file", tmp_path / "s"], "and not both"),
            (["--join-secret-file", tmp_path / "none"], "cannot be read"),
            (["--join-secret-file", tmp_path / "bad"], "holds no join secret"),
            (["--join-secret-file", tmp_path / "s", "--name", "a b"], "--name 'a b'"),
        ):
            done = cli(kind, "localhost", "--folder", tmp_path / "folder", *more)
            assert done.code == 2 and len(done.err) == 1 and message in done.err[0], done
    assert not (tmp_path / "folder").exists()
    for arguments, message in (
        (["--approve"], "give --join-secret-file as well"),
        (["--join-secret-file", tmp_path / "bad"], "holds no join secret"),
    ):
        done = cli("serve", *arguments)
        assert done.code == 2 and message in done.err[-1], done


def test_a_link_in_the_folder_is_not_followed(tmp_path):
    (tmp_path / "s").write_text(SECRET)
    (tmp_path / "device").mkdir()
    (tmp_path / "device/token").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ServeError, match="is a link"):
        credentials(None, tmp_path / "s", "pi", tmp_path / "device")


def test_many_devices_are_enrolled_at_once(cli, tmp_path):
    roster = Roster(tmp_path / "devices.json")
    roster.enrol("device-002")
    done = cli("enrol", "--count", 50, "--out", tmp_path / "tokens", "--roster", roster.path)
    assert done.code == 0 and done.out == []
    tokens = {path.stem: read_token(path) for path in (tmp_path / "tokens").iterdir()}
    assert len(tokens) == 50 and "device-002" not in tokens and "device-051" in tokens
    assert sorted(roster.device_of(token, 0.0) for token in tokens.values()) == list(range(1, 51))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "tokens").iterdir())
    (tmp_path / "names").write_text("hall\n\nkitchen\n")
    assert len(enrol_many(roster, tmp_path / "names", tmp_path / "more", 30)) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("hall\nhall\n", "hall is there more than once"),
        ("a b\n", "device name 'a b'"),
        ("\n", "holds no names"),
    ],
)
def test_many_devices_are_enrolled_all_or_none(cli, tmp_path, names, message):
    (tmp_path / "names").write_text(names)
    more = ["--roster", tmp_path / "devices.json"]
    done = cli("enrol", "--names", tmp_path / "names", "--out", tmp_path / "tokens", *more)
    assert done.code == 2 and len(done.err) == 1 and message in done.err[0], done
    assert not (tmp_path / "devices.json").exists()
    for arguments in (["pi", "--count", 3, "--out", "x"], ["--count", 3], ["--out", "x"], []):
        done = cli("enrol", *arguments, *more)
        assert done.code == 2 and len(done.err) == 1, done


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    roster = Roster(tmp_path / "devices.json")
    (tmp_path / "device-002.token").write_text("x")
    with pytest.raises(ServeError, match=r"holds device-002\.token already"):
        enrol_many(roster, 3, tmp_path, 30)
    assert not roster.path.exists()


@pytest.mark.slow
def test_devices_that_enrol_themselves_train_what_a_simulation_does(room, tmp_path, cli):
    settings = job_of(room, *FOUR_BITS, "learn.rounds=2")
    (tmp_path / "join.secret").write_text(SECRET)
    secret = ("--join-secret-file", tmp_path / "join.secret")
    with network(tmp_path, devices=0) as net:
        (tmp_path / "alice.token").write_text(Operators(tmp_path / "operators.json").add("alice"))
        at = ("--token-file", tmp_path / "alice.token", "--ca", tmp_path / "certs/ca.pem")
        server = net.serve(
            *sets(settings), "--out", tmp_path / "run", *secret, "--approve",
            "--operators", tmp_path / "operators.json",
        )  # fmt: skip
        joined = []
        for number in range(3):  # each has its number before the next comes
            joined.append(net.enter(f"pi-{number}", *secret))
            joined[-1].wait_for(
                f"waits until the operator lets it in: sflam admin SERVER approve pi-{number}"
            )
            done = cli("admin", f"127.0.0.1:{net.port}", "approve", f"pi-{number}", *at)
            assert done.code == 0, done
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0]
    assert equal(adapters_of(tmp_path / "run"), simulated_run(tmp_path / "alone", settings))
    for path in (tmp_path / "run").rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
