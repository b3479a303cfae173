"""``learn.cache = "server"`` on a device: activations of a sample go up once, and then its number stands for them.

Which samples the server has, it says when a round begins: one that lost them, as it was started again, has them sent
anew. Noise is drawn by sample, so they are the same numbers then. Within a round a device adds what it sent, step by
step, and writes it down with its state: a step that is made again has the same body.
"""

from __future__ import annotations

from typing import Any, Generic

import numpy as np
from numpy.typing import NDArray

from sflam.codec.bodies import Body, encode, unfilled
from sflam.codec.legs import UP
from sflam.codec.messages import StepFrame
from sflam.codec.pieces import join
from sflam.codec.quantizer import Packed
from sflam.errors import WireError
from sflam.link.exchange import TokenExchange
from sflam.link.half import Arrays, Half, LocalStep, TakenRows, X
from sflam.link.https_client import Link
from sflam.seeds import derive


class SentRows:
    """The samples that a device need not send again.

    Args:
        link: the way to the server.
        samples: how many the device has.
    """

    def __init__(self, link: Link, samples: int) -> None:
        self._link, self._samples = link, samples
        self.known: NDArray[np.int32] = np.empty(0, np.int32)

    def renew(self, round: int, attempt: int) -> None:
        """Take over what the server has; raises WireError where it is no list of samples."""
        width = self.known.itemsize
        body = self._link.call("GET", f"/v1/rounds/{round}/{attempt}/kept", most=width * self._samples)
        if len(body) % width:
            raise WireError(f"{len(body)} bytes came as the numbers of kept samples; each has {width}")
        self.known = np.frombuffer(bytes(body), "<i4").astype(np.int32)

    def fresh(self, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows of a mini-batch that the server does not have."""
        return np.flatnonzero(~np.isin(indices, self.known))

    def add(self, indices: NDArray[np.int64]) -> None:
        """Note that a step with these samples is done."""
        self.known = np.union1d(self.known, indices).astype(np.int32)

    def body(
        self, half: Half[X], exchange: TokenExchange[X], indices: NDArray[np.int64], now: LocalStep
    ) -> tuple[TakenRows, Body]:
        """Return the rows of a step and its body: the activations of those that are fresh, the numbers of all."""
        taken, rows = half.take(indices), self.fresh(indices)
        counts = np.full(taken.rows, taken.tokens // taken.rows) if taken.lengths is None else taken.lengths
        out = RowEncoding(exchange, indices[rows], counts[rows])
        half.forward(now, out, rows)
        place = now.round, now.step, exchange.device
        numbers = indices.astype(np.int32)
        frame = StepFrame(*place, out.packed(), taken.rows, taken.lengths, taken.labels, samples=numbers)
        return taken, encode(frame)

    def state(self) -> Arrays:
        """Return what must survive a crash."""
        return {"samples": self.known} if len(self.known) else {}

    def restore(self, state: Arrays) -> None:
        """Put back what :meth:`state` returned."""
        self.known = np.array(state.get("samples", self.known[:0]), np.int32)


class RowEncoding(Generic[X]):
    """Takes the tokens of rows, see ``sflam.link.half.Outgoing``, and encodes every row with the noise of its sample.

    Args:
        exchange: how tokens become messages.
        samples: the sample of each row.
        counts: tokens of each row.
    """

    def __init__(self, exchange: TokenExchange[X], samples: NDArray[np.int64], counts: NDArray[Any]) -> None:
        self._exchange, self._samples, self._counts = exchange, samples, counts
        self._pieces: list[X] = []

    def write(self, tokens: X) -> None:
        """Take the next tokens."""
        self._pieces.append(self._exchange.coder.joined([tokens]))

    def packed(self) -> Packed:
        """Return the tokens of all rows, once all are written."""
        exchange, parts, first = self._exchange, list[Packed](), 0
        bits = exchange.bits_of(UP)
        if not self._pieces:
            return unfilled(exchange.scheme, bits, 0, exchange.dim)
        coder = exchange.coder
        every: Any = coder.joined(self._pieces)
        for sample, count in zip(self._samples.tolist(), self._counts.tolist(), strict=True):
            row = every[first : first + count]
            if exchange.guard:
                row = coder.guarded(exchange.guard, row, UP, exchange.device, sample, first=0)
            noise = derive(exchange.seed, "quantizer", exchange.device, sample)
            parts.append(coder.encode(row, bits, noise))
            first += count
        assert first == len(every), "all rows are written"
        return join(parts)
