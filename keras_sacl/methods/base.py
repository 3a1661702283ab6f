"""What the methods share: embedding, frozen passes, the training step, saving."""

from types import SimpleNamespace

import keras
import tensorflow as tf

from keras_sacl.batch_norm import training_pass
from keras_sacl.losses import embedding_std
from keras_sacl.replicas import global_batch, replica_count, worker_count
from keras_sacl.slimming import SlimmableEncoder, TieredEncoder


class TwoViewMethod(keras.Model):
    """Pretrains an encoder from two views of each image.

    A method of your own is a subclass with one method:

        @keras.saving.register_keras_serializable("my_package")
        class Mine(TwoViewMethod):
            def loss_terms(self, x_a, x_b):
                z_a, z_b = self.embed(x_a), self.embed(x_b)
                return {"loss": my_loss(z_a, z_b), "z": z_b}

    `fit` takes a `tf.data.Dataset` of (x_a, x_b), each (B, H, W, C) float32; or of whatever
    `finish_views` makes them of.

    Args:
        encoder: A `keras.Model`, (B, H, W, C) to (B, F), or a `SlimmableEncoder`. Of a
            `TieredEncoder` each step trains one tier; what is deployed is its widest.
        projector: A `keras.Model`, (B, F) to (B, D). It is not deployed.
        loss_scale: The factor on the whole loss: 1 for Adam-like optimizers, 0.1 with LARS.
    """

    # Two functions, from what the data hold for a view to the view: augmentation on the
    # accelerator, inside the training step. None where the data hold the views themselves.
    finish_views = None

    # The names of the scalars that `loss_terms` returns and the logs show, beside the loss.
    terms = ()

    def __init__(self, encoder, projector, loss_scale=1.0, **kwargs):
        super().__init__(**kwargs)
        features, expected = encoder.output_shape[-1], projector.input_shape[-1]
        if features != expected:
            raise ValueError(
                f"`projector` must take the encoder's {features} features. "
                f"Received: projector with input_shape={projector.input_shape}"
            )
        if not loss_scale > 0:
            raise ValueError(f"`loss_scale` must be positive. Received: loss_scale={loss_scale}")
        self.encoder, self.projector, self.loss_scale = encoder, projector, loss_scale
        # On faster kernels, and over all replicas; out of Keras' sight, since the variables are
        # the same.
        slimmable = isinstance(encoder, SlimmableEncoder)  # which sees to it by itself
        self._training = SimpleNamespace(
            encoder=encoder if slimmable else training_pass(encoder),
            projector=training_pass(projector),
        )
        names = ("loss", *self.terms, "embedding_std")
        self._means = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def loss_terms(self, x_a, x_b):
        """The loss of one batch: override this.

        Args:
            x_a, x_b: The two views, (B, H, W, C): this replica's part of the batch. `embed` gives
                the embeddings of the whole.

        Returns:
            A dict with "loss" (a scalar, before `loss_scale`), "z" ((N, D) embeddings to watch
            for collapse), and a scalar for each name in `terms`.
        """
        raise AttributeError(f"{type(self).__name__} must define `loss_terms(self, x_a, x_b)`.")

    def embed(self, x, **kwargs):
        """z = h(f(x)) in training mode: this replica's (B, H, W, C) to all replicas' (N, D)."""
        features = self._training.encoder(x, training=True, **kwargs)
        return global_batch(self._training.projector(features, training=True))

    def frozen_embed(self, x, **kwargs):
        """[z] = [h(f(x))]: as `embed`, without gradient and without touching the statistics."""
        features = frozen_call(self._training.encoder, x, **kwargs)
        return global_batch(frozen_call(self._training.projector, features))

    def train_step(self, data):
        views = self._views(data)
        if isinstance(self.encoder, TieredEncoder):
            return self.encoder.at_drawn_tier(self.optimizer.iterations, self._update, *views)
        return self._update(*views)

    def _update(self, x_a, x_b):
        with tf.GradientTape() as tape:
            terms = self.loss_terms(x_a, x_b)
            loss = self.loss_scale * terms["loss"]
            # Every replica computes the loss of the global batch, and gradients are summed. The
            # optimizer's own factor keeps small float16 gradients from underflowing.
            scaled = self.optimizer.scale_loss(loss / replica_count())
        variables = self.trainable_variables
        self.optimizer.apply(tape.gradient(scaled, variables), variables)
        return self._log(terms, loss)

    def test_step(self, data):
        """The same losses on held-out views; batch statistics, nothing is changed."""
        x_a, x_b = self._views(data)
        before = [(v, tf.identity(v)) for v in self.non_trainable_variables]
        terms = self.loss_terms(x_a, x_b)
        for variable, value in before:
            variable.assign(value)
        return self._log(terms, self.loss_scale * terms["loss"])

    def _views(self, data):
        x_a, x_b, _ = keras.utils.unpack_x_y_sample_weight(data)
        if self.finish_views is None:
            return x_a, x_b
        return self.finish_views(x_a, x_b)

    def _log(self, terms, loss):
        values = {**terms, "loss": loss, "embedding_std": embedding_std(terms["z"])}
        for name, mean in self._means.items():
            mean.update_state(values[name])
        results = {name: mean.result() for name, mean in self._means.items()}
        if worker_count() > 1:  # Keras averages over the first axis there.
            results = {name: value[tf.newaxis] for name, value in results.items()}
        return results

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        """Nothing: all is built in the constructor.

        Keras' own takes a batch from the data for it, and fails on several workers.
        """

    def call(self, x, training=None):
        """The deployed encoder's features, (B, H, W, C) to (B, F)."""
        if isinstance(self.encoder, SlimmableEncoder):
            return self.encoder(x, slim=True, training=training)
        return self.encoder(x, training=training)

    def deployed_encoder(self):
        """The network that goes to the phone, by itself: an ordinary `keras.Model`."""
        if isinstance(self.encoder, SlimmableEncoder):
            return self.encoder.extract_slim()
        copy = keras.models.clone_model(self.encoder)
        self.copy_deployed_to(copy)
        return copy

    def copy_deployed_to(self, model):
        """Brings a model that `deployed_encoder` gave up to date."""
        if isinstance(self.encoder, SlimmableEncoder):
            self.encoder.copy_slim_to(model)
        else:
            model.set_weights(self.encoder.get_weights())

    def get_config(self):
        return {
            **keras.layers.Layer.get_config(self),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "projector": keras.saving.serialize_keras_object(self.projector),
            "loss_scale": self.loss_scale,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for key in ("encoder", "projector"):
            config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)

    def require_slimmable(self):
        """Raises ValueError if the encoder has no slim view."""
        if not isinstance(self.encoder, SlimmableEncoder):
            raise ValueError(
                f"`encoder` of {type(self).__name__} must be a SlimmableEncoder (a host with a "
                f"slim view); for one network use XD or BarlowTwins. Received: {self.encoder}"
            )


def frozen_call(model, x, **kwargs):
    """[f(x)]: a training-mode pass with batch statistics and without gradient.

    Moving statistics stay as they are. The state of random layers advances, so that dropout does
    not repeat itself.

    Args:
        model: A built `keras.Model`.
        x: Its input.
        **kwargs: Passed to the call.

    Returns:
        The output, cut off from the gradient.
    """
    weights = {id(v) for v in model.non_trainable_weights}
    state = model.non_trainable_variables
    y, updates = model.stateless_call(
        [tf.stop_gradient(v.value) for v in model.trainable_variables],
        [v.value for v in state],
        x,
        training=True,
        **kwargs,
    )
    for variable, value in zip(state, updates, strict=True):
        if id(variable) not in weights:
            variable.assign(value)
    return tf.stop_gradient(y)


def is_deterministic(model):
    """Whether a training-mode pass is a function of its input: no dropout, no random depth."""
    return len(model.variables) == len(model.weights)
