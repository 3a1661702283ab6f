"""Networks without gradient: frozen passes, and the mean of a network over its own past."""

from types import SimpleNamespace

import keras
import tensorflow as tf

from keras_sacl.batch_norm import training_pass


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
    return tf.nest.map_structure(tf.stop_gradient, y)


def is_deterministic(model):
    """Whether a training-mode pass is a function of its input: no dropout, no random depth."""
    return len(model.variables) == len(model.weights)


class MomentumNetwork(keras.layers.Layer):
    """The mean of a network over its own past: theta_k <- m theta_k + (1 - m) theta.

    "Momentum Contrast for Unsupervised Visual Representation Learning" (2020), equation 2. It
    begins as a copy. Its passes are in training mode, by the statistics of the batch; its weights
    are variables of the layer, not trainable, so that they are saved and resumed.

    Args:
        network: A built `keras.Model`.
        momentum: m in [0, 1].
        groups: As of `training_pass`.
    """

    def __init__(self, network, momentum=0.999, groups=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= momentum <= 1:
            raise ValueError(f"`momentum` must be in [0, 1]. Received: momentum={momentum}")
        self.momentum = momentum
        self.mean = keras.models.clone_model(network)
        self.mean.set_weights(network.get_weights())
        pairs = list(zip(self.mean.trainable_variables, network.trainable_variables, strict=True))
        # The variables and not the layer: a BatchNorm that is frozen as a layer would go by its
        # moving statistics.
        for variable in self.mean.trainable_variables:
            variable.trainable = False
        # Out of Keras' sight: the variables are those of `mean` and of the method's own network.
        self._hidden = SimpleNamespace(pairs=pairs, run=training_pass(self.mean, groups=groups))
        self.built = True

    def copy(self):
        """Makes the mean the present network."""
        for mean, present in self._hidden.pairs:
            mean.assign(present)

    def update(self):
        """One step towards the present network."""
        for mean, present in self._hidden.pairs:
            mean.assign(mean * self.momentum + present * (1 - self.momentum))

    def call(self, x):
        """[f_k(x)], in training mode and without gradient."""
        return frozen_call(self._hidden.run, x)
