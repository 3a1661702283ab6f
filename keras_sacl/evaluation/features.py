"""Features of frozen encoders, and what is done to them before any comparison."""

import functools

import keras
import numpy as np
import tensorflow as tf


def extract_features(encode, batches):
    """The features of all images, in order.

    Args:
        encode: A `keras.Model`, run in inference mode, or any callable on a batch of images.
        batches: Iterable of (images, labels); the last batch may be smaller.

    Returns:
        (features, labels): float32 (N, F) and int64 (N,), or (N, C) if they are multi-hot.

    Raises:
        ValueError: If there is no batch, or a feature is not finite.
    """
    if isinstance(encode, keras.Model):
        encode = inference(encode)
    features, labels = [], []
    for images, batch_labels in batches:
        features.append(np.asarray(encode(images), "float32"))
        labels.append(np.asarray(batch_labels, "int64"))
    if not features:
        raise ValueError("`batches` must hold at least one batch. Received none.")
    features = np.concatenate(features)
    if not np.isfinite(features).all():
        raise ValueError("the encoder gives features that are not finite (NaN or infinity)")
    return features, np.concatenate(labels)


def extract_pairs(encode, pairs):
    """The features of two views of all images.

    Args:
        encode: A callable on a batch of images.
        pairs: Iterable of (view a, view b), batches of one size each.

    Returns:
        (a, b): float32 (N, F) both.
    """
    found = [[np.asarray(encode(view), "float32") for view in pair] for pair in pairs]
    return tuple(np.concatenate(part) for part in zip(*found, strict=True))


def l2_normalise(features):
    """Rows of length 1; rows of zeros stay zero.

    Free of scale: an untrained network gives features of 1e-19, whose squares underflow and for
    which no epsilon is small enough, so each row is divided by its largest entry first.

    Args:
        features: (N, F) floats.

    Returns:
        (N, F) float32.
    """
    features = np.asarray(features, "float32")
    largest = np.abs(features).max(axis=1, keepdims=True)
    scaled = features / np.where(largest > 0, largest, 1)
    length = np.linalg.norm(scaled, axis=1, keepdims=True)
    return scaled / np.where(length > 0, length, 1)


def standardise(train, test):
    """Zero mean and unit variance by the training features; constant dimensions become 0.

    Args:
        train, test: (N, F) and (M, F) floats.

    Returns:
        Both, float32.
    """
    # Untrained features can be as small as 1e-19, whose squares float32 does not hold.
    scale = max(float(np.abs(train).max()), np.finfo("float32").tiny)
    train, test = np.asarray(train) / scale, np.asarray(test) / scale
    mean, std = train.mean(axis=0, dtype="float64"), train.std(axis=0, dtype="float64")
    inverse = np.where(std > 0, 1 / np.where(std > 0, std, 1), 0)
    return tuple(((x - mean) * inverse).astype("float32") for x in (train, test))


def class_labels(labels):
    """Labels of one class each, as an array (N,).

    Raises:
        ValueError: If they are of any other shape, such as multi-hot.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise ValueError(
            "`labels` must be one class for each image, (N,); for multi-hot ones there is "
            f"`multi_label_map`. Received: labels of shape {labels.shape}"
        )
    return labels


def inference(model):
    """A compiled function from a batch of images, of any number, to a model's features.

    Args:
        model: A `keras.Model` with one input.
    """
    # One trace for all batch sizes: without the open dimension the last batch would be a second.
    (x,) = model.inputs
    signature = [tf.TensorSpec((None, *x.shape[1:]), x.dtype)]
    # And a partial, which has no code of its own: of many functions by one line of code TensorFlow
    # says that they are one which is traced anew each time.
    return tf.function(functools.partial(model, training=False), input_signature=signature)
