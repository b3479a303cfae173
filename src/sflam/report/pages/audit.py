"""The page of an audit: what attacks got, what is left of accuracy, what it costs, and images beside what came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sflam.config import Job
from sflam.report.charts.audit import Row, audit_panels
from sflam.report.pages.inline import charts
from sflam.report.pages.page import NumberTable, render
from sflam.report.protection import defences
from sflam.report.terminal.audit_table import member_rows, mix_rows, worth_rows


def audit_page(found: Mapping[str, Any], job: Job, rows: Sequence[Row] = (), *, title: str = "") -> str:
    """Return the HTML page of what ``sflam audit --json`` prints.

    Args:
        found: by the audit.
        job: of the run.
        rows: images, see :func:`sflam.report.charts.audit.draw_audit`.
        title: of the page.
    """
    worst = max(found["cells"], key=lambda cell: float(cell["leak"]))
    return render(
        "audit.html.jinja",
        job,
        title=title,
        worst=f"{worst['leak']:.2f}",
        at=f"gives most away: cut {worst['cut']}",
        samples=found["samples"],
        protection="; ".join(defences(job)) or "none",
        sentences=found["sentences"],
        worth=NumberTable(*worth_rows(found)),
        mix=NumberTable(*mix_rows(found)),
        members=NumberTable(*member_rows(found)),
        panels=charts(audit_panels(found, rows)),
    )
