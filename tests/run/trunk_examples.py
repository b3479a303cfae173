"""Examples of the rules of a served run over several servers: name of the rule -> settings that break it alone."""

from __future__ import annotations

APART = ("fleet.devices=2", "fleet.servers=[0, 1]")
TRUNKS: dict[str, tuple[str, ...]] = {
    "servers-alone": ("fleet.devices=2", "fleet.servers=[0, -1]"),
    "servers-state": (*APART, "learn.state=keep"),
    "servers-variable": (*APART, "quant.scheme=topk"),
    "servers-local": (*APART, "learn.local=fedprox"),
    "servers-personal": (*APART, "learn.personal=head", "model.trainable=lora+head"),
    "servers-trunk-bits": (*APART, "model.trunk_bits=8"),
}
