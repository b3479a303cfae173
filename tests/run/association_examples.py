"""Examples of the rules of devices that move among servers: name of the rule -> settings that break it alone."""

from __future__ import annotations

TWO = ("fleet.devices=2", "fleet.servers=[0, 1]")
MOVES = "association.mode=ordered"

ASSOCIATION: dict[str, tuple[str, ...]] = {
    "association-one": (MOVES, "fleet.devices=2", "fleet.servers=[1, 1]"),
    "association-cache": (MOVES, *TWO, "learn.cache=device", "model.cut=0"),
    "association-selected": ("association.mode=measured", *TWO, "fleet.selected=1"),
    "unused-saves": (MOVES, *TWO, "association.saves=0.2"),
    "unused-keep_rounds": (MOVES, *TWO, "association.keep_rounds=3"),
}
