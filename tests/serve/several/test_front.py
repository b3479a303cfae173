"""What stands in front of several jobs: whose token opens what, hostile paths, limits of the process, metrics."""

from __future__ import annotations

import http.client
import json
import re

import pytest

from sflam.errors import Refused
from sflam.link.operator import ask
from sflam.serve.several.labelled import labelled
from tests.serve.several.both import Both, job_of

SERIES = re.compile(r'[a-z_]+(\{([a-z_]+="([^"\\\n]|\\.)*",?)+\})? \S+')


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two jobs of which none gets a device."""
    jobs = {"digits": job_of(), "other": job_of("fleet.devices=3", "seed=7")}
    with Both(tmp_path_factory.mktemp("both"), jobs) as made:
        yield made


def asked(both, path, method="GET", headers=None, body=None):
    """Ask for a path as it is written; return status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", both.served.server.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        connection.close()


def test_a_device_is_one_jobs(both):
    token = both.token("digits", 0)
    own, other = both.link("digits", token), both.link("other", token)
    assert own.json("GET", "/v1/job")["device"] == 0
    with pytest.raises(Refused) as refused:
        other.json("GET", "/v1/job")
    assert refused.value.status == 401
    with pytest.raises(Refused, match="several jobs; add one to its address: /jobs/digits, /jobs/other"):
        both.link("", token).json("GET", "/v1/job")
    own.close()
    other.close()


@pytest.mark.parametrize(
    "path",
    [
        "/jobs/../v1/job", "/jobs/digits/../other/v1/job", "/jobs/digits/%2e%2e/other/v1/job", "/jobs//v1/job",
        "/jobs/none/v1/job", "/jobs/Digits/v1/job", "/jobs/digits%2Fv1/job/x", "/jobs/digits%00/v1/job", "/jobs/",
        "/jobs/digits/jobs/other/v1/job", "/jobs/digits//v1/job", "//jobs/digits/v1/job", "/jobs/%64igits%0a/",
        "/jobs/digits/v1/files/../../config.toml", "/v1/job", "/join", "/jobs/digits\\..\\other/v1/job", "/jobs",
        "/none",
    ],
)  # fmt: skip
def test_hostile_paths_are_nobodys(both, path):
    token = both.token("digits", 0)
    status, _, body = asked(both, path, headers={"Authorization": f"Bearer {token}"})
    assert status == 404 and token not in body and "config" not in body


def test_a_job_without_its_slash_is_led_to_its_page(both):
    status, headers, _ = asked(both, "/jobs/digits")
    assert status == 307 and headers["Location"] == "digits/"
    status, _, body = asked(both, "/jobs/digits/")
    assert status == 200 and "<h1>sflam · digits" in body and 'href="../../"' in body
    assert asked(both, "/jobs/digits", method="POST")[0] == 404


def test_the_page_lists_the_jobs(both):
    status, headers, body = asked(both, "/")
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    assert re.findall(r'<a href="([^"]+)">', body) == ["jobs/digits/", "jobs/other/"]
    assert "0 / 2" in body and "of 3 here" in body


def test_metrics_have_the_job_as_a_label_and_parse(both):
    status, headers, text = asked(both, "/metrics")
    assert status == 200 and headers["Content-Type"].startswith("text/plain; version=0.0.4")
    described, last = set(), ""
    for line in text.splitlines():
        if line.startswith("# "):
            word, name = line.split(" ")[1:3]
            assert (word, name) not in described
            described.add((word, name))
            last = name
        else:
            assert SERIES.fullmatch(line) and re.match("[a-z_]+", line)[0] == last, line
            assert 'job="' in line or last.startswith("sflam_connections_"), line
    for name in ("digits", "other"):
        assert f'sflam_quorum{{job="{name}"}} {2 if name == "digits" else 3}' in text
        own = asked(both, f"/jobs/{name}/metrics")[2]
        assert "job=" not in own and f"sflam_quorum {2 if name == 'digits' else 3}" in own
    assert text.count("\nsflam_connections_devices ") == 1


def test_labels_go_before_labels_whatever_they_hold():
    text = '# HELP a x.\n# TYPE a gauge\na{device="} {\\"b"} 1\n# HELP b y.\n# TYPE b gauge\nb 2\n'
    assert labelled({"one": text, "two": text}).splitlines() == [
        "# HELP a x.", "# TYPE a gauge", 'a{job="one",device="} {\\"b"} 1', 'a{job="two",device="} {\\"b"} 1',
        "# HELP b y.", "# TYPE b gauge", 'b{job="one"} 2', 'b{job="two"} 2',
    ]  # fmt: skip


def test_probes_of_the_process_tell_of_every_job(both):
    status, _, body = asked(both, "/healthz")
    assert status == 200 and json.loads(body) == {
        "ok": True,
        "jobs": {"digits": "waiting", "other": "waiting"},
    }
    status, _, body = asked(both, "/readyz")
    assert status == 503 and json.loads(body) == {"ready": False, "jobs": {"digits": False, "other": False}}


def test_an_operator_pauses_one_job_alone(both):
    from sflam.serve.operators import Operators

    token = Operators(both.folder / "operators.json").add("alice")
    link = both.link("other", token)
    assert "pause" in str(ask(link, "pause", [])["act"])
    jobs = both.served.jobs
    assert [job.served.ingress.orders.paused for job in jobs.values()] == [False, True]
    assert [one.state for one in both.served.standings()] == ["waiting", "paused"]
    ask(link, "resume", [])
    link.close()


def test_bodies_in_flight_are_bounded_together(both):
    one, other = (job.served.ingress.bounds for job in both.served.jobs.values())
    assert one is not other and one.total == other.total
    with one.hold(0, one.each), pytest.raises(Refused, match="bytes are in flight") as refused:
        other.total = one.each
        try:
            with other.hold(0, 1):
                raise AssertionError("held")
        finally:
            other.total = one.total
    assert refused.value.status == 503
    with one.hold(0, one.each), other.hold(0, other.each):
        pass


def test_wrong_tokens_are_counted_for_the_process(both):
    one, other = (job.served.ingress for job in both.served.jobs.values())
    assert one.wrong_tokens is other.wrong_tokens
    assert (one.first, other.first) == (0, 2), "device 0 of either has connections of its own"
    assert both.served.server.admission.places.devices == 2 * 5 + 16
