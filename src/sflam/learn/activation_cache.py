"""``learn.cache``: activations of a frozen device half are computed once per sample.

Where nothing below the cut is trained (``learn.device_half = "frozen"``, or cut 0 with a frozen embedding), a sample's
activations are the same in every pass. They are kept

    device   on the device, which computes them once and sends them every time, with new rounding noise; or
    server   on the server, as they first arrived: afterwards the device only sends the numbers of its samples. Their
             rounding noise stays what it was the first time. It is drawn by sample, not by step, so that a resumed
             run, which sends them again, trains on the same numbers.

The frozen half runs without dropout where its activations are kept.

B rows, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from sflam.codec.legs import UP
from sflam.codec.messages import StepFrame
from sflam.codec.pieces import join, split
from sflam.codec.quantizer import Packed
from sflam.codec.torch_guard import guarded
from sflam.errors import ConfigError, WireError
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position
from sflam.model.split import DeviceSegment
from sflam.seeds import derive


def expect_frozen(cache: str, segment: DeviceSegment, cuts: Sequence[int]) -> None:
    """Raise ConfigError where ``learn.cache`` is asked for and something below a cut is trained."""
    if cache == "off" or not any(segment.answers(cut, device) for device, cut in enumerate(cuts)):
        return
    if not segment.answers(0):
        first, deepest = segment.tuned.start, max(cuts)
        assert first, "run.compatibility refuses that"
        raise ConfigError(
            f'learn.cache is "{cache}", but devices cut at {deepest} train the blocks from {first} on, so activations '
            f'change; set learn.device_half = "frozen", or cut at {first} or before, or learn.cache = "off"'
        )
    raise ConfigError(
        f'learn.cache is "{cache}", but the embedding is trained, so activations change; set learn.cache = "off"'
    )


class KeptActivations:
    """Activations that devices keep: (device, sample) -> [t,d], valid tokens alone."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], Tensor] = {}

    def holds(self, device: int, sample: int) -> bool:
        """Return whether a device keeps the activations of a sample."""
        return (device, sample) in self._rows

    def missing(self, device: int, batch: Minibatch) -> Minibatch | None:
        """Return the rows of ``batch`` that must still be run; None where there are none."""
        return _without(batch, {sample for sample in batch.ids if (device, sample) in self._rows})

    def add(self, device: int, batch: Minibatch, hidden: Tensor) -> None:
        """Keep ``hidden`` [B,T,d] of a mini-batch."""
        for sample, length, row in zip(batch.ids, batch.counts(hidden.shape[1]), hidden, strict=True):
            self._rows[device, sample] = row[:length].clone()

    def take(self, device: int, batch: Minibatch) -> Tensor:
        """Return [B,T,d] of a mini-batch whose rows are all kept, zero where a row has no token."""
        return pad_sequence([self._rows[device, sample] for sample in batch.ids], batch_first=True)


@dataclass(frozen=True)
class CachedExchange(Exchange):
    """An exchange whose server keeps the activations of every sample it was sent.

    Attributes:
        kept: device -> sample -> its valid tokens, as they arrived; the server's.
        sent: device -> samples it need not send again; the device's.
        most: device -> how many samples of it are kept at most and the tokens of each, where it is not trusted.
    """

    kept: dict[int, dict[int, Packed]] = field(default_factory=dict)
    sent: dict[int, set[int]] = field(default_factory=dict)
    most: dict[int, tuple[int, int]] = field(default_factory=dict)
    numbered: ClassVar[bool] = True

    def unsent(self, batches: Mapping[int, Minibatch]) -> dict[int, Minibatch]:
        """Return the rows of each device's mini-batch that the server does not have, for devices with any."""
        fresh = {device: _without(batch, self.sent.get(device, set())) for device, batch in batches.items()}
        return {device: rows for device, rows in fresh.items() if rows is not None}

    def limit(self, most: Mapping[int, tuple[int, int]]) -> None:
        """Note device -> how many samples it has, and the tokens of each; 0 for any."""
        self.most.update(most)

    def held(self, device: int) -> list[int]:
        """Return the samples of a device that the server has, ascending."""
        return sorted(self.kept.get(device, {}))

    def _outgoing(
        self, at: Position, hidden: Tensor | None, batch: Minibatch
    ) -> tuple[Packed, NDArray[np.int32] | None]:
        """Encode the rows that the server does not have, each with noise of its own; name all rows."""
        fresh, parts = self.unsent({at.device: batch}).get(at.device), []
        if fresh is not None:
            assert hidden is not None
            for sample, length, row in zip(fresh.ids, fresh.counts(hidden.shape[1]), hidden, strict=True):
                noise = derive(self.seed, "quantizer", at.device, sample)
                tokens = guarded(
                    self.guard, row[:length], UP, at.device, sample
                )  # once a sample, as it is sent
                parts.append(self.quantizer.encode(tokens, self._bits(row, UP, at.device), noise))
            self.sent.setdefault(at.device, set()).update(fresh.ids)
        else:  # none of them: an empty message of the shape agreed
            kept = self.kept[at.device][batch.ids[0]]
            parts.append(split(kept, [0, kept.tokens])[0])
        return join(parts), np.array(batch.ids, dtype=np.int32)

    def _incoming(self, message: StepFrame) -> Packed:
        """Keep the rows that are new, and return the tokens of all."""
        if message.samples is None:
            raise WireError("a step without sample numbers came where learn.cache = 'server' was agreed")
        ids, kept = message.samples.tolist(), self.kept.setdefault(message.device, {})
        new = [row for row, sample in enumerate(ids) if sample not in kept]
        most, each = self.most.get(message.device, (len(kept) + len(new), 0))
        if len(kept) + len(new) > most:
            raise WireError(f"more samples came than the {most} that the device reported")
        lengths = message.lengths
        if lengths is None:
            known = {kept[sample].tokens for sample in ids if sample in kept}
            each = each or max(known, default=message.activations.tokens // len(new) if new else 0)
            lengths = np.full(len(ids), each)
        if not lengths.all() or any(
            kept[sample].tokens != count for sample, count in zip(ids, lengths, strict=True) if sample in kept
        ):
            raise WireError("samples came without tokens, or with other numbers of them than before")
        counts = [int(lengths[row]) for row in new]
        if sum(counts) != message.activations.tokens:
            raise WireError(
                f"{message.activations.tokens} tokens for {len(new)} new samples of {sum(counts)} tokens; send exactly "
                "the samples that were not sent before"
            )
        if new:
            for row, part in zip(new, split(message.activations, counts), strict=True):
                kept[ids[row]] = part
        return join([kept[sample] for sample in ids])


def unkept(
    batches: Mapping[int, Sequence[NDArray[np.int64]]], exchange: Exchange, kept: KeptActivations | None
) -> dict[int, int]:
    """Return how many samples of a round's mini-batches each device must still run through its frozen half.

    Args:
        batches: device -> the samples of each of its mini-batches.
        exchange: knows what the server keeps.
        kept: what devices keep.
    """
    found = {}
    for device, own in batches.items():
        known = exchange.sent.get(device, set()) if isinstance(exchange, CachedExchange) else set()
        seen = {sample for mine in own for sample in mine.tolist()} - known
        found[device] = sum(kept is None or not kept.holds(device, sample) for sample in seen)
    return found


def _without(batch: Minibatch, known: set[int]) -> Minibatch | None:
    rows = [row for row, sample in enumerate(batch.ids) if sample not in known]
    if len(rows) == len(batch):
        return batch
    return batch.rows(torch.tensor(rows)) if rows else None
