"""Which devices a round takes, as plain functions of what the server knows. K devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sflam.learn.selection import select_devices, systematic
from sflam.learn.settings import FleetSettings
from sflam.network.network import Floats
from sflam.registry import add
from sflam.seeds import generator


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """What a server knows when a round begins.

    Attributes:
        settings: how many devices, and how many of them take part.
        seed: of the run.
        round: its number.
        gain: [K] channel gains now.
        energy: returns ``joules``, of all devices: asked where a policy wants them.
        loss: [K] each device's mean training loss when it last took part; inf before.
        able: [K] whether a device may be taken at all.
        samples: [K] that each device holds.
    """

    settings: FleetSettings
    seed: int
    round: int
    gain: Floats
    energy: Callable[[], Floats]
    loss: Floats
    able: NDArray[np.bool_]
    samples: NDArray[np.int64]

    @cached_property
    def joules(self) -> Floats:
        """[K] a round's energy at full power and speed, or what is left in the battery, negated."""
        return self.energy()


def uniform(known: Known) -> tuple[int, ...]:
    """Return ``fleet.selected`` devices drawn without replacement: the same ones as without a network.

    In the place of those that cannot be taken, others are drawn that can.
    """
    drawn = select_devices(replace(known.settings, policy="uniform"), known.seed, known.round)
    taken = [device for device in drawn if known.able[device]]
    others = [device for device in np.flatnonzero(known.able).tolist() if device not in drawn]
    rng = generator(known.seed, "selection", known.round, 1)
    more = rng.permutation(others)[: len(drawn) - len(taken)].tolist()
    return tuple(sorted(taken + more))


def by_samples(known: Known) -> tuple[int, ...]:
    """Return devices drawn with chances proportional to their samples: the same ones as without a network.

    Those that cannot be taken count as if they had none.
    """
    able = {device: int(count) if known.able[device] else 0 for device, count in enumerate(known.samples)}
    if not known.settings.asked:
        return tuple(device for device in able if known.able[device])
    return systematic(able, known.settings.asked, generator(known.seed, "selection", known.round))


def by_channel(known: Known) -> tuple[int, ...]:
    """Return the devices heard best."""
    return _least(known, -known.gain)


def by_energy(known: Known) -> tuple[int, ...]:
    """Return the devices whose round costs fewest joules, or whose batteries hold most."""
    return _least(known, known.joules)


def by_loss(known: Known) -> tuple[int, ...]:
    """Return the devices with the largest loss; those never seen first."""
    return _least(known, -known.loss)


POLICIES: dict[str, Callable[[Known], tuple[int, ...]]] = {
    "uniform": uniform,
    "samples": by_samples,
    "channel": by_channel,
    "energy": by_energy,
    "loss": by_loss,
}
FORESEEN = ("uniform", "samples", "channel", "energy")
"""Policies whose choices are known before a run, where there are no batteries."""


def register(name: str, policy: Callable[[Known], tuple[int, ...]]) -> None:
    """Make an own policy known as ``fleet.policy = name`` in this process.

    Args:
        name: small letters, digits and hyphens.
        policy: from what a server knows to the indices of the devices a round takes, ascending; a pure function.

    Raises:
        ConfigError: the name is taken, or cannot be one.
    """
    add("policy", name, policy, POLICIES)


def _least(known: Known, key: Floats) -> tuple[int, ...]:
    """Return the able devices with the smallest keys, ascending by index; the lower index wins a tie."""
    order = [int(device) for device in np.argsort(key, kind="stable") if known.able[device]]
    return tuple(sorted(order[: known.settings.asked or len(order)]))
