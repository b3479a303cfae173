"""Which devices a served round takes: those that a simulation draws, or as many others where they are not here."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sflam.learn.selection import select_devices, systematic
from sflam.learn.settings import FleetSettings
from sflam.seeds import generator


def wanted_devices(
    settings: FleetSettings, seed: int, round: int, known: Mapping[int, int], out: Collection[int]
) -> tuple[int, ...]:
    """Return the devices that a simulation takes: all, until the samples are known that it draws them by.

    Args:
        settings: ``[fleet]``.
        seed: of the run.
        round: its number.
        known: device -> samples, of those that ever came.
        out: devices that sit the round out.
    """
    if settings.policy == "samples" and len(known) < settings.devices:
        drawn = tuple(range(settings.devices))
    else:
        drawn = select_devices(settings, seed, round, known)
    left = (
        tuple(device for device in which if device not in out) for which in (drawn, range(settings.devices))
    )
    return next((some[: len(drawn)] for some in left if some), drawn)


def drawn_devices(
    settings: FleetSettings, seed: int, round: int, wanted: Sequence[int], samples: Mapping[int, int]
) -> tuple[int, ...]:
    """Return the devices of a round: those wanted, or where they are not here as many of those present.

    Args:
        settings: ``[fleet]``.
        seed: of the run.
        round: its number.
        wanted: by a simulation.
        samples: device -> samples, of those present, ascending.
    """
    if set(wanted) <= samples.keys() or not settings.asked:
        return tuple(device for device in wanted if device in samples)
    count, rng = min(settings.asked, len(samples)), generator(seed, "selection", round, 1)
    if settings.policy == "samples":
        return systematic(samples, count, rng)
    return tuple(sorted(int(device) for device in rng.choice(tuple(samples), count, replace=False)))
