"""The blocks behind the cut of a finished run, for predictions.

Shapes: B rows of a message, T tokens, d hidden size, C classes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from sflam.codec.messages import StepFrame
from sflam.learn.exchange import Exchange
from sflam.learn.precision import arithmetic
from sflam.model.backbone import Backbone
from sflam.model.lora import Rows
from sflam.model.split import Arrival, ServerSegment


class TrunkHalf:
    """Blocks, norm and head behind the cuts of devices, with the adapters that were trained.

    Args:
        backbone: the model of the run, its trained adapters in it.
        cuts: blocks that each device keeps.
        exchange: how messages become tensors.
    """

    def __init__(self, backbone: Backbone, cuts: Sequence[int], exchange: Exchange) -> None:
        self.cuts, self.exchange = tuple(cuts), exchange
        self.segment = ServerSegment(backbone, min(cuts)).eval()
        self._device = backbone.model.device
        self._alone = threading.Lock()

    @torch.no_grad()
    def scores(self, message: StepFrame) -> Tensor:
        """Return the logits of a message's rows, float32 [B,C] on the CPU; messages go through one after another.

        Raises:
            QuantizerError: its codes or side information cannot be.
        """
        with self._alone, arithmetic(self.segment):
            cut = self.cuts[message.device]
            frame = self.exchange.receive_step(message, cut, self._device)
            arrival = Arrival(cut, frame.hidden, Rows((0,), (len(frame.hidden),)))
            logits: Tensor = self.segment([arrival], frame.lengths)
        return logits.float().cpu()
