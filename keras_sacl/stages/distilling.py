"""From a RunConfig to a teacher, its embeddings, and the objectives of distillation."""

import keras
import numpy as np
import tensorflow as tf

from keras_sacl.config import ConfigError
from keras_sacl.config.distilling import objective_weights
from keras_sacl.data import content_hash, plain_batches
from keras_sacl.data.source import evenly_spread
from keras_sacl.distillation import CLUSTERED_IMAGES, OBJECTIVES, Distiller, Widths
from keras_sacl.distillation.cache import cached_rows
from keras_sacl.distillation.teachers import Teacher, load_teacher
from keras_sacl.distillation.teachers import content_hash as teacher_hash
from keras_sacl.embedding_queue import default_queue_size
from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector, parse_projector

_QUEUES = {"seed": 65_536, "compress_1q": 128_000, "compress_2q": 128_000, "crd": 16_384}
_BATCH = 256


class Distilling:
    """The teacher of a run, loaded once, and as many distillers as the run needs.

    Args:
        config: A validated `RunConfig` with --distill.
        source: `ImageSource` of the training images.
        run_dir: A `RunDir`.
        say: Called with lines for the user.

    Attributes:
        rows: (N, W) what the teacher gives for each image, with --cache_teacher; else None.
    """

    def __init__(self, config, source, run_dir, say):
        self.config, self.source = config, source
        self.teacher = load(config)
        self.widths = Widths(self.teacher.features, self.teacher.embeddings)
        self.rows = None
        if config.cache_teacher:
            key = {
                "teacher": teacher_hash(self.teacher),
                "data": content_hash(source),
                "image_size": config.image_size,
            }
            folder = config.teacher_cache_dir or run_dir.path / "teacher"
            self.rows = cached_rows(
                self._rows_of, self._batches(source), len(source), folder, key, say
            )

    def distiller(self):
        """A `Distiller` with fresh objectives."""
        made = objectives(self.config, len(self.source))
        weights = objective_weights(self.config)
        if self.rows is not None:
            return Distiller(made, weights, teacher_widths=self.widths)
        return Distiller(made, weights, self.teacher.encoder, self.teacher.projector)

    def start(self, method):
        """What must be known of the data before the first step: the clusters of cc."""
        found = method.distiller.objectives.get("cc")
        if found is None:
            return
        if self.rows is None:
            few = self.source.take(CLUSTERED_IMAGES)
            rows = np.concatenate([self._rows_of(x) for x, _ in self._batches(few)])
        else:
            rows = self.rows[evenly_spread(len(self.rows), CLUSTERED_IMAGES)]
        found.set_centres(rows[:, : self.widths.features])

    def _batches(self, source):
        return plain_batches(source, image_size=self.config.image_size, batch_size=_BATCH)

    def _rows_of(self, images):
        return self._run(images).numpy()

    @tf.function(reduce_retracing=True)
    def _run(self, images):
        features = self.teacher.encoder(images, training=False)
        if self.teacher.projector is None:
            return features
        return tf.concat([features, self.teacher.projector(features, training=False)], axis=1)


def objectives(config, images):
    """A dict from name to a fresh `Objective`, as --distill and its settings say.

    Args:
        config: A validated `RunConfig`.
        images: In the training set.
    """
    made = {}
    for name in objective_weights(config):
        settings = {}
        if name in ("disco", "seed"):
            settings["hidden"] = config.distill_hidden
        if name in _QUEUES:
            settings["queue_size"] = config.distill_queue_size or default_queue_size(
                images, _QUEUES[name]
            )
            if config.distill_temperature is not None:
                kind = "teacher_temperature" if name == "seed" else "temperature"
                settings[kind] = config.distill_temperature
        if name == "cc":
            settings["clusters"] = config.distill_clusters or max(2, min(16_000, images // 80))
        made[name] = OBJECTIVES[name](**settings)
    return made


def load(config):
    """The `Teacher` of --teacher.

    Raises:
        ConfigError: If there is none, or it takes other images than those of the run.
    """
    precision = config.teacher_precision
    if precision == "auto":
        precision = "float16" if tf.config.list_physical_devices("GPU") else "float32"
    try:
        teacher = load_teacher(config.teacher, precision)
    except ValueError as error:
        raise ConfigError.from_text(error) from error
    return _fitting(config, teacher)


def made_up(config):
    """A `Teacher` of random weights, as --teacher_encoder and its settings say."""
    encoder = build_encoder(
        config.teacher_encoder, width=config.teacher_width, image_size=config.image_size
    )
    projector = None
    if config.teacher_projector:
        widths = parse_projector(config.teacher_projector)
        projector = build_projector(encoder.output_shape[-1], widths, batch_norm=False)
    return Teacher(encoder, projector, "random")


def _fitting(config, teacher):
    size = config.image_size
    if teacher.image_size not in (None, size):
        raise ConfigError(
            "teacher", config.teacher,
            f"takes images of {teacher.image_size} px; set --image_size to it (it is {size})",
        )  # fmt: skip
    if teacher.image_size is None:
        # Of one size, so that its maps are known.
        teacher.encoder = keras.models.clone_model(
            teacher.encoder,
            input_tensors=keras.Input((size, size, 3)),
            clone_function=lambda layer: layer,
        )
    return teacher
