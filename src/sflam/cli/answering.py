"""``answer``: a finished run predicts for devices that hold its first blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import listening, shared


@shared.command(
    "sflam answer runs/digits-nano-vit-sflam-1 --host 0.0.0.0 --cert certs/server.pem --key certs/server.key",
    "sflam answer runs/digits-nano-vit-sflam-1 --bits 4",
)
def answer(
    run_dir: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    host: listening.Host = "127.0.0.1",
    port: listening.Port = 8443,
    roster: Annotated[Path, typer.Option(help="The file of the devices that may ask.")] = Path(
        "devices.json"
    ),
    bits: Annotated[
        int | None,
        typer.Option(help="Bits of every value that comes up, 32 for floats; else those of the run."),
    ] = None,
    cert: listening.Cert = None,
    key: listening.Key = None,
    client_ca: listening.ClientCa = None,
    client_crl: listening.ClientCrl = None,
    memory: listening.Memory = 512,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    trusted_proxy: listening.TrustedProxy = None,
    insecure: listening.Insecure = False,
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
