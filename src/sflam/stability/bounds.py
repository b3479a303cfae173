"""The bounds of section 5 beside what was measured: which hold, which rank the tuned fractions rightly, how loose.

Three curves over p. ``soft`` is (5.2) with the constants measured where most layers are tuned and c = 1/2, the paper's.
``calibrated`` is the same with c fitted to the measurement at one p, and judged at the others alone. ``hard`` is (5.3)
with the constants of the tuned weights themselves, p by p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sflam.stability.measure import Stability
from sflam.stability.theory import (
    BoundComparison,
    Floats,
    calibrated_penalty,
    compare,
    hard_bound,
    soft_bound,
)

PENALTY = 0.5
"""c of arXiv 2409.20247."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """Bounds over the measured fractions.

    Attributes:
        measured: one entry per tuned fraction, in rising order of p.
        soft: [P] (5.2), c = 1/2, in nats; inf where its curvature is not positive.
        hard: [P] (5.3), in nats; inf where its curvature is not positive.
        calibrated: [P] (5.2) with the fitted c; None where nothing can be fitted.
        penalty: the fitted c, in loss per squared unit of parameter; None where nothing can be fitted.
        fitted_at: index of the p it was fitted at.
    """

    measured: tuple[Stability, ...]
    soft: Floats
    hard: Floats
    calibrated: Floats | None = None
    penalty: float | None = None
    fitted_at: int | None = None

    def comparisons(self) -> dict[str, BoundComparison]:
        """Return every bound against the measurement; ``calibrated`` without the p it was fitted at."""
        p, found = self._column("fraction"), self._column("measured")
        found_bounds = {"soft": compare(p, found, self.soft), "hard": compare(p, found, self.hard)}
        if self.calibrated is not None and len(p) > 1:
            others = np.arange(len(p)) != self.fitted_at
            found_bounds["calibrated"] = compare(p[others], found[others], self.calibrated[others])
        return found_bounds

    def to_dict(self) -> dict[str, Any]:
        """Return one object for JSON; what is infinite or undefined is null."""
        rows = []
        for index, item in enumerate(self.measured):
            bounds = {"soft": self.soft, "hard": self.hard, "calibrated": self.calibrated}
            own = {name: None if values is None else values[index] for name, values in bounds.items()}
            rows.append({key: _finite(value) for key, value in (asdict(item) | own).items()})
        judged = {
            name: {
                "rank_correlation": _finite(comparison.rank),
                "holds": comparison.holds,
                "ratio_least": _finite(comparison.ratio.min()),
                "ratio_median": _finite(float(np.median(comparison.ratio))),
                "ratio_most": _finite(comparison.ratio.max()),
            }
            for name, comparison in self.comparisons().items()
        }
        increasing = compare(self._column("fraction"), self._column("measured"), self.soft).increasing
        fit = {"penalty": _finite(self.penalty), "fitted_at": self.fitted_at}
        return {"fractions": rows, "bounds": judged, "measured_increasing": increasing} | fit

    def _column(self, name: str) -> Floats:
        return np.array([getattr(item, name) for item in self.measured], float)


def judge(measured: Sequence[Stability], *, decay: float = 0.0) -> Judged:
    """Return the bounds at the measured fractions.

    Args:
        measured: at least one tuned fraction, in any order.
        decay: gamma of training, loss per squared unit of parameter: the weight decay of plain gradient descent.
    """
    rising = tuple(sorted(measured, key=lambda item: item.fraction))
    p = np.array([item.fraction for item in rising])
    n = float(rising[0].samples)
    most = rising[-1]
    soft = soft_bound(p, n, lipschitz=most.rho, eigenvalue=most.curvature, penalty=PENALTY)
    hard = hard_bound(
        p,
        n,
        lipschitz=np.array([item.rho for item in rising]) / np.sqrt(p),
        eigenvalue=np.array([item.curvature for item in rising]),
        decay=decay,
    )
    below = [index for index, item in enumerate(rising) if item.fraction < 1 and item.measured > 0]
    if not below:
        return Judged(measured=rising, soft=soft, hard=hard)
    at = below[len(below) // 2]
    penalty = calibrated_penalty(rising[at].measured, p[at], n, lipschitz=most.rho, eigenvalue=most.curvature)
    return Judged(
        measured=rising,
        soft=soft,
        hard=hard,
        calibrated=soft_bound(p, n, lipschitz=most.rho, eigenvalue=most.curvature, penalty=penalty),
        penalty=penalty,
        fitted_at=at,
    )


def _finite(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
