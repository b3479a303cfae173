"""Probes of the way to a device: asked for once, of those that know them, and of no use to a stranger."""

from __future__ import annotations

import json
import threading

import pytest

from sflam.errors import ServeError
from sflam.link.standing import LARGEST_PROBE, standing_of
from sflam.serve.probes import SIZE
from tests.serve.test_hostile import Site

HELLO = json.dumps({"samples": 4, "probe": True}).encode()
STANDING = {
    "phase": "waiting", "known": True, "seated": False, "delivered": False, "round": -1, "attempt": 0, "exchange": 0,
}  # fmt: skip


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path) as made:
        made.dispatch.close()
        made.ingress.bounds.each = 2 * SIZE
        yield made


def asking(site):
    """Ask device 0 for a probe, in a thread; return it and where what was found comes."""
    found = {}
    thread = threading.Thread(target=lambda: found.update(site.dispatch.probe({0: SIZE, 1: SIZE}, 30.0)))
    thread.start()
    return thread, found


def standing(site):
    return json.loads(site.ask("GET", "/v1/round?after=1", None)[1])


def test_a_probe_measures_both_ways_and_is_asked_for_once(site):
    assert site.ask("POST", "/v1/session", HELLO)[0] == 200
    thread, found = asking(site)
    assert standing(site)["probe"] == SIZE  # the answer is not held back
    status, body = site.ask("GET", "/v1/probe", None)
    assert status == 200 and len(body) == SIZE
    report = json.dumps({"receive_s": 0.25})
    assert site.ask("POST", "/v1/probe", body, Sflam_Report=report)[0] == 204
    thread.join(20)
    assert found[0].down_s == 0.25 and 0 <= found[0].link_s <= found[0].up_s < 20 and set(found) == {0}
    assert site.ask("GET", "/v1/probe", None)[0] == site.ask("POST", "/v1/probe", body)[0] == 409


def test_a_device_that_knows_no_probes_is_not_waited_for(site):
    assert site.ask("POST", "/v1/session", json.dumps({"samples": 4}).encode())[0] == 200
    assert site.dispatch.probe({0: SIZE, 1: SIZE}, 30.0) == {}


@pytest.mark.parametrize("body", [b"", b"x", bytes(SIZE - 1), bytes(SIZE + 1)])
def test_a_probe_of_another_size_is_refused(site, body):
    site.ask("POST", "/v1/session", HELLO)
    thread, found = asking(site)
    assert site.ask("POST", "/v1/probe", body)[0] in (413, 422)
    assert site.ask("POST", "/v1/probe", bytes(SIZE), Sflam_Report="[" * 500)[0] == 422
    assert site.ask("POST", "/v1/probe", bytes(SIZE))[0] == 204
    thread.join(20)
    assert found[0].down_s == 0.0


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_probe_that_was_not_asked_for_is_refused(site, method):
    assert site.ask(method, "/v1/probe", bytes(8) if method == "POST" else None)[0] == 409
    assert site.ask(method, "/v1/probe", None, token="x" * 20)[0] == 401


@pytest.mark.parametrize("size", [0, -1, True, 1.5, "64", LARGEST_PROBE + 1, [1]])
def test_a_device_takes_no_probe_that_is_none(size):
    with pytest.raises(ServeError, match="probe"):
        standing_of(STANDING | {"probe": size}, "uniform")


@pytest.mark.parametrize("pace", [0, -1.0, True, float("nan"), float("inf"), "fast"])
def test_a_device_takes_no_pace_that_is_none(pace):
    with pytest.raises(ServeError, match="pace"):
        standing_of(STANDING | {"pace": pace}, "uniform")


def test_a_pace_is_never_so_slow_that_the_server_gives_a_body_up():
    assert standing_of(STANDING | {"pace": 1e-9}, "uniform").pace == 10_000.0
    assert standing_of(STANDING, "uniform").pace is None and standing_of(STANDING, "uniform").probe == 0
