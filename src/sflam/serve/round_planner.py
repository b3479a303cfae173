"""The planner behind a served fleet: what the next round is given, and expected to take, from the rounds before it.

``fleet.plan = "measured"`` lets it choose, every ``plan.every`` rounds; otherwise it only expects. What it chose is on
disk before the round opens, so that a server that dies goes on with the same plan.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from sflam.config import Job
from sflam.errors import AllocationError, ServeError
from sflam.files import from_json, replace_file, writing
from sflam.planner.served import MOST_RATE, MeasuredRound, Rates, ServedPlan, plan_served, too_late
from sflam.planner.served_rates import rates_of
from sflam.records.history import RoundRecord
from sflam.records.served_round import PHASES, Prediction
from sflam.run.follow_plan import MEASURED
from sflam.serve.probes import SHORT, SIZE, LinkProbe
from sflam.sizes import MAX_BITS, MIN_BITS
from sflam.workload import Workload

PROBED_AGAIN = 2.0
"""Seconds between two probes of a device; devices make none sooner than after half of that."""


@dataclass(frozen=True, kw_only=True)
class RoundPart:
    """A device's part of a round.

    Attributes:
        rows: samples.
        exchanges: bodies of its steps.
        bits: per value up and down, as they are in force.
    """

    rows: int
    exchanges: int
    bits: tuple[int, int]


@dataclass(frozen=True, kw_only=True)
class RoundChoice:
    """What a plan chose.

    Attributes:
        planned: the round it was made for.
        bits: device -> per value up and down.
        rate: device -> bit/s to send with.
        dropped: devices that cannot keep ``plan.deadline``.
        gap: certified distance from the best; None without a bound.
    """

    planned: int
    bits: dict[int, tuple[int, int]]
    rate: dict[int, float]
    dropped: tuple[int, ...] = ()
    gap: float | None = None

    def covers(self, devices: Collection[int]) -> bool:
        """Whether it is of all these devices."""
        return set(devices) <= self.bits.keys() | set(self.dropped)


class RoundPlanner:
    """Plans served rounds.

    Args:
        job: its ``[plan]``, ``[quant]`` and ``[network]``.
        workload: what a mini-batch costs.
        own: what it costs each device of the fleet, where ranks or tuned blocks differ; else empty.
        cuts: of each device of the fleet.
        file: where the plan in force is kept; None keeps none.
        prior: device -> what is known before the first round, as from a calibrated network.
        together: whether devices wait for each other at every step, so that the least wait is the server's own.
        clock: seconds, as :func:`time.monotonic`.
    """

    def __init__(
        self,
        job: Job,
        workload: Workload,
        own: Sequence[Workload],
        cuts: Sequence[int],
        file: Path | None = None,
        prior: Mapping[int, Rates] | None = None,
        *,
        together: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.job, self.workload, self.own, self.cuts = job, workload, tuple(own), tuple(cuts)
        self.file, self.together, self.clock = file, together, clock
        self._probed: dict[int, float] = {}
        """Device -> when a probe was last asked of it."""
        self.chooses = job.fleet.plan == MEASURED
        self.shared = job.network.access == "airtime"
        self.paces = self.chooses and job.plan.pace
        late = self.chooses and job.plan.deadline and job.plan.late == "drop"
        self.limit = job.plan.deadline if late else math.inf
        """s at which a round that has its quorum ends."""
        self.prior = dict(prior or {})
        self.measured: dict[int, Rates] = {}
        self.in_force = self._read() if self.chooses else None

    @property
    def known(self) -> dict[int, Rates]:
        """Device -> what is known of it: what was measured last, or what was known before."""
        return self.prior | self.measured

    def probes(self, devices: Collection[int]) -> dict[int, int]:
        """Return device -> bytes of a probe, of those whose ways are to be measured before a plan.

        Those are devices of which nothing is known, those that the last plan left out, and with ``plan.probe`` all.
        """
        if not self.chooses:
            return {}
        now, known = self.clock(), self.known
        out = self.in_force.dropped if self.in_force else ()
        again = set(devices) if self.job.plan.probe else set(out)
        found = {
            device: SHORT if device in known else SIZE
            for device in sorted(devices)
            if (device not in known or device in again)
            and now - self._probed.get(device, -math.inf) >= PROBED_AGAIN
        }
        self._probed |= dict.fromkeys(found, now)
        return found

    def probed(self, found: Mapping[int, LinkProbe]) -> None:
        """Note what probes found."""
        for device, probe in found.items():
            up, down = (
                min(8 * probe.size / seconds, MOST_RATE) if seconds > 0 else MOST_RATE
                for seconds in (probe.link_s if self.shared else probe.up_s, probe.down_s)
            )
            before = self.known.get(device, Rates(up=up, whole=False))
            self.measured[device] = replace(before, up=up, down=down)

    def learn(self, record: RoundRecord) -> None:
        """Note what a round took."""
        self.measured |= rates_of(record, shared=self.shared)

    def moved(self, devices: Collection[int], cuts: Sequence[int]) -> None:
        """Note the cuts of the fleet, others than before for ``devices``: how they computed is of no use any more."""
        self.cuts = tuple(cuts)
        for device in devices:
            self.measured.pop(device, None)
            self.prior.pop(device, None)

    def decide(self, round: int, shares: Mapping[int, RoundPart]) -> RoundChoice | None:
        """Return the plan of a round: the one in force, or a new one where that is due; None where nothing is chosen.

        Args:
            round: its number.
            shares: device -> its part, of those that are to take part.

        Raises:
            ServeError: no plan keeps ``plan.deadline``, or the plan cannot be kept.
        """
        if not self.chooses:
            return None
        now, every = self.in_force, self.job.plan.every
        due = now is None or now.planned > round or (bool(every) and round - now.planned >= every)
        if now is None or due or not now.covers(shares):
            self.in_force = self._chosen(round, shares)
            self._write(self.in_force)
        return self.in_force

    def expected(self, round: int, shares: Mapping[int, RoundPart]) -> Prediction | None:
        """Return what a round is expected to take; None while not all of its devices are known.

        Args:
            round: its number.
            shares: device -> its part, with the bits that it is given.
        """
        known = self.known
        if not shares or not all(device in known and known[device].whole for device in shares):
            return None
        try:
            found = plan_served(self._served(shares), choose=False)
        except AllocationError:  # bits of before, which keep no deadline any more
            return None
        choice = self.in_force
        phases = {name: tuple(getattr(found, name).tolist()) for name in PHASES}
        return Prediction(
            source="measured" if shares.keys() <= self.measured.keys() else "network",
            seconds=found.seconds,
            **phases,
            rate_mbps=tuple((found.rate / 1e6).tolist()),
            rounds=found.rounds,
            gap=choice.gap if choice else None,
            planned=choice.planned if choice else round,
            dropped=choice.dropped if choice else (),
        )

    def _chosen(self, round: int, shares: Mapping[int, RoundPart]) -> RoundChoice:
        """Return a new plan of the devices whose ways are known; the others keep the job's bits."""
        plain = {device: self._plain for device in shares}
        left = {device: share for device, share in shares.items() if device in self.known}
        dropped: list[int] = []
        found: ServedPlan | None = None
        drops = self.job.plan.late == "drop"
        while left:
            served = self._served(left)
            late = [sorted(left)[place] for place in too_late(served)]
            if late and drops:
                dropped += late
                left = {device: share for device, share in left.items() if device not in late}
                continue
            try:
                found = plan_served(served)
                break
            except AllocationError as error:
                if not drops or len(left) == 1:
                    raise ServeError(f"round {round + 1}: {error}") from error
                slowest = plan_served(replace(served, job=_unlimited(served.job)), choose=False)
                worst = sorted(left)[int(np.argmax(slowest.finish))]
                dropped.append(worst)
                del left[worst]
        if len(dropped) == len(shares):
            raise ServeError(
                f"round {round + 1}: no device keeps plan.deadline = {self.job.plan.deadline:g} s; raise it, and go on "
                "with sflam serve --resume"
            )
        if found is None:
            return RoundChoice(
                planned=round, bits=_without(plain, dropped), rate={}, dropped=tuple(sorted(dropped))
            )
        devices, wish = sorted(left), self.job.plan.optimize
        for place, device in enumerate(devices):
            up, down = plain[device]
            plain[device] = (
                int(found.bits_up[place]) if "bits" in wish else up,
                int(found.bits_down[place]) if "bits_down" in wish else down,
            )
        return RoundChoice(
            planned=round,
            bits=_without(plain, dropped),
            rate=dict(zip(devices, found.rate.tolist(), strict=True)),
            dropped=tuple(sorted(dropped)),
            gap=found.gap,
        )

    @property
    def _plain(self) -> tuple[int, int]:
        return self.job.quant.bits_up, self.job.quant.bits_down

    def _served(self, shares: Mapping[int, RoundPart]) -> MeasuredRound:
        """Return the round of devices that are known, in their order."""
        devices = sorted(shares)
        every = self.known
        known = [every[device] for device in devices]
        whole = [rates for rates in known if rates.whole]
        if self.together and whole:
            wait = min(rates.wait_s for rates in whole)
            known = [replace(rates, wait_s=wait) for rates in known]
        if whole:  # what a probe leaves open is taken to be as with the others
            middle = {
                name: statistics.median(getattr(rates, name) for rates in whole)
                for name in ("compute_s", "exchange_s", "wait_s")
            }
            known = [rates if rates.whole else replace(rates, **middle) for rates in known]
        return MeasuredRound(
            job=self.job,
            workload=self.workload,
            own=tuple(self.own[device] for device in devices) if self.own else (),
            cuts=np.array([self.cuts[device] for device in devices], np.int64),
            rows=np.array([float(max(shares[device].rows, 1)) for device in devices]),
            exchanges=np.array([float(shares[device].exchanges) for device in devices]),
            rates=tuple(known),
            bits_up=np.array([shares[device].bits[0] for device in devices], np.int64),
            bits_down=np.array([shares[device].bits[1] for device in devices], np.int64),
        )

    def _write(self, choice: RoundChoice) -> None:
        if self.file is not None:
            with writing(self.file, "choose another --out", ServeError):
                replace_file(self.file, json.dumps(asdict(choice)).encode())

    def _read(self) -> RoundChoice | None:
        """Return the plan that was kept; None where there is none that can be read, and a new one is made."""
        if self.file is None or not self.file.is_file():
            return None
        try:
            found = from_json(self.file.read_bytes())
            bits = {int(device): (int(up), int(down)) for device, (up, down) in found["bits"].items()}
            if not all(MIN_BITS <= width <= MAX_BITS for pair in bits.values() for width in pair):
                return None
            return RoundChoice(
                planned=int(found["planned"]),
                bits=bits,
                rate={int(device): float(rate) for device, rate in found["rate"].items()},
                dropped=tuple(map(int, found["dropped"])),
                gap=None if found["gap"] is None else float(found["gap"]),
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None


def _without(bits: Mapping[int, tuple[int, int]], dropped: Collection[int]) -> dict[int, tuple[int, int]]:
    return {device: pair for device, pair in bits.items() if device not in dropped}


def _unlimited(job: Job) -> Job:
    return replace(job, plan=replace(job.plan, deadline=0.0))
