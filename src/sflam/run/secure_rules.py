"""Rules of ``privacy.secure_aggregation``, adapters that are summed under masks: what would need each device's."""

from __future__ import annotations

from sflam.config import Job
from sflam.learn.methods import METHODS
from sflam.run.conditions import (
    FLOWER,
    ON_RANKS,
    RUNS,
    Condition,
    Rule,
    is_none_of,
    is_one_of,
    is_set,
    method_where,
)
from sflam.run.situations import nothing_apart

SECURE = is_one_of("privacy.secure_aggregation", True)
PLAIN = "set privacy.secure_aggregation = false"
LEAST_DEVICES = 3


def _too_few(job: Job) -> str:
    """The key that gives a round fewer devices than a secure sum has."""
    key = "fleet.selected" if job.fleet.selected else "fleet.devices"
    return key if (job.fleet.asked or job.fleet.devices) < LEAST_DEVICES else ""


def _nothing(job: Job) -> str:
    """The key by which devices of a cut model train nothing before the cut."""
    return nothing_apart(job) if METHODS[job.learn.method].split else ""


_WITH: tuple[tuple[str, tuple[Condition, ...], str, str, tuple[str, ...]], ...] = (
    ("own", (is_one_of("quant.adapters_scale", "own"), method_where(lambda method: method.quantized)),
     "adapters on grids of their own have no sum of codes", 'set quant.adapters_scale = "common"', RUNS),
    ("method", (is_one_of("quant.adapters_scale", "own"), method_where(lambda method: not method.quantized)),
     "this method sends floats, or no adapters of a device half",
     f'use learn.method = "sflam" or "sflam-mixed" with quant.adapters_scale = "common", or {PLAIN}', RUNS),
    ("few", (_too_few,), "of a sum of two, either knows the other's part", "let three devices or more into a round",
     RUNS),
    ("nothing", (_nothing,), "devices train nothing before the cut", f"cut later, or {PLAIN}", RUNS),
    ("averaged", (is_one_of("learn.device_half", "averaged"),),
     "gradients of the device half go up one by one in every step", 'use learn.device_half = "trained"', RUNS),
    ("robust", (is_none_of("learn.robust", "none"),), "it compares what each device trained",
     'set learn.robust = "none"', RUNS),
    ("factors", (is_one_of("learn.aggregation", "residual", "svd"),), "products of factors are of each device",
     'use learn.aggregation = "fedavg" or "freeze-a"', RUNS),
    ("scaffold", (is_one_of("learn.local", "scaffold"),), "control variates go up as they are",
     'use learn.local = "plain" or "fedprox"', RUNS),
    ("personal", (is_set("learn.personal"),), "what a device keeps is no part of a sum", 'set learn.personal = "none"',
     RUNS),
    ("policy", (is_one_of("fleet.policy", "samples"),), "weights over chances are no whole numbers",
     'use fleet.policy = "uniform"', RUNS),
    ("servers", (is_set("fleet.servers"),), "servers average their own devices, then each other",
     "leave fleet.servers out", RUNS),
    ("on-ranks", (), "ranks send sums of their own devices' halves in the clear", "run it on one rank", (ON_RANKS,)),
    ("flower", (), "Flower carries adapters one by one, and has a protocol of its own", PLAIN, (FLOWER,)),
)  # fmt: skip

SECURE_RULES: tuple[Rule, ...] = tuple(
    Rule(f"secure-{name}", (SECURE, *others), why, fix, commands)
    for name, others, why, fix, commands in _WITH
)
