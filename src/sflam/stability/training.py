"""The training that stability is measured of: what ``sflam train`` does with a job, on a set of samples that is given.

Its fleet, cut, quantizer, optimiser, partition, rounds and seeds are the job's. Samples are known by their place in the
set, so that one that is replaced changes neither who holds what, nor the order of mini-batches, nor the noise of the
quantizer, nor dropout: what is not replaced has common random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.data.partition import share_out
from sflam.errors import ConfigError
from sflam.learn.evaluate import Score
from sflam.learn.examples import Examples
from sflam.learn.methods import Material, method_of
from sflam.learn.round import train
from sflam.model.adapters import State, adapted_blocks, load_state, parameters_of
from sflam.model.lower_rank import A_ENDS
from sflam.run.assemble import Assembly, assemble, examples_of

Samples = NDArray[np.int64]
UNCHANGED = ("noise", "brightness", "contrast", "rotation", "flipped")
"""Keys of ``[data]`` that change what a device holds."""


def as_measured(job: Job) -> Job:
    """Return the job without what is no part of its training: a virtual clock, and a choice among its rounds.

    Raises:
        ConfigError: a job that leaves no one model, or that changes the samples.
    """
    problems = [
        f"data.{key} changes the samples of a device, and a sample could not be replaced by another; leave it out"
        for key in UNCHANGED
        if getattr(job.data, key)
    ]
    if job.learn.method == "local" or job.learn.personal != "none":
        problems.append("stability is that of one model; use a method that makes one, without learn.personal")
    if job.learn.practice.aggregation == "residual":
        problems.append(
            'learn.aggregation = "residual" changes the frozen weights, which every training must share; use another'
        )
    if problems:
        raise ConfigError(problems)
    return replace(
        job,
        learn=replace(job.learn, keep="last", stop_after=0),
        network=replace(job.network, simulate=False),
    )


@dataclass(frozen=True, eq=False)
class Retraining:
    """A job that is trained again and again, from one start.

    Attributes:
        assembly: its model and data.
        rounds: of a training.
    """

    assembly: Assembly
    rounds: int

    @classmethod
    def of(cls, job: Job, rounds: int = 0) -> Retraining:
        """Return the training of a job; ``rounds`` instead of its own. Raises what ``assemble`` does."""
        if rounds:
            job = replace(job, learn=replace(job.learn, rounds=rounds))
        return cls(assemble(job), job.learn.rounds)

    @property
    def pool(self) -> Dataset:
        """The training part that sets are drawn from."""
        return self.assembly.splits.train

    @property
    def blocks(self) -> int:
        """Y."""
        return self.assembly.backbone.depth

    @property
    def tuned(self) -> float:
        """Blocks that carry adapters."""
        return len(adapted_blocks(self.assembly.backbone))

    def parts(self, samples: Samples) -> tuple[Samples, ...]:
        """Return who holds which place of a set, as ``[data]`` shares it out; raises DataError where it cannot."""
        job = self.assembly.job
        return share_out(job.data, self.pool.take(samples), job.fleet.devices, job.seed).parts

    def examples(self, samples: Samples) -> Examples:
        """Return a set of the pool's samples, by place."""
        buckets = self.assembly.job.data.buckets
        return examples_of(self.pool.take(samples), self.assembly.backbone, buckets=buckets)

    def run(self, samples: Samples, parts: tuple[Samples, ...]) -> State:
        """Train from the start on a set; return the global adapters, which the model then has, in evaluation mode."""
        assembly = self.assembly
        load_state(assembly.model, assembly.state)
        method = method_of(assembly.job)
        material = Material(assembly.job, assembly.backbone, assembly.model, self.examples(samples), parts)
        fleet = method.halves(material) or method.fleet(material)
        state = assembly.state
        for _, after in train(fleet, state, lambda _: Score(0.0, 0.0), range(self.rounds), every=0):
            state = after
        load_state(assembly.model, state)
        assembly.model.zero_grad()
        assembly.model.eval()
        return state

    def trained(self) -> list[nn.Parameter]:
        """Return what a training moves, of the whole model."""
        learn, halves = self.assembly.job.learn, self.assembly.halves
        named = parameters_of(self.assembly.model)
        if halves is not None:
            segments = (halves.devices.segment, *(trunk.segment for trunk in halves.servers.trunks.values()))
            moved = {name for segment in segments for name in segment.names()}
        else:
            stays = A_ENDS if learn.practice.aggregation == "freeze-a" else ()
            moved = {name for name in named if not name.endswith(stays)}
        return [parameter for name, parameter in named.items() if name in moved]
