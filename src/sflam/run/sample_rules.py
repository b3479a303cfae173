"""Rules of ``privacy.sample_clip``: where there is no gradient of a sample, or it would hang on others."""

from __future__ import annotations

from sflam.config import Job
from sflam.device.settings import LEAN
from sflam.learn.methods import METHODS
from sflam.plan import ALL_LOCAL
from sflam.run.conditions import ALL, RUNS, SIMULATE, Rule, is_one_of, is_set, method_where, where
from sflam.run.situations import nothing_apart, several

CLIPPED = is_set("privacy.sample_clip")
PLAIN = "set privacy.sample_clip = 0"


def _nothing(job: Job) -> str:
    """The key by which devices of a cut model train nothing."""
    return nothing_apart(job) if METHODS[job.learn.method].split else ""


SAMPLE_RULES: tuple[Rule, ...] = tuple(
    Rule(f"sample-{name}", (CLIPPED, *others), why, fix, commands)
    for name, others, why, fix, commands in (
        ("unsplit", (method_where(lambda method: not method.split),), "this method has no half on a device",
         f"use a method that cuts the model, or {PLAIN}", RUNS),
        ("nothing", (_nothing,), "devices train nothing", f"cut later, or {PLAIN}", RUNS),
        ("full", (method_where(lambda method: method.split), is_one_of("model.trainable", "full")),
         "gradients of samples are those of adapters",
         f'use model.trainable = "lora", or {PLAIN}', RUNS),
        ("alone", (where("fleet.servers", lambda servers: ALL_LOCAL in servers),),
         "who trains alone trains the server's blocks too, whose gradients are not clipped",
         f"give every device a server, or {PLAIN}", RUNS),
        ("several", (several,), "a plan may let a device train alone, and the server's blocks are not clipped",
         f"simulate one server, or {PLAIN}", (SIMULATE,)),
        ("buffered", (is_one_of("learn.sync", "buffered"),), "what is spent is counted by rounds",
         'use learn.sync = "round"', RUNS),
        ("averaged", (is_one_of("learn.device_half", "averaged"),),
         "gradients of the device half go up in every step as they are", 'use learn.device_half = "trained"', RUNS),
        ("fedlc", (is_one_of("learn.local", "fedlc"),), "it counts a device's labels, so all of them move every sample",
         'use learn.local = "plain" or "fedprox"', RUNS),
        ("delta", (is_one_of("quant.delta", True),), "what comes back would hang on a sample's earlier activations",
         "set quant.delta = false", RUNS),
        ("topk", (method_where(lambda method: method.quantized), is_one_of("quant.scheme", "topk")),
         "what it leaves out of one sample's gradient it adds to another's", "choose another quant.scheme", RUNS),
        *((f"{name}", (is_set(key),), "gradients that it looks at are not clipped", f"leave {key} out", (SIMULATE,))
          for name, key in (("measured", "plan.measure_every"), ("calibrated", "network.calibrate"))),
        ("lean", (is_one_of("device.runtime", LEAN),), "a device without torch has no gradient of each sample",
         f'set device.runtime = "torch", or {PLAIN}', ALL),
    )
)  # fmt: skip
