"""The model card beside an adapter: what it is, how it was trained, what it cost, how to load it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from sflam import __version__
from sflam.config import Job, digest
from sflam.plugins import portable
from sflam.records.deviation import deviating
from sflam.records.history import TEST, RoundRecord
from sflam.report.protection import protection
from sflam.report.totals import percent, totals
from sflam.units import human_bytes

MOST_CLASSES = 24
"""More names of classes are cut short."""


def _cell(value: object) -> str:
    """Return a value that cannot break a Markdown table."""
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")


TEMPLATES = Environment(loader=PackageLoader("sflam.report"), undefined=StrictUndefined, trim_blocks=True)
TEMPLATES.filters |= {"bytes": human_bytes, "cell": _cell, "percent": percent}


def card(
    job: Job,
    records: Sequence[RoundRecord],
    *,
    task: str,
    load_base: str,
    cut: bool = True,
    quantized: bool = True,
    data: str = "",
    column: str = "",
    classes: Sequence[str] = (),
    accuracy: float | None = None,
    uncovered: Sequence[str] = (),
) -> str:
    """Return the text of the adapter folder's README.md.

    Args:
        job: of the finished run.
        records: its rounds.
        task: what the model does, in words.
        load_base: Python lines that import and build the base model under the name ``base``.
        cut: whether its method cuts the model.
        quantized: whether its method quantizes what crosses the cut.
        data: what to call the dataset; as the job does by default.
        column: which the inputs came from, where they came from a table.
        classes: the names of the labels, in their order.
        accuracy: of the model that was kept, on the test part; None takes the last one measured there.
        uncovered: what leaves a device without protection, where there is any.
    """
    sums, base = totals(records), public_name(job.model.name)
    named = [*classes[:MOST_CLASSES], *["..."] * (len(classes) > MOST_CLASSES)]
    return TEMPLATES.get_template("model_card.md.jinja").render(
        base=base,
        base_json=json.dumps(base, ensure_ascii=False),
        data=data or public_name(job.data.name),
        classes=f"{len(classes)}: {', '.join(named)}" if classes else "",
        accuracy=sums.accuracy if accuracy is None and sums.part == TEST else accuracy,
        job=job,
        protection=protection(job, records, uncovered),
        sums=sums,
        deviating=[one.line for one in deviating(records)],
        task=task,
        cut=cut,
        quantized=quantized,
        column=column,
        load_base=load_base.strip(),
        digest=digest(job),
        plugins=[portable(name) for name in job.plugins],
        version=__version__,
    )


def public_name(name: str) -> str:
    """Return what to call a model or dataset elsewhere: a hub name as it is, of a path its last part."""
    path = Path(name).expanduser()
    return path.resolve().name if path.is_absolute() or path.exists() else name
