"""Attention transfer: the student looks where the teacher looks."""

import keras
import numpy as np
import tensorflow as tf

from keras_sacl.distillation.objective import Objective
from keras_sacl.losses import l2_normalise


def attention(maps):
    """The mean over channels of the squared activations, up to a factor for each image.

    (B, h, w, C) to (B, h, w) float32, or float64 where the maps are.
    """
    precise = maps if maps.dtype == tf.float64 else tf.cast(maps, tf.float32)
    # In units of the largest: the squares of tiny activations underflow.
    largest = tf.reduce_max(tf.abs(precise), axis=[1, 2, 3], keepdims=True)
    precise = tf.math.divide_no_nan(precise, tf.stop_gradient(largest))
    return tf.reduce_mean(tf.square(precise), axis=-1)


def attention_loss(student, teacher):
    """Sum over the stages of the mean over the batch of ||q_s / ||q_s|| - q_t / ||q_t|| ||^2.

    "Paying More Attention to Attention: Improving the Performance of Convolutional Neural
    Networks via Attention Transfer" (2017), equation 2, squared. Stages are matched from the last
    on, as far as both networks have them; of maps of two sizes the larger is averaged down.

    Args:
        student, teacher: Lists of maps (B, h, w, C), from the input on.

    Returns:
        A scalar.
    """
    stages = min(len(student), len(teacher))
    losses = []
    for s, t in zip(student[-stages:], teacher[-stages:], strict=True):
        q_s, q_t = attention(s), tf.stop_gradient(attention(t))
        size = [min(q_s.shape[i], q_t.shape[i]) for i in (1, 2)]
        q_s, q_t = (l2_normalise(_flat(q, size)) for q in (q_s, tf.cast(q_t, q_s.dtype)))
        losses.append(tf.reduce_mean(tf.reduce_sum(tf.square(q_s - q_t), axis=1)))
    return tf.reduce_sum(tf.stack(losses))


def _flat(q, size):
    if list(q.shape[1:]) != size:
        # By matrices: the resizing operations keep neither float64 nor company with XLA.
        rows, columns = (
            tf.constant(_averages(*sides), q.dtype) for sides in zip(q.shape[1:], size, strict=True)
        )
        q = tf.einsum("hH,bHW,wW->bhw", rows, q, columns)
    return tf.reshape(q, [-1, size[0] * size[1]])


def _averages(large, small):
    """(small, large) matrix of the means over parts of a side, which overlap if they have to."""
    found = np.zeros((small, large))
    for i in range(small):
        part = slice(i * large // small, -(-(i + 1) * large // small))
        found[i, part] = 1 / (part.stop - part.start)
    return found


@keras.saving.register_keras_serializable("keras_sacl")
class AT(Objective):
    """`attention_loss` of the last maps of all stages."""

    needs_maps = True

    def loss(self, student, teacher):
        return attention_loss(student.maps, teacher.maps)
