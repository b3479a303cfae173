"""Rules of what cuts may give away (``plan.least_leakage``)."""

from __future__ import annotations

from sflam.run.conditions import NETWORK, Rule, is_one_of, is_set

LEAKAGE_RULES: tuple[Rule, ...] = (
    Rule(
        "leakage-reference",
        (is_set("plan.least_leakage"), is_one_of("network.scenario", "refA", "refB")),
        "the scenario trains a model of its own, which no audit is of",
        "use another network.scenario, or leave plan.least_leakage out",
        NETWORK,
    ),
)
