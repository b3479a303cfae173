"""``answer``: a finished run predicts for devices that hold its first blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import shared


@shared.command(
    "sflam answer runs/digits-nano-vit-sflam-1 --host 0.0.0.0 --cert certs/server.pem --key certs/server.key",
    "sflam answer runs/digits-nano-vit-sflam-1 --bits 4",
)
def answer(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any that is free.")] = 8443,
    roster: Annotated[Path, typer.Option(help="The file of the devices that may ask.")] = Path(
        "devices.json"
    ),
    bits: Annotated[
        int | None,
        typer.Option(help="Bits of every value that comes up, 32 for floats; else those of the run."),
    ] = None,
    cert: Annotated[Path | None, typer.Option(help="The server's certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    client_ca: Annotated[Path | None, typer.Option(help="Require device certificates of it.")] = None,
    client_crl: Annotated[
        Path | None, typer.Option(help="Refuse those on this revocation list, PEM; read again as it changes.")
    ] = None,
    memory: Annotated[int, typer.Option(help="Most MiB of bodies in memory at once.")] = 512,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    trusted_proxy: Annotated[
        list[str] | None, typer.Option(help="Proxy whose X-Forwarded-For is believed, repeatable.")
    ] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow plain HTTP beyond this machine.")
    ] = False,
) -> None:
    """Serve the blocks behind the cut of a finished run, to devices that predict with the blocks before it.

    Devices show the tokens that sflam enrol gave them, and ask with sflam predict --split. Nothing is trained.
    """
    from sflam.serve.installed import expect_installed

    expect_installed()
    from sflam.serve.answers.answering import AnswerServer
    from sflam.serve.peers import Peers
    from sflam.serve.web_server import Listen

    listen = Listen(host, port, cert, key, client_ca, client_crl, insecure, Peers.of(trusted_proxy or []))
    with shared.status("loading the model"):
        server = AnswerServer(
            run_dir, listen, roster, bits=bits, device=device, memory=memory << 20, notify=shared.remark
        )
    shared.notes(server.notes)
    server.start()
    shared.remark(f"listening on {listen.url(server.port)}, predicting with {run_dir}")
    try:
        server.wait()
    finally:
        server.stop()
    shared.remark(f"stopped; {server.predicted} samples were predicted")
