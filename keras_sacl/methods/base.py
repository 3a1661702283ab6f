"""What the methods share: embedding, frozen passes, the training step, saving."""

import threading
from types import SimpleNamespace

import keras
import tensorflow as tf

from keras_sacl.batch_norm import training_pass, whole_groups
from keras_sacl.encodings import Encodings
from keras_sacl.frozen import frozen_call, is_deterministic
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
    `finish_views` makes them of. A third element, a dict, may hold "small_views", a tuple of
    more views (B, h, w, C), and "teacher", rows that a `Distiller` without a teacher takes.

    Args:
        encoder: A `keras.Model`, (B, H, W, C) to (B, F), or a `SlimmableEncoder`. Of a
            `TieredEncoder` each step trains one tier; what is deployed is its widest.
        projector: A `keras.Model`, (B, F) to (B, D). It is not deployed.
        loss_scale: The factor on the whole loss: 1 for Adam-like optimizers, 0.1 with LARS.
        distiller: A `Distiller`, whose weighted objectives are added to the loss; or None.
        groups_per_replica: Parts of each replica's batch that BatchNorm normalises by themselves;
            None normalises the batches of all replicas together.
    """

    # A function of what the data hold for the views to the views: augmentation on the
    # accelerator, inside the training step. None where the data hold the views themselves.
    finish_views = None

    # Whether `loss_terms` takes small views beside the two: views of another size.
    takes_small_views = False

    # The names of the scalars that `loss_terms` returns and the logs show, beside the loss.
    terms = ()

    def __init__(
        self, encoder, projector, loss_scale=1.0, distiller=None, groups_per_replica=None, **kwargs
    ):
        super().__init__(**kwargs)
        features = encoder.output_shape[-1]
        if projector is not None and projector.input_shape[-1] != features:
            raise ValueError(
                f"`projector` must take the encoder's {features} features. "
                f"Received: projector with input_shape={projector.input_shape}"
            )
        if not loss_scale > 0:
            raise ValueError(f"`loss_scale` must be positive. Received: loss_scale={loss_scale}")
        self.encoder, self.projector, self.loss_scale = encoder, projector, loss_scale
        self.distiller, self.groups_per_replica = distiller, groups_per_replica
        objectives = ()
        if distiller is not None:
            distiller.connect(encoder, projector)
            objectives = distiller.weight_of
        # On faster kernels, and over all replicas; out of Keras' sight, since the variables are
        # the same.
        self._training = SimpleNamespace(
            encoder=self._encoder_pass(groups_per_replica),
            projector=projector and training_pass(projector, groups_per_replica),
            step=_Step(),
        )
        names = ("loss", *self.terms, *objectives, "embedding_std")
        self._means = {name: keras.metrics.Mean(name=name) for name in names}
        self.built = True

    def _encoder_pass(self, groups):
        if self._slimmable:  # which sees to it by itself
            return self.encoder
        encoder = self.encoder
        if self.distiller is not None and self.distiller.needs_maps:
            encoder = self.distiller.with_maps(encoder)
        return training_pass(encoder, groups, any_size=self.takes_small_views)

    def loss_terms(self, x_a, x_b):
        """The loss of one batch: override this.

        Args:
            x_a, x_b: The two views, (B, H, W, C): this replica's part of the batch. `embed` gives
                the embeddings of the whole. Small views of the data follow as more arguments.

        Returns:
            A dict with "loss" (a scalar, before `loss_scale`), "z" ((N, D) embeddings to watch
            for collapse), and a scalar for each name in `terms`.
        """
        raise AttributeError(f"{type(self).__name__} must define `loss_terms(self, x_a, x_b)`.")

    def encode(self, x, **kwargs):
        """f(x) in training mode as `Encodings`; within a step each view is encoded once."""
        passes, key = self._training.step.passes, self._pass_key(x, **kwargs)
        found = self._encoded(key)
        if found is not None:
            return found
        outputs = self._training.encoder(x, training=True, **kwargs)
        features, *maps = outputs if isinstance(outputs, (list, tuple)) else [outputs]

        def project(features):
            return self._training.projector(features, training=True)

        found = Encodings(features, self.projector and project, maps)
        if passes is not None:
            passes[key] = x, found  # with x, so that no other tensor gets its id
        return found

    def embed(self, x, **kwargs):
        """z = h(f(x)) in training mode: this replica's (B, H, W, C) to all replicas' (N, D)."""
        return self.encode(x, **kwargs).embeddings

    def encode_deployed(self, x):
        """`encode` by the slim network, or the only one: what a teacher is compared with."""
        return self.encode(x, slim=True) if self._slimmable else self.encode(x)

    def frozen_embed(self, x, **kwargs):
        """[z] = [h(f(x))]: as `embed`, without gradient and without touching the statistics.

        What `embed` gave of the same network and view, in the same step, is what this pass would
        give, unless a layer draws random numbers (dropout, random depth): it is not run again.
        """
        found = self._encoded(self._pass_key(x, **kwargs))
        if found is not None and self._deterministic:
            return tf.stop_gradient(found.embeddings)
        features = frozen_call(self._training.encoder, x, **kwargs)
        return global_batch(frozen_call(self._training.projector, features))

    def _pass_key(self, x, slim=False, **kwargs):
        slim = self._slimmable and self.encoder.trains_slim(slim)
        return id(x), slim, *sorted(kwargs.items())

    @property
    def _deterministic(self):
        return is_deterministic(self.encoder) and is_deterministic(self.projector)

    def _encoded(self, key):
        """The `Encodings` of a pass that this step has made, or None."""
        _, found = (self._training.step.passes or {}).get(key, (None, None))
        return found

    def train_step(self, data):
        views = self._views(data)
        if isinstance(self.encoder, TieredEncoder):
            return self.encoder.at_drawn_tier(self.optimizer.iterations, self._update, *views)
        return self._update(*views)

    def _update(self, *views):
        with tf.GradientTape() as tape:
            terms = self._all_terms(*views)
            loss = self.loss_scale * terms["loss"]
            # Every replica computes the loss of the global batch, and gradients are summed. The
            # optimizer's own factor keeps small float16 gradients from underflowing.
            scaled = self.optimizer.scale_loss(loss / replica_count())
        variables = self.trainable_variables
        # Dense: selected channels give slices, some twice, which LAMB would square one by one.
        gradients = [g if g is None else tf.convert_to_tensor(g) for g in
                     tape.gradient(scaled, variables)]  # fmt: skip
        self.optimizer.apply(gradients, variables)
        return self._log(terms, loss)

    def test_step(self, data):
        """The same losses on held-out views; batch statistics, nothing is changed."""
        views = self._views(data)
        kept = {id(v) for v in self.frozen_variables}
        before = [(v, tf.identity(v)) for v in self.non_trainable_variables if id(v) not in kept]
        terms = self._all_terms(*views)
        for variable, value in before:
            variable.assign(value)
        return self._log(terms, self.loss_scale * terms["loss"])

    def _views(self, data):
        x_a, x_b, extras = keras.utils.unpack_x_y_sample_weight(data)
        extras = extras or {}
        cached = self.distiller is not None and self.distiller.teacher is None
        if cached != ("teacher" in extras):
            raise ValueError(
                'The third element of the data must hold "teacher" if, and only if, the distiller '
                f"has no teacher. Received: {list(extras)}, distiller={self.distiller}"
            )
        views = x_a, x_b, *extras.get("small_views", ())
        if self.finish_views is not None:
            views = self.finish_views(*views)
        if self.groups_per_replica is not None:
            views = tuple(whole_groups(x, self.groups_per_replica) for x in views)
        return (*views, extras["teacher"]) if "teacher" in extras else views

    def _all_terms(self, *views):
        """The terms of `loss_terms`, and those of the distiller added to the loss."""
        rows = None
        if self.distiller is not None and self.distiller.teacher is None:
            *views, rows = views
        step = self._training.step
        step.passes = {}
        try:
            terms = dict(self.loss_terms(*views))
            found = {}
            if self.distiller is not None:
                found = self.distiller.terms(self.encode_deployed, views[:2], rows)
        finally:
            step.passes = None
        if self._slimmable and self.encoder.trains == "host":
            self.encoder.take_statistics()
        if self.distiller is None:
            return terms
        weighted = [w * found[name] for name, w in self.distiller.weight_of.items()]
        losses = [tf.convert_to_tensor(terms["loss"]), *weighted]
        # Features are float32 under a float64 policy, embeddings and heads float64.
        dtype = tf.float64 if any(x.dtype == tf.float64 for x in losses) else tf.float32
        return {**terms, **found, "loss": sum(tf.cast(x, dtype) for x in losses)}

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
        if self._slimmable:
            return self.encoder(x, slim=True, training=training)
        return self.encoder(x, training=training)

    def deployed_encoder(self):
        """The network that goes to the phone, by itself: an ordinary `keras.Model`."""
        if self._slimmable:
            return self.encoder.extract_slim()
        copy = keras.models.clone_model(self.encoder)
        self.copy_deployed_to(copy)
        return copy

    def copy_deployed_to(self, model):
        """Brings a model that `deployed_encoder` gave up to date."""
        if self._slimmable:
            self.encoder.copy_slim_to(model)
        else:
            model.set_weights(self.encoder.get_weights())

    def get_config(self):
        return {
            **keras.layers.Layer.get_config(self),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "projector": keras.saving.serialize_keras_object(self.projector),
            "loss_scale": self.loss_scale,
            "distiller": keras.saving.serialize_keras_object(self.distiller),
            "groups_per_replica": self.groups_per_replica,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for key in ("encoder", "projector", "distiller"):
            config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)

    def start_from(self, encoder):
        """Takes the weights of an encoder of the same architecture, before training."""
        self.encoder.set_weights(encoder.get_weights())
        if self.distiller is not None and self.distiller.mean_student is not None:
            self.distiller.mean_student.copy()

    @property
    def frozen_variables(self):
        """Variables that no training ever changes, the teacher's: no state of a run."""
        return [] if self.distiller is None else self.distiller.frozen_variables

    @property
    def _slimmable(self):
        return isinstance(self.encoder, SlimmableEncoder)

    def require_one_network(self):
        """Raises ValueError if the encoder is a host with a slim view."""
        if self._slimmable:
            raise ValueError(
                f"`encoder` of {type(self).__name__} must be one network, not a SlimmableEncoder. "
                f"Received: {self.encoder}"
            )

    def require_slimmable(self):
        """Raises ValueError if the encoder has no slim view."""
        if not self._slimmable:
            raise ValueError(
                f"`encoder` of {type(self).__name__} must be a SlimmableEncoder (a host with a "
                f"slim view); for one network use XD or BarlowTwins. Received: {self.encoder}"
            )


class _Step(threading.local):
    """What has been encoded in the present step: by thread, since each replica has its own."""

    passes = None
