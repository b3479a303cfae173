"""Rules of plans that choose bits on the way down, and of adapters on one grid for all devices."""

from __future__ import annotations

from sflam.allocate.registry import method_of
from sflam.config import Job
from sflam.run.conditions import ALL, NETWORK, RUNS, SIMULATE, Rule, holds, is_one_of, is_set, method_where
from sflam.run.situations import moving_cuts
from sflam.sizes import FLOAT_BITS, IDENTITY

DOWN = holds("plan.optimize", "bits_down")


def _up_given(job: Job) -> str:
    """The key that leaves bits up as they are."""
    return "" if "bits" in job.plan.optimize else "plan.optimize"


def _other_method(job: Job) -> str:
    """The key by which another method than Algorithm Q chooses bits."""
    return "" if method_of(job.plan) == "bits" else "plan.method"


COMMON = is_one_of("quant.adapters_scale", "common")
UNLIKE = (
    ("cuts", is_set("fleet.cuts"), "give all devices one cut"),
    ("ranks", is_set("fleet.ranks"), "give all devices one rank"),
    ("tuned", is_set("fleet.tuned"), "let all devices tune the same blocks"),
)
"""What gives devices different adapters, whose groups have no grid in common."""

BITS_RULES: tuple[Rule, ...] = (
    Rule(
        "common-floats",
        (COMMON, is_one_of("quant.bits_adapters", FLOAT_BITS)),
        "floats are on no grid",
        "set quant.bits_adapters = 8, or leave quant.adapters_scale out",
        RUNS,
    ),
    Rule(
        "common-method",
        (COMMON, method_where(lambda method: not method.quantized)),
        "this method sends floats",
        "leave quant.adapters_scale out, or use a method that quantizes",
        RUNS,
    ),
    Rule(
        "common-identity",
        (COMMON, is_one_of("quant.scheme", IDENTITY)),
        "identity sends floats",
        "leave quant.adapters_scale out, or choose another quant.scheme",
        RUNS,
    ),
    *(
        Rule(f"common-{key}", (COMMON, unlike), "one grid is for adapters of one shape", fix, RUNS)
        for key, unlike, fix in UNLIKE
    ),
    Rule(
        "common-moving",
        (COMMON, moving_cuts),
        "one grid is for adapters of one shape",
        "do not choose the cut, or leave quant.adapters_scale out",
        (SIMULATE,),
    ),
    Rule(
        "down-up",
        (DOWN, _up_given),
        "bits down are chosen together with bits up",
        'add "bits" to plan.optimize',
        ALL,
    ),
    Rule(
        "down-method",
        (DOWN, holds("plan.optimize", "bits"), _other_method),
        "this method chooses bits up alone",
        'use plan.method = "optimal", or leave "bits_down" out',
        ALL,
    ),
    Rule(
        "down-cut",
        (DOWN, holds("plan.optimize", "cut")),
        "cuts are chosen in turns with bits up alone",
        "leave one of them out",
        ALL,
    ),
    Rule(
        "down-labels",
        (DOWN, is_one_of("model.labels", "device")),
        "activations come down, too, whose noise is no mere noise in a gradient",
        'leave "bits_down" out of plan.optimize',
        NETWORK,
    ),
    Rule(
        "down-frozen",
        (DOWN, is_one_of("learn.device_half", "frozen")),
        "no gradient comes down",
        'leave "bits_down" out of plan.optimize',
        (SIMULATE,),
    ),
)
