"""This release's device and server understand every release before it that speaks the same protocol, to the byte."""

from __future__ import annotations

import json
from importlib.metadata import version

import pytest

from sflam.errors import Refused
from tests.link.test_loop import client
from tests.serve.recorded_protocol import FOLDER, asked
from tests.serve.test_hostile import Site

RELEASES = sorted(FOLDER.glob("*.json"))


class Playback:
    """The server of a release, as it answered a device of its own."""

    asked_s = received_s = 0.0

    def pace(self, rate):
        assert rate is None, "that release paced none"

    def __init__(self, lines):
        self.lines = iter(lines)

    def sleep(self, seconds):
        raise AssertionError("there is nothing to wait for")

    def json(self, method, path, body=None):
        before, where, said, found = next(self.lines)
        assert (method, path) == (before, where)
        assert (said or {}).items() <= (body or {}).items(), "what that release said is still said"
        return found

    def call(self, method, path, body=None, headers=None, *, most=0):
        before, where, said, found = next(self.lines)
        assert (method, path, bytes(body or b"").hex()) == (before, where, said)
        assert len(found) // 2 <= most or not most
        return bytes.fromhex(found)


def test_this_release_is_recorded():
    assert version("sflam") in [path.stem for path in RELEASES], "python -m tests.serve.recorded_protocol"


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_todays_device_at_the_server_of_a_release(tmp_path, release):
    server = Playback(json.loads(release.read_text())["device"])
    device = client(server, tmp_path)
    assert device.run() == 3
    assert next(server.lines, None) is None, "the conversation went to its end"


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_todays_server_and_the_device_of_a_release(tmp_path, release):
    site = Site(tmp_path)
    try:
        for method, path, body, status, answer in json.loads(release.read_text())["server"]:
            now, found = asked(site, method, path, bytes.fromhex(body))
            assert now == status, (path, found)
            answer = bytes.fromhex(answer)
            if answer[:1] == b"{" and now == 200:
                assert json.loads(answer).items() <= json.loads(found).items(), path
            elif now == 200:
                assert found == answer, path
    finally:
        site.dispatch.stop()
        site.server.stop()


@pytest.mark.parametrize(("protocol", "status"), [(1, 200), (None, 200), (2, 403), ("1", 403)])
def test_a_device_of_another_protocol_is_refused_with_both_versions(tmp_path, protocol, status):
    site = Site(tmp_path)
    try:
        said = {"samples": 4, "version": "9.9.9"} | ({} if protocol is None else {"protocol": protocol})
        now, found = asked(site, "POST", "/v1/session", json.dumps(said).encode())
        assert now == status
        if status == 403:
            reason = json.loads(found)["error"]
            assert "9.9.9" in reason and version("sflam") in reason and "same version" in reason
    finally:
        site.dispatch.stop()
        site.server.stop()


def test_a_device_that_is_refused_for_its_version_ends(tmp_path):
    class Older(Playback):
        def json(self, method, path, body=None):
            raise Refused(403, "the device speaks protocol 1, this server 2; use the same version")

    with pytest.raises(Refused, match="same version"):
        client(Older([]), tmp_path).run()
