"""One optimiser per side; every device is a parameter of its own, so a device without a gradient is not updated.

Where the rate follows a schedule it is set before every step, from nothing but where the step is in the run.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from sflam.learn.local.rule import LocalRule
from sflam.learn.moments import Moments, PagedMoments, RowState
from sflam.learn.precision import draws_dropout
from sflam.learn.settings import LearnSettings
from sflam.learn.settings.schedule import Moment, rate
from sflam.model.adapters import State
from sflam.model.segment import Segment

S = TypeVar("S", bound=Segment)


def optimizer(
    settings: LearnSettings, rows: Sequence[Tensor], *, apart: bool = False
) -> torch.optim.Optimizer:
    """Return the optimiser of ``learn.optimizer`` over one leaf per device, each with its own rate where ``apart``.

    Never a fused one: a fused step would move rows whose ``grad`` is None by their old momentum.
    """
    common: dict[str, Any] = {
        "lr": settings.practice.lr,
        "weight_decay": settings.weight_decay,
        "foreach": rows[0].is_cuda,
        "fused": False,
    }
    groups: Any = [{"params": [row]} for row in rows] if apart else rows
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, **common)
    kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, **common)


def set_rate(optimizer: torch.optim.Optimizer, settings: LearnSettings, moment: Moment) -> None:
    """Give all that an optimiser moves the rate of a step."""
    if settings.scheduled:
        for group in optimizer.param_groups:
            group["lr"] = rate(settings, moment)


def step_rows(optimizer: torch.optim.Optimizer, rows: Sequence[int]) -> None:
    """Take a step of an optimiser of :func:`optimizer` that looks at ``rows`` alone: the others have no gradient."""
    groups = optimizer.param_groups
    if len(groups) > 1:
        optimizer.param_groups = [groups[row] for row in rows]
    else:
        (every,) = groups
        optimizer.param_groups = [every | {"params": [every["params"][row] for row in rows]}]
    try:
        optimizer.step()
    finally:
        optimizer.param_groups = groups


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, RowState]:
    """Return momenta and step counts, keyed by row, for a checkpoint."""
    return {str(row): dict(values) for row, values in optimizer.state_dict()["state"].items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, RowState]) -> None:
    """Put back what :func:`optimizer_state` returned."""
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict(
        {"state": {int(row): values for row, values in state.items()}, "param_groups": groups}
    )


class Side(Generic[S]):
    """One side of the cut: its segment, its settings, and its optimiser from round to round."""

    def __init__(self, segment: S, settings: LearnSettings, *, alike: bool = False) -> None:
        """Build the side; ``alike`` gives all rows the rate of the device with most steps in the round."""
        self.segment: S = segment.train()
        self.settings = settings
        self.random = draws_dropout(segment)
        # With a number of steps common to all, all are at the same place in the run.
        apart = settings.scheduled and not (settings.local_steps or alike)
        self.optimizer = optimizer(settings, segment.stack.rows, apart=apart)
        self.turn = (0, 1)
        """Which of how many turns of a round this is, where devices take turns."""
        self.rule = LocalRule(settings, {})
        self.moments = Moments()
        """What is remembered of rows without a seat, where ``learn.state`` keeps it."""
        self._changed: set[int] = set()
        self._amended: Mapping[int, tuple[int, Sequence[str]]] = {}

    def follow(self, rule: LocalRule, amended: Mapping[int, tuple[int, Sequence[str]]]) -> None:
        """Let a rule act here.

        Args:
            rule: for the devices' own learning.
            amended: row -> its device, and the names that it trains; a row that is not listed is no device's own.
        """
        self.rule, self._amended = rule, amended if rule.acts else {}

    def open(self) -> None:
        """Begin a round."""
        if self.settings.practice.state == "reset":
            self.optimizer.state.clear()

    def open_one(self, device: int, state: State) -> None:
        """Begin a round of one device from the global adapters ``state``; the others are in the middle of theirs."""
        stack, row = self.segment.stack, self.copy_of(device)
        if self.settings.practice.state == "reset":
            self.optimizer.state.pop(stack.rows[stack.place(row)], None)
        stack.write(row, state)

    def seat(self, devices: Collection[int]) -> None:
        """Let the copies of ``devices`` be those that have trained numbers; what others remember is put away."""
        stack, rows = self.segment.stack, {self.copy_of(device) for device in devices}
        if stack.has(rows):
            return
        keeps = self.settings.practice.state == "keep"
        for row, own in self._here().items() if keeps else ():
            self.moments.give(row, own, changed=row in self._changed)
        self._changed.clear()
        self.optimizer.state.clear()
        stack.seat(rows)
        if keeps:
            self._fetch()

    def keep_in(self, path: Path, kept: int) -> None:
        """Keep what is remembered of absent rows in a file, where rows can be absent; see :class:`PagedMoments`."""
        if self.settings.practice.state == "keep" and self.segment.stack.absent:
            self.moments = PagedMoments(path, kept)

    def _here(self) -> dict[int, RowState]:
        """Return what the optimiser remembers of each row that has a seat, as far as that is anything."""
        rows, held = self.segment.stack.rows, self.optimizer.state
        found = {row: held.get(rows[place], {}) for row, place in self.segment.stack.seated.items()}
        known = {row: {n: v for n, v in own.items() if v is not None} for row, own in found.items()}
        return {row: own for row, own in known.items() if own}

    def _fetch(self) -> None:
        """Give the optimiser what is remembered of the rows that have seats."""
        for row, place in self.segment.stack.seated.items():
            if own := self.moments.take(row):
                self._remember(place, own)

    def _remember(self, place: int, own: RowState) -> None:
        leaf = self.segment.stack.rows[place]
        # Step counts stay where they are, as in load_state_dict.
        self.optimizer.state[leaf] = {n: v.to(leaf) if v.ndim else v for n, v in own.items()}

    def lent(self, rows: Collection[int]) -> dict[int, RowState]:
        """Give away what is remembered of ``rows``, for :meth:`take_back` here or at another rank."""
        found: dict[int, RowState] = {}
        here, keeps = self._here(), self.settings.practice.state == "keep"
        for row in rows if keeps else ():
            if row in here:
                found[row] = here[row]
                del self.optimizer.state[self.segment.stack.rows[self.segment.stack.place(row)]]
            elif own := self.moments.take(row):
                found[row] = own
        return found

    def take_back(self, memory: Mapping[int, RowState], *, changed: bool) -> None:
        """Remember what :meth:`lent` gave away, ``changed`` since by steps or not."""
        seated = self.segment.stack.seated
        for row, own in memory.items():
            if row in seated:
                self._remember(seated[row], own)
                self._changed.update([row] if changed else [])
            else:
                self.moments.give(row, own, changed=changed)

    def forget(self) -> None:
        """Remember nothing of any row."""
        self.optimizer.state.clear()
        self.moments = Moments()
        self._changed.clear()

    def copy_of(self, device: int) -> int:
        """Return the row of the stack that is of ``device``."""
        return device

    def pace(self, moments: Mapping[int, Moment]) -> None:
        """Set the rate of the step that comes: device -> where it is in the run.

        A copy that serves several devices, and copies that are kept alike, go by the one with most steps in the round.
        """
        if not self.settings.scheduled:
            return
        turn, turns = self.turn
        groups = self.optimizer.param_groups
        for device, moment in sorted(moments.items(), key=lambda pair: pair[1].steps):
            group = groups[self.segment.stack.place(self.copy_of(device)) if len(groups) > 1 else 0]
            group["lr"] = rate(self.settings, replace(moment, turn=turn, turns=turns))

    def update(self) -> None:
        """Take one optimiser step."""
        stack = self.segment.stack
        for row in stack.active if self._amended else ():
            if row in self._amended:
                device, names = self._amended[row]
                values, gradients = stack.numbers(row, names), stack.gradient(row)
                self.rule.amend(device, values, {name: gradients[name] for name in names})
        stack.hand_out(self.settings.clip)
        step_rows(self.optimizer, stack.moving)
        self._changed.update(stack.active)

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash between rounds."""
        found = self.moments.state(self._here(), self._changed)
        self._changed.clear()
        return found

    def restore(self, state: Mapping[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self._changed.clear()
        self.optimizer.state.clear()
        self.moments.restore(state)
        self._fetch()
