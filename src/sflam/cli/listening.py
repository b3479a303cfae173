"""The options of commands whose server listens to devices: where, and by which certificates it and they are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(help="Port to listen on; 0 takes any that is free.")]
Cert = Annotated[Path | None, typer.Option(help="The server's certificate, PEM.")]
Key = Annotated[Path | None, typer.Option(help="Its private key, PEM.")]
ClientCa = Annotated[Path | None, typer.Option(help="Require device certificates of it.")]
ClientCrl = Annotated[
    Path | None, typer.Option(help="Refuse those on this revocation list, PEM; read again as it changes.")
]
Memory = Annotated[int, typer.Option(help="Most MiB of bodies in memory at once.")]
TrustedProxy = Annotated[
    list[str] | None, typer.Option(help="Proxy whose X-Forwarded-For is believed, repeatable.")
]
Insecure = Annotated[bool, typer.Option("--insecure", help="Allow plain HTTP beyond this machine.")]
