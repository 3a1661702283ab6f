"""`SlimMask`, and the host network with a mask after every layer that slimming narrows."""

import keras
from keras import ops

# A channel that is zero still counts in a mean over channels, and in the softmax of a head.
_COUNTING_CHANNELS = (
    keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
    keras.layers.MultiHeadAttention,
)


@keras.saving.register_keras_serializable("keras_sacl")
class SlimMask(keras.layers.Layer):
    """Zeroes the channels that the slim network lacks, while the slim flag is on.

        slim=False:  y = x
        slim=True:   y = x * mask,   mask in {0, 1}^C with exactly `keep` ones

    Placed behind a BatchNorm (or a biased layer without one), a zeroed channel is a deleted one:
    ReLU-like activations and poolings keep it at zero, and the next layer's weights for it have
    no effect and get no gradient. The flag is a call-context argument, as `training` is: give it
    to the outermost model, `model(x, training=True, slim=True)`.

    "Slimmed Asymmetrical Contrastive Learning and Cross Distillation" (2023), section on SACL.

    Args:
        keep: How many channels stay, from 1 to C. The leading ones, until `mask` is assigned.

    Input and output shape: (..., C).
    """

    def __init__(self, keep, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(keep, int) or keep < 1:
            raise ValueError(f"`keep` must be a positive integer. Received: keep={keep}")
        self.keep = keep
        self._register_call_context_args("slim")

    def build(self, input_shape):
        channels = input_shape[-1]
        if self.keep > channels:
            raise ValueError(
                f"`keep` must be at most the {channels} channels of the input. "
                f"Received: keep={self.keep}"
            )
        self.mask = self.add_weight(
            name="mask",
            shape=(channels,),
            initializer=lambda shape, dtype=None: ops.cast(ops.arange(channels) < self.keep, dtype),
            trainable=False,
        )

    def call(self, x, slim=None):
        # None and not False: a default of False would be recorded in a functional graph and win
        # over the flag that the model is called with.
        return x * ops.cast(self.mask, x.dtype) if slim else x

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "keep": self.keep}


def insert_masks(host, keep):
    """The host's graph with a `SlimMask` behind every layer that slimming narrows.

    The layers, and so the weights, are the host's own. A layer whose only reader is a BatchNorm
    needs no mask of its own, since the one behind the BatchNorm hides it.

    Args:
        host: A functional `keras.Model` without models inside it.
        keep: Maps a layer of the host to the channels that its slim counterpart puts out.

    Returns:
        A `keras.Model`, called as `model(x, training=..., slim=...)`.

    Raises:
        ValueError: If the host is not a flat functional model, or holds a layer that normalises
            over channels or attends (a mask cannot stand for deletion there).
    """
    if not isinstance(host, keras.models.Model) or not hasattr(host, "operations"):
        raise ValueError(
            "`host` must be a functional keras.Model to be masked; "
            f'use execution="slice" for others. Received: host={host}'
        )
    for layer in host.layers:
        if isinstance(layer, keras.Model):
            raise ValueError(
                "`host` must hold no model inside it to be masked; "
                f'use execution="slice" for it. Received: host with model {layer.name!r} inside'
            )
        if isinstance(layer, _COUNTING_CHANNELS):
            raise ValueError(
                "`host` must neither normalise over channels nor attend to be masked: a channel "
                'of zeros is not a deleted one there; use execution="slice" for it. '
                f"Received: host with {type(layer).__name__} {layer.name!r}"
            )

    def call_function(layer, *args, **kwargs):
        y = layer(*args, **kwargs)
        if not getattr(layer, "weights", None) or _read_by_batch_norm_only(layer):
            return y
        channels, kept = layer.output.shape[-1], keep(layer)
        return y if kept == channels else SlimMask(kept, name=f"{layer.name}_slim_mask")(y)

    masked = keras.models.clone_model(
        host, clone_function=lambda layer: layer, call_function=call_function
    )
    masked._register_call_context_args("slim")
    return masked


def _read_by_batch_norm_only(layer):
    readers = [node.operation for node in layer._outbound_nodes]
    return bool(readers) and all(
        isinstance(reader, keras.layers.BatchNormalization) for reader in readers
    )
