"""``[plan]``: what a plan is to weigh, choose and keep. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How resources are allocated.

    Attributes:
        method: the allocator's name.
        latency_weight: weight lam of the round's time, 0 to 1; energy weighs the rest.
        optimize: what is chosen beside bandwidth and power: ``clock``, ``bits``, ``cut``.
        deadline_s: longest round; 0 for none.
        local_steps: mini-batches of every device between aggregations.
        subchannels: equal pieces the band comes in; 0 for continuous bandwidth.
    """

    method: str = "optimal"
    latency_weight: float = 0.5
    optimize: tuple[str, ...] = ("clock",)
    deadline_s: float = 0.0
    local_steps: int = 1
    subchannels: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.latency_weight <= 1:
            raise ConfigError(f"plan.latency_weight is {self.latency_weight}; it must be between 0 and 1")
