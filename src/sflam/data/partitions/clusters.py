"""``clusters``: skew where labels say nothing: k-means clusters of features stand in for classes.

Source: B. Y. Lin et al., "FedNLP: Benchmarking Federated Learning Methods for Natural Language Processing Tasks",
Findings of NAACL 2022, arXiv:2104.08815, section 3.2: texts without labels are clustered by their embeddings, and the
clusters shared out by a Dirichlet draw. The embeddings here are of the data alone, so no model need be loaded: TF-IDF
of the tokens reduced by a truncated SVD (latent semantic analysis: S. Deerwester et al., JASIS 41(6), 1990), or the
principal components of the pixels.

N samples, V token ids, F features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sflam.data.dataset import Dataset
from sflam.data.partitions.contract import Division, Labels, PartitionRequest, expect_enough
from sflam.data.partitions.dirichlet import dirichlet
from sflam.errors import DataError

FEATURES = 50
"""Most features of a sample."""
STARTS = 4
"""Times that k-means starts anew; the best is kept."""


def divide(request: PartitionRequest) -> Division:
    """Return parts skewed by ``data.clusters`` clusters of what the samples hold, by ``data.alpha``.

    Raises:
        DataError: there are fewer distinct samples than clusters, or scikit-learn is missing.
    """
    settings = request.settings
    expect_enough(len(request.train), request.devices, settings.minimum)
    groups = clusters(request.train, settings.clusters, request.rng)
    parts = dirichlet(groups, request.devices, settings.alpha, request.rng, settings.minimum)
    return Division(parts, groups, tuple(f"cluster {number}" for number in range(settings.clusters)))


def clusters(dataset: Dataset, count: int, rng: np.random.Generator) -> Labels:
    """Return the cluster of each sample, int64 [N] in 0..count-1, largest first; one thread, so that a seed decides."""
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise DataError(
            "data.partition = \"clusters\" needs scikit-learn; pip install 'sflam[train]'"
        ) from error
    seed = int(rng.integers(2**32))
    with threadpool_limits(limits=1):
        compared = features(dataset, seed)
        distinct = len(np.unique(compared, axis=0))
        if distinct < count:
            raise DataError(
                f"{dataset.name} has {distinct} distinct samples to train on, fewer than data.clusters ({count}); "
                "lower it"
            )
        labels = KMeans(count, n_init=STARTS, random_state=seed).fit_predict(compared)
    order = np.argsort(-np.bincount(labels, minlength=count), kind="stable")
    places = np.empty(count, dtype=np.int64)
    places[order] = np.arange(count)
    found: Labels = places[labels]
    return found


def features(dataset: Dataset, seed: int) -> NDArray[np.float64]:
    """Return what samples are compared by, [N, F]: unit vectors of topics for texts, principal components of images."""
    from sklearn.decomposition import PCA

    if dataset.kind == "text":
        return _topics(dataset, seed)
    pixels = dataset.inputs.reshape(len(dataset), -1).astype(np.float32) / 255
    most = min(FEATURES, *pixels.shape)
    found: NDArray[Any] = PCA(most, svd_solver="randomized", random_state=seed).fit_transform(pixels)
    return found.astype(np.float64)


def _topics(dataset: Dataset, seed: int) -> NDArray[np.float64]:
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.preprocessing import normalize

    assert dataset.lengths is not None
    valid = np.arange(dataset.inputs.shape[1]) < dataset.lengths[:, None]
    known, columns = np.unique(dataset.inputs[valid], return_inverse=True)
    rows = np.repeat(np.arange(len(dataset)), dataset.lengths)
    counts = csr_matrix((np.ones(len(rows)), (rows, columns.reshape(-1))), shape=(len(dataset), len(known)))
    weights = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    if len(known) <= FEATURES:
        return np.asarray(weights.toarray(), dtype=np.float64)
    reduced = TruncatedSVD(FEATURES, random_state=seed).fit_transform(weights)
    return np.asarray(normalize(reduced), dtype=np.float64)
