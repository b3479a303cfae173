"""The device's end of what crosses the cut: tokens [n, d] to bodies and back, whole or in pieces.

The bodies are those of :mod:`sflam.learn.exchange`, byte for byte: the same quantizers, noise and frames. In pieces
neither side ever holds the [n, d] floats: a piece is encoded into its place in the body as it comes, and decoded as it
is read. Schemes that look at all tokens at once get them joined.

n valid tokens of a step, d hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, Self, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from sflam.codec.adapter_change import encode_change
from sflam.codec.bodies import Body, codes_start, decode, encode, reserve, unfilled
from sflam.codec.guard import Guard
from sflam.codec.legs import DOWN, GRADIENTS, UPWARD, noise_seed
from sflam.codec.messages import AdapterFrame, ChangeFrame, Message, StepFrame, TokenFrame
from sflam.codec.pieces import part
from sflam.codec.quantizer import Divisible, Floats, Packed, Piecewise, Remembering, offers
from sflam.codec.quantizers import quantizer
from sflam.errors import WireError
from sflam.link.half import X
from sflam.link.https_client import Streamed
from sflam.link.round_work import RoundWork
from sflam.sizes import FLOAT_BITS, HEADER_BYTES, IDENTITY, is_variable, value_bits

M = TypeVar("M", bound=Message)
Made = Callable[[Packed], StepFrame | TokenFrame]
Memory = dict[int, NDArray[np.float32]]


class Rest(Protocol):
    """The bytes of a body that are still to come."""

    def read(self, count: int) -> bytes:
        """Return the next ``count`` bytes; raises BrokenOff where they do not come."""


class Coder(Protocol[X]):
    """A quantizer over one kind of array."""

    @property
    def remembers(self) -> bool:
        """Whether gradients are encoded by :meth:`encode_after`."""

    @property
    def in_pieces(self) -> bool:
        """Whether any part of a message can be encoded and decoded by itself; see ``Piecewise``."""

    def encode(self, x: X, bits: int, seed: int) -> Packed:
        """Encode [n, d]; see ``Quantizer.encode``."""

    def encode_after(self, left: Floats | None, x: X, bits: int, seed: int) -> tuple[Packed, Floats]:
        """Encode [n, d] with what was left out before; see ``Remembering.encode_after``."""

    def encode_part(self, x: X, bits: int, seed: int, first: int) -> Packed:
        """Encode [m, d], the tokens of a message from number ``first`` on."""

    def message(self, parts: Sequence[Packed]) -> Packed:
        """Return the message of consecutive parts of variable size."""

    def part(self, packed: Packed, first: int, count: int) -> Packed:
        """Return ``count`` tokens of a message from number ``first`` on."""

    def decode(self, packed: Packed) -> X:
        """Return [n, d], the caller's own."""

    def joined(self, pieces: Sequence[X]) -> X:
        """Return the pieces as a new [n, d]."""

    def guarded(self, guard: Guard, x: X, leg: int, *place: int, first: int) -> X:
        """Return tokens as they may leave the device; see ``Guard.tokens``."""


class NumpyCoder:
    """The quantizer called ``scheme`` over NumPy arrays of either float type."""

    def __init__(self, scheme: str) -> None:
        self.inner = quantizer(scheme)
        self.remembers = isinstance(self.inner, Remembering)
        # Asked once: looking a protocol's methods up takes longer than encoding a few tokens.
        self._divisible = offers(self.inner, Divisible, "encode_part")
        self.in_pieces = self._divisible or offers(self.inner, Piecewise, "encode_part")

    def encode(self, x: NDArray[Any], bits: int, seed: int) -> Packed:
        """Encode [n, d]; float64 is read as float32 unless raw floats travel."""
        return self.inner.encode(self._read(x), bits, seed)

    def encode_after(
        self, left: Floats | None, x: NDArray[Any], bits: int, seed: int
    ) -> tuple[Packed, Floats]:
        """Encode [n, d] with what was left out before."""
        assert isinstance(self.inner, Remembering)
        return self.inner.encode_after(left, self._read(x), bits, seed)

    def encode_part(self, x: NDArray[Any], bits: int, seed: int, first: int) -> Packed:
        """Encode [m, d], the tokens of a message from number ``first`` on."""
        assert self.in_pieces
        return cast(Piecewise, self.inner).encode_part(self._read(x), bits, seed, first)

    def message(self, parts: Sequence[Packed]) -> Packed:
        """Return the message of consecutive parts of variable size."""
        assert isinstance(self.inner, Divisible)
        return self.inner.joined(parts)

    def part(self, packed: Packed, first: int, count: int) -> Packed:
        """Return ``count`` tokens of a message from number ``first`` on."""
        if self._divisible:
            return cast(Divisible, self.inner).part(packed, first, count)
        return part(packed, first, count)

    def decode(self, packed: Packed) -> NDArray[Any]:
        """Return [n, d], the caller's own."""
        return np.require(self.inner.decode(packed), requirements=["W", "O"])

    def joined(self, pieces: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Return the pieces as a new [n, d]."""
        return np.concatenate(pieces)

    def guarded(self, guard: Guard, x: NDArray[Any], leg: int, *place: int, first: int) -> NDArray[Any]:
        """Return tokens as they may leave the device."""
        return guard.tokens(x, leg, *place, first=first)

    def _read(self, x: NDArray[Any]) -> Floats:
        return x if self.inner.name == IDENTITY else np.asarray(x, np.float32)


@dataclass(frozen=True)
class TokenExchange(Generic[X]):
    """How one device's tokens become messages and messages tokens.

    Attributes:
        coder: of the job's quantizer.
        scheme: its name.
        seed: of the run.
        device: number of the device.
        dim: d.
        float_bits: width of its activations, 32 or 64, which ``identity`` sends.
        bits: bits per value up and down; ``identity`` ignores them.
        bits_adapters: bits per adapter value up; 32 sends them as they are.
        left: leg -> what a quantizer with memory left out so far, of the legs that are encoded here.
        guard: what the device does to what it sends, before it is encoded; None for nothing.
    """

    coder: Coder[X]
    scheme: str
    seed: int
    device: int
    dim: int
    float_bits: int
    bits: tuple[int, int]
    bits_adapters: int = FLOAT_BITS
    left: Memory = field(default_factory=dict)
    guard: Guard | None = None

    def for_round(self, up: int, down: int, attempt: int) -> Self:
        """Return the exchange of a round with other bits, at an ``attempt`` at it; what was left out stays."""
        guard = None if self.guard is None else replace(self.guard, attempt=attempt)
        return replace(self, bits=(up, down), guard=guard)

    @property
    def changes(self) -> bool:
        """Whether what goes up depends on the change of the adapters since the round began."""
        return self.bits_adapters < FLOAT_BITS or self._guards_adapters

    @property
    def _guards_adapters(self) -> bool:
        return self.guard is not None and self.guard.moves_adapters

    def trained(self, work: RoundWork) -> Body:
        """Return the body of what a round trained."""
        round, samples, values, start, side = work.round, work.samples, work.values, work.start, work.grid
        if self._guards_adapters:
            assert self.guard is not None
            values = self.guard.adapters(values, start, round, self.device)
        if self.bits_adapters >= FLOAT_BITS:
            return encode(AdapterFrame(round, self.device, samples=samples, values=values))
        change = encode_change(
            values,
            start,
            self.bits_adapters,
            seed=self.seed,
            round=round,
            device=self.device,
            side=side if len(side) else None,
        )
        return encode(ChangeFrame(round, self.device, samples=samples, change=change))

    def memory(self) -> Memory:
        """Return a copy of what was left out."""
        return {leg: left.copy() for leg, left in self.left.items()}

    def remember(self, memory: Mapping[int, NDArray[np.float32]]) -> None:
        """Put back what :meth:`memory` returned; nothing forgets all."""
        self.left.clear()
        self.left.update({leg: left.copy() for leg, left in memory.items()})

    def outgoing(self, round: int, step: int, leg: int, tokens: int, made: Made) -> Encoding[X]:
        """Return what makes a body of the ``tokens`` written to it; ``made`` puts them into their message."""
        noise = noise_seed(self.seed, round, step, self.device, leg)
        return Encoding(self, leg, self.bits_of(leg), noise, tokens, made, (round, step, self.device))

    def incoming(
        self, packed: Packed, leg: int, tokens: int, rest: Rest | None = None
    ) -> Decoding[X] | CodesToCome[X]:
        """Return what gives the tokens of an answer, whose codes come from ``rest`` where they are still to come.

        Raises:
            WireError: they are not as agreed.
        """
        found = packed.scheme, packed.bits, packed.tokens, packed.dim
        agreed = self.scheme, self.bits_of(leg), tokens, self.dim
        if found != agreed:
            raise WireError(f"tokens of scheme, bits, count, size {found} came; {agreed} were agreed")
        return Decoding(self.coder, packed) if rest is None else CodesToCome(self.coder, packed, rest)

    @property
    def streams(self) -> bool:
        """Whether answers can be decoded while they come: every token's codes end with a byte."""
        return (
            self.coder.in_pieces
            and not is_variable(self.scheme)
            and self.dim * value_bits(self.bits_of(DOWN), self.scheme) % 8 == 0
        )

    def bits_of(self, leg: int) -> int:
        """Return the bits of a value on a leg."""
        return self.float_bits if self.scheme == IDENTITY else self.bits[0 if leg in UPWARD else 1]


class Encoding(Generic[X]):
    """A message in the making; see ``sflam.link.half.Outgoing``."""

    def __init__(
        self,
        exchange: TokenExchange[X],
        leg: int,
        bits: int,
        noise: int,
        tokens: int,
        made: Made,
        place: tuple[int, ...],
    ) -> None:
        self._exchange, self._leg, self._bits, self._noise = exchange, leg, bits, noise
        self._tokens, self._made, self._place = tokens, made, place
        self._remembers = exchange.coder.remembers and leg in GRADIENTS
        # Eight tokens end with a byte whatever their codes; of others some wait for those after them.
        self._together = 1 if exchange.dim * value_bits(bits, exchange.scheme) % 8 == 0 else 8
        self._came = self._encoded = 0
        self._waiting: list[X] = []
        self._parts: list[Packed] = []
        self._body: Body | None = None
        self._space: Packed | None = None

    def write(self, tokens: X) -> None:
        """Take the next tokens."""
        piece: Any = tokens
        self._came += len(piece)
        assert len(piece) and self._came <= self._tokens, "n tokens in all were announced"
        coder: Coder[Any] = self._exchange.coder
        if guard := self._exchange.guard:
            piece = coder.guarded(guard, piece, self._leg, *self._place, first=self._came - len(piece))
        if self._remembers or not coder.in_pieces:
            self._waiting.append(coder.joined([piece]))
        elif is_variable(self._exchange.scheme):
            self._parts.append(coder.encode_part(piece, self._bits, self._noise, self._came - len(piece)))
        else:
            if self._waiting:
                piece = coder.joined([*self._waiting, piece])
            ready = (
                len(piece) if self._came == self._tokens else len(piece) // self._together * self._together
            )
            if ready:
                self._put(coder.encode_part(piece[:ready], self._bits, self._noise, self._encoded))
            self._waiting = [coder.joined([piece[ready:]])] if ready < len(piece) else []

    def body(self) -> Body:
        """Return the body once all tokens are written, and forget it, so that it is gone when it was sent."""
        assert self._came == self._tokens, "n tokens in all were announced"
        body, self._body, self._space = self._body, None, None
        if self._parts:
            body, self._parts = encode(self._made(self._exchange.coder.message(self._parts))), []
        elif body is None:
            whole = (
                self._waiting[0] if len(self._waiting) == 1 else self._exchange.coder.joined(self._waiting)
            )
            body, self._waiting = encode(self._made(self._whole(whole))), []
        return body

    def _whole(self, x: X) -> Packed:
        coder, left = self._exchange.coder, self._exchange.left
        if not self._remembers:
            return coder.encode(x, self._bits, self._noise)
        packed, left[self._leg] = coder.encode_after(left.get(self._leg), x, self._bits, self._noise)
        return packed

    def _put(self, packed: Packed) -> None:
        """Copy encoded tokens to their place in the body."""
        if self._space is None:
            exchange = self._exchange
            space = unfilled(exchange.scheme, self._bits, self._tokens, exchange.dim)
            self._body, self._space = reserve(self._made(space))
        first, space = self._encoded, self._space
        start = first * space.dim * value_bits(space.bits, space.scheme) // 8
        space.codes[start : start + packed.codes.size] = packed.codes
        if len(space.side):
            space.side[first : first + packed.tokens] = packed.side
        self._encoded += packed.tokens


class Decoding(Generic[X]):
    """The tokens of an answer; see ``sflam.link.half.Incoming``."""

    def __init__(self, coder: Coder[X], packed: Packed) -> None:
        self._coder, self._packed, self._read = coder, packed, 0
        self._all: Any = None

    def read(self, count: int) -> X:
        """Return the next ``count`` tokens, the caller's own."""
        first, packed = self._read, self._packed
        assert count and first + count <= packed.tokens, "n tokens in all were announced"
        self._read += count
        if count == packed.tokens:
            return self._coder.decode(packed)
        if self._coder.in_pieces:
            return self._coder.decode(self._coder.part(packed, first, count))
        if self._all is None:
            self._all = self._coder.decode(packed)
        piece: X = self._all[first : first + count]
        return piece


class CodesToCome(Generic[X]):
    """The tokens of an answer that is read while it comes; see ``sflam.link.half.Incoming``."""

    def __init__(self, coder: Coder[X], packed: Packed, rest: Rest) -> None:
        self._coder, self._packed, self._rest, self._read = coder, packed, rest, 0

    def read(self, count: int) -> X:
        """Return the next ``count`` tokens, the caller's own."""
        first, packed = self._read, self._packed
        assert count and first + count <= packed.tokens, "n tokens in all were announced"
        self._read += count
        size = count * packed.dim * value_bits(packed.bits, packed.scheme) // 8
        codes = np.frombuffer(self._rest.read(size), np.uint8)
        side = packed.side[first : first + count]
        return self._coder.decode(Packed(packed.scheme, packed.bits, count, packed.dim, codes, side))


def opened_ahead(answer: Streamed, kind: type[M]) -> M | None:
    """Return the message of an answer up to its codes, which are then read from it; None for one without a body.

    Raises:
        WireError: it is not of the agreed ``kind``.
        BrokenOff: it ended early.
    """
    if not answer.left:
        return None
    # Memory that is not written to is not taken, so that of the codes is only a name for their place.
    body = np.empty(answer.left, np.uint8)
    head = answer.read(min(HEADER_BYTES, answer.left))
    start = codes_start(head)
    ahead = head + answer.read(max(0, min(len(body) if start is None else start, len(body)) - len(head)))
    body[: len(ahead)] = np.frombuffer(ahead, np.uint8)
    return opened(body.data, kind)


def opened(body: Body, kind: type[M]) -> M:
    """Return the message in ``body``; raises WireError unless it is one of the agreed ``kind``."""
    message = decode(body)
    if not isinstance(message, kind):
        raise WireError(f"a {type(message).__name__} came where a {kind.__name__} was agreed")
    return message
