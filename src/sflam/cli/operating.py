"""``operator`` and ``admin``: who may operate a served run, and how they do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import shared
from sflam.cli.listening import Insecure

OPERATORS = Path("operators.json")
Operators = Annotated[Path, typer.Option(help="The file of those who may operate runs.")]


@shared.command(
    "sflam operator alice > alice.token",
    "sflam operator prometheus --watch > prometheus.token",
    "sflam operator alice --revoke",
)
def operator(
    name: Annotated[str, typer.Argument(help="Name of the operator; it is in the log of what was done.")],
    operators: Operators = OPERATORS,
    days: Annotated[float, typer.Option(help="Days until the token expires.")] = 365.0,
    watch: Annotated[
        bool, typer.Option("--watch", help="For looking only: list, and /metrics by name.")
    ] = False,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke the operator's token.")] = False,
) -> None:
    """Let a person or a program operate served runs: print a token, of which only a hash is kept.

    It is no device's token, and opens no path of devices. A known operator gets a new one.
    """
    from sflam.serve.operators import Operators as File

    file = File(operators)
    if revoke:
        file.revoke(name)
        return shared.remark(f"revoked {name} in {operators}")
    token = file.add(name, days, watches=watch)
    shared.remark(f"{name} is an operator in {operators}; its token, shown this once:")
    print(token)


@shared.command(
    "sflam admin my-laptop.local:8443 list --token-file alice.token --ca ca.pem",
    "sflam admin my-laptop.local:8443 drain kitchen-pi hall-pi --token-file alice.token --ca ca.pem",
    "sflam admin my-laptop.local:8443 deadline 600 --token-file alice.token --ca ca.pem",
    "sflam admin my-laptop.local:8443 cut kitchen-pi 1 --token-file alice.token --ca ca.pem",
    "sflam admin my-laptop.local:8443 server kitchen-pi 1 --token-file alice.token --ca ca.pem",
)
def admin(
    server: Annotated[str, typer.Argument(help="HOST, HOST:PORT or https://HOST:PORT.")],
    act: Annotated[
        str,
        typer.Argument(
            help="list, pause, resume, close, deadline, cut, server, approve, drain, undrain, kick, revoke or unbind."
        ),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            help="Names of devices; of deadline, seconds; of cut then blocks, of server its number, or auto."
        ),
    ] = None,
    token_file: Annotated[Path, typer.Option(help="File with the token that sflam operator printed.")] = Path(
        "operator.token"
    ),
    ca: Annotated[Path | None, typer.Option(help="Authority that signed the server's certificate.")] = None,
    cert: Annotated[Path | None, typer.Option(help="This machine's certificate, where required.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    patience: Annotated[float, typer.Option(help="Seconds without an answer before giving up.")] = 20.0,
    insecure: Insecure = False,
    as_json: shared.Json = False,
) -> None:
    """Operate a served run: list shows its devices by name, and what is waited for.

    pause lets the open round end and no other begin, until resume. drain lets devices finish their round and keeps
    them out of the next, until undrain; kick takes them out of the open round at once, revoke for good; approve lets in
    those that enrolled themselves; unbind frees tokens of the certificates that they are bound to. deadline gives the
    open round so many seconds from now, close ends it with what was delivered. cut gives devices so many blocks from
    the next round on (repartition.mode), until cut NAME auto; server gives them a trunk server of that number
    (association.mode), until server NAME auto.
    """
    from sflam.link.https_client import Link
    from sflam.link.operator import ask, request_of
    from sflam.link.token import read_operator_token
    from sflam.report.terminal.devices_table import devices_table, standing_line

    request_of(act, words or [])  # what is missing is reported before anything is asked
    link = Link(
        server,
        read_operator_token(token_file),
        ca=ca,
        certificate=cert,
        key=key,
        insecure=insecure,
        patience=patience,
        notify=shared.remark,
    )
    try:
        found = ask(link, act, words or [])
    finally:
        link.close()
    if act != "list":
        shared.show(as_json, str(found["done"]))
    else:
        shared.show(as_json, standing_line(found), devices_table(found))
    shared.show_json(as_json, found)
