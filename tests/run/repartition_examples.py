"""Examples of the rules of cuts that move while a run is served: name of the rule -> settings that break it alone."""

from __future__ import annotations

MOVES = "repartition.mode=ordered"
COMMON = ("quant.adapters_scale=common", "quant.bits_adapters=8")
REPARTITION: dict[str, tuple[str, ...]] = {
    "repartition-flower": (MOVES,),
    "repartition-no-room": (MOVES, "repartition.least_cut=9"),
    "repartition-buffered": (MOVES, "learn.sync=buffered"),
    "repartition-secure": (MOVES, "privacy.secure_aggregation=true", *COMMON),
    "repartition-common": (MOVES, *COMMON),
    "repartition-personal": (MOVES, "learn.personal=head", "model.trainable=lora+head"),
    "repartition-servers": (MOVES, "fleet.devices=2", "fleet.servers=[0, 1]"),
    "repartition-frozen": (MOVES, "learn.device_half=frozen"),
    "repartition-cache": (MOVES, "learn.cache=device", "model.tuned=-1"),
    "repartition-residual": (MOVES, "learn.aggregation=residual"),
    "repartition-memory": (MOVES, "quant.scheme=topk"),
    "repartition-selected": (MOVES, "learn.state=keep", "fleet.selected=2"),
    "repartition-robust": (MOVES, "learn.robust=median", "learn.trunk=shared"),
    "repartition-tuned": (MOVES, "fleet.devices=2", "fleet.tuned=[1, -1]"),
    "repartition-planned": (MOVES, "fleet.plan=measured"),
    "repartition-trunk-bits": (MOVES, "model.trunk_bits=8"),
    "repartition-trunk-weights": (MOVES, "model.trunk_weights=file"),
    "repartition-noise": (MOVES, "privacy.clip=1", "privacy.noise=1"),
    "repartition-clip": (MOVES, "privacy.sample_clip=1"),
    "repartition-distance": (MOVES, "privacy.distance_correlation=0.5"),
    "repartition-private-adapters": (MOVES, "privacy.adapters=user"),
    "unused-least_cut": ("repartition.least_cut=1", "repartition.mode=off"),
    "unused-memory_reserve": (MOVES, "repartition.memory_reserve=0.2"),
    "unused-slow_factor": (MOVES, "repartition.slow_factor=2"),
    "unused-settle_rounds": (MOVES, "repartition.settle_rounds=2"),
}
