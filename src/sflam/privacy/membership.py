"""Was this sample trained on? A score of members and of others, and how well one threshold tells them apart.

The loss (Yeom et al., Privacy risk in machine learning, CSF 2018) or the norm of a sample's gradient at the cut, both
lower for what was learned. Rates at few false alarms are reported beside the area, since an attack that is sure of a
few is not seen in a mean (Carlini et al., Membership inference attacks from first principles, S&P 2022).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from sflam.privacy.finding import Finding


def separation(members: ArrayLike, others: ArrayLike) -> float:
    """Return the chance that a member's score lies below another's: the area under the ROC curve, ties by half."""
    inside, outside = np.asarray(members, float), np.asarray(others, float)
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    least = len(outside) * (len(outside) + 1) / 2
    return float((ranks.sum() - least) / (len(inside) * len(outside)))


def caught(members: ArrayLike, others: ArrayLike, alarms: float = 0.01) -> float:
    """Return the share of members with a score below a threshold that at most ``alarms`` of the others are below."""
    outside = np.sort(np.asarray(others, float))
    threshold = outside[int(np.floor(alarms * len(outside)))]
    return float((np.asarray(members, float) < threshold).mean())


def membership(cut: int, attack: str, members: ArrayLike, others: ArrayLike, **more: float) -> Finding:
    """Return what an attack found by the scores that it gave members and others; ``more`` is noted beside."""
    return Finding(
        cut=cut,
        bits=None,
        attack=attack,
        about="members",
        measure="area under ROC",
        score=separation(members, others),
        guess=0.5,
        more={"caught_at_1_percent": caught(members, others)} | more,
    )
