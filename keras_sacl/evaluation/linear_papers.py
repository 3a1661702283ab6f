"""The linear evaluations of the papers, each by its own recipe.

On cached features of the plain images: the papers that augment the images of their classifier do
so to gain the last points, which the name of the protocol ("cached") leaves no doubt about.
Nothing is chosen, so nothing is held out.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_sacl.evaluation.features import l2_normalise, standardise
from keras_sacl.evaluation.linear import check_labels
from keras_sacl.evaluation.linear_sgd import SGDSettings, fit_linear_grid, predict


@dataclasses.dataclass(frozen=True)
class PaperProbe:
    """A published recipe of a linear evaluation.

    Attributes:
        protocol: Its versioned name.
        settings: `SGDSettings` of one combination.
        prepare: From (train, test) features to those that the classifier sees.
    """

    protocol: str
    settings: SGDSettings
    prepare: Callable


def _as_they_are(train, test):
    return np.asarray(train, "float32"), np.asarray(test, "float32")


def _unit_length(train, test):
    return l2_normalise(train), l2_normalise(test)


def _unit_length_then_standard(train, test):
    return standardise(*_unit_length(train, test))


def _disco(rate):
    return PaperProbe(
        f"linear-disco-sgd-lr{rate}-100ep-cached-v1",
        SGDSettings((float(rate),), (0.0,), epochs=100, batch_size=256, milestones=(60, 80)),
        _as_they_are,
    )


# That of DisCo, after SEED and MoCo-v2, which SACL compares itself by: "DisCo: Remedying
# Self-supervised Learning on Lightweight Models with Distilled Contrastive Learning" (2022),
# section 4.1: 100 epochs, a tenth of the rate after 60 and 80. Rate 3, but 30 for the ResNets on
# ImageNet. Batch 256 and no decay are those of MoCo-v2.
DISCO, DISCO_RESNET = _disco(3), _disco(30)

# "On the Efficacy of Small Self-Supervised Contrastive Models without Distillation Signals"
# (2022): batch 256, 60 epochs, rate 1.5, a tenth of it after 40, features of length 1.
SSL_SMALL = PaperProbe(
    "linear-ssl-small-sgd-lr1.5-60ep-cached-v1",
    SGDSettings((1.5,), (0.0,), epochs=60, batch_size=256, milestones=(40,)),
    _unit_length,
)

# "CompRess: Self-Supervised Learning by Compressing Representations" (2020), section 4.3.
COMPRESS = PaperProbe(
    "linear-compress-sgd-lr0.01-40ep-cached-v1",
    SGDSettings((0.01,), (1e-4,), epochs=40, batch_size=256, milestones=(15, 30)),
    _unit_length_then_standard,
)


def paper_probe(train, train_labels, test, test_labels, probe, *, seed=0):
    """Top-1 accuracy of a linear classifier by a published recipe.

    Args:
        train, test: (N, F) and (M, F) features.
        train_labels, test_labels: (N,) and (M,) integers.
        probe: A `PaperProbe`.
        seed: Of the order of the rows.

    Returns:
        The accuracy, a float in [0, 1].

    Raises:
        ValueError: If there are fewer than two classes.
    """
    classes, targets = check_labels(train_labels)
    train, test = probe.prepare(train, test)
    weights = fit_linear_grid(train, targets, probe.settings, seed=seed)
    return float(np.mean(classes[predict(weights, test)[:, 0]] == np.asarray(test_labels)))
