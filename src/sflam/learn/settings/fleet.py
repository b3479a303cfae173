"""``[fleet]``: which devices exist, who takes part, and where each is. Torch-free."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sflam.plan import ALL_LOCAL, Placement
from sflam.ranges import Ranges
from sflam.registry import OWN
from sflam.sizes import MAX_BITS, MIN_BITS

POLICIES = ("uniform", "samples", "channel", "energy", "loss")


@dataclass(frozen=True, kw_only=True)
class FleetSettings:
    """Which devices exist and how many take part in a round.

    Attributes:
        devices: number of devices K.
        selected: devices drawn per round without replacement; 0 takes all of them.
        policy: which devices a round takes: drawn ``uniform``ly or with chances proportional to their ``samples``; in
            simulations also those with the best ``channel``, the most ``energy`` left (without batteries, the cheapest
            round), or the largest ``loss``.
        over_select: how many more than ``selected`` a round takes, as a share of them, rounded up: it counts on the
            first that deliver. Then ``quorum`` is ``selected`` where it is 0.
        quorum: fewest devices whose result a round needs. Once it has them, it goes on for ``grace_s`` and no longer.
            0 waits for all that are at work, in a simulation; a served run then has its own default, and ``--quorum``
            goes before this.
        grace_s: seconds a round goes on for the others once it has its quorum.
        most_samples: most samples that a device may hold; 0 is no limit. What it announces sets what it counts in
            averages and in draws, and nothing can check it: a served device with more is refused, and a run in which
            one has more does not begin.
        cuts: one cut per device, overriding ``model.cut``; empty gives every device ``model.cut``.
        servers: which server serves each device, 0, 1, ...; -1 lets a device train the whole model itself, with no
            server, whatever its cut. Empty gives all devices one server.
        bits_up: bits per activation value of each device, overriding ``quant.bits_up``; empty gives all the same.
        bits_down: bits per gradient value of each device, overriding ``quant.bits_down``; empty gives all the same.
        tuned: ``model.tuned`` of each device: the blocks that it trains, wherever it is cut. It has no adapters in the
            others, and a block is averaged over those who tune it. Empty gives all the same.
        ranks: LoRA rank of each device, at most ``model.rank``: it trains the first components of the global adapters,
            and is averaged with zeros for the rest (HetLoRA; with ``learn.aggregation = "svd"`` its components are the
            largest of the mean product, FlexLoRA). Empty gives all ``model.rank``. A shared trunk keeps ``model.rank``.
        plan: a plan.json of sflam plan whose cuts, servers and bits the devices get, or ``computed`` for the plan of
            ``[network]`` and ``[plan]`` at the start; or, in a served run, ``measured``: every ``plan.every`` rounds
            bits are planned anew from what devices, links and server took in the rounds before. Empty follows none.
    """

    devices: int = 10
    selected: int = 0
    policy: str = "uniform"
    over_select: float = 0.0
    quorum: int = 0
    grace_s: float = 0.0
    most_samples: int = 0
    cuts: tuple[int, ...] = ()
    servers: tuple[int, ...] = ()
    bits_up: tuple[int, ...] = ()
    bits_down: tuple[int, ...] = ()
    tuned: tuple[int, ...] = ()
    ranks: tuple[int, ...] = ()
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
        ranges.at_least(0, "over_select", "grace_s", "most_samples")
        ranges.require(
            0 <= self.quorum <= (self.asked or self.devices),
            "quorum",
            f"it must be between 0 (all at work) and {self.asked or self.devices}, those that a round takes",
        )
        ranges.each(self.devices, 0, math.inf, "cuts", of="device")
        ranges.each(
            self.devices,
            ALL_LOCAL,
            math.inf,
            "servers",
            of="device",
            hint=f" ({ALL_LOCAL}: a device without a server)",
        )
        ranges.each(self.devices, -math.inf, math.inf, "tuned", of="device")
        ranges.each(self.devices, 1, math.inf, "ranks", of="device")
        ranges.each(self.devices, MIN_BITS, MAX_BITS, "bits_up", "bits_down", of="device")
        ranges.check()

    @property
    def asked(self) -> int:
        """Devices that a round takes, over-selection included; 0 takes all."""
        return min(self.devices, math.ceil(self.selected * (1 + self.over_select) - 1e-9))

    @property
    def fewest(self) -> int:
        """Devices whose result closes a round after the grace; 0 waits for all that are at work."""
        return self.quorum or (self.selected if self.over_select else 0)

    def placements(self, cut: int, bits: tuple[int, int]) -> tuple[Placement, ...]:
        """Return where every device is; ``cut`` and ``bits`` (up, down) are those of devices without their own."""
        every = self.devices
        columns = (
            self.cuts or (cut,) * every,
            self.bits_up or bits[:1] * every,
            self.bits_down or bits[1:] * every,
            self.servers or (0,) * every,
            self.tuned or (0,) * every,
        )
        return tuple(
            Placement(device=device, cut=own, bits_up=up, bits_down=down, server=server, tuned=tuned)
            for device, (own, up, down, server, tuned) in enumerate(zip(*columns, strict=True))
        )

    def placed(self, placements: Sequence[Placement], bits: tuple[int, int]) -> FleetSettings:
        """Return settings whose :meth:`placements` are these; what all have in common is left to its own key."""
        servers = tuple(placement.server for placement in placements)
        tuned = tuple(placement.tuned for placement in placements)
        up, down = (
            tuple(column) for column in zip(*(placement.bits for placement in placements), strict=True)
        )
        return replace(
            self,
            plan="",
            cuts=tuple(placement.cut for placement in placements),
            servers=servers if any(servers) else (),
            tuned=tuned if any(tuned) else (),
            bits_up=up if set(up) != {bits[0]} else (),
            bits_down=down if set(down) != {bits[1]} else (),
        )
