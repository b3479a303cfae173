"""Rules of blocks that devices tune (``fleet.tuned``), given or chosen by plans (``plan.optimize``)."""

from __future__ import annotations

from sflam.run.conditions import ALL, NETWORK, SIMULATE, Rule, holds, is_one_of, is_set, method_where
from sflam.run.situations import several, tuned_apart, tuned_in_a_cell, tuned_last

CHOSEN = holds("plan.optimize", "tuned")
APART = (
    (
        "all",
        is_set("model.tuned"),
        "all devices tune the same blocks or each its own",
        "leave one of them out",
    ),
    ("full", is_one_of("model.trainable", "full"), "full training has no adapters", "leave fleet.tuned out"),
    (
        "adapter",
        is_set("model.adapter"),
        "a device has no adapters in blocks that it does not tune",
        "leave one of them out",
    ),
    (
        "unsplit",
        method_where(lambda method: not method.split),
        "this method has no halves that could differ",
        "use model.tuned, or another learn.method",
    ),
    (
        "shared",
        is_one_of("learn.trunk", "shared"),
        "one server copy trains the same blocks for all",
        'use learn.trunk = "per-device"',
    ),
    (
        "averaged",
        is_one_of("learn.device_half", "averaged"),
        "devices that average every step have the same half",
        "use model.tuned",
    ),
    (
        "aggregation",
        is_one_of("learn.aggregation", "svd", "residual"),
        "products are those of all devices",
        'use learn.aggregation = "fedavg" or "freeze-a"',
    ),
    (
        "local",
        is_one_of("learn.local", "fedprox", "scaffold"),
        "it compares a device's adapters with global ones, some of which it does not have",
        "use model.tuned, or another learn.local",
    ),
    (
        "personal",
        is_one_of("learn.personal", "device-half"),
        "a block would be one device's own and another's without adapters",
        "use model.tuned, or another learn.personal",
    ),
)

TUNED_RULES: tuple[Rule, ...] = (
    *(Rule(f"tuned-{key}", (condition, tuned_apart), why, fix) for key, condition, why, fix in APART),
    Rule(
        "tuned-cell",
        (tuned_in_a_cell,),
        "plans for one server do not choose what is tuned",
        'leave "tuned" out of plan.optimize and set model.tuned, or plan for several servers',
        NETWORK,
    ),
    Rule(
        "tuned-cuts",
        (CHOSEN, is_set("fleet.cuts"), is_one_of("fleet.tuned", ())),
        "servers and cuts stay as they are given, and so does what is tuned",
        "give fleet.tuned too, or leave it out",
        (SIMULATE,),
    ),
    Rule(
        "tuned-last",
        (several, tuned_last),
        "plans for several servers count first layers",
        "give numbers of 0 or more",
        (SIMULATE,),
    ),
    Rule(
        "tuned-fit",
        (is_set("plan.fit_weight"), is_one_of("plan.fit", ())),
        "there is no loss to weigh",
        "give the losses of 1, 2, ... tuned layers, as sflam stability measures them",
        ALL,
    ),
)
