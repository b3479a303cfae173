"""``sflam trunk``: this machine as a trunk server of a served run, for the devices that its coordinator gives it.

One thread makes the steps, one keeps in touch with the coordinator, and those of the web server take what devices send.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sflam.codec.bodies import encode
from sflam.codec.messages import AdapterFrame
from sflam.errors import OtherJob, Refused, ServeError
from sflam.files import writing
from sflam.learn.finite import is_finite
from sflam.learn.steps import Steps
from sflam.link.address import server_address
from sflam.link.contract import PROTOCOL
from sflam.link.exchange import opened
from sflam.link.https_client import Link
from sflam.link.job import ELSEWHERE
from sflam.locks import hold
from sflam.plugins import load_plugins
from sflam.serve.admission import places_for, raise_file_limit
from sflam.serve.dispatch import TICK, Dispatch
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.probes import SIZE
from sflam.serve.roster import Roster
from sflam.serve.session import Phase, Session
from sflam.serve.trunk_worker import Worker
from sflam.serve.trunks.coordinator_link import CoordinatorLink
from sflam.serve.trunks.round_token import RoundTokens
from sflam.serve.trunks.trunk_app import trunk_application
from sflam.serve.trunks.trunk_model import TrunkModel, described_trunk, load_trunks
from sflam.serve.trunks.trunk_order import GATHER, OPEN, Copy, TrunkOrder, TrunkReport, order_of
from sflam.serve.web_server import Listen, WebServer
from sflam.sizes import adapter_body_bytes

FOREVER = 1e9
"""Seconds that a round lasts here: the coordinator ends it."""
SOME_TIMES = 1.5
"""Times the coordinator's patience with a silent trunk server that one of the same name waits for its place."""


@dataclass(frozen=True, kw_only=True)
class TrunkOffer:
    """What a trunk server offers.

    Attributes:
        listen: where devices reach it.
        url: of that, as devices write it; "" makes it from ``listen``.
        folder: keeps what was downloaded.
        device: ``cpu``, ``cuda`` or ``auto``.
        plugins: to load, see :mod:`sflam.plugins`; the coordinator's word loads nothing.
        memory: most bytes of bodies in memory at once.
    """

    listen: Listen
    url: str = ""
    folder: Path = Path("trunk")
    device: str = "auto"
    plugins: Sequence[str] = ()
    memory: int = 1 << 29


def serve_trunks(
    reach: Callable[[], Link], offer: TrunkOffer, notify: Callable[[str], None] = lambda line: None
) -> int:
    """Serve the devices that a coordinator gives this process until its run ends; return the rounds served.

    Args:
        reach: returns a new way to the coordinator.
        offer: what this machine offers.
        notify: shows a line to the user.

    Raises:
        SflamError: whatever keeps it from taking part.
    """
    offer.listen.check()
    if offer.url:
        server_address(offer.url)
    own, rounds = load_plugins(offer.plugins), 0
    busy = f"{offer.folder} belongs to a trunk server that is running; give this one another --folder"
    with writing(offer.folder, ELSEWHERE, ServeError):
        offer.folder.mkdir(parents=True, exist_ok=True)
    held = hold(offer.folder, busy, error=ServeError)
    try:
        while True:
            link = reach()
            found = described_trunk(link, own)
            model = load_trunks(link, found, offer.folder, offer.device)
            server = TrunkServer(reach, found, model, offer, notify)
            try:
                return rounds + server.run()
            except OtherJob as other:
                notify(f"{other}; taking it up")
                rounds += server.rounds
            finally:
                server.stop()
                link.close()
    finally:
        held.release()


class TrunkServer:
    """The trunks of one job, served.

    Args:
        reach: returns a new way to the coordinator.
        found: the coordinator's description of the job.
        model: its trunks.
        offer: what this machine offers.
        notify: shows a line to the user.
    """

    def __init__(
        self,
        reach: Callable[[], Link],
        found: dict[str, Any],
        model: TrunkModel,
        offer: TrunkOffer,
        notify: Callable[[str], None],
    ) -> None:
        self.model, self.notify, self.digest = model, notify, str(found["digest"])
        self.coordinator, self.touch = CoordinatorLink.two(reach)
        labels_up = model.job.model.labels == "server"
        session = Session(1, legs=1 if labels_up else 2, patience=float(found["patience"]))
        self.dispatch = Dispatch(session, canonical=model.job.learn.canonical)
        self.dispatch.by_step = model.servers.shared
        cuts = dict(enumerate(model.devices.cuts))
        self.worker = Worker(self.dispatch, model.servers, model.exchange, cuts)
        self.tokens = RoundTokens()
        largest = max(contract.largest() for contract in model.contracts.values())
        self.ingress = Ingress(
            dispatch=self.dispatch,
            roster=Roster(offer.folder / "devices.json"),
            contracts=model.contracts,
            job=lambda device: {},
            files={},
            bounds=Bounds(offer.memory, max(2 * largest, SIZE)),
            peers=offer.listen.proxies,
            admit=self.tokens.device_of,
        )
        places = places_for(len(model.contracts), raise_file_limit())
        self.server = WebServer(trunk_application(self.ingress), self.dispatch, offer.listen, places=places)
        self.about = {
            "protocol": PROTOCOL,
            "version": version("sflam"),
            "url": offer.url or offer.listen.url(self.server.port),
            "certificate": offer.listen.public(),
        }
        self.rounds = 0
        """Rounds whose work was handed over."""
        self._standing: dict[str, Any] = {"serial": 0, "phase": ""}
        # Not its serial alone: a coordinator that was started again counts from 0.
        self._seen, self._over = self._standing, False
        self._error: ServeError | None = None
        self.silence = float(found["silence"])

    def run(self) -> int:
        """Serve until the run ends; return the rounds.

        Raises:
            ServeError: the coordinator cannot be reached any more, or refuses this trunk server for good.
            OtherJob: it has another job than the one that was loaded.
        """
        self.server.start()
        self._come(self.coordinator)
        self.notify(f"serving devices at {self.about['url']}")
        threading.Thread(target=self._keep_in_touch, daemon=True).start()
        while True:
            self.dispatch.wait_until(lambda: bool(self._error) or self._standing != self._seen)
            if self._error:
                raise self._error
            standing = self._standing
            self._seen = standing
            if standing["phase"] == "ended":
                return self.rounds
            if standing["phase"] == OPEN:
                try:
                    self.rounds += self._round(standing)
                except Refused as refused:
                    if refused.status != 409:
                        raise
                    self.notify(f"round {standing['round'] + 1}: {refused}")

    def stop(self) -> None:
        """Serve no more."""
        self._over = True
        self.dispatch.stop()
        self.server.stop()
        self.coordinator.close()

    def _come(self, coordinator: CoordinatorLink) -> None:
        """Let the coordinator know of this trunk server; one of the same name that has just died is waited for."""
        waited = 0.0
        while True:
            try:
                coordinator.json("POST", "/v1/trunk/hello", self.about)
                return
            except Refused as refused:
                if refused.status != 409 or waited > SOME_TIMES * self.silence:
                    raise
                if not waited:
                    self.notify(str(refused))
            coordinator.link.sleep(1.0)
            waited += 1.0

    def _keep_in_touch(self) -> None:
        """Report how far the devices are, and take what the coordinator asks, until the run ends."""
        try:
            while not self._over:
                with self.dispatch.looked() as session:
                    seats = {
                        device: [seat.next, seat.computing or seat.receiving > 0, seat.out]
                        for device, seat in session.seats.items()
                    }
                    sent = {"serial": self._standing["serial"], "attempt": session.attempt, "seats": seats}
                self._asked(self.touch.json("POST", "/v1/trunk/beat", sent))
                if self._standing["phase"] == "ended":
                    return
        except ServeError as error:
            with self.dispatch.locked() as session:
                self._error = error
                session.end_at(self.dispatch.clock())
        finally:
            self.touch.close()

    def _asked(self, found: Any) -> None:
        """Take the coordinator's answer."""
        try:
            if found["digest"] != self.digest:
                raise OtherJob("the coordinator now has another job than this trunk server took up")
            if found["known"] is not True:
                self._come(self.touch)
                return
            standing = {name: int(found[name]) for name in ("serial", "round", "attempt")}
            phase, out = str(found["phase"]), list(map(int, found["out"]))
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ServeError):
                raise
            raise ServeError(
                f"the coordinator's answer lacks {str(error)[:60]}; use the same version of sflam on both sides"
            ) from None
        with self.dispatch.locked() as session:
            self._standing = standing | {"phase": phase}
            here = session.phase is Phase.OPEN
            if here and (phase != OPEN or standing["attempt"] != session.attempt):
                session.end_at(self.dispatch.clock())
            for device in out if here else []:
                if device in session.seats and not session.seats[device].out:
                    self.dispatch.drop(device, f"device {device} is out of this round")

    def _round(self, standing: dict[str, Any]) -> bool:
        """Make the steps of a round; return whether what was trained was asked for, and handed over."""
        number, attempt = standing["round"], standing["attempt"]
        at = f"/v1/trunk/rounds/{number}/{attempt}"
        try:
            order = order_of(self.coordinator.json("GET", at), len(self.model.contracts))
            known = {device: order.samples[device] for device in order.devices}
            if (order.round, order.attempt) != (number, attempt) or min(known.values(), default=1) < 1:
                raise ValueError("this opening, and samples of every device")
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, ServeError):
                raise
            raise ServeError(
                f"the coordinator's order lacks {str(error)[:80]}; use the same version"
            ) from None
        if (model := self.model.at(order.servers)) is not self.model:
            self.model = model
            self.worker.place(model.servers, dict(enumerate(model.devices.cuts)))
        self._begin(at, order)
        contracts = self.model.contracts
        exchanges = {d: contracts[d].legs * contracts[d].steps(n) for d, n in known.items()}
        self.ingress.stats.begin()
        with self.dispatch.locked() as session:
            for device, samples in known.items():
                session.hello(device, samples, self.dispatch.clock())
        self.tokens.open(order.key, order.devices)
        self.dispatch.open(number, attempt, exchanges, FOREVER, {})
        try:
            self.coordinator.send("POST", f"{at}/ready", b"{}")
            self.notify(f"round {number + 1}: devices {', '.join(map(str, order.devices))}")
            done = self.worker.serve(number, attempt, order.devices)
            with self.dispatch.looked() as session:
                made = {device: seat.next for device, seat in session.seats.items()}
                out = tuple(device for device, seat in session.seats.items() if seat.out)
        finally:
            self.tokens.close()
            self.dispatch.close()
        now = self._standing
        if (now["phase"], now.get("attempt")) != (GATHER, attempt):
            return False
        self._hand_over(at, order, done, made, out)
        return True

    def _begin(self, at: str, order: TrunkOrder) -> None:
        """Start the copies of the devices from the adapters that the round begins with."""
        servers = self.model.servers
        for trunk in servers.trunks.values():
            trunk.open()
        servers.seat(order.devices)
        for server in sorted({servers.server_of[device] for device in order.devices}):
            stack = servers.trunks[server].segment.stack
            if not stack.slots:
                continue
            most = adapter_body_bytes(stack.size(), 64)
            frame = opened(self.coordinator.get(f"{at}/start/{server}", most), AdapterFrame)
            if len(frame.values) != stack.size():
                raise ServeError(f"{len(frame.values)} adapter values came; {stack.size()} were agreed")
            state = stack.named(torch.from_numpy(frame.values.copy()))
            for (of, row), _ in self._copies(order).items():
                if of == server:
                    stack.write(row, state)
        self.model.weigh(order.present, order.known())

    def _copies(self, order: TrunkOrder) -> dict[Copy, int]:
        """Return the copies of an order's devices -> the first device of each."""
        return self.model.servers.copies(order.devices)

    def _hand_over(
        self, at: str, order: TrunkOrder, done: Steps, made: dict[int, int], out: tuple[int, ...]
    ) -> None:
        """Give the coordinator what was trained here, and what it took."""
        servers = self.model.servers
        for device in self._copies(order).values():
            row = servers.row(device)
            if row.numel() and is_finite(row):
                frame = AdapterFrame(order.round, device, 0, row.cpu().numpy())
                self.coordinator.send("PUT", f"{at}/copies/{device}", encode(frame))
        report = TrunkReport(done, made, out, self.worker.busy, self.ingress.stats.readings())
        self.coordinator.json("POST", f"{at}/done", report.to_json())


assert TICK < 1.0, "an order is taken up in the middle of a wait"
