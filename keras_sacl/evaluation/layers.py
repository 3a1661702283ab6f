"""Linear probes on intermediate layers: where in the encoder the classes become linear.

"Split-Brain Autoencoders: Unsupervised Learning by Cross-Channel Prediction" (2017), section 4.1,
and "Scaling and Benchmarking Self-Supervised Visual Representation Learning" (2019), section 6.1;
"CompRess" (2020) compares on Places this way, table 5.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_sacl.evaluation.features import inference
from keras_sacl.evaluation.linear_sgd import SGDSettings, linear_sgd_probe
from keras_sacl.stage_maps import stage_maps

LAYERS_PROTOCOL = "layers-grid9216-sgd-heldout20-v1"
# Split-brain's "about 9,000", to the number: it gives the grids of the 2019 paper for ResNet-50,
# 12, 6, 4, 3 and 2 a side for 64 to 2,048 channels.
MAX_DIM = 9216
# The features of one stage are in memory, and several copies while they are standardised: 10,000
# times 9,216 floats are 370 MB, and the probe was seen to need 2.2 GB.
MAX_IMAGES = 10_000
# With thousands of inputs of unit variance the rates of `linear_sgd` only oscillate: on 2,000
# images of CIFAR-10 and 4,096 to 9,216 features none did better at 0.1 than at 0.01.
SETTINGS = SGDSettings(
    learning_rates=(1e-4, 1e-3, 1e-2), weight_decays=(1e-4,), epochs=20, milestones=(10, 15)
)


def layer_probe(
    encoder,
    train_batches,
    test_batches,
    settings=SETTINGS,
    *,
    max_dim=MAX_DIM,
    max_images=MAX_IMAGES,
    seed=0,
):
    """Top-1 accuracy of a linear classifier on each stage's last map (see `stage_maps`).

    Each map is averaged over the cells of a grid, as fine as `max_dim` allows, and probed by
    `linear_sgd_probe`. One stage after the other, to hold the features of one only; so the
    encoder runs once per stage, as far as that stage. The protocol is `LAYERS_PROTOCOL` with the
    default arguments.

    Args:
        encoder: A functional `keras.Model`, images to features.
        train_batches, test_batches: Iterables of (images, labels), that begin anew each time.
        settings: `SGDSettings`.
        max_dim: Most features of an image.
        max_images: Most images for training, and for testing; of more, so many drawn at random.
        seed: Of that draw, of the held-out split and of the order of the rows.

    Returns:
        A list with a dict for each stage, from the input on: layer (its name), size ((H, W) of
        the map), feature_dim, num_train, num_test, held_out_top1 (by which to choose a layer),
        top1, learning_rate, weight_decay.

    Raises:
        ValueError: As `stage_maps` and `linear_sgd_probe`.
    """
    found = []
    for name, stage in stage_maps(encoder).items():
        bounds = {"max_dim": max_dim, "max_images": max_images, "seed": seed}
        train, train_labels = layer_features(encoder, train_batches, stage, **bounds)
        test, test_labels = layer_features(encoder, test_batches, stage, **bounds)
        probe = linear_sgd_probe(train, train_labels, test, test_labels, settings, seed=seed)
        found.append(
            {
                "layer": name,
                "size": tuple(stage.shape[1:3]),
                "feature_dim": train.shape[1],
                "num_train": len(train),
                "num_test": len(test),
                "held_out_top1": max(row["top1"] for row in probe["held_out"]),
                **{key: probe[key] for key in ("top1", "learning_rate", "weight_decay")},
            }
        )
    return found


def layer_features(encoder, batches, stage, *, max_dim=MAX_DIM, max_images=MAX_IMAGES, seed=0):
    """A stage's map of each image, averaged over the cells of a grid.

    The grid is the finest with at most `max_dim` averages, all channels taken together (but at
    least one cell). Cells overlap by a pixel where the size is no multiple of the grid.

    Args:
        encoder: A `keras.Model`, run in inference mode.
        batches: Iterable of (images, labels).
        stage: One of the Keras tensors of `stage_maps(encoder)`.
        max_dim, max_images, seed: As in `layer_probe`. Up to `max_images` images keep their
            order.

    Returns:
        (features, labels): float32 (N, F) and int64 (N,).

    Raises:
        ValueError: If there is no batch, or a feature is not finite.
    """
    encode = _grid_averages(encoder, stage, max_dim)
    rng = np.random.default_rng(seed)
    features = labels = None
    seen = 0
    for images, batch_labels in batches:
        # Reservoir sampling: the image at position n takes a random place among n + 1, and is in
        # the sample if that place is. Of images sorted by class the first ones would not do.
        positions = seen + np.arange(len(batch_labels))
        places = np.where(positions < max_images, positions, rng.integers(0, positions + 1))
        seen += len(positions)
        chosen = np.flatnonzero(places < max_images)
        if not len(chosen):
            continue
        found = np.asarray(encode(np.asarray(images)[chosen]))
        if not np.isfinite(found).all():
            raise ValueError("the encoder gives features that are not finite (NaN or infinity)")
        batch_labels = np.asarray(batch_labels, "int64")
        if features is None:  # memory that is not written to is not used
            features = np.empty((max_images, found.shape[1]), "float32")
            labels = np.empty((max_images, *batch_labels.shape[1:]), "int64")
        features[places[chosen]] = found
        labels[places[chosen]] = batch_labels[chosen]
    if features is None:
        raise ValueError("`batches` must hold at least one batch. Received none.")
    return features[:seen], labels[:seen]


def _grid_averages(encoder, stage, max_dim):
    """A function from images to (B, F) averages of a map over the cells of a grid."""
    height, width, channels = stage.shape[1:]
    sides = range(max(height, width), 1, -1)
    fitting = (n for n in sides if min(n, height) * min(n, width) * channels <= max_dim)
    side = next(fitting, 1)
    rows, columns = (_cells(size, min(side, size)) for size in (height, width))
    encode = inference(keras.Model(encoder.inputs, stage))

    def averages(images):
        maps = tf.cast(encode(images), tf.float32)
        grid = tf.einsum("ih,bhwc,jw->bijc", rows, maps, columns)
        return tf.reshape(grid, [len(maps), -1])

    return averages


def _cells(size, count):
    """(count, size) weights that average `size` pixels over `count` cells."""
    weights = np.zeros((count, size), "float32")
    for i in range(count):
        start, stop = i * size // count, -(-(i + 1) * size // count)
        weights[i, start:stop] = 1 / (stop - start)
    return weights
