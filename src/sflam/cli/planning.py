"""``plan`` and ``profile``: what each device of a network is given, and what this machine can do."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli import shared
from sflam.errors import ConfigError
from sflam.files import writing


@shared.command(
    "sflam plan network.toml --out plans/office",
    "sflam plan --scenario refA --devices 50 --latency-weight 0.9 --compare",
    "sflam plan network.toml --optimize bits,clock,cut --json",
    "sflam plan --scenario refB --users 40 --servers 5 --compare --out plans/edge",
)
def plan(
    file: Annotated[Path | None, typer.Argument(help="A TOML network file.")] = None,
    overrides: shared.Set = None,
    scenario: Annotated[str | None, typer.Option(help="cell, square, refA or refB.")] = None,
    devices: Annotated[int | None, typer.Option("--devices", "--users", help="How many devices.")] = None,
    servers: Annotated[int | None, typer.Option(help="How many servers.")] = None,
    server_flops_per_cycle: Annotated[float | None, typer.Option(help="FLOP per cycle of a server.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every draw.")] = None,
    latency_weight: Annotated[
        float | None, typer.Option(help="Weight of time, 0 to 1; energy has the rest.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="The allocator; docs/how-to/choose_allocator.md lists them.")
    ] = None,
    compare: Annotated[bool, typer.Option(help="Plan with every method; show ratios to the best.")] = False,
    optimize: Annotated[str | None, typer.Option(help="Also choose these: clock,bits,cut.")] = None,
    subchannels: Annotated[int | None, typer.Option(help="Equal subchannels of the band.")] = None,
    pareto: Annotated[int, typer.Option(help="Number of points of the front between time and energy.")] = 0,
    trace: Annotated[str | None, typer.Option(help="CSV or parquet of measured gains or rates.")] = None,
    round_number: Annotated[
        int, typer.Option("--round", help="Round to draw fading for, or row of the trace.")
    ] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.json, plan.csv and pictures.")] = None,
    export: Annotated[
        list[Path] | None,
        typer.Option(help="Write its rates: FILE.sh for tc, FILE.json for a QoD or slice API; repeatable."),
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Give every device its bandwidth, power, clock, bits and cut, with the gap to the optimum.

    Exit code 1 when no plan holds the limits.
    """
    given = {
        "network.scenario": scenario,
        "network.devices": devices,
        "network.servers": servers,
        "network.server_flops_per_cycle": server_flops_per_cycle,
        "network.trace": trace,
        "seed": seed,
        "plan.latency_weight": latency_weight,
        "plan.method": method,
        "plan.subchannels": subchannels,
        "plan.optimize": None if optimize is None else [word for word in optimize.split(",") if word],
    }
    options = [f"{key}={config.toml_value(value)}" for key, value in given.items() if value is not None]
    job = config.load(file, [*(overrides or []), *options])
    from sflam.planner import cell as planning
    from sflam.report.terminal import plan_table
    from sflam.run.compatibility import check

    check(job, "plan")
    with shared.status("planning"):
        found = planning.decide(
            job, compare=compare, points=pareto, round_number=round_number, draw=out is not None
        )
    shared.notes(found.notes)
    shared.show(as_json, plan_table.plan_table(found.plan, found.names, found.title, several=found.several))
    shared.show(as_json, *found.extras)
    if found.others:
        shared.show(as_json, plan_table.methods_table([found.plan, *found.others]))
    if pareto and not as_json:
        shared.show(as_json, plan_table.front_table(found.front))
    if out:
        shared.remark(f"wrote {', '.join(found.write(out))} to {out}")
    from sflam.planner.exporters import export as export_rates

    for path in export or []:
        export_rates(found.plan, found.names, path)
        shared.remark(f"wrote {path}")
    shared.show_json(as_json, found.to_dict())
    if not len(found.plan.devices):
        raise SystemExit(1)


@shared.command(
    "sflam profile --out mine.toml --power-w 6 --idle-w 3 --rate-mbps 40",
    "sflam profile --from runs/digits-nano-vit-sflam-1 --out next.toml",
)
def profile(
    out: Annotated[
        Path | None, typer.Option(help="The file to write: device.toml, with --from calibrated.toml.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--from", help="A served run: write its job over the network it measured.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Seconds of matrix products to measure.")] = 1.0,
    clock_ghz: Annotated[
        float | None, typer.Option(help="Highest clock, GHz; by default as the system reports.")
    ] = None,
    power_w: Annotated[float | None, typer.Option(help="Power above idle at full load, W.")] = None,
    idle_w: Annotated[float | None, typer.Option(help="Power when idle, W.")] = None,
    rate_mbps: Annotated[float | None, typer.Option(help="Measured rate of the uplink, Mbit/s.")] = None,
    as_json: shared.Json = False,
) -> None:
    """Measure this machine and write the profile that a network file names it by.

    With --from, the rates of a served run's devices, links and server instead: its job, whose network they are.
    """
    if run is not None:
        given = {"--clock-ghz": clock_ghz, "--power-w": power_w, "--idle-w": idle_w, "--rate-mbps": rate_mbps}
        if named := [name for name, value in given.items() if value is not None]:
            raise ConfigError(f"{named[0]} is of this machine, and --from of a run; leave one of them out")
        return _calibrated(run, out or Path("calibrated.toml"), as_json)
    out = out or Path("device.toml")
    from sflam.network.benchmark import write_profile

    scaled = {"clock": (clock_ghz, 1e9), "power": (power_w, 1), "idle": (idle_w, 1), "rate": (rate_mbps, 1e6)}
    measured = {name: value * unit for name, (value, unit) in scaled.items() if value is not None}
    found = write_profile(out, seconds=seconds, **measured)
    shared.notes(found.notes)
    shared.show(as_json, f'{found.summary}; use it in a network file: profiles = {{"{out}" = 1}}')
    shared.show_json(as_json, found.numbers | {"out": str(out)})


def _calibrated(run: Path, out: Path, as_json: bool) -> None:
    """Write the job of a served run over the network that it measured."""
    from sflam.planner.calibration import calibrate_run

    if out.exists():
        raise ConfigError(f"{out} exists already; give another name, or remove it first")
    job, notes = calibrate_run(run)
    with writing(out, "give another path", ConfigError):
        out.write_text(
            f"# The job of {run.name}, over the network that it measured.\n{config.to_toml(job)}", "utf-8"
        )
    shared.notes(notes)
    devices = job.network.device
    up = [device.rate_mbps or 0.0 for device in devices]
    found = f"{len(devices)} devices, {min(up):.3g} to {max(up):.3g} Mbit/s up"
    shared.show(as_json, f"{found}; serve it, plan or simulate: sflam serve {out}")
    shared.show_json(as_json, {"out": str(out), "devices": len(devices), "rate_mbps": up})
