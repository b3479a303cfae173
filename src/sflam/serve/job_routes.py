"""The routes by which a device learns what is to be done, and fetches its part of the model."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from sflam.errors import Refused
from sflam.serve.ingress import OCTETS, Ingress


def job_routes(ingress: Ingress) -> list[Route]:
    """Return the routes of the job and its files."""

    async def job(request: Request) -> Response:
        return JSONResponse(ingress.job(ingress.device(request)))

    async def file(request: Request) -> Response:
        ingress.device(request)
        path = ingress.files.get(request.path_params["name"])
        if path is None:
            raise Refused(404, f"no such file; there are {', '.join(sorted(ingress.files))}")
        return FileResponse(path, media_type=OCTETS)

    return [ingress.route("/v1/job", "GET", job), ingress.route("/v1/files/{name}", "GET", file)]
