"""The blocks behind the cut of a finished run, for predictions.

Shapes: B rows of a message, T tokens, d hidden size, C classes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from sflam.codec.bodies import encode
from sflam.codec.legs import HEAD_DOWN
from sflam.codec.messages import StepFrame
from sflam.learn.exchange import Exchange, Position
from sflam.learn.precision import arithmetic
from sflam.model.backbone import Backbone
from sflam.model.lora import Rows
from sflam.model.split import Arrival, ServerSegment


class TrunkHalf:
    """Blocks behind the cuts of devices, with the adapters that were trained; norm and head unless devices have them.

    Args:
        backbone: the model of the run, its trained adapters in it.
        cuts: blocks that each device keeps.
        exchange: how messages become tensors.
        labels: where the head is: ``server``, or ``device``.
    """

    def __init__(
        self, backbone: Backbone, cuts: Sequence[int], exchange: Exchange, labels: str = "server"
    ) -> None:
        self.cuts, self.exchange = tuple(cuts), exchange
        self.segment = ServerSegment(backbone, min(cuts), labels=labels).eval()
        self._device = backbone.model.device
        self._alone = threading.Lock()

    @torch.no_grad()
    def answer(self, message: StepFrame) -> bytes:
        """Return the answer to a message's rows: their logits, little-endian float32 [B,C]; or, where the head is on
        devices, the body of their encoded activations [B,T,d] after the last block. One message after another.

        Raises:
            QuantizerError: its codes or side information cannot be.
        """
        with self._alone, arithmetic(self.segment):
            cut = self.cuts[message.device]
            frame = self.exchange.receive_step(message, cut, self._device)
            arrival = Arrival(cut, frame.hidden, Rows((0,), (len(frame.hidden),)))
            found: Tensor = self.segment([arrival], frame.lengths)
            if self.segment.has_head:
                return found.float().cpu().numpy().astype("<f4").tobytes()
            at = Position(message.round, message.step, message.device)
            return bytes(encode(self.exchange.token_message(at, HEAD_DOWN, found, frame.lengths)))
