"""``sflam serve``: a job whose devices are reached over a network, in the run folder of any other run."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from starlette.routing import Route

from sflam.config import Job
from sflam.errors import ConfigError, ServeError
from sflam.files import replace_file
from sflam.learn import checkpoint
from sflam.learn.screening import FACTOR, RULES, Screen
from sflam.learn.staleness import BUFFERED
from sflam.learn.world.world import ALONE, World
from sflam.link.enrolment import read_secret
from sflam.printable import printable
from sflam.records.history import RoundRecord
from sflam.records.served_round import trace_csv
from sflam.run import start as jobs
from sflam.run.compatibility import problems_of
from sflam.run.conditions import SERVE
from sflam.run.follow_plan import follow
from sflam.run.run import Run
from sflam.secure.graph import LEAST_DEVICES
from sflam.serve.admission import places_for, raise_file_limit
from sflam.serve.announcement import OWN_FILES, announcement, bundle, describe
from sflam.serve.app import application
from sflam.serve.buffered.buffered_fleet import BufferedRemote
from sflam.serve.buffered.buffered_wiring import paced_dispatch, problems_of_pace
from sflam.serve.certificate_binding import CertificateBinding
from sflam.serve.contracts import contracts_of, tokens_of_rows
from sflam.serve.corrected_weights import CorrectedWeights
from sflam.serve.dispatch import Dispatch
from sflam.serve.event_log import EventLog
from sflam.serve.fleet import RemoteFleet
from sflam.serve.graph_offer import GraphOffer, offer_graphs
from sflam.serve.ingress import Bounds, Ingress
from sflam.serve.join_page import join_page
from sflam.serve.kept_rows import kept_routes
from sflam.serve.live_page import ProgressBoard
from sflam.serve.log_file import LogFile
from sflam.serve.moving_wiring import largest_body, moving_of, problems_of_moves, repartition_of
from sflam.serve.openings import Openings
from sflam.serve.operation import RunOperation
from sflam.serve.operator_routes import operator_routes
from sflam.serve.operators import Operators
from sflam.serve.orders import Orders
from sflam.serve.planning import planner_of
from sflam.serve.probes import SIZE
from sflam.serve.revocation_list import RevocationList
from sflam.serve.roster import Roster
from sflam.serve.round_stats import RoundStats
from sflam.serve.self_enrolment import SelfEnrolment, problems_of_enrolment
from sflam.serve.session import Session
from sflam.serve.several.among import Among
from sflam.serve.stop_signals import stopped_by_signals
from sflam.serve.token_renewal import TokenRenewal
from sflam.serve.trunks.hosted_trunks import HostedTrunks
from sflam.serve.trunks.server_moving import association_of, server_moving_of
from sflam.serve.trunks.trunk_hosts import TrunkHosts
from sflam.serve.trunks.trunk_wiring import TrunkWiring, problems_of_servers, servers_of
from sflam.serve.web_server import Attempts, Listen, WebServer

LINGER = 10.0
"""Most seconds to wait until the devices know that the run has ended."""


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a job is served.

    Attributes:
        listen: where.
        roster: file of the devices that may join.
        quorum: fewest devices whose result a round needs; 0 wants all that take part, None ``fleet.quorum``, or
            three quarters of them.
        deadline: seconds a round may last; None learns it from what rounds took.
        grace: seconds a round goes on once it has its quorum; None ``fleet.grace_s`` with ``fleet.quorum``, or learns
            it from what devices took.
        patience: seconds of silence after which a device counts as absent, and that it has for an exchange.
        gather: seconds a device that never came is waited for.
        memory: most bytes of bodies in memory at once.
        graphs: whether graphs for devices without torch are offered.
        screen: how what devices trained is judged before it is averaged.
        keep: checkpoints that are kept, to go back to.
        browser: whether the page that makes a browser a device is served.
        operators: file of those who may operate the run; None lets none.
        join_secret: file of the secret by which devices enrol themselves; None lets none.
        approve: whether an operator has to approve those.
        token_days: days that a device's renewed token is good for, and of one that enrols itself; None renews none.
        servers: file of the trunk servers that may come, where ``fleet.servers`` names several.
        server_patience: seconds of silence after which a trunk server is gone.
        log: where events go besides the run folder, and requests; None keeps no log of requests.
    """

    listen: Listen
    roster: Path
    quorum: int | None = None
    deadline: float | None = None
    grace: float | None = None
    patience: float = 60.0
    gather: float = 300.0
    memory: int = 1 << 29
    graphs: bool = True
    screen: Screen = field(default_factory=Screen)
    keep: int = 10
    browser: bool = False
    operators: Path | None = None
    join_secret: Path | None = None
    approve: bool = False
    token_days: float | None = None
    servers: Path = Path("servers.json")
    server_patience: float = 10.0
    log: LogFile | None = None

    def check(self, job: Job) -> None:
        """Raise an error, in one line each, for what cannot be served."""
        self.listen.check()
        problems = problems_of(job, SERVE)
        most = job.fleet.asked or job.fleet.devices
        if not 0 <= (self.quorum or 0) <= most:
            problems.append(f"--quorum is {self.quorum}; {most} devices take part in a round")
        if job.privacy.secure_aggregation and 0 < self.fewest(job) < LEAST_DEVICES <= most:
            named = "--quorum" if self.quorum is not None else "fleet.quorum"
            problems.append(
                f"{named} is {self.fewest(job)}; privacy.secure_aggregation = true takes {LEAST_DEVICES} devices a "
                "round, as of a sum of two, either knows the other's: raise it"
            )
        options = {"quorum": self.quorum, "deadline": self.deadline, "grace": self.grace}
        problems += problems_of_pace(job, **options)
        problems += problems_of_servers(job, self.servers, browser=self.browser)
        limits = {"--deadline": self.deadline, "--patience": self.patience}
        for name, value in (limits | {"--server-patience": self.server_patience}).items():
            if value is not None and not value > 0:
                problems.append(f"{name} is {value} s; it must be more than 0")
        if self.screen.rule not in RULES:
            problems.append(f"--outliers is {self.screen.rule!r}; it must be one of {', '.join(RULES)}")
        if not 1 <= self.screen.factor < float("inf"):
            problems.append(
                f"--outlier-factor is {self.screen.factor}; it must be 1 or more, for example {FACTOR:g}"
            )
        if self.keep < 2:
            problems.append(f"--keep is {self.keep}; it must be 2 or more checkpoints")
        if self.browser and not self.graphs:
            problems.append("--browser needs the graphs that --no-graphs leaves out; drop one of the two")
        problems += problems_of_enrolment(
            self.token_days, approve=self.approve, itself=self.join_secret is not None
        )
        problems += problems_of_moves(job, browser=self.browser)
        for name, value in (("--grace", self.grace), ("--gather", self.gather)):
            if value is not None and not value >= 0:
                problems.append(f"{name} is {value} s; it must be 0 or more")
        if problems:
            raise ConfigError(problems)
        if self.join_secret is not None:
            read_secret(self.join_secret)

    def fewest(self, job: Job) -> int:
        """Return the devices whose result a round of a job needs."""
        most = job.fleet.asked or job.fleet.devices
        if self.quorum is None and job.fleet.fewest:
            return job.fleet.fewest
        if self.quorum is None:
            least = LEAST_DEVICES if job.privacy.secure_aggregation else 1
            return max(least, min(most - 1, math.ceil(0.75 * most)))
        return self.quorum or most

    def grace_of(self, job: Job) -> float | None:
        """Return the seconds that a round of a job goes on once it has its quorum; None learns them."""
        return job.fleet.grace_s if self.grace is None and job.fleet.fewest else self.grace


class Served:
    """A run and the server in front of it.

    Args:
        run: started or resumed.
        serving: how it is served.
        notify: shows a line to the user of the server.
        among: the job among others of its process, whose server stands in front of all of them.

    Attributes:
        server: its own, where it is not among others.
        app: what is asked of it.
    """

    server: WebServer

    def __init__(
        self,
        run: Run,
        serving: Serving,
        notify: Callable[[str], None] = lambda line: print(printable(line), file=sys.stderr),
        among: Among | None = None,
    ) -> None:
        notify = among.notify if among else notify
        assembly = run.assembly
        local = assembly.halves
        assert local is not None, "Serving.check lets methods with a cut through"
        folder = run.folder.path / "served"
        folder.mkdir(exist_ok=True)
        stats, name = RoundStats(), among.name if among else ""
        self.event_log = EventLog(run.folder.path / "served.jsonl", more=serving.log, job=name)
        self.run, self.attempts = run, Attempts(folder / "attempt")
        legs = 1 if run.job.model.labels == "server" else 2
        kind: Callable[..., RemoteFleet] = partial(RemoteFleet, local)
        session = Session(serving.fewest(run.job), legs=legs, patience=serving.patience)
        self.dispatch = Dispatch(session, canonical=run.job.learn.canonical)
        if run.job.learn.sync == BUFFERED:
            self.dispatch, kind = paced_dispatch(legs, serving.patience), partial(BufferedRemote, local)
        self.dispatch.session.attempt = 0
        contracts = contracts_of(assembly, local)
        largest = max(contract.largest() for contract in contracts.values())
        if largest > serving.memory:
            raise ServeError(f"one body takes {largest} bytes, but --memory is {serving.memory}; raise it")
        offer = GraphOffer(refused="the server was started with --no-graphs")
        if serving.graphs:
            offer = offer_graphs(assembly, local, folder, tokens_of_rows(assembly)[0])
        if serving.graphs and offer.refused:
            notify(
                f"devices without torch{', browsers too,' if serving.browser else ''} cannot join: {offer.refused}"
            )
        cuts = repartition_of(assembly, folder / "cuts.json", run.records)
        announced = partial(announcement, folder, contracts, cuts)
        roster = Roster(serving.roster)
        orders = Orders(run.folder.path / "orders.json", roster, len(contracts))
        for line in orders.notes():
            notify(line)
        self.ingress = ingress = Ingress(
            dispatch=self.dispatch,
            roster=roster,
            contracts=contracts,
            job=describe(
                assembly, local, self.attempts.run_id(), bundle(assembly, local, folder), offer, announced
            ),
            files={path.name: path for path in folder.iterdir() if path.name not in OWN_FILES},
            bounds=Bounds(serving.memory, max(2 * largest_body(contracts, cuts, run.state), SIZE)),
            stats=stats,
            event_log=self.event_log,
            peers=serving.listen.proxies,
            orders=orders,
        )
        hosts = TrunkHosts(self.dispatch, serving.server_patience, notify, self.event_log)
        trunks = HostedTrunks(local, hosts, stats, serving.gather) if servers_of(run.job) else None
        sum_routes: list[Route] = []
        if run.job.privacy.secure_aggregation:
            from sflam.serve.sums.sum_wiring import wired_sums

            kind, sum_routes = wired_sums(local, ingress, self.attempts.run_id())
        plans = trunks is None and self.dispatch.session.together
        self.fleet = remote = kind(
            self.dispatch,
            contracts,
            self.attempts,
            deadline=serving.deadline,
            grace=serving.grace_of(run.job),
            gather=serving.gather,
            notify=notify,
            stats=stats,
            event_log=self.event_log,
            screen=serving.screen,
            planner=planner_of(assembly, local, folder / "plan.json", notify) if plans else None,
            orders=orders,
            trunks=trunks,
        )
        if run.job.privacy.promises:  # an epsilon counts what was sent before a restart, too
            remote.openings = Openings(run.folder.path / "openings.jsonl")
        servers = association_of(run.job, folder / "association.json", run.records)
        remote.moving = moving_of(cuts, remote, ingress, run.state)
        remote.moving = remote.moving or server_moving_of(servers, remote, trunks)
        remote.learn(run.records)
        run.kept = serving.keep
        run.assembly = replace(assembly, fleet=remote, between=remote.expect_running)
        run.fleet = remote
        self.board = board = ProgressBoard(run.job.learn.rounds, run.records, name)
        pages = join_page(assembly, folder, contracts).routes(ingress) if serving.browser else []
        listen = serving.listen
        CertificateBinding(ingress, self.event_log)
        if listen.client_crl and listen.client_ca:
            lists = RevocationList(listen.client_crl, listen.client_ca, notify, self.event_log)
            ingress.connected.append(lists.look)
        renewal = TokenRenewal(ingress, serving.token_days, self.event_log)
        pages += [*renewal.routes(), *sum_routes]
        if serving.operators is not None:
            operation = RunOperation(self.dispatch, roster, orders, self.event_log, len(contracts))
            operation.renews, operation.cuts, operation.association = renewal.able, cuts, servers
            pages += operator_routes(ingress, Operators(serving.operators), operation)
        if serving.join_secret is not None:
            enrolment = SelfEnrolment(
                ingress,
                serving.join_secret,
                serving.approve,
                notify,
                self.event_log,
                serving.token_days or 30.0,
            )
            pages.append(enrolment.route())
        if trunks:
            wiring = TrunkWiring.of(
                assembly,
                local,
                contracts,
                trunks,
                path=serving.servers,
                folder=folder / "trunk",
                run=self.attempts.run_id(),
            )
            pages += wiring.routes(ingress)
        if run.job.learn.practice.aggregation == "residual":
            pages += CorrectedWeights(local, ingress).routes()
        if run.job.learn.cache == "server":
            pages += kept_routes(local, ingress)
        self.trunks = trunks
        self.app = application(ingress, board, pages)
        if among:
            among.share(ingress)
        else:
            places = places_for(len(contracts), raise_file_limit())
            self.server = WebServer(self.app, self.dispatch, serving.listen, places=places)

    def rounds(self) -> Iterator[RoundRecord]:
        """Listen, and run the rounds not done yet; SIGTERM and SIGINT end it after what is on disk.

        Raises:
            Stopped: it was asked to stop; the run can be resumed.
        """
        self.server.start()
        try:
            with stopped_by_signals(self.dispatch.stop):
                yield from self.conducted()
            self.end()
        except BaseException as error:
            self.give_up(error)
            self.server.stop()
            raise
        self.server.stop(linger=LINGER)

    def conducted(self) -> Iterator[RoundRecord]:
        """Run the rounds not done yet, behind a server that listens."""
        for record in self.run.rounds():
            self._trace()
            yield record

    def end(self) -> None:
        """Let devices and trunk servers know that all rounds are done."""
        self.dispatch.end()
        if self.trunks:
            self.trunks.hosts.wait_informed(LINGER)
        self.event_log("ended", round=len(self.run.records) - 1)

    def give_up(self, error: BaseException) -> None:
        """Take nothing more from devices; they try again until the run is served once more."""
        self.event_log("stopped", reason=str(error)[:300] or type(error).__name__)
        self.dispatch.stop()

    def _trace(self) -> None:
        """Write the rates measured so far where ``sflam plan`` can read them."""
        rounds = [(record.participants, record.measured) for record in self.run.records if record.measured]
        with suppress(OSError):  # it can be made again from the history
            replace_file(self.run.folder.path / "trace.csv", trace_csv(rounds).encode())


def start(
    job: Job, folder: str | Path | None, serving: Serving, world: World = ALONE, among: Among | None = None
) -> Served:
    """Assemble a job and make its folder, ready to be served with ranks that lend memory; raises SflamError."""
    serving.check(job)  # before anything is planned
    job, notes = follow(job)
    serving.check(job)
    run = jobs.start(job, folder, command=SERVE, world=world)
    own = run.assembly.notes
    run.assembly = replace(run.assembly, notes=(*(note for note in notes if note not in own), *own))
    return Served(run, serving, among=among)


def resume(
    folder: str | Path,
    serving: Serving,
    rounds: int | None = None,
    world: World = ALONE,
    among: Among | None = None,
) -> Served:
    """Go on with a served run after a crash, or a stop; with ``rounds``, from where so many were done.

    Raises:
        SflamError: it cannot be; it is then as before.
    """
    run = jobs.resume(folder, rounds=rounds, command=SERVE, world=world)
    serving.check(run.job)
    served = Served(run, serving, among=among)
    if saved := checkpoint.load(run.folder.checkpoints):
        served.fleet.recall(saved["fleet"])
    return served
