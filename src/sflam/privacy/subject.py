"""What is audited: the model of a run as its server has it, samples its devices trained on, and public ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from sflam import config
from sflam.config import Job
from sflam.data.partition import share_out
from sflam.data.sources import load
from sflam.errors import ConfigError
from sflam.learn.examples import Examples, Minibatch
from sflam.learn.methods import method_of
from sflam.model.adapters import attach, state_of
from sflam.model.backbone import Backbone
from sflam.model.lora import Rows
from sflam.model.loss import group_losses
from sflam.model.split import Arrival, split
from sflam.records.run_folder import RunFolder
from sflam.run.assemble import examples_of, preprocessor_of
from sflam.run.compatibility import check
from sflam.run.job_model import backbone_for, backbone_of
from sflam.run.saved_model import adapted
from sflam.seeds import generator


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and samples.

    Attributes:
        job: of the run.
        backbone: the model.
        model: its peft wrapper, with the global adapters.
        trained: whether the run has ended; else the adapters are those it starts from.
        members: the samples devices train on.
        public: samples that they do not.
        classes: their names.
    """

    job: Job
    backbone: Backbone
    model: PeftModel
    trained: bool
    members: Examples
    public: Examples
    classes: tuple[str, ...]

    def with_scheme(self, scheme: str) -> Subject:
        """Return the same whose devices use another quantizer; ConfigError names what it does not go with."""
        job = replace(self.job, quant=replace(self.job.quant, scheme=scheme))
        check(job)
        return replace(self, job=job)

    def drawn(self, examples: Examples, count: int, stream: str) -> Minibatch:
        """Return at most ``count`` samples without replacement, from a random stream of that name."""
        some = min(count, len(examples))
        rng = generator(self.job.seed, "audit", *map(ord, stream))
        return examples.take(np.sort(rng.choice(len(examples), some, replace=False)).astype(np.int64))

    @torch.no_grad()
    def right(self, hidden: Tensor, batch: Minibatch, cut: int) -> float:
        """Return the share of samples whose class the model has right, of their activations [N,T,d] at ``cut``."""
        _, trunk = split(self.backbone, self.model, [cut])
        trunk.stack.write(0, state_of(self.model))
        trunk.eval()
        logits = trunk([Arrival(cut, hidden, Rows((0,), (len(hidden),)))], batch.lengths)
        return float((logits.argmax(-1) == batch.labels).double().mean())

    def graded(self, hidden: Tensor, batch: Minibatch, cut: int) -> tuple[NDArray[np.float64], Tensor]:
        """Return each sample's loss [N], and its gradient [N,T,d] with respect to its activations at ``cut``."""
        _, trunk = split(self.backbone, self.model, [cut])
        trunk.stack.write(0, state_of(self.model))
        trunk.eval()
        at = hidden.detach().clone().requires_grad_()
        logits = trunk([Arrival(cut, at, Rows((0,), (len(at),)))], batch.lengths)
        losses = group_losses(self.backbone.task, logits, batch.labels, (1,) * len(at))
        (back,) = torch.autograd.grad(losses.sum(), at)
        return losses.detach().double().cpu().numpy(), back


def subject_of(path: Path, settings: list[str] | None = None) -> Subject:
    """Return what there is to audit in a run's folder, or of a job file before any training.

    Raises:
        ConfigError: its devices send no activations.
        SflamError: it cannot be read, or is not finished.
    """
    folder = path.is_dir()
    if folder and settings:
        raise ConfigError("--set changes a job, and this is a run that has been trained; give its job file")
    job = RunFolder(path).read_job() if folder else config.load(path, settings or [])
    check(job)
    if not method_of(job).split:
        raise ConfigError(
            f'learn.method = "{job.learn.method}" sends no activations, which an audit is about; give a run of a '
            'split method such as "sflam"'
        )
    splits = load(job.samples, job.seed, preprocessor_of(job))
    classes = tuple(RunFolder(path).read_result()["classes"]) if folder else splits.train.classes
    if folder and job.model.trainable == "full":
        merged = str(RunFolder(path).merged)
        backbone = backbone_for(job, splits.train.kind, len(splits.train.classes), merged)
    else:
        backbone = backbone_of(job, splits.train, len(splits.train.classes))
    begun = job.model.trainable == "full" or not folder  # the model of the run has what was trained in it
    model = attach(backbone, job.model, seed=job.seed) if begun else adapted(backbone, RunFolder(path))
    shared = share_out(job.data, splits.train, job.fleet.devices, job.seed)
    held = np.sort(np.concatenate(shared.parts))
    model.eval()
    return Subject(
        job=job,
        backbone=backbone,
        model=model,
        trained=folder,
        members=examples_of(shared.train.take(held), backbone),
        public=examples_of(splits.test, backbone),
        classes=classes,
    )
