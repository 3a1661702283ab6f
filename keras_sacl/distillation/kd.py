"""Knowledge distillation of logits: a student imitates a classifier's softened outputs."""

import tensorflow as tf


def kd_loss(logits, teacher_logits, temperature=4.0):
    """T^2 KL(softmax(t / T) || softmax(z / T)), the mean over the batch.

    "Distilling the Knowledge in a Neural Network" (2015), section 2. The factor T^2 makes up for
    gradients that shrink as 1 / T^2, so that the weight beside the labels' loss keeps its meaning
    at any temperature. The divergence has the gradient of that paper's cross-entropy, and is 0
    where the student is the teacher. No gradient flows into the teacher's logits.

    Args:
        logits: (B, C) z of the student.
        teacher_logits: (B, C) t of the teacher.
        temperature: T, above 0. The paper found 2.5 to 4 to be best for a small student, and
            more to be as good for a large one.

    Returns:
        A scalar in nats, float32, or float64 where the logits are.

    Raises:
        ValueError: If `temperature` is not positive.
    """
    if not temperature > 0:
        raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
    logits, teacher_logits = tf.convert_to_tensor(logits), tf.convert_to_tensor(teacher_logits)
    dtype = tf.float64 if logits.dtype == tf.float64 else tf.float32
    student = tf.nn.log_softmax(tf.cast(logits, dtype) / temperature)
    teacher = tf.nn.log_softmax(tf.stop_gradient(tf.cast(teacher_logits, dtype)) / temperature)
    divergence = tf.reduce_sum(tf.exp(teacher) * (teacher - student), axis=-1)
    return temperature**2 * tf.reduce_mean(divergence)
