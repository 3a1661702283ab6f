"""CompRess: the student's neighbours among anchor images are the teacher's."""

import keras
import tensorflow as tf

from keras_sacl.distillation.objective import Objective
from keras_sacl.embedding_queue import EmbeddingQueue
from keras_sacl.heads import build_linear
from keras_sacl.losses import l2_normalise, soft_cross_entropy


def compress_loss(student, teacher, student_anchors, teacher_anchors, temperature=0.04):
    """Mean over the batch of KL(p(teacher) || p(student)), p over the anchors.

    "CompRess: Self-Supervised Learning by Compressing Representations" (2020), section 3.

    Args:
        student: (N, D) embeddings, normalised here.
        teacher: (N, E), the same.
        student_anchors: (K, D) unit vectors: the anchor images as the student sees them, or, with
            D = E, the teacher's.
        teacher_anchors: (K, E) unit vectors.
        temperature: Above 0; of both.

    Returns:
        A scalar in nats, at least 0.
    """

    def logits(z, anchors):
        z = l2_normalise(z)
        return tf.matmul(z, tf.cast(anchors, z.dtype), transpose_b=True) / temperature

    own, target = logits(student, student_anchors), logits(teacher, teacher_anchors)
    cross_entropy, entropy = soft_cross_entropy(own, target)
    return cross_entropy - entropy


@keras.saving.register_keras_serializable("keras_sacl")
class CompRess1Q(Objective):
    """`compress_loss` with one queue, the teacher's; a linear map brings the student there.

    Args:
        queue_size: K.
        temperature: 0.04; the paper takes 0.007 for a SwAV teacher.
    """

    def __init__(self, queue_size=128_000, temperature=0.04, **kwargs):
        super().__init__(**kwargs)
        self.queue_size, self.temperature = queue_size, temperature

    def connect(self, student, teacher):
        self.queue = EmbeddingQueue(self.queue_size, teacher.features)
        self.map = build_linear(student.features, teacher.features)

    def loss(self, student, teacher):
        anchors = self.queue.embeddings
        loss = compress_loss(
            self.map(student.features), teacher.features, anchors, anchors, self.temperature
        )
        self.queue.enqueue(l2_normalise(teacher.features))
        return loss

    def get_config(self):
        config = super().get_config()
        return {**config, "queue_size": self.queue_size, "temperature": self.temperature}


@keras.saving.register_keras_serializable("keras_sacl")
class CompRess2Q(CompRess1Q):
    """`compress_loss` with a queue for each: the student's own is filled by its mean.

    The two spaces need not have anything in common.

    Args: as in `CompRess1Q`.
    """

    needs_mean = True

    def connect(self, student, teacher):
        self.queue = EmbeddingQueue(self.queue_size, teacher.features)
        self.student_queue = EmbeddingQueue(self.queue_size, student.features, seed=1)

    def loss(self, student, teacher):
        loss = compress_loss(
            student.features,
            teacher.features,
            self.student_queue.embeddings,
            self.queue.embeddings,
            self.temperature,
        )
        self.student_queue.enqueue(l2_normalise(student.mean.features))
        self.queue.enqueue(l2_normalise(teacher.features))
        return loss
