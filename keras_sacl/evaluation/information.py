"""The information plane: how much a representation keeps of its input, and of the label.

"DisCo" (2022), section 3.3 and figure 7; "Evaluating Capability of Deep Neural Networks for Image
Classification via Information Plane" (2018); "Opening the Black Box of Deep Neural Networks via
Information" (2017), which began it.
"""

import numpy as np
from scipy.special import softmax

from keras_sacl.evaluation.features import class_labels
from keras_sacl.evaluation.linear import check_labels
from keras_sacl.evaluation.linear_papers import COMPRESS
from keras_sacl.evaluation.linear_sgd import fit_linear_grid

INFORMATION_PROTOCOL = "information-probe-softmax-bins5-v1"
# The 30 of the paper of 2017, whose layers are small, are too many here: the outputs of a probe on
# noise (597 images, 10 classes) then had I(T; Y) = 3.31 of 3.32 bits, and 0.10 by 5 bins; those on
# the pixels of digits 3.16, of which shuffled labels have 0.8.
_BINS = 5
_MOST_BINS = 2**16


def probe_information(train, train_labels, test, test_labels, *, bins=_BINS, seed=0):
    """The place of a frozen encoder in the information plane, by the outputs of a linear probe.

    T are the class probabilities that a linear classifier, trained on `train` by CompRess' recipe,
    gives to the test images. DisCo, after the paper of 2018, also has the output of a classifier
    for T, trained on CIFAR-10: its dimensions are as few as the classes, where features are so
    many that their bins tell all images apart, whatever the encoder (see `information_plane`).
    DisCo follows the training on that task; here the encoder is frozen, and is one point. DisCo
    does not say how it bins; `INFORMATION_PROTOCOL`, with the default arguments, has 5 bins of
    [0, 1].

    Args:
        train, test: (N, F) and (M, F) features.
        train_labels, test_labels: (N,) and (M,) integers.
        bins: As in `information_plane`.
        seed: Of the order of the rows, and of the shuffled labels.

    Returns:
        As `information_plane`, over the M test images; and i_t_y_shuffled, I(T; Y) with the test
        labels shuffled: what of i_t_y comes from having few images in a cell.

    Raises:
        ValueError: As `information_plane`, or if there are fewer than two classes.
    """
    targets = check_labels(train_labels)[1]
    train, test = COMPRESS.prepare(train, test)
    weights = fit_linear_grid(train, targets, COMPRESS.settings, seed=seed)[0].astype("float64")
    outputs = softmax(test @ weights[:-1] + weights[-1], axis=1)
    found = information_plane(outputs, test_labels, bins=bins, value_range=(0, 1))
    shuffled = np.random.default_rng(seed).permutation(test_labels)
    chance = information_plane(outputs, shuffled, bins=bins, value_range=(0, 1))
    return {**found, "i_t_y_shuffled": chance["i_t_y"]}


def information_plane(t, labels=None, *, bins, value_range=None):
    """I(X; T) and I(T; Y) in bits, by binning.

    Every dimension of T is cut into the same bins of equal width, and an image's T becomes the
    cell that it lies in. X is any of the N images with probability 1 / N; the encoder is
    deterministic, H(T | X) = 0, so

        I(X; T) = H(T),    I(T; Y) = H(T) - H(T | Y) = H(T) - sum_y p(y) H(T | Y = y).

    With many dimensions nearly every image has a cell of its own. Then I(X; T) = log2 N and
    I(T; Y) = H(Y), for any encoder, and nothing is measured: compare `i_x_t` with its largest
    value, `i_x_t_max`. T must be of few dimensions, such as a classifier's outputs
    (`probe_information`), and the bins must be few. Even so I(T; Y) is too large where cells hold
    few images. Compare encoders by the same images and the same bins.

    Args:
        t: (N, D) floats.
        labels: (N,) integers from 0, or None.
        bins: How many in each dimension, 2 to 65,536.
        value_range: (low, high) of the bins; values beyond count to the outermost. Default: the
            smallest and largest value of all of T.

    Returns:
        A dict: i_x_t, i_x_t_max (log2 N), and with labels i_t_y, i_t_y_max (H(Y)).

    Raises:
        ValueError: If an argument is none of that, or T is not finite.
    """
    t = np.asarray(t, "float64")
    if t.ndim != 2 or not t.size or not np.isfinite(t).all():
        raise ValueError(f"`t` must be finite, of shape (N, D). Received: t of shape {t.shape}")
    cells = _cells(t, bins, value_range)
    total = _entropy(cells)
    found = {"i_x_t": total, "i_x_t_max": float(np.log2(len(t)))}
    if labels is None:
        return found
    labels = class_labels(labels)
    if len(labels) != len(t) or labels.min() < 0:
        raise ValueError(
            f"`labels` must be {len(t)} classes from 0. Received: {len(labels)}, the smallest "
            f"{labels.min()}"
        )
    classes, counts = np.unique(labels, return_counts=True)
    within = [_entropy(cells[labels == label]) for label in classes]
    # Rounding alone can take a difference of 0 below it.
    found["i_t_y"] = max(0.0, total - float(np.dot(counts / len(labels), within)))
    found["i_t_y_max"] = _entropy(labels)
    return found


def _cells(t, bins, value_range):
    """(N,) numbers, equal where all dimensions of two rows fall into the same bins."""
    if not 2 <= bins <= _MOST_BINS:
        raise ValueError(f"`bins` must be from 2 to {_MOST_BINS}. Received: bins={bins}")
    low, high = (t.min(), t.max()) if value_range is None else value_range
    if not (np.isfinite([low, high]).all() and low <= high):
        raise ValueError(
            "`value_range` must be two finite numbers, the smaller first. "
            f"Received: value_range={value_range}"
        )
    shares = (t - low) / (high - low) if high > low else np.zeros_like(t)
    indices = np.clip(np.floor(shares * bins), 0, bins - 1).astype("uint16")
    # A row as one value of many bytes: ten times as fast to sort as a row of many fields.
    rows = np.ascontiguousarray(indices).view(f"V{indices.itemsize * indices.shape[1]}")
    return np.unique(rows.ravel(), return_inverse=True)[1]


def _entropy(values):
    """Entropy in bits of the frequencies of values (N,)."""
    counts = np.unique(values, return_counts=True)[1]
    shares = counts / counts.sum()
    return max(0.0, float(-np.sum(shares * np.log2(shares))))
