"""Rules of passes whose size is found by trying (``learn.passes = "measured"``)."""

from __future__ import annotations

from sflam.model.settings import OVER_RANKS
from sflam.run.conditions import ON_RANKS, RUNS, Rule, is_one_of, method_where

MEASURED = is_one_of("learn.passes", "measured")
BY_RULE = 'set learn.passes = "rule"'

PASSES_RULES: tuple[Rule, ...] = (
    Rule(
        "passes-canonical",
        (MEASURED, is_one_of("learn.canonical", True)),
        "another machine, or another moment, would find other passes, and sums in another order",
        BY_RULE,
    ),
    Rule(
        "passes-unsplit",
        (MEASURED, method_where(lambda method: not method.split)),
        "nothing is cut, so no server has passes",
        BY_RULE,
    ),
    Rule(
        "passes-ranks",
        (MEASURED,),
        "every rank would find its own",
        f"{BY_RULE} with the learn.memory_gb that a run on one rank found",
        (ON_RANKS,),
    ),
    Rule(
        "passes-over-ranks",
        (MEASURED, is_one_of("model.trunk_weights", OVER_RANKS)),
        "what gathering costs depends on what the other ranks do",
        BY_RULE,
        RUNS,
    ),
)
