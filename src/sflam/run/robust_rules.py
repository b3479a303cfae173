"""Rules of averages that few devices cannot move far (``learn.robust``)."""

from __future__ import annotations

from sflam.run.conditions import (
    FLOWER,
    ON_RANKS,
    RUNS,
    Condition,
    Rule,
    is_none_of,
    is_one_of,
    is_set,
    method_where,
)
from sflam.run.situations import nothing_apart, several

ROBUST = is_none_of("learn.robust", "none")
PLAIN = 'set learn.robust = "none"'

_WITH: tuple[tuple[str, tuple[Condition, ...], str, str, tuple[str, ...]], ...] = (
    ("lone", (is_one_of("learn.method", "central", "local"),), "nothing is averaged", PLAIN, RUNS),
    ("relay", (method_where(lambda method: method.relay),), "devices hand one half on", PLAIN, RUNS),
    ("averaged", (is_one_of("learn.device_half", "averaged"),),
     "gradients of the device half are averaged in every step, where every device counts",
     f'use learn.device_half = "trained", or {PLAIN}', RUNS),
    ("nothing", (is_one_of("learn.trunk", "shared"), nothing_apart), "devices train nothing apart",
     f"{PLAIN}, or let devices train blocks of their own", RUNS),
    ("factors", (is_one_of("learn.aggregation", "residual", "svd"),), "products of factors hang together",
     'use learn.aggregation = "fedavg" or "freeze-a"', RUNS),
    ("scaffold", (is_one_of("learn.local", "scaffold"),), "control variates are averaged as they are",
     'use learn.local = "plain" or "fedprox"', RUNS),
    ("ranks", (is_set("fleet.ranks"),), "it compares tensors of one shape", "leave fleet.ranks out", RUNS),
    ("tuned", (is_set("fleet.tuned"),), "it compares the same tensors of every device", "leave fleet.tuned out", RUNS),
    ("cuts", (is_one_of("learn.trunk", "shared"), is_set("fleet.cuts")), "it compares the same tensors of every device",
     "give all devices one cut", RUNS),
    ("servers", (is_set("fleet.servers"),), "servers average their own devices, then each other", PLAIN, RUNS),
    ("several", (several,), "servers average their own devices, then each other", PLAIN, ("simulate",)),
    ("buffered", (is_one_of("learn.sync", "buffered"),), "updates of several versions do not lie around one point",
     'set learn.sync = "round"', RUNS),
    ("on-ranks", (), "ranks send sums, and a median is none", "run it on one rank", (ON_RANKS,)),
    ("flower", (), "Flower's strategy averages", "leave it out, and choose a robust strategy", (FLOWER,)),
)  # fmt: skip

ROBUST_RULES: tuple[Rule, ...] = tuple(
    Rule(f"robust-{name}", (ROBUST, *others), why, fix, commands)
    for name, others, why, fix, commands in _WITH
)
