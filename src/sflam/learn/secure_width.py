"""How wide a masked number must be for the sums of a run: what a plan needs to know of them, without any key."""

from __future__ import annotations

from collections.abc import Sequence

from sflam.data.batches import rows_of_round
from sflam.learn.settings import LearnSettings
from sflam.secure.ring import width_of


def most_weight(learn: LearnSettings, devices: int, samples: Sequence[int]) -> int:
    """Return the most that the weights of a round's devices add up to.

    Args:
        learn: how a round is run.
        devices: of a round; 0 for all.
        samples: n_k of every device.
    """
    each = [max(n, rows_of_round(n, learn.batch, learn.local_steps, learn.local_epochs)) for n in samples]
    rows = learn.local_steps * learn.batch
    return max(1, sum(sorted((max(rows, own) for own in each), reverse=True)[: devices or None]))


def secure_width(learn: LearnSettings, bits: int, devices: int, samples: Sequence[int]) -> int:
    """Return the bytes of a masked number that hold the sum of any round's devices, of codes of so many ``bits``.

    Raises:
        SecureSumError: no number does.
    """
    return width_of((1 << bits) - 1, most_weight(learn, devices, samples))
