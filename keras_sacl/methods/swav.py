"""SwAV: each view predicts the cluster of the other."""

import keras
import tensorflow as tf

from keras_sacl import losses
from keras_sacl.methods.base import TwoViewMethod


@keras.saving.register_keras_serializable("keras_sacl")
class SwAV(TwoViewMethod):
    """Swapped assignments between views, with multi-crop.

        L = mean over the views a, b that are assigned of
            mean over the other views v of  -q_a log softmax(z_v c / T)

    z are unit vectors, c the prototypes, q the Sinkhorn assignments of the batch to them.
    "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments" (2020),
    equations 2 and 6 (without its queue for small batches).

    Args:
        encoder, projector, loss_scale, distiller: As in `TwoViewMethod`.
        prototypes: Their number.
        temperature: T.
        epsilon, iterations: See `losses.sinkhorn`.
        frozen_steps: Steps at the start in which the prototypes stay as they are.
    """

    takes_small_views = True
    terms = ("swav",)

    def __init__(
        self, encoder, projector, prototypes=3000, temperature=0.1, epsilon=0.05, iterations=3,
        frozen_steps=0, **kwargs,
    ):  # fmt: skip
        super().__init__(encoder, projector, **kwargs)
        self.require_one_network()
        for name, value in (("temperature", temperature), ("epsilon", epsilon)):
            if not value > 0:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.frozen_steps = frozen_steps
        self.prototypes = self.add_weight(
            name="prototypes",
            shape=(projector.output_shape[-1], prototypes),
            initializer="glorot_uniform",
        )
        self.seen_steps = self.add_weight(
            name="seen_steps", shape=(), dtype="int64", initializer="zeros", trainable=False
        )

    def _update(self, *views):
        frozen = self.seen_steps.value < self.frozen_steps
        before = tf.math.l2_normalize(self.prototypes, axis=0)
        logs = super()._update(*views)
        # Unit vectors again after every step, as in the released code. Frozen ones are put back:
        # without a gradient LARS would shrink them by decay alone, past zero and to the other side.
        after = tf.math.l2_normalize(self.prototypes, axis=0)
        self.prototypes.assign(tf.where(frozen, before, after))
        self.seen_steps.assign_add(1)
        return logs

    def loss_terms(self, x_a, x_b, *small):
        c = tf.math.l2_normalize(self.prototypes, axis=0)
        trained = tf.cast(self.seen_steps >= self.frozen_steps, c.dtype)
        c = trained * c + (1 - trained) * tf.stop_gradient(c)

        views = (x_a, x_b, *small)
        z = [losses.l2_normalise(self.embed(x)) for x in views]
        scores = [tf.matmul(z_v, c) for z_v in z]

        assigned = []
        for a in range(2):
            q = losses.sinkhorn(scores[a], self.epsilon, self.iterations)
            others = [s / self.temperature for v, s in enumerate(scores) if v != a]
            assigned += [tf.nn.softmax_cross_entropy_with_logits(q, s) for s in others]
        loss = tf.reduce_mean(tf.stack(assigned))
        return {"loss": loss, "swav": loss, "z": z[0]}

    def get_config(self):
        return {
            **super().get_config(),
            "prototypes": self.prototypes.shape[1],
            "temperature": self.temperature,
            "epsilon": self.epsilon,
            "iterations": self.iterations,
            "frozen_steps": self.frozen_steps,
        }
