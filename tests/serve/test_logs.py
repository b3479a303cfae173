"""The log of events and requests: lines that can be read back, bounded on disk, and never with a token or a secret."""

from __future__ import annotations

import http.client
import json
from contextlib import closing

import pytest

from sflam.errors import ConfigError, Refused, ServeError
from sflam.link.https_client import Link
from sflam.serve.event_log import EventLog
from sflam.serve.log_file import KEPT, LogFile
from sflam.serve.self_enrolment import SelfEnrolment
from tests.serve.test_hostile import Site
from tests.serve.test_operation import soon

SECRET = "a-secret-of-the-job"


@pytest.fixture
def logged(tmp_path):
    """A server that writes every log there is, and takes a join secret."""
    (tmp_path / "join.secret").write_text(SECRET)
    log = EventLog(tmp_path / "served.jsonl", more=LogFile(tmp_path / "server.log"))

    def routes(ingress):
        return [SelfEnrolment(ingress, tmp_path / "join.secret", False, lambda line: None, log).route()]

    with Site(tmp_path, more=routes, log=log) as site:
        site.operator = site.operators.add("alice")
        yield site
    log.close()


def lines(folder, name="server.log"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_request_has_one_number_in_its_answer_in_the_log_and_in_what_the_device_shows(logged, tmp_path):
    connection = http.client.HTTPConnection("127.0.0.1", logged.server.port, timeout=20)
    with closing(connection):
        connection.request("GET", "/v1/round", headers={"Authorization": f"Bearer {logged.token}"})
        answer = connection.getresponse()
        answer.read()
    number = answer.headers["Sflam-Request"]
    soon(lambda: lines(tmp_path))  # it is written when the answer has gone
    (line,) = [line for line in lines(tmp_path) if line["event"] == "request"]
    assert line == {
        "time": line["time"], "event": "request", "request": number, "method": "GET", "path": "/v1/round",
        "status": 200, "device": 0, "seconds": line["seconds"],
    }  # fmt: skip
    with (
        closing(Link(f"http://127.0.0.1:{logged.server.port}", logged.token)) as link,
        pytest.raises(Refused, match=r"no such file.*\(request [0-9a-f]{12}\)") as refused,
    ):
        link.call("GET", "/v1/files/none")
    number = str(refused.value)[-13:-1]

    def events():
        return [line["event"] for line in lines(tmp_path) if line.get("request") == number]

    soon(lambda: len(events()) == 2)
    assert events() == ["refused", "request"]
    assert [line["request"] for line in lines(tmp_path, "served.jsonl")] == [number]  # events alone


def test_no_token_and_no_secret_is_ever_in_a_log(logged, tmp_path):
    tokens = [
        logged.token,
        logged.second,
        logged.operator,
        logged.expired,
        logged.revoked,
        "sflam_" + "x" * 43,
    ]
    for token in tokens:
        for path in ("/v1/round", "/v1/admin", f"/v1/files/{token}", f"/v1/{token}", f"/v1/admin/{token}"):
            for method, body in (("GET", None), ("POST", json.dumps({"names": [token]}).encode())):
                logged.ask(method, f"{path}?token={token}", body, token=token)
        logged.ask("POST", "/v1/enrol", b'{"name": "pi"}', Authorization=f"Join {SECRET}")
        logged.ask("POST", f"/v1/admin/drain?{SECRET}", b'{"names": ["a"]}', token=logged.operator)
        logged.ask("GET", f"/v1/job?secret={SECRET}", None)
    written = b"".join(path.read_bytes() for path in (tmp_path / "served.jsonl", tmp_path / "server.log"))
    assert b'"drain"' in written and b"sflam_..." in written
    for secret in (*tokens, SECRET):
        assert secret.encode() not in written


def test_pages_that_monitoring_asks_and_strangers_fill_no_log(logged, tmp_path):
    before = (tmp_path / "server.log").stat().st_size
    for path in ("/", "/metrics", "/healthz", "/readyz") * 20:
        logged.ask("GET", path, None, Authorization=None)
    assert (tmp_path / "server.log").stat().st_size == before
    logged.ingress.pause = 0.01  # of the last twenty
    for number in range(60):
        logged.ask("GET", f"/v1/job/{number}", None, Authorization=None)
        logged.ask("GET", "/v1/job", None, token="wrong")
    found = [line["event"] for line in lines(tmp_path)]
    assert "request" not in found and len(found) < 60


def test_files_are_bounded_and_the_oldest_goes(tmp_path):
    log = LogFile(tmp_path / "log", most_mb=0.001)
    for number in range(200):
        log({"time": 0.0, "event": "request", "request": f"{number:040d}"})
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["log", *(f"log.{n}" for n in range(1, KEPT + 1))]
    assert all(file.stat().st_size <= 1000 for file in files)
    numbers = [int(line["request"]) for file in files for line in reversed(lines(tmp_path, file.name))]
    assert numbers == list(range(199, 199 - len(numbers), -1))  # none is lost at a turn
    again = LogFile(tmp_path / "log", most_mb=0.001)
    again({"time": 0.0, "event": "again"})
    again.close()
    assert lines(tmp_path, "log")[-1]["event"] == "again"


def test_text_is_one_line_whatever_is_in_it(tmp_path):
    log = LogFile(tmp_path / "log", "text")
    log({"time": 0.5, "event": "refused", "reason": 'two\nlines \x1b[31m "quoted" \u202e', "device": 3})
    log.close()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("1970-01-01T00:00:00.500Z refused reason=") and line.endswith(" device=3")
    assert "\x1b" not in line and line.isascii()


def test_a_disk_that_refuses_does_not_stop_the_server(tmp_path):
    (tmp_path / "folder").mkdir()
    log = LogFile(tmp_path / "folder/log")
    (tmp_path / "folder/log").unlink()
    (tmp_path / "folder").rmdir()
    log({"time": 0.0, "event": "lost"})
    log.close()


def test_what_cannot_be_logged_is_one_line(cli, tmp_path):
    with pytest.raises(ServeError, match="give another --log-file"):
        LogFile(tmp_path / "none" / "log")
    with pytest.raises(ConfigError) as found:
        LogFile(tmp_path / "log", "yaml", 0)
    assert [problem.split()[0] for problem in found.value.problems] == ["--log-format", "--log-max-mb"]
    done = cli("serve", "--log-file", tmp_path / "log", "--log-format", "yaml")
    assert done.code == 2 and len(done.err) == 1 and "json, text" in done.err[0]
