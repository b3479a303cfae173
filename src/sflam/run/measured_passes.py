"""``learn.passes = "measured"``: a job with the passes that are fastest for its model, where it runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from peft import PeftModel

from sflam.config import Job
from sflam.cost.memory import rows_of_pass
from sflam.learn.examples import Examples
from sflam.learn.fit import built_step
from sflam.learn.grouping import group_rows
from sflam.learn.pass_search import fastest_pass, frames_for
from sflam.learn.server import Trunk
from sflam.model.backbone import Backbone
from sflam.model.built import token_shape
from sflam.model.split import split


def with_measured_passes(
    job: Job, backbone: Backbone, model: PeftModel, examples: Examples
) -> tuple[Job, tuple[str, ...]]:
    """Return the job with ``learn.passes = "rule"`` and the memory found, and a note; any other job as it is.

    Args:
        job: what is asked for.
        backbone: adapted by ``model``; it is as before afterwards.
        model: its peft wrapper.
        examples: the training samples.
    """
    learn = job.learn
    if learn.passes == "rule":
        return job, ()
    home = job.model.labels == "device"
    cut = min((placement.cut for placement in job.placements if not placement.alone), default=0)
    tokens, hidden = token_shape(backbone, examples.take(np.arange(1)).inputs)
    step = built_step(backbone, tokens, learn, home=home)
    batch, rows = rows_of_a_step(job)
    first = np.arange(min(rows, rows_of_pass(step, cut))) % len(examples)
    samples = examples.take(first)
    tokens, hidden = token_shape(backbone, samples.inputs)
    frames = frames_for(
        samples, cut, tokens, hidden, batch, next(iter(backbone.model.parameters())), home=home
    )
    practice = learn.practice
    _, segment = split(
        backbone,
        model,
        [cut] * len(frames),
        shared=practice.shared,
        frozen_a=practice.aggregation == "freeze-a",
        frozen_half=practice.device_half == "frozen",
        labels=job.model.labels,
    )
    segment.checkpointing = learn.checkpointing
    trunk = Trunk(segment, backbone.task, learn, shared=practice.shared)
    found = fastest_pass(trunk, step, frames)
    return replace(job, learn=replace(learn, passes="rule", memory_gb=found.memory_gb)), (found.note(),)


def rows_of_a_step(job: Job) -> tuple[int, int]:
    """Return how many rows of a device, and of all, share an optimiser step of the server."""
    active = job.fleet.selected or job.fleet.devices
    update = job.learn.practice.server_update if job.learn.practice.shared else "batched"
    if update == "sequential":
        return job.learn.batch, job.learn.batch
    if update == "mixed":
        return 1, group_rows(job.learn, job.sampling) or active
    return job.learn.batch, active * job.learn.batch
