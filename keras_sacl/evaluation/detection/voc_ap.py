"""Average precision as the PASCAL VOC challenges define it, in NumPy."""

import numpy as np


def voc_average_precision(detections, truths, num_classes, *, iou_threshold=0.5):
    """The average precision of each class, in both forms of VOC.

    The detections of a class are walked through over all images, by falling score. Each goes to
    the object of its class and image that it overlaps most. It is right if they overlap by
    `iou_threshold` and the object was not found before. A detection of a difficult object counts
    neither way, and difficult objects need not be found.

    "The PASCAL Visual Object Classes (VOC) Challenge" (2010), section 4.2; its development kit
    settles what the text leaves open.

    Args:
        detections: For each image (boxes, scores, classes): (D, 4) floats, (D,) floats, (D,)
            integers.
        truths: For each image (boxes, classes, difficult): (G, 4) floats, (G,) integers, (G,)
            booleans.
        num_classes: C; classes are 0 to C - 1.
        iou_threshold: Overlap that makes a detection right, in (0, 1].

        Boxes are (y1, x1, y2, x2) or (x1, y1, x2, y2), all alike, in any unit and as continuous
        coordinates. (The kit counts both border pixels in, which makes its boxes a pixel larger.)

    Returns:
        A dict: "11point", mean precision at recall 0, 0.1, ..., 1 (VOC 2007), and "area", the
        area under precision over recall (VOC 2010 and later), both float64 (C,) and NaN for a
        class without objects; "objects", int64 (C,), those that are not difficult.

    Raises:
        ValueError: If the numbers of images differ, or `iou_threshold` is out of range.
    """
    if len(detections) != len(truths):
        raise ValueError(
            "`detections` and `truths` must have an entry for each image. "
            f"Received: {len(detections)} and {len(truths)} entries"
        )
    if not 0 < iou_threshold <= 1:
        raise ValueError(
            f"`iou_threshold` must be in (0, 1]. Received: iou_threshold={iou_threshold}"
        )
    eleven, area, objects = (np.full(num_classes, np.nan) for _ in range(3))
    for index in range(num_classes):
        right, objects[index] = _match(detections, truths, index, iou_threshold)
        if objects[index]:
            eleven[index] = eleven_point(right, int(objects[index]))
            area[index] = area_under_curve(right, int(objects[index]))
    return {"11point": eleven, "area": area, "objects": objects.astype("int64")}


def mean_over_classes(values):
    """The mean of (C,) average precisions over the classes with objects; NaN if there is none."""
    values = np.asarray(values, "float64")
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def eleven_point(right, objects):
    """VOC 2007's form: the mean over recalls of the best precision at that recall or more.

    Args:
        right: (D,) booleans, by falling score.
        objects: Number of objects to find, at least 1.

    Returns:
        A float in [0, 1].
    """
    found, precision = _curve(right)
    # In integers: as floats, 3 of 10 objects are less than the fourth of the eleven recalls.
    best = [precision[10 * found >= k * objects].max(initial=0.0) for k in range(11)]
    return float(np.mean(best))


def area_under_curve(right, objects):
    """VOC 2010's form: the area under precision over recall, made to fall monotonically.

    Args:
        right: (D,) booleans, by falling score.
        objects: Number of objects to find, at least 1.

    Returns:
        A float in [0, 1].
    """
    found, precision = _curve(right)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    # Recall grows by 1 / objects where a detection is right, and nowhere else.
    return float(envelope[np.asarray(right, bool)].sum() / objects)


def overlaps(boxes, others):
    """Intersection over union of (D, 4) with (G, 4) boxes: (D, G) in [0, 1]."""
    boxes, others = (np.asarray(b, "float64").reshape(-1, 4) for b in (boxes, others))
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=-1)
    union = _area(boxes)[:, None] + _area(others)[None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _area(boxes):
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1)


def _curve(right):
    """Of the first n detections, n = 1 ... D: how many are right, and which share of them."""
    found = np.cumsum(np.asarray(right, bool))
    return found, found / np.arange(1, len(found) + 1)


def _match(detections, truths, index, iou_threshold):
    """Whether each detection of a class is right, by falling score, and the number of objects."""
    scores, verdicts, objects = [], [], 0
    for (boxes, image_scores, classes), truth in zip(detections, truths, strict=True):
        true_boxes, true_classes, difficult = (np.asarray(part) for part in truth)
        of_class = true_classes == index
        true_boxes, difficult = true_boxes[of_class], difficult[of_class].astype(bool)
        objects += int(np.sum(~difficult))
        chosen = np.flatnonzero(np.asarray(classes) == index)
        chosen = chosen[np.argsort(-np.asarray(image_scores)[chosen], kind="stable")]
        if not len(chosen):
            continue
        scores.append(np.asarray(image_scores)[chosen])
        shared = overlaps(np.asarray(boxes)[chosen], true_boxes)
        verdicts.append(_verdicts(shared, difficult, iou_threshold))
    if not scores:
        return np.zeros(0, bool), objects
    # Images do not compete for objects, so that each was judged by itself.
    verdicts = np.concatenate(verdicts)[np.argsort(-np.concatenate(scores), kind="stable")]
    return verdicts[verdicts >= 0] == 1, objects


def _verdicts(shared, difficult, iou_threshold):
    """For overlaps (D, G), rows by falling score: 1 right, 0 wrong, -1 counts neither way."""
    found = np.zeros(len(difficult), bool)
    verdicts = np.zeros(len(shared), int)
    for row, overlap in enumerate(shared if len(difficult) else ()):
        best = int(np.argmax(overlap))
        if overlap[best] >= iou_threshold:
            if difficult[best]:
                verdicts[row] = -1
            elif not found[best]:
                verdicts[row], found[best] = 1, True
    return verdicts
