"""A device's place in a served run: its number, its samples, and by which names it knows the run and the job."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Place:
    """A device's samples and its place in the fleet.

    Attributes:
        number: of the device.
        run: name of the run.
        seed: of the run.
        own: which samples of its dataset it trains on, int64 [n].
        sampling: ``data.sampling``.
        text: whether rows may differ in length, so that every step announces its tokens.
        job: digest of the job, as the server names it; "" where it does not.
        moved: how often its cut was moved.
        secret: what decides, with ``data.draw = "poisson"``, which of its samples come; empty for the seed alone.
    """

    number: int
    run: str
    seed: int
    own: NDArray[np.int64]
    sampling: str = "local"
    text: bool = False
    job: str = ""
    moved: int = 0
    secret: bytes = field(default=b"", repr=False)
