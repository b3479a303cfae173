"""A job that breaks each rule of ``[privacy]``, and that one alone."""

from __future__ import annotations

CLIP, USER = "privacy.clip=1", "privacy.adapters=user"
SUM = ("privacy.secure_aggregation=true", "quant.adapters_scale=common")
SECURE = {
    "secure-own": (SUM[0], "quant.adapters_scale=own"),
    "secure-method": (SUM[0], "quant.adapters_scale=own", "learn.method=fedlora"),
    "secure-few": (*SUM, "fleet.devices=2"),
    "secure-nothing": (*SUM, "model.cut=0"),
    "secure-averaged": (*SUM, "learn.device_half=averaged"),
    "secure-robust": (*SUM, "learn.robust=median"),
    "secure-factors": (*SUM, "learn.aggregation=svd"),
    "secure-scaffold": (*SUM, "learn.local=scaffold"),
    "secure-personal": (*SUM, "learn.personal=head"),
    "secure-policy": (*SUM, "fleet.policy=samples", "fleet.selected=3"),
    "secure-servers": (*SUM, "fleet.devices=3", "fleet.servers=[0,1,0]"),
    "secure-on-ranks": SUM,
    "secure-flower": SUM,
}
PRIVACY = {
    "privacy-unsplit": (CLIP, "learn.method=fedlora"),
    "privacy-buffered": (CLIP, "learn.sync=buffered", "plan.every=0"),
    "privacy-averaged": (CLIP, "learn.device_half=averaged"),
    "privacy-delta": (CLIP, "quant.delta=true"),
    "privacy-scaffold": (CLIP, "learn.local=scaffold"),
    "privacy-relay": (USER, "learn.method=sl"),
    "privacy-common": (USER, "quant.adapters_scale=common", "quant.bits_adapters=8"),
    **SECURE,
    "unused-secure_threshold": ("privacy.secure_threshold=0.8", "privacy.secure_aggregation=false"),
    "unused-clip_gradients": ("privacy.clip_gradients=1", "model.labels=server"),
    "unused-clip_adapters": ("privacy.clip_adapters=2", "privacy.adapters=none"),
    "unused-noise_adapters": ("privacy.noise_adapters=2", "privacy.adapters=none"),
    "unused-delta": ("privacy.delta=1e-6", "privacy.noise=0.0"),
    "unused-reproducible": ("privacy.reproducible=true", "privacy.noise=0.0"),
}
