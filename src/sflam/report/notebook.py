"""What a notebook shows of a value, and its numbers as a frame: a table in HTML, a picture, columns."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sflam.records.history import RoundRecord
from sflam.report.charts.style import styled


def html_table(head: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> str:
    """Return a table in HTML, numbers to the right; every word is escaped."""

    def cells(values: Sequence[object], tag: str) -> str:
        sides = ("left", *["right"] * (len(values) - 1))
        shown = zip(sides, values, strict=True)
        return "".join(
            f'<{tag} style="text-align:{side}">{html.escape(str(value))}</{tag}>' for side, value in shown
        )

    title = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    top = f"<thead><tr>{cells(head, 'th')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    return f"<table>{title}{top}<tbody>{body}</tbody></table>"


def picture(figure: Figure) -> str:
    """Return a figure as a picture in HTML, on white, so that it is read on dark paper too."""
    drawn = io.BytesIO()
    with styled():
        figure.savefig(drawn, format="png", dpi=90, facecolor="white")
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}">'


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows of equal keys as a pandas DataFrame; where pandas is not installed, as key -> array of values.

    What is not known is NaN in a column of numbers, and None in one of objects.
    """
    keys = list(rows[0]) if rows else []
    columns = {key: _column([row[key] for row in rows]) for key in keys}
    try:
        pandas = import_module("pandas")
    except ImportError:
        return columns
    return pandas.DataFrame(columns)


def round_rows(records: Sequence[RoundRecord]) -> list[dict[str, Any]]:
    """Return a row per round: its number from 1, losses and accuracies, bytes, and what it cost, SI units."""
    return [
        {
            "round": record.round + 1,
            "loss": record.loss,
            "accuracy": record.accuracy,
            "test_loss": record.test_loss,
            "validation_accuracy": record.validation_accuracy,
            "validation_loss": record.validation_loss,
            "metric": record.metric,
            "devices": len(record.participants),
            "samples": record.samples,
            "bytes_up": record.bytes_up,
            "bytes_down": record.bytes_down,
            "adapter_bytes": record.total_bytes - record.bytes_up - record.bytes_down,
            "seconds": record.seconds,
            "virtual_s": record.charge.seconds if record.charge else None,
            "clock_s": record.charge.clock if record.charge else None,
            "energy_j": record.charge.energy if record.charge else None,
        }
        for record in records
    ]


def _column(values: Sequence[Any]) -> np.ndarray:
    if all(value is None or type(value) in (int, float) for value in values):
        if None in values or any(type(value) is float for value in values):
            return np.array([np.nan if value is None else value for value in values], float)
        return np.array(values, np.int64)
    found = np.empty(len(values), object)
    found[:] = values
    return found
