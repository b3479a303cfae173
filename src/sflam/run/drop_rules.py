"""Rules of ``privacy.drop_tokens``: where nothing is sent, or all tokens of a sample are looked at."""

from __future__ import annotations

from sflam.run.conditions import ALL, RUNS, SIMULATE, Rule, is_none_of, is_one_of, is_set, method_where

DROPPED = is_set("privacy.drop_tokens")
PLAIN = "set privacy.drop_tokens = 0"

DROP_RULES: tuple[Rule, ...] = tuple(
    Rule(f"drop-{name}", (DROPPED, condition), why, fix, commands)
    for name, condition, why, fix, commands in (
        ("unsplit", method_where(lambda method: not method.split), "this method has no cut at which anything is sent",
         f"use a method that cuts the model, or {PLAIN}", RUNS),
        ("cache", is_none_of("learn.cache", "off"), "what is kept of a sample is all of it",
         f'set learn.cache = "off", or {PLAIN}', RUNS),
        ("delta", is_one_of("quant.delta", True), "differences are between all tokens of two visits",
         f"set quant.delta = false, or {PLAIN}", RUNS),
        ("correlation", is_set("privacy.distance_correlation"), "the correlation is of all tokens, sent or not",
         "leave one of them out", RUNS),
        ("measured", is_set("plan.measure_every"), "gradients are measured with all tokens",
         "leave plan.measure_every out", (SIMULATE,)),
        ("calibrated", is_set("network.calibrate"), "steps are measured with all tokens",
         "leave network.calibrate out", (SIMULATE,)),
        ("unlabelled", is_one_of("data.label", ""), "texts alone are for a language model, which learns every token",
         f"name the column of labels, or {PLAIN}", ALL),
    )
)  # fmt: skip
