"""Averaging the devices' adapters, and what averaging factors loses.

A LoRA update is a product B A. ``fedavg`` averages A and B apart, so mean(B) mean(A) stands in for mean(BA);
:func:`aggregation_error` measures how much they differ. ``freeze-a`` keeps every A at the common start, which makes
the average exact (Sun et al., "Improving LoRA in privacy-preserving federated learning", ICLR 2024). ``residual``
adds the difference to the frozen weights (Singhal et al., "FedEx-LoRA", 2024), exact as well.

Shapes: K devices, r rank, i inputs, o outputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from sflam.model.adapters import State
from sflam.model.lower_rank import A_ENDS, B_ENDS

MOST = 1 << 20
"""Numbers averaged at once, of each state: a model whose every weight is trained has far more."""


def trained_numbers(state: Mapping[str, Tensor], aggregation: str) -> int:
    """Return how many numbers of the adapters are trained and sent: with ``freeze-a`` no A is."""
    stays = A_ENDS if aggregation == "freeze-a" else ()
    return sum(tensor.numel() for name, tensor in state.items() if not name.endswith(stays))


def weights_of(samples: Sequence[float]) -> list[float]:
    """Return the FedAvg weight n_k / n of each device from its sample counts."""
    total = sum(samples)
    assert total > 0, samples
    return [count / total for count in samples]


def fedavg(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> State:
    """Return the weighted mean of every tensor over the states that have it, on fresh storage; weights sum to one."""
    found: State = {}
    for names in _together(states):
        held = [_held(name, states, weights) for name in names]
        if len(names) > 1:  # all states have them
            laid = (torch.cat([state[name].reshape(-1) for name in names]) for state in states)
            parts = torch.split(_mean(laid, weights), [own[0].numel() for own, _ in held])
            means = [part.view(own[0].shape).clone() for part, (own, _) in zip(parts, held, strict=True)]
        else:
            means = [_mean(*held[0])]
        found |= zip(names, means, strict=True)
    return found


def _together(states: Sequence[Mapping[str, Tensor]]) -> list[list[str]]:
    """Return the names of all tensors, those in a list that are small, alike, and held by every state: few sums."""
    found: list[list[str]] = []
    last: tuple[torch.dtype, torch.device] | None = None
    room = 0
    for name in names_of(states):
        own = [state[name] for state in states if name in state]
        kinds = {(tensor.dtype, tensor.device) for tensor in own}
        kind = kinds.pop() if len(kinds) == 1 and len(own) == len(states) else None
        if kind and kind == last and own[0].numel() <= room:
            found[-1].append(name)
            room -= own[0].numel()
        else:
            found.append([name])
            last, room = kind, MOST - own[0].numel()
    return found


def names_of(states: Sequence[Mapping[str, Tensor]]) -> list[str]:
    """Return the names of all tensors of some states."""
    return list(dict.fromkeys(name for state in states for name in state))


def _held(
    name: str, states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> tuple[list[Tensor], Sequence[float]]:
    """Return the named tensor of the states that have it, and their weights, which sum to one again."""
    found = [state[name] for state in states if name in state]
    if len(found) == len(states):
        return found, weights
    return found, weights_of([own for state, own in zip(states, weights, strict=True) if name in state])


def average_of_servers(
    groups: Sequence[tuple[Sequence[Mapping[str, Tensor]], Sequence[float], float]],
) -> State:
    """Return the hierarchical average: of every group by its weights, then of the groups by what they count.

    Args:
        groups: (states, weights that sum to one, samples) of each group. One group is its plain :func:`fedavg`.
    """
    means = [fedavg(states, weights) for states, weights, _ in groups]
    if len(means) == 1:
        return means[0]
    total = sum(samples for _, _, samples in groups)
    every = [state for states, _, _ in groups for state in states]
    if any(
        state.keys() != every[0].keys() for state in every
    ):  # a group counts with those that have a tensor
        return fedavg(every, [own * samples / total for _, weights, samples in groups for own in weights])
    return fedavg(means, [samples / total for _, _, samples in groups])


def residuals(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> State:
    """Return mean(BA) - mean(B) mean(A), module name -> float64 [o, i], not yet scaled by alpha / r."""
    found = {}
    for name, a, b, w in _factors(states, weights):
        # mean(BA) of rank at most K r: one product of the factors laid side by side.
        exact = _beside(b, w) @ a.flatten(0, 1)
        found[name] = exact - torch.einsum("k,kor->or", w, b) @ torch.einsum("k,kri->ri", w, a)
    return found


@torch.no_grad()
def correct(layers: Mapping[str, Any], found: State) -> None:
    """Add the :func:`residuals` to the frozen weights of the adapted ``layers``."""
    for name, delta in found.items():
        layer = layers[name]
        update = delta * layer.scaling["default"]
        weight = layer.get_base_layer().weight
        weight += (update.T if layer.fan_in_fan_out else update).to(weight)


def aggregation_error(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> float:
    """Return ||mean(BA) - mean(B) mean(A)|| / ||mean(BA)||, Frobenius over all adapted layers; 0 where none moved.

    The difference is a covariance, mean((B - mean(B)) (A - mean(A))), and norms are those of the factors' products
    with each other: no matrix of a layer's size is made, unless it costs less.
    """
    lost = total = 0.0
    for _, a, b, w in _factors(states, weights):
        lost += _square(a - torch.einsum("k,kri->ri", w, a), b - torch.einsum("k,kor->or", w, b), w)
        total += _square(a, b, w)
    return float((lost / total) ** 0.5) if total else 0.0


def _square(a: Tensor, b: Tensor, w: Tensor) -> float:
    """Return ||sum_k w_k B_k A_k||^2 of a [K,r,i], b [K,o,r] and w [K]."""
    left, right = _beside(b, w), a.flatten(0, 1)
    wide, high = left.shape[1], right.shape[1]
    if wide * (len(left) + high) >= len(left) * high:
        return float((left @ right).square().sum())
    return max(0.0, float(((left.T @ left) * (right @ right.T)).sum()))


def _beside(b: Tensor, w: Tensor) -> Tensor:
    """Return w_k B_k side by side, [o, K r]."""
    return (b * w[:, None, None]).permute(1, 0, 2).flatten(1)


def _factors(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]
) -> Iterator[tuple[str, Tensor, Tensor, Tensor]]:
    """Yield (module, A [K,r,i], B [K,o,r], weights [K]), float64, of every adapted layer that trains both factors."""
    for name in names_of(states):
        if not name.endswith(A_ENDS):
            continue
        module = name.removesuffix(A_ENDS)
        factors, shares = _held(name, states, weights)
        a = torch.stack(factors).double()
        b = torch.stack(_held(module + B_ENDS, states, weights)[0]).double()
        yield module, a, b, torch.tensor(shares, dtype=torch.float64, device=a.device)


def _mean(tensors: Iterable[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of one tensor at least; each is asked for when its turn comes."""
    tensors = iter(tensors)
    first = next(tensors)
    total = torch.zeros_like(first, dtype=torch.float64)
    for tensor, weight in zip(chain([first], tensors), weights, strict=True):
        total += tensor.double() * weight
    return total.to(first.dtype)
