"""What the pretraining of a run costs, in FLOPs."""

import dataclasses

import keras

from keras_sacl.config import defaults
from keras_sacl.costs import Network, Options, measure, measure_model, training_cost
from keras_sacl.embedding_queue import default_queue_size
from keras_sacl.heads import parse_projector
from keras_sacl.stages.distilling import load, objectives


def run_cost(config, images, teacher=None):
    """Counts what a run pretrains, teacher included, without training.

    Args:
        config: A validated `RunConfig`.
        images: In the training set; the rest behind the last whole batch is not trained on.
        teacher: `Teacher` to count in place of --teacher's, whose file may be elsewhere.

    Returns:
        A `Cost`: of several widths, the mean, for each has the same share of the steps; with the
        epochs of one network alone, the mean over the run. If --teacher cannot be loaded it is left
        out, with all that its widths decide, and `left_out` says so.
    """
    added, left_out, settings = {}, "", {}
    if config.distill:
        added = objectives(config, images)
        try:
            settings = _teacher_settings(teacher or load(config), config.image_size)
        except ValueError as error:  # no such file, or nothing that can be counted
            left_out = f"the teacher: {error}"
            settings = {"teacher": Network("unknown", None, config.image_size, 0, 0)}
    settings |= {
        "objectives": added, "batch_size": config.batch_size, "images": images,
        "epochs": config.last_epoch, "projector": _projector(config),
        "cached_teacher": config.cache_teacher, "options": _options(config, images),
    }  # fmt: skip
    host = _network(config, config.host_width) if config.slims else None
    costs = [
        training_cost(config.effective_method, _deployed(config, width), host=host, **settings)
        for width in config.widths
    ]
    parts = _mean(costs)
    if config.phase_ends:
        parts = _mean_of_phases(config, parts, host, settings)
    trained = images // config.batch_size * config.batch_size
    return dataclasses.replace(costs[0], parts=parts, images=trained, left_out=left_out)


def _mean(costs):
    return {part: sum(c.parts[part] for c in costs) / len(costs) for part in costs[0].parts}


def _mean_of_phases(config, both, host, settings):
    """Parts of a step, the mean over the epochs of the host alone, of both, of the slim network."""
    alone = defaults.WITHOUT_SLIMMING[config.method]
    dense = training_cost(alone, host, **settings).parts
    dense |= {"host": dense["slim"], "slim": 0.0}
    slims = [
        # Its features are widened with zeros for the one projector.
        dataclasses.replace(_deployed(config, width), features=host.features)
        for width in config.widths
    ]
    slim = _mean([training_cost(alone, network, **settings) for network in slims])
    phases = tuple(zip(config.phases, (dense, both, slim), strict=True))
    return {part: sum(n * parts[part] for n, parts in phases) / config.last_epoch for part in both}


def _deployed(config, width):
    network = _network(config, width)
    if config.slims and config.slim_execution == "mask":
        network = dataclasses.replace(network, flops=_network(config, config.host_width).flops)
    return network


def _network(config, width):
    network = measure(config.encoder, width, config.image_size)
    # Dropout in the projector makes its passes differ as random layers of the encoder would.
    deterministic = network.deterministic and not config.projector_dropout
    return dataclasses.replace(network, deterministic=deterministic)


def _projector(config):
    return () if config.effective_method == "distill" else parse_projector(config.projector)


def _options(config, images):
    small = None
    if config.small_views:
        small = measure(config.encoder, config.width, config.image_size, config.small_size).flops
    return Options(
        queue_size=config.queue_size or default_queue_size(images),
        prototypes=config.prototypes,
        small_views=config.small_views,
        small_flops=small,
        xd_form=config.xd_form,
        sacl_contrast=config.sacl_contrast,
    )


def _teacher_settings(teacher, image_size):
    """Arguments of `training_cost`."""
    head = ()
    if teacher.projector is not None:
        dense = (x for x in teacher.projector.layers if isinstance(x, keras.layers.Dense))
        head = tuple(layer.units for layer in dense)
    network = measure_model(teacher.encoder, teacher.name, image_size)
    return {"teacher": network, "teacher_projector": head}
