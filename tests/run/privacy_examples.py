"""A job that breaks each rule of ``[privacy]``, and that one alone."""

from __future__ import annotations

CLIP, USER = "privacy.clip=1", "privacy.adapters=user"
PRIVACY = {
    "privacy-unsplit": (CLIP, "learn.method=fedlora"),
    "privacy-buffered": (CLIP, "learn.sync=buffered", "plan.every=0"),
    "privacy-averaged": (CLIP, "learn.device_half=averaged"),
    "privacy-delta": (CLIP, "quant.delta=true"),
    "privacy-scaffold": (CLIP, "learn.local=scaffold"),
    "privacy-relay": (USER, "learn.method=sl"),
    "privacy-common": (USER, "quant.adapters_scale=common", "quant.bits_adapters=8"),
    "unused-clip_gradients": ("privacy.clip_gradients=1", "model.labels=server"),
    "unused-clip_adapters": ("privacy.clip_adapters=2", "privacy.adapters=none"),
    "unused-noise_adapters": ("privacy.noise_adapters=2", "privacy.adapters=none"),
    "unused-delta": ("privacy.delta=1e-6", "privacy.noise=0.0"),
    "unused-reproducible": ("privacy.reproducible=true", "privacy.noise=0.0"),
}
