"""``[fleet]`` and ``[learn]``: who takes part, and how a round is run. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sflam.errors import ConfigError
from sflam.plan import ALL_LOCAL, Placement
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
        problems = []
        if self.devices < 1:
            problems.append(f"fleet.devices is {self.devices}; at least one device is needed")
        if not 0 <= self.selected <= max(self.devices, 0):
            problems.append(
                f"fleet.selected is {self.selected}; it must be between 0 (all) and fleet.devices = {self.devices}"
            )
        if self.cuts and len(self.cuts) != self.devices:
            problems.append(
                f"fleet.cuts lists {len(self.cuts)} cuts for {self.devices} devices; give one per device, or none"
            )
        policies = (*POLICIES, *sorted(OWN["policy"]))
        if self.policy not in policies:
            problems.append(f"fleet.policy is {self.policy!r}; choose one of {', '.join(policies)}")
        if any(cut < 0 for cut in self.cuts):
            problems.append(f"fleet.cuts holds {min(self.cuts)}; every cut must be 0 or more")
        if self.servers and len(self.servers) != self.devices:
            problems.append(
                f"fleet.servers lists {len(self.servers)} servers for {self.devices} devices; give one per device, or "
                "none"
            )
        for key in ("bits_up", "bits_down"):
            bits = getattr(self, key)
            if bits and len(bits) != self.devices:
                problems.append(
                    f"fleet.{key} lists {len(bits)} numbers for {self.devices} devices; give one per device, or none"
                )
            if any(not MIN_BITS <= each <= MAX_BITS for each in bits):
                problems.append(
                    f"fleet.{key} holds {next(b for b in bits if not MIN_BITS <= b <= MAX_BITS)}; bits must be between "
                    f"{MIN_BITS} and {MAX_BITS}"
                )
        if any(server < ALL_LOCAL for server in self.servers):
            problems.append(
                f"fleet.servers holds {min(self.servers)}; a server is 0 or more, {ALL_LOCAL} for a device without one"
            )
        if problems:
            raise ConfigError(problems)

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
        servers = tuple(one.server for one in placements)
        up, down = (tuple(column) for column in zip(*(one.bits for one in placements), strict=True))
        return replace(
            self,
            plan="",
            cuts=tuple(one.cut for one in placements),
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

    def __post_init__(self) -> None:
        problems = []
        for key, allowed in (
            ("method", (*METHODS, *sorted(OWN["method"]))),
            ("server_update", SERVER_UPDATES),
            ("aggregation", AGGREGATIONS),
            ("optimizer", OPTIMIZERS),
            ("state", STATES),
            ("cache", CACHES),
            ("keep", KEEPS),
            ("device", ("auto", "cpu", "cuda")),
        ):
            if getattr(self, key) not in allowed:
                problems.append(f"learn.{key} is {getattr(self, key)!r}; choose one of {', '.join(allowed)}")
        for key in ("rounds", "local_epochs", "batch"):
            if getattr(self, key) < 1:
                problems.append(f"learn.{key} is {getattr(self, key)}; it must be at least 1")
        for key in ("local_steps", "weight_decay", "clip", "evaluate_every"):
            if getattr(self, key) < 0:
                problems.append(f"learn.{key} is {getattr(self, key)}; it must be 0 or more")
        if not self.lr > 0:
            problems.append(f"learn.lr is {self.lr}; it must be positive")
        if not 0 <= self.momentum < 1:
            problems.append(f"learn.momentum is {self.momentum}; it must be in [0, 1)")
        if problems:
            raise ConfigError(problems)
