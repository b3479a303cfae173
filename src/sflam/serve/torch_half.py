"""A device's part of the model in torch, as the loop over the network wants it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sflam.codec.guard import Guard
from sflam.codec.quantizer import Floats, Packed
from sflam.codec.torch_guard import guarded
from sflam.codec.torch_quantizers import torch_quantizer
from sflam.learn.adapter_exchange import flatten, unflatten
from sflam.learn.device import Devices
from sflam.learn.examples import Examples, Minibatch
from sflam.learn.exchange import RAW_BITS, token_labels, valid_rows
from sflam.learn.local.registry import local_rule
from sflam.learn.settings import LearnSettings
from sflam.learn.weighting import expected_rows
from sflam.link.exchange import NumpyCoder, TokenExchange
from sflam.link.half import Arrays, Incoming, LocalStep, Outgoing, TakenRows
from sflam.model.dummy_inputs import valid_tokens
from sflam.model.families import CAUSAL
from sflam.model.split import DeviceSegment
from sflam.sizes import FLOAT_BITS, sent_tokens

ROW = 0
"""The one row of the stack that holds this device's adapters."""


class TorchHalf:
    """A device segment, its optimiser and its samples.

    Args:
        segment: its part of the model, one row.
        cut: blocks it keeps.
        learn: optimiser, loss, and what it adds to its learning.
        examples: its dataset, bound to its part of the model.
        own: which samples it trains on, int64 [n].
        guard: what the device does to the gradient of each sample; None for nothing.
        sampling: ``data.sampling``.
    """

    def __init__(
        self,
        segment: DeviceSegment,
        cut: int,
        learn: LearnSettings,
        examples: Examples,
        own: NDArray[np.int64],
        guard: Guard | None = None,
        sampling: str = "local",
    ) -> None:
        self.examples, self.task = examples, examples.task
        self.devices = Devices(segment, (cut,), learn)
        self.devices.protect(guard, self.task)
        self.devices.expect(expected_rows(learn, sampling, {ROW: len(own)}))
        self.stack, self.names = segment.stack, segment.names(cut)
        self.rule = local_rule(learn, "local", examples, {ROW: own})
        self.devices.follow(self.rule, {ROW: (ROW, self.names)} if self.names else {})
        self.where = next(segment.parameters()).device
        width, self.dim = _shape(segment, examples)
        self._width = width if examples.spec else 0
        """Tokens of an image; 0 for texts, where every row has its own."""
        self.float_bits = RAW_BITS.get(segment.dtype, 32)
        self.lengths = examples.buckets
        self.has_head = segment.has_head
        self.trained = self.stack.size(self.names) if self.names else 0
        self._start: NDArray[Any] | None = None
        self._batch: Minibatch | None = None
        self._crossing: Minibatch | None = None
        """The mini-batch as the server sees it: with the lengths of what is sent."""

    def read(self) -> NDArray[Any]:
        """Return the trained values; see ``Half.read``."""
        return flatten(self.stack.read(ROW), self.names).cpu().numpy()

    def write(self, values: NDArray[Any]) -> None:
        """Take the trained values over; see ``Half.write``."""
        self.stack.write(ROW, self._named(values))

    def begin(self, start: NDArray[Any]) -> None:
        """Note where a round begins; see ``Half.begin``."""
        self._start = start if self.rule.acts else None
        self.rule.begin(self._named(start))

    def take(self, indices: NDArray[np.int64]) -> TakenRows:
        """Take the rows of a step; see ``Half.take``."""
        self._batch = batch = self.examples.take(indices)
        if self.devices.dropping:
            batch = self.devices.dropping.crossing(batch, self._most(batch))
        self._crossing = batch
        labels = None
        if not self.has_head:
            labels = token_labels(batch) if self.task == CAUSAL else batch.labels
        return TakenRows(
            len(batch),
            self._tokens(batch),
            None if batch.lengths is None else batch.lengths.cpu().numpy().astype(np.int32),
            None if labels is None else labels.cpu().numpy().astype(np.int32),
        )

    def forward(self, step: LocalStep, out: Outgoing[Tensor], rows: NDArray[np.int64] | None = None) -> None:
        """Write the activations at the cut; see ``Half.forward``."""
        self.devices.at_attempt(step.attempt)
        batch = self._taken if rows is None else self._taken.rows(torch.from_numpy(rows))
        sent = {ROW: batch} if len(batch) else {}
        hidden = self.devices.forward({ROW: self._taken}, {ROW: step.seed}, sent)
        if sent:
            hidden, sent = self.devices.sent(hidden, sent, {ROW: step.seed})
            out.write(valid_rows(hidden[ROW], sent[ROW].lengths))

    def finish(self, step: LocalStep, last: Incoming[Tensor], out: Outgoing[Tensor]) -> float:
        """Run head and loss; see ``Half.finish``."""
        batch = self._seen
        came = {ROW: self._padded(last)}
        loss, gradient = self.devices.finish(self.task, {ROW: batch}, came, {ROW: step.head_seed})[ROW]
        out.write(valid_rows(gradient, batch.lengths))
        return loss

    def backward(self, step: LocalStep, gradient: Incoming[Tensor] | None) -> None:
        """Take one optimiser step; see ``Half.backward``."""
        for group in self.devices.optimizer.param_groups:
            group["lr"] = step.rate
        back = {} if gradient is None else {ROW: self._padded(gradient)}
        self.devices.backward(back, {ROW: self._taken})

    def optimizer(self) -> Arrays:
        """Return what the optimiser remembers; see ``Half.optimizer``."""
        own = self.devices.state().get(str(ROW), {})
        return {name: value.cpu().numpy() for name, value in own.items() if value is not None}

    def put_optimizer(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back what the optimiser remembered; see ``Half.put_optimizer``."""
        own = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
        self.devices.optimizer.state.clear()
        if own:
            self.devices.restore({str(ROW): own})

    def state(self) -> Arrays:
        """Return what must survive a crash; see ``Half.state``."""
        found = {"values": self.stack.values.detach()[ROW].cpu().numpy()}
        return found if self._start is None else found | {"start": self._start}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> bool:
        """Put back what survived; see ``Half.restore``."""
        own = self.stack.values
        if "values" not in state or state["values"].shape != tuple(own[ROW].shape):
            return False
        with torch.no_grad():
            own[ROW] = torch.from_numpy(state["values"]).to(own)
        if "start" in state:
            self.begin(state["start"])
        return True

    @property
    def _taken(self) -> Minibatch:
        assert self._batch is not None, "take comes first"
        return self._batch

    @property
    def _seen(self) -> Minibatch:
        assert self._crossing is not None, "take comes first"
        return self._crossing

    def _named(self, values: NDArray[Any]) -> dict[str, Tensor]:
        """Return [P] as the named tensors, on the device and in the type of the trained ones."""
        own = torch.from_numpy(np.array(values)).to(self.stack.values)
        return unflatten(own, self.stack.read(ROW), self.names)

    def _tokens(self, batch: Minibatch) -> int:
        """Return n of a mini-batch as the server sees it."""
        most = self._most(batch)
        if self.devices.dropping:
            most = sent_tokens(most, self.devices.dropping.drop.share)
        return sum(batch.counts(most))

    def _most(self, batch: Minibatch) -> int:
        """Return the tokens of an image, or of the longest text."""
        return self._width or int(next(iter(batch.inputs.values())).shape[1])

    def _padded(self, came: Incoming[Tensor]) -> Tensor:
        """Return the [B,T,d] tokens of a message; those that do not travel are zero."""
        batch = self._seen
        tokens = came.read(self._tokens(batch))
        if batch.lengths is None:
            return tokens.view(len(batch), -1, tokens.shape[1])
        width = int(batch.lengths.max())
        out = tokens.new_zeros(len(batch), width, tokens.shape[1])
        out[valid_tokens(batch.lengths, width).bool()] = tokens
        return out


@torch.no_grad()
def _shape(segment: DeviceSegment, examples: Examples) -> tuple[int, int]:
    """Return the tokens of the first sample, and d."""
    segment.eval()  # nothing is drawn
    hidden = segment.family.embed(segment.parts, examples.take(np.zeros(1, np.int64)).inputs)
    segment.train()
    return int(hidden.shape[1]), int(hidden.shape[2])


class TorchCoder:
    """The quantizer called ``scheme`` over tensors of one device: as NumPy's where that is the processor.

    Args:
        scheme: name of the quantizer.
        device: where tokens are, and where they are put.
    """

    def __init__(self, scheme: str, device: torch.device) -> None:
        self.inner, self.plain, self.device = torch_quantizer(scheme), NumpyCoder(scheme), device
        self.remembers = self.inner.remembers
        self.in_pieces = self.plain.in_pieces and device.type == "cpu"

    def encode(self, x: Tensor, bits: int, seed: int) -> Packed:
        """Encode [n, d]."""
        return self.inner.encode(x, bits, seed)

    def encode_after(self, left: Floats | None, x: Tensor, bits: int, seed: int) -> tuple[Packed, Floats]:
        """Encode [n, d] with what was left out before."""
        return self.inner.encode_after(left, x, bits, seed)

    def encode_part(self, x: Tensor, bits: int, seed: int, first: int) -> Packed:
        """Encode [m, d], the tokens of a message from number ``first`` on."""
        x = x if x.dtype == torch.float64 else x.float()
        return self.plain.encode_part(x.numpy(), bits, seed, first)

    def message(self, parts: Sequence[Packed]) -> Packed:
        """Return the message of consecutive parts of variable size."""
        return self.plain.message(parts)

    def part(self, packed: Packed, first: int, count: int) -> Packed:
        """Return ``count`` tokens of a message from number ``first`` on."""
        return self.plain.part(packed, first, count)

    def decode(self, packed: Packed) -> Tensor:
        """Return [n, d], the caller's own."""
        return self.inner.decode(packed, self.device)

    def joined(self, pieces: Sequence[Tensor]) -> Tensor:
        """Return the pieces as a new [n, d]."""
        return torch.cat(list(pieces))

    def guarded(self, guard: Guard, x: Tensor, leg: int, *place: int, first: int) -> Tensor:
        """Return tokens as they may leave the device."""
        return guarded(guard, x, leg, *place, first=first)


def torch_exchange(
    half: TorchHalf,
    scheme: str,
    seed: int,
    device: int,
    bits: tuple[int, int],
    bits_adapters: int = FLOAT_BITS,
    guard: Guard | None = None,
) -> TokenExchange[Tensor]:
    """Return how a device's tensors become messages.

    Args:
        half: its part of the model.
        scheme: name of the quantizer.
        seed: of the run.
        device: its number.
        bits: per value up and down.
        bits_adapters: per adapter value up.
        guard: what the device does to what it sends; None for nothing.
    """
    coder = TorchCoder(scheme, half.where)
    width = half.float_bits
    return TokenExchange(coder, scheme, seed, device, half.dim, width, bits, bits_adapters, guard=guard)
