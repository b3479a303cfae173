"""What an attack finds, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one attack got at one cut and width.

    Attributes:
        cut: blocks before it.
        bits: per value; None for floats.
        attack: its name.
        about: what it is after: ``images``, ``texts``, ``labels`` or ``members``.
        measure: what ``score`` is.
        score: the higher the more is given away.
        guess: the score of who sees nothing of the samples.
        more: further numbers.
        noise: that devices added, in clips.
    """

    cut: int
    bits: int | None
    attack: str
    about: str
    measure: str
    score: float
    guess: float
    more: dict[str, float] = field(default_factory=dict)
    noise: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What a cut, width and noise cost and leave.

    Attributes:
        bytes_up: of a sample's activations.
        clip: norm that tokens are clipped to; 0 for none.
        accuracy: share of public samples that the trained model has right on what arrives; None before training, and
            for language models.
    """

    bytes_up: float
    clip: float
    accuracy: float | None


@dataclass(frozen=True, eq=False)
class Picture:
    """Images beside what an attack made of them.

    Attributes:
        original: [N,S,S,C] in [0, 1].
        found: likewise.
        similarity: [N] SSIM.
    """

    original: NDArray[np.float64]
    found: NDArray[np.float64]
    similarity: NDArray[np.float64]
