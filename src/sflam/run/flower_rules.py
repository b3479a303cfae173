"""Rules of a run whose nodes and averages are Flower's."""

from __future__ import annotations

from sflam.run.conditions import FLOWER, Rule, is_none_of, is_one_of, is_set

FLOWER_RULES: tuple[Rule, ...] = tuple(
    Rule(f"flower-{name}", (condition,), why, fix, (FLOWER,))
    for name, condition, why, fix in (
        ("selected", is_set("fleet.selected"), "Flower's strategy chooses the nodes of a round",
         "leave it out, and give the strategy a fraction_train"),
        ("aggregation", is_none_of("learn.aggregation", "fedavg"), "Flower's strategy averages",
         'use learn.aggregation = "fedavg", and choose a strategy'),
        ("optimizer", is_none_of("learn.server_optimizer", "none"), "Flower's strategy moves the global adapters",
         'use learn.server_optimizer = "none", and a strategy such as FedAvgM or FedAdam'),
        ("ranks", is_set("fleet.ranks"), "strategies average arrays of one shape", "use model.rank alone"),
        ("tuned", is_set("fleet.tuned"), "strategies average the same arrays of every node", "use model.tuned alone"),
        ("personal", is_set("learn.personal"), "strategies average the same arrays of every node",
         "leave it out, or use sflam serve"),
        ("servers", is_set("fleet.servers"), "the trunk stands beside the ServerApp",
         "leave it out, or use sflam serve"),
        ("planned", is_one_of("fleet.plan", "measured"),
         "a plan would leave out nodes that the strategy has chosen", "leave it out, or use sflam serve"),
    )
)  # fmt: skip
