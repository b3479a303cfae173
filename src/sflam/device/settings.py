"""``[device]``: what the devices of a job are run by. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from sflam.ranges import Ranges

TORCH, LEAN = "torch", "lean"
RUNTIMES = (TORCH, LEAN)

FLOAT32, FLOAT16, INT8 = "float32", "float16", "int8"
WEIGHTS = (FLOAT32, FLOAT16, INT8)

OFFERS: dict[str, tuple[str, ...]] = {
    "model.trainable": ("lora", "lora+head"),
    "model.labels": ("server", "device"),
    "model.dtype": ("float32", "float64"),
    "learn.optimizer": ("adamw", "adam", "sgd"),
    "learn.device_half": ("trained", "frozen"),
    "learn.aggregation": ("fedavg", "freeze-a", "svd"),
    "learn.local": ("plain", "fedprox"),
    "learn.cache": ("off", "device", "server"),
    "learn.loss": ("cross-entropy", "label-smoothing", "focal"),
    "learn.canonical": ("false", "true"),
    "data.sampling": ("local", "global"),
    "data.draw": ("passes", "poisson"),
    "quant.delta": ("false",),
    "privacy": ("none", "some"),
    "privacy.sample_clip": ("none",),
    "privacy.clip_loss": ("none",),
    "privacy.distance_correlation": ("none",),
    "privacy.drop_tokens": ("none", "some"),
    "privacy.secure_aggregation": ("false", "true"),
    "plugins": ("none",),
}
"""What a job may ask of a device without torch; see ``sflam.link.needs``."""


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """What devices are run by.

    Attributes:
        runtime: whose memory is noted, planned and compared: ``torch`` (``sflam join``: what a step adds to a process
            that has loaded torch, which is not counted), or ``lean`` (``sflam device``: the whole process at its
            least). Devices of either kind may take part in a served job, whatever this is.
        weights: how the frozen matrices of the device's part are stored and downloaded: ``float32`` (as
            ``model.dtype`` has them), ``float16`` (half of it), or ``int8`` (a quarter, with a scale per row). They are
            rounded once, for the whole run, so that devices, server, simulation and evaluation have one model.
    """

    runtime: str = TORCH
    weights: str = FLOAT32

    def __post_init__(self) -> None:
        ranges = Ranges(self, "device")
        ranges.named("runtime", RUNTIMES, "runtime")
        ranges.one_of(WEIGHTS, "weights")
        ranges.check()
