"""BatchNormalization's training pass: one kernel in place of a dozen, and over all replicas."""

import keras
import tensorflow as tf

from keras_sacl.replicas import mean_over_replicas, replica_count


class TrainingBatchNorm(keras.layers.Layer):
    """Runs a `keras.layers.BatchNormalization`, faster or over the global batch while training.

    On one replica by TensorFlow's fused kernel, in float32 or less: Keras 3 composes batch
    normalisation of elementwise operations, forward and backward, each a walk over the whole
    map; on two CPU cores, a pass through MobileNet-V1 0.5 and back took 1.7 times as long.
    On several replicas with the statistics of the global batch. The variables, the results and
    the moving statistics are those of the layer.

    Either way nothing else reads the gradients of scale and offset but their sum over the passes
    of a step. TensorFlow adds three and more tensors in an order that depends on which buffers
    other operations still hold, so that one that is shared makes the last bit a matter of timing.

    Args:
        norm: A built `keras.layers.BatchNormalization` over the last axis.
        groups: Parts of this replica's batch, each normalised by statistics of its own; the
            moving statistics follow their mean. None for the global batch in one.
    """

    def __init__(self, norm, groups=None, **kwargs):
        super().__init__(**{"name": f"{norm.name}_training", "dtype": norm.dtype_policy, **kwargs})
        self.norm, self.groups = norm, groups
        self.built = True

    def call(self, x, training=None, mask=None):
        norm = self.norm
        if not training or not norm.trainable or mask is not None:
            return norm(x, training=training, mask=mask)
        if self.groups is not None:
            y, mean, variance = self._grouped(x)
        elif replica_count() > 1 or not _has_kernel(norm, x.shape.rank):
            y, mean, variance = self._synchronised(x)
        else:
            y, mean, variance = self._fused(x)
        for moving, batch in ((norm.moving_mean, mean), (norm.moving_variance, variance)):
            moving.assign(moving * norm.momentum + batch * (1.0 - norm.momentum))
        return y

    def _fused(self, x):
        return _kernel(x, *self._affine(x, tf.float32), self.norm.epsilon)

    def _grouped(self, x):
        if _has_kernel(self.norm, x.shape.rank):
            y, mean, variance = self._fused_groups(x)
        else:
            y, mean, variance = self._composed_groups(x)
        own = [tf.reduce_mean(s, 0) for s in (mean, variance)]
        return y, *mean_over_replicas(*map(tf.stop_gradient, own))

    def _fused_groups(self, x):
        # By copies, so that the groups' gradients are summed by one operation, in one order.
        scales, offsets = (
            tf.unstack(tf.tile(a[None], [self.groups, 1])) for a in self._affine(x, tf.float32)
        )
        parts = zip(tf.split(x, self.groups), scales, offsets, strict=True)
        found = [_kernel(*part, self.norm.epsilon) for part in parts]
        y, means, variances = zip(*found, strict=True)
        return tf.concat(y, 0), tf.stack(means), tf.stack(variances)

    def _composed_groups(self, x):
        dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
        scale, offset = self._affine(x, dtype)
        # (G, B / G, ..., C): one walk over the map for all groups.
        parts = tf.reshape(tf.cast(x, dtype), [self.groups, -1, *x.shape[1:]])
        axes = list(range(1, parts.shape.rank - 1))
        mean, variance = tf.nn.moments(parts, axes, keepdims=True)
        inverse = tf.math.rsqrt(variance + self.norm.epsilon)
        y = tf.cast((parts - mean) * inverse * scale + offset, x.dtype)
        by_group = [self.groups, x.shape[-1]]
        return (
            tf.reshape(y, tf.shape(x)),
            tf.reshape(mean, by_group),
            tf.reshape(variance, by_group),
        )

    def _synchronised(self, x):
        dtype = tf.float64 if x.dtype == tf.float64 else tf.float32
        scale, offset = self._affine(x, dtype)
        y, mean, variance = synchronised_batch_norm(
            tf.cast(x, dtype), scale, offset, self.norm.epsilon
        )
        return tf.cast(y, x.dtype), mean, variance

    def _affine(self, x, dtype):
        norm, channels = self.norm, x.shape[-1:]
        return (
            tf.cast(norm.gamma, dtype) if norm.scale else tf.ones(channels, dtype),
            tf.cast(norm.beta, dtype) if norm.center else tf.zeros(channels, dtype),
        )

    def compute_output_shape(self, input_shape):
        return input_shape


def _kernel(x, scale, offset, epsilon):
    """(y, mean, biased variance) of (B, H, W, C) or (B, C), by the fused kernel."""
    maps = x if x.shape.rank == 4 else x[:, None, None, :]
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=maps, scale=scale, offset=offset, mean=tf.zeros([0]), variance=tf.zeros([0]),
        epsilon=epsilon, is_training=True,
    )  # fmt: skip
    # The kernel gives the unbiased variance; Keras keeps the biased one.
    count = tf.cast(tf.size(x) // tf.shape(x)[-1], tf.float32)
    return (y if maps is x else tf.squeeze(y, [1, 2])), mean, variance * (count - 1) / count


def synchronised_batch_norm(x, scale, offset, epsilon):
    """Batch normalisation by the statistics of the batches of all replicas together.

    The gradient is written out: through the exchange between the replicas, each replica's input
    also changes the outputs of the others.

    Args:
        x: (B, ..., C) of this replica; of one shape on all replicas.
        scale, offset: (C,).
        epsilon: Added to the variance.

    Returns:
        (y, mean, variance): y as x; the statistics, (C,) and biased, carry no gradient.
    """

    @tf.custom_gradient
    def normalise(x, scale, offset):
        axes = list(range(x.shape.rank - 1))
        # In two exchanges: the mean of squares less the square of the mean would cancel.
        (mean,) = mean_over_replicas(tf.reduce_mean(x, axes))
        (variance,) = mean_over_replicas(tf.reduce_mean(tf.square(x - mean), axes))
        inverse = tf.math.rsqrt(variance + epsilon)
        normal = (x - mean) * inverse

        def gradient(dy, *_):
            means = tf.reduce_mean(dy, axes), tf.reduce_mean(dy * normal, axes)
            mean_dy, mean_dy_normal = mean_over_replicas(*means)
            dx = scale * inverse * (dy - mean_dy - normal * mean_dy_normal)
            # Products, and so buffers of their own: see `TrainingBatchNorm`.
            count = tf.cast(tf.size(x) // tf.shape(x)[-1], x.dtype)
            return dx, means[1] * count, means[0] * count

        return (normal * scale + offset, mean, variance), gradient

    return normalise(x, scale, offset)


def training_pass(model, groups=None, any_size=False):
    """The graph of a functional model, on its own layers, with `TrainingBatchNorm` where it helps.

    Args:
        model: A `keras.Model`.
        groups: Parts of each replica's batch that are normalised by themselves; None for
            statistics of the global batch.
        any_size: Whether it takes images of any height and width.

    Returns:
        A `keras.Model` that shares all layers with `model`; `model` itself where there is nothing
        to replace.

    Raises:
        ValueError: Under a strategy of several replicas, if a batch normalisation of `model`
            cannot be replaced: each replica would go by statistics of its own.
    """
    replicas = replica_count()
    functional = hasattr(model, "operations")

    def helps(layer):
        norm = isinstance(layer, keras.layers.BatchNormalization)
        return norm and functional and _fits(layer, len(layer.input.shape))

    if replicas > 1:
        left = _left_alone(model, helps)
        if left is not None:
            raise ValueError(
                "Every BatchNormalization must be `synchronized` or a layer of a functional model, "
                f"over its last axis, to be trained on {replicas} replicas. "
                f"Received: {left!r} in model {model.name!r}"
            )
    if not any(map(helps, model.layers)) and not any_size:
        return model

    def call_function(layer, *args, **kwargs):
        if helps(layer):
            layer = TrainingBatchNorm(layer, groups)
        return layer(*args, **kwargs)

    inputs = keras.Input((None, None, model.input_shape[-1])) if any_size else None
    return keras.models.clone_model(
        model,
        input_tensors=inputs,
        clone_function=lambda layer: layer,
        call_function=call_function,
    )


def whole_groups(x, groups):
    """A replica's images (B, ...), unless they are no whole groups of at least 2.

    Raises:
        ValueError: If they are not; `tf.errors.InvalidArgumentError` as it runs, where B is not
            known before: of the last batch of a data set, say.
    """
    count, text = x.shape[0], f"A batch must be {groups} whole groups of at least 2 images"
    if count is None:
        count = tf.shape(x)[0]
        checks = [
            tf.debugging.assert_equal(count % groups, 0, f"{text}; drop the remainder"),
            tf.debugging.assert_greater_equal(count, 2 * groups, text),
        ]
        with tf.control_dependencies([check for check in checks if check is not None]):
            return tf.identity(x)
    if count % groups or count < 2 * groups:
        raise ValueError(f"{text} (`batch_norm_groups`). Received: {count} images")
    return x


def _left_alone(model, replaced):
    """The name of a batch normalisation that goes by statistics of its own replica, or None."""
    own = {id(layer) for layer in model.layers if replaced(layer)}
    for layer in model._flatten_layers(include_self=False):
        norm = isinstance(layer, keras.layers.BatchNormalization)
        if norm and not layer.synchronized and id(layer) not in own:
            return layer.name
    return None


def _fits(layer, rank):
    return (
        type(layer) is keras.layers.BatchNormalization
        and layer.axis in (-1, rank - 1)
        and not (layer.synchronized or layer.renorm)
    )


def _has_kernel(layer, rank):
    return rank in (2, 4) and layer.compute_dtype != "float64"
