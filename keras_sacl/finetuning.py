"""Classifiers on top of an encoder, trained with labels: as a whole, or the last layers alone.

    network = build_classifier(keras.saving.load_model("encoder.keras"), classes=10)
    classifier = Classifier(network)
    classifier.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    classifier.fit(images_and_labels)
    network.save("classifier.keras")

The stage `finetune` of train.py does this with the data, the schedule and the checks around it.
"""

from types import SimpleNamespace

import keras
import tensorflow as tf

from keras_sacl.batch_norm import training_pass
from keras_sacl.distillation import kd_loss
from keras_sacl.replicas import replica_count
from keras_sacl.stage_maps import layers_before, stage_maps, trunk

SCOPES = ("full", "last_blocks", "frozen")


def build_classifier(encoder, classes, scope="full"):
    """An encoder with a linear layer, as one ordinary functional model.

    The layer starts at zero: no class is preferred, and the first steps do not depend on the
    scale of the features, which differs by orders of magnitude between encoders.

    Args:
        encoder: A functional or sequential `keras.Model`, (B, H, W, C) to (B, F). Its layers are
            shared, so that training the classifier trains it.
        classes: Number of classes, at least 2.
        scope: What `Classifier` trains beside the linear layer. "full": the encoder, as far
            as its layers are `trainable`. "last_blocks": of these, what follows the second-to-last
            of its `stage_maps`: all that works at the last resolution. "frozen": nothing. The
            other layers, which are the encoder's own, get `trainable = False`.

    Returns:
        A `keras.Model`, (B, H, W, C) to float32 logits (B, classes).

    Raises:
        ValueError: If there are fewer than two classes, the scope is unknown, or an encoder for
            "last_blocks" has no two resolutions.
    """
    if classes < 2:
        raise ValueError(f"`classes` must be at least 2. Received: classes={classes}")
    for layer in _frozen_layers(encoder, scope):
        layer.trainable = False
    head = keras.layers.Dense(classes, kernel_initializer="zeros", dtype="float32", name="logits")
    (images,), (features,) = encoder.inputs, encoder.outputs
    return keras.Model(images, head(features), name=f"{encoder.name}_classifier")


class Classifier(keras.Model):
    """Trains a network on labels, and on the logits of a teacher if there is one.

        L = (1 - w) CE(y, softmax(z)) + w T^2 KL(softmax(t / T) || softmax(z / T))

    "Distilling the Knowledge in a Neural Network" (2015), section 2. Without a teacher, the first
    term alone. BatchNorm trains normally, by the statistics of the batch. What is worth saving is
    `network`; the classifier itself is not made to be.

    The first layers of the network, as far as none of them is `trainable`, run in inference mode
    and without a backward pass: their weights and moving statistics stay as they are.

    `fit` takes a `tf.data.Dataset` of (images, labels): float32 (B, H, W, C) and integers (B,).
    The logs show the mean `loss` and `top1`, both since the epoch began.

    Args:
        network: A `keras.Model`, images to logits (B, classes).
        teacher: A `keras.Model` of the same input and output, run in inference mode; it is not
            changed. None for no distillation.
        temperature: T, above 0.
        kd_weight: w, in [0, 1].

    Raises:
        ValueError: If the teacher has other classes, or a number is out of its range.
    """

    def __init__(self, network, teacher=None, temperature=4.0, kd_weight=0.9, **kwargs):
        super().__init__(**kwargs)
        if not temperature > 0:
            raise ValueError(f"`temperature` must be positive. Received: temperature={temperature}")
        if not 0 <= kd_weight <= 1:
            raise ValueError(f"`kd_weight` must be in [0, 1]. Received: kd_weight={kd_weight}")
        if teacher is not None and teacher.output_shape[-1] != network.output_shape[-1]:
            raise ValueError(
                f"`teacher` must give the network's {network.output_shape[-1]} logits. "
                f"Received: teacher with output_shape={teacher.output_shape}"
            )
        self.network, self.temperature, self.kd_weight = network, temperature, kd_weight
        # Out of Keras' sight: the first ones have the network's variables, and those of the teacher
        # are neither trained nor part of a checkpoint.
        frozen, trained = _split(network)
        self._passes = SimpleNamespace(
            frozen=frozen, training=training_pass(trained), teacher=teacher
        )
        self._means = {name: keras.metrics.Mean(name=name) for name in ("loss", "top1")}
        self.built = True

    def call(self, x, training=None):
        """The logits (B, classes) of images (B, H, W, C)."""
        return self.network(x, training=training)

    def train_step(self, data):
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        maps = self._passes.frozen(images, training=False)
        with tf.GradientTape() as tape:
            logits = self._passes.training(maps, training=True)
            loss = self.loss_of(logits, images, labels)
            # Gradients are summed over the replicas, of which each sees its part of the batch.
            scaled = self.optimizer.scale_loss(loss / replica_count())
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return self._log(logits, labels, loss)

    def test_step(self, data):
        """Loss and top-1 in inference mode."""
        images, labels, _ = keras.utils.unpack_x_y_sample_weight(data)
        logits = self.network(images, training=False)
        return self._log(logits, labels, self.loss_of(logits, images, labels))

    def loss_of(self, logits, images, labels):
        """The loss of a batch: a scalar, of logits (B, classes), (B, H, W, C) and (B,)."""
        logits = tf.cast(logits, tf.float32)
        hard = tf.reduce_mean(
            tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        )
        teacher = self._passes.teacher
        if teacher is None:
            return hard
        soft = kd_loss(logits, teacher(images, training=False), self.temperature)
        return (1 - self.kd_weight) * hard + self.kd_weight * soft

    def _log(self, logits, labels, loss):
        right = tf.equal(tf.argmax(logits, axis=-1), tf.cast(labels, tf.int64))
        values = {"loss": loss, "top1": tf.reduce_mean(tf.cast(right, tf.float32))}
        for name, mean in self._means.items():
            mean.update_state(values[name], sample_weight=tf.shape(labels)[0])
        return {name: mean.result() for name, mean in self._means.items()}

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: all is built in the constructor, and Keras' own would run the teacher."""


def _frozen_layers(encoder, scope):
    """The layers of an encoder that a scope leaves as they are."""
    if scope not in SCOPES:
        raise ValueError(f"`scope` must be one of {', '.join(SCOPES)}. Received: scope={scope!r}")
    if scope != "last_blocks":
        return encoder.layers if scope == "frozen" else []
    maps = list(stage_maps(encoder).values())
    if len(maps) < 2:
        raise ValueError(
            '`encoder` must have maps of two resolutions for scope="last_blocks". '
            f"Received: encoder={encoder.name}, with {[x.shape for x in maps]}"
        )
    return layers_before(maps[-2])


def _split(network):
    """(frozen, trained): callables whose composition is the network.

    The first is as much of it as all paths run through and has no trainable layer.
    """
    cut = None
    if hasattr(network, "operations"):
        for x in trunk(network.outputs[0]):
            layers = layers_before(x)
            if any(layer.trainable for layer in layers):
                break
            cut = x if layers else None
    if cut is None:
        return _identity, network
    return keras.Model(network.inputs, cut), keras.Model(cut, network.outputs)


def _identity(images, training=False):
    return images
