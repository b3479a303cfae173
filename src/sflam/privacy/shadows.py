"""Shadow runs: the job trained again on random halves of its devices' samples, to see what a sample's own part is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sflam.errors import ConfigError
from sflam.learn.evaluate import Score
from sflam.learn.methods import Material, method_of
from sflam.learn.round import train
from sflam.model.adapters import load_state
from sflam.privacy.finding import Finding
from sflam.privacy.likelihood import LEAST, likelihood
from sflam.privacy.membership import membership
from sflam.privacy.observer import Observer
from sflam.privacy.subject import Subject
from sflam.run.assemble import assemble, examples_of
from sflam.seeds import derive, generator

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]
LIKELIHOOD = "likelihood ratio"


def expect_shadows(subject: Subject, count: int) -> None:
    """Raise ConfigError where ``count`` shadow runs cannot be made, or would show nothing."""
    if count and not LEAST <= count:
        raise ConfigError(f"--shadows is {count}; give {LEAST} or more (8 is common), or 0 for none")
    if count and not subject.trained:
        raise ConfigError(
            "--shadows asks who was trained on, and this job was not trained; give a run's folder"
        )


def by_likelihood(
    subject: Subject, count: int, samples: int, cut: int, seen: Callable[[int, int], None]
) -> Finding:
    """Return how well members are kept apart from others by the likelihood ratio of their losses.

    Args:
        subject: a finished run.
        count: S.
        samples: members and others asked about, at most, of each.
        cut: that the finding is listed at; without noise a loss has no cut.
        seen: called with the shadow runs done, and all.
    """
    rng = generator(subject.job.seed, "shadows")
    asked = [
        np.sort(rng.choice(len(pool), min(samples, len(pool)), replace=False)).astype(np.int64)
        for pool in (subject.members, subject.public)
    ]
    own = losses_of(subject, asked)
    shadows, out = np.empty((count, len(own))), np.empty((count, len(own)), bool)
    halves = _halves(count, len(asked[1]), rng)
    seen(0, count)
    for number in range(count):
        shadows[number], without = shadow(subject, number, asked)
        out[number] = np.concatenate([without, halves[number]])
        seen(number + 1, count)
    enough = out.sum(0) >= 2  # a sample in nearly every run has no deviation
    score, inside = likelihood(own[enough], shadows[:, enough], out[:, enough]), len(asked[0])
    members, others = score[: enough[:inside].sum()], score[enough[:inside].sum() :]
    return membership(cut, LIKELIHOOD, members, others, shadows=float(count))


def shadow(subject: Subject, number: int, asked: Sequence[Indices]) -> tuple[Floats, NDArray[np.bool_]]:
    """Train a shadow run; return its losses of the samples asked about, and which members it went without.

    Args:
        subject: of the audit.
        number: of the shadow run; it has adapters, halves and draws of its own.
        asked: members, then others, by their places in the subject.
    """
    job = subject.job
    built = assemble(job)
    rng = generator(job.seed, "shadows", number)
    parts = [np.sort(rng.permutation(part)[: -(-len(part) // 2)]) for part in built.parts]
    examples = examples_of(built.shared.train, built.backbone, buckets=job.data.buckets)
    other = replace(job, seed=derive(job.seed, "shadows", number) % 2**31)
    fleet = method_of(job).halves(Material(other, built.backbone, built.model, examples, tuple(parts)))
    assert fleet is not None, "a subject's method cuts the model"
    state = built.state
    for _, after in train(fleet, state, lambda _: Score(0.0, 0.0), range(job.learn.rounds), every=0):
        state = after
    load_state(built.model, state)
    built.model.eval()
    held = np.sort(np.concatenate(built.parts))
    without = ~np.isin(held[asked[0]], np.concatenate(parts))
    return losses_of(replace(subject, backbone=built.backbone, model=built.model), asked), without


def losses_of(subject: Subject, asked: Sequence[Indices]) -> Floats:
    """Return the losses of the subject's model, of members and then of others, by their places."""
    observer = Observer(subject.backbone, subject.model, 0, subject.job.quant.scheme, subject.job.seed)
    batches = [
        pool.take(places) for pool, places in zip((subject.members, subject.public), asked, strict=True)
    ]
    return np.concatenate([subject.graded(observer.exact(batch), batch, 0)[0] for batch in batches])


def _halves(count: int, samples: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return [count, samples]: half of the runs for each sample, so that others are judged by as few as members."""
    order = rng.random((count, samples)).argsort(0)
    found: NDArray[np.bool_] = order < -(-count // 2)
    return found
