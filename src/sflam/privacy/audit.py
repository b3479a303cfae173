"""Every attack at every cut and width, and what it finds beside a guess: the audit of a run.

What the server sees is what devices would really send: activations of their own samples, encoded and decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from sflam.codec.legs import HEAD_UP, UP
from sflam.codec.token_drop import TokenDrop, drop_of
from sflam.errors import ConfigError
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import valid_rows
from sflam.model.families import CAUSAL
from sflam.model.kept_token import LAST, kept_token
from sflam.privacy.finding import Finding, Picture, Worth
from sflam.privacy.image_attacks import attack_images
from sflam.privacy.labels import clustered, directions, nearest_class
from sflam.privacy.membership import membership
from sflam.privacy.observer import Observer
from sflam.privacy.subject import Subject
from sflam.privacy.text_attacks import attack_texts
from sflam.sizes import FLOAT_BITS, IDENTITY, MAX_BITS, MIN_BITS, payload_bytes

PUBLIC = 400
"""Public samples that decoders learn from."""
COUNTED = 400
"""Samples whose labels or membership are guessed."""
Cell = tuple[int, int | None, float]
"""A cut, bits per value, None for floats, and the noise in clips."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Audit:
    """All findings on a run.

    Attributes:
        findings: cut by cut, width by width.
        pictures: what the best attack on images made of them; empty for texts.
        worth: what each costs and leaves.
        samples: how many inputs were reconstructed.
        trained: whether the adapters are trained.
    """

    findings: tuple[Finding, ...]
    pictures: dict[Cell, Picture]
    worth: dict[Cell, Worth]
    samples: int
    trained: bool

    def with_finding(self, finding: Finding) -> Audit:
        """Return the audit with one finding more."""
        return replace(self, findings=(*self.findings, finding))

    def best(self, about: str, cell: Cell) -> Finding | None:
        """Return the finding about something that gives most away at a cut, width and noise."""
        there = [e for e in self.findings if (e.about, e.cut, e.bits, e.noise) == (about, *cell)]
        return max(there, key=lambda each: each.score, default=None)


def audit(
    subject: Subject,
    *,
    cuts: Sequence[int],
    widths: Sequence[int | None],
    samples: int,
    steps: int,
    noises: Sequence[float] = (0.0,),
    clip: float = 0.0,
    visits: int = 1,
    seen: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Attack what a run's devices send.

    Args:
        subject: the run.
        cuts: blocks on the device.
        widths: bits per value; None for floats.
        samples: inputs to reconstruct.
        steps: of the descent of images.
        noises: that devices add, in clips; with 0 they leave activations as they are.
        clip: norm of tokens that noise is added to; 0 takes the job's, or the median norm at each cut.
        visits: of a sample whose tokens are put together, where devices drop some.
        seen: called with the cells done, and all.

    Raises:
        ConfigError: a number out of range.
        ModelError: tokens of the model cannot be dropped.
    """
    _expect(subject, cuts, widths, samples, steps, noises, clip)
    drop, reads = _dropped(subject, visits)
    targets = subject.drawn(subject.members, samples, "targets")
    public = subject.drawn(subject.public, PUBLIC, "public")
    counted = subject.drawn(subject.members, COUNTED, "counted")
    last = _observer(subject, subject.backbone.depth)
    findings: list[Finding] = []
    pictures, worth = dict[Cell, Picture](), dict[Cell, Worth]()
    total = len(cuts) * len(widths) * len(noises)
    seen(0, total)
    for cut, noise in ((cut, noise) for cut in cuts for noise in noises):
        observer, first = _observer(subject, cut), len(findings)
        if drop:
            observer.leave_out(drop, last=reads == LAST, visits=visits)
        if noise:
            observer.protect(clip or subject.job.privacy.clip or _median_norm(observer, public), noise)
        for bits in widths:
            if subject.members.spec is not None:
                found, pictures[cut, bits, noise] = attack_images(
                    observer, last, subject.members.spec, targets, public, bits, steps
                )
                findings += found
            else:
                words = subject.backbone.model.config.vocab_size
                findings += attack_texts(observer, targets, public, bits, words)
            findings += _labels(subject, observer, counted, public, bits)
            worth[cut, bits, noise] = _worth(subject, observer, targets, public, bits)
            seen(len(worth), total)
        members = _members(subject, observer, counted, public)
        findings += members if noise or drop else members[cut != cuts[0] :]  # without noise a loss has no cut
        findings[first:] = [replace(each, noise=noise) for each in findings[first:]]
    for bits in widths:
        findings += _labels_by_gradients(subject, last, counted, bits)
    return Audit(
        findings=tuple(findings),
        pictures=pictures,
        worth=worth,
        samples=len(targets),
        trained=subject.trained,
    )


def widths_of(subject: Subject) -> tuple[int | None, ...]:
    """Return the widths an audit looks at where none are asked for: two bits, those sent, and floats."""
    if subject.job.quant.scheme == IDENTITY:
        return (None,)
    return (*sorted({2, *(placement.bits_up for placement in subject.job.placements)}), None)


def _expect(
    subject: Subject,
    cuts: Sequence[int],
    widths: Sequence[int | None],
    samples: int,
    steps: int,
    noises: Sequence[float],
    clip: float,
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
    if not noises or min(noises) < 0 or clip < 0:
        raise ConfigError("--noise or --clip is negative, or empty; give numbers of 0 or more")
    if samples < 1 or steps < 1:
        raise ConfigError(f"--samples is {samples} and --steps {steps}; give at least 1 of each")


def _dropped(subject: Subject, visits: int) -> tuple[TokenDrop | None, str]:
    """Return how a job's devices drop tokens, None where they do not, and what the head reads."""
    drop = drop_of(subject.job.privacy, subject.job.seed)
    if visits < 1 or (visits > 1 and drop is None):
        raise ConfigError(
            f"--visits is {visits}; give 1 or more, and more than 1 where privacy.drop_tokens is above 0: else every "
            "visit shows all tokens"
        )
    if drop is None:
        return None, ""
    return drop, kept_token(subject.backbone.family.name, per_token=subject.backbone.task == CAUSAL)


def _observer(subject: Subject, cut: int) -> Observer:
    return Observer(subject.backbone, subject.model, cut, subject.job.quant.scheme, subject.job.seed)


def _worth(
    subject: Subject, observer: Observer, batch: Minibatch, public: Minibatch, bits: int | None
) -> Worth:
    hidden = observer.exact(batch)
    tokens = int(observer.seen(batch, hidden.shape[1], 1).sum())
    scheme = IDENTITY if bits is None else observer.scheme
    accuracy = None
    if subject.trained and subject.backbone.task != CAUSAL:
        accuracy = subject.right(observer.received(public, bits, whole=True), public, observer.cut)
    return Worth(
        bytes_up=payload_bytes(tokens, hidden.shape[2], bits or FLOAT_BITS, scheme) / len(batch),
        clip=observer.guard.clips[UP] if observer.guard else 0.0,
        accuracy=accuracy,
    )


def _median_norm(observer: Observer, batch: Minibatch) -> float:
    """Return the median norm of the tokens that devices would send of a batch."""
    return float(valid_rows(observer.exact(batch), batch.lengths).double().norm(dim=1).median())


def _labels(
    subject: Subject, observer: Observer, counted: Minibatch, public: Minibatch, bits: int | None
) -> list[Finding]:
    """Return how many labels activations tell."""
    if subject.backbone.task == CAUSAL:
        return []
    labels, known_labels = (batch.labels.cpu().numpy() for batch in (counted, public))
    received = observer.received(counted, bits)
    rows = _pooled(received, counted, observer.seen(counted, received.shape[1]).sum(1))
    known = _pooled(observer.received(public, bits, whole=True), public)
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
    """Return how many labels the gradients tell that a device with labels at home sends of its loss, by all tokens."""
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
        for found in (
            subject.graded(*observer.of_a_visit(_seen(observer, b), b), observer.cut)
            for b in (counted, public)
        )
    )
    return [
        membership(observer.cut, attack, inside, outside)
        for attack, inside, outside in (("loss", loss, other_loss), ("gradient norm", norm, other_norm))
    ]


def _seen(observer: Observer, batch: Minibatch) -> Tensor:
    """Return [N,T,d], activations in floats, with the noise of devices that add any."""
    return observer.received(batch, None, whole=True) if observer.guard else observer.exact(batch)


def _pooled(
    values: Tensor, batch: Minibatch, counts: Tensor | None = None
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return [N,2d], of each sample the first token and the mean of ``counts`` [N], by default of all; else zero."""
    if counts is None:
        counts = values.new_full((len(values),), values.shape[1]) if batch.lengths is None else batch.lengths
    mean = values.sum(1) / counts.to(values)[:, None]
    return np.concatenate([each.detach().double().cpu().numpy() for each in (values[:, 0], mean)], axis=1)


def _commonest(labels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    return float(np.bincount(labels).max() / len(labels))
