"""A job that carries out a plan: every device gets the cut and the bits that ``sflam plan --out`` wrote for it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from sflam.config import Job
from sflam.errors import ConfigError


def carried_out(job: Job, path: Path) -> Job:
    """Return the job with the cuts and bits of a plan; its local steps stay the job's own.

    Args:
        job: whose ``fleet.devices`` are in the order of the plan's.
        path: ``plan.json`` as ``sflam plan --out FOLDER`` writes it.

    Raises:
        ConfigError: no such plan, or one for other devices, for several servers, or for none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        told = [_told(one) for one in found["devices"]]
    except OSError as error:
        raise ConfigError(
            f"plan {path} cannot be read ({error.strerror}); give the plan.json of sflam plan --out"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{path} is no plan ({type(error).__name__}: {error}); give the plan.json of sflam plan --out"
        ) from error
    if len(told) != job.fleet.devices:
        raise ConfigError(
            f"plan {path} is for {len(told)} devices, but fleet.devices is {job.fleet.devices}; make them equal"
        )
    servers = {server for *_, server in told}
    if len(servers) > 1 or min(servers) < 0:
        raise ConfigError(
            f"plan {path} puts devices at servers {', '.join(map(str, sorted(servers)))} (-1 is none); one server is "
            "served at a time, so plan for one"
        )
    fleet = replace(
        job.fleet,
        cuts=tuple(cut for cut, *_ in told),
        bits_up=tuple(up or job.quant.bits_up for _, up, _, _ in told),
        bits_down=tuple(down or job.quant.bits_down for _, _, down, _ in told),
    )
    return replace(job, fleet=fleet)


def _told(one: dict[str, Any]) -> tuple[int, int, int, int]:
    """Return a device's cut, bits up and down (0 where the plan says none), and server."""
    numbers = one["cut"], one["bits"], one.get("bits_down", 0), one.get("server", 0)
    if any(type(number) is not int for number in numbers):
        raise ValueError(f"cut, bits, bits_down and server are {numbers}, not whole numbers")
    return numbers
