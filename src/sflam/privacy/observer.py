"""A curious server: it follows the protocol, keeps what devices send, and knows their half of the model.

It has the frozen weights, which are public, and the global adapters, which it averages itself; so it can run the
device's half on inputs of its own. What it receives of a sample was encoded and decoded as in a round.

N samples, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor

from sflam.codec.guard import Guard, guard_of
from sflam.codec.legs import UP
from sflam.codec.token_drop import TokenDrop
from sflam.learn.examples import Minibatch
from sflam.learn.exchange import Exchange, Position
from sflam.model.adapters import state_of
from sflam.model.backbone import Backbone
from sflam.model.lora import Rows
from sflam.model.split import split
from sflam.privacy.settings import PrivacySettings
from sflam.seeds import derive
from sflam.sizes import IDENTITY

ROWS = 64
"""Samples of one pass."""


class Observer:
    """What a server sees of devices that keep ``cut`` blocks, and what it can do with their half.

    Args:
        backbone: the model.
        model: its peft wrapper, with the global adapters.
        cut: blocks before the cut.
        scheme: the quantizer of what is sent.
        seed: of the audit; rounding noise is drawn from it.
    """

    def __init__(self, backbone: Backbone, model: PeftModel, cut: int, scheme: str, seed: int) -> None:
        self.cut, self.scheme, self.seed = cut, scheme, derive(seed, "audit")
        self.segment, _ = split(backbone, model, [cut])
        self.segment.stack.write(0, state_of(model))
        self.segment.eval()
        self.guard: Guard | None = None
        self.drop: TokenDrop | None = None
        self.visits, self._last = 1, False

    def protect(self, clip: float, noise: float) -> None:
        """Let devices clip tokens to norm ``clip``, and add ``noise`` times that; 0 leaves both out."""
        self.guard = guard_of(PrivacySettings(clip=clip, noise=noise), self.seed)

    def leave_out(self, drop: TokenDrop, *, last: bool, visits: int) -> None:
        """Let devices send some tokens alone, of which the server puts together those of ``visits`` visits of a sample.

        Args:
            drop: how they are drawn.
            last: whether the head reads the last valid token, not the first.
            visits: at least 1; other visits have other tokens where every step draws anew.
        """
        self.drop, self._last, self.visits = drop, last, visits

    def seen(self, batch: Minibatch, width: int, visits: int = 0) -> Tensor:
        """Return [N,T], whether a token went up in any of the visits; where all go up, whether it is valid.

        Args:
            batch: N samples.
            width: T.
            visits: to look at; 0 for all.
        """
        counts = np.array(batch.counts(width))
        if self.drop is None:
            found = np.arange(width) < counts[:, None]
        else:
            found = np.zeros((len(counts), width), bool)
            rows = np.arange(len(counts))[:, None]
            for visit in range(visits or self.visits):
                step = derive(self.seed, "visit", visit, *batch.ids)
                places = self.drop.places(counts, step, batch.ids, last=self._last)
                mine = places < counts[:, None]
                found[np.broadcast_to(rows, places.shape)[mine], places[mine]] = True
        return torch.from_numpy(found).to(batch.labels.device)

    def of_a_visit(self, values: Tensor, batch: Minibatch) -> tuple[Tensor, Minibatch]:
        """Return [N,M,d], what a visit sends of activations [N,T,d], and the samples with the lengths of that."""
        if self.drop is None:
            return values, batch
        seen = self.seen(batch, values.shape[1], 1)
        counts = seen.sum(1)
        order = (~seen).to(torch.int8).argsort(dim=1, stable=True)[:, : int(counts.max())]
        found = values.gather(1, order[:, :, None].expand(-1, -1, values.shape[2]))
        lengths = None if bool((counts == counts[0]).all()) else counts
        return found, replace(batch, lengths=lengths)

    def run(self, inputs: Mapping[str, Tensor], lengths: Tensor | None = None) -> Tensor:
        """Return [N,T,d], what the device's half makes of inputs; gradients flow back to them."""
        rows = len(next(iter(inputs.values())))
        hidden: Tensor = self.segment(inputs, lengths, self.cut, Rows((0,), (rows,)))
        return hidden

    @torch.no_grad()
    def exact(self, batch: Minibatch) -> Tensor:
        """Return [N,T,d], the activations of samples before they are encoded."""
        found = []
        for first in range(0, len(batch), ROWS):
            at = slice(first, first + ROWS)
            inputs = {name: values[at] for name, values in batch.inputs.items()}
            found.append(self.run(inputs, None if batch.lengths is None else batch.lengths[at]))
        return torch.cat(found)

    def received(self, batch: Minibatch, bits: int | None, *, whole: bool = False) -> Tensor:
        """Return [N,T,d], the activations of samples as they arrive; tokens that are not sent are zero.

        Args:
            batch: N samples.
            bits: per value; None for floats.
            whole: all tokens of samples that are the server's own, or that are sent to be predicted.
        """
        # Noise of other samples is other noise.
        place = derive(self.seed, "samples", *batch.ids) % 10**9 if self.guard else 0
        found = self.crossed(self.exact(batch), batch.lengths, bits, place=place)
        if self.drop is None or whole:
            return found
        return found * self.seen(batch, found.shape[1])[:, :, None]

    def crossed(
        self, values: Tensor, lengths: Tensor | None, bits: int | None, leg: int = UP, place: int = 0
    ) -> Tensor:
        """Return [N,T,d] values as they arrive at the other side in ``bits`` bits, or in floats."""
        widths = {} if bits is None else {0: (bits, bits)}
        exchange = Exchange(IDENTITY if bits is None else self.scheme, self.seed, widths, guard=self.guard)
        message = exchange.token_message(Position(0, place, 0), leg, values, lengths)
        return exchange.receive_tokens(message.tokens, len(values), lengths, values.device).to(values)
