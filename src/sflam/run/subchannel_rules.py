"""Rules of subchannels (``plan.subchannels``) and of what else plans choose with them."""

from __future__ import annotations

from sflam.allocate.settings import BY_SUBCHANNEL
from sflam.run.conditions import ALL, PLAN, SERVE, SIMULATE, TRAIN, Rule, is_one_of, is_set
from sflam.run.situations import band_bits

BAND = (
    "the method chooses bits over a continuous band, or none",
    'leave one of them out, or use plan.method = "optimal" or "bcd"',
)
SUBCHANNEL_RULES = (
    Rule(
        "subchannels",
        (is_one_of("plan.method", *BY_SUBCHANNEL), is_one_of("plan.subchannels", 0)),
        "the method shares out subchannels",
        "set plan.subchannels, at least one per device",
        ALL,
    ),
    Rule("subchannel-bits", (band_bits, is_set("plan.subchannels")), *BAND, (SIMULATE,)),
    Rule(
        "subchannel-band",
        (is_one_of("plan.method", "bits", "fixed-bits"), is_set("plan.subchannels")),
        *BAND,
        (PLAN,),
    ),
    Rule(
        "subchannel-cut",
        (is_one_of("plan.method", "cut"), is_set("plan.subchannels")),
        "the method gives every device a cut of its own, over a continuous band",
        'use plan.method = "optimal" with "cut" in plan.optimize for one cut of all, or leave plan.subchannels out',
        ALL,
    ),
    Rule(
        "plan-subchannel-bits",
        (is_one_of("fleet.plan", "computed"), band_bits, is_set("plan.subchannels")),
        *BAND,
        (TRAIN, SERVE),
    ),
)
