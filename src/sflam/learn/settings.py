"""``[fleet]`` and ``[learn]``: who takes part, and how a round is run. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sflam.plan import ALL_LOCAL, Placement
from sflam.ranges import Ranges
from sflam.registry import OWN
from sflam.sizes import MAX_BITS, MIN_BITS

METHODS = ("sflam", "sfl-v1", "sfl-v2", "sl", "fedlora", "fedavg", "local", "central")
POLICIES = ("uniform", "channel", "energy", "loss")
AGGREGATIONS = ("fedavg", "freeze-a", "residual")
OPTIMIZERS = ("adamw", "adam", "sgd")
STATES = ("reset", "keep")
CACHES = ("off", "device", "server")
KEEPS = ("last", "best")
SERVER_UPDATES = ("sequential", "batched")


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """Which devices exist and how many take part in a round.

    Attributes:
        devices: number of devices K.
        selected: devices drawn per round without replacement; 0 takes all of them.
        policy: which devices a simulated round takes: ``uniform``, or those with the best ``channel``, the most
            ``energy`` left (without batteries, the cheapest round), or the largest ``loss``.
        cuts: one cut per device, overriding ``model.cut``; empty gives every device ``model.cut``.
        servers: which server serves each device, 0, 1, ...; -1 lets a device train the whole model itself, with no
            server, whatever its cut. Empty gives all devices one server.
        bits_up: bits per activation value of each device, overriding ``quant.bits_up``; empty gives all the same.
        bits_down: bits per gradient value of each device, overriding ``quant.bits_down``; empty gives all the same.
        plan: a plan.json of sflam plan whose cuts, servers and bits the devices get, or ``computed`` for the plan of
            ``[network]`` and ``[plan]`` at the start; empty follows none.
    """

    devices: int = 10
    selected: int = 0
    policy: str = "uniform"
    cuts: tuple[int, ...] = ()
    servers: tuple[int, ...] = ()
    bits_up: tuple[int, ...] = ()
    bits_down: tuple[int, ...] = ()
    plan: str = ""

    def __post_init__(self) -> None:
        ranges = Ranges(self, "fleet")
        ranges.at_least(1, "devices")
        ranges.require(
            0 <= self.selected <= max(self.devices, 0),
            "selected",
            f"it must be between 0 (all) and fleet.devices = {self.devices}",
        )
        ranges.one_of((*POLICIES, *sorted(OWN["policy"])), "policy")
        ranges.each(self.devices, 0, math.inf, "cuts", of="device")
        ranges.each(
            self.devices,
            ALL_LOCAL,
            math.inf,
            "servers",
            of="device",
            hint=f" ({ALL_LOCAL}: a device without a server)",
        )
        ranges.each(self.devices, MIN_BITS, MAX_BITS, "bits_up", "bits_down", of="device")
        ranges.check()

    def placements(self, cut: int, bits: tuple[int, int]) -> tuple[Placement, ...]:
        """Return where every device is; ``cut`` and ``bits`` (up, down) are those of devices without their own."""
        every = self.devices
        columns = (
            self.cuts or (cut,) * every,
            self.bits_up or bits[:1] * every,
            self.bits_down or bits[1:] * every,
            self.servers or (0,) * every,
        )
        return tuple(
            Placement(device=device, cut=own, bits_up=up, bits_down=down, server=server)
            for device, (own, up, down, server) in enumerate(zip(*columns, strict=True))
        )

    def placed(self, placements: Sequence[Placement], bits: tuple[int, int]) -> FleetSettings:
        """Return settings whose :meth:`placements` are these; what all have in common is left to its own key."""
        servers = tuple(placement.server for placement in placements)
        up, down = (
            tuple(column) for column in zip(*(placement.bits for placement in placements), strict=True)
        )
        return replace(
            self,
            plan="",
            cuts=tuple(placement.cut for placement in placements),
            servers=servers if any(servers) else (),
            bits_up=up if set(up) != {bits[0]} else (),
            bits_down=down if set(down) != {bits[1]} else (),
        )


@dataclass(frozen=True, kw_only=True)
class LearnSettings:
    """How a round is run.

    Attributes:
        method: ``sflam`` (SFL-V1 with a quantized cut), or what it is compared with: ``sfl-v1``, ``sfl-v2``, ``sl``
            (devices one after another), ``fedlora`` (whole models on devices), ``fedavg`` (the same, every weight
            trained), ``local`` (every device for itself), ``central``.
        server_update: for ``sfl-v2``: ``sequential`` steps the shared trunk device after device (classical),
            ``batched`` takes one step on the summed gradients.
        aggregation: ``fedavg`` averages A and B apart; ``freeze-a`` trains B only (exact); ``residual`` adds
            mean(BA) - mean(B) mean(A) to the frozen weights (exact).
        rounds: communication rounds.
        local_epochs: passes over a device's own data per round; ignored when ``local_steps`` is set.
        local_steps: mini-batches per device per round; 0 uses ``local_epochs``.
        batch: mini-batch size on a device.
        lr: learning rate.
        optimizer: ``adamw``, ``adam`` or ``sgd``.
        weight_decay: weight decay of the optimiser.
        momentum: momentum of ``sgd``.
        clip: per-device limit on the gradient norm of one side; 0 does not clip.
        state: optimiser state across rounds: ``reset`` (as in FedAvg practice) or ``keep``.
        keep: which round's model is written: the ``last``, or the ``best`` by held-out accuracy (a language model's by
            held-out loss).
        checkpointing: keep only each block's input for the backward and compute its inside again: the same gradients,
            far less memory for activations, about a third more computing.
        device: ``cpu``, ``cuda``, or ``auto``.
        cache: activations of a frozen device half (cut 0) that are kept instead of made again: ``off``, ``device``
            (saves computing), or ``server`` (saves sending them, too).
        evaluate_every: test after every so many rounds, and after the last; 0 only after the last.
        canonical: one thread, fixed order: bit-equal results on one type of machine, slower.
    """

    method: str = "sflam"
    server_update: str = "sequential"
    aggregation: str = "fedavg"
    rounds: int = 10
    local_epochs: int = 1
    local_steps: int = 0
    batch: int = 16
    lr: float = 3e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.0
    momentum: float = 0.0
    clip: float = 1.0
    state: str = "reset"
    keep: str = "last"
    checkpointing: bool = False
    device: str = "auto"
    cache: str = "off"
    evaluate_every: int = 1
    canonical: bool = False

    @property
    def optimizer_slots(self) -> int:
        """Numbers the optimiser keeps per trained weight, n_s."""
        return int(self.momentum > 0) if self.optimizer == "sgd" else 2

    def __post_init__(self) -> None:
        ranges = Ranges(self, "learn")
        ranges.one_of((*METHODS, *sorted(OWN["method"])), "method")
        ranges.one_of(SERVER_UPDATES, "server_update")
        ranges.one_of(AGGREGATIONS, "aggregation")
        ranges.one_of(OPTIMIZERS, "optimizer")
        ranges.one_of(STATES, "state")
        ranges.one_of(CACHES, "cache")
        ranges.one_of(KEEPS, "keep")
        ranges.one_of(("auto", "cpu", "cuda"), "device")
        ranges.at_least(1, "rounds", "local_epochs", "batch")
        ranges.at_least(0, "local_steps", "weight_decay", "clip", "evaluate_every")
        ranges.positive("lr")
        ranges.require(0 <= self.momentum < 1, "momentum", "it must be in [0, 1)")
        ranges.check()
