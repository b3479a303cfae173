"""Rules of plans that choose bits on the way down (``"bits_down"`` in ``plan.optimize``)."""

from __future__ import annotations

from sflam.allocate.registry import method_of
from sflam.config import Job
from sflam.run.conditions import ALL, NETWORK, SIMULATE, Rule, holds, is_one_of

DOWN = holds("plan.optimize", "bits_down")


def _up_given(job: Job) -> str:
    """The key that leaves bits up as they are."""
    return "" if "bits" in job.plan.optimize else "plan.optimize"


def _other_method(job: Job) -> str:
    """The key by which another method than Algorithm Q chooses bits."""
    return "" if method_of(job.plan) == "bits" else "plan.method"


BITS_RULES: tuple[Rule, ...] = (
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
