"""The web server around a run: its address, its certificates, and its end."""

from __future__ import annotations

import datetime
import re
import secrets
import socket
import ssl
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from sflam.errors import ServeError
from sflam.files import replace_file
from sflam.link.address import is_loopback
from sflam.serve.admission import Admission, ConnectionPlaces
from sflam.serve.certificates import valid_between
from sflam.serve.dispatch import Dispatch
from sflam.serve.header_limits import HEAD_SECONDS, guarded
from sflam.serve.listener import AdmittingServer
from sflam.serve.peers import Peers
from sflam.serve.revocation_list import read_lists

CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----")


@dataclass(frozen=True)
class Listen:
    """Where and how a server listens.

    Attributes:
        host: name or address to bind.
        port: 0 takes any that is free.
        certificate: PEM file of the server's certificate; None serves plain HTTP.
        key: PEM file of its private key.
        client_ca: PEM file of the authority whose certificates devices must show; None asks for none.
        client_crl: PEM file of the certificates that it has revoked; None knows of none.
        insecure: allow plain HTTP beyond this machine.
        proxies: those whose X-Forwarded-For is believed.
    """

    host: str = "127.0.0.1"
    port: int = 8443
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    client_crl: Path | None = None
    insecure: bool = False
    proxies: Peers = field(default_factory=Peers)

    def check(self) -> None:
        """Raise ServeError for plain HTTP beyond this machine, certificates that cannot be used, and a port in use."""
        self._check_certificates()
        self.bound().close()

    def bound(self) -> socket.socket:
        """Return a socket at the address, not yet listening; raises ServeError where there can be none."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        # Marked as TCP, so that asyncio turns Nagle's algorithm off: small answers would wait 40 ms for an ACK.
        made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((self.host, self.port))
            return made
        except (OSError, OverflowError) as error:
            made.close()
            raise ServeError(
                f"cannot listen on {self.host}:{self.port} ({error}); choose another --port"
            ) from error

    def url(self, port: int) -> str:
        """Return the address of a server that listens here, at the port it was given."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.certificate is None else 'https'}://{host}:{port}"

    def public(self) -> str:
        """Return the certificates of the server's file, PEM, without a key that may be beside them; "" for none."""
        text = "" if self.certificate is None else self.certificate.read_text()
        return "".join(f"{one}\n" for one in CERTIFICATE.findall(text))

    def _check_certificates(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ServeError("give both --cert and --key, or neither; sflam certs makes them")
        if self.client_crl is not None and self.client_ca is None:
            raise ServeError("--client-crl needs --client-ca, the authority whose certificates it revokes")
        if self.certificate is None:
            if self.client_ca is not None:
                raise ServeError("--client-ca needs --cert and --key; sflam certs makes them")
            if not (self.insecure or is_loopback(self.host)):
                raise ServeError(
                    f"listening on {self.host} without a certificate would send tokens and activations in the clear; "
                    "give --cert and --key (sflam certs makes them), or give --insecure behind a proxy that has one"
                )
            return
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self.certificate, self.key)
            if self.client_ca:
                context.load_verify_locations(self.client_ca)
            first, last = valid_between(self.certificate.read_bytes())
        except (OSError, ValueError, ssl.SSLError) as error:
            raise ServeError(
                f"the certificate {self.certificate} or its key cannot be used ({error}); sflam certs makes new ones"
            ) from error
        if self.client_crl and self.client_ca:
            read_lists(self.client_crl, self.client_ca, time.time())
        now = datetime.datetime.now(datetime.UTC)
        if not first <= now <= last:
            raise ServeError(
                f"the certificate {self.certificate} is good from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC, "
                f"and now it is {now:%Y-%m-%d %H:%M}; make a new one with sflam certs, or set this machine's clock"
            )


class WebServer:
    """uvicorn in a thread of its own, while the caller's thread runs the rounds.

    Args:
        app: the routes.
        dispatch: waits for devices when the server ends; None where nothing is to be waited for.
        listen: where.
        seconds: in which the head of a request must have come.
        places: how many connections there may be.
    """

    def __init__(
        self,
        app: ASGIApp,
        dispatch: Dispatch | None,
        listen: Listen,
        *,
        seconds: float = HEAD_SECONDS,
        places: ConnectionPlaces | None = None,
    ) -> None:
        listen.check()
        self.dispatch = dispatch
        self._socket = listen.bound()
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            app,
            log_level="critical",  # refusals are in the event log; malformed requests are not logged
            access_log=False,
            proxy_headers=False,  # it would believe everything on this machine
            ws="none",  # nothing here speaks it, whatever is installed beside
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
            h11_max_incomplete_event_size=16384,
            server_header=False,
            ssl_certfile=listen.certificate,
            ssl_keyfile=listen.key,
            ssl_ca_certs=str(listen.client_ca) if listen.client_ca else None,
            ssl_cert_reqs=ssl.CERT_REQUIRED if listen.client_ca else ssl.CERT_NONE,
        )
        config.load()
        config.http_protocol_class = guarded(config.http_protocol_class, seconds)
        if listen.certificate:
            assert config.ssl is not None
            config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        self.admission = Admission(places, listen.proxies.unlimited)
        self._server = AdmittingServer(config, self.admission, seconds)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    def start(self) -> None:
        """Begin to listen; raises ServeError when that does not work."""
        self._thread.start()
        until = time.monotonic() + 20
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > until:
                raise ServeError("the web server did not start; see the lines above")
            time.sleep(0.01)

    def stop(self, linger: float = 0.0) -> None:
        """Stop listening, once the devices know that the run has ended, or ``linger`` seconds from now."""
        if self.dispatch is not None:
            self.dispatch.wait_informed(linger)
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


class Attempts:
    """Numbers that grow with every opening of a round, over restarts: each is on disk before it is used.

    Args:
        path: the file that holds the last one; beside it, ``run.id`` names the run to its devices.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self) -> int:
        """Return the next number; raises ServeError when the file is damaged or cannot be written."""
        try:
            last = int(self.path.read_text()) if self.path.exists() else 0
            replace_file(self.path, f"{last + 1}\n".encode())
        except (OSError, ValueError) as error:
            raise ServeError(
                f"{self.path} cannot be used ({error}); put it back, or start a new run"
            ) from error
        return last + 1

    def run_id(self) -> str:
        """Return the name of the run, the same after a restart; devices key what they keep by it."""
        path = self.path.with_name("run.id")
        try:
            if not path.exists():
                replace_file(path, secrets.token_hex(8).encode())
            return path.read_text().strip()
        except OSError as error:
            raise ServeError(f"{path} cannot be used ({error}); start a new run") from error
