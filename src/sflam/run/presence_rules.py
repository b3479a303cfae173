"""Rules of simulated rounds that may end without some of their devices (``network.failure``, ``fleet.quorum``, ...)."""

from __future__ import annotations

from sflam.config import Job
from sflam.cost.timing import BARRIER
from sflam.learn.methods import method_of, timing_of
from sflam.network.presence import uncertain
from sflam.run.conditions import ON_RANKS, RUNS, SIMULATE, TRAIN, Rule, is_none_of, is_one_of, is_set, where
from sflam.run.conditions import method_where as method
from sflam.run.situations import several
from sflam.sizes import is_variable


def waiting(job: Job) -> str:
    """The key by which devices wait for each other at every step."""
    if not method_of(job).split or timing_of(job) != BARRIER:
        return ""
    return "plan.timing" if job.plan.timing else "learn.method"


ALL_STAY = "let all devices stay: leave network.failure, network.presence and fleet.quorum out"
PRESENCE_RULES: tuple[Rule, ...] = (
    *(
        Rule(f"presence-{name}", (uncertain, other), why, fix, (SIMULATE,))
        for name, other, why, fix in (
            ("relay", method(lambda one: one.relay), "devices hand one half on, and none can be missing", ALL_STAY),
            ("several", several, "plans for several servers do not know it", "use one server"),
            ("barrier", waiting, "at a barrier all wait for all at every step, so none is late alone",
             'set plan.timing = "chain"'),
            ("activations", is_one_of("plan.counts", "activations"),
             "adapters would move once all devices have made their steps", 'set plan.counts = "all"'),
            ("variable", where("quant.scheme", is_variable), "who is late must be known before the round",
             'use quant.scheme = "uniform" or "rotated"'),
            ("calibrate", is_one_of("network.calibrate", True), "who is late would depend on this machine",
             "set network.calibrate = false"),
            ("cache", is_none_of("learn.cache", "off"), "what is kept would depend on who stayed",
             'set learn.cache = "off"'),
            ("averaged", is_one_of("learn.device_half", "averaged"),
             "gradients of the device half are averaged in every step", 'use learn.device_half = "trained"'),
        )
    ),
    Rule("presence-ranks", (uncertain,), "who stays is not handed from rank to rank",
         "run it on one rank, without --ranks and torchrun", (ON_RANKS,)),
    *(
        Rule(f"{key}-train", (is_set(f"fleet.{key}"), is_one_of("network.simulate", False)),
             "none is late without a network", f"leave fleet.{key} out, or run it with sflam simulate", (TRAIN,))
        for key in ("quorum", "over_select")
    ),
    Rule("over-select-all", (is_set("fleet.over_select"), is_one_of("fleet.selected", 0)),
         "a round takes all devices already", "set fleet.selected, or leave fleet.over_select out", RUNS),
    Rule("grace-alone", (is_set("fleet.grace_s"), is_one_of("fleet.quorum", 0), is_one_of("fleet.over_select", 0.0)),
         "it begins once a quorum has delivered", "set fleet.quorum, or leave fleet.grace_s out", RUNS),
)  # fmt: skip
