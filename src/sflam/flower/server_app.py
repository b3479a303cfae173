"""The ServerApp: the trunk beside it serves the rounds whose nodes and averages are Flower's."""

from __future__ import annotations

import logging
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg, Strategy

from sflam.config import Job
from sflam.errors import ConfigError, SflamError
from sflam.flower.app_config import AppConfig, read
from sflam.flower.node_places import NodePlaces
from sflam.flower.nodes import NodeSummons
from sflam.flower.round_order import RoundOrder
from sflam.flower.strategy_averaging import StrategyAveraging, trained_names
from sflam.run.compatibility import problems_of
from sflam.run.conditions import FLOWER, SERVE
from sflam.serve import serve
from sflam.serve.certificates import make_certificates
from sflam.serve.roster import Roster
from sflam.serve.web_server import Listen

LOG = logging.getLogger("flwr")


def server_app(strategy: Strategy | None = None) -> ServerApp:
    """Return the ServerApp of a Flower app that trains a split model.

    Args:
        strategy: chooses nodes and averages adapters; FedAvg over all nodes by default.
    """

    def main(grid: Grid, context: Context) -> None:
        try:
            how, job = read(context.run_config)
            train(grid, how, job, strategy or plain(), Path(how.folder or f"runs/flower-{context.run_id}"))
        except SflamError as error:
            LOG.error("%s", error)
            raise

    app = ServerApp()
    app.main()(main)
    return app


def plain() -> Strategy:
    """Return FedAvg over all nodes: the average of ``sflam train``."""
    return FedAvg(min_train_nodes=1, min_available_nodes=1, fraction_evaluate=0.0)


def train(grid: Grid, how: AppConfig, job: Job, strategy: Strategy, folder: Path) -> None:
    """Train a job over the nodes of a grid, in ``folder``; raises SflamError where that cannot be."""
    if not how.resume:
        _expect_fit(job)  # before anything is written
    certificates, roster = folder / "certs", folder / "devices.json"
    make_certificates(certificates, [how.name])
    serving = serve.Serving(
        listen=Listen(how.host, how.port, certificates / "server.pem", certificates / "server.key"),
        roster=roster,
        quorum=how.quorum,
        patience=how.patience,
        gather=how.gather,
        graphs=False,
    )
    run = folder / "run"
    if how.resume:
        served = serve.resume(run, serving)
        _expect_fit(served.run.job)
        LOG.info("going on with the job of %s, whatever the app's configuration says of it", run.resolve())
    else:
        served = serve.start(job, run, serving)
    for note in served.run.assembly.notes:
        LOG.info("%s", note)
    summons = _summoned(grid, strategy, how, served, folder)
    LOG.info("the trunk listens at %s, run folder %s", _address(how, served), run.resolve())
    try:
        for record in served.rounds():
            score = "" if record.accuracy is None else f", accuracy {record.accuracy:.4f}"
            LOG.info("round %d: loss %.4f%s", record.round + 1, record.loss, score)
    finally:
        summons.close()
    served.run.finish()
    LOG.info("wrote %s", run.resolve())


def _expect_fit(job: Job) -> None:
    """Raise ConfigError with all that keeps a job from Flower, or from any network."""
    if problems := [*problems_of(job, SERVE), *problems_of(job, FLOWER)]:
        raise ConfigError(problems)


def _address(how: AppConfig, served: serve.Served) -> str:
    """Return where nodes reach the trunk."""
    return how.address or f"{how.host}:{served.server.port}"


def _summoned(
    grid: Grid, strategy: Strategy, how: AppConfig, served: serve.Served, folder: Path
) -> NodeSummons:
    """Let a grid's nodes be the devices of a served run, and the strategy average what they trained."""
    fleet, job = served.fleet, served.run.job
    local = fleet.local
    names = trained_names(local, served.run.assembly.state)
    summons = NodeSummons(
        grid,
        strategy,
        NodePlaces(folder / "nodes.json", job.fleet.devices),
        served.ingress,
        order=_Orders(Roster(folder / "devices.json"), job.fleet.devices, _address(how, served), folder),
        bodies=fleet.start.bodies,
        names=names,
        gather=how.gather,
        fewest=min(served.dispatch.session.quorum, job.fleet.devices),
    )
    fleet.summons = summons
    local.averaging = StrategyAveraging(local, strategy, summons, names)
    return summons


class _Orders:
    """Orders with a token for every device; another node in its place gets another token."""

    def __init__(self, roster: Roster, count: int, address: str, folder: Path) -> None:
        self.roster, self.address = roster, address
        self.certificate = (folder / "certs/server.pem").read_text(encoding="utf-8")
        self._names = [f"device-{device}" for device in range(count)]
        tokens = roster.enrol_all(self._names)
        self._tokens = {device: tokens[name] for device, name in enumerate(self._names)}
        self._nodes: dict[int, int] = {}

    def __call__(self, device: int, node: int, round: int) -> RoundOrder:
        if self._nodes.setdefault(device, node) != node:
            self._nodes[device] = node
            self._tokens[device] = self.roster.enrol(self._names[device])
        return RoundOrder(self.address, self.certificate, self._tokens[device], round)
