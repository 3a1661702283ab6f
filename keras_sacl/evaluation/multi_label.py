"""Images with several classes each: mean average precision of linear classifiers."""

import warnings

import numpy as np

from keras_sacl.evaluation.features import l2_normalise

MULTI_LABEL_PROTOCOL = "voc07-svm-cv-v1"
_INVERSE_PENALTIES = (0.01, 0.1, 1.0, 10.0)
_UNCHOSEN = 1.0
_FOLDS = 3
_MAX_ITERATIONS = 2000
_RECALLS = 11


def multi_label_map(train, train_targets, test, test_targets, *, seed=0):
    """Mean average precision of one linear SVM for each class, on l2-normalised features.

    VOC07's linear classification, `MULTI_LABEL_PROTOCOL`, as in "Scaling and Benchmarking
    Self-Supervised Visual Representation Learning" (2019), section 6.1: scikit-learn's
    `LinearSVC` (squared hinge, l2 penalty), positives weighing twice; for each class C of 0.01,
    0.1, 1 and 10 (the grid of "VirTex", 2020) is that of the best average precision in 3-fold
    cross validation on the training images; then fitted to all of them, and tested once.

    Images with target -1 for a class are left out for that class, in training and in testing. A
    class with fewer than 2 images of either kind to choose by has C = 1.

    Args:
        train, test: (N, F) and (M, F) features.
        train_targets, test_targets: (N, C) and (M, C) integers: 1 for a class that is in the
            image, 0 for one that is not, -1 to ignore.
        seed: Of the folds.

    Returns:
        A dict: map and map_11_point, means over the classes of the two forms of average precision,
        in [0, 1] (see `average_precision`); average_precisions and average_precisions_11_point
        (lists of C floats, None for a class that no test image has: it does not count for the
        means); inverse_penalties (a list of C floats, those that were chosen).

    Raises:
        ValueError: If targets are none of that, if a class has no training image with it or none
            without it, or if no class has a test image.
    """
    train_targets = _check_targets(train_targets, len(train), "train_targets")
    test_targets = _check_targets(test_targets, len(test), "test_targets")
    if train_targets.shape[1] != test_targets.shape[1]:
        raise ValueError(
            "`train_targets` and `test_targets` must have the same classes. Received: "
            f"{train_targets.shape[1]} and {test_targets.shape[1]}"
        )
    positives = (train_targets == 1).sum(axis=0)
    lacking = np.flatnonzero(np.minimum(positives, (train_targets == 0).sum(axis=0)) == 0)
    if len(lacking):
        raise ValueError(
            "`train_targets` must hold, for each class, an image with it and one without it. "
            f"Received: not so for {', '.join(map(str, lacking))} of {len(positives)} classes"
        )
    if not (test_targets == 1).any():
        raise ValueError("`test_targets` must hold an image of a class. Received: none")
    train, test = l2_normalise(train), l2_normalise(test)
    areas, eleven, chosen = [], [], []
    for own, test_own in zip(train_targets.T, test_targets.T, strict=True):
        known, test_known = own >= 0, test_own >= 0
        x, y = train[known], own[known]
        chosen.append(_choose(x, y, seed))
        if not test_own[test_known].any():
            areas.append(None)
            eleven.append(None)
            continue
        scores = _svm(chosen[-1], seed, x, y).decision_function(test[test_known])
        area, points = average_precision(test_own[test_known], scores)
        areas.append(area)
        eleven.append(points)
    return {
        "map": float(np.mean([x for x in areas if x is not None])),
        "map_11_point": float(np.mean([x for x in eleven if x is not None])),
        "average_precisions": areas,
        "average_precisions_11_point": eleven,
        "inverse_penalties": chosen,
    }


def average_precision(targets, scores):
    """The two forms of average precision in use.

    Args:
        targets: (N,), 1 for positives and 0 for negatives.
        scores: (N,) floats, larger for positives; images of one score come together.

    Returns:
        (area, eleven): area is the sum over the ranks of (recall gained) x precision, as
        scikit-learn has it; eleven the mean over recalls r = 0, 0.1, ..., 1 of the largest
        precision at a recall of at least r, "The Pascal Visual Object Classes (VOC) Challenge"
        (2010), section 4.2.1.

    Raises:
        ValueError: If there is no positive.
    """
    from sklearn.metrics import average_precision_score, precision_recall_curve

    if not np.any(targets):
        raise ValueError("`targets` must hold a positive. Received: none")
    precision, recall, _ = precision_recall_curve(targets, scores)
    # The last point, of precision 1 at recall 0, is for plots: no image is there.
    precision, recall = precision[:-1], recall[:-1]
    # A recall of 3 / 10 must reach the step 0.1 x 3, which is larger in floating point.
    steps = np.arange(_RECALLS) / (_RECALLS - 1) - 1e-9
    eleven = np.mean([precision[recall >= step].max() for step in steps])
    return float(average_precision_score(targets, scores)), float(eleven)


def _choose(x, y, seed):
    """The inverse penalty of the best average precision in cross validation."""
    from sklearn.model_selection import StratifiedKFold

    folds = min(_FOLDS, int(y.sum()), int(len(y) - y.sum()))
    if folds < 2:
        return _UNCHOSEN
    split = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, y))

    def score(c):
        found = []
        for fit, held in split:
            scores = _svm(c, seed, x[fit], y[fit]).decision_function(x[held])
            found.append(average_precision(y[held], scores)[0])
        return np.mean(found)

    return max(_INVERSE_PENALTIES, key=score)


def _svm(c, seed, x, y):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    # The protocol bounds the iterations, so reaching the bound is nothing to warn of.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LinearSVC(
            C=c, class_weight={1: 2, 0: 1}, dual="auto", max_iter=_MAX_ITERATIONS, random_state=seed
        ).fit(x, y)


def _check_targets(targets, count, name):
    targets = np.asarray(targets)
    if targets.ndim != 2 or len(targets) != count:
        raise ValueError(
            f"`{name}` must be multi-hot, ({count}, C). Received: shape {targets.shape}"
        )
    if not np.isin(targets, (-1, 0, 1)).all():
        raise ValueError(
            f"`{name}` must be 1, 0 or -1. Received: values from {targets.min()} to {targets.max()}"
        )
    return targets.astype("int64")
