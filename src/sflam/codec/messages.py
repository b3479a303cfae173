"""Messages between device and server, as frozen dataclasses that refuse inconsistent values.

Every field is checked here, so a message that exists can be sent, and a body that decodes is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sflam.codec.quantizer import Packed, Words
from sflam.errors import NotFiniteError, WireError
from sflam.sizes import COUNT_LIMIT, adapter_groups

Integers = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class StepFrame:
    """Device to server: the activations of one mini-batch.

    Attributes:
        round: round number, from 0.
        step: step within the round, from 0.
        device: index of the device.
        activations: the valid tokens of all rows, row after row.
        rows: samples in the mini-batch, at least 1.
        lengths: valid tokens per row, int32 [rows], from which the server rebuilds every mask; None where all
            rows are full.
        labels: int32 [any number], one per row or per token; None where labels stay on the device.
        samples: int32 [rows], the device's own number of each sample, where the server keeps activations; those of
            the samples it has are left out. None where all activations are there.

    Raises:
        WireError: a number out of range, or arrays that do not fit each other.
    """

    round: int
    step: int
    device: int
    activations: Packed
    rows: int
    lengths: Integers | None
    labels: Integers | None
    samples: Integers | None = None

    def __post_init__(self) -> None:
        _check_counts(round=self.round, step=self.step, device=self.device, rows=self.rows)
        _check_packed(self.activations)
        tokens = self.activations.tokens
        if not self.rows:
            raise WireError("rows is 0; a step has at least one row")
        if self.samples is not None:
            _check_array("samples", self.samples, np.int32)
            if len(self.samples) != self.rows or len(np.unique(self.samples)) != self.rows:
                raise WireError(
                    f"{len(self.samples)} sample numbers for {self.rows} rows; give one per row, no two alike"
                )
        if self.lengths is None:
            if tokens % self.rows and self.samples is None:
                raise WireError(
                    f"{tokens} tokens in {self.rows} rows without lengths; unequal rows need lengths"
                )
        else:
            _check_array("lengths", self.lengths, np.int32)
            if len(self.lengths) != self.rows:
                raise WireError(f"{len(self.lengths)} lengths for {self.rows} rows; give one per row")
            least, total = self.lengths.min(initial=0), self.lengths.sum(dtype=np.int64)
            if least < 0 or (total < tokens if self.samples is not None else total != tokens):
                raise WireError(
                    f"lengths from {least} that sum to {total} for {tokens} tokens; "
                    "lengths must be 0 or more and sum to the tokens"
                )
        if self.labels is not None:
            _check_array("labels", self.labels, np.int32)


@dataclass(frozen=True, eq=False)
class GradientFrame:
    """Server to device: the loss of a step and the gradient at the cut.

    Attributes:
        round: round number of the step.
        step: number of the step within the round.
        device: index of the device.
        loss: mean loss of the mini-batch; it travels exactly, and may be inf or nan.
        gradient: gradient of the loss for the tokens sent, in their order; None where the device half is
            frozen.

    Raises:
        WireError: a number out of range.
    """

    round: int
    step: int
    device: int
    loss: float
    gradient: Packed | None

    def __post_init__(self) -> None:
        _check_counts(round=self.round, step=self.step, device=self.device)
        if self.gradient is not None:
            _check_packed(self.gradient)


@dataclass(frozen=True, eq=False)
class TokenFrame:
    """Either way, with labels on the device: tokens of a step that a StepFrame has announced, in its order.

    Down: the activations after the server's last block; up: the gradient of the device's loss with respect to them.

    Attributes:
        round: round number of the step.
        step: number of the step within the round.
        device: index of the device.
        tokens: activations or gradient.

    Raises:
        WireError: a number out of range.
    """

    round: int
    step: int
    device: int
    tokens: Packed

    def __post_init__(self) -> None:
        _check_counts(round=self.round, step=self.step, device=self.device)
        _check_packed(self.tokens)


@dataclass(frozen=True, eq=False)
class AdapterFrame:
    """Either way, once a round: the trainable weights of the device half.

    Attributes:
        round: round number.
        device: index of the device.
        samples: samples the weights were trained on, the weight in the average.
        values: finite float32 or float64, 1-D: all tensors flattened, in the order both sides agreed on.
        grid: down, where all devices round their change on one grid: uint16 [G, 2], offset and step of each group.

    Raises:
        WireError: a number out of range, another type or shape, NaN or inf.
    """

    round: int
    device: int
    samples: int
    values: npt.NDArray[np.float32] | npt.NDArray[np.float64]
    grid: Words | None = None

    def __post_init__(self) -> None:
        _check_counts(round=self.round, device=self.device, samples=self.samples)
        _check_array("values", self.values, np.float32, np.float64)
        if not np.isfinite(self.values).all():
            raise NotFiniteError("adapter values hold NaN or inf; they would spoil every device's average")
        groups = adapter_groups(len(self.values))
        if self.grid is not None and (self.grid.dtype != np.uint16 or self.grid.shape != (groups, 2)):
            raise WireError(f"grid is {self.grid.dtype} {list(self.grid.shape)}; give uint16 {[groups, 2]}")


@dataclass(frozen=True, eq=False)
class ChangeFrame:
    """Device to server, once a round: how the trainable weights of its half changed, in few bits.

    Attributes:
        round: round number.
        device: index of the device.
        samples: samples the weights were trained on, the weight in the average.
        change: of all tensors flattened, in groups; see ``codec.adapter_change``.

    Raises:
        WireError: a number out of range.
    """

    round: int
    device: int
    samples: int
    change: Packed

    def __post_init__(self) -> None:
        _check_counts(round=self.round, device=self.device, samples=self.samples)
        _check_packed(self.change)


Message = StepFrame | GradientFrame | TokenFrame | AdapterFrame | ChangeFrame


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not 0 <= count < COUNT_LIMIT:
            raise WireError(f"{name} is {count}; it must be in 0..{COUNT_LIMIT - 1}")


def _check_packed(packed: Packed) -> None:
    _check_counts(tokens=packed.tokens, dim=packed.dim)


def _check_array(name: str, array: npt.NDArray[Any], *dtypes: type[np.generic]) -> None:
    if array.dtype not in dtypes or array.ndim != 1:
        wanted = " or ".join(dtype.__name__ for dtype in dtypes)
        raise WireError(f"{name} is {array.dtype} {list(array.shape)}; give {wanted}, one-dimensional")
