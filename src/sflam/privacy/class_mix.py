"""Which classes does a device hold? Its class mix, inferred from the adapters that it sends after a round.

The server trains pretend devices on public samples of mixes that it draws itself, for one round from the adapters that
the run began with, and learns to read the mix from the change: property inference from shadow updates, by ridge.
Source: Melis et al., Exploiting unintended feature leakage in collaborative learning, S&P 2019, section 4.

Under secure aggregation the server learns only the sum of the changes, so that it has one mix for all devices. That is
what a curious device has of the others anyway: the average that it downloads, less what it sent itself.

K devices, M pretend devices, C classes, P numbers of a device's half.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sflam.config import Job
from sflam.data.dataset import Dataset
from sflam.errors import ConfigError
from sflam.learn.adapter_exchange import flatten
from sflam.learn.methods import Material, method_of
from sflam.learn.settings import FleetSettings
from sflam.learn.split_fleet import LocalFleet
from sflam.model.adapters import State
from sflam.model.families import CAUSAL
from sflam.privacy.decoder import decoded
from sflam.privacy.finding import Finding
from sflam.privacy.subject import Subject
from sflam.run.assemble import Assembly, assemble, examples_of
from sflam.seeds import derive, generator

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
CONCENTRATIONS = (0.1, 0.3, 1.0, 10.0)
"""Of the Dirichlet draws of pretend mixes, in turn: from one class to all alike."""
CLASS_MIX = "class mix"
LEAST = 8
"""Fewest pretend devices to learn from."""


def expect_pretended(count: int) -> None:
    """Raise ConfigError where so many pretend devices teach nothing; 0 leaves the attack out."""
    if count and count < LEAST:
        raise ConfigError(f"--pretend is {count}; give {LEAST} or more (48 is common), or 0 for none")


def by_updates(subject: Subject, pretend: int) -> tuple[Finding, ...]:
    """Return how near the server gets to the devices' class mixes, and a device to the others'.

    There is nothing to find where devices send nothing that they trained.

    Of devices with several cuts, those like the first are attacked.

    Args:
        subject: a run, or a job; its first round is attacked, from the adapters that it began with.
        pretend: M; 0 leaves the attack out.
    """
    job, first = subject.job, subject.job.placements[0]
    if not pretend or subject.backbone.task == CAUSAL or first.alone or job.fleet.ranks:
        return ()
    built = assemble(job)
    labels, classes = built.shared.train.labels, len(built.splits.train.classes)
    like = [d for d, one in enumerate(job.placements) if (one.cut, one.tuned) == (first.cut, first.tuned)]
    parts = [built.parts[device] for device in like]
    fleet = _fleet(built, job, built.shared.train, parts)
    if not fleet.devices.names(0):
        return ()
    sent = updates(fleet, built.state)
    true = np.array([mix_of(labels[part], classes) for part in parts])
    held = np.array([[len(part)] for part in parts], float)
    whole = (true * held).sum(0, keepdims=True) / held.sum()
    total = (sent * held).sum(0, keepdims=True)
    others = (total - sent * held) / np.maximum(held.sum() - held, 1.0)
    if job.privacy.secure_aggregation:  # the server has the sum alone
        sent = np.repeat(total / held.sum(), len(sent), 0)
    mixes, public = pretended(built, pretend, int(np.median(held)))
    seed = derive(job.seed, "pretended") % 2**31
    known = updates(_fleet(built, replace(job, seed=seed), built.splits.test, public), built.state)
    server, device = (to_mix(decoded(known, mixes, each)) for each in (sent, others))
    scores = {"updates": float(overlap(server, true).mean())}
    if len(true) > 1:
        apart = [overlap(own[None], np.delete(true, at, 0)).mean() for at, own in enumerate(device)]
        scores["average, by a device"] = float(np.mean(apart))
    return tuple(
        Finding(
            cut=first.cut,
            bits=None,
            attack=attack,
            about=CLASS_MIX,
            measure="overlap with the true mix",
            score=score,
            guess=float(overlap(whole, true).mean()),
            more={"pretend": float(pretend), "devices": float(len(like))},
        )
        for attack, score in scores.items()
    )


def _fleet(built: Assembly, job: Job, samples: Dataset, parts: list[Indices]) -> LocalFleet:
    """Return devices with these parts of ``samples``, all alike and with grids of their own."""
    first = job.placements[0]
    alike = replace(
        FleetSettings(devices=len(parts)), tuned=(first.tuned,) * len(parts) if first.tuned else ()
    )
    job = replace(
        job,
        fleet=alike,
        model=replace(job.model, cut=first.cut),
        privacy=replace(job.privacy, secure_aggregation=False),
        quant=replace(job.quant, adapters_scale="own"),
    )
    examples = examples_of(samples, built.backbone, buckets=job.data.buckets)
    found = method_of(job).halves(Material(job, built.backbone, built.model, examples, tuple(parts)))
    assert found is not None, "a subject's method cuts the model"
    return found


def updates(fleet: LocalFleet, state: State) -> Floats:
    """Return [K,P], the change that each device's half arrives with after the first round from ``state``."""
    names, devices = fleet.devices.names(0), list(range(len(fleet.parts)))
    fleet.download(0, devices, state)
    steps = fleet.local_steps(0, devices)
    states, _ = fleet.collected(0, devices, steps, fleet.rows(devices))
    start = flatten(state, names).double().cpu().numpy()
    return np.array([flatten(states[each], names).double().cpu().numpy() - start for each in devices])


def pretended(built: Assembly, count: int, size: int) -> tuple[Floats, list[Indices]]:
    """Return the mixes [M,C] of pretend devices, and the public samples of each, about ``size``."""
    labels = built.splits.test.labels
    classes = len(built.splits.train.classes)
    rng = generator(built.job.seed, "pretend")
    parts, mixes = list[Indices](), list[Floats]()
    for number in range(count):
        wanted = rng.dirichlet(np.full(classes, CONCENTRATIONS[number % len(CONCENTRATIONS)]))
        chance = wanted[labels] / np.bincount(labels, minlength=classes)[labels]
        part = rng.choice(len(labels), size, p=chance / chance.sum())
        parts.append(np.sort(part).astype(np.int64))
        mixes.append(mix_of(labels[part], classes))
    return np.array(mixes), parts


def mix_of(labels: NDArray[np.int64], classes: int) -> Floats:
    """Return [C], the share of each class."""
    counts: Floats = np.bincount(labels, minlength=classes).astype(float)
    counts /= max(1.0, counts.sum())
    return counts


def to_mix(values: Floats) -> Floats:
    """Return rows [K,C] as shares: the nearest point of the simplex (Duchi et al., ICML 2008)."""
    ordered = -np.sort(-values, 1)
    excess = (ordered.cumsum(1) - 1) / np.arange(1, values.shape[1] + 1)
    last = (ordered > excess).sum(1) - 1
    found: Floats = np.maximum(values - excess[np.arange(len(values)), last][:, None], 0.0)
    return found


def overlap(one: Floats, other: Floats) -> Floats:
    """Return [K], the mass that two mixes share: 1 less their total variation distance."""
    found: Floats = np.minimum(one, other).sum(1)
    return found
