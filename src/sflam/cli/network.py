"""``serve``, ``join``, ``enrol`` and ``certs``: a real network."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli.app import Json, Set, app
from sflam.errors import ConfigError

ROSTER = Path("devices.json")
Roster = Annotated[Path, typer.Option(help="The file of the devices that may join.")]
Insecure = Annotated[bool, typer.Option("--insecure", help="Plain HTTP beyond this machine.")]


@app.command(epilog="Example:\n\n  sflam enrol phone > phone.token\n\n  sflam enrol phone --revoke")
def enrol(
    name: Annotated[str, typer.Argument(help="What to call the device.")],
    roster: Roster = ROSTER,
    days: Annotated[float, typer.Option(help="How long the token is good.")] = 30.0,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the device's token back.")] = False,
) -> None:
    """Let a device join: print its token, of which only a hash is kept. A known device gets a new one."""
    from sflam.serve.roster import Roster as Devices

    devices = Devices(roster)
    if revoke:
        devices.revoke(name)
        print(f"revoked {name} in {roster}", file=sys.stderr)
        return
    token = devices.enrol(name, days)
    number = devices.entries()[name].device
    print(f"{name} is device {number} in {roster}; its token, shown this once:", file=sys.stderr)
    print(token)


@app.command(epilog="Example:\n\n  sflam certs --host my-laptop.local --host 192.168.1.10")
def certs(
    host: Annotated[
        list[str] | None, typer.Option(help="Name or address of the server; may be repeated.")
    ] = None,
    client: Annotated[list[str] | None, typer.Option(help="Device to certify; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write; an authority in it is used again.")] = Path(
        "certs"
    ),
    days: Annotated[int, typer.Option(help="How long the certificates are good.")] = 365,
) -> None:
    """Make a private certificate authority, and certificates for a server and, if wanted, for devices."""
    from sflam.serve.certificates import make_certificates

    hosts, clients = host or [], client or []
    made = make_certificates(out, hosts if hosts or clients else ["localhost", "127.0.0.1"], clients, days)
    print(
        f"wrote {', '.join(path.name for path in made)} to {out}; devices need ca.pem, nobody needs your ca.key"
    )


@app.command(
    epilog="Examples:\n\n  sflam serve job.toml --host 0.0.0.0 --cert certs/server.pem --key certs/server.key\n\n"
    "  sflam serve --resume runs/digits-nano-vit-sflam-1"
)
def serve(
    job: Annotated[
        Path | None, typer.Argument(help="A TOML job file; the bundled default without one.")
    ] = None,
    overrides: Set = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to write; runs/... by default.")] = None,
    resume: Annotated[
        Path | None, typer.Option(help="Run folder to go on with after a stop or a crash.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes any that is free.")] = 8443,
    roster: Roster = ROSTER,
    cert: Annotated[Path | None, typer.Option(help="The server's certificate, PEM.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key, PEM.")] = None,
    client_ca: Annotated[
        Path | None, typer.Option(help="Devices must show a certificate of this one.")
    ] = None,
    quorum: Annotated[int, typer.Option(help="Fewest devices a round needs; 0 wants all of them.")] = 0,
    deadline: Annotated[float, typer.Option(help="Seconds a round may last.")] = 3600.0,
    patience: Annotated[float, typer.Option(help="Seconds of silence before a device is absent.")] = 60.0,
    memory: Annotated[int, typer.Option(help="Most MiB of bodies in memory at once.")] = 512,
    plan: Annotated[
        str | None, typer.Option(help="Follow a plan.json of sflam plan, or computed: plan now.")
    ] = None,
    insecure: Insecure = False,
    as_json: Json = False,
) -> None:
    """Serve a job to devices over a network: the rounds of sflam train, with real devices that sflam join."""
    if resume and (job or overrides or out or plan):
        raise ConfigError(
            "--resume goes on with a run as it was; leave out the job file, --set, --out and --plan"
        )
    planned = [] if plan is None else [f"fleet.plan={config.toml_value(plan)}"]
    wanted = config.load(job, [*(overrides or []), *planned])
    from sflam.serve.installed import expect_installed

    expect_installed()
    from sflam.report.terminal.progress import Progress
    from sflam.serve import serve as serving
    from sflam.serve.fleet import Stopped
    from sflam.serve.web_server import Listen

    listen = Listen(host, port, cert, key, client_ca, insecure)
    how = serving.Serving(
        listen=listen, roster=roster, quorum=quorum, deadline=deadline, patience=patience, memory=memory << 20
    )
    served = serving.resume(resume, how) if resume else serving.start(wanted, out, how)
    run = served.run
    for note in run.assembly.notes:
        print(f"note: {note}", file=sys.stderr)
    scheme = "https" if cert else "http"
    print(
        f"listening on {scheme}://{host}:{served.server.port}, run folder {run.folder.path}",
        file=sys.stderr,
        flush=True,
    )
    try:
        with Progress(run.job.learn.rounds, resumed=run.records) as progress:
            for record in served.rounds():
                progress.update(record)
    except Stopped:
        print(f"stopped; go on with: sflam serve --resume {run.folder.path}", file=sys.stderr)
        raise SystemExit(130) from None
    result = run.finish()
    print(f"run folder: {result.run_dir}", file=sys.stderr)
    if as_json:
        print(json.dumps(asdict(result)))


@app.command(
    epilog="Example:\n\n  sflam join my-laptop.local:8443 --token-file phone.token --ca ca.pem --data mine.npz"
)
def join(
    server: Annotated[str, typer.Argument(help="HOST, HOST:PORT or https://HOST:PORT.")],
    token_file: Annotated[Path, typer.Option(help="File with the token that sflam enrol printed.")],
    data: Annotated[
        str | None, typer.Option(help="This device's data; without it, its share of the job's own data.")
    ] = None,
    column: Annotated[str, typer.Option("--input", help="Array or column that holds the inputs.")] = "",
    label: Annotated[str, typer.Option(help="Array or column that holds the labels.")] = "",
    folder: Annotated[Path, typer.Option(help="Keeps the downloads, and where this device is.")] = Path(
        "device"
    ),
    ca: Annotated[Path | None, typer.Option(help="Authority that signed the server's certificate.")] = None,
    cert: Annotated[Path | None, typer.Option(help="This device's certificate, where asked for.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    patience: Annotated[float, typer.Option(help="Seconds without an answer before giving up.")] = 600.0,
    insecure: Insecure = False,
) -> None:
    """Take part in a served job with this machine's own data, until the job ends."""
    from sflam.link.https_client import Link
    from sflam.serve.roster import read_token

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    token = read_token(token_file)
    link = Link(
        server, token, ca=ca, certificate=cert, key=key, insecure=insecure, patience=patience, tell=tell
    )
    from sflam.serve.join import join as take_part

    try:
        rounds = take_part(link, data, folder, column=column, label=label, device=device, tell=tell)
    except KeyboardInterrupt:
        print("stopped; the same command goes on where this device was", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"the job has ended; this device trained {rounds} rounds", file=sys.stderr)
