"""What a device and the server have agreed on: how many steps of which rows, in bodies of which size. No torch.

The size is exact; with a quantizer of variable size, at most the bound of what it may send, and no less than a body
without any value.

A body is refused by its size before it is read, and by its content before it changes anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.codec.bodies import Body, decode
from sflam.codec.common_grid import is_grid
from sflam.codec.messages import AdapterFrame, ChangeFrame, Message, StepFrame, TokenFrame
from sflam.codec.quantizer import Packed
from sflam.errors import Refused, ServeError, WireError
from sflam.secure.bodies import body_bytes
from sflam.secure.messages import MaskedVector
from sflam.secure.ring import MOST_BYTES
from sflam.sizes import (
    ADAPTER_GROUP,
    FLOAT_BITS,
    IDENTITY,
    adapter_body_bytes,
    adapter_groups,
    codes_bytes,
    grid_bytes,
    is_variable,
    payload_bytes,
    step_body_bytes,
    summed_numbers,
    token_body_bytes,
)

PROTOCOL = 1
"""Version of the protocol; server and devices have the same."""
ANY_LOSS = 0.0, 1e30
"""Between which a mean loss without noise may be."""
GIVEN = -100
"""The label of a token that is given and not learnt."""


@dataclass(frozen=True)
class Contract:
    """What was agreed with one device.

    Attributes:
        device: its number.
        scheme: name of the quantizer.
        bits: bits of every value that goes up; 32 or 64 for ``identity``.
        dim: hidden size d.
        tokens: tokens of a row that go up: exactly (images), or at most (texts).
        text: whether rows differ in length.
        labels_up: whether labels travel.
        per_token: whether there is a label per token instead of per row.
        answers: whether labels of tokens that are given and not learnt are ``GIVEN``.
        classes: labels are below this.
        batch: rows of a full mini-batch.
        local_steps: mini-batches of a round; 0 makes ``local_epochs`` passes.
        local_epochs: passes over its data.
        adapters: weights it trains.
        adapter_bits: 32 or 64.
        change_bits: of every adapter value on the way up, where the change since the round began is sent; 32 where the
            adapters themselves are.
        bits_down: bits of every value that comes down.
        summed: whether what devices trained is summed under masks, so that none sends it by itself.
        fleet_rows: most rows of a step where the server draws them: of the whole fleet where each device has a share,
            or of a device by coins; 0 where devices draw mini-batches of their own.
        losses: least and largest mean loss of a round that it may report: of a device that adds noise to it, also below
            0.
        most_samples: that it may announce; 0 is no limit.
        kept: whether activations of a sample go up once, and its number in every step.
    """

    device: int
    scheme: str
    bits: int
    dim: int
    tokens: int
    text: bool
    labels_up: bool
    per_token: bool
    classes: int
    batch: int
    local_steps: int
    local_epochs: int
    adapters: int
    adapter_bits: int = 32
    change_bits: int = FLOAT_BITS
    bits_down: int = 8
    fleet_rows: int = 0
    answers: bool = False
    summed: bool = False
    kept: bool = False
    losses: tuple[float, float] = ANY_LOSS
    most_samples: int = 0

    @property
    def legs(self) -> int:
        """Exchanges of a step."""
        return 1 if self.labels_up else 2

    @property
    def each(self) -> int:
        """Tokens of every row; 0 where rows differ."""
        return 0 if self.text else self.tokens

    def steps(self, samples: int) -> int:
        """Return the mini-batches of a round of a device with ``samples`` samples."""
        return self.local_steps or self.local_epochs * -(-samples // self.batch)

    def rows(self, samples: int, step: int) -> int:
        """Return the rows of a step: the last of every pass has what is left over."""
        per_pass = -(-samples // self.batch)
        return self.batch if (step + 1) % per_pass else samples - (per_pass - 1) * self.batch

    def expected_tokens(self, rows: int, header: str | None) -> int:
        """Return the valid tokens of a body, as the header ``Sflam-Tokens`` reports where rows differ in length.

        Raises:
            Refused: 422, no number, or one outside the plan.
        """
        if not self.text:
            if header is not None and header != str(rows * self.tokens):
                raise Refused(
                    422, f"Sflam-Tokens is {header[:20]!r}; {rows} rows have {rows * self.tokens} tokens"
                )
            return rows * self.tokens
        least = rows * (2 if self.per_token else 1)
        if header is None or not (header.isascii() and header.isdigit() and len(header) < 10):
            raise Refused(422, "Sflam-Tokens must be the number of valid tokens in the body, in decimal")
        if not least <= int(header) <= rows * self.tokens:
            raise Refused(
                422, f"Sflam-Tokens is {int(header)}; {rows} rows have {least}..{rows * self.tokens} tokens"
            )
        return int(header)

    def forward_bytes(self, rows: int, tokens: int, lengths: bool) -> int:
        """Return the exact bytes of a step's first body, or the most there can be."""
        labels = (tokens if self.per_token else rows) if self.labels_up else 0
        return step_body_bytes(
            tokens,
            self.dim,
            self.bits,
            rows=rows,
            lengths=lengths,
            labels=labels,
            samples=self.kept,
            scheme=self.scheme,
        )

    def backward_bytes(self, tokens: int) -> int:
        """Return the exact bytes of a step's second body, with labels on the device, or the most there can be."""
        return token_body_bytes(tokens, self.dim, self.bits, self.scheme)

    def slack(self, tokens: int, leg: int = 0) -> int:
        """Return the bytes by which a body may be smaller: those of all codes, where their number varies; else 0."""
        if self.kept and not leg:  # activations of any of the rows may be there already
            return payload_bytes(tokens, self.dim, self.bits, self.scheme)
        return codes_bytes(tokens, self.dim, self.bits, self.scheme) if is_variable(self.scheme) else 0

    def adapter_bytes(self) -> int:
        """Return the exact bytes of the adapters' body down; a device that trains none gets none."""
        return adapter_body_bytes(self.adapters, self.adapter_bits)

    def delivered_bytes(self) -> int:
        """Return the exact bytes of the body up of what was trained; a device that trains none sends none."""
        return adapter_body_bytes(self.adapters, self.change_bits) if self.changes else self.adapter_bytes()

    @property
    def changes(self) -> bool:
        """Whether the change since the round began goes up, instead of the adapters."""
        return self.change_bits < FLOAT_BITS

    def largest(self) -> int:
        """Return the bytes of the largest body there can be."""
        rows = self.fleet_rows or self.batch
        adapters = self.adapter_bytes() + self.changes * grid_bytes(self.adapters)
        numbers = summed_numbers(self.adapters)
        masked = body_bytes(MaskedVector, numbers, MOST_BYTES) if self.summed else 0
        return max(self.forward_bytes(rows, rows * self.tokens, self.text), adapters, masked)

    def check(self, message: Message, round: int, step: int, leg: int, rows: int, tokens: int) -> None:
        """Raise WireError unless ``message`` is what this device may send at this place."""
        agreed = StepFrame if leg == 0 else TokenFrame
        if not isinstance(message, agreed):
            raise WireError(f"a {type(message).__name__} came where a {agreed.__name__} was agreed")
        assert isinstance(message, StepFrame | TokenFrame)
        place = (message.round, message.step, message.device)
        if place != (round, step, self.device):
            raise WireError(
                f"the body is of round, step, device {place}, its path of {(round, step, self.device)}"
            )
        if isinstance(message, TokenFrame):
            self._check_packed(message.tokens, tokens)
            return
        self._check_packed(message.activations, tokens, fewer=self.kept)
        if message.rows != rows or (message.samples is None) == self.kept:
            numbers = "with" if self.kept else "without"
            raise WireError(f"a step of {message.rows} rows; {rows} {numbers} sample numbers were agreed")
        self._check_lengths(message, rows, tokens)
        count = 0 if message.labels is None else len(message.labels)
        wanted = (tokens if self.per_token else rows) if self.labels_up else 0
        if count != wanted:
            raise WireError(f"{count} labels; {wanted} were agreed")
        if message.labels is not None:
            self._check_labels(message, message.labels, tokens // rows)

    def check_adapters(self, message: Message, round: int) -> AdapterFrame | ChangeFrame:
        """Return the adapters a body carries; raises WireError unless they are this device's of this round."""
        agreed = ChangeFrame if self.changes else AdapterFrame
        if not isinstance(message, agreed):
            raise WireError(f"a {type(message).__name__} came where a {agreed.__name__} was agreed")
        assert isinstance(message, AdapterFrame | ChangeFrame)
        if (message.round, message.device) != (round, self.device):
            raise WireError(f"adapters of round {message.round}, device {message.device} in another's place")
        if isinstance(message, ChangeFrame):
            found = (message.change.scheme, message.change.bits, message.change.tokens, message.change.dim)
            wanted = ("uniform", self.change_bits, adapter_groups(self.adapters), ADAPTER_GROUP)
            if found != wanted:
                raise WireError(f"a change of scheme, bits, groups, size {found}; {wanted} were agreed")
            return message
        width = message.values.dtype.itemsize * 8
        if len(message.values) != self.adapters or width != self.adapter_bits:
            raise WireError(
                f"{len(message.values)} adapter values of {width} bits; {self.adapters} of {self.adapter_bits} were "
                "agreed"
            )
        return message

    def _check_labels(self, message: StepFrame, labels: NDArray[np.int32], each: int) -> None:
        """Refuse labels that name no class, and rows whose mean loss would be of nothing."""
        learnt = labels != GIVEN if self.answers else np.ones(len(labels), dtype=bool)
        least, most = (int(labels[learnt].min()), int(labels[learnt].max())) if learnt.any() else (-1, -1)
        if least < 0 or most >= self.classes:
            raise WireError(f"labels from {least} to {most}; they must be in 0..{self.classes - 1}")
        if not self.answers:
            return
        lengths = np.full(message.rows, each) if message.lengths is None else message.lengths
        starts = np.cumsum(lengths) - lengths
        learnt[starts] = False  # no token comes before it that could predict it
        if not np.logical_or.reduceat(learnt, starts).all():
            raise WireError("a row has no label of a token to learn; each row has at least one")

    def _check_lengths(self, message: StepFrame, rows: int, tokens: int) -> None:
        if message.lengths is None:
            if self.text and tokens % rows:
                raise WireError("rows of unequal lengths without lengths")
            each = tokens // rows
            if each > self.tokens or (not self.text and each != self.tokens):
                raise WireError(f"rows of {each} tokens; {self.tokens} were agreed")
            return
        if int(message.lengths.sum()) != tokens:
            raise WireError(
                f"lengths that sum to {int(message.lengths.sum())}; {tokens} tokens were announced"
            )
        least, most = int(message.lengths.min()), int(message.lengths.max())
        if not self.text or most > self.tokens or least < (2 if self.per_token else 1):
            raise WireError(
                f"lengths from {least} to {most}; rows of at most {self.tokens} tokens were agreed"
            )

    def _check_packed(self, packed: Packed, tokens: int, *, fewer: bool = False) -> None:
        if fewer and packed.tokens < tokens:
            tokens = packed.tokens
        found = (packed.scheme, packed.bits, packed.tokens, packed.dim)
        wanted = (self.scheme, self.bits, tokens, self.dim)
        if found != wanted:
            raise WireError(f"tokens of scheme, bits, count, size {found}; {wanted} were agreed")
        if self.scheme == IDENTITY:
            values = packed.codes.view(np.float64 if self.bits == 64 else np.float32)
            if not np.isfinite(values).all():
                raise WireError("activations hold NaN or inf; they would spoil the server's adapters")


def expect_same_grid(message: ChangeFrame, sent: Body) -> None:
    """Raise WireError where a device's change is on other grids than those in the body it was sent."""
    frame = decode(sent)
    if not isinstance(frame, AdapterFrame) or frame.grid is None or not is_grid(frame.grid):
        return
    if not np.array_equal(message.change.side, frame.grid):
        raise WireError("the change is on other grids than all devices of the round were given")


def expect_rows(found: Any) -> list[int]:
    """Return what the server says of the rows of each step; raises ServeError where it is no list of rows."""
    if not (isinstance(found, list) and all(type(rows) is int and rows >= 0 for rows in found)):
        raise ServeError("the server's shares are no list of rows; use the same version on both sides")
    return list(found)


def shares_of(found: Any, samples: int, steps: int, epochs: int) -> list[int]:
    """Return a device's rows in each step of the fleet, as the server drew them.

    Args:
        found: what ``GET /v1/round`` gave.
        samples: that the device holds; every pass over them takes each once.
        steps: of the round; 0 makes ``epochs`` passes.
        epochs: full passes when ``steps`` is 0.

    Raises:
        ServeError: they are not what was agreed.
    """
    own = expect_rows(found)
    if steps and len(own) != steps:
        raise ServeError(f"the server drew shares of {len(own)} steps; learn.local_steps is {steps}")
    left = 0
    for step, rows in enumerate(own):
        left = left or samples
        if rows > left:
            raise ServeError(
                f"the server's share of step {step} is {rows} rows; {left} of {samples} samples are left in this pass"
            )
        left -= rows
    if not steps and sum(own) != epochs * samples:
        raise ServeError(
            f"the server's shares are {sum(own)} rows; {epochs} passes over {samples} samples were agreed"
        )
    return own
