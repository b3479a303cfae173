"""What rules ask of a whole job: each returns the key by which it is so, "" where it is not."""

from __future__ import annotations

from sflam.allocate.registry import method_of
from sflam.allocate.settings import CHOOSE_BITS
from sflam.config import Job
from sflam.learn.methods import METHODS
from sflam.planner import edge as planning_edge
from sflam.planner.cell import chooses_cut


def several(job: Job) -> str:
    """The key by which a job is about several servers."""
    if not planning_edge.wanted(job):
        return ""
    if job.network.scenario == "refB":
        return "network.scenario"
    if job.network.server:
        return "network.server"
    return "network.servers" if job.network.servers > 1 else "plan.method"


def many_servers(job: Job) -> str:
    """The key by which a network has several servers."""
    if job.network.server:
        return "network.server" if len(job.network.server) > 1 else ""
    return "network.servers" if job.network.servers > 1 else ""


def one_server(job: Job) -> str:
    """The key of one server, where there is one."""
    return "" if planning_edge.wanted(job) else "network.servers"


def chosen_cut(job: Job) -> str:
    """The key by which plans for one server choose the cut."""
    if planning_edge.wanted(job) or not chooses_cut(job, method_of(job.plan)):
        return ""
    return "plan.optimize" if "cut" in job.plan.optimize else "plan.method"


def chosen_bits(job: Job) -> str:
    """The key by which plans choose bits."""
    if "bits" in job.plan.optimize:
        return "plan.optimize"
    return "plan.method" if job.plan.method in CHOOSE_BITS else ""


def band_bits(job: Job) -> str:
    """The key by which plans choose bits over a continuous band."""
    return "" if method_of(job.plan) in ("subchannel-bits", "bcd-bits") else chosen_bits(job)


def moving_cuts(job: Job) -> str:
    """The key by which plans choose cuts anew in every round, for one server or several."""
    among = "" if job.fleet.cuts or job.fleet.servers else several(job)
    return among or chosen_cut(job)


def deep_cut(job: Job) -> str:
    """The key that lets a device keep blocks which are trained."""
    if not METHODS[job.learn.method].split:
        return ""
    key = "fleet.cuts" if job.fleet.cuts else "model.cut"
    return key if any(job.fleet.cuts or (job.model.cut,)) else ""


def trained_cut(job: Job) -> str:
    """The key that lets a device keep blocks which are surely trained: with the first ones, or all, tuned."""
    return deep_cut(job) if job.model.tuned >= 0 else ""


def nothing_apart(job: Job) -> str:
    """The key that leaves devices nothing to train beside a shared trunk."""
    if job.model.labels == "device" or job.model.trainable == "full":
        return ""
    if job.learn.practice.device_half == "frozen":
        return "learn.device_half"
    return "" if deep_cut(job) or moving_cuts(job) else "model.cut"


def tuned_apart(job: Job) -> str:
    """The key by which devices tune blocks of their own."""
    if job.fleet.tuned:
        return "fleet.tuned"
    return "plan.optimize" if planning_edge.chooses_tuned(job) and job.network.simulate else ""


def tuned_in_a_cell(job: Job) -> str:
    """The key by which a plan for one server would choose what is tuned."""
    return "plan.optimize" if planning_edge.chooses_tuned(job) and not planning_edge.wanted(job) else ""


def tuned_last(job: Job) -> str:
    """The key that lets devices tune last blocks of their own."""
    return "fleet.tuned" if any(tuned < 0 for tuned in job.fleet.tuned) else ""


def flipped_beyond(job: Job) -> str:
    """The key that flips labels of a device that is not there."""
    return "data.flipped_devices" if max(job.data.flipped_devices) >= job.fleet.devices else ""


def rank_above(job: Job) -> str:
    """The key that gives a device more than the model's rank."""
    return "fleet.ranks" if max(job.fleet.ranks, default=0) > job.model.rank else ""
