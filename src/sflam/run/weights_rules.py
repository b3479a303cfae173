"""Rules of server blocks whose frozen weights are not in the memory of one process (``model.trunk_weights``)."""

from __future__ import annotations

from sflam.model.settings import IN_MEMORY
from sflam.run.conditions import RUNS, SERVE, Condition, Rule, is_none_of, is_one_of, is_set, method_where
from sflam.run.trunk_rules import SEVERAL

ELSEWHERE = is_none_of("model.trunk_weights", IN_MEMORY)
MEMORY = f'set model.trunk_weights = "{IN_MEMORY}"'

_WITH: tuple[tuple[str, tuple[Condition, ...], str, str, tuple[str, ...]], ...] = (
    ("full", (is_one_of("model.trainable", "full"),), "what is trained is in memory",
     f'use model.trainable = "lora", or {MEMORY}', RUNS),
    ("residual", (is_one_of("learn.aggregation", "residual"),), "residuals change frozen weights",
     f"use another learn.aggregation, or {MEMORY}", RUNS),
    ("bits", (is_set("model.trunk_bits"),), "quantized weights are made from all of them, in memory",
     f"set model.trunk_bits = 0, or {MEMORY}", RUNS),
    ("unsplit", (method_where(lambda method: not method.split),), "nothing is cut, so there is no trunk", MEMORY, RUNS),
    ("servers", (SEVERAL,), "the frozen model travels to trunk servers from memory", MEMORY, (SERVE,)),
)  # fmt: skip

WEIGHTS_RULES: tuple[Rule, ...] = tuple(
    Rule(f"trunk-weights-{name}", (ELSEWHERE, *others), why, fix, commands)
    for name, others, why, fix, commands in _WITH
)
