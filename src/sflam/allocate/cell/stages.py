"""The stages of a problem's round (1.14): what a device computes, sends and receives in each. S stages, K devices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sflam.cost.timing import Lockstep, Stages, StepBits, stages_of
from sflam.cost.traffic import Traffic, steps_down, steps_up
from sflam.network.network import Floats
from sflam.workload import Workload


class Rounds(Protocol):
    """What of a problem decides its stages; see :class:`sflam.allocate.cell.problem.Problem`."""

    @property
    def workload(self) -> Workload: ...
    @property
    def workloads(self) -> Sequence[Workload]: ...
    @property
    def own(self) -> tuple[Workload, ...]: ...
    @property
    def made(self) -> ArrayLike | None: ...
    @property
    def sent(self) -> ArrayLike | None: ...
    @property
    def traffic(self) -> Traffic | None: ...
    @property
    def payload(self) -> Floats: ...
    @property
    def down_bits(self) -> Floats: ...
    @property
    def adapter_bits_up(self) -> Floats: ...
    @property
    def adapter_bits_down(self) -> Floats: ...
    @property
    def averaged_bits(self) -> Floats: ...
    @property
    def stages(self) -> Stages | None: ...
    @property
    def waits(self) -> bool: ...
    def each(self, name: str) -> NDArray[Any]: ...
    def at_cut(self, name: str) -> Floats: ...


def stages_in(problem: Rounds, lockstep: Lockstep) -> Stages:
    """Return the stages of the problem's round."""
    steps = problem.each("local_steps").astype(float)
    made = steps if problem.made is None else problem.each("made")
    work = problem.workload
    below = made * (problem.at_cut("device_forward") - work.head_forward)
    head = steps * (work.head_forward + work.head_backward)
    back = steps * (problem.at_cut("device_backward") - work.head_backward)
    whole = below + head + back
    some = np.where(whole > 0, whole, 1.0)
    return stages_of(
        lockstep,
        _bits(problem, lockstep),
        forward=np.where(whole > 0, below, 1.0) / some,
        head=head / some,
        backward=back / some,
        adapters=problem.traffic is not None,
        exchanges=work.exchanges,
    )


def waits_in(problem: Rounds, stages: Stages, waits: Floats) -> tuple[Floats, Floats]:
    """Return, [S, K] each, the s of waiting in a stage, and the share of a device's sending, adapters included.

    Args:
        problem: whose round it is.
        stages: of the round.
        waits: [K] s that a device waits in a round and no plan changes.
    """
    if problem.traffic is None:
        return stages.down * waits, stages.up
    handed = problem.adapter_bits_up * np.log(2) / problem.payload
    received = problem.down_bits
    fetched = np.divide(problem.adapter_bits_down, received, out=np.zeros(len(waits)), where=received > 0)
    wait = waits * (stages.down * (1 - fetched) + stages.fetch * fetched)
    return wait, stages.up * (1 - handed) + stages.hand * handed


def span(problem: Rounds, waits: Floats, compute: Floats, transmit: Floats) -> float:
    """Return the s of a round whose devices wait, compute and send for so long, [K] each, without T0."""
    if problem.stages is None or not problem.waits:
        return float((waits + compute + transmit).max())
    wait, up = waits_in(problem, problem.stages, waits)
    return problem.stages.total(wait + up * transmit + problem.stages.compute * compute)


def _bits(problem: Rounds, lockstep: Lockstep) -> StepBits:
    """Return what crosses in every step."""
    work, cuts = problem.own or (problem.workload,), problem.each("cut").tolist()
    returns = np.array([problem.workload.returns(cut) for cut in cuts], float)
    again = problem.workload.exchanges - 1
    answers = again + returns
    share = np.divide(again, answers, out=np.zeros(len(cuts)), where=answers > 0)
    averaged = problem.averaged_bits / sum(lockstep.count)
    widths = problem.each("bits")
    if problem.traffic is None:
        shares, steps = lockstep.shares, problem.each("local_steps").astype(float)
        sent = steps if problem.sent is None else problem.each("sent")
        each = list(zip(problem.workloads, cuts, widths.tolist(), strict=True))
        backs = zip(each, problem.each("bits_down").tolist(), strict=True)
        body = np.array([one.activation_bits(width) for one, _, width in each], float)
        more = np.array([one.extra_up for one, _, _ in each], float)
        down = shares * steps * np.array([one.down_bits(cut, width) for (one, cut, _), width in backs], float)
        return StepBits(
            first_up=shares * (sent * body + steps * more),
            second_up=shares * (steps * again * body),
            first_down=down * share,
            second_down=down * (1 - share),
            averaged=averaged,
        )
    once = tuple(replace(one, exchanges=1) for one in work)
    first, whole = (np.array([_up(step, each, widths) for step in lockstep.steps]) for each in (once, work))
    down = np.array([steps_down(step, work, cuts, problem.each("bits_down")) for step in lockstep.steps])
    return StepBits(
        first_up=first,
        second_up=whole - first,
        first_down=down * share,
        second_down=down * (1 - share),
        averaged=averaged,
    )


def _up(step: Traffic, work: Sequence[Workload], widths: NDArray[Any]) -> Floats:
    """Return the bits [K] of a step's bodies on the way up, at every device's own width."""
    found = np.zeros(len(widths))
    for width in np.unique(widths).tolist():
        found = np.where(widths == width, steps_up(step, work, width), found)
    return found
