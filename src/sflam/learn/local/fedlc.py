"""FedLC: Zhang et al., "Federated learning with label distribution skew via logits calibration", arXiv 2209.00189.

The loss of a row with label y is -log softmax(f - tau n^(-1/4))_y, n_c the rows of class c that the device holds: the
calibrated logits of the paper, whose margins between classes c and y are tau (n_y^(-1/4) - n_c^(-1/4)). The paper
prints the sum in the denominator over the classes other than y; here, as in public implementations (FL-bench, whose
authors saw training collapse with the printed form), it is over all classes, so that the loss is a cross-entropy and
at least 0. A class that the device does not have is left out of its loss, as is the limit of n_c -> 0. What is
evaluated are plain logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sflam.learn.local.rule import LocalRule
from sflam.learn.settings import LearnSettings


class FedLC(LocalRule):
    """Calibrates a device's logits by its counts of labels."""

    calibrates = True

    def __init__(
        self,
        learn: LearnSettings,
        shares: Mapping[int, float],
        labels: Mapping[int, Tensor] | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__(learn, shares)
        assert labels is not None, "a loss over labels"
        self._offsets = {
            device: offsets(torch.bincount(own, minlength=classes), learn.logit_tau)
            for device, own in labels.items()
        }

    def calibrated(self, logits: Tensor, devices: Sequence[int], counts: Sequence[int]) -> Tensor:
        """Return f - tau n^(-1/4) of the device of each row."""
        rows = torch.stack([self._offsets[device] for device in devices])
        return logits + rows.repeat_interleave(torch.tensor(counts), dim=0).to(logits)


def offsets(counts: Tensor, tau: float) -> Tensor:
    """Return -tau n^(-1/4) of the counts [C]; minus infinity for a class without rows, unless ``tau`` is 0."""
    return torch.zeros(len(counts), dtype=torch.float64) if tau == 0 else -tau * counts.double() ** -0.25
