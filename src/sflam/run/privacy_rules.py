"""Rules of ``[privacy]``: what would go around a defence, and what it cannot guard."""

from __future__ import annotations

from sflam.config import Job
from sflam.device.settings import LEAN
from sflam.plan import ALL_LOCAL
from sflam.privacy.settings import NONE
from sflam.run.conditions import ALL, SIMULATE, Rule, is_none_of, is_one_of, is_set, method_where, where
from sflam.run.situations import several


def _guarding(job: Job) -> str:
    """The key that makes devices clip what they send."""
    clips = next((key for key in ("clip", "clip_gradients", "clip_loss") if getattr(job.privacy, key)), "")
    return f"privacy.{clips}" if clips else OWN(job)


OWN = is_none_of("privacy.adapters", NONE)

PRIVACY_RULES: tuple[Rule, ...] = (
    *(
        Rule(f"privacy-{name}", (_guarding, other), why, fix)
        for name, other, why, fix in (
            ("unsplit", method_where(lambda method: not method.split), "this method has no cut to guard",
             "leave [privacy] out, or use a method that cuts the model"),
            ("buffered", is_one_of("learn.sync", "buffered"), "what is spent is counted by rounds",
             'use learn.sync = "round"'),
            ("averaged", is_one_of("learn.device_half", "averaged"),
             "gradients of the device half go up in every step as they are",
             'use learn.device_half = "trained" or "frozen"'),
            ("delta", is_one_of("quant.delta", True), "changes of activations would carry noise on noise",
             "set quant.delta = false"),
            ("scaffold", is_one_of("learn.local", "scaffold"), "control variates go up beside the adapters as they are",
             'use learn.local = "plain"'),
        )
    ),
    Rule("privacy-relay", (OWN, method_where(lambda method: method.relay)),
         "devices hand on the half itself, not its change",
         'set privacy.adapters = "none", or use another method'),
    Rule("privacy-fedlc",
         (is_set("privacy.noise"), is_one_of("learn.local", "fedlc"), is_one_of("model.labels", "device")),
         "it counts a device's labels, so that one sample shows in the gradients of all", 'use learn.local = "plain"'),
    Rule("privacy-loss", (is_set("privacy.clip_loss"), is_one_of("device.runtime", LEAN)),
         "a device without torch has no loss of each sample",
         'set device.runtime = "torch", or set privacy.clip_loss = 0', ALL),
    Rule("privacy-loss-alone",
         (is_set("privacy.clip_loss"), where("fleet.servers", lambda servers: ALL_LOCAL in servers)),
         "who trains alone reports its loss as it is", "give every device a server, or set privacy.clip_loss = 0"),
    Rule("privacy-loss-several", (is_set("privacy.clip_loss"), several),
         "a plan may let a device train alone, which reports its loss as it is",
         "simulate one server, or set privacy.clip_loss = 0", (SIMULATE,)),
    Rule("privacy-common", (OWN, is_one_of("quant.adapters_scale", "common")),
         "a grid that the last round set would cut noise off", 'use quant.adapters_scale = "own"'),
)  # fmt: skip
