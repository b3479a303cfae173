"""AdamW, Adam and SGD in NumPy, over one vector of trained numbers: torch's arithmetic, a slice at a time.

Every operation is torch's, in its order (``torch.optim``, one tensor, no AMSGrad), so that a device without torch
ends a round with the adapters of one with it. P trained numbers.
"""

from __future__ import annotations

import math
import mmap
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.errors import RunError
from sflam.files import writing
from sflam.learn.settings import LearnSettings

Floats = NDArray[np.floating[Any]]

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""What torch takes where nothing is set."""
SLICE = 1 << 15
"""Numbers that are moved at a time: what is computed on the way stays small, and in the cache."""
GIVEN_BACK = 8
"""Slices after which the pages of moments in a file are given back."""
CLIP_EPSILON = 1e-6
"""What torch's ``clip_grad_norm_`` adds to a norm."""


class VectorOptimizer:
    """The optimiser of ``learn.optimizer`` for one vector [P].

    Args:
        settings: kind, weight decay and momentum.
        size: P.
        dtype: of the numbers.
        scratch: folder of an unnamed file for the moments, whose pages are given back after every step; None keeps
            them in memory.
    """

    def __init__(
        self, settings: LearnSettings, size: int, dtype: np.dtype[Any], scratch: Path | None = None
    ) -> None:
        self.settings, self.size, self.dtype = settings, size, np.dtype(dtype)
        if settings.optimizer == "sgd":
            names: tuple[str, ...] = ("momentum_buffer",) if settings.momentum else ()
        else:
            names = ("exp_avg", "exp_avg_sq")
        self.steps = 0
        self._map: mmap.mmap | None = None
        self.moments: dict[str, Floats] = {}
        self._allocate(names, scratch)

    def _allocate(self, names: tuple[str, ...], scratch: Path | None) -> None:
        nbytes = self.size * self.dtype.itemsize
        if scratch is None or not nbytes or not names:
            self.moments = {name: np.zeros(self.size, self.dtype) for name in names}
            return
        with writing(f"moments of the optimiser in {scratch}", "free space, or choose another --folder"):
            scratch.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=scratch) as file:
                file.truncate(nbytes * len(names))
                self._map = mmap.mmap(file.fileno(), nbytes * len(names))
        for index, name in enumerate(names):
            self.moments[name] = np.frombuffer(self._map, self.dtype, self.size, index * nbytes)

    def reset(self) -> None:
        """Forget everything, as at the start."""
        self.steps = 0
        for moment in self.moments.values():
            moment.fill(0.0)
        self.give_back()

    def state(self) -> dict[str, Any]:
        """Return the step count and the moments by torch's names; the arrays are the optimiser's own, not copies."""
        return {"steps": self.steps, **self.moments}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned.

        Raises:
            RunError: it is of another optimiser, or of another number of weights.
        """
        given = {name: state[name] for name in state if name != "steps"}
        shapes = {name: np.shape(values) for name, values in given.items()}
        if shapes != {name: (self.size,) for name in self.moments}:
            raise RunError(
                f"a state of the optimiser holds {sorted(shapes.items())}, not {sorted(self.moments)} of {self.size} "
                "numbers; delete the state in --folder"
            )
        self.steps = int(state["steps"])
        for name, values in given.items():
            self.moments[name][:] = values
        self.give_back()

    def step(self, values: Floats, gradient: Floats, rate: float) -> None:
        """Move ``values`` [P] in place by one step at learning rate ``rate``; ``gradient`` [P] is used up."""
        self.steps += 1
        move = self._sgd if self.settings.optimizer == "sgd" else self._adam
        for number, part in enumerate(slices(self.size), 1):
            move(values[part], gradient[part], rate, part)
            if number % GIVEN_BACK == 0:
                self.give_back()
        self.give_back()

    def _sgd(self, values: Floats, gradient: Floats, rate: float, part: slice) -> None:
        if self.settings.weight_decay:
            gradient += self.settings.weight_decay * values
        if self.settings.momentum:
            moment = self.moments["momentum_buffer"][part]
            if self.steps > 1:
                moment *= self.settings.momentum
                moment += gradient
            else:  # torch begins with the gradient itself
                moment[:] = gradient
            gradient = moment
        values -= rate * gradient

    def _adam(self, values: Floats, gradient: Floats, rate: float, part: slice) -> None:
        decay = self.settings.weight_decay
        if decay and self.settings.optimizer == "adamw":
            values *= 1.0 - rate * decay
        elif decay:
            gradient += decay * values
        mean, square = self.moments["exp_avg"][part], self.moments["exp_avg_sq"][part]
        mean += (1.0 - BETA1) * (gradient - mean)
        square *= BETA2
        square += (1.0 - BETA2) * gradient * gradient
        denominator = np.sqrt(square)
        denominator /= math.sqrt(1.0 - BETA2**self.steps)
        denominator += EPSILON
        np.divide(mean, denominator, out=denominator)
        denominator *= rate / (1.0 - BETA1**self.steps)
        values -= denominator

    def give_back(self) -> None:
        """Let the system take the pages of the moments: they are in the file."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)


def clip(gradient: Floats, most: float) -> None:
    """Scale ``gradient`` [P] in place to norm ``most``, where it is longer, as ``clip_grad_norm_`` does; 0: never."""
    if not most or not gradient.size:
        return
    norm = math.sqrt(sum(float(np.vdot(gradient[part], gradient[part])) for part in slices(gradient.size)))
    gradient *= min(1.0, most / (norm + CLIP_EPSILON))


def slices(size: int) -> Iterator[slice]:
    """Yield consecutive slices of at most ``SLICE`` of ``size`` numbers."""
    for start in range(0, size, SLICE):
        yield slice(start, min(start + SLICE, size))
