"""What people get wrong is one clear line and exit code 2, on either side."""

from __future__ import annotations

import datetime
import socket

import numpy as np
import pytest

from sflam.serve.app import application
from sflam.serve.certificates import make_certificates
from sflam.serve.dispatch import Dispatch
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.roster import Roster
from sflam.serve.session import Session
from sflam.serve.web_server import Listen, WebServer
from tests.serve.network import network
from tests.serve.test_hostile import TERMS
from tests.serve.test_served_is_simulated import job_of, sets


def assert_problem(done, text):
    assert done.code == 2 and len(done.err) == 1 and done.err[0].startswith("sflam: "), done
    assert text in done.err[0], done.err


def days(count):
    return datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=count)


def test_a_port_in_use(cli, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = cli("serve", "--port", taken.getsockname()[1], "--out", tmp_path / "run")
    assert_problem(done, "choose another --port")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("port", [-1, 65536, 1_000_000])
def test_a_port_there_cannot_be(cli, tmp_path, port):
    assert_problem(cli("serve", "--port", port, "--out", tmp_path / "run"), "--port")


def test_a_host_there_is_not(cli, tmp_path):
    assert_problem(
        cli("serve", "--host", "no.such.host.invalid", "--insecure", "--out", tmp_path / "run"),
        "cannot listen",
    )


def test_certificates_that_cannot_be_used(cli, tmp_path):
    make_certificates(tmp_path, ["localhost"], days=10, now=days(-30))
    make_certificates(tmp_path / "later", ["localhost"], now=days(30))
    (tmp_path / "broken.pem").write_text("x")
    for cert, key, text in (
        (tmp_path / "none.pem", tmp_path / "server.key", "cannot be used"),
        (tmp_path / "broken.pem", tmp_path / "server.key", "cannot be used"),
        (tmp_path / "server.pem", tmp_path / "ca.key", "cannot be used"),
        (tmp_path / "server.pem", tmp_path / "server.key", "set this machine's clock"),
        (tmp_path / "later/server.pem", tmp_path / "later/server.key", "set this machine's clock"),
    ):
        assert_problem(cli("serve", "--cert", cert, "--key", key, "--out", tmp_path / "run"), text)
    assert_problem(
        cli("serve", "--cert", tmp_path / "server.pem", "--out", tmp_path / "run"), "both --cert and --key"
    )


class Unchecked(Listen):
    """Listens whatever its certificate is worth."""

    def check(self):
        """Find nothing wrong."""


@pytest.fixture
def served(tmp_path):
    """A function that starts a server with one device and a description of its job."""
    started = []

    def start(certs, job):
        roster = Roster(tmp_path / "devices.json")
        (tmp_path / "token").write_text(roster.enrol("pi"))
        dispatch = Dispatch(Session(1))
        ingress = Ingress(dispatch, roster, {0: TERMS}, lambda _: job, {}, Bounds(1 << 20, 1 << 20))
        listen = Unchecked(
            port=0, certificate=certs and certs / "server.pem", key=certs and certs / "server.key"
        )
        server = WebServer(application(ingress), dispatch, listen)
        server.start()
        started.append((dispatch, server))
        return server.port

    yield start
    for dispatch, server in started:
        dispatch.stop()
        server.stop()


@pytest.mark.parametrize(
    ("made", "hosts", "text"),
    [
        (-30, ["localhost"], "has expired, by this machine's clock"),
        (30, ["localhost"], "is not yet valid, by this machine's clock"),
        (0, ["elsewhere"], "is for another name"),
    ],
)
def test_a_servers_certificate_that_a_device_cannot_trust(cli, served, tmp_path, made, hosts, text):
    certs = tmp_path / "certs"
    make_certificates(certs, hosts, days=10, now=days(made))
    port = served(certs, {})
    done = cli("join", f"localhost:{port}", "--token-file", tmp_path / "token", "--ca", certs / "ca.pem")
    assert_problem(done, text)


@pytest.mark.parametrize("job", [{"protocol": 2, "version": "9.9"}, {}, [], {"protocol": "1"}])
def test_another_version_of_the_server(cli, served, tmp_path, job):
    done = cli("join", f"http://127.0.0.1:{served(None, job)}", "--token-file", tmp_path / "token")
    assert_problem(done, "use the same version of sflam on both sides")


def test_a_server_that_leaves_out_half_of_the_job(cli, served, tmp_path):
    done = cli("join", f"http://127.0.0.1:{served(None, {'protocol': 1})}", "--token-file", tmp_path / "token",
               "--folder", tmp_path / "device")  # fmt: skip
    assert_problem(done, "lacks 'bits'")


@pytest.mark.parametrize("host", ["localhost", "0.0.0.0"])
def test_a_server_of_plain_http_is_named_as_one(cli, served, tmp_path, host):
    port = served(None, {})
    done = cli("join", f"{host}:{port}", "--token-file", tmp_path / "token", "--patience", "2")
    insecure = " with --insecure" if host == "0.0.0.0" else ""
    assert_problem(
        done, f"{host}:{port} answers in plain HTTP, not HTTPS; give http://{host}:{port}{insecure}, or start"
    )


def test_something_that_is_no_server(cli, tmp_path):
    (tmp_path / "token").write_text("sflam_x")
    done = cli("join", "http://127.0.0.1:9", "--token-file", tmp_path / "token", "--patience", "0.2")
    errors = [line for line in done.err if line.startswith("sflam: ")]
    assert done.code == 2 and len(errors) == 1 and "is the server up?" in errors[0]


@pytest.mark.slow
def test_data_that_does_not_fit(room, tmp_path):
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 255, (8, 16, 16), dtype=np.uint8), np.array(["0", "1"] * 4)
    np.savez(tmp_path / "classes.npz", image=images, label=np.array(["cat", "dog"] * 4))
    np.savez(tmp_path / "unlabelled.npz", image=images)
    np.savez(tmp_path / "few.npz", image=images, label=labels[:5])
    np.savez(tmp_path / "flat.npz", image=images.reshape(8, -1), label=labels)
    (tmp_path / "texts.csv").write_text("text,label\nhello,0\nworld,1\n")
    with network(tmp_path, 1) as net:
        net.serve(*sets(job_of(room, "fleet.devices=1")), "--out", tmp_path / "run")
        for name in ("classes.npz", "unlabelled.npz", "few.npz", "flat.npz", "texts.csv", "none.npz"):
            one = net.join(0, "--data", tmp_path / name)
            assert one.wait(60) == 2, (name, one.lines)
            errors = [line for line in one.lines if line.startswith("sflam: ")]
            assert len(errors) == 1 and "Traceback" not in "".join(one.lines), (name, one.lines)
