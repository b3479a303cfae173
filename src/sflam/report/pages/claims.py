"""The page of a study of papers: claims and verdicts first, then every part with its table and figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from sflam.report.pages.page import TEMPLATES, NumberTable


class PartShown(NamedTuple):
    """A part, as the page shows it."""

    title: str
    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    charts: Sequence[Markup]
    failed: Sequence[str]


def claims_page(
    *,
    title: str,
    scale: str,
    verdicts: Sequence[str],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    parts: Sequence[PartShown],
    failed: Mapping[str, str],
) -> str:
    """Return the HTML page.

    Args:
        title: of the study.
        scale: its name, or "".
        verdicts: of every claim.
        head: of the table of claims.
        rows: of the same, a row per claim, the verdict last.
        parts: that were run.
        failed: part -> why it was not.
    """
    counts = Counter(verdicts)
    shown = [part._asdict() | {"table": NumberTable(part.head, part.rows)} for part in parts]
    return TEMPLATES.get_template("claims.html.jinja").render(
        title=title,
        scale=scale,
        counts=[(str(counts[verdict]), verdict) for verdict in dict.fromkeys(verdicts)],
        head=head,
        rows=rows,
        parts=shown,
        failed=failed,
    )
