"""``[device]``: what the devices of a job are run by. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges

TORCH, LEAN = "torch", "lean"
RUNTIMES = (TORCH, LEAN)

OFFERS: dict[str, tuple[str, ...]] = {
    "model.trainable": ("lora", "lora+head"),
    "model.labels": ("server", "device"),
    "model.dtype": ("float32", "float64"),
    "learn.optimizer": ("adamw", "adam", "sgd"),
    "learn.device_half": ("trained", "frozen"),
    "learn.aggregation": ("fedavg", "freeze-a", "svd"),
    "learn.local": ("plain", "fedprox"),
    "learn.cache": ("off", "device"),
    "learn.loss": ("cross-entropy", "label-smoothing", "focal"),
    "learn.canonical": ("false", "true"),
    "quant.delta": ("false",),
    "plugins": ("none",),
}
"""What a job may ask of a device without torch; see ``sflam.link.needs``."""


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """What devices are run by.

    Attributes:
        runtime: whose memory is noted, planned and compared: ``torch`` (``sflam join``: what a step adds to a process
            that has loaded torch, which is not counted), or ``lean`` (``sflam device``: the whole process at its
            least). Devices of either kind may take part in a served job, whatever is said here.
    """

    runtime: str = TORCH

    def __post_init__(self) -> None:
        ranges = Ranges(self, "device")
        ranges.named("runtime", RUNTIMES, "runtime")
        ranges.check()
