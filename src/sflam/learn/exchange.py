"""What crosses the cut, as real bytes: activations and labels up, gradients down, adapters once a round.

Both ends of every exchange go through here, in a simulated fleet as over a network, so training always sees
``decode(encode(x))`` and every byte count is the length of a real body. A body is decoded once, by :func:`opened`, and
what needs it later gets the message. Only valid tokens travel.

B rows, T tokens, d hidden size, n valid tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sflam.codec.bodies import Body, decode
from sflam.codec.guard import Guard
from sflam.codec.legs import DOWN, GRADIENTS, UP, UPWARD, noise_seed
from sflam.codec.messages import GradientFrame, Message, StepFrame, TokenFrame
from sflam.codec.quantizer import Floats, Packed
from sflam.codec.torch_guard import guarded
from sflam.codec.torch_quantizers import TorchQuantizer, torch_quantizer
from sflam.errors import WireError
from sflam.learn.examples import Minibatch
from sflam.learn.frames import Answer, Frame
from sflam.model.dummy_inputs import valid_tokens
from sflam.model.loss import IGNORED
from sflam.sizes import codes_bytes, is_variable

RAW_BITS = {torch.float32: 32, torch.float64: 64}
M = TypeVar("M", bound=Message)


@dataclass(frozen=True)
class Position:
    """Where in a run an exchange stands; every exchange has its own rounding noise."""

    round: int
    step: int
    device: int


@dataclass(frozen=True)
class Exchange:
    """How tensors become messages and messages tensors.

    Attributes:
        scheme: name of the quantizer.
        seed: seed of the run; rounding noise is drawn from its ``quantizer`` stream.
        bits: device -> bits per activation and per gradient entry; ignored by ``identity``.
        per_token: labels belong to tokens (language models), not to rows.
        left: device -> leg -> what a quantizer with memory left out so far, of the legs that are encoded here.
        guard: what devices do to tokens before these are encoded; None leaves them as they are.
        numbered: whether the numbers of a step's samples go up with it.
    """

    scheme: str
    seed: int
    bits: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    per_token: bool = False
    left: dict[int, dict[int, Floats]] = field(default_factory=dict)
    guard: Guard | None = None
    numbered: ClassVar[bool] = False

    def with_bits(self, bits: Mapping[int, tuple[int, int]]) -> Self:
        """Return the exchange with other bits up and down for every device."""
        return replace(self, bits=dict(bits))

    @property
    def quantizer(self) -> TorchQuantizer:
        """The quantizer of both directions."""
        return torch_quantizer(self.scheme)

    def limit(self, most: Mapping[int, tuple[int, int]]) -> None:
        """Note device -> how many samples of it may be kept, and the tokens of each, 0 for any: it is not trusted."""

    def unsent(self, batches: Mapping[int, Minibatch]) -> dict[int, Minibatch]:
        """Return the rows of each device's mini-batch whose activations must be sent, for devices with any."""
        return dict(batches)

    def step_message(
        self, at: Position, hidden: Tensor | None, batch: Minibatch, *, labels: bool = True
    ) -> StepFrame:
        """Return what a device sends in a step.

        Args:
            at: where in the run.
            hidden: [B,T,d], the activations of :meth:`unsent`.
            batch: the mini-batch.
            labels: whether its labels go along, or stay at home.
        """
        return self._announced(at, batch, *self._outgoing(at, hidden, batch), labels=labels)

    def step_messages(
        self,
        at: Mapping[int, Position],
        hidden: Mapping[int, Tensor],
        batches: Mapping[int, Minibatch],
        *,
        labels: bool = True,
    ) -> dict[int, StepFrame]:
        """Return :meth:`step_message` of every device of a step, in the order of ``batches``."""
        if self.numbered:
            return {
                d: self.step_message(at[d], hidden.get(d), own, labels=labels) for d, own in batches.items()
            }
        packed = self.pack_each(UP, {d: (at[d], hidden[d], own.lengths) for d, own in batches.items()})
        return {
            d: self._announced(at[d], batches[d], sent, None, labels=labels) for d, sent in packed.items()
        }

    def _announced(
        self,
        at: Position,
        batch: Minibatch,
        activations: Packed,
        samples: NDArray[np.int32] | None,
        *,
        labels: bool,
    ) -> StepFrame:
        flat = None
        if labels:
            flat = token_labels(batch) if self.per_token else batch.labels
        return StepFrame(
            at.round,
            at.step,
            at.device,
            activations=activations,
            rows=len(batch),
            lengths=None if batch.lengths is None else batch.lengths.cpu().numpy().astype(np.int32),
            labels=None if flat is None else flat.cpu().numpy().astype(np.int32),
            samples=samples,
        )

    def _outgoing(
        self, at: Position, hidden: Tensor | None, batch: Minibatch
    ) -> tuple[Packed, NDArray[np.int32] | None]:
        """Return the encoded activations of a step, and the numbers of its samples where the server wants them."""
        assert hidden is not None
        return self._packed(at, UP, hidden, batch.lengths), None

    def _incoming(self, message: StepFrame) -> Packed:
        """Return the encoded activations of all rows of a step."""
        return message.activations

    def _decoded(self, message: StepFrame, device: torch.device) -> Tensor:
        """Return the [n,d] activations of all rows of a step."""
        return self.quantizer.decode(self._incoming(message), device)

    def receive_step(self, message: StepFrame, cut: int, device: torch.device) -> Frame:
        """Return the tensors of a step; the tokens that were not sent are zero."""
        return self._frame(message, self._decoded(message, device), cut, device)

    def receive_steps(
        self, messages: Sequence[StepFrame], cuts: Sequence[int], device: torch.device
    ) -> list[Frame]:
        """Return :meth:`receive_step` of every message of a step; ``cuts`` are those of all devices."""
        if self.numbered:
            return [self.receive_step(message, cuts[message.device], device) for message in messages]
        every = self.quantizer.decode_each([message.activations for message in messages], device)
        return [
            self._frame(message, tokens, cuts[message.device], device)
            for message, tokens in zip(messages, every, strict=True)
        ]

    def _frame(self, message: StepFrame, tokens: Tensor, cut: int, device: torch.device) -> Frame:
        lengths = (
            None if message.lengths is None else torch.from_numpy(message.lengths.astype(np.int64)).to(device)
        )
        width = len(tokens) // message.rows if lengths is None else int(lengths.max())
        valid = _valid(lengths, width)
        labels = None
        if message.labels is not None:
            labels = torch.from_numpy(message.labels.astype(np.int64)).to(device)
            if self.per_token:
                labels = _rows(labels, valid, message.rows, width, IGNORED)
        return Frame(message.device, cut, _rows(tokens, valid, message.rows, width, 0.0), lengths, labels)

    def answer_message(self, at: Position, answer: Answer, lengths: Tensor | None) -> GradientFrame:
        """Return what the server answers: the loss, and the gradient [B,T,d] where one is wanted."""
        found = answer.gradient
        gradient = None if found is None else self._packed(at, DOWN, found, lengths)
        return GradientFrame(at.round, at.step, at.device, loss=answer.loss, gradient=gradient)

    def answer_messages(
        self, at: Mapping[int, Position], answers: Sequence[Answer], batches: Mapping[int, Minibatch]
    ) -> dict[int, GradientFrame]:
        """Return :meth:`answer_message` of every answer of a step, by device."""
        wanted = {a.device: a.gradient for a in answers if a.gradient is not None}
        sent = self.pack_each(DOWN, {d: (at[d], own, batches[d].lengths) for d, own in wanted.items()})
        return {
            d: GradientFrame(at[d].round, at[d].step, d, loss=a.loss, gradient=sent.get(d))
            for a in answers
            for d in (a.device,)
        }

    def receive_answer(
        self, message: GradientFrame, rows: int, lengths: Tensor | None, device: torch.device
    ) -> Answer:
        """Return the loss and the gradient of an answer; the gradient of tokens that were not sent is zero."""
        if message.gradient is None:
            return Answer(message.device, message.loss, None)
        return Answer(
            message.device, message.loss, self.receive_tokens(message.gradient, rows, lengths, device)
        )

    def receive_answers(
        self, messages: Sequence[GradientFrame], batches: Mapping[int, Minibatch], device: torch.device
    ) -> list[Answer]:
        """Return :meth:`receive_answer` of every message of a step."""
        sent = {m.device: m.gradient for m in messages if m.gradient is not None}
        found = self.unpack_each(sent, batches, device)
        return [Answer(message.device, message.loss, found.get(message.device)) for message in messages]

    def token_message(self, at: Position, leg: int, x: Tensor, lengths: Tensor | None) -> TokenFrame:
        """Return the message with the [B,T,d] tokens of a step already announced."""
        return TokenFrame(at.round, at.step, at.device, self._packed(at, leg, x, lengths))

    def pack_each(
        self, leg: int, each: Mapping[int, tuple[Position, Tensor, Tensor | None]]
    ) -> dict[int, Packed]:
        """Return the encoded tokens of several devices, of the place, [B,T,d] and lengths of each."""
        if self.quantizer.remembers and leg in GRADIENTS:
            return {d: self._packed(at, leg, x, lengths) for d, (at, x, lengths) in each.items()}
        tokens = [self._guarded(at, leg, valid_rows(x, lengths)) for at, x, lengths in each.values()]
        bits = [self._bits(x, leg, d) for d, (_, x, _) in each.items()]
        noise = [self._noise(at, leg) for at, _, _ in each.values()]
        return dict(zip(each, self.quantizer.encode_each(tokens, bits, noise), strict=True))

    def unpack_each(
        self, each: Mapping[int, Packed], batches: Mapping[int, Minibatch], device: torch.device
    ) -> dict[int, Tensor]:
        """Return :meth:`receive_tokens` of several devices' tokens, of the mini-batch of each."""
        every = self.quantizer.decode_each(list(each.values()), device)
        return {
            d: _shaped(tokens, len(batches[d]), batches[d].lengths)
            for d, tokens in zip(each, every, strict=True)
        }

    def _packed(self, at: Position, leg: int, x: Tensor, lengths: Tensor | None) -> Packed:
        return self.encoded(at, leg, valid_rows(x, lengths), self._bits(x, leg, at.device))

    def encoded(self, at: Position, leg: int, tokens: Tensor, bits: int) -> Packed:
        """Return tokens [n,d] encoded with the noise of their place in the run, what devices send guarded first."""
        tokens, noise = self._guarded(at, leg, tokens), self._noise(at, leg)
        quantizer = self.quantizer
        if not (quantizer.remembers and leg in GRADIENTS):
            return quantizer.encode(tokens, bits, noise)
        own = self.left.setdefault(at.device, {})
        packed, own[leg] = quantizer.encode_after(own.get(leg), tokens, bits, noise)
        return packed

    def _guarded(self, at: Position, leg: int, tokens: Tensor) -> Tensor:
        return guarded(self.guard, tokens, leg, at.round, at.step, at.device)

    def _noise(self, at: Position, leg: int) -> int:
        return noise_seed(self.seed, at.round, at.step, at.device, leg)

    def memory(self) -> dict[int, dict[int, Tensor]]:
        """Return a copy of what was left out, as a checkpoint keeps it."""
        return {
            device: {leg: torch.from_numpy(left.copy()) for leg, left in own.items()}
            for device, own in self.left.items()
        }

    def remember(self, memory: Mapping[int, Mapping[int, Tensor]]) -> None:
        """Put back what :meth:`memory` returned; nothing forgets all."""
        self.left.clear()
        for device, own in memory.items():
            self.left[device] = {leg: left.numpy().copy() for leg, left in own.items()}

    def receive_tokens(
        self, packed: Packed, rows: int, lengths: Tensor | None, device: torch.device
    ) -> Tensor:
        """Return the [B,T,d] tokens of a message; those that were not sent are zero."""
        return _shaped(self.quantizer.decode(packed, device), rows, lengths)

    def saved_bytes(self, device: int, x: Tensor, lengths: Tensor | None, sent: Packed | None) -> int:
        """Return the bytes of packed codes by which ``sent`` is less than all tokens of a device's ``x`` [B,T,d]."""
        if is_variable(self.scheme):  # nothing is kept, and what a message lacks to its bound was not saved
            return 0
        tokens = x.shape[0] * x.shape[1] if lengths is None else int(lengths.sum())
        whole = codes_bytes(tokens, x.shape[2], self._bits(x, UP, device), self.scheme)
        return whole - (sent.codes.nbytes if sent else 0)

    def _bits(self, x: Tensor, leg: int, device: int) -> int:
        if self.scheme == "identity":
            return RAW_BITS.get(x.dtype, 32)
        return self.bits[device][0 if leg in UPWARD else 1]


def opened(body: Body, kind: type[M]) -> M:
    """Return the message in ``body``; raises WireError unless it is one of the agreed ``kind``."""
    message = decode(body)
    if not isinstance(message, kind):
        raise WireError(f"a {type(message).__name__} came where a {kind.__name__} was agreed")
    return message


def _valid(lengths: Tensor | None, width: int) -> Tensor | None:
    """Return the [B,T] mask of tokens that travel; None when all do."""
    return None if lengths is None else valid_tokens(lengths, width).bool()


def token_labels(batch: Minibatch) -> Tensor:
    """Return the labels of the tokens that travel, [n]: ``IGNORED`` where a token is given and not learnt."""
    valid = _valid(batch.lengths, batch.labels.shape[1])
    return batch.labels.flatten() if valid is None else batch.labels[valid]


def valid_rows(hidden: Tensor, lengths: Tensor | None) -> Tensor:
    """[B,T,d] -> [n,d], the tokens that travel, row after row."""
    valid = _valid(lengths, hidden.shape[1])
    return (hidden.flatten(0, 1) if valid is None else hidden[valid]).detach().contiguous()


def _shaped(tokens: Tensor, rows: int, lengths: Tensor | None) -> Tensor:
    """[n,d] -> [B,T,d], zero where nothing was sent."""
    width = len(tokens) // rows if lengths is None else int(lengths.max())
    return _rows(tokens, _valid(lengths, width), rows, width, 0.0)


def _rows(tokens: Tensor, valid: Tensor | None, rows: int, width: int, fill: float) -> Tensor:
    """[n, ...] -> [B,T, ...], ``fill`` where nothing was sent."""
    if valid is None:
        return tokens.view(rows, width, *tokens.shape[1:])
    out = tokens.new_full((rows, width, *tokens.shape[1:]), fill)
    out[valid] = tokens
    return out
