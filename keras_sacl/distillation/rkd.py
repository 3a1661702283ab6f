"""Relational knowledge distillation: distances and angles between images are the teacher's."""

import keras
import tensorflow as tf

from keras_sacl.distillation.objective import Objective

_ANGLE_WEIGHT = 2.0  # the paper's 50 to 25


def rkd_losses(student, teacher):
    """The distance-wise and the angle-wise loss.

    "Relational Knowledge Distillation" (2019), equations 3 to 8: a Huber loss between distances
    of pairs, in units of their mean, and one between cosines of the angles of triplets.

    Args:
        student, teacher: (N, D) and (N, E) embeddings, as they are.

    Returns:
        (distance, angle): scalars.
    """
    distances_s, angles_s = _relations(student)
    distances_t, angles_t = (tf.stop_gradient(x) for x in _relations(teacher))
    distances_t, angles_t = (tf.cast(x, distances_s.dtype) for x in (distances_t, angles_t))
    return _huber(distances_s - distances_t), _huber(angles_s - angles_t)


def _relations(z):
    z = z if z.dtype == tf.float64 else tf.cast(z, tf.float32)
    z -= tf.reduce_mean(z, axis=0)
    # In units of their length: the squares of tiny features underflow.
    scale = tf.stop_gradient(tf.reduce_max(tf.abs(z)))
    z = tf.math.divide_no_nan(z, scale)
    # e_ij . e_kj = g_ik - g_ij - g_kj + g_jj: the (N, N, D) differences are never formed.
    gram = tf.matmul(z, z, transpose_b=True)
    own = tf.linalg.diag_part(gram)
    squared = own[:, None] + own[None, :] - 2 * gram
    apart = ~tf.eye(tf.shape(z)[0], dtype=tf.bool)
    smallest = tf.constant(1e-12, z.dtype)
    distances = tf.where(apart, tf.sqrt(tf.where(apart, tf.maximum(squared, smallest), 1.0)), 0.0)
    mean = tf.reduce_sum(distances) / tf.reduce_sum(tf.cast(apart, z.dtype))
    inverse = tf.where(apart, 1.0 / tf.where(apart, distances, 1.0), 0.0)
    # (j, i, k): the angle at image j between images i and k.
    products = gram[None] - gram[:, :, None] - gram[:, None, :] + own[:, None, None]
    return distances / mean, products * inverse[:, :, None] * inverse[:, None, :]


def _huber(x):
    absolute = tf.abs(x)
    return tf.reduce_mean(tf.where(absolute < 1, 0.5 * tf.square(x), absolute - 0.5))


@keras.saving.register_keras_serializable("keras_sacl")
class RKD(Objective):
    """The distance-wise loss and twice the angle-wise one of `rkd_losses`, on the features.

    The three-fold relations of a batch of N take N^3 numbers: 64 MiB each for 256 images.
    """

    def loss(self, student, teacher):
        distance, angle = rkd_losses(student.features, teacher.features)
        return distance + _ANGLE_WEIGHT * angle
