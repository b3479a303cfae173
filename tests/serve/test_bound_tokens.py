"""A token is of use with its device's certificate alone, and a certificate until a revocation list has it."""

from __future__ import annotations

import datetime
import json
import shutil
import subprocess
import time
from contextlib import closing, contextmanager

import pytest

from sflam.errors import Refused, ServeError
from sflam.link.https_client import Link
from sflam.link.own_token import OwnToken
from sflam.serve.app import application
from sflam.serve.certificate_binding import CertificateBinding
from sflam.serve.certificates import make_certificates
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.operation import RunOperation
from sflam.serve.operator_routes import operator_routes
from sflam.serve.operators import Operators
from sflam.serve.orders import Orders
from sflam.serve.peer_certificate import read_certificate
from sflam.serve.revocation_list import RevocationList
from sflam.serve.revoking import revoke_certificates
from sflam.serve.roster import DAY, Roster
from sflam.serve.session import Session
from sflam.serve.token_file import digest
from sflam.serve.token_renewal import TokenRenewal
from sflam.serve.web_server import Listen, WebServer
from tests.serve.network import adapters_of, network
from tests.serve.test_hostile import TERMS
from tests.serve.test_operation import equal, events
from tests.serve.test_served_is_simulated import FOUR_BITS, job_of, sets, simulated

NAMES = ("hall", "kitchen")


@pytest.fixture(scope="module")
def certs(tmp_path_factory):
    """Certificates of an authority, and of a stranger's."""
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder / "ours", ["127.0.0.1"], NAMES)
    make_certificates(folder / "other", ["127.0.0.1"], NAMES)
    return folder


class Fleet:
    """A server that asks devices for certificates, and devices that come with any token and any certificate."""

    def __init__(self, folder, certs, revocations=None, client_ca=True):
        self.folder, self.certs, self.now, self.lines = folder, certs / "ours", time.time(), []
        self.roster = Roster(folder / "devices.json")
        self.tokens = {name: self.roster.enrol(name) for name in NAMES}
        self.operator = Operators(folder / "operators.json").add("alice")
        dispatch = Dispatch(Session(1))
        self.ingress = Ingress(
            dispatch, Roster(self.roster.path), {0: TERMS, 1: TERMS}, lambda device: {}, {}, Bounds(1 << 20, 1 << 14)
        )  # fmt: skip
        self.ingress.clock = lambda: self.now
        self.log = self.ingress.event_log = EventLog(folder / "served.jsonl")
        CertificateBinding(self.ingress, self.log)
        if revocations:
            checked = RevocationList(
                revocations, self.certs / "ca.pem", self.lines.append, self.log, lambda: self.now
            )
            self.ingress.connected.append(checked.look)
        orders = Orders(folder / "orders.json", self.ingress.roster, 2)
        operation = RunOperation(dispatch, self.ingress.roster, orders, self.log, 2)
        routes = operator_routes(self.ingress, Operators(folder / "operators.json"), operation)
        routes += TokenRenewal(self.ingress, 30.0, self.log).routes()
        listen = Listen(
            port=0,
            certificate=self.certs / "server.pem",
            key=self.certs / "server.key",
            client_ca=self.certs / "ca.pem" if client_ca else None,
        )
        self.dispatch, self.server = (
            dispatch,
            WebServer(application(self.ingress, more=routes), dispatch, listen),
        )
        self.server.start()

    def link(self, token, shows, **options):
        certificate = (
            {"certificate": self.certs / f"{shows}.pem", "key": self.certs / f"{shows}.key"} if shows else {}
        )
        address = f"127.0.0.1:{self.server.port}"
        ca = self.certs / "ca.pem"
        return closing(
            Link(address, token, ca=ca, patience=0.3, sleep=lambda s: None, **certificate, **options)
        )

    def come(self, name, shows=None, token=None):
        """A device comes with a token and a certificate; return what it is answered."""
        with self.link(token or self.tokens[name], shows or name) as link:
            return link.json("GET", "/v1/round")["phase"]

    def unbind(self, name):
        with self.link(self.operator, name) as link:
            return link.json("POST", "/v1/admin/unbind", {"names": [name]})["done"]


@contextmanager
def served(*args, **options):
    fleet = Fleet(*args, **options)
    try:
        yield fleet
    finally:
        fleet.dispatch.stop()
        fleet.server.stop()
        fleet.log.close()


@pytest.fixture
def fleet(tmp_path, certs):
    with served(tmp_path, certs) as made:
        yield made


def test_a_stolen_token_is_refused_with_another_certificate(fleet):
    assert fleet.come("hall") == "waiting"
    keys = {name: read_certificate(fleet.certs / f"{name}.pem").key[:16] for name in NAMES}
    for _ in range(2):
        with pytest.raises(Refused, match="bound to the certificate") as found:
            fleet.come("hall", "kitchen")
    assert str(found.value).partition(" (request")[0] == (
        f"the token of hall is bound to the certificate with key {keys['hall']}, and this device shows one with key "
        f"{keys['kitchen']}; use the token where it belongs, or free it: sflam admin SERVER unbind hall"
    )
    assert fleet.come("hall") == "waiting" and fleet.come("kitchen") == "waiting"
    assert [one["name"] for one in events(fleet.folder) if one["event"] == "token_bound"] == list(NAMES)
    again = Roster(fleet.roster.path)  # it is on disk, and in no server's memory alone
    assert again.entries()["hall"].certificate.startswith(keys["hall"])


def test_a_stolen_token_renews_nothing(fleet):
    fleet.come("hall")
    fleet.now += 21 * DAY
    body = {"sha256": digest("sflam_thief")}
    with (
        fleet.link(fleet.tokens["hall"], "kitchen") as thief,
        pytest.raises(Refused, match="bound to the certificate"),
    ):
        thief.json("POST", "/v1/token", body)
    assert fleet.roster.entries()["hall"].next_sha256 == ""
    file = fleet.folder / "hall.token"
    file.write_text(fleet.tokens["hall"])
    with fleet.link(fleet.tokens["hall"], "hall", own=OwnToken(file, fleet.tokens["hall"])) as link:
        link.json("GET", "/v1/round")
        link._renew()
        with pytest.raises(Refused, match="bound to the certificate"):
            fleet.come("hall", "kitchen", token=link.token)
        assert fleet.roster.entries()["hall"].next_sha256, "the next token is not taken by a thief either"
        link.json("GET", "/v1/round")
    entry = fleet.roster.entries()["hall"]
    assert not entry.next_sha256 and entry.certificate == read_certificate(fleet.certs / "hall.pem").key


def test_an_operator_frees_a_token_and_enrolment_names_a_certificate(fleet, cli):
    fleet.come("hall")
    assert fleet.unbind("hall") == "hall: bound to the certificate it comes with next"
    assert fleet.come("hall", "kitchen") == "waiting"
    with pytest.raises(Refused, match="bound to the certificate"):
        fleet.come("hall")
    options = ("--roster", fleet.roster.path, "--certificate", fleet.certs / "hall.pem")
    done = cli("enrol", "hall", *options)
    assert done.code == 0
    with pytest.raises(Refused, match="bound to the certificate"):
        fleet.come("hall", "kitchen", token=done.out[0])
    assert fleet.come("hall", token=done.out[0]) == "waiting"
    done = cli("enrol", "hall", *options[:3], fleet.certs / "hall.key")
    assert done.code == 2 and len(done.err) == 1 and "holds no certificate" in done.err[0]


def test_a_certificate_that_is_renewed_with_its_key_is_the_same(tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    make_certificates(tmp_path, ["localhost"], ["pi"])
    key = serialization.load_pem_private_key((tmp_path / "ca.key").read_bytes(), None)
    old = x509.load_pem_x509_certificate((tmp_path / "pi.pem").read_bytes())
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), x509.random_serial_number())
    new = builder.not_valid_before(old.not_valid_before_utc).not_valid_after(old.not_valid_after_utc)
    (tmp_path / "new.pem").write_bytes(
        new.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    one, two = (read_certificate(tmp_path / name) for name in ("pi.pem", "new.pem"))
    assert one.key == two.key and one.serial != two.serial


def test_a_bound_token_is_refused_where_no_certificate_is_asked_for(tmp_path, certs):
    with served(tmp_path, certs, client_ca=False) as fleet:
        assert fleet.come("kitchen") == "waiting", "not bound: as before"
        fleet.roster.bind("hall", read_certificate(fleet.certs / "hall.pem").key)
        with pytest.raises(Refused, match="bound to a device certificate, and this connection shows none"):
            fleet.come("hall")


def test_a_revoked_certificate_is_refused_once_the_list_changes_on_a_connection_that_is_open_too(
    tmp_path, certs
):
    lists = tmp_path / "crl.pem"
    lists.write_bytes(revoke_certificates(certs / "ours", [])[0].read_bytes())
    with served(tmp_path, certs, lists) as fleet, fleet.link(fleet.tokens["hall"], "hall") as link:
        assert link.json("GET", "/v1/round")["phase"] == "waiting"
        lists.write_bytes(revoke_certificates(certs / "ours", ["hall"])[0].read_bytes())
        with pytest.raises(
            Refused, match=r"certificate of this device \(number [0-9a-f]+\) was revoked on 2"
        ):
            link.json("GET", "/v1/round")
        with pytest.raises(Refused, match="was revoked on"):
            fleet.come("hall")
        with pytest.raises(Refused, match="was revoked on"):
            fleet.come("kitchen", "hall")
        assert fleet.come("kitchen") == "waiting"
        assert fleet.unbind("kitchen"), "operators show certificates, too"
        assert "1 certificates are revoked" in fleet.lines[0]
        found = [one for one in events(fleet.folder) if one["event"] == "revocations"]
        assert found[0]["revoked"] == 1 and found[0]["ends"] > time.time()


def test_a_list_that_cannot_be_used_leaves_the_one_before_in_force_until_that_ends(tmp_path, certs):
    lists = tmp_path / "crl.pem"
    good = revoke_certificates(certs / "ours", ["hall"], days=3)[0].read_bytes()
    lists.write_bytes(good)
    late = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9)
    make_certificates(tmp_path / "more", [], ["x"])
    bad = {
        "holds no revocation list": b"nothing",
        "is damaged": good[:60] + b"AAAA" + good[64:],
        "signed by no authority": revoke_certificates(certs / "other", [])[0].read_bytes(),
        "is good from": revoke_certificates(tmp_path / "more", [], days=1, now=late)[0].read_bytes(),
    }
    with served(tmp_path, certs, lists) as fleet:
        for number, (why, body) in enumerate(list(bad.items())[:3]):
            lists.write_bytes(body)
            for _ in range(2):
                with pytest.raises(Refused, match="was revoked on"):
                    fleet.come("hall")
                assert fleet.come("kitchen") == "waiting"
            assert len(fleet.lines) == number + 1 and why in fleet.lines[-1], fleet.lines
            assert "the list read before stays in force, until" in fleet.lines[-1]
        lists.unlink()
        assert fleet.come("kitchen") == "waiting" and "cannot be read" in fleet.lines[-1]
        fleet.now += 4 * DAY
        with pytest.raises(ServeError, match="revocation list of this server ended on"):
            fleet.come("kitchen")
        lists.write_bytes(revoke_certificates(certs / "ours", [], days=9)[0].read_bytes())
        assert fleet.come("kitchen") == "waiting"
        refused = [one for one in events(fleet.folder) if one["event"] == "revocations_refused"]
        assert len(refused) == 4


def test_a_list_that_cannot_be_used_is_one_line_at_the_start(tmp_path, certs, cli):
    at = [
        "--cert", certs / "ours/server.pem", "--key", certs / "ours/server.key", "--out", tmp_path / "run",
        "--roster", tmp_path / "devices.json", "--client-crl", tmp_path / "crl.pem", "--port", 0,
    ]  # fmt: skip
    ca = ("--client-ca", certs / "ours/ca.pem")
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9)
    for body, more, why in (
        (None, ca, "cannot be read"),
        (b"x", ca, "holds no revocation list"),
        (revoke_certificates(certs / "ours", [], 1, long_ago)[0].read_bytes(), ca, "and now it is"),
        (revoke_certificates(certs / "other", [])[0].read_bytes(), ca, "signed by no authority"),
        (b"x", (), "--client-crl needs --client-ca"),
    ):
        if body is not None:
            (tmp_path / "crl.pem").write_bytes(body)
        done = cli("serve", *at, *more)
        assert done.code == 2 and len(done.err) == 1 and why in done.err[0], done
    assert not (tmp_path / "run").exists()


def test_lists_are_written_by_the_authority_of_the_folder(tmp_path, cli):
    make_certificates(tmp_path, [], ["pi", "tau"])
    for names, count in ((["pi"], 1), ([], 1), (["tau", "pi"], 2)):
        options = [word for name in names for word in ("--revoke", name)] or ["--crl"]
        done = cli("certs", *options, "--out", tmp_path)
        assert done.code == 0 and f"{count} certificates are revoked" in done.out[0], done
    command = [
        "openssl",
        "crl",
        "-in",
        tmp_path / "crl.pem",
        "-noout",
        "-crlnumber",
        "-CAfile",
        tmp_path / "ca.pem",
    ]
    if shutil.which("openssl"):
        found = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "verify OK" in found.stderr and found.stdout.startswith("crlNumber=0x")
    for options, why in (
        (["--revoke", "nobody-there"], "cannot be read"),
        (["--revoke", "ca"], "is none that the authority"),
        (["--revoke", "pi", "--client", "phi"], "without --host and --client"),
        (["--crl", "--days", 0], "good for 0 days"),
    ):
        done = cli("certs", *options, "--out", tmp_path)
        assert done.code == 2 and len(done.err) == 1 and why in done.err[0], done
    done = cli("certs", "--crl", "--out", tmp_path / "none")
    assert done.code == 2 and "give the folder of sflam certs" in done.err[0]
    assert json.dumps(done.out) == "[]"


@pytest.mark.slow
def test_a_run_over_certificates_and_a_list_is_the_simulated_one(room, tmp_path):
    """As processes; a certificate that is revoked while the run goes on ends its device with one line."""
    settings = job_of(room, *FOUR_BITS, "learn.rounds=3")
    with network(tmp_path) as net:
        certs = tmp_path / "certs"
        make_certificates(certs, [], ["0", "1", "2"])
        lists, _ = revoke_certificates(certs, [])
        server = net.serve(
            *sets(settings), "--out", tmp_path / "run", "--client-ca", certs / "ca.pem", "--client-crl", lists,
            "--token-days", 30,
        )  # fmt: skip
        shows = [("--cert", certs / f"{number}.pem", "--key", certs / f"{number}.key") for number in range(3)]
        joined = [net.join(number, *shows[number]) for number in range(2)]
        joined[0].wait_for("device 0: ")  # bound, before another comes with its token
        thief = net.join(0, *shows[1], "--folder", tmp_path / "thief")
        assert thief.wait() == 2 and "is bound to the certificate" in thief.lines[-1], thief.lines
        revoke_certificates(certs, ["2"])
        late = net.join(2, *shows[2])
        assert late.wait() == 2 and "was revoked on" in late.lines[-1], late.lines
        make_certificates(certs, [], ["2"])
        joined.append(net.join(2, *shows[2]))
        assert server.wait() == 0, server.lines
        assert [device.wait(20) for device in joined] == [0, 0, 0]
    assert equal(adapters_of(tmp_path / "run"), simulated(tmp_path / "alone", settings))
    bound = {entry.certificate for entry in Roster(tmp_path / "devices.json").entries().values()}
    assert bound == {read_certificate(certs / f"{number}.pem").key for number in range(3)}
