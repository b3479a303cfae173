"""A device's part of a model, whatever runs it: what the one protocol loop (:mod:`sflam.link.loop`) asks of it.

A step, in this order, on rows that the loop has drawn::

    rows = half.take(indices)                       what a message must announce: rows, tokens, lengths, labels
    half.forward(step, out)                         writes the activations at the cut to ``out``
    half.finish(step, last, out) -> loss            labels at home alone: head and loss, writes the loss's gradient
    half.backward(step, gradient)                   one optimiser step; None where no gradient comes back

A round: ``put_optimizer`` and ``write``, ``begin``, its steps, ``read``. A step that breaks off (a lost process, an
answer that ended early) is begun again by ``take``: what it had done until then must not show, so trained values and
optimiser change at the end of ``backward`` alone, and the same step, made again from the same values, gives the same
numbers: its dropout is drawn from ``step.seed``.

n valid tokens of a step (padding never travels), d hidden size, P trained values, N samples of the dataset.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

X = TypeVar("X")
In = TypeVar("In", contravariant=True)
Out = TypeVar("Out", covariant=True)
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class LocalStep:
    """Where a step is in the run, and what it goes by.

    Attributes:
        round: number of the round, from 0.
        step: number of the step in the round, from 0; those without rows count too.
        seed: of the step's dropout in the blocks before the cut.
        head_seed: of the step's dropout in the head, with labels at home.
        rate: learning rate of the step: ``learn.lr`` times schedule, warm-up and decay.
        attempt: at the round.
    """

    round: int
    step: int
    seed: int
    head_seed: int
    rate: float
    attempt: int = 0


@dataclass(frozen=True, eq=False)
class TakenRows:
    """What the messages of a step announce of its rows.

    Attributes:
        rows: B, at least 1.
        tokens: n, valid tokens of all rows together; each has one at least.
        lengths: int32 [B] valid tokens of each row; None for images, and where all rows have as many.
        labels: int32 [B], or for language models [n], every valid token's own id; None where labels stay at home.
    """

    rows: int
    tokens: int
    lengths: NDArray[np.int32] | None
    labels: NDArray[np.int32] | None


class Outgoing(Protocol[In]):
    """Takes the n tokens of one message, and makes it of them."""

    def write(self, tokens: In) -> None:
        """Take the next [m, d] tokens, row after row, in pieces of any m >= 1 that add up to n; not kept, nor changed.

        Raises:
            QuantizerError: NaN, inf, or a range that float32 cannot hold.
        """


class Incoming(Protocol[Out]):
    """Gives the n tokens of one message."""

    def read(self, count: int) -> Out:
        """Return the next [count, d] tokens, row after row, the caller's own to write on.

        Raises:
            WireError: they are not what was agreed.
            BrokenOff: the answer ended early; let it pass, the loop makes the step again.
        """


class Half(Protocol[X]):
    """One device's part of the model with its samples; ``X`` is its array of tokens, NumPy's or torch's.

    What of a job it must be able to do is listed by :func:`sflam.link.needs.needs_of`; the one who builds a half checks
    that before it joins, and refuses by name.
    """

    @property
    def dim(self) -> int:
        """d."""

    @property
    def float_bits(self) -> int:
        """Width of the activations, 32 or 64: what the scheme ``identity`` sends; other schemes read float32."""

    @property
    def lengths(self) -> NDArray[np.int32] | None:
        """[N] tokens of every sample, where mini-batches are to be of similar lengths (``data.buckets``); else None."""

    @property
    def has_head(self) -> bool:
        """Whether labels, head and loss are here, so that ``finish`` is called."""

    @property
    def trained(self) -> int:
        """P; 0 where the half trains nothing, and adapters neither come nor go."""

    def read(self) -> NDArray[Any]:
        """Return a copy of the trained values [P], float32 or float64, in the order in which they travel."""

    def write(self, values: NDArray[Any]) -> None:
        """Take over a copy of the trained values [P]."""

    def begin(self, start: NDArray[Any]) -> None:
        """Note that a round begins at ``start`` [P]: what FedProx pulls to, and what is then part of the state."""

    def take(self, indices: NDArray[np.int64]) -> TakenRows:
        """Make the samples at ``indices`` [B] of the dataset the rows of the step; forget the one before."""

    def forward(self, step: LocalStep, out: Outgoing[X], rows: NDArray[np.int64] | None = None) -> None:
        """Write the activations at the cut, [n, d], in pieces of the half's own choice.

        Of all rows of the step or, where ``rows`` are given, of these; perhaps of none.
        """

    def finish(self, step: LocalStep, last: Incoming[X], out: Outgoing[X]) -> float:
        """Run head and loss on the [n, d] after the server's last block; write the loss's gradient for them.

        Return the mean loss of the mini-batch. The gradients of what the head trains are kept for ``backward``.
        """

    def backward(self, step: LocalStep, gradient: Incoming[X] | None) -> None:
        """Take one optimiser step at ``step.rate``, with the gradient [n, d] at the cut; None where none comes back.

        Without a gradient the blocks before the cut do not move; with labels at home the head does.
        """

    def optimizer(self) -> Arrays:
        """Return what the optimiser remembers, nothing where it is fresh; the arrays may change with the next step."""

    def put_optimizer(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back copies of what :meth:`optimizer` returned; nothing makes it fresh."""

    def state(self) -> Arrays:
        """Return all of it that must survive a crash after a step, optimiser apart; the arrays may change later."""

    def restore(self, state: Mapping[str, NDArray[Any]]) -> bool:
        """Put back what :meth:`state` returned; False where it is of another model, and nothing was changed."""
