"""A server behind a reverse proxy, at a path of its own: restarts, limits of bodies, and a whole run."""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace

import pytest

from sflam.codec.settings import QuantSettings
from sflam.errors import Refused, ServeError
from sflam.link.address import server_address
from sflam.link.https_client import Link
from sflam.serve.app import application
from sflam.serve.web_server import Listen, WebServer
from tests.learn.builders import LEARN, assert_equal_states
from tests.serve.proxies import MOST, PROXIES, forwarding
from tests.serve.test_hostile import STEP, step_body
from tests.serve.threads import Rig, simulated

HEADERS = {"Sflam-Tokens": "7"}


@pytest.fixture
def proxied(kind, site, tmp_path):
    """The address of the site through a proxy."""
    if kind != "own" and not shutil.which(kind):
        pytest.skip(f"{kind} is not installed")
    with PROXIES[kind](tmp_path / "proxy", site.server.port) as port:
        yield f"http://127.0.0.1:{port}/sflam"


@pytest.mark.parametrize("kind", ["own", "nginx", "caddy"])
def test_a_restart_behind_a_proxy_ends_no_device(site, proxied):
    lines = []
    link = Link(proxied, site.token, patience=60, notify=lines.append)
    try:
        assert link.json("GET", "/v1/job") == {"device": 0}
        assert link.call("POST", STEP, step_body(), HEADERS) == b"answer 0"
        port = site.server.port
        site.server.stop()

        def come_back():
            time.sleep(0.5)
            site.server = WebServer(application(site.ingress), site.dispatch, Listen(port=port))
            site.server.start()

        back = threading.Thread(target=come_back)
        back.start()
        assert link.call("POST", "/v1/rounds/0/1/steps/1", step_body(step=1), HEADERS) == b"answer 1"
        back.join(30)
        assert len(lines) == 1 and "status 502" in lines[0]
        assert site.computed == [(0, 0), (0, 1)]
    finally:
        link.close()


@pytest.mark.parametrize("kind", ["own", "nginx"])  # Caddy asks the server first, and has no limit of its own
def test_a_body_too_large_for_a_proxy_is_explained_and_tried_again(site, proxied):
    lines = []
    link = Link(proxied, site.token, patience=0.5, notify=lines.append)
    with pytest.raises(
        ServeError, match=f"refuses a body of {2 * MOST} bytes.*client_max_body_size 0 in nginx"
    ):
        link.call("PUT", "/v1/rounds/0/1/adapters", bytes(2 * MOST))
    assert len(lines) == 1 and "413" in lines[0]
    with pytest.raises(Refused, match="bytes"):  # the server's own limit is another matter, and final
        link.call("POST", STEP, bytes(MOST // 2), HEADERS)
    link.close()


def test_what_a_proxy_has_no_route_for_is_not_taken_for_the_server(site, tmp_path):
    with forwarding(tmp_path, site.server.port) as port:
        link = Link(f"http://127.0.0.1:{port}/other", site.token)
        with pytest.raises(Refused, match="answered by status 404, and not by sflam"):
            link.json("GET", "/v1/job")
        link.close()


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("host", ("https", "host", 8443, "")),
        ("host:1", ("https", "host", 1, "")),
        ("https://host/", ("https", "host", 8443, "")),
        ("https://host/sflam", ("https", "host", 443, "/sflam")),
        ("host/a/b/", ("https", "host", 443, "/a/b")),
        ("http://[::1]:80/x", ("http", "::1", 80, "/x")),
        ("https://host:8/sflam", ("https", "host", 8, "/sflam")),
    ],
)
def test_addresses(address, found):
    assert server_address(address) == found


@pytest.mark.parametrize(
    "address",
    [
        "ftp://host",
        "https://",
        "host:x",
        "host/a b",
        "host/a?b=c",
        "host/a#b",
        "u:p@host",
        "host//a",
        "host/%2e",
    ],
)
def test_what_is_no_address(address):
    with pytest.raises(ServeError, match="server address"):
        server_address(address)


@pytest.mark.usefixtures("one_thread")
def test_a_run_through_a_proxy_is_the_simulations(tmp_path):
    job = {
        "cuts": (1, 1, 1),
        "quant": QuantSettings(bits_up=4, bits_down=4),
        "learn": replace(LEARN, canonical=True),
        "labels": "server",
    }
    rig = Rig(tmp_path, "vit", **job)
    with forwarding(tmp_path, rig.server.port) as port:
        rig.address = f"http://127.0.0.1:{port}/sflam"
        _, found = rig.run()
    assert_equal_states(found, simulated("vit", **job)[1])
