"""Regression of the teacher's features."""

import keras
import tensorflow as tf

from keras_sacl.distillation.objective import Objective
from keras_sacl.heads import build_linear
from keras_sacl.losses import standardise


def regression_loss(student, teacher, whiten=False):
    """Mean over the batch and the dimensions of (s - t)^2.

    The baselines Reg and Reg-BN of "CompRess: Self-Supervised Learning by Compressing
    Representations" (2020), section 4.1.

    Args:
        student, teacher: (N, D).
        whiten: Whether both are first brought to zero mean and unit variance in every dimension,
            over the batch.

    Returns:
        A scalar.
    """
    teacher = tf.stop_gradient(teacher)
    if whiten:
        student, teacher = standardise(student), standardise(teacher)
    if student.dtype != tf.float64:
        student = tf.cast(student, tf.float32)
    return tf.reduce_mean(tf.math.squared_difference(student, tf.cast(teacher, student.dtype)))


@keras.saving.register_keras_serializable("keras_sacl")
class Reg(Objective):
    """`regression_loss` between a linear map of the student's features and the teacher's."""

    whiten = False

    def connect(self, student, teacher):
        self.map = build_linear(student.features, teacher.features)

    def loss(self, student, teacher):
        return regression_loss(self.map(student.features), teacher.features, self.whiten)


@keras.saving.register_keras_serializable("keras_sacl")
class RegBN(Reg):
    """`Reg` of features that are standardised over the batch."""

    whiten = True
