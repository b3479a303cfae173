"""What the devices of a run have given away of a sample, up to a round."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PrivacySpent:
    """Differential privacy spent since the run began, of any one sample of each device.

    Attributes:
        epsilon: of each device, at ``delta``; 0 for one that sent nothing yet.
        mu: the same as Gaussian differential privacy, which composes: squares add up.
        delta: of the run.
        covers: what it holds for: ``sample``, or ``activations only`` or ``adapters only`` where something else that
            leaves the device has no noise.
    """

    epsilon: tuple[float, ...]
    mu: tuple[float, ...]
    delta: float
    covers: str
