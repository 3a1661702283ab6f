"""DisCo: the student's embedding is the teacher's."""

import keras
import tensorflow as tf

from keras_sacl.distillation.objective import HeadObjective
from keras_sacl.losses import l2_normalise


def disco_loss(student, teacher):
    """Mean over the batch of ||s - t||^2, for unit vectors s and t.

    "DisCo: Remedying Self-supervised Learning on Lightweight Models with Distilled Contrastive
    Learning" (2022), equation 3, one view.

    Args:
        student, teacher: (N, D) embeddings; normalised here, as in the released code.

    Returns:
        A scalar in [0, 4].
    """
    s = l2_normalise(student)
    t = tf.cast(tf.stop_gradient(l2_normalise(teacher)), s.dtype)
    return tf.reduce_mean(tf.reduce_sum(tf.square(s - t), axis=1))


@keras.saving.register_keras_serializable("keras_sacl")
class DisCo(HeadObjective):
    """`disco_loss` of both views. The bottleneck that the paper widens is `hidden`.

    Args: as in `HeadObjective`.
    """

    views = 2

    def loss(self, student, teacher):
        return disco_loss(self.embed(student), teacher.embeddings)
