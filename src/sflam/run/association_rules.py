"""Rules of ``[association]``: devices of a served run that move among its servers between rounds."""

from __future__ import annotations

from sflam.config import Job
from sflam.run.conditions import SERVE, Rule, is_none_of, is_one_of, is_set

MOVES = is_set("association.mode")


def _one_server(job: Job) -> str:
    """The key that leaves a job one server, where no plan gives it more at the start."""
    return "fleet.servers" if len(set(job.fleet.servers)) < 2 and not job.fleet.plan else ""


ASSOCIATION_RULES: tuple[Rule, ...] = (
    Rule("association-one", (MOVES, _one_server), "there is no other server to move to",
         'let fleet.servers name two or more, or set association.mode = "off"', (SERVE,)),
    Rule("association-cache", (MOVES, is_none_of("learn.cache", "off")),
         "halves that are made anew for other servers begin without the activations that are kept",
         'set learn.cache = "off", or association.mode = "off"', (SERVE,)),
    Rule("association-selected", (is_one_of("association.mode", "measured"), is_set("fleet.selected")),
         "what is planned is a round that all devices are in",
         'leave fleet.selected out, or set association.mode = "ordered"', (SERVE,)),
)  # fmt: skip
