"""Contrastive representation distillation: which teacher embedding belongs to which student's."""

import keras
import tensorflow as tf

from keras_sacl.distillation.objective import Objective
from keras_sacl.embedding_queue import EmbeddingQueue
from keras_sacl.heads import build_linear
from keras_sacl.losses import l2_normalise


def nce_logits(anchors, positives, negatives, temperature=0.07):
    """Similarities over the temperature, of each anchor to its positive and to all negatives.

    Args:
        anchors, positives: (N, D) unit vectors.
        negatives: (K, D) unit vectors.
        temperature: Above 0.

    Returns:
        (N, 1) and (N, K).
    """
    own = tf.reduce_sum(anchors * positives, axis=1, keepdims=True)
    others = tf.matmul(anchors, tf.cast(negatives, anchors.dtype), transpose_b=True)
    return own / temperature, others / temperature


def nce_loss(own, others, log_normaliser):
    """-mean over the batch of log h(own) + sum over the negatives of log(1 - h).

        h = e / (e + K m),   e = exp(similarity / temperature)

    "Contrastive Representation Distillation" (2020), equations 17 to 19, with the released code's
    normaliser m, the mean of e in the first step: of memory banks of unit vectors at a
    temperature of 0.07, e without it is far above or below K / M for all pairs.

    Args:
        own, others: (N, 1) and (N, K) of `nce_logits`.
        log_normaliser: log m.

    Returns:
        A scalar in nats.
    """
    count = tf.cast(tf.shape(others)[1], own.dtype)
    shift = tf.cast(log_normaliser, own.dtype) + tf.math.log(count)
    negatives = tf.reduce_sum(tf.nn.softplus(others - shift), axis=1)
    return tf.reduce_mean(tf.nn.softplus(shift - own)[:, 0] + negatives)


@keras.saving.register_keras_serializable("keras_sacl")
class CRD(Objective):
    """`nce_loss` in both directions, student to teacher and back, by a linear map of each.

    No supervised term, as in "CompRess: Self-Supervised Learning by Compressing Representations"
    (2020). Negatives are the newest K embeddings in place of random entries of a memory bank of
    the whole data set, so that no image needs a number.

    Args:
        queue_size: K.
        temperature: Above 0.
        width: D of the two maps.
    """

    def __init__(self, queue_size=16_384, temperature=0.07, width=128, **kwargs):
        super().__init__(**kwargs)
        self.queue_size, self.temperature, self.width = queue_size, temperature, width

    def connect(self, student, teacher):
        self.student_map = build_linear(student.features, self.width)
        self.teacher_map = build_linear(teacher.features, self.width)
        self.student_queue = EmbeddingQueue(self.queue_size, self.width, seed=1)
        self.teacher_queue = EmbeddingQueue(self.queue_size, self.width)
        self.log_normalisers = self.add_weight(
            name="log_normalisers", shape=(2,), initializer="zeros", trainable=False
        )
        self.started = self.add_weight(
            name="started", shape=(), initializer="zeros", trainable=False
        )

    def loss(self, student, teacher):
        s = l2_normalise(self.student_map(student.features))
        t = l2_normalise(self.teacher_map(tf.stop_gradient(teacher.features)))
        by_student = nce_logits(s, t, self.teacher_queue.embeddings, self.temperature)
        by_teacher = nce_logits(t, s, self.student_queue.embeddings, self.temperature)

        found = tf.stack([_log_mean_exp(others) for _, others in (by_student, by_teacher)])
        found = tf.cast(tf.stop_gradient(found), self.log_normalisers.dtype)
        self.log_normalisers.assign(tf.where(self.started > 0, self.log_normalisers.value, found))
        self.started.assign(tf.ones_like(self.started))

        m_s, m_t = tf.unstack(self.log_normalisers.value)
        loss = nce_loss(*by_student, m_s) + nce_loss(*by_teacher, m_t)
        self.student_queue.enqueue(s)
        self.teacher_queue.enqueue(t)
        return loss

    def get_config(self):
        return {
            **super().get_config(),
            "queue_size": self.queue_size,
            "temperature": self.temperature,
            "width": self.width,
        }


def _log_mean_exp(x):
    return tf.reduce_logsumexp(x) - tf.math.log(tf.cast(tf.size(x), x.dtype))
