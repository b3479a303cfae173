"""Rules about what several ranks can train together."""

from __future__ import annotations

from sflam.run.conditions import ON_RANKS, Rule, is_none_of, is_one_of, method_where

SHARED = is_one_of("learn.trunk", "shared")
AT_HOME = is_one_of("model.labels", "device")
ONE = "run it on one rank, without --ranks and torchrun"

RANKS_RULES: tuple[Rule, ...] = tuple(
    Rule(f"on-ranks-{name}", conditions, why, fix, (ON_RANKS,))
    for name, conditions, why, fix in (
        ("unsplit", (method_where(lambda method: not method.split),),
         "ranks share out the devices of a model that is cut",
         f'use learn.method = "sflam" or "sflam-mixed", or {ONE}'),
        ("relay", (method_where(lambda method: method.relay),),
         "devices train one after another, so there is nothing to do at once",
         f'use learn.method = "sfl-v2", or {ONE}'),
        ("home-shared", (AT_HOME, SHARED),
         "the two exchanges of a step with one trunk for all are not shared out",
         f'use learn.trunk = "per-device" or model.labels = "server", or {ONE}'),
        ("home-canonical", (AT_HOME, is_one_of("learn.canonical", True)),
         "the two exchanges of a step are not shared out pass by pass",
         f'set learn.canonical = false or model.labels = "server", or {ONE}'),
        ("averaged", (is_one_of("learn.device_half", "averaged"),),
         "gradients of the device half are averaged in every step, which is not shared out",
         f'use learn.device_half = "trained" or "frozen", or {ONE}'),
        ("residual", (is_one_of("learn.aggregation", "residual"),),
         "residuals change frozen weights, of which every rank has a copy",
         f'use learn.aggregation = "fedavg" or "freeze-a", or {ONE}'),
        ("scaffold", (is_one_of("learn.local", "scaffold"),),
         "control variates are not handed from rank to rank", f'use learn.local = "plain" or "fedprox", or {ONE}'),
        ("cache", (is_none_of("learn.cache", "off"),),
         "what is kept would be at one rank and the device at another", f'set learn.cache = "off", or {ONE}'),
        ("delta", (is_one_of("quant.delta", True),),
         "what was sent last would be at one rank and the device at another",
         f"set quant.delta = false, or {ONE}"),
    )
)  # fmt: skip
