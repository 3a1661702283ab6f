"""MoCo-v2: a query, its key, and a queue of other keys."""

import keras
import tensorflow as tf

from keras_sacl import losses
from keras_sacl.embedding_queue import EmbeddingQueue
from keras_sacl.frozen import MomentumNetwork
from keras_sacl.methods.base import TwoViewMethod
from keras_sacl.replicas import global_batch, own_part, replica_count

KEY_BATCH_NORMS = ("split", "shuffle", "sync")


@keras.saving.register_keras_serializable("keras_sacl")
class MoCoV2(TwoViewMethod):
    """Momentum contrast: L = -log softmax of q k+ / T against q k- / T, k- from a queue.

    "Improved Baselines with Momentum Contrastive Learning" (2020), on "Momentum Contrast for
    Unsupervised Visual Representation Learning" (2020), Algorithm 1.

    Normalised together, queries and keys could know each other by the statistics they share. So
    BatchNorm may be taken over parts of the batch, and the keys come in another order then: each
    part of the keys has as many images of every part of the queries.

    Args:
        encoder, projector, loss_scale, distiller: As in `TwoViewMethod`.
        temperature: T.
        queue_size: Keys in the queue.
        key_momentum: Share of the old value that a weight of the key encoder keeps each step.
        key_batch_norm: "split" takes statistics over `batch_norm_groups` parts of the whole batch;
            "shuffle" over each replica's; "sync" over the batches of all replicas.
        batch_norm_groups: A multiple of the replicas that divides the batch; used with "split".
        seed: Of what the queue holds at the start.
    """

    terms = ("info_nce", "pretext_accuracy")

    def __init__(
        self, encoder, projector, temperature=0.2, queue_size=65_536, key_momentum=0.999,
        key_batch_norm="split", batch_norm_groups=8, seed=0, **kwargs,
    ):  # fmt: skip
        if key_batch_norm not in KEY_BATCH_NORMS:
            raise ValueError(
                f"`key_batch_norm` must be one of {KEY_BATCH_NORMS}. "
                f"Received: key_batch_norm={key_batch_norm!r}"
            )
        replicas = replica_count()
        if key_batch_norm == "split" and batch_norm_groups % replicas:
            raise ValueError(
                f"`batch_norm_groups` must be a multiple of the {replicas} replicas. "
                f"Received: batch_norm_groups={batch_norm_groups}"
            )
        own = {"sync": None, "shuffle": 1, "split": batch_norm_groups // replicas}[key_batch_norm]
        super().__init__(encoder, projector, groups_per_replica=own, **kwargs)
        self.require_one_network()
        if not queue_size >= 1:
            raise ValueError(f"`queue_size` must be at least 1. Received: queue_size={queue_size}")
        if not 0 <= key_momentum <= 1:
            raise ValueError(
                f"`key_momentum` must be in [0, 1]. Received: key_momentum={key_momentum}"
            )
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
        self.temperature, self.key_momentum, self.seed = temperature, key_momentum, seed
        self.key_batch_norm, self.batch_norm_groups = key_batch_norm, batch_norm_groups
        self.key_encoder = MomentumNetwork(encoder, key_momentum, own)
        self.key_projector = MomentumNetwork(projector, key_momentum, own)
        self.queue = EmbeddingQueue(queue_size, projector.output_shape[-1], seed=seed)

    def loss_terms(self, x_a, x_b):
        q = losses.l2_normalise(self.embed(x_a))

        self.key_encoder.update()
        self.key_projector.update()
        k = losses.l2_normalise(self.key_embed(x_b))

        loss, accuracy = losses.info_nce(q, k, self.queue.embeddings, self.temperature)
        self.queue.enqueue(k)
        return {"loss": loss, "info_nce": loss, "pretext_accuracy": accuracy, "z": q}

    def start_from(self, encoder):
        super().start_from(encoder)
        self.key_encoder.copy()

    def key_embed(self, x):
        """[k] of this replica's views, (B, H, W, C) to all replicas' (N, D)."""
        if self.key_batch_norm == "sync":
            return global_batch(self.key_projector(self.key_encoder(x)))
        x = global_batch(x)
        order = self._order(tf.shape(x)[0])
        own = own_part(tf.gather(x, order))
        keys = global_batch(self.key_projector(self.key_encoder(own)))
        return tf.gather(keys, tf.math.invert_permutation(order))

    def _order(self, count):
        """(N,): the first of every group, the second of every group, and so on."""
        # As good as a random order, since the images of a batch come in one, and no state.
        groups = self.batch_norm_groups if self.key_batch_norm == "split" else replica_count()
        return tf.reshape(tf.transpose(tf.reshape(tf.range(count), [-1, groups])), [-1])

    def get_config(self):
        config = super().get_config()
        del config["groups_per_replica"]  # follows from the replicas
        return {
            **config,
            "temperature": self.temperature,
            "queue_size": self.queue.size,
            "key_momentum": self.key_momentum,
            "key_batch_norm": self.key_batch_norm,
            "batch_norm_groups": self.batch_norm_groups,
            "seed": self.seed,
        }
