"""``theory``: the bound on convergence under quantization beside what a run's gradients did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sflam.cli import shared
from sflam.errors import RunError


@shared.command(
    "sflam theory runs/digits-nano-vit-sflam-1",
    "sflam theory runs/mine --every 5 --batches 16 --out theory --json",
)
def theory(
    run: Annotated[Path, typer.Argument(help="Run folder, of sflam train, simulate or serve.")],
    every: Annotated[int, typer.Option(help="Rounds between two measurements.")] = 1,
    batches: Annotated[
        int, typer.Option(help="Mini-batches of every device in a measurement; each takes three passes.")
    ] = 8,
    out: Annotated[
        Path | None, typer.Option(help="Folder for theory.json and theory.png; by default the run's.")
    ] = None,
    as_json: shared.Json = False,
) -> None:
    """Train a run once more, measure its gradients on the way, and draw the bound on convergence beside them.

    Every constant of the bound is measured: smoothness, variance, what quantization adds to it, and its bias. A table
    says what other widths would mean: the rounds they cost, and the fewest bits whose bias is small.
    """
    with shared.status("loading model and data"):
        from sflam.report.charts.theory import draw_theory
        from sflam.report.terminal.tally import Tally
        from sflam.report.terminal.theory_table import theory_table
        from sflam.run.theory import theory_of

    with Tally("round") as tally:
        found = theory_of(run, every=every, batches=batches, seen=tally.count)
    title = f"{run.name}: measured every {every} rounds" if every > 1 else f"{run.name}: measured every round"
    shared.show(as_json, theory_table(found, title))
    shared.write(out or run, "theory", found, draw_theory(found, title=title), RunError)
    shared.show_json(as_json, found)
