"""Rules of ``plan.timing``, which is for rounds in which devices could wait for each other, or not."""

from __future__ import annotations

from sflam.cost.timing import BARRIER
from sflam.run.conditions import ALL, Rule, is_one_of, is_set, method_where
from sflam.run.situations import several

TIMING_RULES: tuple[Rule, ...] = (
    Rule(
        "timing-relay",
        (is_set("plan.timing"), method_where(lambda method: method.relay)),
        "devices take turns",
        "leave plan.timing out",
        ALL,
    ),
    *(
        Rule(
            f"timing-{kind}",
            (is_one_of("plan.timing", BARRIER), those),
            "no step waits for others there",
            "leave plan.timing out",
            ALL,
        )
        for kind, those in (("unsplit", method_where(lambda method: not method.split)), ("several", several))
    ),
)
