"""A linear probe on frozen features."""

import warnings

import numpy as np

from keras_sacl.evaluation.features import class_labels, standardise

LINEAR_PROTOCOL = "linear-lbfgs-heldout20-v1"
_INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
_MAX_ITERATIONS = 200


def linear_probe(train, train_labels, test, test_labels, *, seed=0):
    """Top-1 accuracy of multinomial logistic regression on standardised features.

    The inverse penalty C is chosen on a held-out fifth of the training images (stratified), the
    probe is then fitted to all of them, and tested once. L-BFGS, at most 200 iterations.

    Args:
        train, test: (N, F) and (M, F) features.
        train_labels, test_labels: (N,) and (M,) integers.
        seed: Of the held-out split.

    Returns:
        A dict: top1 (in [0, 1]), inverse_penalty (the C that was chosen).

    Raises:
        ValueError: If there are fewer than two classes.
    """
    train_labels, test_labels = np.asarray(train_labels), np.asarray(test_labels)
    check_labels(train_labels)
    train, test = standardise(train, test)
    fit, held_out = held_out_split(train_labels, seed)

    def accuracy(c, rows, x, y):
        return float((_fit(c, train[rows], train_labels[rows]).predict(x) == y).mean())

    scores = [accuracy(c, fit, train[held_out], train_labels[held_out]) for c in _INVERSE_PENALTIES]
    chosen = _INVERSE_PENALTIES[int(np.argmax(scores))]
    top1 = accuracy(chosen, slice(None), test, test_labels)
    return {"top1": top1, "inverse_penalty": chosen}


def check_labels(labels):
    """The classes among labels (N,), and labels (N,) as indices into them.

    Raises:
        ValueError: If there are fewer than two classes, or several for an image.
    """
    classes, targets = np.unique(class_labels(labels), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"a linear probe needs at least 2 classes. Received: {len(classes)}")
    return classes, targets


def held_out_split(labels, seed):
    """Indices of four fifths to fit on and of the fifth to choose by, stratified if possible."""
    from sklearn.model_selection import train_test_split

    counts = np.unique(labels, return_counts=True)[1]
    stratified = counts.min() >= 2 and len(labels) >= 5 * len(counts)
    return train_test_split(
        np.arange(len(labels)),
        test_size=0.2,
        random_state=seed,
        stratify=labels if stratified else None,
    )


def _fit(c, x, y):
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # The protocol bounds the iterations, so reaching the bound is nothing to warn of.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=c, max_iter=_MAX_ITERATIONS).fit(x, y)
