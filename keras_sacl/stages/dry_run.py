"""One step on made-up images: whether settings can be built, without data and without a teacher."""

import dataclasses
import os

import numpy as np
import tensorflow as tf

from keras_sacl.config import ConfigError
from keras_sacl.data import all_presets, get_preset, view_finisher
from keras_sacl.data.views import draw_table
from keras_sacl.stages.build import build_method, compile_method
from keras_sacl.stages.distilling import build_distiller, load, made_up
from keras_sacl.stages.strategy import make_strategy

_IMAGES, _PIXELS = 4, 40
# What queues and clusters are made for, whatever the flags say: the full ones of ImageNet take
# gigabytes with a wide teacher.
_COUNTED_IMAGES = 2048


def dry_run(config, say=print):
    """Builds the method, its views and its teacher, and trains one step.

    The networks, heads and views have their real sizes. The batch has four images, two for each
    replica of more; queues and clusters are those of a small data set. Without --teacher's file
    the teacher is of --teacher_encoder with random weights.

    Args:
        config: A validated `RunConfig`.
        say: Called with a line for the user.

    Returns:
        The logs of the step, a dict from name to float.

    Raises:
        ConfigError: If the settings cannot be built.
    """
    strategy = make_strategy(config)
    replicas = strategy.num_replicas_in_sync
    batch = max(_IMAGES, 2 * replicas)
    few = dataclasses.replace(
        config, batch_size=batch, batch_norm_groups=max(2, replicas), distill_queue_size=None,
        distill_clusters=None, queue_size=None,
    )  # fmt: skip
    try:
        with strategy.scope():
            method = build_method(few, _COUNTED_IMAGES, _distiller(few))
            compile_method(method, few, steps_per_epoch=1)
    except ConfigError:
        raise
    except ValueError as error:  # of what is built: its text names the argument
        raise ConfigError.from_text(error) from error
    # Traced once for one step it would take several times as long.
    method.run_eagerly = replicas == 1
    method.jit_compile = False
    logs = method.fit(
        tf.data.Dataset.from_tensors(_views(few, method)), verbose=0, shuffle=False
    ).history
    logs = {name: float(np.mean(values)) for name, values in logs.items()}
    count = sum(int(np.prod(v.shape)) for v in method.trainable_variables)
    say(f"dry run: {config.effective_method}, {config.encoder}, one step of {batch} images, "
        f"{count:,} trained parameters, loss {logs['loss']:.4g}")  # fmt: skip
    return logs


def _distiller(config):
    if not config.distill:
        return None
    there = config.teacher.startswith("applications:") or os.path.exists(config.teacher)
    teacher = load(config) if there else made_up(config)
    return build_distiller(config, teacher, _COUNTED_IMAGES)


def _views(config, method):
    """A batch as the pipeline brings it, by the presets of `config`."""
    presets = all_presets(get_preset(config.augmentation), config.small_views)
    sizes = (config.image_size,) * 2 + (config.small_size,) * config.small_views
    pairs = []
    for i, size in enumerate(sizes):
        crops = tf.random.stateless_uniform((config.batch_size, 3, size, size), (config.seed, i))
        pairs.append((crops, draw_table((config.seed, i), config.batch_size)))
    a, b, *small = view_finisher(presets)(*pairs)
    extras = {"small_views": tuple(small)} if small else {}
    if config.cache_teacher:
        features, embeddings = method.distiller.teacher_widths
        width = features + (embeddings if config.teacher_projector else 0)
        extras["teacher"] = tf.random.stateless_normal((config.batch_size, width), (config.seed, 9))
    return (a, b, extras) if extras else (a, b)
