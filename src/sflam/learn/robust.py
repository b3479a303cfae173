"""Averages that a few devices cannot move far, whatever they send (``learn.robust``).

K devices of a round, of which f = floor(``learn.robust_share`` K) may send anything; P numbers each.

    median       of every number by itself (Yin et al., "Byzantine-robust distributed learning", ICML 2018)
    trimmed      the mean of every number without its f largest and f smallest (the same)
    geometric    the point with the least weighted sum of distances to all devices' (Pillutla et al., "Robust
                 aggregation for federated learning", IEEE Transactions on Signal Processing 2022), by Weiszfeld's steps
    krum         the mean of the K - f devices that are nearest to their K - f - 2 nearest others (multi-Krum: Blanchard
                 et al., "Machine learning with adversaries", NeurIPS 2017)

Median and trimmed mean count all devices alike; the other two count them by their weights. In a round of few devices
f is smaller: at most (K - 1) / 2 are trimmed on a side, and Krum expects at most (K - 3) / 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sflam.learn.aggregate import fedavg, weights_of
from sflam.model.adapters import State

STEPS = 200
CLOSE = 1e-10
"""Relative change of the point that ends Weiszfeld's steps."""
SMOOTHING = 1e-9
"""Least distance in these steps, over the largest norm."""


def robust(
    kind: str, share: float, states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> State:
    """Return the robust average of states of the same tensors, on fresh storage.

    Args:
        kind: of the table above.
        share: of the devices that may send anything.
        states: [K].
        weights: [K], which sum to one.
    """
    count, suspects = len(states), int(share * len(states))
    assert all(state.keys() == states[0].keys() for state in states), "run.compatibility refuses other fleets"
    if kind == "krum":
        chosen = nearest(states, suspects)
        return fedavg([states[k] for k in chosen], weights_of([weights[k] for k in chosen]))
    if kind == "geometric":
        return fedavg(states, geometric_weights(states, weights))
    trimmed = (count - 1) // 2 if kind == "median" else min(suspects, (count - 1) // 2)
    found = {}
    for name, like in states[0].items():
        ordered = torch.stack([state[name].double() for state in states]).sort(dim=0).values
        found[name] = ordered[trimmed : count - trimmed].mean(dim=0).to(like.dtype)
    return found


def nearest(states: Sequence[Mapping[str, Tensor]], suspects: int) -> list[int]:
    """Return the indices, in order, of the K - f states with the least squared distances to their nearest others."""
    count = len(states)
    suspects = max(0, min(suspects, (count - 3) // 2))
    if count < 3:
        return list(range(count))
    rows = _flat(states)
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square()
    others = distances.sort(dim=1).values[:, 1 : 1 + max(1, count - suspects - 2)]
    scores = others.sum(dim=1)
    return sorted(torch.argsort(scores, stable=True)[: count - suspects].tolist())


def geometric_weights(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> list[float]:
    """Return what each state counts in the geometric median, which is their mean by these."""
    rows = _flat(states)
    own = torch.tensor(weights, dtype=torch.float64, device=rows.device)
    least = SMOOTHING * max(float(rows.norm(dim=1).max()), 1e-300)
    counts = own
    point = own @ rows
    for _ in range(STEPS):
        counts = own / (rows - point).norm(dim=1).clamp(min=least)
        counts = counts / counts.sum()
        after = counts @ rows
        moved = float((after - point).norm())
        point = after
        if moved <= CLOSE * float(point.norm()):
            break
    return [float(one) for one in counts]


def _flat(states: Sequence[Mapping[str, Tensor]]) -> Tensor:
    """Return float64 [K, P], the numbers of each state one after another."""
    return torch.stack(
        [torch.cat([tensor.double().flatten() for tensor in state.values()]) for state in states]
    )
