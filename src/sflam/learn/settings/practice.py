"""How a method learns: what its name sets of ``[learn]``, and what a key that is set replaces. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

TRUNKS = ("per-device", "shared")
SERVER_UPDATES = ("sequential", "batched", "mixed")
DEVICE_HALVES = ("trained", "averaged", "frozen")
WEIGHTS = ("equal", "samples")
AGGREGATIONS = ("fedavg", "freeze-a", "residual", "svd")
LOCALS = ("plain", "fedprox", "scaffold", "fedlc")
SERVER_OPTIMIZERS = ("none", "momentum", "adam", "yogi")


@dataclass(frozen=True, kw_only=True)
class Practice:
    """The keys of ``[learn]`` that a method's name sets, each with its value; see ``LearnSettings``.

    Attributes:
        trunk: copies of the server's half.
        server_update: how a step's rows are grouped where the trunk is shared.
        device_half: what devices do with their half.
        weights: what a device counts in the loss of a shared trunk.
        aggregation: how adapters are averaged.
        local: what a device adds to its own gradient or loss.
        server_optimizer: what moves the global adapters by what was averaged.
    """

    trunk: str = "per-device"
    server_update: str = "sequential"
    device_half: str = "trained"
    weights: str = "equal"
    aggregation: str = "fedavg"
    local: str = "plain"
    server_optimizer: str = "none"

    @property
    def shared(self) -> bool:
        """Whether one server copy serves all devices (SFL-V2), instead of one each (SFL-V1)."""
        return self.trunk == "shared"


KEYS = tuple(item.name for item in fields(Practice))
"""The keys a bundle may set."""

BUNDLES: dict[str, Mapping[str, str]] = {
    "sflam": {},
    "sflam-mixed": {"trunk": "shared", "server_update": "mixed", "weights": "samples"},
    "sfl-v1": {},
    "sfl-v2": {"trunk": "shared"},
    "sl": {"trunk": "shared"},
    "fedlora": {},
    "fedavg": {},
    "local": {},
    "central": {},
    "fedprox": {"local": "fedprox"},
    "scaffold": {"local": "scaffold"},
    "fedlc": {"local": "fedlc"},
    "fedavgm": {"server_optimizer": "momentum"},
    "fedadam": {"server_optimizer": "adam"},
    "fedyogi": {"server_optimizer": "yogi"},
    "flexlora": {"aggregation": "svd"},
    "ffa-lora": {"aggregation": "freeze-a"},
}
"""Method -> the keys that its name sets where they are left empty; every other key has the default of ``Practice``.
Methods of a program's own are added when they are registered."""

METHODS = tuple(BUNDLES)


def practice_of(method: str, keys: Mapping[str, str]) -> Practice:
    """Return how a method learns where the ``keys`` of ``[learn]`` that are not empty are set."""
    return Practice(**{**BUNDLES[method], **{name: value for name, value in keys.items() if value}})
