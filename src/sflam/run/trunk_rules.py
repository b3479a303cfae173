"""Rules of a served run over several servers: ``fleet.servers`` with trunk servers that keep nothing between rounds."""

from __future__ import annotations

from sflam.plan import ALL_LOCAL
from sflam.run.conditions import SERVE, Condition, Rule, is_none_of, is_one_of, is_set, where
from sflam.sizes import is_variable

SEVERAL: Condition = where("fleet.servers", any)
"""Devices are at several servers, or one trains everything by itself."""
WITHOUT: Condition = where("fleet.servers", lambda servers: ALL_LOCAL in servers)

TRUNK_RULES: tuple[Rule, ...] = (
    Rule(
        "servers-alone",
        (WITHOUT,),
        "a device that is served holds the blocks before its cut, and not the whole model",
        "give every device a server",
        (SERVE,),
    ),
    *(
        Rule(f"servers-{name}", (condition, SEVERAL), why, fix, (SERVE,))
        for name, condition, why, fix in (
            (
                "state",
                is_none_of("learn.state", "reset"),
                "what an optimiser remembers would not move with the devices of a trunk server that is gone",
                'set learn.state = "reset"',
            ),
            (
                "variable",
                where("quant.scheme", is_variable),
                "what a quantizer left out would not move with the devices of a trunk server that is gone",
                "choose another quant.scheme",
            ),
            (
                "local",
                is_none_of("learn.local", "plain"),
                "rules of devices do not travel to trunk servers",
                'use learn.local = "plain"',
            ),
            (
                "residual",
                is_one_of("learn.aggregation", "residual"),
                "corrected weights do not travel to trunk servers",
                "use another learn.aggregation",
            ),
            (
                "cache",
                is_one_of("learn.cache", "server"),
                "what a trunk server keeps would not move with its devices",
                'use learn.cache = "device" or "off"',
            ),
            (
                "personal",
                is_set("learn.personal"),
                "trunk servers keep nothing of a device between rounds",
                'set learn.personal = "none"',
            ),
            (
                "trunk-bits",
                is_set("model.trunk_bits"),
                "the frozen model travels to trunk servers as it is",
                "set model.trunk_bits = 0",
            ),
        )
    ),
)
