"""How well a finished run does on every device's own share of its data, each device with the model that it has."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from sflam.config import Job
from sflam.data.partition import share_out
from sflam.data.sources import load
from sflam.errors import RunError
from sflam.learn.device_ranks import DeviceRanks
from sflam.learn.evaluate import scores_of
from sflam.learn.methods import method_of
from sflam.learn.metrics import METRICS, Classified, measured
from sflam.model.adapters import State, load_state, state_of
from sflam.model.backbone import Backbone
from sflam.records import history
from sflam.records.run_folder import RunFolder
from sflam.run.assemble import examples_of, preprocessor_of
from sflam.run.partition import expect_record, record_of
from sflam.run.saved_model import own_parts


@dataclass(frozen=True, kw_only=True)
class DeviceShare:
    """How well one device's model does on the device's own training samples, by their true labels.

    Attributes:
        device: its number, from 0.
        samples: how many it has.
        accuracy: share of them predicted right, in [0, 1].
        loss: mean cross-entropy, nats.
        metrics: name -> what each metric but the accuracy makes of them: those of the package, and the user's own that
            ``learn.metric`` names.
    """

    device: int
    samples: int
    accuracy: float
    loss: float
    metrics: dict[str, float]


def expect_shares(run: RunFolder, job: Job) -> None:
    """Raise RunError where a run cannot tell which samples its devices have, or which models."""
    why = ""
    if not run.partition.is_file():
        why = f"it has no {run.partition.name}, which runs of earlier versions did not write"
    elif job.learn.method == "local":
        why = 'with learn.method = "local" every device trained a model of its own, which a run does not keep'
    elif any(record.measured for record in history.read(run.history)[1]):
        why = "it was served, and devices may have brought data of their own, which never left them"
    if why:
        raise RunError(
            f"{run.path} cannot tell what its devices predict of their own data: {why}; leave out --per-device"
        )


def device_shares(
    run: RunFolder, job: Job, backbone: Backbone, model: Any, classes: Sequence[str]
) -> tuple[DeviceShare, ...]:
    """Return how well every device of a run does on its own samples, in the order of the devices.

    A device has the shared adapter, of it the components of its own rank (``fleet.ranks``), and what it keeps for
    itself (``learn.personal``).

    Args:
        run: its folder.
        job: its job.
        backbone: of the run.
        model: with the run's shared adapter, which it has again at the end.
        classes: names of the labels.

    Raises:
        SflamError: the data cannot be read, or are not those of the run any more; a part is damaged.
    """
    splits = load(job.samples, job.seed, preprocessor_of(job))
    shared = share_out(job.data, splits.train, job.fleet.devices, job.seed)
    expect_record(run, record_of(shared, job.data.partition))
    own = job.learn.personal != "none" or bool(job.fleet.ranks)
    state = state_of(model) if own else {}
    found = []
    try:
        for device, part in enumerate(shared.parts):
            if own:
                load_state(model, state_of_device(run, job, backbone, state, device))
            examples = examples_of(shared.train.take(part), backbone, job.model.name)
            scores = scores_of(model, examples, len(classes))
            found.append(_judged(device, scores, splits.train.labels[part], job.learn.metric))
    finally:
        if own:
            load_state(model, state)
    return tuple(found)


def state_of_device(run: RunFolder, job: Job, backbone: Backbone, state: State, device: int) -> State:
    """Return what a device has of the trained tensors ``state`` of a run, with what it keeps for itself."""
    narrow = DeviceRanks(job.fleet.ranks).truncated(device, state)
    if method_of(job).split and job.learn.practice.shared:  # a shared trunk keeps the rank of the model
        there = re.compile(rf"\.{re.escape(backbone.family.path)}\.(\d+)\.")
        cut = job.placements[device].cut
        for name in state:
            block = there.search(name)
            if block and int(block[1]) >= cut:
                narrow[name] = state[name]
    return narrow | own_parts(run, device, state)


def _judged(device: int, scores: torch.Tensor, labels: NDArray[np.int64], metric: str) -> DeviceShare:
    confidence, predicted = scores.softmax(-1).max(-1)
    judged = Classified(labels, predicted.numpy(), confidence.numpy(), scores.shape[-1])
    names = [name for name in ("balanced-accuracy", "macro-f1", metric) if name != "accuracy"]
    return DeviceShare(
        device=device,
        samples=len(labels),
        accuracy=METRICS["accuracy"](judged),
        loss=float(F.cross_entropy(scores, torch.from_numpy(labels))),
        metrics={name: measured(name, judged) for name in dict.fromkeys(names)},
    )
