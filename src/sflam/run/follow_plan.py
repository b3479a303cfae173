"""A job that follows a plan: its cuts, servers and bits take the place of those the job gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sflam.allocate.registry import method_of
from sflam.allocate.settings import CHOOSE_BITS
from sflam.config import Job
from sflam.errors import ConfigError
from sflam.files import from_json, reading
from sflam.plan import ALL_LOCAL, Placement
from sflam.planner import cell as planning
from sflam.run.compatibility import check
from sflam.sizes import COUNT_LIMIT

COMPUTED = "computed"
"""``fleet.plan`` that asks the planner."""
MEASURED = "measured"
"""``fleet.plan`` by which a served run plans its rounds from what it measured."""


def follow(job: Job) -> tuple[Job, tuple[str, ...]]:
    """Return the job with what its plan decides, so that nothing is planned again; and notes for the user.

    Without ``fleet.plan`` the job comes back as it is.

    Raises:
        ConfigError: no plan, one of other devices, or settings that do not go together.
        SflamError: what the planner raises.
    """
    wish = job.fleet
    if not wish.plan:
        return job, ()
    if wish.plan == MEASURED:
        chosen = " and ".join(each for each in ("bits", "bits_down") if each in job.plan.optimize)
        what = (
            f"chooses {chosen}"
            if chosen
            else "chooses nothing: plan.optimize names neither bits nor bits_down"
        )
        often = f"every {job.plan.every} rounds" if job.plan.every > 1 else "every round"
        return job, (f"plan (measured): {what}, {often if job.plan.every else 'once'}",)
    check(job)
    placements = _computed(job) if wish.plan == COMPUTED else read(Path(wish.plan), job.quant.bits_down)
    if len(placements) != wish.devices:
        raise ConfigError(
            f"fleet.plan = {wish.plan!r} is of {len(placements)} devices, but fleet.devices is {wish.devices}; make "
            "them equal"
        )
    summary = _summary(wish.plan, placements)
    if job.network.simulate:
        job, placements = _simulated(job, placements)
    return job.placed(placements), (summary,)


def read(path: Path, bits_down: int) -> tuple[Placement, ...]:
    """Return the placements in a plan.json that ``sflam plan --out`` wrote; ``bits_down`` where it leaves them open.

    Raises:
        ConfigError: the file is missing, no plan, or one that gives devices nothing.
    """
    advice = f"give a plan.json that sflam plan --out wrote, {COMPUTED!r} or {MEASURED!r}"
    with reading(f"fleet.plan {str(path)!r}", advice, ConfigError):
        body = path.read_bytes()
    try:
        found = from_json(body)
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
    rows = [{key: _whole(path, index, device, key) for key in LEAST} for index, device in enumerate(devices)]
    return tuple(
        Placement(
            device=index,
            cut=row["cut"],
            bits_up=row["bits"],
            bits_down=row["bits_down"] or bits_down,
            server=row["server"],
            tuned=row["tuned"],
        )
        for index, row in enumerate(rows)
    )


OPTIONAL = {"server": 0, "bits_down": 0, "tuned": 0}
LEAST = {"cut": 0, "server": ALL_LOCAL, "bits": 1, "bits_down": 0, "tuned": -COUNT_LIMIT}


def _whole(path: Path, index: int, device: Any, key: str) -> int:
    value = device.get(key, OPTIONAL.get(key)) if isinstance(device, dict) else None
    if type(value) is not int or value < LEAST[key]:
        raise ConfigError(
            f"fleet.plan {str(path)!r}: {key} of device {index} is {value!r}; it must be a whole number, {LEAST[key]} "
            "or more"
        )
    return value


def _computed(job: Job) -> tuple[Placement, ...]:
    check(job, "plan")
    plan = planning.decide(planning.with_devices(job)).plan
    if not len(plan.devices):
        raise ConfigError(f"no plan holds the limits: {' '.join(plan.advice)}")
    return plan.placements(range(len(plan.devices)), job.quant.bits_down)


def _simulated(job: Job, placements: tuple[Placement, ...]) -> tuple[Job, tuple[Placement, ...]]:
    """Return a job whose rounds plan bits anew but keep the plan's cuts, and placements with the job's own bits.

    Raises:
        ConfigError: bits of the plan that the job's rounds would not keep.
    """
    quant, wish = job.quant, job.plan
    bits = {"bits_up": quant.bits_up, "bits_down": quant.bits_down}
    plain = tuple(replace(placement, **bits) for placement in placements)
    method = method_of(wish)
    kept = () if method in CHOOSE_BITS else ("bits_up",)
    kept = kept if planning.chooses_down(job, method) else (*kept, "bits_down")
    if any(getattr(one, name) != bits[name] for one in placements for name in kept):
        up, down = (_span([getattr(placement, name) for placement in placements]) for name in bits)
        raise ConfigError(
            f"fleet.plan = {job.fleet.plan!r} gives {up} bits up and {down} down, but a simulated run plans every "
            f"round with quant.bits_up = {quant.bits_up} and quant.bits_down = {quant.bits_down}; add "
            '"bits" (and "bits_down") to plan.optimize, or set these to the bits of the plan'
        )
    optimize = tuple(each for each in wish.optimize if each != "cut")
    method = "optimal" if wish.method == "cut" else wish.method
    return replace(job, plan=replace(wish, optimize=optimize, method=method)), plain


def _summary(source: str, placements: Sequence[Placement]) -> str:
    """Return the plan in one sentence."""
    served = {placement.server for placement in placements if not placement.alone}
    alone = sum(placement.alone for placement in placements)
    who = f"{len(served)} server{'s' * (len(served) != 1)}" + (f", {alone} alone" if alone else "")
    cuts, bits = (
        _span([placement.cut for placement in placements]),
        _span([placement.bits_up for placement in placements]),
    )
    tuned = [placement.tuned for placement in placements]
    layers = f", tuned layers {_span(tuned)}" if any(tuned) else ""
    return f"plan ({source}): cuts {cuts}{layers}, {bits} bits up, {who}"


def _span(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return str(least) if least == most else f"{least} to {most}"
