"""Rules of ``data.draw = "poisson"``: what needs rows in every step, or the mean over the rows that came."""

from __future__ import annotations

from sflam.data.settings import POISSON
from sflam.run.conditions import RUNS, SERVE, Rule, is_none_of, is_one_of, is_set, method_where

COINS = is_one_of("data.draw", POISSON)
PASSES = 'set data.draw = "passes"'

POISSON_RULES: tuple[Rule, ...] = tuple(
    Rule(f"poisson-{name}", (COINS, *others), why, fix, commands)
    for name, others, why, fix, commands in (
        ("unsplit", (method_where(lambda method: not method.split or method.relay),),
         "it counts the rows that came, not those that are expected", PASSES, RUNS),
        ("buckets", (is_one_of("data.buckets", True),), "lengths would decide which rows come together",
         f"{PASSES}, or data.buckets = false", RUNS),
        ("mixed", (is_one_of("learn.server_update", "mixed"),),
         "the number of groups would change with the rows that come",
         f'{PASSES}, or learn.server_update = "batched"', RUNS),
        ("averaged", (is_one_of("learn.device_half", "averaged"),), "some devices have no rows in a step",
         'use learn.device_half = "trained" or "frozen"', RUNS),
        ("scaffold", (is_one_of("learn.local", "scaffold"),),
         "its control variates would leave out the steps without rows", 'use learn.local = "plain" or "fedprox"', RUNS),
        ("head", (is_one_of("model.labels", "device"), is_none_of("model.trainable", "lora")),
         "a head at home learns from the mean over the rows that came",
         'use model.trainable = "lora", or model.labels = "server"', RUNS),
        ("buffered", (is_one_of("learn.sync", "buffered"),), "the cost of a cycle counts whole mini-batches",
         'set learn.sync = "round"', RUNS),
        ("servers", (is_set("fleet.servers"),), "one server draws how many rows come, and does not pass that on",
         PASSES, (SERVE,)),
    )
)  # fmt: skip
