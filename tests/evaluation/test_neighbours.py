"""Best-NN, few labels, retrieval and clusters against scikit-learn on real digits."""

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import confusion_matrix
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from keras_sacl.evaluation import (
    best_nn_accuracy,
    cluster_alignment,
    few_label_accuracy,
    knn_accuracy,
    retrieval_recall,
)


def test_best_nn_is_the_best_of_all_odd_k(digits):
    accuracy, best = best_nn_accuracy(*digits)
    found = {k: knn_accuracy(*digits, k=k) for k in range(1, 102, 2)}
    assert accuracy == max(found.values())
    assert best == min(k for k, value in found.items() if value == accuracy)


def test_best_nn_of_a_small_bank(digits):
    x, y, queries, labels = digits
    accuracy, best = best_nn_accuracy(x[:6], y[:6], queries, labels)
    assert best <= 5 and accuracy >= knn_accuracy(x[:6], y[:6], queries, labels, k=1)


@pytest.mark.parametrize("labels, count", [(1, 1), (5, 5), (0.1, 12)])
def test_few_labels_equal_scikit_learn(digits, labels, count):
    """The draws are made again here, by the same generator."""
    x, y, queries, truth = digits
    rng = np.random.default_rng(3)
    expected = []
    for _ in range(4):
        own = [np.flatnonzero(y == label) for label in range(10)]
        chosen = np.concatenate(
            [
                rng.choice(o, count if count != 12 else max(1, round(0.1 * len(o))), replace=False)
                for o in own
            ]
        )
        voter = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
        expected.append(voter.fit(x[chosen], y[chosen]).score(queries, truth))
    mean, std = few_label_accuracy(*digits, labels=labels, draws=4, seed=3)
    assert mean == pytest.approx(np.mean(expected), abs=0.002)
    assert std == pytest.approx(np.std(expected, ddof=1), abs=0.002)


def test_all_labels_are_the_nearest_neighbour(digits):
    x, y, queries, truth = digits
    every = few_label_accuracy(x, y, queries, truth, labels=0.999999, draws=1)
    assert every == (knn_accuracy(x, y, queries, truth, k=1), 0.0)


def test_too_many_labels_are_refused(digits):
    with pytest.raises(ValueError, match="`labels` must be at least 1 and at most the .* images"):
        few_label_accuracy(*digits, labels=1000)


def test_recall_equals_numpys(digits):
    x, y = digits[:2]
    similarity = cosine_similarity(x.astype("float64"))
    np.fill_diagonal(similarity, -np.inf)
    order = np.argsort(-similarity, axis=1)
    found = retrieval_recall(x, y)
    for k in (1, 2, 4, 8):
        expected = np.mean((y[order[:, :k]] == y[:, None]).any(axis=1))
        assert found[k] == pytest.approx(expected, abs=1e-3)


def test_recall_of_copies_counts_others_only():
    x = np.repeat(np.eye(3, dtype="float32"), 4, axis=0)
    assert retrieval_recall(x, np.repeat(np.arange(3), 4), ks=(1, 2)) == {1: 1.0, 2: 1.0}
    # Each image by itself in its class: its copies are of others.
    assert retrieval_recall(x, np.arange(12), ks=(1, 2)) == {1: 0.0, 2: 0.0}
    with pytest.raises(ValueError, match="`ks` must be below the 12 images"):
        retrieval_recall(x, np.arange(12), ks=(12,))


def test_clusters_equal_a_search_over_all_matchings(digits):
    x, y, test, truth = digits
    chosen, held = y < 5, truth < 5
    found = cluster_alignment(x[chosen], y[chosen], test[held], truth[held])
    means = KMeans(5, n_init=10, random_state=0).fit(normalize(x[chosen]))
    common = confusion_matrix(means.labels_, y[chosen], labels=range(5))
    share = common / common.sum(axis=1, keepdims=True)

    def best(cluster, free):
        if cluster == 5:
            return 0.0, ()
        return max(
            (share[cluster, c] + best(cluster + 1, free - {c})[0],
             (c, *best(cluster + 1, free - {c})[1]))
            for c in free
        )  # fmt: skip

    matching = np.array(best(0, frozenset(range(5)))[1])
    expected = np.mean(matching[means.predict(normalize(test[held]))] == truth[held])
    assert found == pytest.approx(expected, abs=0.01) and found > 0.8


def test_perfect_clusters_and_names_of_any_kind():
    labels = np.repeat([3, 7, 40], 20)
    x = np.eye(3)[np.repeat([2, 0, 1], 20)]
    assert cluster_alignment(x, labels, x, labels) == 1.0
    assert retrieval_recall(x, labels, ks=(1,)) == {1: 1.0}
    with pytest.raises(ValueError, match="`labels` must hold at least 2 classes"):
        cluster_alignment(x, np.zeros(60), x, labels)


def test_a_small_temperature_leaves_the_nearest_neighbour():
    rng = np.random.default_rng(0)
    bank, queries = rng.normal(size=(40, 8)), rng.normal(size=(200, 8))
    labels = np.arange(40) % 4
    nearest = labels[cosine_similarity(queries, bank).argmax(axis=1)]
    assert knn_accuracy(bank, labels, queries, nearest, k=20, temperature=1e-4) == 1
