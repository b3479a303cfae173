"""What a device trained in one round, before it is put into bodies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class RoundWork:
    """What a device trained in a round.

    Attributes:
        round: its number.
        attempt: which opening of it.
        samples: trained on.
        values: [P], the adapters now.
        start: [P], those that came when the round began; of any length where they are not needed.
        grid: [G, 2], the grids that came with them; none where devices have their own.
        width: bytes of a masked number, where what devices trained is summed under masks; else 0.
    """

    round: int
    attempt: int
    samples: int
    values: NDArray[Any]
    start: NDArray[Any]
    grid: NDArray[np.uint16]
    width: int = 0
