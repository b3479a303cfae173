"""What a user should know about the question that a plan of one cell answers."""

from __future__ import annotations

from collections.abc import Iterator

from sflam.allocate.registry import method_of
from sflam.allocate.settings import CHOOSE_BITS
from sflam.config import Job
from sflam.cost.timing import BARRIER, RELAY
from sflam.learn.methods import timing_of
from sflam.network import trace
from sflam.sizes import IDENTITY


def notes(job: Job) -> Iterator[str]:
    """Yield what a user should know about the question itself."""
    if job.network.trace:
        yield from trace.read(job.network.trace).notes
    if timing_of(job) == BARRIER:
        yield (
            "one trunk serves all devices: every step of a round waits for the slowest; methods that are not "
            "exact plan for devices that do not wait, and are scored as ones that do"
        )
    if timing_of(job) == RELAY:
        yield "a relay: each device has the whole band in its turn, and a round is the sum of turns"
        if job.plan.deadline:
            yield "a relay: plan.deadline is for each turn, not for their sum"
    if job.plan.measure_every:
        yield "plan.measure_every measures in simulated runs; here chi is plan.sensitivity"
    if job.network.battery_j:
        yield "network.battery_j is for a whole simulated run; a plan's round is limited by plan.energy_cap"
    if job.learn.cache != "off":
        yield (
            f'learn.cache is "{job.learn.cache}": this is the plan of a round in which every sample is new; simulated '
            "runs count only those whose activations are kept nowhere"
        )
    if job.quant.scheme == IDENTITY:
        yield "quant.scheme is identity: 32 bits are sent for every value, at any choice of bits"
    method = method_of(job.plan)
    if "bits_down" in job.plan.optimize:
        if not job.network.downlink_mbps and not any(each.downlink_mbps for each in job.network.device):
            yield (
                "network.downlink_mbps is 0, so the way down takes no time and fewer bits gain nothing: they stay as "
                f"they are, {job.quant.bits_down} down"
            )
        elif method == "bits" and not job.plan.sensitivity_down:
            yield (
                "plan.sensitivity_down is 0, so noise on the way down costs nothing and the fewest bits win; give the "
                "chi measured for your model, as sflam simulate does with plan.measure_every"
            )
    if "bits" in job.plan.optimize and method not in CHOOSE_BITS:
        yield f"method {method} does not choose bits; they stay as they are, {job.quant.bits_up} up"
    elif ("bits" in job.plan.optimize or method == "bits") and not job.plan.sensitivity:
        yield (
            "plan.sensitivity is 0, so quantization noise costs nothing and the fewest bits win; give the chi measured "
            "for your model, as sflam simulate does with plan.measure_every"
        )
