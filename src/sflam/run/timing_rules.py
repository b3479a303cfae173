"""Rules of ``plan.timing``, which is for rounds in which devices could wait for each other, or not."""

from __future__ import annotations

from sflam.config import Job
from sflam.cost.timing import BARRIER
from sflam.learn.methods import timing_of
from sflam.run.conditions import ALL, NETWORK, Rule, is_one_of, is_set, method_where, setting_of
from sflam.run.situations import several


def _waiting(job: Job) -> str:
    """Return the key by which devices of one server wait for each other at every step."""
    if timing_of(job) != BARRIER or several(job):
        return ""
    return "plan.timing" if job.plan.timing else setting_of(job, "learn.trunk")


TIMING_RULES: tuple[Rule, ...] = (
    Rule(
        "timing-airtime",
        (_waiting, is_one_of("network.access", "airtime")),
        "plans of shared airtime are for devices that do not wait for each other",
        'set plan.timing = "chain", or network.access = "fdma"',
        NETWORK,
    ),
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
