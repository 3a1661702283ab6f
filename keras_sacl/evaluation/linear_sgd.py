"""Linear probes by SGD, for a whole grid of learning rates and weight decays at once.

The papers' linear evaluations are SGD with one rate; which rate is right depends on the encoder.
On cached features all settings of a grid share every matrix product: 18 together take as long as 5
one by one.
"""

import dataclasses
import itertools

import numpy as np
import tensorflow as tf

from keras_sacl.evaluation.features import standardise
from keras_sacl.evaluation.linear import check_labels, held_out_split

LINEAR_SGD_PROTOCOL = "linear-sgd-grid-heldout20-v1"
_BLOCK = 1024  # rows whose logits, of all settings and classes, are in memory at a time


@dataclasses.dataclass(frozen=True)
class SGDSettings:
    """A grid of linear probes: every learning rate with every weight decay.

    Attributes:
        learning_rates, weight_decays: The grid. Rates are for the mean loss over a batch.
        epochs, batch_size: Passes over the features, and rows per step.
        milestones: Epochs after which the rate is multiplied by `decay`.
        decay: See `milestones`.
        momentum: Of SGD, as PyTorch defines it: v = momentum v + g, w = w - rate v.
    """

    learning_rates: tuple = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
    weight_decays: tuple = (0.0, 1e-5, 1e-4)
    epochs: int = 40
    batch_size: int = 256
    milestones: tuple = (15, 30)
    decay: float = 0.1
    momentum: float = 0.9

    @property
    def grid(self):
        """All (learning rate, weight decay), the decays of the first rate first."""
        return list(itertools.product(self.learning_rates, self.weight_decays))


_DEFAULTS = SGDSettings()


def linear_sgd_probe(train, train_labels, test, test_labels, settings=_DEFAULTS, *, seed=0):
    """Top-1 accuracy of a linear classifier trained by SGD on standardised features.

    The grid is fitted to four fifths of the training features at once. The setting that is best on
    the held-out fifth is then fitted to all of them, and tested once.

    Args:
        train, test: (N, F) and (M, F) features.
        train_labels, test_labels: (N,) and (M,) integers.
        settings: `SGDSettings`.
        seed: Of the held-out split and of the order of the rows.

    Returns:
        A dict: top1 (in [0, 1]), learning_rate, weight_decay (those chosen), held_out (a list of
        learning_rate, weight_decay, top1 for the whole grid).

    Raises:
        ValueError: If there are fewer than two classes, or the grid is empty.
    """
    if not settings.grid:
        raise ValueError(f"the grid must not be empty. Received: settings={settings}")
    classes, targets = check_labels(train_labels)
    train, test = standardise(train, test)
    fit, held_out = held_out_split(targets, seed)
    weights = fit_linear_grid(train[fit], targets[fit], settings, seed=seed)
    scores = (predict(weights, train[held_out]) == targets[held_out, None]).mean(axis=0)
    rate, decay = settings.grid[int(np.argmax(scores))]
    chosen = dataclasses.replace(settings, learning_rates=(rate,), weight_decays=(decay,))
    weights = fit_linear_grid(train, targets, chosen, seed=seed)
    top1 = (classes[predict(weights, test)[:, 0]] == np.asarray(test_labels)).mean()
    table = [
        {"learning_rate": r, "weight_decay": d, "top1": float(score)}
        for (r, d), score in zip(settings.grid, scores, strict=True)
    ]
    return {"top1": float(top1), "learning_rate": rate, "weight_decay": decay, "held_out": table}


def fit_linear_grid(x, y, settings, *, seed=0):
    """Multinomial logistic regression by SGD from zero, for each setting of the grid.

    Args:
        x: (N, F) float32 features.
        y: (N,) integers 0, 1, ..., C - 1.
        settings: `SGDSettings` of G combinations.
        seed: Of the order of the rows, new in each epoch and the same for all combinations. A
            last batch that is not full is left out, unless it is the only one.

    Returns:
        (G, F + 1, C) float32: weights, and biases as the last row.
    """
    count, dim = x.shape
    classes = int(y.max()) + 1
    rates, decays = np.float32(settings.grid).T
    batch = min(settings.batch_size, count)
    # A column of ones makes the bias a weight, with the weight decay of one, as in PyTorch.
    features = tf.constant(np.concatenate([x, np.ones((count, 1), "float32")], axis=1))
    targets = tf.constant(y)
    shape = [dim + 1, len(rates), classes]
    weights, velocity = (tf.Variable(tf.zeros(shape)) for _ in range(2))

    @tf.function(autograph=False)
    def step(rows, factor):
        chosen = tf.gather(features, rows)
        logits = tf.matmul(chosen, tf.reshape(weights, [dim + 1, -1]))
        logits = tf.reshape(logits, [batch, len(rates), classes])
        errors = tf.nn.softmax(logits) - tf.one_hot(tf.gather(targets, rows), classes)[:, None]
        errors = tf.reshape(errors, [batch, -1]) / batch
        gradient = tf.reshape(tf.matmul(chosen, errors, transpose_a=True), shape)
        gradient += decays[:, None] * weights
        velocity.assign(settings.momentum * velocity + gradient)
        weights.assign_sub(factor * rates[:, None] * velocity)

    rng = np.random.default_rng(seed)
    for epoch in range(settings.epochs):
        passed = sum(epoch >= milestone for milestone in settings.milestones)
        factor = tf.constant(settings.decay**passed, tf.float32)
        order = rng.permutation(count)
        for start in range(0, count - batch + 1, batch):
            step(tf.constant(order[start : start + batch]), factor)
    return weights.numpy().transpose(1, 0, 2)


def predict(weights, x):
    """The classes (N, G) that G linear classifiers (G, F + 1, C) give to features (N, F)."""
    found = [np.zeros((0, len(weights)), int)]
    for start in range(0, len(x), _BLOCK):
        logits = np.einsum("nf,gfc->ngc", x[start : start + _BLOCK], weights[:, :-1], optimize=True)
        found.append((logits + weights[:, -1]).argmax(axis=2))
    return np.concatenate(found)
