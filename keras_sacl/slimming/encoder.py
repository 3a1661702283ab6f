"""The slimmable encoder: a host network, and its slim view by masking or by slicing."""

from types import SimpleNamespace

import keras
import tensorflow as tf

from keras_sacl.batch_norm import training_pass
from keras_sacl.slimming import pairing
from keras_sacl.slimming.mask import insert_masks

EXECUTIONS = ("slice", "mask")
SELECTIONS = ("leading", "magnitude")
TRAINED = ("both", "host", "slim")


@keras.saving.register_keras_serializable("keras_sacl")
class SlimmableEncoder(keras.Model):
    """A host encoder that can also run as the slim network inside it.

    `encoder(x)` is the host, `encoder(x, slim=True)` the slim network, whose every variable is a
    block of the host's. Both return the host's number of features; those that the slim network
    lacks are zero, so that one projector serves both. The affine parameters of BatchNorm are
    shared, the moving statistics are not: the slim network's activations have others, and mixing
    the two is what ruins a slimmed network at inference.

    `trains` says what a training pass runs: "both" what is asked for; "host" the host, whatever is
    asked for (M is all ones), and each step of a method ends with `take_statistics`; "slim" the
    slim network. What is extracted, and what runs in inference, is the slim network always. A
    function that has been traced keeps what it was traced with: `SlimSchedule` has it made anew.

    "Slimmed Asymmetrical Contrastive Learning and Cross Distillation" (2023): theta_s = theta M.

    Args:
        host, slim: `keras.Model`s built by one function at two widths, (B, H, W, C) to (B, F).
            The slim model gives the shapes; its own values are never read.
        execution: "slice" runs the narrow network on slices of the host's variables. "mask" runs
            the host with a `SlimMask` behind every narrowed layer: the definition, and slower. Not
            for transformers, where a channel of zeros is not a deleted one.
        selection: "leading" channels, or those of largest "magnitude" (L1 norm of the filters),
            chosen anew by `refresh_channels`.

    Raises:
        ValueError: If host and slim do not correspond; it names the first layer that differs. If
            the host cannot be masked (see `insert_masks`), or its channels not be selected.
    """

    def __init__(self, host, slim, execution="slice", selection="leading", **kwargs):
        # Its own reads of variables stay in float32 under mixed precision: statistics are copied
        # here, and the networks inside cast for themselves.
        super().__init__(**{**kwargs, "dtype": "float32"})
        if execution not in EXECUTIONS:
            raise ValueError(
                f"`execution` must be one of {EXECUTIONS}. Received: execution={execution!r}"
            )
        if selection not in SELECTIONS:
            raise ValueError(
                f"`selection` must be one of {SELECTIONS}. Received: selection={selection!r}"
            )
        self.execution, self.selection = execution, selection
        self._trains = "both"
        self.host = host
        layers, pairs = pairing.check_pair(host, slim)
        # In a namespace, out of Keras' sight: the slim model's own values are not part of the
        # state, and the maps are keyed by variable.
        self._plan = SimpleNamespace(
            slim=slim, pairs=pairs, statistics={}, frozen=set(), groups=None, masks={},
            # The same layers and variables, on faster kernels.
            host_pass=training_pass(host), slim_pass=training_pass(slim),
        )  # fmt: skip
        statistics = pairing.moving_statistics(host)
        self._plan.frozen = {id(v) for v in host.non_trainable_weights} - statistics
        for pair in pairs:
            if id(pair.host) in statistics:
                # At the host's width, so that a changed selection finds its channel's statistics.
                self._plan.statistics[id(pair.host)] = self.add_weight(
                    name=f"slim_{pair.layer}_{pair.host.name}".replace("/", "_"),
                    shape=pair.host.shape,
                    dtype=pair.host.dtype,
                    initializer="ones" if "variance" in pair.host.name else "zeros",
                    trainable=False,
                )
        if selection == "magnitude":
            self._plan.groups = pairing.channel_groups(host, pairs)
            for group, (channels, kept) in self._plan.groups.sizes.items():
                self._plan.masks[group] = self.add_weight(
                    name=f"channels_{group}",
                    shape=(channels,),
                    initializer=_Leading(kept),
                    trainable=False,
                )
        if execution == "mask":
            slim_of = {id(h): s for h, s in layers}
            self.masked = insert_masks(host, lambda layer: slim_of[id(layer)].output.shape[-1])
            self._plan.masked_pass = training_pass(self.masked)
            self._plan.masked_pass._register_call_context_args("slim")
        if selection == "magnitude":
            self.refresh_channels()
        self.built = True

    @property
    def trains(self):
        """What a training pass runs: "both", "host" or "slim"."""
        return self._trains

    @trains.setter
    def trains(self, value):
        if value not in TRAINED:
            raise ValueError(f"`trains` must be one of {TRAINED}. Received: trains={value!r}")
        self._trains = value

    @property
    def slim_features(self):
        """The number of features that the deployed slim network puts out."""
        return self._plan.slim.output_shape[-1]

    @property
    def output_shape(self):
        return self.host.output_shape

    @property
    def input_shape(self):
        return self.host.input_shape

    def call(self, x, slim=False, training=None):
        """(B, H, W, C) normalised images to (B, F) features of the host's width F."""
        if not (self.trains_slim(slim) if training else slim):
            return self._plan.host_pass(x, training=training)
        return self._slim_pass(x, training)

    def trains_slim(self, slim):
        """Whether a training pass, of the slim network if so asked, is the slim network's."""
        return bool(slim) if self.trains == "both" else self.trains == "slim"

    def compute_output_shape(self, input_shape):
        return self.host.compute_output_shape(input_shape)

    def take_statistics(self):
        """Makes the slim network's moving statistics those that the host has now."""
        for pair in self._plan.pairs:
            statistics = self._plan.statistics.get(id(pair.host))
            if statistics is not None:
                statistics.assign(pair.host.value)

    def refresh_channels(self):
        """Selects anew the channels of largest magnitude. No effect with "leading"."""
        if self.selection == "leading":
            return
        groups = self._plan.groups
        for group, mask in pairing.largest_channels(self._plan.pairs, groups).items():
            self._plan.masks[group].assign(mask)
        if self.execution == "mask":
            for layer in self.masked.layers:
                source = layer.name.removesuffix("_slim_mask")
                if source != layer.name:
                    layer.mask.assign(self._plan.masks[groups.outputs[source]])

    def extract_slim(self):
        """The slim network by itself: an ordinary dense `keras.Model`, (B, H, W, C) to (B, F_s)."""
        model = keras.models.clone_model(self._plan.slim)
        self.copy_slim_to(model)
        return model

    def copy_slim_to(self, model):
        """Assigns the slim network's present values to a model that `extract_slim` gave."""
        variables = [v for layer in pairing.flatten(model) for v in layer.variables]
        for target, pair in zip(variables, self._plan.pairs, strict=True):
            target.assign(self._block(pair, self._source(pair)))

    def get_config(self):
        return {
            **keras.layers.Layer.get_config(self),
            "host": keras.saving.serialize_keras_object(self.host),
            "slim": keras.saving.serialize_keras_object(self._plan.slim),
            "execution": self.execution,
            "selection": self.selection,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for key in ("host", "slim"):
            config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)

    def _slim_pass(self, x, training):
        if self.execution == "mask":
            return self._masked_pass(x, training)
        return self._sliced_pass(x, training)

    def _sliced_pass(self, x, training):
        slim = self._plan.slim_pass
        by_slim = {id(pair.slim): pair for pair in self._plan.pairs}
        trainable = [by_slim[id(v)] for v in slim.trainable_variables]
        state = [by_slim[id(v)] for v in slim.non_trainable_variables]
        features, updates = slim.stateless_call(
            [self._block(pair, self._source(pair)) for pair in trainable],
            [self._block(pair, self._source(pair)) for pair in state],
            x,
            training=training,
        )
        if training:
            for pair, value in zip(state, updates, strict=True):
                if id(pair.host) not in self._plan.frozen:
                    source = self._source(pair)
                    source.assign(self._scatter(pair, source, value))
        return self._widen(features)

    def _masked_pass(self, x, training):
        masked = self._plan.masked_pass
        state = masked.non_trainable_variables
        sources = [self._plan.statistics.get(id(v), v) for v in state]
        features, updates = masked.stateless_call(
            [v.value for v in masked.trainable_variables],
            [v.value for v in sources],
            x,
            training=training,
            slim=True,
        )
        if training:
            pairs = {id(pair.host): pair for pair in self._plan.pairs}
            for variable, source, value in zip(state, sources, updates, strict=True):
                pair = pairs.get(id(variable))
                if pair is not None and id(variable) not in self._plan.frozen:
                    block = self._block(pair, value)
                    source.assign(self._scatter(pair, source, block))
        return features

    def _source(self, pair):
        """The variable that a slim variable is a block of: the host's, or slim statistics."""
        return self._plan.statistics.get(id(pair.host), pair.host)

    def _indices(self, pair, axis):
        group = self._plan.groups.axes[id(pair.host), axis]
        # top_k keeps the order of equal values, so the ones come out in ascending order.
        return tf.math.top_k(self._plan.masks[group].value, pair.slim.shape[axis]).indices

    def _block(self, pair, value):
        """The slim block of a host-sized value."""
        value = value.value if isinstance(value, keras.Variable) else value
        if not pair.sliced_axes:
            return tf.convert_to_tensor(value)
        if self.selection == "leading":
            # Not by indexing, whose gradient takes three times as long.
            return tf.slice(value, [0] * len(pair.slim.shape), pair.slim.shape)
        for axis in pair.sliced_axes:
            value = tf.gather(value, self._indices(pair, axis), axis=axis)
        return value

    def _scatter(self, pair, source, block):
        """The host-sized value of `source` with `block` put in its place; statistics are (C,)."""
        if not pair.sliced_axes:
            return block
        if self.selection == "leading":
            return tf.concat([block, source.value[pair.slim.shape[0] :]], axis=0)
        indices = self._indices(pair, 0)[:, tf.newaxis]
        return tf.tensor_scatter_nd_update(source.value, indices, block)

    def _widen(self, features):
        """(B, F_s) to (B, F): zeros where the slim network has no feature."""
        missing = self.host.output_shape[-1] - self.slim_features
        if not missing:
            return features
        padded = tf.pad(features, [[0, 0], [0, missing]])
        if self.selection == "leading":
            return padded
        group = self._plan.groups.outputs[self.host.layers[-1].name]
        mask = tf.cast(self._plan.masks[group].value, tf.int32)
        # Kept channels read their place among the kept ones, all others the first zero column.
        columns = tf.where(mask > 0, tf.cumsum(mask) - 1, self.slim_features)
        return tf.gather(padded, columns, axis=1)


@keras.saving.register_keras_serializable("keras_sacl")
class _Leading(keras.initializers.Initializer):
    """Ones for the leading `keep` channels, zeros for the others."""

    def __init__(self, keep):
        self.keep = keep

    def __call__(self, shape, dtype=None):
        return keras.ops.cast(keras.ops.arange(shape[0]) < self.keep, dtype or "float32")

    def get_config(self):
        return {"keep": self.keep}
