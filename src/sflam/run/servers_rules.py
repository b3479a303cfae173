"""Rules of what crosses among several servers: where activations alone count, nothing else has a rate."""

from __future__ import annotations

from sflam.run.conditions import NETWORK, Rule, is_one_of, is_set
from sflam.run.situations import one_server, several

RATES = ("network.downlink_mbps", "network.backhaul_mbps")


SERVERS_RULES = (
    *(
        Rule(
            f"several-{key}",
            (several, is_one_of("plan.counts", "activations"), is_set(key)),
            "activations alone count, as published, and nothing else takes time",
            f'leave {key} out, or use plan.counts = "all"',
            NETWORK,
        )
        for key in RATES
    ),
    Rule(
        "unused-network.backhaul_mbps",
        (one_server, is_set("network.backhaul_mbps")),
        "no other server is there to average adapters with",
        "leave network.backhaul_mbps out, or use several servers",
        NETWORK,
    ),
)
"""Each with its reason and its fix."""
