"""Rules of ``[device]``: what a device without torch cannot do, and what cannot be rounded, is refused beforehand."""

from __future__ import annotations

from sflam.device.settings import FLOAT16, INT8, LEAN, OFFERS
from sflam.run.conditions import ALL, Rule, is_none_of, is_one_of, method_where

LEAN_DEVICES = is_one_of("device.runtime", LEAN)
LIMITED = (
    "model.trainable",
    "model.dtype",
    "learn.device_half",
    "learn.aggregation",
    "learn.local",
)
ROUNDED = (
    ("model.trainable", "full", "only frozen matrices are rounded, and all of them are trained"),
    ("model.dtype", "bfloat16", "its numbers take 16 bits as they are, too few for those that are read back"),
    ("learn.aggregation", "residual", "frozen matrices change with every round"),
)

LEAN_RULES: tuple[Rule, ...] = (
    Rule(
        "lean-trunkless",
        (LEAN_DEVICES, method_where(lambda method: not method.split or method.relay)),
        "a device without torch trains a part of a model, at a server that has the rest",
        'use learn.method = "sflam", "sfl-v1" or "sfl-v2", or device.runtime = "torch"',
        ALL,
    ),
    *(
        Rule(
            f"lean-{key.rpartition('.')[2]}",
            (LEAN_DEVICES, is_none_of(key, *OFFERS[key])),
            f"a device without torch can do {', '.join(OFFERS[key])}",
            'choose one of them, or device.runtime = "torch"',
            ALL,
        )
        for key in LIMITED
    ),
    Rule(
        "lean-delta",
        (LEAN_DEVICES, is_one_of("quant.delta", True)),
        "a device without torch keeps no sample's last activations",
        'set quant.delta = false, or device.runtime = "torch"',
        ALL,
    ),
    Rule(
        "lean-answers",
        (LEAN_DEVICES, is_none_of("data.answer", "")),
        "a device without torch learns whole texts",
        'set data.answer = "", or device.runtime = "torch"',
        ALL,
    ),
    *(
        Rule(
            f"weights-{key.rpartition('.')[2]}",
            (is_one_of("device.weights", FLOAT16, INT8), is_one_of(key, value)),
            why,
            'set device.weights = "float32"',
            ALL,
        )
        for key, value, why in ROUNDED
    ),
)
