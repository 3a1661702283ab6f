"""A queue of embeddings: the newest K, first in, first out."""

import keras
import tensorflow as tf


class EmbeddingQueue(keras.layers.Layer):
    """The newest `size` embeddings, as variables: saved, resumed, and equal on all replicas.

    It starts full of random unit vectors, as MoCo does ("Momentum Contrast for Unsupervised
    Visual Representation Learning", 2020).

    Args:
        size: K.
        width: D.
        seed: Of the vectors at the start.

    Raises:
        ValueError: If a number is below 1.
    """

    def __init__(self, size, width, seed=0, **kwargs):
        # Read as it is kept: not in half precision.
        super().__init__(**{"dtype": keras.config.dtype_policy().variable_dtype, **kwargs})
        for name, value in (("size", size), ("width", width)):
            if not value >= 1:
                raise ValueError(f"`{name}` must be at least 1. Received: {name}={value}")
        self.size, self.width = size, width
        self.rows = self.add_weight(
            name="rows", shape=(size, width), initializer=_UnitVectors(seed), trainable=False
        )
        # int64: an int32 variable would be placed on the host, and each step wait for it.
        self.cursor = self.add_weight(
            name="cursor", shape=(), dtype="int64", initializer="zeros", trainable=False
        )
        self.built = True

    @property
    def embeddings(self):
        """(K, D), as they are now: from `cursor` on, cyclically, the oldest come first."""
        # A tensor, read once: each read of a variable that is written in place copies it.
        return tf.convert_to_tensor(self.rows.value)

    def enqueue(self, embeddings):
        """Puts embeddings in the place of the oldest.

        Args:
            embeddings: (N, D) of the global batch, the same on every replica: each then writes
                the same into its own copy. Of more than K the last K are kept.
        """
        count = embeddings.shape[0] or tf.shape(embeddings)[0]
        embeddings = tf.cast(tf.stop_gradient(embeddings), self.rows.dtype)[-self.size :]
        kept = tf.cast(tf.minimum(count, self.size), tf.int64)
        start = self.cursor.value
        slots = (start + tf.range(kept)) % self.size
        # In place: a queue of 65,536 x 128 takes 32 MiB, which assigning it whole would copy.
        self.rows.value.scatter_update(tf.IndexedSlices(embeddings, slots))
        self.cursor.assign((start + kept) % self.size)


class _UnitVectors(keras.initializers.Initializer):
    """Rows of length 1, evenly distributed over all directions."""

    def __init__(self, seed):
        self.seed = seed

    def __call__(self, shape, dtype=None):
        drawn = tf.random.stateless_normal(shape, [self.seed, 0], dtype=dtype or "float32")
        return tf.math.l2_normalize(drawn, axis=1)

    def get_config(self):
        return {"seed": self.seed}


def default_queue_size(images, largest=65_536):
    """The largest power of two that is at most an eighth of the images, up to `largest`.

    It gives the sizes in use: 65,536 for ImageNet and 4,096 for CIFAR-10. In a queue of the data
    set's own size the keys of an image would be among its own negatives.

    Args:
        images: In the training set.
        largest: Upper limit.
    """
    return min(largest, 1 << max(1, (images // 8).bit_length() - 1))
