"""Relational knowledge distillation: distances and angles between images are the teacher's."""

import keras
import tensorflow as tf

from keras_sacl.distillation.objective import Objective

_ANGLE_WEIGHT = 2.0  # the paper's 50 to 25
# Images nearer than 1e-4 of the usual distance are one: the angle at them is rounding.
_SAME = 1e-8


def rkd_losses(student, teacher):
    """The distance-wise and the angle-wise loss.

    "Relational Knowledge Distillation" (2019), equations 3 to 8: a Huber loss between distances
    of pairs, in units of their mean, and one between cosines of the angles of triplets. Of images
    in one place the distance, and the cosine of an angle between them, is 0.

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
    """(distances (N, N) in units of their mean, cosines (N, N, N) of the angle at the first)."""
    dtype = z.dtype if z.dtype == tf.float64 else tf.float32
    # In float64, as the distances of near images are differences of much larger numbers, and the
    # squares of tiny features underflow.
    z = tf.cast(z, tf.float64)
    z -= tf.reduce_mean(z, axis=0)
    gram = tf.matmul(z, z, transpose_b=True)
    own = tf.linalg.diag_part(gram)
    squared = own[:, None] + own[None, :] - 2 * gram
    usual = tf.stop_gradient(tf.reduce_mean(squared))
    squared = tf.cast(tf.math.divide_no_nan(squared, usual), dtype)
    apart = squared > _SAME

    distances = tf.where(apart, tf.sqrt(tf.where(apart, squared, 1.0)), 0.0)
    inverse = tf.where(apart, 1.0 / tf.where(apart, distances, 1.0), 0.0)
    count = tf.cast(tf.size(own), dtype)
    mean = tf.reduce_sum(distances) / (count * (count - 1))
    # The law of cosines; the (N, N, D) differences are never formed.
    cosines = 0.5 * (squared[:, :, None] + squared[:, None, :] - squared[None])
    cosines *= inverse[:, :, None] * inverse[:, None, :]
    return tf.math.divide_no_nan(distances, mean), cosines


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
