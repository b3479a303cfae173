"""Rules of devices that share the time of a channel and not its band (``network.access = "airtime"``)."""

from __future__ import annotations

from sflam.allocate.settings import BY_BAND
from sflam.run.conditions import NETWORK, Rule, is_one_of, is_set
from sflam.run.situations import several

APART = (
    (
        "method",
        is_one_of("plan.method", *BY_BAND),
        "the method shares out parts of a band",
        'use plan.method = "optimal", or network.access = "fdma"',
    ),
    (
        "subchannels",
        is_set("plan.subchannels"),
        "subchannels are parts of a band",
        'leave plan.subchannels out, or use network.access = "fdma"',
    ),
    ("servers", several, "several servers share out their bands", 'use network.access = "fdma"'),
)
"""Name, what does not go with shared airtime, why, and the fix."""

AIRTIME_RULES = tuple(
    Rule(f"airtime-{name}", (is_one_of("network.access", "airtime"), other), why, fix, NETWORK)
    for name, other, why, fix in APART
)
