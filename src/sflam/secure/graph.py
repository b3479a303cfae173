"""Which devices share masks: all with all in small rounds, a ring with near neighbours in random order in large ones.

After Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead" (CCS 2020). A device's two secrets
are shared out among its neighbours and itself, h = k + 1 holders, and t = ceil(share h) of them give one back. The
number of neighbours k is the least that keeps, where one in ten devices is lost and one in ten tells the server all,

    a secret with every device    but with chance 2^-40: fewer than 2 t - h of its holders tell
    the sum undivided             but with chance 2^-40: no k / 2 devices in a row are lost or tell, on either side
    the sum possible              but with chance 2^-20: t holders remain of each secret; else the round is repeated
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, exp, floor, lgamma

from sflam.seeds import generator

LOST = 0.1
TELLING = 0.1
SECRET = 2.0**-40
BROKEN = 2.0**-20
LEAST_DEVICES = 3
"""Of a sum of two, either knows the other's."""


def threshold(share: float, holders: int) -> int:
    """Return t, how many of the ``holders`` of a secret give it back: at least more than half of them."""
    return max(floor(holders / 2) + 1, ceil(share * holders - 1e-9))


def fewest(share: float, devices: int) -> int:
    """Return how many of so many devices have to remain in a sum: those that give secrets back, and three."""
    return max(LEAST_DEVICES, threshold(share, devices))


def neighbours(devices: Sequence[int], degree: int, seed: int) -> dict[int, tuple[int, ...]]:
    """Return device -> its neighbours, ascending: the next ``degree`` / 2 on either side of a ring in random order."""
    if degree >= len(devices) - 1:
        return {device: tuple(sorted(other for other in devices if other != device)) for device in devices}
    ring = [devices[place] for place in generator(seed, "secure-ring").permutation(len(devices))]
    steps = [step for side in range(1, degree // 2 + 1) for step in (side, -side)]
    return {
        device: tuple(sorted(ring[(place + step) % len(ring)] for step in steps))
        for place, device in enumerate(ring)
    }


@lru_cache(maxsize=64)
def degree(devices: int, share: float) -> int:
    """Return k for so many devices, where ``share`` of the holders give a secret back; few are all neighbours."""
    for found in range(2, devices - 1, 2):
        holders = found + 1
        enough = threshold(share, holders)
        torn = devices * (LOST + TELLING) ** (found // 2)
        if torn > SECRET:
            continue
        known = devices * _tail(devices - 1, TELLING, found, 2 * enough - holders)
        short = devices * _tail(devices - 1, LOST, found, holders - enough + 1)
        if known <= SECRET and short <= BROKEN:
            return found
    return devices - 1


def _tail(others: int, rate: float, drawn: int, least: int) -> float:
    """Return the chance that ``drawn`` of the ``others`` hold ``least`` or more of the ``rate`` that is marked."""
    marked = ceil(rate * others)

    def ways(whole: int, part: int) -> float:
        return lgamma(whole + 1) - lgamma(part + 1) - lgamma(whole - part + 1)

    rest = others - marked
    return sum(
        exp(ways(marked, hit) + ways(rest, drawn - hit) - ways(others, drawn))
        for hit in range(max(0, least, drawn - rest), min(marked, drawn) + 1)
    )
