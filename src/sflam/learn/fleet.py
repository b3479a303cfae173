"""The one seam between the round loop and how devices are reached; a fleet may wrap another and keeps all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sflam.cost.memory import FleetMemory
from sflam.cost.training import Step
from sflam.errors import ConfigError
from sflam.learn.evaluate import Score
from sflam.learn.steps import Average, Steps
from sflam.model.adapters import State
from sflam.plan import Placement
from sflam.records.history import RoundRecord


class Fleet(Protocol):
    """Who takes part, their local steps, the average of their adapters: all that callers may ask of a fleet.

    Methods with a body here are answers of a plain fleet; derive from this class to have them.
    """

    @property
    def name(self) -> str:
        """What a result and a checkpoint call the fleet."""
        return type(self).__name__

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user about what the fleet does on its own."""
        return ()

    def before(self, round: int, state: State) -> None:
        """Prepare a round that begins from the global adapters ``state``: look at the network, plan."""
        return None

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of a round, ascending."""

    def counted_samples(self, round: int) -> dict[int, int]:
        """Return device -> n_k of those whose samples are known and count in a round."""
        return {}

    def turns(self, round: int, devices: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the devices in groups that share the network at once, one group after another."""
        return [tuple(devices)]

    def place(self, placements: Sequence[Placement]) -> None:
        """Follow a plan from now on: cut, server and bits of every device that is listed; between rounds."""

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start the devices and their server copies from the global adapters; return the bytes sent."""

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Run every local step of the devices' round."""

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the sample-weighted average of what the devices trained."""

    def score(self, state: State, evaluate: Callable[[State], Score]) -> Score:
        """Return how good the fleet's model is; ``evaluate`` scores global adapters."""
        return evaluate(state)

    def own_parts(self) -> Mapping[int, State]:
        """Return device -> what it has trained and keeps for itself (``learn.personal``); empty for nothing."""
        return {}

    def after(self, record: RoundRecord) -> RoundRecord:
        """Return the record of a round with what only this fleet knows of it."""
        return record

    def diverged(self) -> list[int]:
        """Return the devices whose adapters, or the server's own copy of them, hold NaN or infinity."""
        return []

    def memory(self, step: Step) -> FleetMemory:
        """Return what its machines need for a training step."""

    def keep_in(self, folder: Path, kept: int) -> None:
        """Keep in files what would grow with the fleet; :meth:`state` then refers to them.

        Args:
            folder: the run's, made where it is needed; a resumed run gives the same one before :meth:`restore`.
            kept: of how many calls of :meth:`state` in a row, the last, any may be given to :meth:`restore`.
        """
        return None

    def state(self) -> dict[str, Any]:
        """Return what, beside the global adapters, must survive a crash between rounds."""

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""


class FleetAround(Fleet):
    """A fleet around another, which answers whatever a subclass does not answer itself.

    Args:
        inner: the fleet that is wrapped.
    """

    def __init__(self, inner: Fleet) -> None:
        self.inner = inner

    @property
    def notes(self) -> tuple[str, ...]:
        """Those of the wrapped fleet."""
        return self.inner.notes

    def before(self, round: int, state: State) -> None:
        """Prepare a round."""
        self.inner.before(round, state)

    def select(self, round: int) -> tuple[int, ...]:
        """Return the devices of a round, ascending."""
        return self.inner.select(round)

    def counted_samples(self, round: int) -> dict[int, int]:
        """Return the samples of the wrapped fleet's devices."""
        return self.inner.counted_samples(round)

    def turns(self, round: int, devices: Sequence[int]) -> list[tuple[int, ...]]:
        """Return the devices in groups that share the network at once."""
        return self.inner.turns(round, devices)

    def place(self, placements: Sequence[Placement]) -> None:
        """Follow a plan from now on."""
        self.inner.place(placements)

    def download(self, round: int, devices: Sequence[int], state: State) -> int:
        """Start the devices from the global adapters; return the bytes sent."""
        return self.inner.download(round, devices, state)

    def local_steps(self, round: int, devices: Sequence[int]) -> Steps:
        """Run every local step of the devices' round."""
        return self.inner.local_steps(round, devices)

    def average(self, round: int, devices: Sequence[int], steps: Steps) -> Average:
        """Return the average of what the devices trained."""
        return self.inner.average(round, devices, steps)

    def score(self, state: State, evaluate: Callable[[State], Score]) -> Score:
        """Return how good the wrapped fleet's model is."""
        return self.inner.score(state, evaluate)

    def own_parts(self) -> Mapping[int, State]:
        """Return what each device of the wrapped fleet keeps for itself."""
        return self.inner.own_parts()

    def after(self, record: RoundRecord) -> RoundRecord:
        """Return the record with what the wrapped fleet knows."""
        return self.inner.after(record)

    def diverged(self) -> list[int]:
        """Return the devices that hold NaN or infinity."""
        return self.inner.diverged()

    def memory(self, step: Step) -> FleetMemory:
        """Return what the machines of the wrapped fleet need."""
        return self.inner.memory(step)

    def keep_in(self, folder: Path, kept: int) -> None:
        """Keep in files what would grow with the wrapped fleet."""
        self.inner.keep_in(folder, kept)

    def state(self) -> dict[str, Any]:
        """Return what must survive a crash; a subclass adds its own beside ``inner``."""
        return {"inner": self.inner.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`state` returned."""
        self.inner.restore(state["inner"])


def expect_fleet(fleet: object) -> None:
    """Raise ConfigError unless an object answers all that is asked of a fleet."""
    asked = [name for name in vars(Fleet) if not name.startswith("_")]
    if missing := [name for name in asked if not hasattr(fleet, name)]:
        raise ConfigError(
            f"{type(fleet).__name__} is no fleet: it lacks {', '.join(missing)}; derive it from sflam.FleetAround, "
            "which passes on what it does not change"
        )
