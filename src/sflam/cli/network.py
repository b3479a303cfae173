"""``serve``, ``join``, ``device``, ``enrol`` and ``certs``: a real network."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sflam.cli import listening, shared
from sflam.cli.serving_several import expect_one_process, jobs_of, serve_several
from sflam.errors import ConfigError
from sflam.run.ranks import ranks_running, together

if TYPE_CHECKING:
    from sflam.serve.serve import Served

ROSTER = Path("devices.json")
Roster = Annotated[Path, typer.Option(help="The file of the devices that may join.")]
SERVERS = Path("servers.json")
Servers = Annotated[Path, typer.Option(help="The file of the trunk servers that may come.")]


@shared.command(
    "sflam enrol phone > phone.token",
    "sflam enrol phone --link my-laptop.local:8443",
    "sflam enrol phone --revoke",
    "sflam enrol edge-a --trunk > edge-a.token",
    "sflam enrol --count 50 --out tokens",
    "sflam enrol --names rooms.txt --out tokens",
)
def enrol(
    name: Annotated[str, typer.Argument(help="Name of the device.")] = "",
    roster: Roster = ROSTER,
    days: Annotated[float, typer.Option(help="Days until the token expires.")] = 30.0,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke the device's token.")] = False,
    link: Annotated[str | None, typer.Option(help="Server, HOST:PORT: print a browser's link to it.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Bind the token to this device certificate, PEM; else to its first.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, max=10000, help="Enrol so many new devices: device-001 and so on.")
    ] = None,
    names: Annotated[Path | None, typer.Option(help="Enrol the devices of this file, a name a line.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for NAME.token of many devices.")] = None,
    trunk: Annotated[bool, typer.Option("--trunk", help="Enrol a trunk server, and no device.")] = False,
    servers: Servers = SERVERS,
) -> None:
    """Let a device join: print its token, of which only a hash is kept. A known device gets a new one.

    With --link the token is printed within the link that makes a browser the device, for sflam serve --browser. Many
    devices are enrolled at once by --count or --names, all or none; their tokens go to files that only you can read.
    """
    from sflam.serve.roster import Roster as Devices

    devices = Devices(roster)
    if trunk:
        from sflam.cli.trunks import enrol_trunk

        if not name or link or (count, names, out, certificate) != (None, None, None, None):
            raise ConfigError("a trunk server is enrolled by its name alone: sflam enrol NAME --trunk")
        return enrol_trunk(name, servers, None if revoke else days)
    if count is not None or names is not None or out is not None:
        from sflam.serve.bulk import enrol_many

        which = count if names is None else names
        if name or revoke or link or certificate or None in (which, out) or None not in (count, names):
            raise ConfigError(
                "many devices are enrolled by --count N or --names FILE, with --out FOLDER and without a name"
            )
        assert which is not None and out is not None
        written = enrol_many(devices, which, out, days)
        return shared.remark(f"enrolled {len(written)} devices in {roster}; tokens in {out}")
    if not name:
        raise ConfigError("enrol which device? give its name, or --count N or --names FILE with --out FOLDER")
    if revoke:
        devices.revoke(name)
        return shared.remark(f"revoked {name} in {roster}")
    from sflam.web.pages import join_link

    if link is not None:
        join_link(link, "")  # a wrong address is refused before a token is made
    bound = ""
    if certificate is not None:
        from sflam.serve.peer_certificate import read_certificate

        bound = read_certificate(certificate).key
    token = devices.enrol(name, days, bound)
    number = devices.entries()[name].device
    what = "token" if link is None else "link, which holds its token"
    shared.remark(f"{name} is device {number} in {roster}; its {what}, shown this once:")
    print(token if link is None else join_link(link, token))


@shared.command(
    "sflam certs --host my-laptop.local --host 192.168.1.10",
    "sflam certs --client hall-pi",
    "sflam certs --revoke hall-pi --days 30",
)
def certs(
    host: Annotated[list[str] | None, typer.Option(help="Name or address of the server, repeatable.")] = None,
    client: Annotated[list[str] | None, typer.Option(help="Device to certify; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to write; its authority is used again.")] = Path("certs"),
    days: Annotated[int, typer.Option(help="Days until the certificates, or the list, expire.")] = 365,
    revoke: Annotated[
        list[str] | None, typer.Option(help="Device, or PEM file, whose certificate is revoked; repeatable.")
    ] = None,
    crl: Annotated[bool, typer.Option("--crl", help="Write the revocation list again, as it ends.")] = False,
) -> None:
    """Make a private certificate authority, and certificates for a server and, if wanted, for devices.

    With --revoke or --crl, write crl.pem instead, the authority's list for sflam serve --client-crl.
    """
    from sflam.serve.certificates import make_certificates

    hosts, clients = host or [], client or []
    if revoke or crl:
        from sflam.serve.revoking import revoke_certificates

        if hosts or clients:
            raise ConfigError(
                "--revoke and --crl write the revocation list alone; give them without --host and --client"
            )
        path, count = revoke_certificates(out, revoke or [], days)
        print(f"wrote {path}: {count} certificates are revoked; give it to sflam serve by --client-crl")
        return
    made = make_certificates(out, hosts if hosts or clients else ["localhost", "127.0.0.1"], clients, days)
    names = ", ".join(path.name for path in made)
    print(f"wrote {names} to {out}; devices need ca.pem, keep ca.key to yourself")


@shared.command(
    "sflam serve job.toml --host 0.0.0.0 --cert certs/server.pem --key certs/server.key",
    "sflam serve digits.toml words.toml --out runs/both --cert certs/server.pem --key certs/server.key",
    "sflam serve --resume runs/digits-nano-vit-sflam-1",
    "sflam serve --resume runs/digits-nano-vit-sflam-1 --round 7",
)
def serve(
    jobs: shared.JobFiles = None,
    overrides: shared.Set = None,
    out: shared.RunsOut = None,
    resume: shared.Resume = None,
    host: listening.Host = "127.0.0.1",
    port: listening.Port = 8443,
    roster: Roster = ROSTER,
    cert: listening.Cert = None,
    key: listening.Key = None,
    client_ca: listening.ClientCa = None,
    client_crl: listening.ClientCrl = None,
    quorum: Annotated[
        int | None, typer.Option(help="Fewest devices a round needs: 0 for all, else three quarters of them.")
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Seconds a round may last; else from what rounds took.")
    ] = None,
    grace: Annotated[
        float | None,
        typer.Option(help="Seconds a round goes on after its quorum; else from what devices took."),
    ] = None,
    patience: Annotated[float, typer.Option(help="Seconds of silence before a device is absent.")] = 60.0,
    gather: Annotated[float, typer.Option(help="Seconds a device that never came is waited for.")] = 300.0,
    memory: listening.Memory = 512,
    graphs: Annotated[bool, typer.Option(help="Offer graphs to devices without torch.")] = True,
    outliers: Annotated[
        str,
        typer.Option(help="What becomes of a device that moved far beyond the others: clip, reject or off."),
    ] = "clip",
    outlier_factor: Annotated[float, typer.Option(help="How many times the others' median is far.")] = 2.0,
    keep: Annotated[int, typer.Option(help="Checkpoints kept, to go back to.")] = 10,
    to_round: Annotated[
        int | None, typer.Option("--round", help="With --resume, go back to where so many rounds were done.")
    ] = None,
    browser: Annotated[bool, typer.Option("--browser", help="Let browsers join, by the page /join.")] = False,
    operators: Annotated[
        Path, typer.Option(help="The file of those who may operate the run, by sflam admin.")
    ] = Path("operators.json"),
    join_secret_file: Annotated[
        Path | None, typer.Option(help="Let devices that know this file's one line enrol themselves.")
    ] = None,
    approve: Annotated[
        bool, typer.Option("--approve", help="They wait until sflam admin approves them.")
    ] = False,
    token_days: Annotated[
        float | None,
        typer.Option(help="Devices renew their tokens, each time for so many days; else tokens just end."),
    ] = None,
    servers: Servers = SERVERS,
    server_patience: Annotated[
        float, typer.Option(help="Seconds of silence before a trunk server is gone.")
    ] = 10.0,
    log_file: Annotated[
        Path | None, typer.Option(help="Also log events, and every request of a device, to this file.")
    ] = None,
    log_format: Annotated[str, typer.Option(help="Its lines: json, or text.")] = "json",
    log_max_mb: Annotated[float, typer.Option(help="Its size; five older ones are kept.")] = 50.0,
    plan: shared.FollowedPlan = None,
    trusted_proxy: listening.TrustedProxy = None,
    insecure: listening.Insecure = False,
    ranks: Annotated[
        int | None,
        typer.Option(metavar="N", help='Lend the memory of N processes: model.trunk_weights = "ranks".'),
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Serve a job to devices over a network: the rounds of sflam train, with real devices that sflam join.

    Several jobs are served at one address, each to devices of its own, which join HOST:PORT/jobs/NAME: NAME is that of
    the job file, and the job's roster is devices-NAME.json. What --set and --plan say is for all of them.
    """
    shared.follow_first()
    from sflam.serve.several.names import holds_several

    files = jobs or []
    is_several = len(files) > 1 or (resume is not None and holds_several(resume))
    if len(files) > 1 and resume is None:
        wanted = jobs_of(files, overrides, plan=plan)
    else:
        first = files[0] if files else None
        wanted = {"": shared.run_job(first, overrides, plan=plan, out=out, resume=resume)}
    if is_several:
        expect_one_process(ranks, ranks_running(), to_round, resume)
    if to_round is not None and resume is None:
        raise ConfigError("--round goes back in a run that is there; give it with --resume RUN")
    from sflam.serve.installed import expect_installed

    expect_installed()
    from sflam.learn.screening import Screen
    from sflam.serve import serve as serving
    from sflam.serve.log_file import LogFile
    from sflam.serve.peers import Peers
    from sflam.serve.stop_signals import interrupted_by_sigterm
    from sflam.serve.web_server import Listen

    listen = Listen(host, port, cert, key, client_ca, client_crl, insecure, Peers.of(trusted_proxy or []))
    how = serving.Serving(
        listen=listen,
        roster=roster,
        quorum=quorum,
        deadline=deadline,
        grace=grace,
        patience=patience,
        gather=gather,
        memory=memory << 20,
        graphs=graphs,
        screen=Screen(outliers, outlier_factor),
        keep=keep,
        browser=browser,
        operators=operators,
        join_secret=join_secret_file,
        approve=approve,
        token_days=token_days,
        servers=servers,
        server_patience=server_patience,
        log=None if log_file is None else LogFile(log_file, log_format, log_max_mb),
    )
    with interrupted_by_sigterm(), together(ranks) as world:
        if is_several:
            return serve_several(wanted, out=out, resume=resume, serving=how, as_json=as_json)
        served = (
            serving.resume(resume, how, to_round, world)
            if resume
            else serving.start(wanted[""], out, how, world)
        )
        _run(served, "https" if cert else "http", host, browser, as_json)


def _run(served: Served, scheme: str, host: str, browser: bool, as_json: bool) -> None:
    """Run a served job to its end."""
    from sflam.report.terminal.progress import Progress
    from sflam.serve.fleet import Stopped

    run = served.run
    shared.notes(run.assembly.notes)
    port = served.server.port
    shared.remark(f"listening on {scheme}://{host}:{port}, run folder {run.folder.path}")
    if browser:
        named = "HOST" if host in ("0.0.0.0", "::") else host
        shared.remark(
            f"browsers join by the link that sflam enrol NAME --link {scheme}://{named}:{port} prints"
        )
    with shared.stoppable(
        f"go on with: sflam serve --resume {run.folder.path}", (Stopped, KeyboardInterrupt)
    ):
        with Progress(run.job.learn.rounds, resumed=run.records) as progress:
            for record in served.rounds():
                progress.update(record)
    result = run.finish()
    if result.stopped_round is not None:
        shared.remark(
            f"stopped after round {result.stopped_round} of {run.job.learn.rounds} by learn.stop_after"
        )
    shared.remark(f"run folder: {result.run_dir}")
    shared.show_json(as_json, asdict(result))


@shared.command(
    "sflam join my-laptop.local:8443 --token-file phone.token --ca ca.pem --data mine.npz",
    "sflam join my-laptop.local:8443 --join-secret-file join.secret --name hall-pi --ca ca.pem --data mine.npz",
)
def join(
    server: Annotated[str, typer.Argument(help="HOST, HOST:PORT or https://HOST:PORT.")],
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with the token that sflam enrol printed; else the folder's own."),
    ] = None,
    join_secret_file: Annotated[
        Path | None, typer.Option(help="File with the server's join secret: the device enrols itself.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name to enrol by; else this machine's.")] = "",
    data: Annotated[str | None, typer.Option(help="Own data, or with --share a copy of the job's.")] = None,
    share: Annotated[
        bool,
        typer.Option("--share", help="Take a share of the job's data: of --data, or of a public data set."),
    ] = False,
    column: Annotated[str, typer.Option("--input", help="Array or column that holds the inputs.")] = "",
    label: Annotated[str, typer.Option(help="Array or column that holds the labels.")] = "",
    folder: Annotated[Path, typer.Option(help="Downloads and state of this device.")] = Path("device"),
    ca: Annotated[Path | None, typer.Option(help="Authority that signed the server's certificate.")] = None,
    cert: Annotated[Path | None, typer.Option(help="This device's certificate, where required.")] = None,
    key: Annotated[Path | None, typer.Option(help="Its private key.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "auto",
    patience: Annotated[float, typer.Option(help="Seconds without an answer before giving up.")] = 600.0,
    state_every: Annotated[
        int, typer.Option(min=0, help="Steps after which the state is written; 0: once a round.")
    ] = 1,
    most_memory: Annotated[
        float | None, typer.Option(help="Most MB of memory a job may take; else all there is.")
    ] = None,
    most_disk: Annotated[
        float | None, typer.Option(help="Most MB a job may store; else what is free.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that compute; else all cores.")] = None,
    nice: Annotated[int, typer.Option(min=0, max=19, help="Lower this process's priority by so much.")] = 0,
    plugins: shared.Plugins = None,
    insecure: listening.Insecure = False,
) -> None:
    """Take part in a served job with this machine's own data, until the job ends.

    What is read is named here, with --data or --share, and never by the server.

    Plug-ins that the job uses are given with --plugin: a device never runs code that a server names.

    With --join-secret-file the device enrols itself under a name, and keeps its token in its folder. Afterwards the
    folder alone makes it the same device.

    Killed at any moment, the same command goes on where the device was. With --state-every above 1, or 0, less is
    written, and a device that dies between two states may have to sit the round out.
    """
    from sflam.link.enrolment import credentials
    from sflam.link.enrolment import enrol as let_in
    from sflam.link.https_client import Link
    from sflam.link.own_token import OwnToken

    own = credentials(token_file, join_secret_file, name, folder)
    link = Link(
        server,
        own.token,
        ca=ca,
        certificate=cert,
        key=key,
        insecure=insecure,
        own=OwnToken(own.file, own.token, shared.remark),
        patience=patience,
        notify=shared.remark,
    )
    if nice:
        os.nice(nice)
    from sflam.link.limits import MEGABYTE, Limits
    from sflam.serve.join import join as take_part

    limits = Limits(*(None if most is None else int(most * MEGABYTE) for most in (most_memory, most_disk)))
    with shared.stoppable("the same command goes on where this device was"), limits.enforced():
        let_in(link, own, shared.remark)
        rounds = take_part(
            link,
            data,
            folder,
            share=share,
            column=column,
            label=label,
            device=device,
            plugins=plugins or [],
            state_every=state_every,
            limits=limits,
            threads=threads,
            notify=shared.remark,
        )
    shared.remark(f"the job has ended; this device trained {rounds} rounds")


@shared.app.command(
    add_help_option=False, context_settings={"allow_extra_args": True, "ignore_unknown_options": True}
)
def device(context: typer.Context) -> None:
    """Take part in a served job without torch, within a limit of memory; sflam device --help lists the options."""
    from sflam.device.cli import main

    raise SystemExit(main(context.args))
