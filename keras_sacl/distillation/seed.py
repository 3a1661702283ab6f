"""SEED: the student's similarities to a queue are the teacher's."""

import keras
import tensorflow as tf

from keras_sacl.distillation.objective import HeadObjective
from keras_sacl.embedding_queue import EmbeddingQueue
from keras_sacl.losses import l2_normalise, soft_cross_entropy


def seed_loss(student, teacher, queue, student_temperature=0.2, teacher_temperature=0.01):
    """-mean over the batch of p(teacher) log p(student), over the teacher itself and a queue.

    "SEED: Self-supervised Distillation for Visual Representation" (2021), equations 4 to 6.

    Args:
        student, teacher: (N, D) embeddings; normalised here.
        queue: (K, D) unit vectors, the teacher's embeddings of earlier images.
        student_temperature, teacher_temperature: Above 0.

    Returns:
        A scalar in nats.
    """
    s = l2_normalise(student)
    t = tf.cast(tf.stop_gradient(l2_normalise(teacher)), s.dtype)

    def similarities(z):
        own = tf.reduce_sum(z * t, axis=1, keepdims=True)
        return tf.concat([own, tf.matmul(z, tf.cast(queue, z.dtype), transpose_b=True)], axis=1)

    logits, target = similarities(s) / student_temperature, similarities(t) / teacher_temperature
    return soft_cross_entropy(logits, target)[0]


@keras.saving.register_keras_serializable("keras_sacl")
class SEED(HeadObjective):
    """`seed_loss` of one view, which both networks see.

    Args:
        queue_size: K.
        teacher_temperature, student_temperature: Above 0.
        hidden: As in `HeadObjective`.
    """

    def __init__(
        self, queue_size=65_536, teacher_temperature=0.01, student_temperature=0.2, **kwargs
    ):
        super().__init__(**kwargs)
        self.queue_size = queue_size
        self.teacher_temperature, self.student_temperature = (
            teacher_temperature, student_temperature,
        )  # fmt: skip

    def connect(self, student, teacher):
        super().connect(student, teacher)
        self.queue = EmbeddingQueue(self.queue_size, teacher.embeddings)

    def loss(self, student, teacher):
        loss = seed_loss(
            self.embed(student),
            teacher.embeddings,
            self.queue.embeddings,
            self.student_temperature,
            self.teacher_temperature,
        )
        self.queue.enqueue(l2_normalise(teacher.embeddings))
        return loss

    def get_config(self):
        return {
            **super().get_config(),
            "queue_size": self.queue_size,
            "teacher_temperature": self.teacher_temperature,
            "student_temperature": self.student_temperature,
        }
