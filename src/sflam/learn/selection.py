"""``fleet.policy = "samples"``: devices drawn with chances proportional to their samples, without replacement.

Systematic sampling with probability proportional to size: the devices are laid on a line in random order, each as long
as it has samples, and those under S equally spaced points are taken; where the first point is, is drawn. Device k is
taken with chance p_k = S n_k / n exactly. One for which that would be more than 1 is always taken, and the others share
what is left. Source: Madow, "On the theory of systematic sampling, II" (1949).

K devices, n_k samples of device k, n of all, S of a round.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sflam.learn.settings import FleetSettings
from sflam.seeds import generator

Chances = float | dict[int, float]
"""p_k: the same for all devices, or that of each."""


def always_taken(samples: Mapping[int, int], selected: int) -> list[int]:
    """Return the devices for which S n_k / n would be more than 1, most samples first."""
    taken: list[int] = []
    left = sum(samples.values())
    for device in sorted(samples, key=lambda device: (-samples[device], device)):
        if len(taken) == selected or (selected - len(taken)) * samples[device] < left:
            break
        taken.append(device)
        left -= samples[device]
    return taken


def chances(samples: Mapping[int, int], selected: int) -> dict[int, float]:
    """Return p_k of each device where ``selected`` of them are drawn; p_k sum to that."""
    taken = always_taken(samples, selected)
    left = sum(samples.values()) - sum(samples[device] for device in taken)
    spare = selected - len(taken)
    return {d: 1.0 if d in taken else spare * count / left if left else 0.0 for d, count in samples.items()}


def systematic(samples: Mapping[int, int], selected: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Return ``selected`` devices, ascending, each taken with its chance; fewer where fewer have samples."""
    taken = always_taken(samples, selected)
    rest = [device for device in samples if device not in taken and samples[device]]
    spare = min(selected - len(taken), len(rest))
    if not spare:
        return tuple(sorted(device for device in taken if samples[device]))
    order = [rest[index] for index in rng.permutation(len(rest))]
    total = sum(samples[device] for device in order)
    found = under_points(order, samples, spare, int(rng.integers(total)))
    return tuple(sorted([device for device in taken if samples[device]] + found))


def under_points(order: list[int], samples: Mapping[int, int], count: int, first: int) -> list[int]:
    """Return the devices of a line under ``count`` points, n / count apart, the first at ``first`` / count.

    All numbers are whole, so that chances are exact: device k is taken at count n_k of the n places of the first point.
    """
    ends = count * np.cumsum([samples[device] for device in order])
    points = first + ends[-1] // count * np.arange(count)
    return [order[place] for place in np.searchsorted(ends, points, side="right")]


def chances_of(settings: FleetSettings, samples: Mapping[int, int]) -> Chances:
    """Return p_k of the devices with ``samples``, as ``[fleet]`` draws them: S / K but where they differ."""
    selected = settings.asked or len(samples)
    if settings.policy == "samples":
        return chances(samples, min(selected, len(samples)))
    return min(1.0, selected / len(samples))  # fewer may be known than are drawn


def select_devices(
    settings: FleetSettings, seed: int, round: int, samples: Mapping[int, int] | None = None
) -> tuple[int, ...]:
    """Return the devices of a round: all, or ``fleet.selected``, over-selected, drawn without replacement.

    Uniformly, or with ``fleet.policy = "samples"`` by those of each; the other policies choose in simulations.
    """
    if not settings.asked:
        return tuple(range(settings.devices))
    rng = generator(seed, "selection", round)
    if settings.policy == "samples":
        assert samples is not None, "chances are those of all samples"
        return systematic(samples, settings.asked, rng)
    drawn = rng.choice(settings.devices, settings.asked, replace=False)
    return tuple(int(device) for device in np.sort(drawn))
