"""Rules of buffered rounds (``learn.sync = "buffered"``), whose devices work at their own pace."""

from __future__ import annotations

from sflam.codec.quantizers import QUANTIZERS
from sflam.cost.timing import BARRIER
from sflam.network.presence import uncertain
from sflam.run.conditions import (
    FLOWER,
    ON_RANKS,
    RUNS,
    SERVE,
    SIMULATE,
    TRAIN,
    Rule,
    is_none_of,
    is_one_of,
    is_set,
    where,
)
from sflam.run.conditions import method_where as method
from sflam.run.situations import chosen_cut, several
from sflam.sizes import is_variable

BUFFERED = is_one_of("learn.sync", "buffered")
SHARED = is_one_of("learn.trunk", "shared")


def _remembers(scheme: str) -> bool:
    """Whether a quantizer remembers what it left out of a device's gradients."""
    return hasattr(QUANTIZERS.get(scheme), "encode_after")


BUFFERED_RULES: tuple[Rule, ...] = (
    Rule("buffered-train", (BUFFERED,), "no clock says whose update comes first",
         "run it with sflam simulate", (TRAIN,)),
    Rule("buffered-flower", (BUFFERED,), "Flower's strategy opens and closes a round for all of its nodes at once",
         'set learn.sync = "round", or use sflam serve', (FLOWER,)),
    *(
        Rule(f"buffered-serve-{name}", (BUFFERED, other), why, fix, (SERVE,))
        for name, other, why, fix in (
            ("shared", SHARED, "a device begins with the newest version in the trunk that serves it, which would take "
             "back what a common one has learnt since", 'set learn.trunk = "per-device"'),
            ("state", is_one_of("learn.state", "keep"),
             "a device and a server that dies would remember different cycles", 'set learn.state = "reset"'),
            ("memory", where("quant.scheme", _remembers),
             "a device and a server that dies would remember different cycles",
             'use quant.scheme = "uniform" or "rotated"'),
            ("servers", is_set("fleet.servers"), "trunk servers open a round for all of their devices at once",
             "leave fleet.servers out"),
            ("quorum", is_set("fleet.quorum"), "no round waits for a quorum",
             "leave fleet.quorum out, and set learn.buffer"),
            ("planned", is_one_of("fleet.plan", "measured"), "plans are of rounds of all devices",
             "leave fleet.plan out, or set learn.sync = \"round\""),
        )
    ),
    Rule("buffered-ranks", (BUFFERED,), "cycles are not shared out", "run it on one rank, without --ranks and torchrun",
         (ON_RANKS,)),
    *(
        Rule(f"buffered-{name}", (BUFFERED, other), why, fix, RUNS)
        for name, other, why, fix in (
            ("unsplit", method(lambda one: not one.split or one.relay),
             "it has no halves of a device's own that move together", 'use learn.method = "sflam" or "sfl-v1"'),
            ("averaged", is_one_of("learn.device_half", "averaged"), "no step is one of all devices",
             'use learn.device_half = "trained" or "frozen"'),
            ("global", is_one_of("data.sampling", "global"),
             "a step's mini-batch is of all devices' samples, and no step is one of all devices",
             'set data.sampling = "local"'),
            ("factors", is_one_of("learn.aggregation", "residual", "svd"),
             "products of factors of several versions are not those of any one", 'use learn.aggregation = "fedavg"'),
            ("scaffold", is_one_of("learn.local", "scaffold"), "control variates are of rounds that all began alike",
             'use learn.local = "plain" or "fedprox"'),
            ("personal", is_set("learn.personal"), "parts of a device's own are not kept for it",
             'set learn.personal = "none"'),
            ("lora-ranks", is_set("fleet.ranks"), "what a device of lower rank lacks has no version",
             "leave fleet.ranks out"),
            ("selected", is_set("fleet.selected"), "all devices are at work all the time", "leave fleet.selected out"),
            ("cache", is_none_of("learn.cache", "off"), "what is kept is known at a device's turn alone",
             'set learn.cache = "off"'),
            ("adapters", is_one_of("quant.adapters_scale", "common"), "devices of several versions share no grid",
             'set quant.adapters_scale = "own"'),
            *((f"{key}", is_set(f"learn.{key}"), "devices of one version are at different places in the run",
               f"leave learn.{key} out") for key in ("schedule", "warmup", "decay")),
        )
    ),
    *(
        Rule(f"buffered-trunk-{name}", (BUFFERED, SHARED, other), why, fix, (SIMULATE,))
        for name, other, why, fix in (
            ("labels", is_one_of("model.labels", "device"),
             "between the two exchanges of a step the trunk moves on with other devices' steps",
             'set model.labels = "server"'),
            ("cuts", where("fleet.cuts", lambda cuts: len(set(cuts)) > 1),
             "a block that is on some devices and in the trunk of others would be averaged into the trunk",
             "give all devices one cut"),
            ("optimizer", is_none_of("learn.server_optimizer", "none"),
             "it would move a trunk that has moved on by itself", 'set learn.server_optimizer = "none"'),
            ("fedprox", is_one_of("learn.local", "fedprox"),
             "devices of one step began with several versions, and are pulled to one", 'use learn.local = "plain"'),
        )
    ),
    *(
        Rule(f"buffered-{name}", (BUFFERED, other), why, fix, (SIMULATE,))
        for name, other, why, fix in (
            ("presence", uncertain, "an update is in a version whenever it comes, and every device stays",
             "leave failures, presence and fleet.quorum out"),
            ("several", several, "plans for several servers share out a round", "use one server"),
            ("barrier", is_one_of("plan.timing", BARRIER), "no device waits for others", "leave plan.timing out"),
            ("every", is_none_of("plan.every", 0), "a share of the network cannot change while others use theirs",
             "set plan.every = 0"),
            ("cut", chosen_cut, "versions of several cuts have other halves", "do not choose the cut"),
            ("activations", is_one_of("plan.counts", "activations"),
             "adapters would move once all devices have made their steps", 'set plan.counts = "all"'),
            ("variable", where("quant.scheme", is_variable), "when an update comes must be known before it",
             'use quant.scheme = "uniform" or "rotated"'),
            ("deadline", is_set("plan.deadline"), "there is no round that it could end", "leave plan.deadline out"),
            *((key.replace("_", "-"), is_set(name), "it is about rounds of all devices", f"leave {name} out")
              for name in ("plan.measure_every", "network.calibrate", "network.battery_j",
                           "network.idle_always") for key in (name.partition(".")[2],)),
        )
    ),
)  # fmt: skip
