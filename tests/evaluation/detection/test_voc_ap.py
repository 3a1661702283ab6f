"""Average precision as VOC defines it: by hand, by scikit-learn, and by the text."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve

from keras_sacl.evaluation.detection.voc_ap import (
    area_under_curve,
    eleven_point,
    mean_over_classes,
    overlaps,
    voc_average_precision,
)

BOX, APART = [0.0, 0.0, 10.0, 10.0], [50.0, 50.0, 60.0, 60.0]


def one_image(boxes, scores, truths, difficult=None, **settings):
    difficult = [False] * len(truths) if difficult is None else difficult
    return voc_average_precision(
        [(np.reshape(boxes, (-1, 4)), np.array(scores), np.zeros(len(scores), int))],
        [(np.reshape(truths, (-1, 4)), np.zeros(len(truths), int), np.array(difficult, bool))],
        1,
        **settings,
    )


def test_the_curve_by_hand():
    # Precision 1, 1/2, 2/3, 2/4, 3/5 at recall 1/4, 1/4, 2/4, 2/4, 3/4; one object is never found.
    right = [True, False, True, False, True]
    assert area_under_curve(right, 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    # Recalls 0, 0.1, 0.2: 1; 0.3, 0.4, 0.5: 2/3; 0.6, 0.7: 3/5; 0.8, 0.9, 1: 0.
    assert eleven_point(right, 4) == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11)


def test_eleven_recalls_are_exact():
    # 3 / 10 < 0.1 + 0.1 + 0.1 in floats; three of ten objects reach the recalls 0 to 0.3.
    for found in range(1, 11):
        assert eleven_point([True] * found, 10) == pytest.approx((found + 1) / 11)


def test_nothing_found_and_nothing_there():
    assert one_image([], [], [BOX])["area"] == 0
    nothing = one_image([BOX], [0.9], [])
    assert np.isnan(nothing["area"][0]) and nothing["objects"][0] == 0
    assert mean_over_classes([0.25, np.nan, 0.75]) == 0.5
    assert np.isnan(mean_over_classes([np.nan]))


def test_a_second_detection_of_an_object_is_wrong():
    # Which is right goes by the score, not by the overlap.
    near = [0.0, 0.0, 10.0, 8.0]
    found = one_image([BOX, near, APART], [0.5, 0.9, 0.3], [BOX, APART])
    assert found["area"][0] == pytest.approx((1 + 2 / 3) / 2)


def test_a_detection_goes_to_the_object_it_overlaps_most():
    # Both detections overlap the first object most, though the second would do for the other.
    truths = [[0.0, 0.0, 10.0, 10.0], [0.0, 4.0, 10.0, 14.0]]
    boxes = [[0.0, 0.0, 10.0, 10.0], [0.0, 1.0, 10.0, 11.0]]
    found = one_image(boxes, [0.9, 0.8], truths, iou_threshold=0.5)
    assert found["area"][0] == pytest.approx(1 / 2)


def test_difficult_objects_count_neither_way():
    found = one_image([APART, APART, BOX], [0.9, 0.8, 0.7], [BOX, APART], [False, True])
    assert found["area"][0] == found["11point"][0] == 1 and found["objects"][0] == 1


def test_the_threshold_itself_is_enough():
    half = [[0.0, 0.0, 10.0, 5.0]]
    assert one_image(half, [0.9], [BOX])["area"] == 1
    assert one_image(half, [0.9], [BOX], iou_threshold=0.51)["area"] == 0


def test_classes_and_images_are_kept_apart():
    boxes = np.array([BOX, BOX])
    found = voc_average_precision(
        [(boxes, [0.9, 0.8], [0, 1]), (boxes[:1], [0.95], [0])],
        [(boxes[:1], [0], [False]), (boxes[:1], [1], [False])],
        3,
    )
    # Class 0: wrong in the second image (0.95), then right. Class 1: wrong, and never found.
    np.testing.assert_allclose(found["area"], [1 / 2, 0, np.nan])
    np.testing.assert_array_equal(found["objects"], [1, 1, 0])


@pytest.mark.parametrize("seed", range(5))
def test_against_scikit_learn(seed):
    """All objects found once: then VOC's curve is that of a ranking with these labels."""
    rng = np.random.default_rng(seed)
    right = rng.random(60) < 0.4
    scores = np.sort(rng.random(60))[::-1]
    precision, recall, _ = precision_recall_curve(right, scores)
    envelope = [precision[recall >= r].max() for r in recall]
    area = sum((recall[i] - recall[i + 1]) * envelope[i] for i in range(len(recall) - 1))
    assert area_under_curve(right, right.sum()) == pytest.approx(area)
    # But for the last point, recall 0 and precision 1, which scikit-learn adds.
    levels = [precision[:-1][recall[:-1] >= k / 10 - 1e-9].max() for k in range(11)]
    assert eleven_point(right, right.sum()) == pytest.approx(np.mean(levels))
    # scikit-learn's own form has no envelope. It agrees where precision only falls.
    falling = np.sort(right)[::-1]
    expected = average_precision_score(falling, scores)
    assert area_under_curve(falling, right.sum()) == pytest.approx(expected)
    assert area_under_curve(right, right.sum()) >= average_precision_score(right, scores) - 1e-9


def test_overlaps_against_keras_cv():
    import keras_cv

    rng = np.random.default_rng(0)
    corners = rng.random((2, 40, 2, 2)).astype("float32") * 100
    boxes, others = np.sort(corners, axis=2).reshape(2, 40, 4)
    expected = keras_cv.bounding_box.compute_iou(boxes, others, "xyxy")
    np.testing.assert_allclose(overlaps(boxes, others), expected, atol=1e-5)
    assert overlaps([BOX], [[5.0, 5.0, 15.0, 15.0]])[0, 0] == pytest.approx(25 / 175)
    assert overlaps([[3.0, 3.0, 3.0, 3.0]], [[3.0, 3.0, 3.0, 3.0]])[0, 0] == 0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="an entry for each image. Received: 1 and 0"):
        voc_average_precision([(np.zeros((0, 4)), [], [])], [], 1)
    with pytest.raises(ValueError, match="Received: iou_threshold=0"):
        voc_average_precision([], [], 1, iou_threshold=0)
