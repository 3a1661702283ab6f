"""From a RunConfig to a compiled method."""

import contextlib
import math

import keras

from keras_sacl.config import ConfigError
from keras_sacl.embedding_queue import default_queue_size
from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector, parse_projector
from keras_sacl.methods import METHODS
from keras_sacl.optim import WarmupCosine, WarmupSteps, build_optimizer
from keras_sacl.slimming import SlimmableEncoder, TieredEncoder

_POLICIES = {
    "float32": "float32", "bfloat16": "mixed_bfloat16", "float16": "mixed_float16",
    "float64": "float64",
}  # fmt: skip


def build_networks(config):
    """(encoder, projector) of `config` with seeded weights; the projector is None for distill.

    The encoder is a `SlimmableEncoder` where there is a host, a `TieredEncoder` for several
    widths.
    """
    with _precision(config.mixed_precision):
        # Their values are never read; made before the seed is set, they leave the host's as they
        # are with one width.
        narrower = [encoder_of(config, width) for width in config.widths[1:]]
        keras.utils.set_random_seed(config.seed)
        deployed = encoder_of(config, config.width)
        encoder = deployed
        if config.slims:
            host = encoder_of(config, config.host_width)
            if narrower:
                encoder = _tiers(config, host, [deployed, *narrower])
            else:
                encoder = SlimmableEncoder(
                    host, deployed, execution=config.slim_execution, selection=config.slim_selection
                )
        if config.effective_method == "distill":
            return encoder, None
        return encoder, build_projector(
            encoder.output_shape[-1],
            parse_projector(config.projector),
            batch_norm=config.projector_batch_norm,
            dropout=config.projector_dropout,
        )


def build_method(config, images, distiller=None):
    """The method of `config` with seeded weights, not compiled.

    Args:
        config: A validated `RunConfig`.
        images: In the training set.
        distiller: A `Distiller`, or None.
    """
    encoder, projector = build_networks(config)
    with _precision(config.mixed_precision):
        return METHODS[config.effective_method](
            encoder, projector, distiller=distiller, **_settings(config, images)
        )


def _settings(config, images):
    method = config.effective_method
    settings = {"loss_scale": config.loss_scale}
    if method in ("barlow_twins", "xd", "sacl", "sacl_xd"):
        settings["lambd"] = config.lambd
    if method in ("xd", "sacl_xd"):
        names = ("alpha", "xd_pairs", "xd_form", "gamma")
        settings |= {name: getattr(config, name) for name in names}
    if method == "sacl_xd":
        settings["sacl_contrast"] = config.sacl_contrast
    if method == "moco_v2":
        names = ("temperature", "key_momentum", "key_batch_norm", "batch_norm_groups", "seed")
        settings |= {name: getattr(config, name) for name in names}
        settings["queue_size"] = config.queue_size or default_queue_size(images)
    if method == "swav":
        frozen = config.frozen_prototype_epochs * (images // config.batch_size)
        names = ("temperature", "prototypes")
        settings |= {name: getattr(config, name) for name in names} | {"frozen_steps": frozen}
    return settings


def compile_method(method, config, steps_per_epoch, rate_factor=1.0):
    """Compiles a method with the optimizer and schedule of `config`, its rate times a factor."""
    rate = config.learning_rate * rate_factor
    warmup = round(config.warmup_epochs * steps_per_epoch)
    if config.schedule == "steps":
        drops = [round(epoch * steps_per_epoch) for epoch in config.drop_epochs]
        schedule = WarmupSteps(rate, warmup_steps=warmup, drops=drops, factor=config.drop_factor)
    else:
        schedule = WarmupCosine(
            rate, warmup_steps=warmup, total_steps=config.epochs * steps_per_epoch
        )
    optimizer = build_optimizer(
        config.optimizer, schedule, config.weight_decay, trust=config.lars_trust
    )
    if config.mixed_precision == "float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    method.compile(
        optimizer=optimizer,
        jit_compile=jit_compile(config),
        steps_per_execution=steps_per_execution(config, steps_per_epoch),
    )
    optimizer.build(method.trainable_variables)


def jit_compile(config):
    """What `compile` is to be told for --jit_compile."""
    return {"auto": "auto", "true": True, "false": False}[config.jit_compile]


def steps_per_execution(config, steps_per_epoch):
    """The largest number of steps, up to --steps_per_execution, of which an epoch is a multiple.

    Keras would run the last of them into the next epoch. Steps between two selections of channels
    are a multiple of it too.
    """
    whole = steps_per_epoch
    if config.slims and config.slim_selection == "magnitude":
        whole = math.gcd(whole, config.slim_refresh_steps)
    limit = min(config.steps_per_execution, whole)
    return max(n for n in range(1, limit + 1) if whole % n == 0)


def deployed_float32(encoder, config, width=None):
    """The deployed encoder by itself, in float32 whatever it was trained in.

    Args:
        encoder: That of `build_networks`, trained or not.
        config: A validated `RunConfig`.
        width: Which of several; the widest by default.

    Returns:
        A `keras.Model`.
    """
    tier = config.widths.index(width) if width else 0
    if isinstance(encoder, SlimmableEncoder):
        encoder = encoder.extract_slim(tier) if tier else encoder.extract_slim()
    plain = encoder_of(config, width or config.width)
    plain.set_weights(encoder.get_weights())
    return plain


def _tiers(config, host, slims):
    sizes = [slim.count_params() for slim in slims]
    if len(set(sizes)) < len(sizes):
        raise ConfigError(
            "slim_widths", ",".join(map(str, config.widths)),
            f"some of these are one network of {config.encoder} ({sizes} parameters); take widths "
            "further apart",
        )  # fmt: skip
    return TieredEncoder(host, slims, selection=config.slim_selection, seed=config.seed)


def encoder_of(config, width):
    """The encoder of `config` at a width, with new weights."""
    return build_encoder(
        config.encoder, width=width, image_size=config.image_size, activation=config.activation
    )


@contextlib.contextmanager
def _precision(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_POLICIES[name])
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
