"""A job that follows a plan: its cuts, servers and bits take the place of those the job gave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sflam.config import Job
from sflam.errors import ConfigError
from sflam.plan import ALL_LOCAL
from sflam.planner import cell as planning
from sflam.run.compatibility import check

COMPUTED = "computed"
"""``fleet.plan`` that asks the planner."""


def follow(job: Job) -> tuple[Job, tuple[str, ...]]:
    """Return the job with what its plan decides, so that nothing is planned again; and what to tell the user.

    Without ``fleet.plan`` the job comes back as it is.

    Raises:
        ConfigError: no plan, one of other devices, or settings that do not go together.
        SflamError: what the planner raises.
    """
    wish = job.fleet
    if not wish.plan:
        return job, ()
    check(job)
    rows = _computed(job) if wish.plan == COMPUTED else read(Path(wish.plan))
    if len(rows) != wish.devices:
        raise ConfigError(
            f"fleet.plan = {wish.plan!r} is of {len(rows)} devices, but fleet.devices is {wish.devices}; make them "
            "equal"
        )
    cuts, servers, up, down = zip(*rows, strict=True)
    down = tuple(bits or job.quant.bits_down for bits in down)  # several servers leave the way down open
    fleet = replace(
        wish,
        plan="",
        cuts=cuts,
        servers=() if set(servers) == {0} else servers,
        bits_up=() if set(up) == {job.quant.bits_up} else up,
        bits_down=() if set(down) == {job.quant.bits_down} else down,
    )
    return replace(job, fleet=fleet), (_told(wish.plan, cuts, servers, up),)


def read(path: Path) -> list[tuple[int, int, int, int]]:
    """Return (cut, server, bits up, bits down) of every device of a plan.json that ``sflam plan --out`` wrote.

    Raises:
        ConfigError: the file is missing, no plan, or one that gives devices nothing.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"fleet.plan {str(path)!r} cannot be read ({error.strerror}); give a plan.json that sflam plan --out "
            f"wrote, or {COMPUTED!r}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"fleet.plan {str(path)!r} is no JSON ({error}); write it again with sflam plan"
        ) from error
    devices = found.get("devices") if isinstance(found, dict) else None
    if not isinstance(devices, list):
        raise ConfigError(
            f"fleet.plan {str(path)!r} lists no devices; give a plan.json that sflam plan --out wrote"
        )
    if not devices:
        advice = " ".join(str(line) for line in found.get("advice", ()))
        raise ConfigError(
            f"fleet.plan {str(path)!r} gives no device anything: {advice or 'it is infeasible'}"
        )
    return [tuple(_whole(path, index, one, key) for key in KEYS) for index, one in enumerate(devices)]  # type: ignore[misc]


KEYS = ("cut", "server", "bits", "bits_down")
UNSAID = {"server": 0, "bits_down": 0}
LEAST = {"cut": 0, "server": ALL_LOCAL, "bits": 1, "bits_down": 0}


def _whole(path: Path, index: int, device: Any, key: str) -> int:
    value = device.get(key, UNSAID.get(key)) if isinstance(device, dict) else None
    if type(value) is not int or value < LEAST[key]:
        raise ConfigError(
            f"fleet.plan {str(path)!r}: {key} of device {index} is {value!r}; it must be a whole number, {LEAST[key]} "
            "or more"
        )
    return value


def _computed(job: Job) -> list[tuple[int, int, int, int]]:
    check(job, "plan")
    plan = planning.decide(planning.with_devices(job)).plan
    if not len(plan.devices):
        raise ConfigError(f"no plan holds the limits: {' '.join(plan.advice)}")
    return [(one.cut, one.server, one.bits, one.bits_down) for one in plan.devices]


def _told(source: str, cuts: tuple[int, ...], servers: tuple[int, ...], bits: tuple[int, ...]) -> str:
    """Return the plan in one sentence."""
    served = sorted({server for server in servers if server != ALL_LOCAL})
    alone = servers.count(ALL_LOCAL)
    who = f"{len(served)} server{'s' * (len(served) != 1)}" + (f", {alone} alone" if alone else "")
    return f"plan ({source}): cuts {_span(cuts)}, {_span(bits)} bits up, {who}"


def _span(values: tuple[int, ...]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"
