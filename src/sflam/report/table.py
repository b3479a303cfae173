"""The table at the end of a run: a row per round, the totals beneath."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from sflam.history import RoundRecord
from sflam.report.totals import decimal, duration, percent, totals
from sflam.units import human_bytes

FIRST, LAST = 5, 15


def rounds_table(
    records: Sequence[RoundRecord],
    title: str = "",
    *,
    perplexity: float | None = None,
    devices: Sequence[float] = (),
) -> RenderableType:
    """Return a rich table of the rounds with their totals; long runs show the first and last rounds.

    Rounds are counted from 1 here, as in the progress. ``perplexity`` is that of a language model;
    ``devices`` are accuracies in [0, 1], one per device.
    """
    sums = totals(records)
    table = Table(
        title=title or None,
        title_justify="left",
        box=SIMPLE_HEAD,
        show_footer=bool(records),
        pad_edge=False,
        collapse_padding=True,  # eight columns fit a terminal of eighty
    )
    for header, footer in (
        ("round", "total"),
        ("loss", ""),
        ("test loss", ""),
        ("accuracy", ""),
        ("up", human_bytes(sums.bytes_up)),
        ("down", human_bytes(sums.bytes_down)),
        ("adapters", human_bytes(sums.adapter_bytes)),
        ("time", duration(sums.seconds)),
    ):
        table.add_column(header, footer=footer, justify="right", no_wrap=True)
    elided = len(records) - FIRST - LAST
    for index, item in enumerate(records):
        # Eliding a single row would save nothing.
        if elided > 1 and FIRST <= index < len(records) - LAST:
            if index == FIRST:
                table.add_row(*["..."] * len(table.columns))
            continue
        table.add_row(
            str(item.round + 1),
            decimal(item.loss),
            decimal(item.test_loss),
            percent(item.accuracy),
            human_bytes(item.bytes_up),
            human_bytes(item.bytes_down),
            human_bytes(item.total_bytes - item.bytes_up - item.bytes_down),
            duration(item.seconds),
        )
    lines = [summary(records, perplexity), *spread(devices)]
    return Group(table, Text("\n".join(lines)))


def spread(devices: Sequence[float]) -> list[str]:
    """Return a line on how evenly the devices are served; none for fewer than two."""
    known = sorted((share, device) for device, share in enumerate(devices) if math.isfinite(share))
    if len(known) < 2:
        return []
    middle = statistics.median(share for share, _ in known)
    (least, worst), (most, best) = known[0], known[-1]
    return [
        f"on each device's own mix of classes: {percent(least)} (device {worst}) to {percent(most)} (device {best}), "
        f"median {percent(middle)}"
    ]


def summary(records: Sequence[RoundRecord], perplexity: float | None = None) -> str:
    """Return the run in one sentence: accuracy, perplexity of a language model, bytes, steps, speed."""
    sums = totals(records)
    if not sums.rounds:
        return "no rounds yet"
    reached = f"accuracy {percent(sums.accuracy)}"
    if sums.best_round is not None and sums.best_accuracy != sums.accuracy:
        reached += f" (best {percent(sums.best_accuracy)} in round {sums.best_round + 1})"
    if perplexity is not None:
        reached += f", perplexity {perplexity:.4g}"
    saved = sum(record.saved_bytes for record in records)
    kept = f", {human_bytes(saved)} more were kept" if saved else ""
    return (
        f"{reached} after {sums.rounds} round{'s' * (sums.rounds != 1)}, "
        f"{human_bytes(sums.total_bytes)} over the network{kept}, {sums.device_steps} device steps "
        f"({sums.steps_per_second:.4g}/s), {sums.samples} samples"
    )
