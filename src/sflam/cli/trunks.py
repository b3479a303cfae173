"""``trunk``: a server of the blocks behind the cut, for some of the devices of a served run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import listening, shared


def enrol_trunk(name: str, path: Path, days: float | None) -> None:
    """Print a token of a trunk server that is good for ``days``; None revokes it."""
    from sflam.serve.trunks.trunk_roster import TrunkRoster

    roster = TrunkRoster(path)
    if days is None:
        roster.revoke(name)
        return shared.remark(f"revoked {name} in {path}")
    token = roster.enrol(name, days)
    number = roster.entries()[name].number
    shared.remark(f"{name} is server {number} in {path}; its token, shown this once:")
    print(token)


@shared.command(
    "sflam trunk my-laptop.local:8443 --token-file edge-a.token --ca ca.pem --host 0.0.0.0 "
    "--url https://edge-a.local:8444 --cert edge-a.pem --key edge-a.key",
)
def trunk(
    coordinator: Annotated[str, typer.Argument(help="HOST, HOST:PORT or https://HOST:PORT of sflam serve.")],
    token_file: Annotated[
        Path, typer.Option(help="File with the token that sflam enrol NAME --trunk printed.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on, for devices.")] = "127.0.0.1",
    port: listening.Port = 8444,
    url: Annotated[str, typer.Option(help="Where devices reach it; else --host and --port.")] = "",
    cert: Annotated[Path | None, typer.Option(help="Its certificate, PEM, which devices are given.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    ca: Annotated[
        Path | None, typer.Option(help="Authority that signed the coordinator's certificate.")
    ] = None,
    folder: Annotated[Path, typer.Option(help="Downloads of this trunk server.")] = Path("trunk"),
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    memory: listening.Memory = 512,
    patience: Annotated[
        float, typer.Option(help="Seconds without the coordinator before giving up.")
    ] = 600.0,
    plugins: shared.Plugins = None,
    insecure: listening.Insecure = False,
) -> None:
    """Serve the blocks behind the cut to some devices of a served run, as one of its several servers.

    The run is that of sflam serve, with fleet.servers in its job or plan: it says who has which devices, and averages
    what all of them trained. Stopped or killed at any time, its devices go to another trunk server, and come back with
    the next round after it is started again.
    """
    from sflam.link.https_client import Link
    from sflam.link.token import read_trunk_token
    from sflam.serve.installed import expect_installed

    token = read_trunk_token(token_file)
    expect_installed()

    def reach() -> Link:
        return Link(coordinator, token, ca=ca, insecure=insecure, patience=patience, notify=shared.remark)

    reach()  # a wrong address is refused before anything is loaded
    from sflam.serve.trunks.trunk_server import TrunkOffer, serve_trunks
    from sflam.serve.web_server import Listen

    offer = TrunkOffer(
        listen=Listen(host, port, cert, key, insecure=insecure),
        url=url,
        folder=folder,
        device=device,
        plugins=plugins or [],
        memory=memory << 20,
    )
    with shared.stoppable("the same command makes it a trunk server of the run again"):
        rounds = serve_trunks(reach, offer, shared.remark)
    shared.remark(f"the run has ended; this trunk server served {rounds} rounds")
