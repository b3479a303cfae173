"""Labels that stay at home, guessed from what crosses: activations, or the gradients of the device's loss.

Clusters alone have no names: they are given those that fit the true labels best, which is what an attacker with a few
labelled samples of each class comes close to. Where public samples are labelled, the class of the nearest mean
activation is taken instead. Gradients of the loss with respect to what the head reads point from the weights of the
class to those of the classes it is taken for, so that their directions fall into one cluster a class (Li et al., Label
leakage and protection in two-party split learning, ICLR 2022).

N samples, D numbers of each, C classes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.vq import kmeans2
from scipy.optimize import linear_sum_assignment

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]
STARTS = 5


def clustered(rows: Floats, labels: Labels, classes: int, seed: int) -> float:
    """Return the share of labels [N] that clusters of ``rows`` [N,D] tell, each cluster named as fits best.

    k-means from several starts; the one of least inertia counts.
    """
    best: tuple[float, Labels] | None = None
    for start in range(STARTS):
        centres, found = kmeans2(rows, min(classes, len(rows)), minit="++", seed=seed + start, missing="warn")
        inertia = float(((rows - centres[found]) ** 2).sum())
        if best is None or inertia < best[0]:
            best = inertia, found.astype(np.int64)
    assert best is not None
    hits = np.zeros((classes, classes))
    np.add.at(hits, (best[1], labels), 1)
    rows_of, columns = linear_sum_assignment(-hits)
    return float(hits[rows_of, columns].sum() / len(labels))


def directions(rows: Floats) -> Floats:
    """Return rows [N,D] of length 1; zero rows stay zero."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    found: Floats = rows / np.where(norms > 0, norms, 1.0)
    return found


def nearest_class(known: Floats, known_labels: Labels, rows: Floats) -> Labels:
    """Return [N], the class whose mean over public rows ``known`` [M,D] is nearest, each number by its own spread."""
    classes = np.unique(known_labels)
    within = np.concatenate([known[known_labels == c] - known[known_labels == c].mean(0) for c in classes])
    spread = within.std(0) + 1e-9
    means = np.stack([known[known_labels == c].mean(0) for c in classes]) / spread
    apart = ((rows[:, None, :] / spread - means[None]) ** 2).sum(-1)
    found: Labels = classes[apart.argmin(1)]
    return found
