"""``sflam answer``: the server of a finished run, for devices that predict with their half of its model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from sflam.errors import ServeError
from sflam.records.run_folder import RunFolder
from sflam.serve.admission import places_for, raise_file_limit
from sflam.serve.answers.answer_app import answer_application
from sflam.serve.answers.offer import offer_of
from sflam.serve.certificate_binding import CertificateBinding
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.revocation_list import RevocationList
from sflam.serve.roster import Roster
from sflam.serve.session import Session
from sflam.serve.stop_signals import stopped_by_signals
from sflam.serve.web_server import Listen, WebServer


class AnswerServer:
    """Answers predictions from :meth:`start` on, until :meth:`stop`.

    Args:
        run_dir: folder of a finished run.
        listen: where.
        roster: file of the devices that may ask.
        bits: of every value that comes up, 32 for floats; None for those of the run.
        device: that computes: ``cpu``, ``cuda`` or ``auto``.
        memory: most bytes of bodies in memory at once.
        notify: shows a line to the user of the server.

    Raises:
        SflamError: see :func:`sflam.serve.answers.offer.offer_of`; or it cannot listen.
    """

    def __init__(
        self,
        run_dir: str | Path,
        listen: Listen,
        roster: Path,
        *,
        bits: int | None = None,
        device: str = "auto",
        memory: int = 1 << 29,
        notify: Callable[[str], None] = lambda line: None,
    ) -> None:
        listen.check()
        run = RunFolder(Path(run_dir))
        with ExitStack() as stack:
            folder = stack.enter_context(
                TemporaryDirectory(prefix="sflam-answer-", ignore_cleanup_errors=True)
            )
            offer = offer_of(run, Path(folder), bits=bits, device=device)
            largest = max(contract.largest() for contract in offer.contracts.values())
            if largest > memory:
                raise ServeError(f"one body takes {largest} bytes, but --memory is {memory}; raise it")
            self._folder = stack.pop_all()
        dispatch, event_log = (
            Dispatch(Session(1, legs=1, patience=60.0)),
            EventLog(run.path / "answers.jsonl"),
        )
        self.notes = offer.notes
        self.ingress = ingress = Ingress(
            dispatch=dispatch,
            roster=Roster(roster),
            contracts=offer.contracts,
            job=offer.descriptions.__getitem__,
            files=offer.files,
            bounds=Bounds(memory, 2 * largest),
            peers=listen.proxies,
            event_log=event_log,
        )
        CertificateBinding(ingress, event_log)
        if listen.client_crl and listen.client_ca:
            lists = RevocationList(listen.client_crl, listen.client_ca, notify, event_log)
            ingress.connected.append(lists.look)
        places = places_for(len(offer.contracts), raise_file_limit())
        self._server = WebServer(answer_application(ingress, offer.trunk), dispatch, listen, places=places)
        self._over = threading.Event()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._server.port

    @property
    def predicted(self) -> int:
        """Samples predicted so far."""
        return self.ingress.counts["predicted_rows"]

    def start(self) -> None:
        """Begin to listen; raises ServeError when that does not work."""
        self._server.start()

    def wait(self) -> None:
        """Wait for SIGTERM or SIGINT."""
        with stopped_by_signals(self._over.set):
            self._over.wait()

    def stop(self) -> None:
        """Stop listening."""
        self._over.set()
        self._server.stop()
        self.ingress.event_log.close()
        self._folder.close()
