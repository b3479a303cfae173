"""What stands in front of several jobs: ``/jobs/NAME/...`` is the job's own, the rest is about all of them.

The job's part of a path is cut off before the job sees it, as a reverse proxy does, so that a job is asked nothing
that it would not be asked alone. Here are numbers alone, for which no token is needed; tokens are shown to a job.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from sflam.serve.job_metrics import job_metrics
from sflam.serve.live_page import PAGE_HEADERS, TEMPLATES
from sflam.serve.metrics import connection_lines
from sflam.serve.session import Phase
from sflam.serve.several.hosted_job import HostedJob
from sflam.serve.several.job_standing import JobStanding
from sflam.serve.several.labelled import labelled

WHERE = re.compile(r"/jobs/([A-Za-z0-9_-]+)(/.*)?", re.DOTALL)


class FrontDoor:
    """The application in front of several jobs.

    Args:
        jobs: name -> job, in the order in which they were named.
        before: how those stand that had ended before.
    """

    def __init__(self, jobs: Mapping[str, HostedJob], before: Mapping[str, JobStanding]) -> None:
        self.jobs, self.before = jobs, before
        self.own = Starlette(
            routes=[
                Route("/", self._page),
                Route("/metrics", self._metrics),
                Route("/healthz", self._healthz),
                Route("/readyz", self._readyz),
            ]
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request: by its job, or here."""
        if scope["type"] != "http":
            return await self.own(scope, receive, send)
        found = WHERE.fullmatch(scope["path"])
        job = self.jobs.get(found[1]) if found else None
        if found and job and found[2]:
            path = found[2]
            inner = dict(scope, path=path, raw_path=quote(path).encode(), root_path="")
            return await job.served.app(inner, receive, send)
        if found and job and scope["method"] in ("GET", "HEAD"):
            # Relative, so that it is right behind a proxy with a path of its own.
            answer: Response = RedirectResponse(f"{found[1]}/")
        elif found and found[1] in self.before:
            answer = _no_job(410, f"job {found[1]} has ended; this device has nothing more to do for it")
        elif scope["path"].startswith(("/jobs/", "/v1/", "/join")) or scope["path"] == "/jobs":
            listed = ", ".join(f"/jobs/{name}" for name in self.jobs)
            answer = _no_job(404, f"this server has several jobs; add one to its address: {listed}")
        else:
            return await self.own(scope, receive, send)
        await answer(scope, receive, send)

    def standings(self) -> list[JobStanding]:
        """Return how every job stands."""
        return [*self.before.values(), *(job.standing() for job in self.jobs.values())]

    async def _page(self, _: Request) -> Response:
        text = TEMPLATES.get_template("several/front_page.html.jinja").render(jobs=self.standings())
        return Response(text, media_type="text/html; charset=utf-8", headers=PAGE_HEADERS)

    async def _metrics(self, request: Request) -> Response:
        texts = {name: job_metrics(job.served.ingress, job.served.board) for name, job in self.jobs.items()}
        text = labelled(texts) + _states(self.standings())
        connection = getattr(request.state, "connection", None)
        if connection is not None:
            text += "".join(f"{line}\n" for line in connection_lines(connection.admission))
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _healthz(self, _: Request) -> Response:
        states = {name: job.standing().state for name, job in self.jobs.items()}
        well = not all(state in ("failed", Phase.DRAINING.value) for state in states.values())
        return JSONResponse({"ok": well, "jobs": states}, 200 if well else 503)

    async def _readyz(self, _: Request) -> Response:
        found: dict[str, Any] = {}
        for name, job in self.jobs.items():
            dispatch = job.served.dispatch
            with dispatch.looked() as session:
                enough = session.waited_for(dispatch.clock()).enough
                over = session.phase in (Phase.DRAINING, Phase.ENDED)
            if not over:
                found[name] = enough
        ready = all(found.values())
        return JSONResponse({"ready": ready, "jobs": found}, 200 if ready else 503)


def _no_job(status: int, reason: str) -> Response:
    return JSONResponse({"error": reason}, status, {"Connection": "close"})


def _states(standings: list[JobStanding]) -> str:
    lines = [
        "# HELP sflam_job_failed Whether the job is served no more, as it failed.",
        "# TYPE sflam_job_failed gauge",
        *(f'sflam_job_failed{{job="{one.name}"}} {int(one.state == "failed")}' for one in standings),
        "# HELP sflam_job_ended Whether all rounds of the job are done.",
        "# TYPE sflam_job_ended gauge",
        *(f'sflam_job_ended{{job="{one.name}"}} {int(one.state == "ended")}' for one in standings),
    ]
    return "".join(f"{line}\n" for line in lines)
