"""LARS, the warm-up cosine schedule, and optimizers by name."""

import difflib
import math

import keras
import tensorflow as tf
from keras import ops

OPTIMIZERS = ("lars", "sgd", "adamw", "lamb")


@keras.saving.register_keras_serializable("keras_sacl")
class LARS(keras.optimizers.Optimizer):
    """Layer-wise adaptive rate scaling, with momentum.

        g  <- gradient + weight_decay * w
        g  <- g * trust * ||w|| / ||g||          (1 where either norm is 0)
        m  <- momentum * m + g
        w  <- w - learning_rate * m

    Biases and norm parameters get neither decay nor adaptation: variables of rank 0 or 1, and
    the biases of attention, which have a rank of 2.

    "Large Batch Training of Convolutional Networks" (2017), as used for Barlow Twins (2021).

    Args:
        learning_rate: A float or a schedule.
        momentum: Share of the old update that is kept.
        weight_decay: The decay, coupled: part of the gradient that is rescaled.
        trust: The trust coefficient eta: 0.001 for ImageNet, 0.02 in published CIFAR settings.
        **kwargs: As of `keras.optimizers.Optimizer` (clipnorm, ema_momentum, ...).
    """

    def __init__(
        self, learning_rate=0.3, momentum=0.9, weight_decay=0.0, trust=0.02, name="lars", **kwargs
    ):
        if not 0 <= momentum < 1:
            raise ValueError(f"`momentum` must be in [0, 1). Received: momentum={momentum}")
        if not trust > 0:
            raise ValueError(f"`trust` must be positive. Received: trust={trust}")
        if not (weight_decay or 0) >= 0:
            raise ValueError(
                f"`weight_decay` must not be negative. Received: weight_decay={weight_decay}"
            )
        # The base class would decay by itself, after the step; here decay is part of the step.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.momentum, self.decay, self.trust = momentum, weight_decay or 0.0, trust

    def build(self, variables):
        if self.built:
            return
        super().build(variables)
        self._momentums = [self.add_variable_from_reference(v, name="momentum") for v in variables]
        # By Keras' variables: of TensorFlow's, in the step, the name is a path.
        self._adapted = [len(v.shape) > 1 and v.name != "bias" for v in variables]

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        m = self._momentums[index]
        g, w = ops.cast(gradient, variable.dtype), ops.convert_to_tensor(variable)
        if self._adapted[index]:
            g = g + self.decay * w
            w_norm, g_norm = ops.norm(ops.reshape(w, (-1,))), ops.norm(ops.reshape(g, (-1,)))
            adapted = self.trust * w_norm / ops.where(g_norm > 0, g_norm, 1.0)
            g = g * ops.where(ops.logical_and(w_norm > 0, g_norm > 0), adapted, 1.0)
        self.assign(m, self.momentum * m + g)
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * m)

    def get_config(self):
        config = super().get_config()
        config.pop("weight_decay", None)
        return {
            **config,
            "momentum": self.momentum,
            "weight_decay": self.decay,
            "trust": self.trust,
        }


@keras.saving.register_keras_serializable("keras_sacl")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then half a cosine down to 0.

        step <  W:  peak * (step + 1) / W
        step >= W:  peak / 2 * (1 + cos(pi * (step - W) / (T - W)))

    Args:
        learning_rate: The peak.
        warmup_steps: W; 0 for none. The first step already learns, at peak / W.
        total_steps: T, at least W.
    """

    def __init__(self, learning_rate, *, warmup_steps, total_steps):
        super().__init__()
        if not 0 <= warmup_steps <= total_steps:
            raise ValueError(
                f"`warmup_steps` must be from 0 to total_steps={total_steps}. "
                f"Received: warmup_steps={warmup_steps}"
            )
        self.learning_rate = learning_rate
        self.warmup_steps, self.total_steps = warmup_steps, total_steps

    def __call__(self, step):
        step = ops.cast(step, "float32")
        warmup = (step + 1) / max(self.warmup_steps, 1)
        span = max(self.total_steps - self.warmup_steps, 1)
        progress = ops.clip((step - self.warmup_steps) / span, 0.0, 1.0)
        cosine = 0.5 * (1 + ops.cos(math.pi * progress))
        return self.learning_rate * ops.where(step < self.warmup_steps, warmup, cosine)

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
        }


@keras.saving.register_keras_serializable("keras_sacl")
class WarmupSteps(keras.optimizers.schedules.LearningRateSchedule):
    """A linear warm-up, then a rate that drops at given steps.

        step <  W:  rate * (step + 1) / W
        step >= W:  rate * factor ^ (number of drops at or before the step)

    Args:
        learning_rate: The rate after the warm-up.
        warmup_steps: W; 0 for none.
        drops: Steps, rising.
        factor: In (0, 1].
    """

    def __init__(self, learning_rate, *, warmup_steps, drops, factor):
        super().__init__()
        if not 0 < factor <= 1:
            raise ValueError(f"`factor` must be in (0, 1]. Received: factor={factor}")
        self.learning_rate, self.warmup_steps = learning_rate, warmup_steps
        self.drops, self.factor = list(drops), factor

    def __call__(self, step):
        step = ops.cast(step, "float32")
        warmup = (step + 1) / max(self.warmup_steps, 1)
        rate = ops.where(step < self.warmup_steps, warmup, 1.0)
        for drop in self.drops:
            rate = rate * ops.where(step >= drop, self.factor, 1.0)
        return self.learning_rate * rate

    def get_config(self):
        return {
            "learning_rate": self.learning_rate,
            "warmup_steps": self.warmup_steps,
            "drops": self.drops,
            "factor": self.factor,
        }


class _DecaysKernelsOnly:
    """Leaves biases and norm parameters out of weight decay, by name.

    A class, since `exclude_from_weight_decay` alone is not saved: a loaded optimizer would decay
    them without a word.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])

    def _use_weight_decay(self, variable):
        # Keras' variable: of TensorFlow's, in the step, the name is a path, with those of layers.
        return super()._use_weight_decay(
            self._trainable_variables[self._get_variable_index(variable)]
        )


@keras.saving.register_keras_serializable("keras_sacl")
class SGD(_DecaysKernelsOnly, keras.optimizers.SGD):
    """`keras.optimizers.SGD`, with decay of kernels only, as a part of their gradient.

    Coupled, as the papers have it: with momentum m the same number decays 1 / (1 - m) times as
    fast as decoupled.
    """

    def _apply_weight_decay(self, variables):
        pass  # part of the update step here

    def update_step(self, gradient, variable, learning_rate):
        if self.weight_decay and self._use_weight_decay(variable):
            gradient = gradient + self.weight_decay * ops.convert_to_tensor(variable)
        super().update_step(gradient, variable, learning_rate)


@keras.saving.register_keras_serializable("keras_sacl")
class AdamW(_DecaysKernelsOnly, keras.optimizers.AdamW):
    """`keras.optimizers.AdamW`, decaying kernels only, in one kernel for each variable.

    Keras composes the update of ten elementwise operations, each a walk over all parameters.
    """

    def build(self, variables):
        if self.amsgrad:
            raise ValueError("`amsgrad` must be False. Received: amsgrad=True")
        super().build(variables)

    def _apply_weight_decay(self, variables):
        pass  # part of the update step here

    def update_step(self, gradient, variable, learning_rate):
        variable = variable.value if isinstance(variable, keras.Variable) else variable
        index = self._get_variable_index(variable)
        dtype = variable.dtype
        rate = ops.cast(learning_rate, dtype)
        if self.weight_decay and self._use_weight_decay(variable):
            variable.assign_sub(variable * (rate * self.weight_decay))
        step = ops.cast(self.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=ops.power(ops.cast(self.beta_1, dtype), step),
            beta2_power=ops.power(ops.cast(self.beta_2, dtype), step),
            lr=rate,
            beta1=ops.cast(self.beta_1, dtype),
            beta2=ops.cast(self.beta_2, dtype),
            epsilon=ops.cast(self.epsilon, dtype),
            grad=ops.cast(gradient, dtype),
        )


@keras.saving.register_keras_serializable("keras_sacl")
class Lamb(_DecaysKernelsOnly, keras.optimizers.Lamb):
    """`keras.optimizers.Lamb`, with decoupled decay of kernels only."""


def build_optimizer(name, learning_rate, weight_decay=0.0, trust=0.02):
    """An optimizer by name; biases and norm parameters are never decayed.

    Args:
        name: One of `OPTIMIZERS`. SGD has momentum 0.9.
        learning_rate: A float or a schedule.
        weight_decay: Coupled for lars and sgd, decoupled for the others.
        trust: The trust coefficient of lars.

    Raises:
        ValueError: On an unknown name.
    """
    if name == "lars":
        return LARS(learning_rate, weight_decay=weight_decay, trust=trust)
    if name == "sgd":
        return SGD(learning_rate, momentum=0.9, weight_decay=weight_decay or None)
    if name == "adamw":
        return AdamW(learning_rate, weight_decay=weight_decay)
    if name == "lamb":
        return Lamb(learning_rate, weight_decay=weight_decay or None)
    close = difflib.get_close_matches(str(name), OPTIMIZERS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    raise ValueError(
        f"`optimizer` must be one of {', '.join(OPTIMIZERS)}{hint}. Received: optimizer={name!r}"
    )
