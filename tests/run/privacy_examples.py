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
WEIGHED = "privacy.distance_correlation=1"
DECORRELATION = {
    "decorrelation-unsplit": (WEIGHED, "learn.method=fedlora"),
    "decorrelation-nothing": (WEIGHED, "model.cut=0"),
    "decorrelation-samples": (WEIGHED, "privacy.sample_clip=1"),
    "decorrelation-lean": (WEIGHED, "device.runtime=lean"),
}
DROPPED = "privacy.drop_tokens=0.5"
DROP = {
    "drop-unsplit": (DROPPED, "learn.method=fedlora"),
    "drop-cache": (DROPPED, "learn.cache=device", "model.cut=0"),
    "drop-delta": (DROPPED, "quant.delta=true"),
    "drop-correlation": (DROPPED, WEIGHED),
    "drop-measured": (DROPPED, "plan.measure_every=5"),
    "drop-calibrated": (DROPPED, "network.calibrate=true"),
    "drop-unlabelled": (DROPPED, 'data.label=""'),
}
SAMPLES = "privacy.sample_clip=1"
SAMPLE = {
    "sample-unsplit": (SAMPLES, "learn.method=fedlora"),
    "sample-nothing": (SAMPLES, "model.cut=0"),
    "sample-full": (SAMPLES, "model.trainable=full"),
    "sample-alone": (SAMPLES, "fleet.devices=2", "fleet.servers=[0, -1]", "fleet.cuts=[1, 0]"),
    "sample-several": (SAMPLES, 'network.scenario="square"', "network.servers=2"),
    "sample-buffered": (SAMPLES, "learn.sync=buffered", "plan.every=0"),
    "sample-averaged": (SAMPLES, "learn.device_half=averaged"),
    "sample-fedlc": (SAMPLES, "learn.local=fedlc"),
    "sample-delta": (SAMPLES, "quant.delta=true"),
    "sample-topk": (SAMPLES, "quant.scheme=topk"),
    "sample-measured": (SAMPLES, "plan.measure_every=5"),
    "sample-calibrated": (SAMPLES, "network.calibrate=true"),
    "sample-lean": (SAMPLES, "device.runtime=lean"),
}
PRIVACY = {
    "privacy-unsplit": (CLIP, "learn.method=fedlora"),
    "privacy-buffered": (CLIP, "learn.sync=buffered", "plan.every=0"),
    "privacy-averaged": (CLIP, "learn.device_half=averaged"),
    "privacy-delta": (CLIP, "quant.delta=true"),
    "privacy-scaffold": (CLIP, "learn.local=scaffold"),
    "privacy-relay": (USER, "learn.method=sl"),
    "privacy-fedlc": (CLIP, "privacy.noise=1", "learn.local=fedlc", "model.labels=device"),
    "privacy-loss": ("privacy.clip_loss=1", "model.labels=device", "device.runtime=lean"),
    "privacy-loss-alone": (
        "privacy.clip_loss=1",
        "model.labels=device",
        "fleet.devices=2",
        "fleet.servers=[0, -1]",
        "fleet.cuts=[1, 0]",
    ),
    "privacy-loss-several": (
        "privacy.clip_loss=1",
        "model.labels=device",
        'network.scenario="square"',
        "network.servers=2",
    ),
    "privacy-common": (USER, "quant.adapters_scale=common", "quant.bits_adapters=8"),
    **SECURE,
    **DECORRELATION,
    **DROP,
    "unused-drop_draw": ("privacy.drop_draw=sample", "privacy.drop_tokens=0.0"),
    **SAMPLE,
    "unused-secure_threshold": ("privacy.secure_threshold=0.8", "privacy.secure_aggregation=false"),
    "unused-clip_gradients": ("privacy.clip_gradients=1", "model.labels=server"),
    "unused-clip_loss": ("privacy.clip_loss=1", "model.labels=server"),
    "unused-clip_adapters": ("privacy.clip_adapters=2", "privacy.adapters=none"),
    "unused-noise_adapters": ("privacy.noise_adapters=2", "privacy.adapters=none"),
    "unused-delta": ("privacy.delta=1e-6", "privacy.noise=0.0"),
    "unused-reproducible": ("privacy.reproducible=true", "privacy.noise=0.0"),
}
