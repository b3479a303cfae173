"""The trunks of a served run: where they are on servers of their own, what the coordinator needs for that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.routing import Route

from sflam.config import Job
from sflam.learn.split_fleet import LocalFleet
from sflam.link.contract import Contract
from sflam.plan import ALL_LOCAL
from sflam.run.assemble import Assembly
from sflam.serve.ingress import Ingress
from sflam.serve.trunks.hosted_trunks import HostedTrunks
from sflam.serve.trunks.trunk_job import describe_trunk, trunk_files
from sflam.serve.trunks.trunk_roster import TrunkRoster
from sflam.serve.trunks.trunk_routes import trunk_routes


def servers_of(job: Job) -> tuple[int, ...]:
    """Return the servers whose trunks are served apart, ascending; none where one server serves all."""
    return tuple(sorted(set(job.fleet.servers) - {ALL_LOCAL})) if any(job.fleet.servers) else ()


def problems_of_servers(job: Job, path: Path, *, browser: bool) -> list[str]:
    """Return what is wrong with a job of several servers, in one line each.

    Args:
        job: what is to be served.
        path: the file of the trunk servers.
        browser: whether browsers are to join.
    """
    wanted = servers_of(job)
    if not wanted or ALL_LOCAL in job.fleet.servers:  # that is refused as it is
        return []
    problems = []
    if browser:
        problems.append(
            "--browser does not go with fleet.servers: a page speaks to the server that it came from, and to no trunk "
            "server; leave one of the two out"
        )
    entries = [entry for entry in TrunkRoster(path).entries().values() if not entry.revoked]
    if missing := sorted(set(wanted) - {entry.number for entry in entries}):
        known = ", ".join(f"{entry.name} is {entry.number}" for entry in entries) or "none"
        problems.append(
            f"fleet.servers names server {missing[0]}, and {path} has no trunk server of that number ({known}); enrol "
            "it with sflam enrol NAME --trunk"
        )
    return problems


@dataclass(frozen=True, eq=False)
class TrunkWiring:
    """What the coordinator of trunk servers needs.

    Attributes:
        hosted: the trunks.
        roster: who may come.
        job: what a trunk server must know of the job.
        files: what it downloads.
    """

    hosted: HostedTrunks
    roster: TrunkRoster
    job: Mapping[str, Any]
    files: Mapping[str, Path]

    @classmethod
    def of(
        cls,
        assembly: Assembly,
        local: LocalFleet,
        contracts: Mapping[int, Contract],
        hosted: HostedTrunks,
        *,
        path: Path,
        folder: Path,
        run: str,
    ) -> TrunkWiring:
        """Return it for an assembled job; what trunk servers download is written to ``folder``."""
        files = trunk_files(assembly, local, folder, contracts)
        patience = hosted.dispatch.session.patience
        job = describe_trunk(assembly, local, run, files, patience, hosted.hosts.silence)
        return cls(hosted, TrunkRoster(path), job, files)

    def routes(self, ingress: Ingress) -> list[Route]:
        """Return the routes of trunk servers; devices then find theirs in ``GET /v1/round``."""
        ingress.trunk_of = self.hosted.named
        ingress.trunk_servers = self.hosted.hosts.seen
        return trunk_routes(ingress, self.roster, self.hosted, dict(self.job), dict(self.files))
