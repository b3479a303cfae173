"""Average-replace-one stability, measured: train again with one sample replaced, and see how far its loss moves (5.1).

A(S) is what ``sflam train`` makes of the job on n samples S: its own devices, cut, quantizer and rounds. A(S^i) is the
same with sample i replaced by an independent draw, and everything else equal: seed, start, who holds what, order of
mini-batches, dropout, noise of the quantizer. Without these common random numbers the noise of training would hide what
one sample in n does. The tuned fraction p is that of the blocks with adapters (``model.tuned``).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel

from sflam.config import Job
from sflam.errors import ConfigError
from sflam.learn.examples import Examples
from sflam.run.follow_plan import follow
from sflam.seeds import derive, generator
from sflam.stability.curvature import least_curvature, sample_losses, steepest
from sflam.stability.theory import average_stability
from sflam.stability.training import Retraining, as_measured

Samples = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured.

    Attributes:
        layers: values of ``model.tuned``, one measurement each; none takes the first 1, 2, ... up to all.
        as_is: the job as it stands instead, with the blocks that it, or its plan, tunes.
        samples: n, the size of a training set S.
        replacements: samples of S that are replaced, one at a time.
        draws: independent draws of S; the standard error is over these.
        rounds: of a training; 0 takes ``learn.rounds``.
    """

    layers: tuple[int, ...] = ()
    as_is: bool = False
    samples: int = 100
    replacements: int = 8
    draws: int = 3
    rounds: int = 0

    def __post_init__(self) -> None:
        problems = []
        if self.samples < 2:
            problems.append(f"--samples is {self.samples}; replacing one of them needs at least 2")
        if not 1 <= self.replacements <= max(self.samples, 1):
            problems.append(f"--replacements is {self.replacements}; give 1 to --samples = {self.samples}")
        if self.draws < 1:
            problems.append(f"--draws is {self.draws}; it must be at least 1")
        if self.rounds < 0:
            problems.append(f"--rounds is {self.rounds}; it must be at least 1, or 0 for learn.rounds")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class Stability:
    """One tuned fraction, measured.

    Attributes:
        layers: blocks tuned; a mean where devices differ.
        fraction: p = layers / Y.
        measured: mean over draws of the mean |loss of A(S^i) - loss of A(S)| at sample i, in nats.
        error: its standard error over draws; NaN for a single draw.
        largest: the largest such difference.
        rho: largest gradient norm of a sample at A(S), over what is trained; of the steepest draw.
        curvature: least eigenvalue of the Hessian of the mean loss over what is trained; least over draws.
        loss: mean training loss of A(S).
        samples: n.
    """

    layers: float
    fraction: float
    measured: float
    error: float
    largest: float
    rho: float
    curvature: float
    loss: float
    samples: int


def measure(
    job: Job, asked: Asked, on_training: Callable[[int, int], None] = lambda done, depth: None
) -> Iterator[Stability]:
    """Yield the stability of a job's training, tuned layer count by layer count.

    Args:
        job: what ``sflam train`` would do; its plan is followed.
        asked: what to measure.
        on_training: called after each training with the number done and the model's layers.

    Raises:
        ConfigError: more layers than the model has, too few samples in the data, or a job that cannot be measured.
        SflamError: what :func:`sflam.run.assemble.assemble` raises.
    """
    job, _ = follow(as_measured(job))
    done = itertools.count(1)
    first = Retraining.of(job, asked.rounds)
    depth, held = first.blocks, len(first.pool)
    if (need := asked.samples + asked.replacements) > held:
        raise ConfigError(
            f"--samples {asked.samples} and --replacements {asked.replacements} need {need} training samples; data "
            f"{job.data.name!r} has {held}"
        )
    layers = asked.layers or tuple(range(1, depth + 1))
    if not asked.as_is and (wrong := [count for count in layers if not 1 <= abs(count) <= depth]):
        raise ConfigError(
            f"--layers holds {wrong[0]}; model {job.model.name!r} has {depth} layers, so give 1 to {depth}, or -1 to "
            f"-{depth} for the last ones"
        )

    def counted() -> None:
        on_training(next(done), depth)

    if asked.as_is:
        yield _at(first, asked, counted)
        return
    for count in layers:
        tuned = replace(job, model=replace(job.model, tuned=count))
        yield _at(Retraining.of(tuned, asked.rounds), asked, counted)


def trainings(asked: Asked, depth: int) -> int:
    """Return how many trainings a measurement takes."""
    counts = 1 if asked.as_is else len(asked.layers or range(depth))
    return counts * asked.draws * (1 + asked.replacements)


def _at(training: Retraining, asked: Asked, on_training: Callable[[], None]) -> Stability:
    assembly = training.assembly
    job, model = assembly.job, assembly.model
    original: list[list[float]] = []
    replaced: list[list[float]] = []
    rho, curvature, losses = 0.0, np.inf, []
    for draw in range(asked.draws):
        rng = generator(job.seed, "stability", draw)
        drawn = rng.permutation(len(training.pool))[: asked.samples + asked.replacements]
        chosen, fresh = drawn[: asked.samples], drawn[asked.samples :]
        places = rng.permutation(asked.samples)[: asked.replacements]
        parts, examples = training.parts(chosen), training.examples(chosen)
        every = np.arange(asked.samples)
        training.run(chosen, parts)
        on_training()
        trained = training.trained()
        original.append([_loss(model, examples, place) for place in places])
        with torch.no_grad():
            losses.append(float(sample_losses(model, examples, every).mean()))
        rho = max(rho, steepest(model, examples, every, trained))
        curvature = min(
            curvature,
            least_curvature(model, examples, every, trained, seed=derive(job.seed, "stability", draw)),
        )
        own = []
        for place, other in zip(places, fresh, strict=True):
            changed = chosen.copy()
            changed[place] = other
            training.run(changed, parts)
            on_training()
            own.append(_loss(model, examples, place))
        replaced.append(own)
    measured, error = average_stability(original, replaced)
    return Stability(
        layers=training.tuned,
        fraction=training.tuned / training.blocks,
        measured=measured,
        error=error,
        largest=float(np.abs(np.subtract(original, replaced)).max()),
        rho=rho,
        curvature=float(curvature),
        loss=float(np.mean(losses)),
        samples=asked.samples,
    )


@torch.no_grad()
def _loss(model: PeftModel, examples: Examples, sample: np.int64) -> float:
    """Return one sample's loss, computed alone: in a batch, rounding would depend on its neighbours."""
    return float(sample_losses(model, examples, np.array([sample]))[0])
