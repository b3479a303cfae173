"""Runs every part of a study of papers, judges its claims, and writes tables, figures, JSON and the page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from sflam.errors import ConfigError, SflamError
from sflam.files import replace_file, writing
from sflam.paper.claim import Claim, JudgedClaim, judged
from sflam.paper.paper_file import PaperStudy
from sflam.paper.part import OnLine, Outcome, Part, PartWork, ignore_line
from sflam.report.charts.figure import draw, save_all
from sflam.report.pages.claims import PartShown, claims_page
from sflam.report.pages.inline import charts
from sflam.report.plus_minus import plus_minus
from sflam.report.tables import csv_text, write_tables, write_text

HEAD = ("paper", "claim", "number", "measured here", "verdict")
SIGNS = {"difference": "{a} - {b}", "ratio": "{a} / {b}", "reduction": "1 - {a} / {b}"}


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a study of papers found.

    Attributes:
        study: what was asked for.
        findings: one for each claim.
        outcomes: part -> what it measured; without those that could not be run.
        failed: part -> why it could not be run.
    """

    study: PaperStudy
    findings: tuple[JudgedClaim, ...]
    outcomes: Mapping[str, Outcome]
    failed: Mapping[str, str]

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row per claim for people, under ``HEAD``."""
        return [
            (
                f"{item.claim.paper}, {item.claim.where}",
                item.claim.says,
                shown(item.claim, item.claim.number),
                item.why if item.measured is None else shown(item.claim, item.measured.to_dict()),
                item.verdict.value,
            )
            for item in self.findings
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON, SI units."""
        claims = [
            {
                "paper": item.claim.paper,
                "where": item.claim.where,
                "says": item.claim.says,
                "quantity": described(item.claim),
                "wants": item.claim.wants,
                "order": None if item.claim.reason else item.claim.turns,
                "number": item.claim.number,
                **(
                    dict.fromkeys(("mean", "low", "high", "n"))
                    if item.measured is None
                    else item.measured.to_dict()
                ),
                "verdict": item.verdict.value,
                "why": item.why,
            }
            for item in self.findings
        ]
        parts = {
            name: {arm: dict(own) for arm, own in each.measured.items()}
            for name, each in self.outcomes.items()
        }
        return {
            "title": self.study.title,
            "scale": self.study.scale,
            "claims": claims,
            "parts": parts,
            "failed": dict(self.failed),
        }

    def write(self, folder: Path) -> list[Path]:
        """Write ``claims.md``, ``.tex``, ``.csv``, ``.json``, a table and figures per part, and ``study.html``.

        Returns:
            The page and the tables.

        Raises:
            RunError: something cannot be written.
        """
        found = self.to_dict()
        caption = f"{self.study.title}: claims and what was measured; ±: 95 % confidence interval over seeds"
        write_tables(folder, "claims", {caption: (HEAD, self.rows())})
        write_text(folder / "claims.csv", csv_text(found["claims"]))
        with writing(folder, "choose another with --out"):
            replace_file(folder / "claims.json", (json.dumps(found, indent=1) + "\n").encode())
            (folder / "figures").mkdir(exist_ok=True)
        titles = {part.name: part.title for part in self.study.parts}
        tables = {
            f"{titles[name]}. {each.caption}": (each.head, each.rows) for name, each in self.outcomes.items()
        }
        write_tables(folder, "tables", tables)
        for each in self.outcomes.values():
            for name, drawn in each.figures.items():
                save_all(draw(drawn.panels, note=drawn.note), folder / "figures" / name)
        page = claims_page(
            title=self.study.title,
            scale=self.study.scale,
            verdicts=[item.verdict.value for item in self.findings],
            head=HEAD,
            rows=self.rows(),
            parts=[
                PartShown(
                    title=titles[name],
                    caption=each.caption,
                    head=each.head,
                    rows=each.rows,
                    charts=[chart for drawn in each.figures.values() for chart in charts(*drawn)],
                    failed=each.failed,
                )
                for name, each in self.outcomes.items()
            ],
            failed=self.failed,
        )
        write_text(folder / "study.html", page)
        return [folder / "study.html", folder / "claims.md"]


def run_papers(
    study: PaperStudy,
    folder: Path,
    *,
    only: str = "",
    jobs: int | None = 1,
    on_line: OnLine = ignore_line,
) -> Findings:
    """Run what is not there yet of every part, each in its folder, and judge the claims.

    A part that cannot be run leaves its claims unmeasured, with the reason.

    Args:
        study: parts and claims.
        folder: holds a folder per part.
        only: a pattern of parts' names; the claims of the others are not measured.
        jobs: runs at once; see :func:`sflam.compare.comparison.run_study`.
        on_line: called with lines of progress.

    Raises:
        ConfigError: no part has such a name, or a claim names an arm or metric that its part has not.
    """
    outcomes: dict[str, Outcome] = {}
    failed: dict[str, str] = {}
    for part in chosen(study, only):
        try:
            outcomes[part.name] = part.run(folder / part.place, on_line, jobs)
        except SflamError as error:
            failed[part.name] = " ".join(str(error).split())
            on_line(f"{part.name}: {failed[part.name]}")
    findings = []
    for claim in study.claims:
        outcome = outcomes.get(claim.part)
        why = failed.get(claim.part, f"part {claim.part} was not run")
        findings.append(judged(claim, None if outcome is None else outcome.measured, why))
    return Findings(study=study, findings=tuple(findings), outcomes=outcomes, failed=failed)


def work_of(study: PaperStudy, folder: Path, only: str = "") -> list[PartWork]:
    """Return what every part still has to do, and which of them cannot be run here."""
    found = []
    for part in chosen(study, only):
        try:
            found.append(part.work(folder / part.place))
        except SflamError as error:
            found.append(PartWork(part=part.name, why=" ".join(str(error).split())))
    return found


def chosen(study: PaperStudy, only: str) -> Sequence[Part]:
    """Return the parts whose names fit a pattern; raises ConfigError where none does."""
    pattern = only if set(only) & set("*?[") else f"*{only}*"
    found = [part for part in study.parts if fnmatchcase(part.name, pattern)]
    if not found:
        named = ", ".join(part.name for part in study.parts)
        raise ConfigError(f"--only {only!r} is in the name of no part; give one of {named}")
    return found


def described(claim: Claim) -> str:
    """Return a claim's quantity in words."""
    if claim.reason:
        return ""
    arms = ", ".join(claim.arms)
    if claim.quantity in SIGNS:
        return f"{claim.metric}: {SIGNS[claim.quantity].format(a=arms, b=claim.against)}"
    if claim.quantity == "trend":
        return f"{claim.metric}: rank correlation along {arms}"
    return f"{claim.metric} of {arms}"


def shown(claim: Claim, value: Mapping[str, Any] | float | None) -> str:
    """Return a value of a claim's quantity for people; ``-`` where there is none."""
    if value is None:
        return "-"
    if claim.quantity == "reduction":
        return plus_minus(value, "%")
    if claim.quantity in ("ratio", "trend"):
        return plus_minus(value, "")
    return plus_minus(value, claim.unit, signed=claim.quantity == "difference")
