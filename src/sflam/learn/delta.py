"""``quant.delta``: devices send the change of each sample's activations since they last sent that sample.

Both ends keep, for every sample, the activations as the server last had them, a (AQ-SGD, arXiv 2206.01299):

    first visit   a = Q(x)
    later visits  m = Q(x - a),  a <- a + m, and the server trains on a

so what quantization loses in one visit is part of the next difference, and the noise shrinks with the change itself.
Both ends add the same decoded m, so their tables are equal to the bit. Gradients are as without it.

Raw floats (``identity``) travel whole, as a difference would save nothing and round.

B rows, T tokens, d hidden size, n valid tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sflam.codec.legs import UP
from sflam.codec.messages import StepFrame
from sflam.codec.quantizer import Packed
from sflam.errors import WireError
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position, valid_rows
from sflam.sizes import IDENTITY

VALUE_BYTES = 4
"""Bytes of a kept value, float32."""


class SampleTable:
    """The activations of samples as they were last received: (device, sample) -> [t,d], valid tokens alone."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], Tensor] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def items(self) -> Mapping[tuple[int, int], Tensor]:
        """Return what is kept."""
        return self._rows

    def read(self, device: int, samples: Sequence[int], counts: Sequence[int], like: Tensor) -> Tensor:
        """Return [n,d] of a device's samples, zero for those that are new; raises WireError for another length."""
        parts = []
        for sample, count in zip(samples, counts, strict=True):
            row = self._rows.get((device, sample))
            if row is not None and len(row) != count:
                raise WireError(
                    f"sample {sample} of device {device} has {count} tokens, but {len(row)} before; send the sample "
                    "that has this number"
                )
            parts.append(like.new_zeros(count, like.shape[1]) if row is None else row.to(like.device))
        return torch.cat(parts)

    def write(self, device: int, samples: Sequence[int], counts: Sequence[int], tokens: Tensor) -> None:
        """Keep [n,d] of a device's samples."""
        for sample, row in zip(samples, torch.split(tokens, list(counts)), strict=True):
            self._rows[device, sample] = row.clone()

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash: per device, its samples, their tokens, and their rows in one tensor."""
        found: dict[str, Any] = {}
        for (device, sample), row in self._rows.items():
            own = found.setdefault(str(device), {"samples": [], "tokens": [], "rows": []})
            own["samples"].append(sample)
            own["tokens"].append(len(row))
            own["rows"].append(row)
        return {device: own | {"rows": torch.cat(own["rows"])} for device, own in found.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self._rows = {}
        for device, own in state.items():
            self.write(int(device), own["samples"], own["tokens"], own["rows"])


@dataclass(frozen=True)
class DeltaExchange(Exchange):
    """An exchange whose devices send differences to what the server has of a sample.

    Attributes:
        sent: the table of the devices; each reads and writes its own samples alone.
        received: the table of the server.
    """

    sent: SampleTable = field(default_factory=SampleTable)
    received: SampleTable = field(default_factory=SampleTable)
    numbered: ClassVar[bool] = True

    def _outgoing(
        self, at: Position, hidden: Tensor | None, batch: Minibatch
    ) -> tuple[Packed, NDArray[np.int32] | None]:
        """Encode the change of every row, and take it over; name all rows."""
        assert hidden is not None
        if self.scheme == IDENTITY:
            return super()._outgoing(at, hidden, batch)
        tokens = valid_rows(hidden, batch.lengths).float()
        counts = batch.counts(hidden.shape[1])
        before = self.sent.read(at.device, batch.ids, counts, tokens)
        packed = self.encoded(at, UP, tokens - before, self._bits(hidden, UP, at.device))
        self.sent.write(at.device, batch.ids, counts, before + self.quantizer.decode(packed, tokens.device))
        return packed, np.array(batch.ids, dtype=np.int32)

    def _decoded(self, message: StepFrame, device: torch.device) -> Tensor:
        """Return the [n,d] activations of a step, and take them over."""
        change = super()._decoded(message, device)
        if self.scheme == IDENTITY:
            return change
        if message.samples is None:
            raise WireError("a step without sample numbers came where quant.delta was agreed")
        if message.lengths is None:
            counts = [len(change) // message.rows] * message.rows
        else:
            counts = message.lengths.tolist()
        if sum(counts) != len(change):
            raise WireError(
                f"{len(change)} tokens for {message.rows} samples of {sum(counts)} tokens; with quant.delta every "
                "sample's change is sent"
            )
        samples = message.samples.tolist()
        now = self.received.read(message.device, samples, counts, change) + change
        self.received.write(message.device, samples, counts, now)
        return now

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds: one table, as both ends have the same."""
        return self.received.state()

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned, at both ends."""
        for table in (self.sent, self.received):
            table.restore(state)
