"""Devices renew their tokens: no round notices, and whoever dies at whatever point, the device has one that is good."""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import closing, suppress

import pytest

from sflam import files
from sflam.errors import Refused
from sflam.link import own_token
from sflam.link.enrolment import credentials
from sflam.link.https_client import Link
from sflam.link.own_token import OwnToken
from sflam.link.token import PREFIX, read_token
from sflam.report.terminal.devices_table import devices_table
from sflam.serve.event_log import EventLog
from sflam.serve.operators import Operators
from sflam.serve.roster import AGAIN, DAY, Roster
from sflam.serve.token_file import digest
from sflam.serve.token_renewal import TokenRenewal
from tests.serve.test_hostile import Site
from tests.serve.test_operation import asked, events
from tests.serve.threads import Died


class Office:
    """A server whose devices renew their tokens, thirty days at a time, by a clock that the test turns."""

    def __init__(self, folder):
        self.folder, self.now = folder, time.time()
        self.log = EventLog(folder / "served.jsonl")
        self.site = Site(folder, more=self.routes)
        self.roster = self.site.ingress.roster
        self.site.operation.renews = self.renewal.able
        self.file = folder / "phone.token"
        self.file.write_text(self.site.token)
        self.lines = []

    def routes(self, ingress):
        ingress.clock = lambda: self.now
        self.renewal = TokenRenewal(ingress, 30.0, self.log)
        return self.renewal.routes()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.site.__exit__()
        self.log.close()

    def restart(self):
        """The server is another process: it has what is on disk."""
        self.roster = self.site.ingress.roster = Roster(self.roster.path)
        self.renewal._asked = type(self.renewal._asked)(5, 1 / 60)

    def days(self, count):
        self.now += count * DAY

    def link(self, kind=Link, **options):
        """Return the device as a new process would make it."""
        own = OwnToken(self.file, read_token(self.file), self.lines.append)
        address = f"http://127.0.0.1:{self.site.server.port}"
        return closing(kind(address, own.token, own=own, patience=5, sleep=lambda s: None, **options))

    def come(self, requests=2):
        """The device makes requests; return whether it has a token afterwards that the server takes."""
        with self.link() as link:
            return [link.json("GET", "/v1/round")["phase"] for _ in range(requests)]

    def renew(self, sha256, token=None):
        status, found = self.site.ask("POST", "/v1/token", json.dumps({"sha256": sha256}).encode(), token)
        return status, json.loads(found)


@pytest.fixture
def office(tmp_path):
    with Office(tmp_path) as made:
        yield made


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_both_tokens_are_good_until_the_next_one_was_used(office):
    with office.link() as link:
        old = link.token
        link.json("GET", "/v1/round")
        office.days(19)
        link.json("GET", "/v1/round")
        assert link.token == old and not link.own.due, "two thirds of thirty days are not over"
        office.days(2)
        link.json("GET", "/v1/round")
        assert link.own.due
        link._renew()
        new = link.token
        assert new != old and new.startswith(PREFIX) and read_token(office.file) == new
        assert office.site.ask("GET", "/v1/round", None, token=old)[0] == 200
        assert office.site.ask("GET", "/v1/round", None, token=new)[0] == 200
        assert office.site.ask("GET", "/v1/round", None, token=old)[0] == 401
        assert not office.file.with_name("phone.token.next").exists()
    assert "was renewed; it ends on" in office.lines[0] and len(office.lines) == 1
    found = events(office.folder)
    assert [(e["event"], e["name"]) for e in found] == [("token_renewed", "a"), ("token_taken", "a")]
    assert abs(found[0]["ends"] - (office.now + 30 * DAY)) < 1
    entry = office.roster.entries()["a"]
    assert entry.sha256 == digest(new) and entry.next_sha256 == "" and entry.ends == office.now + 30 * DAY


SIDES = ("device", "server")


@pytest.mark.parametrize("late", [False, True], ids=["soon", "after the end of the first"])
@pytest.mark.parametrize("side", SIDES)
def test_one_who_dies_at_any_point_of_a_renewal_locks_nobody_out(tmp_path, monkeypatch, side, late):
    """Before or after each change of a file, and before or after each request, until the renewal is whole."""
    for point in range(40):
        folder = tmp_path / str(point)
        folder.mkdir()
        with Office(folder) as office:
            left = [point]
            patch = pytest.MonkeyPatch()

            def around(what, left=left, office=office):
                def dying(*args, **options):
                    for do in (None, what):
                        found = do(*args, **options) if do else None
                        left[0] -= 1
                        if left[0] == -1:
                            if side == "server":
                                office.restart()
                            raise Died
                    return found

                return dying

            class Dying(Link):
                def _once(self, *request):
                    return around(super()._once)(*request)

            office.come()
            office.days(21)
            if side == "device":
                patch.setattr(own_token, "replace_file", around(files.replace_file))
                patch.setattr(own_token.os, "replace", around(own_token.os.replace))
                kind = Dying
            else:
                patch.setattr(Roster, "_write", around(Roster._write))
                kind = Link
            died = True
            with suppress(Died, Refused, TimeoutError), office.link(kind, timeout=1) as link:
                try:
                    for _ in range(3):
                        link.json("GET", "/v1/round")
                    died = left[0] < 0
                finally:
                    patch.undo()
            granted = office.roster.entries()["a"].ends > office.now + 20 * DAY
            if late and granted:
                office.days(10)  # the first token has ended
            office.restart()
            office.come()
            office.come()
            entry = office.roster.entries()["a"]
            assert entry.sha256 == digest(read_token(office.file)) and not entry.next_sha256, point
            assert not office.file.with_name("phone.token.next").exists(), point
        if not died:
            assert point >= (4 if side == "server" else 6)
            return
    raise AssertionError("the renewal never came to its end")


def test_a_lost_answer_is_asked_for_again_with_the_same_token(office):
    office.come()
    office.days(21)
    assert office.renew(sha("sflam_n")) == office.renew(sha("sflam_n"))
    assert office.renew(sha("sflam_n"))[0] == 200
    assert len(events(office.folder)) == 1, "it is the same renewal"


def test_a_revoked_or_ended_token_is_not_renewed(office):
    office.days(21)
    assert office.renew(sha("sflam_n"))[0] == 200
    office.roster.revoke("a")
    for token in (office.site.token, "sflam_n"):
        status, found = office.renew(sha("sflam_m"), token)
        assert status == 403 and "was revoked" in found["error"]
    with pytest.raises(Refused, match="was revoked"):
        office.roster.renew("a", digest(office.site.token), sha("sflam_m"), 30, office.now)


def test_an_ended_token_is_one_error_with_its_end_its_limit_and_what_to_do(office):
    office.days(31)
    with pytest.raises(Refused) as found:
        office.come()
    end = time.strftime("%Y-%m-%d %H:%M", time.gmtime(office.roster.entries()["a"].expires))
    assert str(found.value).partition(" (request")[0] == (
        f"the token of a has expired: it ended on {end} UTC, its limit of 30 days; enrol the device again, by "
        "sflam enrol a"
    )


def test_renewals_are_rare(office):
    status, found = office.renew(sha("sflam_n"))
    assert status == 409 and "is to be renewed in 172" in found["error"]
    office.days(21)
    assert office.renew(sha("sflam_n"))[0] == 200
    status, found = office.renew(sha("sflam_m"))
    assert status == 409 and "a was given another token 0 s ago" in found["error"]
    assert [office.renew(sha("sflam_n"))[0] for _ in range(4)] == [200, 200, 429, 429]
    assert office.renew(sha("sflam_n"), office.site.second)[0] == 409, "another device's, and its own bucket"
    office.restart()
    office.now += AGAIN  # a device that has lost its next token gets another
    assert office.renew(sha("sflam_m"))[0] == 200
    assert office.roster.holder_of("sflam_n") is None and office.roster.holder_of("sflam_m").name == "a"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"{}", b'{"sha256": "00"}', b'{"sha256": 1}', b"x" * 2000]
)
def test_odd_requests_are_refused_and_change_nothing(office, body):
    office.days(21)
    before = office.roster.path.read_bytes()
    assert office.site.ask("POST", "/v1/token", body)[0] in (413, 422)
    assert office.site.ask("POST", "/v1/token", body, token="sflam_wrong")[0] == 401
    assert office.renew(digest(office.site.token))[0] == 409, "its own token is no next one"
    assert office.roster.path.read_bytes() == before


def test_an_older_device_goes_on_until_its_token_ends_and_is_shown(office):
    operator = Operators(office.folder / "operators.json").add("alice")
    office.days(29)
    with closing(Link(f"http://127.0.0.1:{office.site.server.port}", office.site.token)) as older:
        assert [older.json("GET", "/v1/round")["phase"] for _ in range(3)] == ["open"] * 3
        seen = {one["name"]: one for one in asked(office.site, "list", token=operator)["devices"]}
        assert seen["a"]["renews"] is False and seen["b"]["renews"] is None
        office.come(1)
        seen = asked(office.site, "list", token=operator)
        assert {one["name"]: one["renews"] for one in seen["devices"]}["a"] is True
        seen["devices"] = [
            {"name": "x", "renews": False, "days_left": 1.0},
            {"name": "y", "renewing": True, "renews": True, "days_left": 2.0},
        ]
        cells = list(devices_table(seen).columns[-1].cells)
        assert cells == ["1 d, not renewed", "2 d, next given"]
        office.days(2)
        with pytest.raises(Refused, match="has expired"):
            older.json("GET", "/v1/round")


def test_a_server_that_renews_no_more_takes_what_was_given(office):
    office.days(21)
    assert office.renew(sha("sflam_n"))[0] == 200
    office.restart()
    office.renewal.days = None  # started again without --token-days
    assert office.renewal.routes() == []
    with office.link() as link:
        link.json("GET", "/v1/round")
        assert not link.own.due
    assert office.site.ask("GET", "/v1/round", None, token="sflam_n")[0] == 200
    assert office.site.ask("GET", "/v1/round", None)[0] == 401, "the next one was used"


def test_a_server_that_renews_none_asks_for_nothing(tmp_path):
    with Site(tmp_path) as site:
        file = tmp_path / "t"
        file.write_text(site.token)
        site.ingress.clock = lambda: time.time() + 29 * DAY
        with closing(
            Link(
                f"http://127.0.0.1:{site.server.port}",
                site.token,
                own=OwnToken(file, site.token),
            )
        ) as link:
            link.json("GET", "/v1/round")
            assert not link.own.due
            with pytest.raises(Refused, match="404"):
                link.json("POST", "/v1/token", {"sha256": sha("x")})


def test_a_token_file_keeps_who_may_read_it_and_a_link_is_followed(office):
    office.file.chmod(0o640)
    office.roster.path.chmod(0o660)
    link = office.folder / "link"
    link.symlink_to(office.file)
    office.file, real = link, office.file
    office.days(21)
    office.come(3)
    assert office.file.is_symlink() and read_token(real) == read_token(link) != office.site.token
    assert real.stat().st_mode & 0o777 == 0o640 and office.roster.path.stat().st_mode & 0o777 == 0o660


def test_a_folder_that_cannot_be_written_is_reported_and_the_device_goes_on(office, monkeypatch):
    monkeypatch.setattr("sflam.link.own_token.os.access", lambda *_: False)
    office.days(21)
    assert office.come(4) == ["open"] * 4
    assert len(office.lines) == 1 and "cannot be written; make it writable" in office.lines[0]
    assert office.renewal.able["a"] is False
    monkeypatch.undo()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sflam.link.own_token.replace_file", full)
    assert office.come(4) == ["open"] * 4
    assert len(office.lines) == 2 and "No space left on device" in office.lines[1]


def test_a_device_that_enrols_itself_finds_its_next_token(office):
    """It died between the two, and its first token has ended: its join secret renews the one that the server knows."""
    secret, now = "a-secret-of-the-job", office.now
    (office.folder / "s").write_text(secret)
    own = credentials(None, office.folder / "s", "pi", office.folder / "pi")
    office.roster.let_in("pi", digest(own.token), places=9, pending=False)
    office.roster.renew("pi", digest(own.token), sha("sflam_n"), 30, now + 21 * DAY)
    after = office.roster.let_in("pi", sha("sflam_n"), places=9, pending=False)[1]
    assert office.roster.device_of("sflam_n", now + 29 * DAY) == after.device
    with pytest.raises(Refused, match="this device is enrolled as pi"):
        office.roster.let_in("other", sha("sflam_n"), places=9, pending=False)


def test_a_roster_of_an_older_release_is_renewed_too(office):
    rows = json.loads(office.roster.path.read_text())["devices"]
    kept = ("name", "sha256", "expires", "revoked", "device", "pending")
    office.roster.path.write_text(json.dumps({"devices": [{key: row[key] for key in kept} for row in rows]}))
    office.restart()
    office.days(19)
    office.come(3)
    assert read_token(office.file) == office.site.token
    office.days(2)
    office.come(3)
    assert read_token(office.file) != office.site.token


def test_a_roster_that_is_held_is_a_pause_and_no_lockout(office):
    office.days(21)
    assert office.renew(sha("sflam_n"))[0] == 200
    with office.roster._alone():
        status, found = office.site.ask("GET", "/v1/round", None, token="sflam_n")
        assert status == 503 and b"is being changed by another process" in found
    assert office.site.ask("GET", "/v1/round", None, token="sflam_n")[0] == 200


def test_the_days_of_a_token_are_checked(cli):
    for days in (0, -1, "nan", 1e9):
        done = cli("serve", "--token-days", days)
        assert done.code == 2 and len(done.err) == 1 and "--token-days is" in done.err[0], done
