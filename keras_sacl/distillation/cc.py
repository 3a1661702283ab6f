"""Cluster classification: the student names the teacher's cluster."""

import keras
import numpy as np
import tensorflow as tf

from keras_sacl.distillation.objective import Objective
from keras_sacl.heads import build_linear
from keras_sacl.losses import l2_normalise

CLUSTERED_IMAGES = 200_000  # at most, that a run finds its clusters in


def cluster_centres(features, clusters, seed=0):
    """K-means of the directions of features.

    Args:
        features: (M, E) array of the teacher's features, or a memory map.
        clusters: K, at most M.
        seed: Of the start.

    Returns:
        (K, E) float32 unit vectors.

    Raises:
        ValueError: If there are fewer images than clusters.
    """
    from sklearn.cluster import MiniBatchKMeans

    if not 2 <= clusters <= len(features):
        raise ValueError(
            f"`clusters` must be from 2 to the {len(features)} images. "
            f"Received: clusters={clusters}"
        )
    means = MiniBatchKMeans(clusters, random_state=seed, n_init=3, batch_size=max(1024, clusters))
    means.fit(_unit(np.asarray(features, np.float32)))
    return _unit(means.cluster_centers_.astype(np.float32))


def cluster_loss(logits, teacher, centres):
    """-mean over the batch of log p(cluster of the teacher's features).

    "Boosting Self-Supervised Learning via Knowledge Transfer" (2018), section 3.2, as the
    baseline CC of "CompRess: Self-Supervised Learning by Compressing Representations" (2020).

    Args:
        logits: (N, K) of the student.
        teacher: (N, E) features.
        centres: (K, E) unit vectors.

    Returns:
        A scalar in nats.
    """
    t = l2_normalise(tf.stop_gradient(teacher))
    nearest = tf.argmax(tf.matmul(t, tf.cast(centres, t.dtype), transpose_b=True), axis=1)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(nearest, logits)
    return tf.reduce_mean(losses)


@keras.saving.register_keras_serializable("keras_sacl")
class CC(Objective):
    """`cluster_loss` by a linear classifier on the student's features.

    Args:
        clusters: K.

    Attributes:
        centres: (K, E) variable of unit vectors; `set_centres` gives it its values, which are
            random until then.
    """

    def __init__(self, clusters=16_000, **kwargs):
        super().__init__(**kwargs)
        self.clusters = clusters

    def connect(self, student, teacher):
        self.centres = self.add_weight(
            name="centres", shape=(self.clusters, teacher.features), trainable=False,
            initializer=keras.initializers.RandomNormal(seed=0),
        )  # fmt: skip
        self.classifier = build_linear(student.features, self.clusters)

    def set_centres(self, features):
        """Clusters the teacher's features (M, E) of the training images."""
        self.centres.assign(cluster_centres(features, self.clusters))

    def loss(self, student, teacher):
        return cluster_loss(self.classifier(student.features), teacher.features, self.centres.value)

    def get_config(self):
        return {**super().get_config(), "clusters": self.clusters}


def _unit(x):
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
