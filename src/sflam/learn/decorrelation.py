"""Distance correlation of what devices hold with what they send, and its gradient, which lowers it as they train.

    dCor(X, Z) = sqrt(dCov2(X, Z) / sqrt(dCov2(X, X) dCov2(Z, Z))),  dCov2(X, Z) = mean_ij A_ij B_ij

A and B are the Euclidean distances between the rows of X and of Z, less the means of their rows and columns, plus the
mean of all (Szekely, Rizzo and Bakirov, Annals of Statistics 2007, definitions 3 and 4): 0 where X and Z are
independent, 1 where Z is a rotation of X. The loss of a device is its task's plus a weight times dCor (Vepakomma,
Singh, Gupta and Raskar, NoPeek, ICDM Workshops 2020, equation 1). It acts on the mini-batch of one device: on its
images as wholes or, of texts, on its tokens, of which two are 0 apart where they are alike and else sqrt(2), since
those are what is read back from activations.

n rows, p and q values of a row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sflam.learn.examples import Minibatch
from sflam.model.dummy_inputs import valid_tokens

MOST = 512
"""Tokens of texts that are looked at: every so many-th of more."""


class Decorrelation:
    """A weight times the distance correlation of a mini-batch with its activations.

    Args:
        weight: of it, beside the loss of the task; above 0.
    """

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def gradient(self, batch: Minibatch, hidden: Tensor) -> Tensor:
        """Return its gradient [B,T,d] with respect to the activations [B,T,d] of a device's own mini-batch."""
        leaf = (
            hidden.detach().to(torch.promote_types(hidden.dtype, torch.float32), copy=True).requires_grad_()
        )
        with torch.enable_grad():
            found = self.weight * correlation_of(batch, leaf)
        if not found.requires_grad:  # nothing to correlate
            return torch.zeros_like(hidden)
        (gradient,) = torch.autograd.grad(found, leaf)
        return gradient.to(hidden.dtype)


def correlation_of(batch: Minibatch, hidden: Tensor) -> Tensor:
    """Return dCor of a device's own mini-batch with its activations [B,T,d]: images as wholes, texts token by token."""
    ids = batch.inputs.get("input_ids")
    if ids is None:
        (held,) = batch.inputs.values()
        return distance_correlation(
            _distances(held.flatten(1).to(hidden.dtype)), _distances(hidden.flatten(1))
        )
    tokens = ids[:, : hidden.shape[1]].unsqueeze(2)
    valid = None if batch.lengths is None else valid_tokens(batch.lengths, hidden.shape[1]).bool()
    held, sent = (x.flatten(0, 1) if valid is None else x[valid] for x in (tokens, hidden))
    every = -(-len(held) // MOST)
    held, sent = held[::every], sent[::every]
    apart = (held != held.T).to(hidden.dtype) * 2**0.5
    return distance_correlation(apart, _distances(sent))


def distance_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Return dCor of two lists of rows, from the distances [n,n] in each; 0 where those of either are all alike."""
    a, b = _centred(first), _centred(second)
    own = (a * a).mean() * (b * b).mean()
    shared = (a * b).mean()
    if not (own > 0 and shared > 0):
        return shared.new_zeros(())
    return (shared / own.sqrt()).sqrt()


def _distances(rows: Tensor) -> Tensor:
    """[n,p] -> [n,n], by differences: products of rows would lose what is close."""
    return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")


def _centred(distances: Tensor) -> Tensor:
    rows, columns = distances.mean(0, keepdim=True), distances.mean(1, keepdim=True)
    return distances - rows - columns + distances.mean()
