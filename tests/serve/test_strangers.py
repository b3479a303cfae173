"""Connections of strangers, thousands of them, take nothing from a job: no file, no place, no exchange."""

from __future__ import annotations

import http.client
import resource
import socket
import ssl
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import pytest

from sflam.link.https_client import Link
from sflam.serve.admission import ConnectionPlaces
from sflam.serve.certificates import make_certificates
from tests.serve.strangers import strangers
from tests.serve.test_hostile import GOOD, Site, step_body

PLACES = ConnectionPlaces(silent=40, speaking=20, devices=8)


@pytest.fixture
def site(tmp_path):
    with Site(tmp_path, places=PLACES) as made:
        made.ingress.pause = 0.0
        yield made


def connected(site):
    return socket.create_connection(("127.0.0.1", site.server.port), timeout=30)


def until(holds):
    """Wait until something holds."""
    end = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def ended(stranger):
    """Return whether the server has closed a connection."""
    stranger.settimeout(30)
    try:
        return stranger.recv(1) == b""
    except ConnectionError:
        return True


def test_a_newcomer_gets_in_however_many_are_idle(site):
    with ExitStack() as stack:
        idle = [stack.enter_context(closing(connected(site))) for _ in range(200)]
        assert site.ask() == (200, b"answer 0")
        assert all(ended(stranger) for stranger in idle[:100])
        until(lambda: len(site.server.admission.silent) <= PLACES.silent)


def test_half_a_head_holds_no_place_against_a_newcomer(site):
    with ExitStack() as stack:
        for _ in range(100):
            half = stack.enter_context(closing(connected(site)))
            half.sendall(b"GET / HTTP/1.1\r\n")
        assert site.ask() == (200, b"answer 0")


def test_a_devices_connection_outlives_any_number_of_strangers(site):
    device = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=30)
    head = {"Authorization": f"Bearer {site.token}"}
    with closing(device), ExitStack() as stack:
        device.request("GET", "/v1/job", headers=head)
        assert device.getresponse().read()
        kept = device.sock.getsockname()
        for _ in range(200):
            speaking = stack.enter_context(closing(connected(site)))
            with suppress(OSError):
                speaking.sendall(b"GET / HTTP/1.1\r\n")
        device.request("GET", "/v1/job", headers=head)
        assert device.getresponse().status == 200 and device.sock.getsockname() == kept


def test_places_are_given_back_and_shown(site):
    with ExitStack() as stack:
        for _ in range(10):
            stack.enter_context(closing(connected(site)))
        until(lambda: len(site.server.admission.silent) == 10)
        text = site.ask("GET", "/metrics", None, Authorization=None)[1].decode()
        assert "sflam_connections_strangers 11" in text and "sflam_connections_evicted_total 0" in text
    site.ask()
    admission = site.server.admission
    until(lambda: not (admission.silent or admission.speaking or admission.devices))


def test_wrong_tokens_are_throttled_and_right_ones_are_not(site):
    found = [site.ask(token="sflam_wrong")[0] for _ in range(60)]
    assert found.count(401) <= site.ingress.wrong_tokens.burst + 10 and set(found) == {401, 429}
    assert site.ask() == (200, b"answer 0")


def test_behind_a_trusted_proxy_each_origin_has_its_own_wrong_tokens(site):
    site.ingress.peers = type(site.ingress.peers).of(["127.0.0.1"])

    def wrong(origin):
        return [site.ask(token="sflam_wrong", X_Forwarded_For=origin)[0] for _ in range(25)]

    assert 429 in wrong("203.0.113.1")
    assert site.ask(token="sflam_wrong", X_Forwarded_For="203.0.113.2")[0] == 401


def test_over_tls_a_newcomer_gets_its_handshake_whatever_strangers_began(tmp_path, caplog):
    make_certificates(tmp_path, ["127.0.0.1"])
    site = Site(tmp_path, places=PLACES, certificate=tmp_path / "server.pem", key=tmp_path / "server.key")
    out = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="x")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    hello = out.read()
    with ExitStack() as stack:
        for _ in range(100):
            _, half, odd = (stack.enter_context(closing(connected(site))) for _ in range(3))
            with suppress(OSError):
                half.sendall(hello)
                odd.sendall(b"GET / HTTP/1.1\r\n\r\n")
        link = Link(f"127.0.0.1:{site.server.port}", site.token, ca=tmp_path / "ca.pem", patience=30)
        lost: list[str] = []
        link.notify = lost.append
        assert link.json("GET", "/v1/job") == {"device": 0} and lost == []
        link.close()
    admission = site.server.admission
    until(lambda: not (admission.silent or admission.speaking or admission.devices))
    assert caplog.records == []
    site.dispatch.stop()
    site.server.stop()


SERVER = """
import pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
from sflam.serve.admission import places_for, raise_file_limit
from tests.serve.test_hostile import Site
site = Site(pathlib.Path(sys.argv[1]), places=places_for(4, raise_file_limit()))
print(site.server.port, site.token, flush=True)
for line in sys.stdin:
    (pathlib.Path(sys.argv[1]) / "checkpoint").write_text(line)
    print("written", flush=True)
"""


def test_a_server_with_256_files_writes_and_serves_under_500_strangers(tmp_path):
    server = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SERVER), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        port, token = server.stdout.readline().split()
        with strangers(int(port), 500):
            server.stdin.write("state\n")
            server.stdin.flush()
            assert server.stdout.readline() == "written\n"
            with closing(http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)) as device:
                head = {"Authorization": f"Bearer {token}", "Sflam-Tokens": "7"}
                device.request("POST", "/v1/rounds/0/1/steps/0", GOOD, head)
                assert device.getresponse().read() == b"answer 0"
    finally:
        server.stdin.close()
        server.kill()
        assert server.stderr.read() == ""
        server.wait(30)
        server.stdout.close()
        server.stderr.close()


MANY = 5000


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_NOFILE)[1] < MANY + 500, reason="too few files are allowed"
)
def test_eight_devices_lose_nothing_under_5000_idle_strangers(tmp_path):
    """Every exchange is answered at once, on the first connection of its device."""
    site = Site(tmp_path, devices=8)
    lost = []
    links = [
        Link(f"http://127.0.0.1:{site.server.port}", token, patience=60, notify=lost.append)
        for token in site.tokens
    ]

    def steps(device):
        return [
            links[device].call(
                "POST",
                f"/v1/rounds/0/1/steps/{step}",
                step_body(step=step, device=device),
                {"Sflam-Tokens": "7"},
            )
            for step in range(3)
        ]

    try:
        with strangers(site.server.port, MANY), ThreadPoolExecutor(8) as pool:
            found = list(pool.map(steps, range(8)))
            until(lambda: site.server.admission.evicted >= MANY - site.server.admission.places.silent)
        assert found == [[b"answer 0", b"answer 1", b"answer 2"]] * 8 and lost == []
        assert sorted(site.computed) == [(device, step) for device in range(8) for step in range(3)]
        assert site.dispatch.repeated == 0
    finally:
        for link in links:
            link.close()
        site.dispatch.stop()
        site.server.stop()
