"""How well clusters, found without labels, agree with the classes."""

import numpy as np

from keras_sacl.evaluation.features import class_labels, l2_normalise

CLUSTER_PROTOCOL = "kmeans-hungarian-v1"


def cluster_alignment(features, labels, test_features, test_labels, *, seed=0):
    """Accuracy of clusters as classes.

    k-means on the l2-normalised training features with as many clusters as classes; clusters are
    matched to classes one to one by the Hungarian algorithm, so that (images in common / size of
    the cluster) is largest; then each test image has the class of its nearest centre.

    "CompRess: Self-Supervised Learning by Compressing Representations" (2020), section 4.4.

    Args:
        features, labels: (N, F) and (N,), to cluster and to match by.
        test_features, test_labels: (M, F) and (M,).
        seed: Of k-means, which starts ten times.

    Returns:
        The accuracy on the test images, a float in [0, 1].

    Raises:
        ValueError: If there are fewer than two classes.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.cluster import KMeans

    classes, targets = np.unique(class_labels(labels), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"`labels` must hold at least 2 classes. Received: {len(classes)}")
    found = KMeans(len(classes), n_init=10, random_state=seed).fit(l2_normalise(features))
    common = np.zeros((len(classes), len(classes)))
    np.add.at(common, (found.labels_, targets), 1)
    share = common / np.maximum(common.sum(axis=1, keepdims=True), 1)
    clusters, matched = linear_sum_assignment(-share)
    class_of = np.empty(len(classes), classes.dtype)
    class_of[clusters] = classes[matched]
    predicted = class_of[found.predict(l2_normalise(test_features))]
    return float(np.mean(predicted == np.asarray(test_labels)))
