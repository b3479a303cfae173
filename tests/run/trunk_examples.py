"""Examples of the rules of trunk servers and of trunks' weights: name of the rule -> settings that break it alone."""

from __future__ import annotations

APART = ("fleet.devices=2", "fleet.servers=[0, 1]")
MEASURED = "learn.passes=measured"
FILE = "model.trunk_weights=file"
TRUNKS: dict[str, tuple[str, ...]] = {
    "servers-alone": ("fleet.devices=2", "fleet.servers=[0, -1]"),
    "servers-state": (*APART, "learn.state=keep"),
    "servers-variable": (*APART, "quant.scheme=topk"),
    "servers-local": (*APART, "learn.local=fedprox"),
    "servers-residual": (*APART, "learn.aggregation=residual"),
    "servers-cache": (*APART, "learn.cache=server", "learn.device_half=frozen"),
    "servers-personal": (*APART, "learn.personal=head", "model.trainable=lora+head"),
    "servers-trunk-bits": (*APART, "model.trunk_bits=8"),
    "trunk-weights-full": (FILE, "model.trainable=full"),
    "trunk-weights-residual": (FILE, "learn.aggregation=residual"),
    "trunk-weights-bits": (FILE, "model.trunk_bits=8"),
    "trunk-weights-unsplit": (FILE, "learn.method=fedlora"),
    "passes-canonical": (MEASURED, "learn.canonical=true"),
    "passes-unsplit": (MEASURED, "learn.method=fedlora"),
    "passes-ranks": (MEASURED,),
    "passes-over-ranks": (MEASURED, "model.trunk_weights=ranks"),
    "trunk-weights-servers": (FILE, *APART),
}
