"""How many rows go through a server fastest in one pass, found by trying some: ``learn.passes = "measured"``.

Few rows leave the processor's cores idle, many outgrow its caches. Where between the two is best is a fact of a machine
and a model, so what is found is a setting of a run, and never looked for again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch

from sflam.cost.memory import memory_of_rows, rows_of_pass
from sflam.cost.training import Step
from sflam.learn.examples import Minibatch
from sflam.learn.frames import Frame
from sflam.learn.server import Trunk

TRIES = 3
"""Passes of each size; the fastest counts, as what disturbs one only adds."""
ALIKE = 1.02
"""What takes no longer per row than this times the fastest is as good, and the fewer rows need less memory."""
WORSE = 1.1
"""Where passes are so much slower than the fastest, still smaller ones are not tried."""


@dataclass(frozen=True)
class Trial:
    """What one size of pass took.

    Attributes:
        rows: of a pass.
        seconds: per row, forward and backward.
    """

    rows: int
    seconds: float


@dataclass(frozen=True)
class FastestPass:
    """What was found.

    Attributes:
        rows: of a pass.
        memory_gb: ``learn.memory_gb`` that gives passes of so many rows of the length they were tried with.
        trials: what was tried, from the most rows down.
    """

    rows: int
    memory_gb: float
    trials: tuple[Trial, ...]

    def note(self) -> str:
        """Return what was found, as a sentence."""
        tried = ", ".join(f"{each.rows}: {1e3 * each.seconds:.3g}" for each in self.trials)
        return (
            f"passes of {self.rows} rows were the fastest (ms a row by rows of a pass: {tried}); this run keeps them, "
            f"as learn.memory_gb = {self.memory_gb}"
        )


def frames_for(
    samples: Minibatch, cut: int, tokens: int, hidden: int, batch: int, like: torch.Tensor, *, home: bool
) -> list[Frame]:
    """Return frames of random activations for the samples, ``batch`` rows of a device.

    Args:
        samples: B of them, for their lengths and labels.
        cut: blocks that the devices keep.
        tokens: T.
        hidden: d.
        batch: rows of a frame.
        like: has the type and place of activations.
        home: whether labels stay on the devices.
    """
    draw = torch.Generator().manual_seed(0)
    found = []
    for device, start in enumerate(range(0, len(samples), batch)):
        rows = torch.arange(start, min(start + batch, len(samples)))
        own = samples.rows(rows)
        values = torch.randn(len(rows), tokens, hidden, generator=draw).to(like)
        found.append(Frame(device, cut, values, own.lengths, None if home else own.labels))
    return found


def fastest_pass(trunk: Trunk, step: Step, frames: Sequence[Frame]) -> FastestPass:
    """Return the pass that takes the least time per row, of those that memory allows; nothing is learnt.

    Args:
        trunk: a server like that of the run, with a copy for every device of ``frames``.
        step: of the model, whose ``learn.memory_gb`` is the most that is tried.
        frames: the rows of an optimiser step.
    """
    clock = _clock(frames)
    cut, tokens = frames[0].cut, frames[0].hidden.shape[1]
    step = replace(step, tokens=tokens)
    most = min(rows_of_pass(step, cut), sum(len(frame.hidden) for frame in frames))
    trials: list[Trial] = []
    for rows in halved(most):
        some = _first_rows(frames, rows)
        trials.append(Trial(rows, min(_seconds(trunk, some, clock) for _ in range(TRIES)) / rows))
        if trials[-1].seconds > WORSE * min(each.seconds for each in trials):
            break
    best = min(each.seconds for each in trials)
    rows = min(each.rows for each in trials if each.seconds <= ALIKE * best)
    return FastestPass(rows, memory_of_rows(step, cut, rows), tuple(trials))


def halved(most: int) -> Iterable[int]:
    """Yield ``most`` and the powers of two below it, from above; at least 1."""
    yield most
    rows = 1 << (most - 1).bit_length() - 1 if most > 1 else 0
    while rows:
        yield rows
        rows //= 2


def _first_rows(frames: Sequence[Frame], rows: int) -> list[Frame]:
    """Return the frames of the first ``rows`` rows, as wide as they are."""
    found = []
    for frame in frames:
        if rows <= 0:
            break
        lengths = None if frame.lengths is None else frame.lengths[:rows]
        labels = None if frame.labels is None else frame.labels[:rows]
        found.append(Frame(frame.device, frame.cut, frame.hidden[:rows], lengths, labels))
        rows -= len(frame.hidden)
    return found


def _seconds(trunk: Trunk, frames: Sequence[Frame], clock: Callable[[], float]) -> float:
    """Return the time of one pass there and back."""
    _wait(frames)
    began = clock()
    if frames[0].labels is None:
        out = trunk.forward(frames, 0)
        trunk.returned({device: torch.full_like(own, 1e-3) for device, own in out.items()})
        trunk.forget()
    else:
        trunk.differentiate(frames, 0)
    _wait(frames)
    return clock() - began


def _clock(frames: Sequence[Frame]) -> Callable[[], float]:
    """Return a clock in seconds: what one thread computes is known apart from what others do beside it."""
    alone = frames[0].hidden.device.type == "cpu" and torch.get_num_threads() == 1
    return time.process_time if alone else time.perf_counter


def _wait(frames: Sequence[Frame]) -> None:
    """Wait until an accelerator has done what it was given."""
    if frames[0].hidden.device.type == "cuda":
        torch.cuda.synchronize(frames[0].hidden.device)
