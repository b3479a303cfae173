"""A device's part of a model without torch: graphs run row by row, gradients summed, one optimiser step a mini-batch.

Rows of a mini-batch run in groups: as many images as fit the memory, or one text at its own length. The gradient of a
mini-batch is the sum of its groups', so that groups change nothing but the rounding.

B rows, n tokens of a group, d hidden size, P trained values.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.codec.token_drop import TokenDrop
from sflam.device.engines import BoundGraph, Engines
from sflam.device.optimizer import VectorOptimizer, clip, slices
from sflam.device.samples import OwnSamples
from sflam.device.weights import Weights
from sflam.graph import bundle as roles
from sflam.graph.bundle import Source
from sflam.learn.settings import LearnSettings
from sflam.link.half import Arrays, Incoming, LocalStep, Outgoing, TakenRows
from sflam.seeds import derive

Array = NDArray[Any]
Floats = NDArray[np.floating[Any]]

FIRST_SAMPLE = {True: "input_ids", False: "pixel_values"}


PIECE = 3 << 14
"""Values that are encoded or decoded at a time: what a quantizer computes on the way is several times as large."""


@dataclass(frozen=True)
class Grouping:
    """How a mini-batch is run.

    Attributes:
        rows: images of a group; texts run one by one.
        keep_inputs: whether the inputs of the blocks stay from forward to backward, or are made again.
        moments: folder of a file for the moments of the optimiser; None keeps them in memory.
        head: tokens that the head of a language model sees at a time, its logits being [.., V]; 0 for a whole text.
    """

    rows: int = 1
    keep_inputs: bool = False
    moments: Path | None = None
    head: int = 0


@dataclass(eq=False)
class _Group:
    """What a backward needs of a group.

    Attributes:
        first: images, or tokens of a text, of the mini-batch that came before it.
        sent: the numbers of its tokens that go up, of all its [n'] in one list; None where all do.
        indices: of its samples.
        counts: tokens of each of its rows.
        inputs: of each block, [.., d]; empty where they are to be made again.
        around: what the embedding hands to every block.
    """

    first: int
    indices: NDArray[np.int64]
    counts: NDArray[np.int32]
    inputs: list[Floats]
    around: dict[str, Array]
    sent: NDArray[np.int64] | None = None


class LeanHalf:
    """One device's part of the model with its samples; see :class:`sflam.link.half.Half`.

    Args:
        engines: of its graphs.
        weights: its frozen tensors.
        samples: what it trains on.
        learn: how.
        grouping: how a mini-batch is run.
        buckets: of ``[data]``.
        drop: which tokens go up; None for all.
    """

    def __init__(
        self,
        engines: Engines,
        weights: Weights,
        samples: OwnSamples,
        learn: LearnSettings,
        grouping: Grouping,
        *,
        buckets: bool = False,
        drop: TokenDrop | None = None,
    ) -> None:
        bundle, self.drop = engines.bundle, drop
        self.bundle, self.samples, self.learn, self.grouping = bundle, samples, learn, grouping
        self.dtype, self._buckets = engines.dtype, buckets
        sizes = [math.prod(shape) for shape in bundle.trained.values()]
        self.values: Floats = np.zeros(sum(sizes), self.dtype)
        self.gradient: Floats = np.zeros(sum(sizes), self.dtype)
        self.start: Floats | None = None
        """Where the round began, with FedProx."""
        self._trained: dict[Source, Floats] = {}
        self._gradients: dict[Source, Floats] = {}
        end = 0
        for (name, shape), size in zip(bundle.trained.items(), sizes, strict=True):
            part, source = slice(end, end + size), Source(roles.TRAINED, name)
            self._trained[source] = self.values[part].reshape(shape)
            self._gradients[source] = self.gradient[part].reshape(shape)
            end += size
        self._arena = engines.arena
        self._optimizer = VectorOptimizer(learn, len(self.values), self.dtype, grouping.moments)
        self._embed = BoundGraph(engines.embed, bundle.embed.binding, weights)
        self._forward: list[BoundGraph] = []
        self._joint: list[BoundGraph | None] = []
        for block in bundle.blocks:
            kind = engines.kinds[block.kind]
            self._forward.append(BoundGraph(kind.forward, block.binding, weights))
            self._joint.append(None if kind.joint is None else BoundGraph(kind.joint, block.binding, weights))
        self._head = None
        if bundle.head is not None and engines.head is not None:
            self._head = BoundGraph(engines.head, bundle.head.binding, weights)
        self._rows = np.empty(0, np.int64)
        self._kept: list[_Group] = []
        self._places: NDArray[np.int64] | None = None

    @property
    def dim(self) -> int:
        """d."""
        return self.bundle.dim

    @property
    def float_bits(self) -> int:
        """Width of the activations."""
        return self.dtype.itemsize * 8

    @property
    def lengths(self) -> NDArray[np.int32] | None:
        """[N] tokens of every sample, where mini-batches are to be of similar lengths."""
        return self.samples.dataset.lengths if self._buckets else None

    @property
    def has_head(self) -> bool:
        """Whether labels, head and loss are here."""
        return self._head is not None

    @property
    def trained(self) -> int:
        """P."""
        return len(self.values)

    def read(self) -> Floats:
        """Return a copy of the trained values [P]."""
        return self.values.copy()

    def write(self, values: Array) -> None:
        """Take the trained values [P] over."""
        self.values[:] = values

    def begin(self, start: Array) -> None:
        """Note where a round began, [P]."""
        if self.learn.practice.local == "fedprox":
            self.start = np.array(start, self.dtype)

    def take(self, indices: NDArray[np.int64]) -> TakenRows:
        """Make the samples at ``indices`` [B] the rows of the step."""
        self._rows, self._kept = indices, []
        self._optimizer.give_back()  # what a state read of it
        self.gradient.fill(0.0)
        counts = self.samples.counts(indices, self.bundle.tokens)
        if self.drop:
            counts = self.drop.counts(counts)
        even = not self.bundle.text or bool((counts == counts[0]).all())
        return TakenRows(
            rows=len(indices),
            tokens=int(counts.sum()),
            lengths=None if even else counts,
            labels=None if self.has_head else self.samples.labels(indices),
        )

    def forward(self, step: LocalStep, out: Outgoing[Floats], rows: NDArray[np.int64] | None = None) -> None:
        """Write the activations at the cut, [n, d], group by group."""
        keeps = self.grouping.keep_inputs and any(self._joint)
        self._kept = []
        self._draw(step.seed)
        for group in self._groups(rows):
            hidden = self._hidden(group, step.seed, keep=keeps)
            _write(out, hidden.reshape(-1, self.dim), group.sent)
            if keeps:
                self._kept.append(group)
        self._arena.give_back()

    def finish(self, step: LocalStep, last: Incoming[Floats], out: Outgoing[Floats]) -> float:
        """Run head and loss on the [n, d] after the server's last block; write the loss's gradient for them."""
        assert self._head is not None
        share = np.array(1.0 / self._targets(), self.dtype)
        # A language model's last token has none that follows it: the head does not see it, and its gradient is zero.
        beyond = int(self.samples.causal)
        loss = 0.0
        for group in self._groups():
            hidden, labels, n = self._read(group, last), self._labels(group), self._n(group) - beyond
            together = (self.grouping.head if beyond else 0) or n
            for start in range(0, n, together):
                count = min(together, n - start)
                part = slice(start, start + count)
                given = {
                    **self._trained,
                    Source(roles.HIDDEN): np.ascontiguousarray(hidden[:, part]) if beyond else hidden,
                    Source(roles.LABELS): np.ascontiguousarray(labels[:, part]) if beyond else labels,
                    Source(roles.SHARE): share,
                }
                found = self._head(given, count, step.head_seed, group.first + start)
                loss += float(found[Source(roles.LOSS)])
                self._add(found)
                _write(out, found[Source(roles.GRADIENT)].reshape(-1, self.dim), group.sent)
            if beyond:
                out.write(np.zeros((1, self.dim), self.dtype))
        self._arena.give_back()
        return loss

    def backward(self, step: LocalStep, gradient: Incoming[Floats] | None) -> None:
        """Take one optimiser step, with the gradient [n, d] at the cut; None where none comes back."""
        if gradient is not None:
            for group in self._kept or self._groups():
                back = self._read(group, gradient)
                self._differentiate(group, back, step.seed)
            self._arena.give_back()
        self._kept = []
        if (gradient is None and not self.has_head) or not self.trained:
            return
        if self.start is not None:  # FedProx: the gradient of mu / 2 ||w - w_t||^2
            for part in slices(self.trained):
                self.gradient[part] += self.learn.prox * (self.values[part] - self.start[part])
        clip(self.gradient, self.learn.clip)
        self._optimizer.step(self.values, self.gradient, step.rate)

    def optimizer(self) -> Arrays:
        """Return what the optimiser remembers."""
        if not self._optimizer.steps:
            return {}
        return {name: np.asarray(value) for name, value in self._optimizer.state().items()}

    def put_optimizer(self, state: Mapping[str, Array]) -> None:
        """Put back what :meth:`optimizer` returned; nothing makes it fresh."""
        if state:
            self._optimizer.restore(state)
        else:
            self._optimizer.reset()

    def state(self) -> Arrays:
        """Return the trained values, and where the round began, with FedProx."""
        return {"values": self.values} | ({} if self.start is None else {"start": self.start})

    def restore(self, state: Mapping[str, Array]) -> bool:
        """Put back what :meth:`state` returned; False where it is of another model."""
        values = state.get("values")
        if values is None or values.shape != self.values.shape or values.dtype != self.dtype:
            return False
        self.write(values)
        if "start" in state:
            self.begin(state["start"])
        return True

    def _groups(self, rows: NDArray[np.int64] | None = None) -> Iterator[_Group]:
        """Yield the groups of the mini-batch, or of these of its ``rows``, in its order."""
        size, own = (
            1 if self.bundle.text else self.grouping.rows,
            self._rows if rows is None else self._rows[rows],
        )
        before = 0
        for start in range(0, len(own), size):
            some = own[start : start + size]
            group = _Group(before, some, self.samples.counts(some, self.bundle.tokens), [], {})
            if self._places is not None:
                group.sent = _numbers(self._places[start : start + size], group.counts)
            yield group
            before += self._n(group)

    def _draw(self, seed: int) -> None:
        """Draw which tokens of the step go up, where some are dropped."""
        if self.drop:
            counts = self.samples.counts(self._rows, self.bundle.tokens)
            self._places = self.drop.places(counts, seed, self._rows.tolist())

    def _n(self, group: _Group) -> int:
        """Return n of a group: tokens of its text, or its images."""
        return int(group.counts[0]) if self.bundle.text else len(group.indices)

    def _read(self, group: _Group, tokens: Incoming[Floats]) -> Floats:
        """Return the tokens of a group as activations of the graphs, a few decoded at a time; zero where none went up.

        A head that reads one token that always goes makes the same of them as of those alone.
        """
        count, sent = int(group.counts.sum()), group.sent
        found: Floats = (np.empty if sent is None else np.zeros)((count, self.dim), self.dtype)
        came, piece = count if sent is None else len(sent), _piece(self.dim)
        for start in range(0, came, piece):
            stop = min(start + piece, came)
            at = slice(start, stop) if sent is None else sent[start:stop]
            found[at] = tokens.read(stop - start)
        return found.reshape(len(group.indices), -1, self.dim)

    def _hidden(self, group: _Group, seed: int, *, keep: bool, blocks: int | None = None) -> Floats:
        """Return a group's activations after ``blocks`` blocks, by default all; ``keep`` their inputs in the group."""
        n = self._n(group)
        if self.bundle.text:
            sample: Array = self.samples.tokens(int(group.indices[0]))
        else:
            sample = self.samples.pixels(group.indices).astype(self.dtype, copy=False)
        given = {Source(roles.SAMPLE, FIRST_SAMPLE[self.bundle.text]): sample}
        found = self._embed(given, n, derive(seed, "embedding"), group.first)
        del sample, given
        hidden = found.pop(Source(roles.HIDDEN))
        around: dict[Source, Array] = dict(found)
        group.around = {source.name: value for source, value in around.items()}
        for index in range(len(self._forward) if blocks is None else blocks):
            if keep:
                group.inputs.append(hidden)
            given = {**self._trained, **around, Source(roles.HIDDEN): hidden}
            found = self._forward[index](given, n, derive(seed, "block", index), group.first)
            hidden = found[Source(roles.HIDDEN)]
        return hidden

    def _differentiate(self, group: _Group, gradient: Floats, seed: int) -> None:
        """Add the gradients of a group to :attr:`gradient`, from that of its activations at the cut."""
        if not any(self._joint):
            return
        if not group.inputs:
            group.inputs.append(self._hidden(group, seed, keep=True, blocks=len(self._joint) - 1))
        around = {Source(roles.SURROUNDING, name): value for name, value in group.around.items()}
        for index in reversed(range(len(self._joint))):
            runner, hidden = self._joint[index], group.inputs.pop()
            if runner is None:
                break
            given = {
                **self._trained,
                **around,
                Source(roles.HIDDEN): hidden,
                Source(roles.GRADIENT): gradient,
            }
            found = runner(given, self._n(group), derive(seed, "block", index), group.first)
            del given, hidden
            self._add(found)
            if Source(roles.GRADIENT) not in found:
                break
            gradient = found[Source(roles.GRADIENT)]
        group.inputs.clear()

    def _add(self, found: Mapping[Source, Array]) -> None:
        """Add the gradients of trained tensors among what a graph returned."""
        for source, value in found.items():
            if source.role == roles.TRAINED:
                self._gradients[source] += value

    def _targets(self) -> int:
        """Return how many losses the mean over the mini-batch is of."""
        if not self.samples.causal:
            return len(self._rows)
        return int((self.samples.counts(self._rows, 0) - 1).sum())

    def _labels(self, group: _Group) -> Array:
        if not self.samples.causal:
            return self.samples.dataset.labels[group.indices]
        return self.samples.tokens(int(group.indices[0]))[:, 1:].copy()


def _write(out: Outgoing[Floats], tokens: Floats, sent: NDArray[np.int64] | None = None) -> None:
    """Write tokens [n, d], or those of them at ``sent``, a few at a time."""
    piece = _piece(tokens.shape[1])
    for start in range(0, len(tokens) if sent is None else len(sent), piece):
        part = slice(start, start + piece)
        out.write(tokens[part] if sent is None else tokens[sent[part]])


def _numbers(places: NDArray[np.int64], counts: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return where the tokens at ``places`` [b,M] stand in the list of all tokens of rows with ``counts`` [b]."""
    starts = np.cumsum(counts, dtype=np.int64) - counts
    return (places + starts[:, None])[places < counts[:, None]]


def _piece(dim: int) -> int:
    """Return how many tokens of d = ``dim`` are a piece: whole eights, of which each ends with a byte."""
    return max(1, PIECE // max(1, dim) // 8) * 8
