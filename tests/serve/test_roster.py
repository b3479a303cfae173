"""Tokens are hashed, expire and can be taken back; certificates verify what they should and nothing else."""

from __future__ import annotations

import json
import ssl
import time

import pytest

from sflam.errors import Refused, ServeError
from sflam.link.token import read_token
from sflam.serve.certificates import make_certificates
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
