"""Each device's part of a served round: its steps, its rows, and what crosses, from the samples it reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sflam.data.batches import rows_of_round
from sflam.learn.drawing import drawn_rows
from sflam.learn.split_fleet import LocalFleet
from sflam.link.contract import Contract
from sflam.serve.round_planner import RoundPart


class Parts:
    """The parts of devices.

    Args:
        local: the job's simulated fleet.
        contracts: what was agreed with each device; the round's, so it changes between rounds.
    """

    def __init__(self, local: LocalFleet, contracts: Mapping[int, Contract]) -> None:
        self.local, self.contracts = local, contracts

    def shares(
        self, round: int, devices: Sequence[int], known: Mapping[int, int]
    ) -> dict[int, tuple[int, ...]]:
        """Return device -> its rows in each step, from the samples that devices reported; empty where each draws."""
        counts = {device: known[device] for device in devices}
        drawn = drawn_rows(self.local.learn, self.local.sampling, counts, self.local.seed, round)
        return {device: tuple(own.tolist()) for device, own in drawn.items()}

    def steps(self, device: int, samples: int, shares: Mapping[int, Sequence[int]]) -> list[int]:
        """Return the numbers of the steps in which a device has rows."""
        if device in shares:
            return [step for step, rows in enumerate(shares[device]) if rows]
        return list(range(self.contracts[device].steps(samples)))

    def of(self, round: int, devices: Sequence[int], known: Mapping[int, int]) -> dict[int, RoundPart]:
        """Return device -> its part, as the planner counts it."""
        learn, shares = self.local.learn, self.shares(round, devices, known)
        parts = {}
        for device in devices:
            samples, contract = known[device], self.contracts[device]
            rows = sum(shares[device]) if shares else 0
            if not shares:
                rows = rows_of_round(samples, learn.batch, learn.local_steps, learn.local_epochs)
            exchanges = contract.legs * len(self.steps(device, samples, shares))
            parts[device] = RoundPart(
                rows=rows, exchanges=exchanges, bits=(contract.bits, contract.bits_down)
            )
        return parts
