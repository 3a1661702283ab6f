"""k-NN and probe against scikit-learn on real digits; features against tricks of scale."""

import keras
import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_sacl.evaluation import (
    evaluate_encoder,
    extract_features,
    knn_accuracy,
    l2_normalise,
    linear_probe,
)
from keras_sacl.evaluation.knn import top_columns
from keras_sacl.fingerprint import fingerprint


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_equals_scikit_learn(digits, k):
    x, y, queries, labels = digits
    voter = KNeighborsClassifier(
        k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / 0.07)
    ).fit(x.astype("float64"), y)
    expected = voter.score(queries.astype("float64"), labels)
    assert knn_accuracy(x, y, queries, labels, k=k) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("columns", [20, 100, 640, 641, 655, 4000])
@pytest.mark.parametrize("k", [1, 20])
def test_top_columns_are_those_of_a_sort(columns, k):
    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, columns)).astype("float32")
    values[0] = np.round(values[0])  # many ties: any of the equal ones will do
    largest, found = (x.numpy() for x in top_columns(values, k))
    assert all(len(set(row)) == k for row in found.tolist())
    np.testing.assert_array_equal(largest, np.sort(values, axis=1)[:, ::-1][:, :k])
    np.testing.assert_array_equal(np.take_along_axis(values, found, axis=1), largest)


def test_knn_does_not_depend_on_scale(digits):
    x, y, queries, labels = digits
    plain = knn_accuracy(x, y, queries, labels)
    assert knn_accuracy(1e-19 * x, y, 1e12 * queries, labels) == plain


def test_banks_of_any_size_one_after_the_other(digits):
    x, y, queries, labels = digits
    for size in (1200, 700, 30):
        voter = KNeighborsClassifier(1, metric="cosine").fit(x[:size], y[:size])
        found = knn_accuracy(x[:size], y[:size], queries, labels, k=1)
        assert found == pytest.approx(voter.score(queries, labels), abs=1e-9)


def test_knn_with_a_small_bank_uses_all_of_it():
    bank = np.eye(3, dtype="float32")
    assert knn_accuracy(bank, [0, 1, 2], bank, [0, 1, 2], k=20) == 1.0


def test_knn_arguments():
    x = np.eye(3, dtype="float32")
    for settings in ({"k": 0}, {"temperature": 0}):
        with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must"):
            knn_accuracy(x, [0, 1, 2], x, [0, 1, 2], **settings)
    with pytest.raises(ValueError, match="labelled"):
        knn_accuracy(x, [0, 1, -1], x, [0, 1, 2])


def test_l2_normalise_equals_float64():
    x = np.random.default_rng(0).normal(size=(50, 8))
    x[3] = 0
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    expected = x / np.where(lengths > 0, lengths, 1)
    for scale in (1.0, 1e-19, 1e19):
        np.testing.assert_allclose(l2_normalise(scale * x), expected, atol=1e-6)


def test_probe_equals_scikit_learn(digits):
    x, y, test, labels = digits
    found = linear_probe(x, y, test, labels)
    peer = make_pipeline(
        StandardScaler(), LogisticRegression(C=found["inverse_penalty"], max_iter=200)
    ).fit(x, y)
    assert found["top1"] == pytest.approx(peer.score(test, labels), abs=0.005)


def test_probe_solves_what_is_linear_whatever_the_scale():
    rng = np.random.default_rng(0)
    y = np.arange(300) % 3
    x = np.eye(3)[y] + 0.05 * rng.normal(size=(300, 3))
    x = np.concatenate([x, np.ones((300, 1))], axis=1).astype("float32")  # one constant dimension
    assert linear_probe(1e-19 * x[:200], y[:200], 1e-19 * x[200:], y[200:])["top1"] == 1.0


def test_probe_needs_two_classes():
    x = np.ones((10, 2), "float32")
    with pytest.raises(ValueError, match="at least 2 classes"):
        linear_probe(x, np.zeros(10), x, np.zeros(10))


def small_encoder():
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization(name="bn")(inputs)
    x = keras.layers.Flatten()(x)
    return keras.Model(inputs, x)


def batches(x, y, size=100):
    for i in range(0, len(x), size):
        yield x[i : i + size].reshape(-1, 8, 8, 1), y[i : i + size]


def test_features_keep_their_order(digits):
    x, y, *_ = digits
    features, labels = extract_features(small_encoder(), batches(x, y, size=700))
    np.testing.assert_allclose(features, x / np.sqrt(1 + 1e-3), rtol=1e-5)
    np.testing.assert_array_equal(labels, y)
    assert (features.dtype, labels.dtype) == (np.float32, np.int64)
    with pytest.raises(ValueError, match="not finite"):
        extract_features(lambda images: images[:, 0, :, 0] * np.nan, batches(x, y))
    with pytest.raises(ValueError, match="at least one batch"):
        extract_features(small_encoder(), [])


def test_evaluation_of_pixels(digits):
    x, y, test, labels = digits
    found = evaluate_encoder(small_encoder(), batches(x, y), batches(test, labels))
    similarity = l2_normalise(test).astype("float64") @ l2_normalise(x).astype("float64").T
    nearest = np.argsort(-similarity, axis=1)[:, :20]
    weights = softmax(np.take_along_axis(similarity, nearest, axis=1) / 0.07, axis=1)
    votes = np.stack([(weights * (y[nearest] == c)).sum(axis=1) for c in range(10)], axis=1)
    assert found["knn_top1"] == pytest.approx((votes.argmax(axis=1) == labels).mean(), abs=0.002)
    assert found["linear_top1"] > 0.85
    assert (found["num_train"], found["num_test"], found["feature_dim"]) == (1200, 597, 64)


def test_evaluation_notices_an_encoder_that_changes(digits):
    x, y, test, labels = digits
    encoder = small_encoder()

    def tampering():
        yield from batches(x, y)
        encoder.get_layer("bn").moving_mean.assign_add([1.0])

    with pytest.raises(RuntimeError, match="changed while it was evaluated"):
        evaluate_encoder(encoder, tampering(), batches(test, labels))


def test_fingerprint_sees_moving_statistics():
    encoder = small_encoder()
    before = fingerprint(encoder)
    assert fingerprint(encoder) == before
    encoder.get_layer("bn").moving_variance.assign([1.0001])
    assert fingerprint(encoder) != before


def test_protocols_that_cannot_be_are_refused(digits):
    x, y, *_ = digits
    sets = batches(x[:64], y[:64]), batches(x[:64], y[:64])
    with pytest.raises(ValueError, match="`protocols` must be among knn, .* Received: 'liner'"):
        evaluate_encoder(small_encoder(), *sets, protocols=("knn", "liner"))
    unlabelled = list(batches(x[:64], -np.ones(64, "int64")))
    with pytest.raises(ValueError, match="with linear need images labelled .* Received: none"):
        evaluate_encoder(
            small_encoder(), unlabelled, unlabelled, protocols=("representation", "linear")
        )


def test_what_cannot_be_measured_leaves_the_rest(digits):
    x, y, test, labels = digits
    sets = batches(x, y), batches(test[:5], labels[:5])
    found = evaluate_encoder(small_encoder(), *sets, protocols=("knn", "retrieval"))
    assert 0 <= found["knn_top1"] <= 1 and "recall_at_1" not in found
    assert "`ks` must be below the 5 images" in found["not_measured"]["retrieval"]
