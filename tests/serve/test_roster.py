"""Tokens are hashed, expire and can be taken back; certificates verify what they should and nothing else."""

from __future__ import annotations

import datetime
import json
import os
import ssl
import subprocess
import sys
import time

import pytest

from sflam import files
from sflam.errors import Refused, ServeError
from sflam.files import write_all
from sflam.link.token import read_token
from sflam.serve.certificates import make_certificates, valid_between
from sflam.serve.roster import DAY, Roster


@pytest.fixture
def roster(tmp_path):
    return Roster(tmp_path / "devices.json")


def test_devices_are_numbered_in_the_order_they_are_enrolled(roster):
    tokens = [roster.enrol(name) for name in ("pi", "phone", "lab")]
    assert [roster.device_of(token, time.time()) for token in tokens] == [0, 1, 2]


def test_the_roster_holds_no_token_and_only_its_owner_reads_it(roster):
    token = roster.enrol("pi")
    assert token not in roster.path.read_text() and token[6:] not in roster.path.read_text()
    assert roster.path.stat().st_mode & 0o077 == 0


def test_a_new_token_keeps_the_number_and_ends_the_old_one(roster):
    old = roster.enrol("pi")
    roster.enrol("phone")
    assert roster.device_of(roster.enrol("pi"), time.time()) == 0
    with pytest.raises(Refused, match="not in the roster"):
        roster.device_of(old, time.time())


def test_unknown_expired_and_revoked_tokens_are_refused(roster):
    token = roster.enrol("pi", days=2)
    for wrong in ("", "sflam_x", token[:-1], token + "a", "é"):
        with pytest.raises(Refused) as refused:
            roster.device_of(wrong, time.time())
        assert refused.value.status == 401
    with pytest.raises(Refused, match="expired") as refused:
        roster.device_of(token, time.time() + 2 * DAY)
    assert refused.value.status == 403
    Roster(roster.path).revoke("pi")  # another process does it, the server sees it
    with pytest.raises(Refused, match="revoked") as refused:
        roster.device_of(token, time.time())
    assert refused.value.status == 403


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65])
def test_an_odd_name_is_refused(roster, name):
    with pytest.raises(ServeError, match="device name"):
        roster.enrol(name)


def test_a_damaged_roster_and_an_unknown_device_are_reported(roster):
    with pytest.raises(ServeError, match="no device 'pi'"):
        roster.revoke("pi")
    for damaged in ("", "[]", json.dumps({"devices": [{"name": "a"}]})):
        roster.path.write_text(damaged)
        with pytest.raises(ServeError, match="is no roster"):
            Roster(roster.path).entries()


def test_devices_that_are_enrolled_at_once_are_all_there(tmp_path):
    path = tmp_path / "devices.json"
    names = [f"pi-{number}" for number in range(8)]
    command = [sys.executable, "-m", "sflam", "enrol", "--roster", str(path)]
    running = [subprocess.Popen([*command, name], stdout=subprocess.DEVNULL) for name in names]
    assert [process.wait() for process in running] == [0] * 8
    entries = Roster(path).entries()
    assert entries.keys() == set(names) and sorted(e.device for e in entries.values()) == list(range(8))


def test_a_device_that_was_taken_out_leaves_its_number_to_the_next(roster):
    tokens = {name: roster.enrol(name) for name in ("pi", "phone", "lab")}
    roster.revoke("phone")
    new = roster.enrol("tablet")
    assert roster.device_of(new, time.time()) == 1
    with pytest.raises(Refused, match="revoked"):
        roster.device_of(tokens["phone"], time.time())
    again = roster.enrol("phone")
    assert roster.device_of(again, time.time()) == 3, "its number is taken"
    assert roster.device_of(tokens["lab"], time.time()) == 2


def test_a_roster_that_is_away_or_half_written_for_a_moment_ends_nobody(roster):
    token = roster.enrol("pi")
    serving = Roster(roster.path)
    assert serving.device_of(token, time.time()) == 0
    whole = roster.path.read_bytes()
    roster.path.unlink()
    assert serving.device_of(token, time.time()) == 0
    roster.path.write_bytes(whole[:20])
    assert serving.device_of(token, time.time()) == 0
    roster.path.write_bytes(whole)
    Roster(roster.path).revoke("pi")
    with pytest.raises(Refused, match="revoked"):
        serving.device_of(token, time.time())


def test_a_key_is_never_readable_by_others(tmp_path, monkeypatch):
    """Not while it is written either, nor where a temporary file was left behind that anyone may read."""
    modes = []

    def seen(descriptor, body, **options):
        modes.append(os.fstat(descriptor).st_mode & 0o777)
        write_all(descriptor, body, **options)

    monkeypatch.setattr(files, "write_all", seen)
    (tmp_path / ".server.key.tmp").touch(0o666)
    made = make_certificates(tmp_path, ["localhost"])
    private = {path.name: mode for path, mode in zip(made, modes, strict=True) if path.suffix == ".key"}
    assert private == {"ca.key": 0o600, "server.key": 0o600}


def test_an_authority_that_has_expired_is_made_anew_with_its_key(tmp_path):
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    make_certificates(tmp_path, ["localhost"], days=30, now=start)
    key = (tmp_path / "ca.key").read_bytes()
    late = start + datetime.timedelta(days=20)
    assert "ca.pem" not in {
        path.name for path in make_certificates(tmp_path, ["localhost"], days=30, now=late)
    }
    ends = {name: valid_between((tmp_path / name).read_bytes())[1] for name in ("ca.pem", "server.pem")}
    assert ends["server.pem"] == ends["ca.pem"] == start + datetime.timedelta(days=30)
    late = start + datetime.timedelta(days=31)
    made = make_certificates(tmp_path, ["localhost"], days=30, now=late)
    assert [path.name for path in made] == ["ca.key", "ca.pem", "server.key", "server.pem"]
    assert (tmp_path / "ca.key").read_bytes() == key
    assert valid_between((tmp_path / "ca.pem").read_bytes())[1] == late + datetime.timedelta(days=30)


def test_a_token_file_must_hold_a_token(roster, tmp_path):
    path = tmp_path / "token"
    path.write_text(roster.enrol("pi") + "\n")
    assert roster.device_of(read_token(path), time.time()) == 0
    path.write_text("hello")
    with pytest.raises(ServeError, match="holds no token"):
        read_token(path)


def test_certificates_are_those_of_the_hosts_and_of_one_authority(tmp_path):
    made = make_certificates(tmp_path / "certs", ["localhost", "127.0.0.1"], ["pi"])
    assert {path.name for path in made} == {
        "ca.key",
        "ca.pem",
        "server.key",
        "server.pem",
        "pi.key",
        "pi.pem",
    }
    assert all(path.stat().st_mode & 0o077 == 0 for path in made if path.suffix == ".key")
    authority = (tmp_path / "certs/ca.pem").read_bytes()
    make_certificates(tmp_path / "certs", [], ["phone"])
    assert (tmp_path / "certs/ca.pem").read_bytes() == authority
    context = ssl.create_default_context(cafile=str(tmp_path / "certs/ca.pem"))
    context.load_cert_chain(tmp_path / "certs/phone.pem", tmp_path / "certs/phone.key")


def test_odd_client_names_are_refused(tmp_path):
    with pytest.raises(ServeError, match="client name"):
        make_certificates(tmp_path, [], ["ca"])
