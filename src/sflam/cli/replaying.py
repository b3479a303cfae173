"""``replay``: a run that was trained, over another network or with another plan."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import shared
from sflam.errors import ConfigError


@shared.command(
    "sflam replay runs/digits-nano-vit-sflam-1 --set network.bandwidth_mhz=5 --set plan.method=equal",
    "sflam replay runs/mine --set plan.latency_weight=0.9 --set network.access=airtime --out runs/mine-wifi --json",
)
def replay(
    run: Annotated[Path, typer.Argument(help="Folder of a finished sflam simulate.")],
    overrides: shared.Set = None,
    out: Annotated[
        Path | None, typer.Option(help="Write this folder, a finished run with the new charges.")
    ] = None,
    train: Annotated[
        bool,
        typer.Option("--train", help="Train a buffered run again from its trace, and compare its adapters."),
    ] = False,
    as_json: shared.Json = False,
) -> None:
    """Charge a simulated run anew: its rounds as they were trained, over another network or with another plan.

    Takes seconds, since nothing is trained: only settings of [network] and [plan] may change, and a plan that would
    have trained other devices, cuts or bits is refused. The charges are those that sflam simulate would give.

    A buffered run, simulated or served, cannot be charged anew, but made again: with --train its updates are trained as
    its history has them, and the adapters are compared with those that the run has.
    """
    if train:
        _train(run, overrides or [], out, as_json)
        return
    with shared.status("loading the run"):
        from sflam.records.run_folder import RunFolder
        from sflam.report.terminal.replay_table import replay_table
        from sflam.report.totals import totals
        from sflam.run.replay import Recording

        recording = Recording(run)
        job = recording.job_with(overrides or [])
        if out:
            RunFolder(out).expect_free()
        records = recording.charged(job)
    shared.show(as_json, replay_table(recording.records, records, title=run.name))
    if out:
        recording.write(job, records, out)
        shared.remark(f"run folder: {out} (curves.png, history.jsonl, ...)")
    shared.show_json(
        as_json,
        {"recorded": asdict(totals(recording.records)), "replayed": asdict(totals(records))},
    )


def _train(run: Path, overrides: list[str], out: Path | None, as_json: bool) -> None:
    """Train a buffered run again from its trace, and show how far its adapters are from the run's."""
    if overrides or out:
        raise ConfigError("--train makes the run again as it was; leave --set and --out out")
    with shared.status("training the run again from its trace"):
        from sflam.run.retrace import retrace

        found = retrace(run)
    same = "bit for bit" if not found.difference else f"but for {found.difference:.3g} at most"
    shared.show(as_json, f"{len(found.records)} versions made again: the adapters are the run's, {same}")
    apart = found.difference if math.isfinite(found.difference) else None  # JSON has no inf
    shared.show_json(as_json, {"versions": len(found.records), "difference": apart})
