"""A plan from a few named arrays: what ``sflam plan`` does, without a network file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from sflam.config import Job, load
from sflam.errors import ConfigError, unknown
from sflam.network.settings import DeviceEntry
from sflam.planner import cell as planning
from sflam.planner.decision import Decision
from sflam.run.compatibility import check


def plan_network(
    devices: Mapping[str, Sequence[Any]],
    job: Job | Mapping[str, Any] | str | Path | None = None,
    *,
    compare: bool = False,
    points: int = 0,
) -> Decision:
    """Return the plan of a network whose devices are given as arrays: ``sflam.plan_network({"gain_db": [-90, -100]})``.

    What is not given has the defaults of ``[network]``. ``decision.plan`` has the objective, its certified lower bound
    and a plan per device; ``decision.to_frame()`` the same as columns.

    Args:
        devices: key of ``[[network.device]]`` -> [n] values, such as ``distance_m``, ``gain_db``, ``rate_mbps``,
            ``clock_ghz``, ``max_power_dbm``; all of one length.
        job: whose model, bits, server and objective are planned with: a job, its values, or its file.
        compare: also plan with the other methods.
        points: of the front of seconds against joules; 0 for none.

    Raises:
        ConfigError: no such key, arrays of unequal lengths, or values that no device can have.
        AllocationError: nothing can be planned there.
    """
    known = [item.name for item in fields(DeviceEntry)]
    if wrong := [key for key in devices if key not in known]:
        raise ConfigError(unknown("array", wrong[0], known))
    lengths = {key: len(values) for key, values in devices.items()}
    if not lengths or len(set(lengths.values())) > 1 or 0 in lengths.values():
        counts = ", ".join(f"{key} has {count}" for key, count in lengths.items()) or "there is none"
        raise ConfigError(f"arrays have a value for each device, but {counts}; give as many of each")
    wanted = job if isinstance(job, Job) else load(job)
    rows = zip(*(_plain(values) for values in devices.values()), strict=True)
    entries = [dict(zip(devices, row, strict=True)) for row in rows]
    given = load({"network": {"device": entries}}).network
    network = replace(wanted.network, device=given.device, devices=given.devices, profiles=given.profiles)
    planned = replace(wanted, network=network)
    check(planned, "plan")
    return planning.decide(planned, compare=compare, points=points)


def _plain(values: Sequence[Any]) -> list[Any]:
    """Return an array's values as Python's own."""
    return [value.item() if hasattr(value, "item") else value for value in values]
