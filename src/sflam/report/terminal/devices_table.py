"""A served run as its operator sees it: a row for each device, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from sflam.report.terminal.plain_table import plain_table


def devices_table(found: Mapping[str, Any]) -> Table:
    """Return a row for each device of a server's answer to ``sflam admin SERVER list``; what is missing is a dash."""
    blocks = any(isinstance(row, dict) and row.get("blocks") is not None for row in found["devices"])
    servers = any(isinstance(row, dict) and row.get("server") is not None for row in found["devices"])
    given = [name for name, there in (("blocks", blocks), ("server", servers)) if there]
    headers = ("device", "no.", "state", *given, "exchange", "samples", "silent", "token")
    table = plain_table(headers, left=("device", "state"), wraps=("device",))
    for row in found["devices"]:
        if not isinstance(row, dict):
            continue
        state = str(row.get("state", "-"))
        if row.get("drained") is True and state != "drained":
            state += ", then drained"
        number = row.get("number")
        table.add_row(
            str(row.get("name", "-")),
            "-" if type(number) is not int or number < 0 else str(number),
            state,
            *(_shown(row.get(name)) for name in given),
            "-" if row.get("exchanges") is None else f"{row.get('exchange')}/{row['exchanges']}",
            _shown(row.get("samples")),
            _shown(row.get("silent_s"), " s"),
            _shown(row.get("days_left"), " d") + _renewal(row),
        )
    return table


def standing_line(found: Mapping[str, Any]) -> str:
    """Return the line above the table: the round, who is here, and what is waited for."""
    phase = (
        "paused" if found.get("paused") is True and found.get("phase") == "waiting" else found.get("phase")
    )
    parts = [f"round {found.get('round')}, attempt {found.get('attempt')}: {phase}"]
    if found.get("paused") is True and phase != "paused":
        parts.append("then paused")
    parts.append(
        f"{found.get('present')} of {found.get('places')} devices are here, {found.get('quorum')} needed"
    )
    waiting = found.get("waiting")
    if isinstance(waiting, list) and waiting:
        seconds = found.get("seconds")
        limit = f" for at most {seconds:.0f} s" if isinstance(seconds, int | float) else ""
        parts.append(f"waits for {', '.join(map(str, waiting))}{limit}")
    return "; ".join(parts)


def _renewal(row: Mapping[str, Any]) -> str:
    """Return what there is to know of a token beside its end: an older device does not renew it."""
    if row.get("renewing") is True:
        return ", next given"
    return ", not renewed" if row.get("renews") is False else ""


def _shown(value: object, unit: str = "") -> str:
    return f"{value:g}{unit}" if isinstance(value, int | float) else "-"
