"""The routes by which a browser becomes a device: the page, what it must know of the job, and its share of the digits.

The page's files hold no secret and need no token; all else does.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from sflam.data.dataset import Dataset
from sflam.data.images import ImageSpec
from sflam.errors import Refused
from sflam.files import from_json
from sflam.link.contract import Contract
from sflam.run.assemble import Assembly
from sflam.serve.ingress import OCTETS, Ingress
from sflam.web.page_job import PageJob
from sflam.web.pages import HEADERS, PageFile, page_files

PUBLIC = "digits"
"""Data that comes with sflam: of it alone devices get their share from the server."""


@dataclass(frozen=True)
class JoinPage:
    """What browsers are served.

    Attributes:
        job: what they must know of it.
        files: path -> file of the page.
        data: the samples that devices share, where they are public; else None.
        parts: the samples of each device.
    """

    job: PageJob
    files: Mapping[str, PageFile]
    data: Dataset | None
    parts: tuple[NDArray[np.int64], ...]

    def routes(self, ingress: Ingress) -> list[Route]:
        """Return the routes."""

        async def file(request: Request) -> Response:
            found = self.files.get(request.url.path.removeprefix("/"))
            if found is None:
                raise Refused(404, "the page has no such file")
            return Response(found.body, media_type=found.media, headers=HEADERS)

        async def job(request: Request) -> Response:
            device = ingress.device(request)
            share = None if self.data is None else len(self.parts[device])
            return JSONResponse(self.job.described(share) | ingress.named(device))

        async def share(request: Request) -> Response:
            device = ingress.device(request)
            if self.data is None:
                raise Refused(404, "the server gives out no samples of this job; bring your own")
            return Response(_npz(self.data, self.parts[device]), media_type=OCTETS)

        return [
            ingress.route("/join", "GET", file),
            ingress.route("/join/static/{path:path}", "GET", file),
            ingress.route("/join/job", "GET", job),
            ingress.route("/join/share", "GET", share),
        ]


def join_page(assembly: Assembly, folder: Path, contracts: Mapping[int, Contract]) -> JoinPage:
    """Return what browsers are served of a job, whose model is described by the files in ``folder``."""
    job, shared = assembly.job, assembly.shared
    image = assembly.splits.train.kind == "image"
    config = from_json((folder / "config.json").read_bytes())
    public = image and job.data.name == PUBLIC
    height, width = shared.train.inputs.shape[1:3] if public else (0, 0)
    sent = PageJob(
        job=job,
        image=ImageSpec.from_folder(folder, config) if image else None,
        vocabulary=0 if image else int(config["vocab_size"]),
        longest=0 if image else contracts[0].tokens,
        drawn=(int(height), int(width)) if public else None,
    )
    return JoinPage(sent, page_files(), shared.train if public else None, assembly.parts)


def _npz(data: Dataset, own: NDArray[np.int64]) -> bytes:
    """Return samples as an .npz file: ``image`` uint8 [n, H, W, C], and ``label``, the names of their classes [n]."""
    body = io.BytesIO()
    np.savez(body, image=data.inputs[own], label=np.array(data.classes)[data.labels[own]])
    return body.getvalue()
