"""What representations look like, without a classifier: spread, agreement, rank.

All take (N, F) features of frozen encoders and compute in float64.
"""

import numpy as np

from keras_sacl.evaluation.features import class_labels, l2_normalise

_BLOCK = 1024  # rows at a time: the N x N distances are never all in memory


def alignment(a, b):
    """Mean squared distance of the l2-normalised features of two views of each image.

    "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
    Hypersphere" (2020), with exponent 2. 0 where both views give the same, 2 for unrelated ones.

    Args:
        a, b: (N, F), row i of both from image i.

    Returns:
        A float in [0, 4].
    """
    a, b = _unit(a), _unit(b)
    return float(np.mean(np.sum((a - b) ** 2, axis=1)))


def uniformity(features, t=2.0):
    """log of the mean of exp(-t ||x - y||^2) over pairs of different images, l2-normalised.

    The same paper. 0 where all images are one point, near -2 t where they fill a large sphere.

    Args:
        features: (N, F), N at least 2.
        t: Sharpness of the potential.

    Returns:
        A float, at most 0.

    Raises:
        ValueError: If there is one image only.
    """
    x = _unit(features)
    if len(x) < 2:
        raise ValueError(f"`features` must be of at least 2 images. Received: {len(x)}")
    total = 0.0
    for start in range(0, len(x), _BLOCK):
        products = x[start : start + _BLOCK] @ x.T
        total += np.exp(-t * np.maximum(2 - 2 * products, 0)).sum()
    pairs = len(x) * (len(x) - 1)
    return float(np.log((total - len(x)) / pairs))  # less the pairs of an image with itself


def intra_class_alignment(features, labels):
    """Mean squared distance of the l2-normalised features of two different images of one class.

    Args:
        features: (N, F).
        labels: (N,) integers; every class with at least two images counts by its pairs.

    Returns:
        A float in [0, 4].

    Raises:
        ValueError: If no class has two images.
    """
    x, labels = _unit(features), class_labels(labels)
    total, pairs = 0.0, 0
    for label in np.unique(labels):
        own = x[labels == label]
        # sum over ordered pairs of ||x - y||^2 = 2 n sum ||x||^2 - 2 ||sum x||^2
        total += 2 * len(own) * np.sum(own**2) - 2 * np.sum(own.sum(axis=0) ** 2)
        pairs += len(own) * (len(own) - 1)
    if not pairs:
        raise ValueError("`labels` must hold two images of one class. Received none.")
    return float(max(total, 0.0) / pairs)


def instance_discrimination(a, b):
    """The share of images whose nearest feature among all second views is their own, by cosine.

    Args:
        a, b: (N, F), row i of both from image i.

    Returns:
        A float in [0, 1]; 1 / N for features that know nothing, also for a constant.
    """
    a, b = _unit(a), _unit(b)
    correct = 0.0
    for start in range(0, len(a), _BLOCK):
        products = a[start : start + _BLOCK] @ b.T
        best = products >= products.max(axis=1, keepdims=True) - 1e-12
        rows = np.arange(len(products))
        # Of equally near ones each is as good a guess.
        correct += np.sum(best[rows, start + rows] / best.sum(axis=1))
    return float(correct / len(a))


def effective_rank(features, epsilon=1e-7):
    """RankMe: exp of the entropy of the singular values, which sum to 1.

    "RankMe: Assessing the Downstream Performance of Pretrained Self-Supervised Representations by
    Their Rank" (2023). Of features as they are, neither centred nor normalised.

    Args:
        features: (N, F).
        epsilon: As in the paper, added to each share.

    Returns:
        A float from 1 (all on one line) to min(N, F).
    """
    x = np.asarray(features, "float64")
    largest = np.abs(x).max()
    if largest == 0:
        return 1.0
    values = np.linalg.svd(x / largest, compute_uv=False)
    shares = values / values.sum() + epsilon
    return float(np.exp(-np.sum(shares * np.log(shares))))


def dimension_std(features):
    """Mean over dimensions of the std of the l2-normalised features, times sqrt(F).

    Args:
        features: (N, F).

    Returns:
        A float: 0 for a constant, about 1 for directions that are spread evenly.
    """
    x = _unit(features)
    return float(x.std(axis=0).mean() * np.sqrt(x.shape[1]))


def off_diagonal_correlation(a, b=None):
    """Mean absolute correlation of different dimensions, of one or of two sets of features.

    Args:
        a: (N, F).
        b: (N, F), or None for `a` itself. Dimensions that are constant count as uncorrelated.

    Returns:
        A float in [0, 1].
    """
    absolute = np.abs(correlation(a, a if b is None else b))
    features = len(absolute)
    if features < 2:
        return 0.0
    return float((absolute.sum() - np.trace(absolute)) / (features * (features - 1)))


def correlation(a, b):
    """The correlations of the dimensions of (N, D) and (N, E) features: (D, E) in [-1, 1].

    Dimensions that are constant count as uncorrelated.
    """
    return _standard(a).T @ _standard(b) / len(a)


def agreement(a, b):
    """alignment and instance_discrimination of two views, (N, F) each."""
    return {measure.__name__: measure(a, b) for measure in (alignment, instance_discrimination)}


def spread(features):
    """uniformity, effective_rank, dimension_std and off_diagonal_correlation of (N, F) features."""
    measures = (uniformity, effective_rank, dimension_std, off_diagonal_correlation)
    return {measure.__name__: measure(features) for measure in measures}


def _unit(features):
    return l2_normalise(features).astype("float64")


def _standard(features):
    x = np.asarray(features, "float64")
    x = x - x.mean(axis=0)
    std = x.std(axis=0)
    return x / np.where(std > 0, std, np.inf)
