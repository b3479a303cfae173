"""Split learning as a relay: device after device trains with the one server half, and hands its own half on.

for every round, the devices in an order drawn for it:
    1. the first downloads the device half; every other one is handed it by the device before, over the server
    2. it takes its local steps, exchanging activations and gradients with the server half
    3. what the last one holds, with the server half, is the model
"""

from __future__ import annotations

from collections.abc import Sequence

from sflam.errors import ConfigError
from sflam.learn.adapter_exchange import transfer
from sflam.learn.split_fleet import LocalFleet
from sflam.learn.steps import Average, Steps
from sflam.model.adapters import State
from sflam.plan import Placement
from sflam.seeds import generator


class Relay(LocalFleet):
    """``sl`` in one process; see :class:`sflam.learn.split_fleet.LocalFleet`.

    Raises:
        ConfigError: devices with different cuts, which have no half in common.
    """

    def place(self, placements: Sequence[Placement]) -> None:
        """Follow a plan from now on; all devices have one cut."""
        cuts = {placement.cut for placement in placements}
        if len(cuts) > 1:
            raise ConfigError(
                f"a relay passes one device half on, but cuts are {min(cuts)} to {max(cuts)}; give all devices one cut"
            )
        super().place(placements)

    def turns(self, round: int, devices: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the devices one by one: each has the network to itself when its turn comes."""
        return [(device,) for device in self.order(round, devices)]

    def order(self, round: int, devices: Sequence[int]) -> list[int]:
        """Return the devices of a round in their turns."""
        turns = generator(self.seed, "relay", round).permutation(len(devices))
        return [devices[index] for index in turns]

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start the first device and the server; return the bytes that all devices are sent in their turns."""
        self.seat(devices)
        return super().download(round, self.order(round, devices)[:1], state) * len(devices)

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Run the devices' local steps in their turns."""
        done = Steps()
        order = self.order(round, devices)
        for turn, (before, device) in enumerate(zip([None, *order], order, strict=False)):
            self.devices.turn = self.servers.turn = (turn, len(order))
            if before is not None:
                self._hand_over(round, before, device)
            done.add(super().local_steps(round, [device]))
        return done

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return what the last device and the server hold; every device has sent its half once."""
        last = super().average(round, self.order(round, devices)[-1:], steps)
        return Average(last.state, None, last.bytes_up * len(devices))

    def _hand_over(self, round: int, before: int, device: int) -> None:
        stack = self.devices.segment.stack
        names = self.devices.segment.names(self.devices.cuts[device])
        if names:
            held = stack.read(before)
            stack.write(device, held | transfer(round, before, 0, held, names)[0])
