"""A fleet in one process whose server learns the sum of what the devices trained before the cut, and no device's part.

    1. each device puts the change of its adapters on the round's grid, and counts its codes by its weight
    2. the whole numbers are summed under pairwise masks (:mod:`sflam.secure`); weights and marks of reach with them
    3. the mean change moves the adapters of the round's beginning; what was marked sets the next round's grids

The copies of the server's half that learn for each device are the server's own, and averaged as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sflam.codec.quantizer import Words
from sflam.codec.summed_change import Numbers, counted_change, mean_change, next_reach
from sflam.data.batches import rows_of_round
from sflam.errors import SecureSumError
from sflam.learn.adapter_exchange import flatten, unflatten
from sflam.learn.attendance import AttendedFleet
from sflam.learn.secure_width import most_weight, secure_width
from sflam.learn.selection import Chances, chances_of
from sflam.learn.settings import LearnSettings
from sflam.learn.steps import Average, Steps
from sflam.learn.weighting import counted
from sflam.model.adapters import State
from sflam.privacy.settings import PrivacySettings
from sflam.records.secured import SecureRound
from sflam.secure.graph import threshold
from sflam.secure.in_process import SecureSum, sum_in_process
from sflam.secure.installed import expect_installed
from sflam.secure.ring import weighted
from sflam.sizes import ADAPTER_GROUP, SUM_MARKS, adapter_groups

Summing = Callable[[Mapping[int, Numbers], int, bytes], SecureSum]
"""Returns the sum of devices' numbers of so many bytes, for what it is."""


def first_reach(learn: LearnSettings, samples: Sequence[int]) -> float:
    """Return how far a number may move in the first round: the rate of every step, times the clip of ``sgd``."""
    rows = max(rows_of_round(n, learn.batch, learn.local_steps, learn.local_epochs) for n in samples)
    steps = learn.local_steps or max(1, -(-rows // learn.batch))
    return learn.practice.lr * steps * (learn.clip or 1.0 if learn.optimizer == "sgd" else 1.0)


class SecureFleet(AttendedFleet):
    """Devices and server in one process, with masks between them; see :class:`sflam.learn.split_fleet.LocalFleet`.

    Args:
        privacy: its threshold.

    Attributes:
        sums: how the devices' numbers are summed.
        width: bytes of a masked number.
        count: P, the adapters of a device.

    Raises:
        SecureSumError: no modulus holds the sums, the devices train nothing, or the library is missing.
    """

    def __init__(self, *args: Any, privacy: PrivacySettings, **options: Any) -> None:
        expect_installed()
        super().__init__(*args, **options)
        self.share = privacy.secure_threshold
        self.names = self.devices.names(0)
        if not self.names:
            raise SecureSumError(
                "privacy.secure_aggregation = true, but devices train nothing before the cut; "
                "cut later, or set it to false"
            )
        self.sums: Summing = partial(sum_in_process, share=self.share, seed=self.seed)
        self.count = self.devices.segment.stack.size(self.names)
        self._most = self.width = 0
        self.adapters.reach = dict.fromkeys(self.names, 0.0)
        self.agree([len(part) for part in self.parts])

    def agree(self, samples: Sequence[int], begun: bool = False) -> None:
        """Agree on numbers that hold any sum of devices of ``samples``, and on a first reach before any round was done.

        Raises:
            SecureSumError: no number does.
        """
        self._most = most_weight(self.learn, self.settings.asked, samples)
        self.width = secure_width(self.learn, self.adapters.bits, self.settings.asked, samples)
        if not begun:
            far = first_reach(self.learn, samples)
            self.adapters.reach = {name: max(far, own) for name, own in self.adapters.reach.items()}

    @property
    def notes(self) -> tuple[str, ...]:
        """What the sums cover."""
        where = (
            "the one copy of its half"
            if self.learn.practice.shared
            else "its own copies of its half, one a device"
        )
        return (
            "privacy.secure_aggregation: the server learns the sum of what devices trained before the cut, and "
            f"no one's; it knows {where}, and activations, as ever",
        )

    def averaged_over(
        self, round: int, devices: Sequence[int], steps: Steps, rows: Mapping[int, tuple[Tensor, Tensor]]
    ) -> Average:
        """Return the average of a round, of the devices' halves by their sum alone."""
        held = {device: len(self.parts[device]) for device in devices}
        samples = {device: steps.samples[device] for device in devices}
        weights = self.weights(samples, held)
        start, side = self._grid(self._start)
        own = {
            device: self._numbers(round, device, weights[device], rows[device][0], start, side)
            for device in devices
        }
        found = self.sums(own, self.width, b"sflam seed %d round %d" % (self.seed, round))
        self.expect_sound(found, weights)
        states = {d: self.servers.named(d, self.devices.cuts[d], rows[d][1]) for d in found.devices}
        chance = chances_of(self.settings, self.counted_samples(round))
        return self.averaged_by(found, self._start, states, samples, held, chance)

    def weights(self, samples: Mapping[int, int], held: Mapping[int, int]) -> dict[int, int]:
        """Return device -> what it counts in a sum, of its rows of a round and its samples."""
        counts = counted(self.learn, self.sampling, samples, held)
        return {device: int(count) for device, count in zip(samples, counts, strict=True)}

    def averaged_by(
        self,
        found: SecureSum,
        begun: State,
        states: Mapping[int, State],
        samples: Mapping[int, int],
        held: Mapping[int, int],
        chance: Chances,
    ) -> Average:
        """Return the average of a round by a sum.

        Args:
            found: the sum, sound.
            begun: the global adapters of the round's beginning.
            states: device -> what the server's half learnt for it, of those in the sum.
            samples: device -> rows of the round.
            held: device -> n_k.
            chance: p_k.
        """
        mean = self._mean(found, begun)

        def average(those: Sequence[State], by: Sequence[float]) -> State:
            return self.servers.average(tuple(states), those, by) | mean

        averaged = self.averaging(begun, states, samples, held, chance, average)
        return Average(
            averaged.state,
            None,
            sum(found.sent.values()),
            bytes_down=sum(found.received.values()),
            secured=SecureRound(
                devices=found.devices,
                bits=8 * self.width,
                neighbours=found.neighbours,
                threshold=threshold(self.share, 1 + found.neighbours),
            ),
        )

    def _numbers(self, round: int, device: int, weight: int, row: Tensor, start: Any, side: Words) -> Numbers:
        """Return what a device adds to the sum: its codes and weight, and how far its groups went."""
        own = flatten(self.devices.segment.stack.named(row), self.names).cpu().numpy()
        at = {"seed": self.seed, "round": round, "device": device}
        codes, marks = counted_change(own, start, side, self.adapters.bits, **at)
        return weighted(codes, weight, self.width, marks)

    def expect_sound(self, found: SecureSum, weights: Mapping[int, int]) -> None:
        """Raise SecureSumError where a sum is not one of such numbers as devices of these ``weights`` have."""
        total, count = int(found.total[-1]), self.count
        wanted = sum(weights[device] for device in found.devices)
        if total != wanted or total > self._most:
            raise SecureSumError(
                f"the weights of a secure sum add up to {total}; {wanted} were agreed, and at most {self._most}"
            )
        largest = int(found.total[:count].max(initial=0))
        if largest > (most := ((1 << self.adapters.bits) - 1) * total):
            raise SecureSumError(
                f"a number of a secure sum is {largest}, and codes of {self.adapters.bits} bits add up to {most} at "
                "most: a device added others; begin the round anew, and revoke devices that are not sound"
            )

    def _grid(self, begun: State) -> tuple[Any, Words]:
        """Return the adapters before the cut [P] that a round begins from, and its grids [G, 2]."""
        side = self.adapters.side(begun, self.names)
        assert side is not None, "run.compatibility refuses other grids"
        return flatten(begun, self.names).cpu().numpy(), side

    def _mean(self, found: SecureSum, begun: State) -> State:
        """Return the averaged adapters before the cut, and set the next round's grids."""
        start, side = self._grid(begun)
        count, bits, total = len(start), self.adapters.bits, int(found.total[-1])
        marks = found.total[count : count + SUM_MARKS * adapter_groups(count)]
        reach = np.repeat(next_reach(marks, side, bits), ADAPTER_GROUP)[:count]
        change = mean_change(found.total[:count].astype(np.int64), total, side, bits)
        like = {name: begun[name] for name in self.names}
        values = torch.from_numpy((start.astype(np.float64) + change).astype(start.dtype))
        for name, own in unflatten(torch.from_numpy(reach), like, self.names).items():
            self.adapters.reach[name] = float(own.max())
        return {name: tensor.to(like[name]) for name, tensor in unflatten(values, like, self.names).items()}
