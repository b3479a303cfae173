"""Average-replace-one stability, measured: train again with one sample replaced, and see how far its loss moves (5.1).

A(S) is the job's own model, fine-tuned on n samples S from a common start; A(S^i) the same with sample i replaced by an
independent draw, and everything else equal: seed, start, order of mini-batches, dropout. Without these common random
numbers the noise of training would hide what one sample in n does. The tuned fraction p is swept: adapters of the first
layers are trained, the head and the other adapters stay at the common start.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from sflam.config import Job
from sflam.data.batches import batches
from sflam.errors import ConfigError
from sflam.learn.examples import Examples
from sflam.learn.optimizers import optimizer, set_rate
from sflam.learn.precision import reseeded
from sflam.learn.settings.schedule import Moment
from sflam.model.adapters import State, load_state, state_of
from sflam.run.assemble import Assembly, assemble, examples_of
from sflam.seeds import derive, generator
from sflam.stability.curvature import least_curvature, sample_losses, steepest
from sflam.stability.theory import average_stability

Samples = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be measured.

    Attributes:
        layers: how many of the first layers are tuned, one measurement each.
        samples: n, the size of a training set S.
        replacements: samples of S that are replaced, one at a time.
        draws: independent draws of S; the standard error is over these.
        steps: optimiser steps of a training.
    """

    layers: tuple[int, ...] = ()
    samples: int = 100
    replacements: int = 8
    draws: int = 3
    steps: int = 60

    def __post_init__(self) -> None:
        problems = []
        if self.samples < 2:
            problems.append(f"--samples is {self.samples}; replacing one of them needs at least 2")
        if not 1 <= self.replacements <= max(self.samples, 1):
            problems.append(f"--replacements is {self.replacements}; give 1 to --samples = {self.samples}")
        for name in ("draws", "steps"):
            if getattr(self, name) < 1:
                problems.append(f"--{name} is {getattr(self, name)}; it must be at least 1")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, kw_only=True)
class Stability:
    """One tuned fraction, measured.

    Attributes:
        layers: layers tuned.
        fraction: p = layers / Y.
        measured: mean over draws of the mean |loss of A(S^i) - loss of A(S)| at sample i, in nats.
        error: its standard error over draws; NaN for a single draw.
        largest: the largest such difference.
        rho: largest gradient norm of a sample at A(S), over the tuned weights; of the steepest draw.
        curvature: least eigenvalue of the Hessian of the mean loss over the tuned weights; least over draws.
        loss: mean training loss of A(S).
        samples: n.
    """

    layers: int
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
    """Yield the stability of a job's model, tuned layer count by layer count.

    Args:
        job: its model, data and ``[learn]`` are used; nothing is split or quantized.
        asked: what to measure.
        on_training: called after each training with the number done and the model's layers.

    Raises:
        ConfigError: more layers than the model has, or too few samples in the data.
        SflamError: what :func:`sflam.run.assemble.assemble` raises.
    """
    central = replace(job.learn, method="central", cache="off", aggregation="fedavg")
    assembly = assemble(replace(job, learn=central, quant=replace(job.quant, delta=False)))
    depth = assembly.backbone.depth
    layers = asked.layers or tuple(range(1, depth + 1))
    if wrong := [count for count in layers if not 1 <= count <= depth]:
        raise ConfigError(
            f"--layers holds {wrong[0]}; model {job.model.name!r} has {depth} layers, so give 1 to {depth}"
        )
    pool = generator(job.seed, "stability").permutation(len(assembly.splits.train))
    need = asked.samples + asked.replacements
    warm, rest = pool[: len(pool) // 2], pool[len(pool) // 2 :]
    if len(rest) < need:
        raise ConfigError(
            f"--samples {asked.samples} and --replacements {asked.replacements} need {2 * need} training samples, one "
            f"half for the common start; data {job.data.name!r} has {len(pool)}"
        )
    examples = examples_of(assembly.splits.train, assembly.backbone)
    start = _train(assembly, examples, assembly.state, warm, depth, asked.steps, head=True)
    done = itertools.count(1)

    def counted() -> None:
        on_training(next(done), depth)

    counted()
    for count in layers:
        yield _at(assembly, examples, start, rest, count, asked, counted)


def trainings(asked: Asked, depth: int) -> int:
    """Return how many trainings a measurement takes."""
    return 1 + len(asked.layers or range(depth)) * asked.draws * (1 + asked.replacements)


def _at(
    assembly: Assembly,
    examples: Examples,
    start: State,
    rest: Samples,
    layers: int,
    asked: Asked,
    on_training: Callable[[], None],
) -> Stability:
    job, model = assembly.job, assembly.model
    original: list[list[float]] = []
    replaced: list[list[float]] = []
    rho, curvature, losses = 0.0, np.inf, []
    for draw in range(asked.draws):
        rng = generator(job.seed, "stability", draw)
        drawn = rng.permutation(rest)[: asked.samples + asked.replacements]
        chosen, fresh = drawn[: asked.samples], drawn[asked.samples :]
        places = rng.permutation(asked.samples)[: asked.replacements]
        _train(assembly, examples, start, chosen, layers, asked.steps, draw=draw)
        on_training()
        trained = tuned(model, assembly, layers)
        original.append([_loss(model, examples, chosen[place]) for place in places])
        with torch.no_grad():
            losses.append(float(sample_losses(model, examples, chosen).mean()))
        rho = max(rho, steepest(model, examples, chosen, trained))
        curvature = min(
            curvature,
            least_curvature(model, examples, chosen, trained, seed=derive(job.seed, "stability", draw)),
        )
        own = []
        for place, other in zip(places, fresh, strict=True):
            changed = chosen.copy()
            changed[place] = other
            _train(assembly, examples, start, changed, layers, asked.steps, draw=draw)
            on_training()
            own.append(_loss(model, examples, chosen[place]))
        replaced.append(own)
    measured, error = average_stability(original, replaced)
    return Stability(
        layers=layers,
        fraction=layers / assembly.backbone.depth,
        measured=measured,
        error=error,
        largest=float(np.abs(np.subtract(original, replaced)).max()),
        rho=rho,
        curvature=float(curvature),
        loss=float(np.mean(losses)),
        samples=asked.samples,
    )


def tuned(model: PeftModel, assembly: Assembly, layers: int, *, head: bool = False) -> list[nn.Parameter]:
    """Return the adapters of the first ``layers`` blocks; with ``head``, what is trained outside the blocks as well."""
    family = assembly.backbone.family
    marker = f"{family.base}.{family.blocks}."
    found = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        _, inside, tail = name.partition(marker)
        if (inside and int(tail.partition(".")[0]) < layers) or (head and not inside):
            found.append(parameter)
    return found


@torch.no_grad()
def _loss(model: PeftModel, examples: Examples, sample: np.int64) -> float:
    """Return one sample's loss, computed alone: in a batch, rounding would depend on its neighbours."""
    return float(sample_losses(model, examples, np.array([sample]))[0])


def _train(
    assembly: Assembly,
    examples: Examples,
    start: State,
    samples: Samples,
    layers: int,
    steps: int,
    *,
    draw: int = 0,
    head: bool = False,
) -> State:
    """Fine-tune from ``start`` on ``samples``, always in the same order; leave the result in the model."""
    job, model = assembly.job, assembly.model
    load_state(model, start)
    parameters: Sequence[nn.Parameter] = tuned(model, assembly, layers, head=head)
    optimise, once = (
        optimizer(job.learn, parameters),
        replace(job.learn, rounds=1),
    )  # a schedule spans these steps
    # Positions, not samples, are shuffled: a replaced sample takes the place of the old one.
    order = generator(job.seed, "stability batches", draw)
    model.train()
    with reseeded(derive(job.seed, "stability dropout", draw)):
        drawn = batches(np.arange(len(samples)), job.learn.batch, order, steps=steps)
        for step, positions in enumerate(drawn):
            set_rate(optimise, once, Moment(0, step, len(drawn)))
            loss = sample_losses(model, examples, samples[positions]).mean()
            for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
                parameter.grad = gradient
            if job.learn.clip:
                torch.nn.utils.clip_grad_norm_(parameters, job.learn.clip)
            optimise.step()
    model.zero_grad()
    model.eval()
    return {name: tensor.clone() for name, tensor in state_of(model).items()}
