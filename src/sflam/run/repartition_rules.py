"""Rules of ``[repartition]``: cuts of a served run that move between rounds."""

from __future__ import annotations

from sflam.codec.quantizers import QUANTIZERS
from sflam.config import Job
from sflam.model.settings import IN_MEMORY
from sflam.run.conditions import (
    FLOWER,
    SERVE,
    Rule,
    is_none_of,
    is_one_of,
    is_set,
    where,
)

MOVES = is_set("repartition.mode")
OFF = 'or set repartition.mode = "off"'


def _remembers(scheme: str) -> bool:
    """Whether a quantizer remembers what it left out of a device's gradients."""
    return hasattr(QUANTIZERS.get(scheme), "encode_after")


def _common_grid(job: Job) -> str:
    """The key that gives all devices one grid, where no secure sum needs it."""
    common = job.quant.adapters_scale == "common" and not job.privacy.secure_aggregation
    return "quant.adapters_scale" if common else ""


def _no_room(job: Job) -> str:
    """The key that leaves no device a shallower cut."""
    least = job.repartition.least_cut
    return "repartition.least_cut" if all(place.cut <= least for place in job.placements) else ""


REPARTITION_RULES: tuple[Rule, ...] = (
    Rule("repartition-flower", (MOVES,), "Flower's nodes are given their part of the model once",
         'use sflam serve, or set repartition.mode = "off"', (FLOWER,)),
    Rule("repartition-no-room", (MOVES, _no_room), "no device has more blocks than the least, so none can move",
         f"cut later, lower repartition.least_cut, {OFF}", (SERVE,)),
    *(
        Rule(f"repartition-{name}", (MOVES, *others), why, f"{fix}, {OFF}", (SERVE,))
        for name, others, why, fix in (
            ("buffered", (is_one_of("learn.sync", "buffered"),),
             "devices that work at their own pace have no moment at which cuts could move", 'set learn.sync = "round"'),
            ("secure", (is_set("privacy.secure_aggregation"),),
             "sums under masks are of vectors of one size", "set privacy.secure_aggregation = false"),
            ("common", (_common_grid,), "devices of several cuts share no grid",
             'set quant.adapters_scale = "own"'),
            ("personal", (is_set("learn.personal"),), "parts of a device's own stay on the side where they are",
             'set learn.personal = "none"'),
            ("servers", (is_set("fleet.servers"),), "trunk servers hold the blocks from the cuts of the start on",
             "leave fleet.servers out"),
            ("frozen", (is_one_of("learn.device_half", "frozen"),), "devices need one cut to have the same frozen half",
             'set learn.device_half = "trained"'),
            ("cache", (is_none_of("learn.cache", "off"),), "activations that are kept are of one cut",
             'set learn.cache = "off"'),
            ("residual", (is_one_of("learn.aggregation", "residual"),),
             "a device that takes the job up again has frozen weights without the corrections of before",
             'use learn.aggregation = "fedavg"'),
            ("memory", (where("quant.scheme", _remembers),),
             "what a quantizer left out is of the activations of one cut", 'use quant.scheme = "uniform" or "rotated"'),
            ("selected", (is_one_of("learn.state", "keep"), is_set("fleet.selected")),
             "momenta of absent devices are kept in pages of one size", 'set learn.state = "reset"'),
            ("robust", (is_set("learn.robust"), is_one_of("learn.trunk", "shared")),
             "it compares the same tensors of every device", 'set learn.robust = "none"'),
            ("tuned", (is_set("fleet.tuned"),), "what a device tunes is chosen together with its cut",
             "leave fleet.tuned out"),
            ("planned", (is_one_of("fleet.plan", "measured"),), "plans count with cuts that stay",
             "leave fleet.plan out"),
            ("trunk-bits", (is_set("model.trunk_bits"),), "a block of the server is rounded otherwise than a device's",
             "set model.trunk_bits = 0"),
            ("trunk-weights", (is_none_of("model.trunk_weights", IN_MEMORY),),
             "blocks of the server are where they were put at the start", "leave model.trunk_weights out"),
            *((name, (is_set(f"privacy.{key}"),), "what protects devices is set, and counted, for one cut",
               f"leave privacy.{key} out")
              for name, key in (("noise", "noise"), ("clip", "sample_clip"), ("distance", "distance_correlation"),
                                ("private-adapters", "adapters"))),
        )
    ),
)  # fmt: skip
