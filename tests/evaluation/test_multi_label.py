"""mAP against definitions written out, against scikit-learn, and by hand; the SVM on digits."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.preprocessing import normalize
from sklearn.svm import LinearSVC

from keras_sacl import evaluation
from keras_sacl.evaluation import representation
from keras_sacl.evaluation.multi_label import average_precision, multi_label_map


def attributes(labels):
    """Three classes that several digits have: loops, being even, being above 6."""
    return np.stack([np.isin(labels, (0, 6, 8, 9)), labels % 2 == 0, labels > 6], 1).astype("int64")


@pytest.fixture(scope="module")
def pixels(digits):
    x, y, test, labels = digits
    return x[:600], attributes(y[:600]), test, attributes(labels)


def test_average_precision_by_hand():
    targets = np.array([1, 0, 1, 0, 0, 1])
    scores = -np.arange(6.0)
    area, eleven = average_precision(targets, scores)
    # Precisions 1, 2/3 and 3/6 at recalls 1/3, 2/3 and 1.
    assert area == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    # Steps 0 to 0.3 have precision 1; 0.4 to 0.6 have 2/3; 0.7 to 1 have 1/2.
    assert eleven == pytest.approx((4 * 1 + 3 * 2 / 3 + 4 * 1 / 2) / 11)


def test_a_later_precision_counts_for_earlier_recalls_in_eleven_points():
    area, eleven = average_precision([0, 1, 1], [3.0, 2.0, 1.0])
    assert area == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert eleven == pytest.approx(2 / 3)  # not 1, scikit-learn's point at recall 0


def test_tenths_of_recall_are_reached():
    """Ten positives, a negative behind each: the recall of k / 10 is there to the last bit."""
    targets = np.tile([1, 0], 10)
    eleven = average_precision(targets, -np.arange(20.0))[1]
    precisions = [k / (2 * k - 1) for k in range(1, 11)]
    assert eleven == pytest.approx((precisions[0] + sum(precisions)) / 11)


def test_average_precision_equals_the_definitions():
    rng = np.random.default_rng(0)
    for _ in range(5):
        targets = rng.integers(0, 2, 60)
        scores = np.round(rng.normal(size=60), 1)  # with ties
        points = []
        for threshold in sorted(set(scores), reverse=True):
            above = scores >= threshold
            points.append((targets[above].sum() / targets.sum(), targets[above].mean()))
        recalls = np.array([0.0] + [recall for recall, _ in points])
        area = np.sum(np.diff(recalls) * [precision for _, precision in points])
        eleven = np.mean([max(p for r, p in points if 10 * r >= step - 1e-6) for step in range(11)])
        found = average_precision(targets, scores)
        assert found == pytest.approx((area, eleven))
        assert found[0] == pytest.approx(average_precision_score(targets, scores))
    with pytest.raises(ValueError, match="`targets` must hold a positive"):
        average_precision(np.zeros(3), np.arange(3.0))


def test_equals_scikit_learns_grid_search(pixels):
    x, targets, test, test_targets = pixels
    found = multi_label_map(x, targets, test, test_targets, seed=4)
    peers, chosen = [], []
    for own, truth in zip(targets.T, test_targets.T, strict=True):
        search = GridSearchCV(
            LinearSVC(class_weight={1: 2, 0: 1}, dual=False, tol=1e-6, max_iter=10_000),
            {"C": [0.01, 0.1, 1, 10]},
            scoring="average_precision",
            cv=StratifiedKFold(3, shuffle=True, random_state=4),
        ).fit(normalize(x.astype("float64")), own)
        scores = search.decision_function(normalize(test.astype("float64")))
        peers.append(average_precision_score(truth, scores))
        chosen.append(search.best_params_["C"])
    assert found["inverse_penalties"] == chosen
    np.testing.assert_allclose(found["average_precisions"], peers, atol=2e-3)
    assert found["map"] == pytest.approx(np.mean(peers), abs=2e-3)
    assert 0.8 < found["map_11_point"] < 1
    assert found["map_11_point"] == np.mean(found["average_precisions_11_point"])


def test_ignored_targets_are_as_if_the_image_were_not_there(pixels):
    x, targets, test, test_targets = (part.copy() for part in pixels)
    first = {"train": np.arange(600) % 7 == 0, "test": np.arange(len(test)) % 5 == 0}
    without = multi_label_map(
        x[~first["train"]], targets[~first["train"], :1],
        test[~first["test"]], test_targets[~first["test"], :1],
    )  # fmt: skip
    targets[first["train"], 0] = test_targets[first["test"], 0] = -1
    found = multi_label_map(x, targets, test, test_targets)
    assert found["average_precisions"][0] == pytest.approx(without["map"], abs=1e-12)
    everything = multi_label_map(*pixels)["average_precisions"]
    assert found["average_precisions"][0] != pytest.approx(everything[0], abs=1e-6)
    assert found["average_precisions"][1:] == everything[1:]


def test_the_scale_and_the_order_of_classes_do_not_matter(pixels):
    x, targets, test, test_targets = pixels
    plain = multi_label_map(x, targets, test, test_targets)
    found = multi_label_map(1e-19 * x, targets[:, ::-1], 1e9 * test, test_targets[:, ::-1])
    np.testing.assert_allclose(
        found["average_precisions"], plain["average_precisions"][::-1], atol=1e-3
    )


def test_rare_classes(pixels):
    x, targets, test, test_targets = (part.copy() for part in pixels)
    targets[:, 1] = np.arange(600) == 0  # too few to choose by
    test_targets[:, 2] = 0
    found = multi_label_map(x, targets, test, test_targets)
    assert found["inverse_penalties"][1] == 1.0
    assert found["average_precisions"][2] is None
    assert found["average_precisions_11_point"][2] is None
    assert found["map"] == np.mean(found["average_precisions"][:2])


def test_bad_targets(pixels):
    x, targets, test, test_targets = pixels
    with pytest.raises(ValueError, match=r"`train_targets` must be multi-hot, \(600, C\)"):
        multi_label_map(x, targets[:, 0], test, test_targets)
    with pytest.raises(ValueError, match="`test_targets` must be 1, 0 or -1"):
        multi_label_map(x, targets, test, 2 * test_targets)
    with pytest.raises(ValueError, match="same classes. Received: 3 and 2"):
        multi_label_map(x, targets, test, test_targets[:, :2])
    with pytest.raises(ValueError, match="Received: not so for 1 of 3 classes"):
        multi_label_map(x, targets * [1, 0, 1], test, test_targets)
    with pytest.raises(ValueError, match="`test_targets` must hold an image of a class"):
        multi_label_map(x, targets, test, np.minimum(test_targets, 0))


@pytest.mark.parametrize(
    "measure",
    [
        evaluation.knn_accuracy,
        evaluation.best_nn_accuracy,
        lambda *features: evaluation.few_label_accuracy(*features, labels=1),
        evaluation.linear_probe,
        evaluation.linear_sgd_probe,
        evaluation.cluster_alignment,
        lambda x, y, *_: evaluation.retrieval_recall(x, y),
        lambda x, y, *_: representation.intra_class_alignment(x, y),
    ],
)
def test_protocols_for_one_class_each_refuse_multi_hot_labels(pixels, measure):
    with pytest.raises(ValueError, match=r"`labels` must be one class .* labels of shape \(600, 3"):
        measure(*pixels)
