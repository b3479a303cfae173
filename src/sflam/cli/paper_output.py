"""What ``study`` prints of a file of several parts: what is to do, and claims with their verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sflam.cli import shared

if TYPE_CHECKING:
    from sflam.paper.paper_file import PaperStudy


def run(study: PaperStudy, out: Path, *, only_list: bool, only: str, jobs: int | None, as_json: bool) -> None:
    """List the parts of a study of papers, or run them, judge the claims and write tables, figures and the page."""
    if only_list:
        _list(study, out, only, as_json)
        return
    from sflam.files import writing
    from sflam.paper.running import HEAD, run_papers
    from sflam.report.terminal.plain_table import plain_table

    with writing(out, "choose another with --out"):
        out.mkdir(parents=True, exist_ok=True)
    with shared.stoppable("the same command goes on where it was"):
        found = run_papers(study, out, only=only, jobs=jobs, on_line=shared.remark)
        written = found.write(out)
    table = plain_table(list(HEAD), left=HEAD, wraps=HEAD[:2] + HEAD[3:4])
    for row in found.rows():
        table.add_row(*row)
    shared.show(as_json, table)
    shared.remark(
        f"wrote {', '.join(map(str, written))}; beside them .tex, .csv, .json, tables.md and figures/"
    )
    shared.show_json(as_json, found.to_dict())
    lines = [f"sflam: {name}: {why}" for name, why in found.failed.items()]
    lines += [f"sflam: {name}: {line}" for name, each in found.outcomes.items() for line in each.failed]
    shared.remark(*lines)
    if lines:
        raise SystemExit(1)


def _list(study: PaperStudy, out: Path, only: str, as_json: bool) -> None:
    from dataclasses import asdict

    from sflam.paper.running import work_of
    from sflam.report.terminal.plain_table import plain_table
    from sflam.report.totals import brief

    found = work_of(study, out, only)
    table = plain_table(["part", "what", "CPU time left, about"], left=("part", "what"), wraps=("what",))
    for item in found:
        states = ", ".join(f"{count} {state}" for state, count in item.states.items() if count)
        table.add_row(
            item.part, item.why or f"{item.what}: {states}", "-" if item.why else brief(item.seconds)
        )
    shared.show(as_json, table)
    shared.remark(f"{len(found)} parts, about {brief(sum(item.seconds for item in found))} of CPU time left")
    shared.show_json(as_json, {"scale": study.scale, "parts": [asdict(item) for item in found]})
