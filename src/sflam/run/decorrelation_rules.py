"""Rules of ``privacy.distance_correlation``: where devices train nothing that could send less, or cannot ask for it."""

from __future__ import annotations

from sflam.config import Job
from sflam.device.settings import LEAN
from sflam.learn.methods import METHODS
from sflam.run.conditions import ALL, RUNS, Rule, is_one_of, is_set, method_where
from sflam.run.situations import deep_cut, moving_cuts

WEIGHED = is_set("privacy.distance_correlation")
PLAIN = "set privacy.distance_correlation = 0"


def _nothing(job: Job) -> str:
    """The key by which devices of a cut model train nothing before the cut."""
    if not METHODS[job.learn.method].split or job.model.trainable == "full":
        return ""
    if job.learn.practice.device_half == "frozen":
        return "learn.device_half"
    return "" if deep_cut(job) or moving_cuts(job) else "model.cut"


DECORRELATION_RULES: tuple[Rule, ...] = tuple(
    Rule(f"decorrelation-{name}", (WEIGHED, condition), why, fix, commands)
    for name, condition, why, fix, commands in (
        ("unsplit", method_where(lambda method: not method.split), "this method has no cut at which anything is sent",
         f"use a method that cuts the model, or {PLAIN}", RUNS),
        ("nothing", _nothing, "devices train nothing that could change what they send", f"cut later, or {PLAIN}", RUNS),
        ("samples", is_set("privacy.sample_clip"), "what one sample adds to it would hang on the others of its step",
         f"set privacy.sample_clip = 0, or {PLAIN}", RUNS),
        ("lean", is_one_of("device.runtime", LEAN), "a device without torch has no gradient of it",
         f'set device.runtime = "torch", or {PLAIN}', ALL),
    )
)  # fmt: skip
