"""The table at the end of a run: a row per round, the totals beneath."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from sflam.records.deviation import deviating
from sflam.records.history import VALIDATION, RoundRecord, part_of
from sflam.report.protection import secured_line
from sflam.report.terminal.loop_lines import loop_lines
from sflam.report.terminal.plain_table import plain_table
from sflam.report.totals import Totals, brief, decimal, duration, joules, percent, totals
from sflam.units import human_bytes

FIRST, LAST = 5, 15
COLUMNS: dict[str, tuple[Callable[[Totals], str], Callable[[RoundRecord], str]]] = {
    "round": (lambda sums: "total", lambda item: str(item.round + 1)),
    "loss": (lambda sums: "", lambda item: decimal(item.loss)),
    "test loss": (lambda sums: "", lambda item: decimal(item.test_loss)),
    "accuracy": (lambda sums: "", lambda item: percent(item.accuracy)),
    "val. loss": (lambda sums: "", lambda item: decimal(item.validation_loss)),
    "val. acc.": (lambda sums: "", lambda item: percent(item.validation_accuracy)),
    "devices": (lambda sums: "", lambda item: str(len(item.participants))),
    "up": (lambda sums: human_bytes(sums.bytes_up), lambda item: human_bytes(item.bytes_up)),
    "down": (lambda sums: human_bytes(sums.bytes_down), lambda item: human_bytes(item.bytes_down)),
    "adapters": (
        lambda sums: human_bytes(sums.adapter_bytes),
        lambda item: human_bytes(item.total_bytes - item.bytes_up - item.bytes_down),
    ),
    "time": (lambda sums: duration(sums.seconds), lambda item: duration(item.seconds)),
    "virtual time": (
        lambda sums: brief(sums.virtual_s or 0.0),
        lambda item: brief(item.charge.seconds) if item.charge else "-",
    ),
    "energy": (
        lambda sums: joules(sums.energy_j or 0.0),
        lambda item: joules(item.charge.energy) if item.charge else "-",
    ),
}
"""Header -> footer, and the cell of a round."""
MEASURED = ("round", "loss", "test loss", "accuracy", "up", "down", "adapters", "time")
SIMULATED = ("round", "loss", "accuracy", "devices", "up", "down", "virtual time", "energy")
"""The columns of a run without a network and with one: as many as fit eighty characters."""
VALIDATED = {"test loss": "val. loss", "accuracy": "val. acc."}
"""What a column is where rounds are evaluated on a validation part."""


def headers_of(records: Sequence[RoundRecord], columns: Sequence[str]) -> list[str]:
    """Return columns named after the part of the data that the rounds were evaluated on."""
    names = VALIDATED if part_of(records) == VALIDATION else {}
    return [names.get(column, column) for column in columns]


def cells(headers: Sequence[str], record: RoundRecord) -> list[str]:
    """Return the row of a round."""
    return [COLUMNS[header][1](record) for header in headers]


def rounds_table(
    records: Sequence[RoundRecord],
    title: str = "",
    *,
    perplexity: float | None = None,
    devices: Sequence[float] = (),
    test: float | None = None,
) -> RenderableType:
    """Return a rich table of the rounds with their totals; long runs show the first and last rounds.

    Rounds are counted from 1 here, as in the progress. ``perplexity`` is that of a language model;
    ``devices`` are accuracies in [0, 1], one per device; ``test`` is the test accuracy of the model that was kept,
    which the rounds do not hold where they were evaluated on a validation part.
    """
    sums = totals(records)
    headers = headers_of(records, MEASURED if sums.virtual_s is None else SIMULATED)
    table = plain_table(headers, title)
    table.show_footer = bool(records)
    for column, header in zip(table.columns, headers, strict=True):
        column.footer = COLUMNS[header][0](sums)
    elided = len(records) - FIRST - LAST
    for index, item in enumerate(records):
        # Eliding a single row would save nothing.
        if elided > 1 and FIRST <= index < len(records) - LAST:
            if index == FIRST:
                table.add_row(*["..."] * len(table.columns))
            continue
        table.add_row(*cells(headers, item))
    lines = [summary(records, perplexity, test), *spread(devices), *losses(records), *loop_lines(records)]
    if summed := secured_line(records):
        lines.append(summed)
    lines += [one.line for one in deviating(records)]
    return Group(table, Text("\n".join(lines)))


def spread(devices: Sequence[float]) -> list[str]:
    """Return a line on how evenly the devices are served; none for fewer than two."""
    known = sorted((share, device) for device, share in enumerate(devices) if math.isfinite(share))
    if len(known) < 2:
        return []
    middle = statistics.median(share for share, _ in known)
    (least, worst), (most, best) = known[0], known[-1]
    return [
        f"test accuracy on each device's own mix of classes: worst {percent(least)} (device {worst}), median "
        f"{percent(middle)}, best {percent(most)} (device {best})"
    ]


def losses(records: Sequence[RoundRecord]) -> list[str]:
    """Return a line on the training losses of the last round's devices; none for fewer than two."""
    last = records[-1] if records else None
    each = zip(last.participants, last.device_loss, strict=True) if last and last.device_loss else ()
    known = sorted((loss, device) for device, loss in each if loss is not None)
    if len(known) < 2:
        return []
    middle = statistics.median(loss for loss, _ in known)
    return [
        f"training loss of a device in the last round: worst {decimal(known[-1][0])} (device {known[-1][1]}), median "
        f"{decimal(middle)}"
    ]


def summary(
    records: Sequence[RoundRecord], perplexity: float | None = None, test: float | None = None
) -> str:
    """Return the run in one sentence: accuracy, perplexity of a language model, bytes, steps, speed."""
    sums = totals(records)
    if not sums.rounds:
        return "no rounds yet"
    validated = sums.part == VALIDATION
    reached = f"{'validation ' * validated}accuracy {percent(sums.accuracy)}"
    if sums.best_round is not None and sums.best_accuracy != sums.accuracy:
        reached += f" (best {percent(sums.best_accuracy)} in round {sums.best_round + 1})"
    if validated and test is not None:
        reached = f"test accuracy {percent(test)}, {reached}"
    elif test is not None and sums.accuracy is not None and test != sums.accuracy:
        reached = f"test accuracy {percent(test)}, on the samples of the rounds {percent(sums.accuracy)}"
    if perplexity is not None:
        reached += f", perplexity {perplexity:.4g}"
    saved = sum(record.saved_bytes for record in records)
    kept = f", {human_bytes(saved)} more were kept" if saved else ""
    virtual = ""
    if sums.virtual_s is not None and sums.energy_j is not None:
        virtual = f", {duration(sums.virtual_s)} and {joules(sums.energy_j)} by the model of the network"
    return (
        f"{reached} after {sums.rounds} round{'s' * (sums.rounds != 1)}, "
        f"{human_bytes(sums.total_bytes)} over the network{kept}, {sums.device_steps} device steps "
        f"({sums.steps_per_second:.4g}/s), {sums.samples} samples{virtual}"
    )
