"""Examples of the rules about rounds whose devices are unlike in time: who comes and fails, and buffered rounds."""

from __future__ import annotations

SQUARE = ('network.scenario="square"', "network.servers=2")

UNEVEN: dict[str, tuple[str, ...]] = {
    **{
        f"presence-{name}": ("network.simulate=true", "network.failure=0.1", *more)
        for name, more in {
            "relay": ("learn.method=sl",),
            "several": SQUARE,
            "barrier": ("learn.method=sfl-v2",),
            "activations": ("plan.counts=activations",),
            "variable": ("quant.scheme=topk",),
            "calibrate": ("network.calibrate=true",),
            "cache": ("model.cut=0", "learn.cache=device"),
            "averaged": ("learn.device_half=averaged",),
            "ranks": (),
        }.items()
    },
    "buffered-train": ("learn.sync=buffered",),
    "buffered-flower": ("learn.sync=buffered",),
    **{
        f"buffered-serve-{name}": ("learn.sync=buffered", *more)
        for name, more in {
            "shared": ("learn.trunk=shared",),
            "state": ("learn.state=keep",),
            "memory": ("quant.scheme=topk",),
            "servers": ("fleet.devices=2", "fleet.servers=[0, 1]"),
            "quorum": ("fleet.quorum=3",),
            "planned": ("fleet.plan=measured",),
        }.items()
    },
    "buffered-ranks": ("learn.sync=buffered",),
    **{
        f"buffered-{name}": ("learn.sync=buffered", "plan.every=0", *more)
        for name, more in {
            "unsplit": ("learn.method=fedlora",),
            "averaged": ("learn.device_half=averaged",),
            "global": ("data.sampling=global",),
            "factors": ("learn.aggregation=svd",),
            "scaffold": ("learn.local=scaffold",),
            "personal": ("learn.personal=head",),
            "lora-ranks": ("fleet.devices=2", "fleet.ranks=[1, 4]"),
            "selected": ("fleet.selected=2",),
            "cache": ("model.cut=0", "learn.cache=device"),
            "adapters": ("quant.bits_adapters=8", "quant.adapters_scale=common"),
            "schedule": ("learn.schedule=cosine",),
            "warmup": ("learn.warmup=0.1",),
            "decay": ("learn.decay=0.9",),
            "presence": ("network.simulate=true", "network.failure=0.1"),
            "several": SQUARE,
            "barrier": ("plan.timing=barrier",),
            "every": ("plan.every=1",),
            "cut": ('plan.optimize=["clock", "cut"]',),
            "activations": ("plan.counts=activations",),
            "variable": ("quant.scheme=topk",),
            "deadline": ("plan.deadline=1.0",),
            "measure-every": ("plan.measure_every=5",),
            "calibrate": ("network.calibrate=true",),
            "battery-j": ("network.battery_j=1.0",),
            "idle-always": ("network.idle_always=true",),
        }.items()
    },
    **{
        f"buffered-trunk-{name}": ("learn.sync=buffered", "learn.trunk=shared", "plan.every=0", *more)
        for name, more in {
            "labels": ("model.labels=device",),
            "cuts": ("fleet.devices=2", "fleet.cuts=[1, 2]"),
            "optimizer": ("learn.server_optimizer=momentum",),
            "fedprox": ("learn.local=fedprox",),
        }.items()
    },
    "unused-buffer": ("learn.buffer=2", "learn.sync=round"),
    "unused-staleness": ("learn.staleness=2", "learn.sync=round"),
    "quorum-train": ("fleet.quorum=3",),
    "over_select-train": ("fleet.over_select=0.5", "fleet.selected=4"),
    "over-select-all": ("fleet.over_select=0.5", "fleet.selected=0", "network.simulate=true"),
    "grace-alone": ("fleet.grace_s=1.0", "fleet.quorum=0", "fleet.over_select=0.0"),
}
"""Rule -> settings that break it."""
