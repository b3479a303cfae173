"""A fleet of real devices of which the server learns the sum of what they trained before the cut, and no one's part.

A device delivers by its public keys. Once the steps are over, the sum is made of those who delivered and whose part of
the server's half is sound; the devices that are in it count, on both sides of the cut. Where no sum can be made, the
round is opened once more, as with too few deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sflam.errors import SecureSumError, WireError
from sflam.learn.secure_fleet import SecureFleet
from sflam.learn.selection import chances_of
from sflam.learn.steps import Average, Steps
from sflam.secure.in_process import SecureSum
from sflam.secure.messages import PHASES, context_of
from sflam.secure.server_side import SummingServer
from sflam.serve.fleet import RemoteFleet
from sflam.serve.sums.open_sum import OpenSum, Sums
from sflam.sizes import summed_numbers


class SummedFleet(RemoteFleet):
    """Devices over a network, with masks between them; see :class:`sflam.serve.fleet.RemoteFleet`.

    Args:
        secure: the same job's fleet in one process.
        sums: where their messages arrive.
        run: name of the run, as devices know it.
    """

    def __init__(self, secure: SecureFleet, *args: Any, sums: Sums, run: str, **options: Any) -> None:
        super().__init__(secure, *args, **options)
        self.secure, self.sums, self.run = secure, sums, run
        self._sum: SecureSum | None = None

    def opening(self, round: int, attempt: int, known: Mapping[int, int]) -> None:
        """Agree on the numbers of the sum, before any device fetches what the round begins with."""
        self.secure.agree(list(known.values()), begun=round > 0)
        context = context_of(self.run, round, attempt)
        count, share = summed_numbers(self.secure.count), self.secure.share
        server = SummingServer(context, share, count, self.secure.width, seed=self.secure.seed)
        with self.dispatch.locked():
            self.sums.begin(OpenSum(round, attempt, server))

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Serve a round, its sum included; those who wait for a sum that cannot be any more are refused."""
        try:
            return super().local_steps(round, devices)
        except BaseException:
            with self.dispatch.locked():
                self.sums.end_off("the round is over; ask for the next")
            raise

    def settle(self, round: int, attempt: int, samples: Mapping[int, int]) -> str:
        """Make the sum, and leave those in it; return why there is none, "" where there is one."""
        with self.dispatch.locked():
            one = self.sums.at(round, attempt)
        began = set(self._states)
        weights = self.secure.weights({device: samples[device] for device in sorted(began)}, self._held)
        try:
            found = self._made(one)
            self.secure.expect_sound(found, weights)
        except (SecureSumError, WireError) as error:
            with self.dispatch.locked():
                one.end_off(f"this round has no secure sum ({error})")
            return f"no secure sum was made: {error}"
        finally:
            self.dispatch.doing = ""
        self._sum, self._states = found, {device: self._states[device] for device in found.devices}
        lost = sorted(began - set(found.devices))
        if found.wrong:
            wrong = ", ".join(map(str, found.wrong))
            self.notify(f"round {round + 1}: devices {wrong} sent wrong shares; those of the others sufficed")
        self.event_log(
            "summed",
            round=round,
            attempt=attempt,
            devices=list(found.devices),
            lost=lost or None,
            wrong=list(found.wrong) or None,
        )
        return ""

    def _made(self, one: OpenSum) -> SecureSum:
        """Run the phases after the first; each ends when all came, or had their time.

        Raises:
            SecureSumError: too few devices are left, or shares are wrong.
        """
        dispatch, patience = self.dispatch, self.dispatch.session.patience
        with dispatch.locked():
            one.introduce(self._states, dispatch.clock())
        for phase in PHASES[1:]:
            dispatch.doing = f"summing, {phase}"
            dispatch.wait_until(
                lambda: one.done(dispatch.clock(), dispatch.session.present(dispatch.clock()), patience)
            )
            self.expect_running()
            if phase != PHASES[-1]:
                with dispatch.locked():
                    one.end(dispatch.clock())
        return one.total()

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the average over the devices in the sum."""
        assert self._sum is not None, "a round without a sum is not averaged"
        chance = chances_of(self.settings, self._held)
        return self.secure.averaged_by(
            self._sum, self.start.state, self._states, steps.samples, self._held, chance
        )
