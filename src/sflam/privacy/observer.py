"""A curious server: it follows the protocol, keeps what devices send, and knows their half of the model.

It has the frozen weights, which are public, and the global adapters, which it averages itself; so it can run the
device's half on inputs of its own. What it receives of a sample was encoded and decoded as in a round.

N samples, T tokens, d hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from peft import PeftModel
from torch import Tensor

from sflam.codec.guard import Guard, guard_of
from sflam.codec.legs import UP
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

    def protect(self, clip: float, noise: float) -> None:
        """Let devices clip tokens to norm ``clip``, and add ``noise`` times that; 0 leaves both out."""
        self.guard = guard_of(PrivacySettings(clip=clip, noise=noise), self.seed)

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

    def received(self, batch: Minibatch, bits: int | None) -> Tensor:
        """Return [N,T,d], the activations of samples as they arrive; tokens that are not sent are zero.

        Args:
            batch: N samples.
            bits: per value; None for floats.
        """
        # Noise of other samples is other noise.
        place = derive(self.seed, "samples", *batch.ids) % 10**9 if self.guard else 0
        return self.crossed(self.exact(batch), batch.lengths, bits, place=place)

    def crossed(
        self, values: Tensor, lengths: Tensor | None, bits: int | None, leg: int = UP, place: int = 0
    ) -> Tensor:
        """Return [N,T,d] values as they arrive at the other side in ``bits`` bits, or in floats."""
        widths = {} if bits is None else {0: (bits, bits)}
        exchange = Exchange(IDENTITY if bits is None else self.scheme, self.seed, widths, guard=self.guard)
        message = exchange.token_message(Position(0, place, 0), leg, values, lengths)
        return exchange.receive_tokens(message.tokens, len(values), lengths, values.device).to(values)
