"""A server and its devices as threads of one process, with real sockets between them: quick, and open to every fault.

Processes and TLS are in tests/runtime/network.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from sflam.data.poisson import most_drawn
from sflam.link.contract import ANY_LOSS, Contract
from sflam.link.exchange import NumpyCoder, TokenExchange
from sflam.link.https_client import Link
from sflam.link.job import job_digest
from sflam.link.jobs import until_it_ends
from sflam.link.loop import Client
from sflam.link.masked_way import MaskedWay
from sflam.link.place import Place
from sflam.model.adapters import state_of
from sflam.model.families import CAUSAL
from sflam.model.full import FullModel
from sflam.model.settings import ModelSettings
from sflam.model.split import DeviceSegment
from sflam.serve.announcement import model_of
from sflam.serve.app import application
from sflam.serve.buffered.buffered_fleet import BufferedRemote
from sflam.serve.buffered.buffered_wiring import paced_dispatch
from sflam.serve.corrected_weights import CorrectedWay, CorrectedWeights, frozen_weights
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.fleet import RemoteFleet, Stopped
from sflam.serve.graph_offer import HalfKind
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.kept_rows import kept_routes
from sflam.serve.moving import Moving
from sflam.serve.operation import RunOperation
from sflam.serve.operator_routes import operator_routes
from sflam.serve.operators import Operators
from sflam.serve.orders import Orders
from sflam.serve.roster import Roster
from sflam.serve.session import Phase, Session
from sflam.serve.sums.sum_wiring import wired_sums
from sflam.serve.torch_half import TorchHalf, torch_exchange
from sflam.serve.web_server import Listen, WebServer
from sflam.sizes import sent_tokens
from tests.learn.builders import adapted, local_fleet, parts_of, run
from tests.tiny import CLASSES, VOCABULARY, WIDTH, is_image

SIZES = (7, 12, 5)
LEAN = (0, 1, 2)
"""Every device without torch."""
KINDS = pytest.mark.parametrize(
    "lean", [(), pytest.param(LEAN, marks=pytest.mark.slow)], ids=["torch", "lean"]
)
"""A test of devices of either kind."""


class Died(BaseException):
    """A device's process is no more."""


def contracts_of(local, labels, quant, text, causal, start):
    segment, raw = local.devices.segment, quant.scheme == "identity"
    drop = local.exchange.guard.drop if local.exchange.guard else None
    own = [
        sum(part.numel() for part in local.ranks.own(device, start, segment.names(cut)).values())
        for device, cut in enumerate(local.devices.cuts)
    ]
    noisy = local.exchange.guard is not None and local.exchange.guard.moves_losses
    return {
        device: Contract(
            device=device, scheme=quant.scheme, bits=64 if raw else quant.bits_up, dim=WIDTH,
            tokens=sent_tokens(10 if text else 17, drop.share if drop else 0.0),
            text=text, labels_up=labels == "server", per_token=causal,
            classes=VOCABULARY if causal else CLASSES, batch=local.learn.batch, local_steps=local.learn.local_steps,
            local_epochs=local.learn.local_epochs, adapters=own[device],
            adapter_bits=local.devices.segment.stack.values.element_size() * 8,
            bits_down=64 if raw else quant.bits_down, change_bits=local.adapters.bits,
            fleet_rows={
                "global": local.learn.batch * len(local.parts),
                "poisson": most_drawn(local.learn.batch),
            }.get(local.sampling, 0),
            summed=hasattr(local, "sums"), kept=local.learn.cache == "server",
            losses=local.exchange.guard.mean_losses if noisy else ANY_LOSS,
        )
        for device, cut in enumerate(local.devices.cuts)
    }  # fmt: skip


def settings_of(ranks, device):
    """Return ``[model]`` of a device, as the server describes it; None where no device has a rank of its own."""
    return model_of(ModelSettings(rank=2), HalfKind(cut=0, rank=ranks[device])) if ranks else None


class Rig:
    """One job, served to threads.

    Args:
        folder: where devices write down where they are.
        kind: of model.
        links: device -> the class of its link, where it is not the plain one.
        lives: how often a device that died may come back.
        away: whether a device that died counts as absent at once, and comes back only when its round is over.
        planner: see RemoteFleet.
        quorum: fewest devices; all by default.
        draw: devices of a round; 0 for all.
        lean: the devices that run without torch.
        screen: see RemoteFleet.
        patience: seconds of silence, or without its next exchange, after which a device is left out.
        more: the ingress -> routes beside the usual ones.
        sizes: samples of the devices.
        trained: ``[model]``, where it is not that of :func:`adapted`.
        cuts_moved: which cut each device has, round after round; None leaves them as they are.
        options: cuts, labels, quant, learn.
    """

    def __init__(
        self,
        folder,
        kind,
        *,
        links=None,
        lives=3,
        away=False,
        planner=None,
        quorum=0,
        draw=0,
        lean=(),
        screen=None,
        patience=1000.0,
        more=lambda ingress: [],
        sizes=SIZES,
        trained=None,
        cuts_moved=None,
        **options,
    ):
        folder.mkdir(exist_ok=True)
        self.folder, self.kind, self.options, self.links, self.away = folder, kind, options, links or {}, away
        self.sizes, self.lines = sizes, []
        backbone, self.model, examples = adapted(kind, model_settings=trained)
        local = local_fleet(backbone, self.model, examples, parts_of(sizes), selected=draw, **options)
        labels, learn = options["labels"], options["learn"]
        legs, buffered = 1 if labels == "server" else 2, learn.sync == "buffered"
        session = Session(quorum or len(sizes), legs=legs, patience=patience)
        self.dispatch = Dispatch(session, canonical=learn.canonical)
        if buffered:
            self.dispatch = paced_dispatch(legs, patience)
        self.dispatch.session.attempt = 0
        self.contracts = contracts_of(
            local, labels, options["quant"], not is_image(kind), backbone.task == CAUSAL, state_of(self.model)
        )
        roster = Roster(folder / "devices.json")
        self.tokens = [roster.enrol(f"device-{device}") for device in self.contracts]
        self.moved = cuts_moved
        self.ingress = Ingress(
            self.dispatch, roster, self.contracts, self.described, {}, Bounds(1 << 24, 1 << 22)
        )
        self.orders = Orders(folder / "orders.json", roster, len(sizes))
        self.ingress.orders = self.orders
        self.operators = Operators(folder / "operators.json")
        self.log = EventLog(folder / "served.jsonl")
        self.operation = RunOperation(self.dispatch, roster, self.orders, self.log, len(sizes))
        kind_of_fleet, beside = partial(BufferedRemote if buffered else RemoteFleet, local), []
        if hasattr(local, "sums"):
            kind_of_fleet, beside = wired_sums(local, self.ingress, "run")
        if learn.practice.aggregation == "residual":
            beside = CorrectedWeights(local, self.ingress).routes()
        if learn.cache == "server":
            beside = kept_routes(local, self.ingress)
        routes = [
            *beside,
            *operator_routes(self.ingress, self.operators, self.operation),
            *more(self.ingress),
        ]
        self.server = WebServer(application(self.ingress, more=routes), self.dispatch, Listen(port=0))
        self.fleet = kind_of_fleet(
            self.dispatch, self.contracts, itertools.count(1).__next__, notify=self.lines.append, deadline=1e6,
            stats=self.ingress.stats, planner=planner, screen=screen, orders=self.orders,
            event_log=self.log if buffered else None,
        )  # fmt: skip
        if cuts_moved:
            self.fleet.moving = Moving(cuts_moved, self.fleet, self.ingress.job_changed)
        # They draw from torch's one generator, so they are made here and not in the threads.
        self.models = [
            [
                adapted(kind, model_settings=trained or settings_of(options.get("ranks", ()), number))
                for _ in range(lives if number in self.links or cuts_moved else 1)
            ]
            for number in self.contracts
        ]
        self.deaths = 0
        self.address = ""
        """Where devices find the server; at its own port by default."""
        self.lean = set(lean)
        if lean:
            from tests.serve.lean_halves import LeanHalves

            tokens = 17 if is_image(kind) else 10
            ranks = options.get("ranks", ())
            cuts = range(max(options["cuts"]) + 1) if cuts_moved else options["cuts"]
            self.halves = LeanHalves(folder, adapted(kind), cuts, labels, learn, tokens, ranks)

    def described(self, device):
        """Return what names the job to a device; where cuts move, each move makes it another."""
        if self.moved is None:
            return {}
        return {
            "run": "run",
            "cut": self.fleet.local.devices.cuts[device],
            "moved": self.moved.moved(device),
        }

    def run(self):
        """Run the rounds; return the records and the adapters."""
        rounds = self.options["learn"].rounds
        self.server.start()
        with ThreadPoolExecutor(len(self.sizes)) as pool:
            joined = [pool.submit(self.live, number) for number in self.contracts]
            try:
                found = run(self.fleet, state_of(self.model), rounds)
            except Stopped:
                found = None
            finally:
                self.dispatch.end()
            self.rounds = [item.result(60) for item in joined]
        self.server.stop()
        self.log.close()
        if self.lean:
            self.halves.close()
        assert found is not None
        return found

    def live(self, number):
        """Be a device until the run ends, over its deaths; return the rounds it trained in its last life."""
        kind = self.links.get(number, Link)
        link = kind(self.address or f"http://127.0.0.1:{self.server.port}", self.tokens[number], patience=60)
        while True:
            try:
                return until_it_ends(lambda: self.client(number, link), self.lines.append)
            except Died:
                self.deaths += 1
                if self.away:
                    self.stay_away(number)
            except BaseException:
                self.dispatch.stop()  # so that no thread waits for it
                raise
            finally:
                link.close()

    def client(self, number, link):
        """Return a device as a new process would make it, from what the last one wrote down."""
        fleet, file = self.fleet.local.exchange, self.folder / f"device-{number}.safetensors"
        change = self.fleet.local.adapters.bits
        learn, labels, described = self.options["learn"], self.options["labels"], self.described(number)
        cut = described.get("cut", self.options["cuts"][number])
        sampling = self.options.get("sampling", "local")
        job, moved = job_digest(described) if described else "", described.get("moved", 0)
        own = parts_of(self.sizes)[number]
        place = Place(number, "run", 3, own, sampling, not is_image(self.kind), job, moved=moved)
        bits = fleet.bits[number]
        if number in self.lean:
            rank = self.options["ranks"][number] if self.options.get("ranks") else 0
            drop = fleet.guard.drop if fleet.guard else None
            half = self.halves.half(cut, place.own, rows=1 + number, rank=rank, drop=drop)
            exchange = TokenExchange(
                NumpyCoder(fleet.scheme),
                fleet.scheme,
                fleet.seed,
                number,
                half.dim,
                half.float_bits,
                bits,
                change,
                guard=fleet.guard,
            )
        else:
            own, _, its = self.models[number].pop()
            frozen = learn.practice.device_half == "frozen"
            full = isinstance(self.model, FullModel)
            segment = DeviceSegment(own, cut, 1, labels=labels, frozen_half=frozen, full=full)
            half = TorchHalf(segment, cut, learn, its, place.own, fleet.guard, sampling)
            exchange = torch_exchange(half, fleet.scheme, fleet.seed, number, bits, change, fleet.guard)
        adapters = None
        if learn.practice.aggregation == "residual":
            adapters = CorrectedWay(link, frozen_weights(own, segment, cut))
        masked = None
        if privacy := self.options.get("privacy"):
            masked = MaskedWay(link, place, learn, change, len(self.sizes), privacy.secure_threshold)
        # The last one reads its answers while they come.
        streaming = number == len(self.sizes) - 1
        ways = {"adapters": adapters, "masked": masked}
        return Client(link, place, half, learn, exchange, file, streaming=streaming, **ways)

    def stay_away(self, number):
        """Be silent until the round is over."""
        with self.dispatch.locked() as session:
            gone = session.round
            session._heard.pop(number)
        while self.dispatch.session.round == gone and self.dispatch.session.phase is Phase.OPEN:
            time.sleep(0.01)


def simulated(kind, *, selected=None, sizes=SIZES, trained=None, **options):
    """Run the same job in one process; ``selected`` gives the devices of a round, from fleet and round."""
    backbone, model, examples = adapted(kind, model_settings=trained)
    local = local_fleet(backbone, model, examples, parts_of(sizes), **options)
    if selected:
        local.select = partial(selected, local)
    return run(local, state_of(model), options["learn"].rounds)
