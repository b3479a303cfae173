"""What the devices of a run have given away of a sample, up to a round."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PrivacySpent:
    """Differential privacy spent since the run began, of any one sample of each device.

    Attributes:
        epsilon: of each device, at ``delta``; 0 for one that sent nothing yet.
        mu: the same as Gaussian differential privacy, which composes: squares add up. With Poisson draws that of what
            is certain alone; what a sample's visits spend is in ``coins``.
        delta: of the run.
        covers: what it holds for: ``sample``; ``inputs only`` where labels alone have no noise; or ``activations only``
            or ``adapters only`` where something else that leaves the device has none.
        coins: of each device with Poisson draws, the steps so far in which a coin decided whether the sample goes up.
        rate: the largest chance of such a coin so far.
    """

    epsilon: tuple[float, ...]
    mu: tuple[float, ...]
    delta: float
    covers: str
    coins: tuple[int, ...] = ()
    rate: tuple[float, ...] = ()
