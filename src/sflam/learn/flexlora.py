"""FlexLoRA: Bai et al., "Federated fine-tuning of large language models under heterogeneous tasks and client
resources", arXiv 2402.11505, section 3: average the products, then give back factors of the average.

    W = sum_k p_k B_k A_k = U S V^T,    B = U_r S_r,  A = V_r^T

B A is the closest to W of all products of rank r (Eckart, Young). A device's factors may have any rank, and r may be
any: a device gets as many of the largest directions as its rank. W is never built: with B_k p_k side by side = Q_b R_b
and A_k one upon the other, transposed = Q_a R_a, the decomposition is that of the small R_b R_a^T. What averages in
this way trains from other factors of (nearly) the same product: what an optimiser remembers of the factors before has
no meaning for them.

Shapes: r_k rank of device k, i inputs, o outputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sflam.learn.aggregate import fedavg
from sflam.model.adapters import State
from sflam.model.lower_rank import A_ENDS, B_ENDS


def averaged_product(
    factors: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float], rank: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (A [rank,i], B [o,rank]), whose product is closest to the mean of the products, and all of S; in float64.

    Args:
        factors: (A [r_k,i], B [o,r_k]) of each device, of ranks of their own.
        weights: p_k.
        rank: of the factors returned; directions that the mean does not have are zero.
    """
    wide = torch.cat([b.double() * weight for (_, b), weight in zip(factors, weights, strict=True)], dim=1)
    tall = torch.cat([a.double() for a, _ in factors])
    q_b, r_b = torch.linalg.qr(wide)
    q_a, r_a = torch.linalg.qr(tall.T)
    u, s, vt = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    found = min(rank, len(s))
    a, b = tall.new_zeros(rank, tall.shape[1]), wide.new_zeros(len(wide), rank)
    a[:found], b[:, :found] = vt[:found] @ q_a.T, (q_b @ u[:, :found]) * s[:found]
    # A decomposition leaves the sign of each direction open: the largest entry of each row of A is positive.
    largest = a.gather(1, a.abs().argmax(1, keepdim=True))
    sign = torch.where(largest < 0, -1.0, 1.0).to(a)
    return a * sign, b * sign.T, s


def redistributed(
    states: Sequence[Mapping[str, Tensor]], weights: Sequence[float], like: Mapping[str, Tensor]
) -> tuple[State, float]:
    """Return the average of what devices trained, with factors of the mean products, and the share that was lost.

    What is no factor of an adapter is averaged as it is. A mean product of zero, as before any training, keeps the
    mean A: it would otherwise be lost.

    Args:
        states: what each device trained, by name.
        weights: p_k, which sum to one.
        like: the global adapters, whose ranks the factors get.
    """
    plain = [name for name in states[0] if not name.endswith((A_ENDS, B_ENDS))]
    found = fedavg([{name: state[name] for name in plain} for state in states], weights)
    lost = total = 0.0
    for name in states[0]:
        if not name.endswith(A_ENDS):
            continue
        other = name.removesuffix(A_ENDS) + B_ENDS
        factors = [(state[name], state[other]) for state in states]
        rank = len(like[name])
        a, b, s = averaged_product(factors, weights, rank)
        lost, total = lost + float(s[rank:].square().sum()), total + float(s.square().sum())
        if not s.any():
            a = fedavg([{name: state[name]} for state in states], weights)[name]
        found |= {name: a.to(like[name]), other: b.to(like[other])}
    return found, (lost / total) ** 0.5 if total else 0.0
