"""A plan in a checkpoint: plain numbers, and back again."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from sflam.plan import DevicePlan, DevicePlans, Plan, Status
from sflam.simulate.planner import Planner, Turn

NUMBERS = ("latency", "energy", "objective", "lower_bound")


def kept_turn(turn: Turn) -> dict[str, Any]:
    """Return a turn as plain values."""
    plan = turn.plan
    return {
        "devices": list(turn.devices),
        "method": plan.method,
        "status": plan.status.value,
        "devices_plans": {
            item.name: getattr(plan.devices, item.name).tolist() for item in fields(DevicePlan)
        },
    } | {name: float(getattr(plan, name)) for name in NUMBERS}


def turn_kept(values: dict[str, Any], planner: Planner) -> Turn:
    """Return the turn that ``kept_turn`` wrote, of the same planner; raises KeyError or ValueError where it did not."""
    devices = tuple(values["devices"])
    numbers = {name: values[name] for name in NUMBERS}
    given = DevicePlans(len(devices), **values["devices_plans"])
    plan = Plan(method=values["method"], devices=given, status=Status(values["status"]), **numbers)
    return planner.turn(devices, plan)
