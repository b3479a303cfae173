"""``plan`` and ``profile``: who gets what of a network, and what a machine can do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from sflam import config
from sflam.cli.app import Json, Set, app, status, stderr, stdout


@app.command(
    epilog="Examples:\n\n  sflam plan network.toml --out plans/office\n\n"
    "  sflam plan --scenario refA --devices 50 --latency-weight 0.9 --compare\n\n"
    "  sflam plan network.toml --optimize bits,clock,cut --json\n\n"
    "  sflam plan --scenario refB --users 40 --servers 5 --compare --out plans/edge"
)
def plan(
    file: Annotated[
        Path | None, typer.Argument(help="A TOML network file; the defaults without one.")
    ] = None,
    overrides: Set = None,
    scenario: Annotated[str | None, typer.Option(help="cell, square, refA or refB.")] = None,
    devices: Annotated[int | None, typer.Option("--devices", "--users", help="How many devices.")] = None,
    servers: Annotated[int | None, typer.Option(help="How many servers.")] = None,
    server_flops_per_cycle: Annotated[float | None, typer.Option(help="Of every server.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of every draw.")] = None,
    latency_weight: Annotated[
        float | None, typer.Option(help="Weight of time, 0..1; energy the rest.")
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="The allocator; docs/how-to/choose_allocator.md lists them.")
    ] = None,
    compare: Annotated[bool, typer.Option(help="Plan with all methods: ratio to the optimum.")] = False,
    optimize: Annotated[str | None, typer.Option(help="Choose these too: bits,clock,cut.")] = None,
    subchannels: Annotated[int | None, typer.Option(help="Equal pieces the band comes in.")] = None,
    pareto: Annotated[int, typer.Option(help="Points of the front between time and energy.")] = 0,
    trace: Annotated[str | None, typer.Option(help="CSV or parquet of measured gains or rates.")] = None,
    round_number: Annotated[int, typer.Option("--round", help="Whose fading, or time of the trace.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder for plan.json, plan.csv and pictures.")] = None,
    as_json: Json = False,
) -> None:
    """Give every device its bandwidth, power, clock, bits and cut, and say how far that is from the best.

    Exit code 1 when no plan holds the limits.
    """
    said = {
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
    options = [f"{key}={config.toml_value(value)}" for key, value in said.items() if value is not None]
    job = config.load(file, [*(overrides or []), *options])
    from sflam.planner import cell as planning
    from sflam.report.terminal import plan_table

    with status("planning"):
        found = planning.decide(
            job, compare=compare, points=pareto, round_number=round_number, draw=out is not None
        )
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    screen = stderr if as_json else stdout
    screen.print(plan_table.plan_table(found.plan, found.names, found.title, several=found.several))
    for extra in found.extras:
        screen.print(extra)
    if found.others:
        screen.print(plan_table.methods_table([found.plan, *found.others]))
    if pareto and not as_json:
        screen.print(plan_table.front_table(found.front))
    if out:
        print(f"wrote {', '.join(found.write(out))} to {out}", file=sys.stderr)
    if as_json:
        print(json.dumps(found.to_dict()))
    if not len(found.plan.devices):
        raise SystemExit(1)


@app.command(epilog="Example:\n\n  sflam profile --out mine.toml --power-w 6 --idle-w 3 --rate-mbps 40")
def profile(
    out: Annotated[Path, typer.Option(help="The profile file to write.")] = Path("device.toml"),
    seconds: Annotated[float, typer.Option(help="How long to multiply matrices.")] = 1.0,
    clock_ghz: Annotated[
        float | None, typer.Option(help="Highest clock; the system's word by default.")
    ] = None,
    power_w: Annotated[
        float | None, typer.Option(help="Drawn at full load above idle, from a meter.")
    ] = None,
    idle_w: Annotated[float | None, typer.Option(help="Drawn when idle, from a meter.")] = None,
    rate_mbps: Annotated[float | None, typer.Option(help="Measured rate of the uplink, Mbit/s.")] = None,
    as_json: Json = False,
) -> None:
    """Measure this machine and write the profile that a network file names it by."""
    from sflam.network.benchmark import write_profile

    scaled = {"clock": (clock_ghz, 1e9), "power": (power_w, 1), "idle": (idle_w, 1), "rate": (rate_mbps, 1e6)}
    said = {name: value * unit for name, (value, unit) in scaled.items() if value is not None}
    found = write_profile(out, seconds=seconds, **said)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    screen = stderr if as_json else stdout
    screen.print(f'{found.summary}; use it in a network file: profiles = {{"{out}" = 1}}', markup=False)
    if as_json:
        print(json.dumps(found.numbers | {"out": str(out)}))
