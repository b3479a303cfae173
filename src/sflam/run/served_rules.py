"""Rules of ``fleet.plan = "measured"``: a served run that plans its rounds from what it measured."""

from __future__ import annotations

from sflam.run.conditions import (
    NETWORK,
    SERVE,
    SIMULATE,
    TRAIN,
    Rule,
    holds,
    is_none_of,
    is_one_of,
    is_set,
    where,
)
from sflam.run.situations import several
from sflam.sizes import IDENTITY

MEASURED = is_one_of("fleet.plan", "measured")
HELD = ("cut", "tuned")
"""What a plan may choose elsewhere, and a device holds while a run is served."""
NOT_MEASURED = is_none_of("fleet.plan", "measured")

SERVED_RULES: tuple[Rule, ...] = (
    Rule(
        "measured-elsewhere",
        (MEASURED,),
        "only a served run measures its devices",
        'run it with sflam serve, or use fleet.plan = "computed"',
        (TRAIN, SIMULATE),
    ),
    *(
        Rule(
            f"measured-{each}",
            (MEASURED, holds("plan.optimize", each)),
            "what a device holds of the model stays as it is while a run is served",
            f'leave "{each}" out of plan.optimize, or use fleet.plan = "computed"',
            (SERVE,),
        )
        for each in HELD
    ),
    Rule(
        "measured-method",
        (MEASURED, is_none_of("plan.method", "optimal")),
        "served rounds are planned by the exact method alone",
        "leave plan.method out",
        (SERVE,),
    ),
    Rule(
        "measured-identity",
        (MEASURED, holds("plan.optimize", "bits"), is_one_of("quant.scheme", IDENTITY)),
        "raw floats have no bits to choose",
        'leave "bits" out of plan.optimize, or choose another quant.scheme',
        (SERVE,),
    ),
    Rule(
        "measured-down-labels",
        (MEASURED, holds("plan.optimize", "bits_down"), is_one_of("model.labels", "device")),
        "activations come down, too, whose noise is no mere noise in a gradient",
        'leave "bits_down" out of plan.optimize',
        (SERVE,),
    ),
    Rule(
        "several-calibrated",
        (
            several,
            where("network.device", lambda all: any(each.downlink_mbps or each.latency_ms for each in all)),
        ),
        "plans for several servers count no way down, nor what an exchange takes",
        "leave downlink_mbps and latency_ms out of [[network.device]]",
        NETWORK,
    ),
    Rule(
        "probe-unplanned",
        (is_set("plan.probe"), NOT_MEASURED),
        "no plan would be made by what it measures",
        'set fleet.plan = "measured", or leave plan.probe out',
        (SERVE,),
    ),
    Rule(
        "pace-unplanned",
        (is_set("plan.pace"), NOT_MEASURED),
        "devices have no share of their own to keep to",
        'set fleet.plan = "measured", or leave plan.pace out',
        (SERVE,),
    ),
    Rule(
        "pace-apart",
        (is_set("plan.pace"), MEASURED, is_one_of("network.access", "fdma")),
        "every device has a way of its own, of which it may use all",
        'set network.access = "airtime", or leave plan.pace out',
        (SERVE,),
    ),
)
