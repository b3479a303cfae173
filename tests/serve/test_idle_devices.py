"""A device that is there and does nothing freezes nobody; one that waits as it should is never taken for absent."""

from __future__ import annotations

import gc
import http.client
import json
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest

from sflam.codec.settings import QuantSettings
from sflam.errors import ServeError
from sflam.link.https_client import Link
from sflam.serve.session import Phase
from tests.learn.builders import LEARN
from tests.serve.test_hostile import Site
from tests.serve.threads import Rig

pytestmark = pytest.mark.usefixtures("one_thread")
LONGEST = 60.0
JOB = {
    "cuts": (1, 1, 1),
    "quant": QuantSettings(bits_up=4, bits_down=4),
    "learn": replace(LEARN, canonical=True, local_steps=3),
}


def idling(end, rig):
    """Return a link that asks for the round until that is over, before its first request to a path like ``end``."""

    class Idling(Link):
        due = True

        def _once(self, method, path, body, headers):
            if type(self).due and path.endswith(end) and method == "POST":
                type(self).due = False
                session, began = rig().dispatch.session, time.monotonic()
                while (
                    session.phase is Phase.OPEN and session.round == 0 and time.monotonic() - began < LONGEST
                ):
                    assert super()._once("GET", "/v1/round", None, {})[0] == 200
                    time.sleep(0.05)
            return super()._once(method, path, body, headers)

    return Idling


@pytest.mark.parametrize(
    ("labels", "end", "canonical"),
    [
        ("device", "/backward", False),
        ("device", "/backward", True),
        ("device", "1/forward", True),
        ("server", "steps/1", True),
    ],
)
def test_a_device_that_stays_and_makes_no_exchange_is_left_out(tmp_path, labels, end, canonical):
    """The others wait for it no longer than the patience, whatever the deadline: that is 1e6 s here."""
    rigs = []
    job = JOB | {"learn": replace(JOB["learn"], canonical=canonical)}
    rigs.append(
        Rig(
            tmp_path,
            "vit",
            links={1: idling(end, lambda: rigs[0])},
            quorum=2,
            patience=5.0,
            labels=labels,
            **job,
        )
    )
    records, _ = rigs[0].run()
    assert [record.participants for record in records] == [(0, 2), (0, 1, 2)]
    assert records[0].measured.left_out == (1,)
    assert rigs[0].ingress.bounds.bytes == 0


def test_a_device_that_waits_for_news_is_present_however_short_the_patience(site):
    site.session.patience = 3.0
    until, absent = time.monotonic() + 6.0, []

    def wait():
        while time.monotonic() < until:
            status, body = site.ask("GET", "/v1/round?after=1", None)
            assert status == 200 and json.loads(body)["known"]

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    while time.monotonic() < until:
        with site.dispatch.looked() as session:
            absent += [] if 0 in session.present(site.dispatch.clock()) else [time.monotonic()]
        time.sleep(0.01)
    waiting.join(30)
    assert absent == []


def test_ready_is_another_question_than_healthy(site):
    status, body = site.ask("GET", "/readyz", None, Authorization=None)
    assert status == 200 and json.loads(body) | {"seconds": 0} == {
        "ready": True, "phase": "open", "quorum": 1, "present": 2, "waiting": [0, 1], "seconds": 0,
    }  # fmt: skip
    site.session.patience = 0.0
    status, body = site.ask("GET", "/readyz", None, Authorization=None)
    assert status == 503 and not json.loads(body)["ready"]
    assert site.ask("GET", "/healthz", None, Authorization=None)[0] == 200
    text = site.ask("GET", "/metrics", None, Authorization=None)[1]
    assert b"sflam_ready 0" in text and b"sflam_devices_awaited 2" in text and b"sflam_quorum 1" in text
    page = site.ask("GET", "/", None, Authorization=None)[1].decode()
    assert "waits for devices 0, 1, at most" in page and "a round needs 1 devices, 0 are here" in page


def test_while_a_server_stops_devices_are_asked_to_wait(site):
    site.dispatch.stop()
    began = time.monotonic()
    with closing(http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=20)) as device:
        device.request("GET", "/v1/round?after=1", headers={"Authorization": f"Bearer {site.token}"})
        answer = device.getresponse()
        assert answer.status == 503 and answer.headers["Retry-After"] == "5" and b"stopping" in answer.read()
    assert not json.loads(site.ask("GET", "/readyz", None, Authorization=None)[1])["ready"]
    slept = []
    link = Link(f"http://127.0.0.1:{site.server.port}", site.token, patience=0.5, sleep=slept.append)
    link.sleep = lambda seconds: (slept.append(seconds), time.sleep(0.2))
    with pytest.raises(ServeError, match="stopping"):
        link.json("GET", "/v1/round?after=1")
    link.close()
    assert set(slept) == {5.0} and len(slept) <= 1 + (time.monotonic() - began) / 0.2


def test_a_step_that_ends_after_its_device_went_away_is_no_error(tmp_path, caplog):
    """A device that closes its connection, or gives up after 503, leaves a future behind that is then refused."""
    site = Site(tmp_path, works=False)
    site.ingress.hold = 0.2
    try:
        assert site.ask()[0] == 503
        site.dispatch.drop(0, "left out of the round")
        assert site.ask("GET", "/healthz", None)[0] == 200
        gc.collect()
    finally:
        site.dispatch.stop()
        site.server.stop()
    gc.collect()
    assert [record.message for record in caplog.records] == []
