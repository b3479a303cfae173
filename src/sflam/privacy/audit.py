"""Every attack at every cut and width, and what it finds beside a guess: the audit of a run.

What the server sees is what devices would really send: activations of their own samples, encoded and decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from sflam.codec.legs import HEAD_UP
from sflam.errors import ConfigError
from sflam.learn.examples import Minibatch
from sflam.model.families import CAUSAL
from sflam.privacy.finding import Finding, Picture
from sflam.privacy.image_attacks import attack_images
from sflam.privacy.labels import clustered, directions, nearest_class
from sflam.privacy.membership import caught, separation
from sflam.privacy.observer import Observer
from sflam.privacy.subject import Subject
from sflam.privacy.text_attacks import attack_texts
from sflam.sizes import FLOAT_BITS, IDENTITY, MAX_BITS, MIN_BITS, payload_bytes

PUBLIC = 400
"""Public samples that decoders learn from."""
COUNTED = 400
"""Samples whose labels or membership are guessed."""
Cell = tuple[int, int | None]
"""A cut, and bits per value, None for floats."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """All findings on a run.

    Attributes:
        findings: cut by cut, width by width.
        pictures: what the best attack on images made of them; empty for texts.
        bytes_up: bytes of a sample's activations on the way up.
        samples: how many inputs were reconstructed.
        trained: whether the adapters are trained.
    """

    findings: tuple[Finding, ...]
    pictures: dict[Cell, Picture]
    bytes_up: dict[Cell, float]
    samples: int
    trained: bool

    def best(self, about: str, cut: int, bits: int | None) -> Finding | None:
        """Return the finding about something that gives most away at a cut and width."""
        there = [each for each in self.findings if (each.about, each.cut, each.bits) == (about, cut, bits)]
        return max(there, key=lambda each: each.score, default=None)


def audit(
    subject: Subject,
    *,
    cuts: Sequence[int],
    widths: Sequence[int | None],
    samples: int,
    steps: int,
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Attack what a run's devices send.

    Args:
        subject: the run.
        cuts: blocks on the device.
        widths: bits per value; None for floats.
        samples: inputs to reconstruct.
        steps: of the descent of images.
        seen: called with the cells done, and all.

    Raises:
        ConfigError: a number out of range.
    """
    _expect(subject, cuts, widths, samples, steps)
    targets = subject.drawn(subject.members, samples, "targets")
    public = subject.drawn(subject.public, PUBLIC, "public")
    counted = subject.drawn(subject.members, COUNTED, "counted")
    last = _observer(subject, subject.backbone.depth)
    findings: list[Finding] = []
    pictures, bytes_up = dict[Cell, Picture](), dict[Cell, float]()
    total = len(cuts) * len(widths)
    seen(0, total)
    for cut in cuts:
        observer = _observer(subject, cut)
        for bits in widths:
            if subject.members.spec is not None:
                found, pictures[cut, bits] = attack_images(
                    observer, last, subject.members.spec, targets, public, bits, steps
                )
                findings += found
            else:
                words = subject.backbone.model.config.vocab_size
                findings += attack_texts(observer, targets, public, bits, words)
            findings += _labels(subject, observer, counted, public, bits)
            bytes_up[cut, bits] = _bytes(observer, targets, bits)
            seen(len(bytes_up), total)
        findings += _members(subject, observer, counted, public)[cut != cuts[0] :]  # a loss has no cut
    for bits in widths:
        findings += _labels_by_gradients(subject, last, counted, bits)
    return Audit(
        findings=tuple(findings),
        pictures=pictures,
        bytes_up=bytes_up,
        samples=len(targets),
        trained=subject.trained,
    )


def widths_of(subject: Subject) -> tuple[int | None, ...]:
    """Return the widths an audit looks at where none are asked for: two bits, those sent, and floats."""
    if subject.job.quant.scheme == IDENTITY:
        return (None,)
    return (*sorted({2, *(placement.bits_up for placement in subject.job.placements)}), None)


def _expect(
    subject: Subject, cuts: Sequence[int], widths: Sequence[int | None], samples: int, steps: int
) -> None:
    depth = subject.backbone.depth
    if wrong := [cut for cut in cuts if not 0 <= cut <= depth]:
        raise ConfigError(f"--cuts holds {wrong[0]}; this model has cuts 0 to {depth}")
    if wide := [bits for bits in widths if bits is not None and not MIN_BITS <= bits <= MAX_BITS]:
        raise ConfigError(
            f"--bits holds {wide[0]}; give widths from {MIN_BITS} to {MAX_BITS}, or {FLOAT_BITS} for floats"
        )
    if not cuts or not widths:
        raise ConfigError("--cuts or --bits is empty; give at least one of each")
    if samples < 1 or steps < 1:
        raise ConfigError(f"--samples is {samples} and --steps {steps}; give at least 1 of each")


def _observer(subject: Subject, cut: int) -> Observer:
    return Observer(subject.backbone, subject.model, cut, subject.job.quant.scheme, subject.job.seed)


def _bytes(observer: Observer, batch: Minibatch, bits: int | None) -> float:
    hidden = observer.exact(batch)
    tokens = hidden.shape[0] * hidden.shape[1] if batch.lengths is None else int(batch.lengths.sum())
    scheme = IDENTITY if bits is None else observer.scheme
    return payload_bytes(tokens, hidden.shape[2], bits or FLOAT_BITS, scheme) / len(batch)


def _labels(
    subject: Subject, observer: Observer, counted: Minibatch, public: Minibatch, bits: int | None
) -> list[Finding]:
    """Return how many labels activations tell."""
    if subject.backbone.task == CAUSAL:
        return []
    labels, known_labels = (batch.labels.cpu().numpy() for batch in (counted, public))
    rows, known = (_pooled(observer.received(batch, bits), batch) for batch in (counted, public))
    named = nearest_class(known, known_labels, rows)
    clusters = clustered(rows, labels, len(subject.classes), observer.seed % 2**31)
    scores = {"clusters": clusters, "class means": float((named == labels).mean())}
    return [
        Finding(
            cut=observer.cut,
            bits=bits,
            attack=attack,
            about="labels",
            measure="labels right",
            score=score,
            guess=_commonest(labels),
        )
        for attack, score in scores.items()
    ]


def _labels_by_gradients(
    subject: Subject, last: Observer, counted: Minibatch, bits: int | None
) -> list[Finding]:
    """Return how many labels the gradients tell that a device with labels at home sends of its loss."""
    if subject.backbone.task == CAUSAL:
        return []
    _, back = subject.graded(last.exact(counted), counted, last.cut)
    rows = _pooled(last.crossed(back, counted.lengths, bits, HEAD_UP), counted)
    labels = counted.labels.cpu().numpy()
    score = clustered(directions(rows), labels, len(subject.classes), last.seed % 2**31)
    return [
        Finding(
            cut=last.cut,
            bits=bits,
            attack="gradients",
            about="labels",
            measure="labels right",
            score=score,
            guess=_commonest(labels),
        )
    ]


def _members(subject: Subject, observer: Observer, counted: Minibatch, public: Minibatch) -> list[Finding]:
    """Return how well members are kept apart from others, by loss and by the gradient that goes back to the device."""
    if not subject.trained:
        return []
    (loss, norm), (other_loss, other_norm) = (
        (found[0], found[1].double().flatten(1).norm(dim=1).cpu().numpy())
        for found in (subject.graded(observer.exact(b), b, observer.cut) for b in (counted, public))
    )
    return [
        Finding(
            cut=observer.cut,
            bits=None,
            attack=attack,
            about="members",
            measure="area under ROC",
            score=separation(inside, outside),
            guess=0.5,
            more={"caught_at_1_percent": caught(inside, outside)},
        )
        for attack, inside, outside in (("loss", loss, other_loss), ("gradient norm", norm, other_norm))
    ]


def _pooled(values: Tensor, batch: Minibatch) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return [N,2d], the first token of each sample and the mean of all; tokens that were not sent are zero."""
    counts = values.new_full((len(values),), values.shape[1]) if batch.lengths is None else batch.lengths
    mean = values.sum(1) / counts.to(values)[:, None]
    return np.concatenate([each.detach().double().cpu().numpy() for each in (values[:, 0], mean)], axis=1)


def _commonest(labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    return float(np.bincount(labels).max() / len(labels))
