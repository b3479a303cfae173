"""Lines under the table of a run: the share of evaluation; of a simulated one, what the planner counted with and took,
and what batteries hold."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from sflam.records.buffer import Buffer
from sflam.records.charge import Calibration, Charge, RoundClose
from sflam.records.history import RoundRecord
from sflam.records.served_round import ServedRound, errors
from sflam.report.totals import duration, percent
from sflam.units import human_bytes, human_si


def loop_lines(records: Sequence[RoundRecord]) -> Iterator[str]:
    """Yield a line each on evaluation, chi and bits, calibration, batteries and planning, where there is any."""
    if evaluating := evaluating_share(records):
        yield f"evaluation took {percent(evaluating)} of this machine's time"
    if served := [record.measured for record in records if record.measured is not None]:
        yield from _served(served)
    yield from _buffered(
        [each.buffer for one in records if (each := one.measured or one.charge) and each.buffer]
    )
    charges = [record.charge for record in records if record.charge is not None]
    if not charges:
        return
    yield from _bits(charges)
    if any(charge.calibration for charge in charges):
        yield _calibration(charges)
    if charges[-1].battery_j:
        yield _batteries(charges[-1].battery_j)
    yield from _broken(charges)
    yield from _left_out([charge.close for charge in charges if charge.close])
    measuring = sum(record.measuring_s for record in records)
    share = f"planning took {percent(planning_share(records))} of this machine's time"
    whole = sum(record.seconds for record in records)
    yield f"{share}, measuring {percent(measuring / whole)}" if measuring and whole else share


def _served(rounds: Sequence[ServedRound]) -> Iterator[str]:
    """Yield how far what was expected of served rounds was from what they took."""
    if off := [abs(error) for error in errors(rounds)]:
        yield (
            f"served rounds took {percent(statistics.median(off))} more or less than was expected of them (median of "
            f"{len(off)})"
        )


def _buffered(buffers: Sequence[Buffer]) -> Iterator[str]:
    """Yield how far behind the updates of buffered rounds were."""
    if behind := [tau for buffer in buffers for tau in buffer.staleness]:
        thrown = sum(len(buffer.refused) for buffer in buffers)
        yield (
            f"{len(behind)} updates were {statistics.mean(behind):.2g} versions behind on average, {max(behind)} at "
            "most" + (f"; {thrown} further behind were thrown away" if thrown else "")
        )


def planning_share(records: Sequence[RoundRecord]) -> float:
    """Return the share of the host's time in rounds that the planner took, in [0, 1]."""
    whole = sum(record.seconds for record in records)
    return sum(record.planning_s for record in records) / whole if whole else 0.0


def evaluating_share(records: Sequence[RoundRecord]) -> float:
    """Return the share of the host's time in rounds that evaluation took, in [0, 1]."""
    whole = sum(record.seconds for record in records)
    return sum(record.evaluating_s for record in records) / whole if whole else 0.0


def both_times(records: Sequence[RoundRecord]) -> tuple[float | None, float | None]:
    """Return the s of all rounds without aggregation, as modelled and as calibrated; None where none was calibrated."""
    pairs = [
        (record.charge.calibration.modelled_s, record.charge.charged_s)
        for record in records
        if record.charge is not None and record.charge.calibration is not None
    ]
    if not pairs:
        return None, None
    modelled, calibrated = (math.fsum(each) for each in zip(*pairs, strict=True))
    return modelled, calibrated


def _bits(charges: Sequence[Charge]) -> Iterator[str]:
    """Yield chi and what was chosen for it; nothing where bits are not chosen and nothing is measured."""
    last = charges[-1]
    if not last.sensitivity:
        return
    bits = [width for charge in charges for width in charge.bits_up]
    chosen = f"bits up {min(bits)} to {max(bits)}, mean {statistics.mean(bits):.1f}"
    if not last.sensitivity_error:
        yield f"chi {last.sensitivity[0]:.3g} a device, as set; {chosen}"
        return
    first = charges[0]
    now, then = (
        f"{math.fsum(item.sensitivity):.2g} +- {math.hypot(*item.sensitivity_error):.1g}"
        for item in (last, first)
    )
    if last.bits_floor:
        asked = [width for charge in charges for width in charge.bits_floor]
        chosen += f", at least {min(asked)} to {max(asked)} for the bias of gradients"
    yield f"chi of all devices, measured: {then} in the first round, {now} in the last (95 %); {chosen}"


def _calibration(charges: Sequence[Charge]) -> str:
    """Return measured numbers beside modelled ones, over all rounds."""
    pairs = [(charge, charge.calibration) for charge in charges if charge.calibration]
    found = [calibration for _, calibration in pairs]

    def mean(name: str) -> str:
        return human_si(statistics.mean(getattr(item, name) for item in found), "s")

    up, modelled_up = (_sum(found, name) / 8 for name in ("up_bits", "modelled_up_bits"))
    took = math.fsum(charge.charged_s for charge, _ in pairs)
    joules = math.fsum(charge.charged_j for charge, _ in pairs)
    return (
        f"measured here (modelled): a mini-batch {mean('device_s')} ({mean('modelled_device_s')}) on the fastest "
        f"device, {mean('server_s')} ({mean('modelled_server_s')}) at the server; {human_bytes(up)} up "
        f"({human_bytes(modelled_up)}); rounds {duration(took)} ({duration(_sum(found, 'modelled_s'))}) and "
        f"{human_si(joules, 'J')} ({human_si(_sum(found, 'modelled_j'), 'J')}); virtual time depends on this machine"
    )


def _sum(found: Sequence[Calibration], name: str) -> float:
    return math.fsum(getattr(item, name) for item in found)


def _broken(charges: Sequence[Charge]) -> Iterator[str]:
    """Yield by how much rounds broke their limits, as those may whose plan is older than their channel."""
    late = [charge.late_s for charge in charges if charge.late_s]
    beyond = [max(charge.beyond_j) for charge in charges if charge.beyond_j]
    if late:
        yield f"{len(late)} rounds were longer than plan.deadline, by {human_si(max(late), 's')} at most"
    if beyond:
        yield f"{len(beyond)} rounds broke caps on energy, by {human_si(max(beyond), 'J')} a device at most"


def _left_out(closes: Sequence[RoundClose]) -> Iterator[str]:
    """Yield how many parts in rounds were begun for nothing, and what they cost."""
    failed, late = (sum(len(getattr(close, name)) for close in closes) for name in ("failed", "late"))
    if failed or late:
        spent = math.fsum(joules for close in closes for joules in close.spent_j)
        yield (
            f"{failed} times a device failed or left within a round, {late} times one was late: "
            f"{human_si(spent, 'J')} spent for nothing"
        )
    if lost := sum(close.openings - 1 for close in closes):
        yield f"{lost} rounds were opened once more, {human_si(sum(close.lost_s for close in closes), 's')} were lost"
    if waited := sum(close.waited_s for close in closes):
        yield f"{human_si(waited, 's')} passed until enough devices were there"


def _batteries(left: Sequence[float]) -> str:
    empty = [device for device, joules in enumerate(left) if joules <= 0]
    named = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
    text = f"batteries hold {human_si(min(left), 'J')} to {human_si(max(left), 'J')} at the end"
    return f"{text}; device {named} empty" if empty else text
