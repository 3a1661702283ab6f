"""Detection transfer: how good a pretrained encoder is as the backbone of a detector."""

import keras

from keras_sacl.evaluation.detection.data import (
    DetectionSource,
    load_detection,
    training_batches,
)
from keras_sacl.evaluation.detection.detector import build_detector, settle_statistics, untrained
from keras_sacl.evaluation.detection.training import (
    DETECTION_PROTOCOL,
    Diverged,
    detect,
    evaluate_detector,
    train_detector,
)

__all__ = [
    "DETECTION_PROTOCOL",
    "DetectionSource",
    "Diverged",
    "build_detector",
    "detect",
    "evaluate_detector",
    "load_detection",
    "train_detector",
    "transfer",
    "untrained_baseline",
]
_SETTLING_BATCHES = 16


def transfer(encoder, train, test, *, image_size, head_width=256, seed=0, say=print, **training):
    """Builds, trains and evaluates the detector of one encoder.

    Args:
        encoder, image_size, head_width: As in `build_detector`.
        train, test: `DetectionSource`s.
        seed: Of fresh weights and of the order. It sets Keras' global random state.
        say: Called with lines for the user.
        **training: As of `train_detector`.

    Returns:
        As `evaluate_detector`.

    Raises:
        ValueError, Diverged: As these functions.
    """
    keras.utils.set_random_seed(seed)
    detector = build_detector(encoder, len(train.class_names), image_size, head_width=head_width)
    train_detector(detector, train, seed=seed, say=say, **training)
    return evaluate_detector(detector, test)


def untrained_baseline(encoder, train, *, image_size, batch_size, seed=0):
    """The encoder with fresh weights, its moving statistics those of the training images.

    Args:
        encoder: The pretrained encoder; it is left as it is.
        train: `DetectionSource`.
        image_size: Side of its images, in pixels.
        batch_size: Images per batch.
        seed: Of the weights. It sets Keras' global random state.

    Returns:
        A `keras.Model` for images of `image_size`.
    """
    keras.utils.set_random_seed(seed)
    fresh = untrained(encoder, image_size)
    steps = min(_SETTLING_BATCHES, max(1, len(train) // batch_size))
    batches = training_batches(
        train, image_size=image_size, batch_size=batch_size, steps=steps, seed=seed
    )
    settle_statistics(fresh, (images for images, _ in batches))
    return fresh
