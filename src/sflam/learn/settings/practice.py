"""How a method learns: what its name sets, and what a key that is set replaces. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

TRUNKS = ("per-device", "shared")
SERVER_UPDATES = ("sequential", "batched", "mixed")
DEVICE_HALVES = ("trained", "averaged", "frozen")
WEIGHTS = ("equal", "samples")
AGGREGATIONS = ("fedavg", "freeze-a", "residual", "svd")
LOCALS = ("plain", "fedprox", "scaffold", "fedlc")
SERVER_OPTIMIZERS = ("none", "momentum", "adam", "yogi")
STATES = ("reset", "keep")


@dataclass(frozen=True, kw_only=True)
class Practice:
    """The keys that a method's name sets, each with its value; see ``LearnSettings`` and ``DataSettings``.

    Attributes:
        trunk: copies of the server's half.
        server_update: how a step's rows are grouped where the trunk is shared.
        device_half: what devices do with their half.
        weights: what a device counts in the loss of a shared trunk.
        aggregation: how adapters are averaged.
        local: what a device adds to its own gradient or loss.
        server_optimizer: what moves the global adapters by what was averaged.
        state: optimiser state across rounds.
        lr: learning rate: the largest of the schedule.
        sampling: ``data.sampling``.
    """

    trunk: str = "per-device"
    server_update: str = "sequential"
    device_half: str = "trained"
    weights: str = "equal"
    aggregation: str = "fedavg"
    local: str = "plain"
    server_optimizer: str = "none"
    state: str = "reset"
    lr: float = 3e-3
    sampling: str = "local"

    @property
    def shared(self) -> bool:
        """Whether one server copy serves all devices (SFL-V2), instead of one each (SFL-V1)."""
        return self.trunk == "shared"


KEYS = tuple(item.name for item in fields(Practice) if item.name != "sampling")
"""The keys of ``[learn]`` that a bundle may set."""

BUNDLES: dict[str, Mapping[str, Any]] = {
    "sflam": {},
    "sflam-mixed": {
        "trunk": "shared",
        "server_update": "mixed",
        "weights": "samples",
        "state": "keep",  # one trunk that sees all devices need not forget its momentum
        "lr": 1e-3,  # and takes many more optimiser steps than copies do
        "sampling": "global",
    },
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
"""Method -> the keys that its name sets where they are empty or 0; every other key has the default of ``Practice``.
Methods of a program's own are added when they are registered."""

METHODS = tuple(BUNDLES)


def practice_of(method: str, keys: Mapping[str, Any]) -> Practice:
    """Return how a method learns where the ``keys`` of ``[learn]`` that are neither empty nor 0 are set."""
    return Practice(**{**BUNDLES[method], **{name: value for name, value in keys.items() if value}})
