"""From a RunConfig to a teacher, its embeddings, and the objectives of distillation."""

import functools

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
from keras_sacl.stage_maps import stage_maps

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
        rows: (N, W) what the teacher gives for each image, once `cache` was called with
            --cache_teacher; else None.
        teacher_hash: Of the teacher's content.
    """

    def __init__(self, config, source, run_dir, say):
        self.config, self.source, self.run_dir, self.say = config, source, run_dir, say
        self.teacher = load(config)
        self.teacher_hash = teacher_hash(self.teacher)
        self.rows = None

    def distiller(self):
        """A `Distiller` with fresh objectives."""
        return build_distiller(self.config, self.teacher, len(self.source))

    def cache(self):
        """Runs the teacher over the images, where --cache_teacher asks for it."""
        if not self.config.cache_teacher:
            return
        key = {
            "teacher": self.teacher_hash,
            "data": content_hash(self.source),
            "image_size": self.config.image_size,
        }
        folder = self.config.teacher_cache_dir or self.run_dir.path / "teacher"
        batches = self._batches(self.source)
        self.rows = cached_rows(self._rows_of, batches, len(self.source), folder, key, self.say)

    def start(self, method):
        """What must be known of the data before the first step: the clusters of cc."""
        found = method.distiller.objectives.get("cc")
        if found is None:
            return
        few = self.source.take(CLUSTERED_IMAGES)
        self.say(
            f"finding {found.clusters} clusters in the teacher's features of {len(few)} images"
        )
        width = self.teacher.features
        if self.rows is None:
            parts = [self._rows_of(images)[:, :width] for images, _ in self._batches(few)]
            found.set_centres(np.concatenate(parts))
        else:
            chosen = evenly_spread(len(self.rows), CLUSTERED_IMAGES)
            found.set_centres(self.rows[chosen, :width])

    def _batches(self, source):
        # The user's own batch where it is the smaller one: it is known to fit.
        batch_size = min(_BATCH, self.config.batch_size)
        return plain_batches(source, image_size=self.config.image_size, batch_size=batch_size)

    def _rows_of(self, images):
        return self._run(images).numpy()

    @tf.function(reduce_retracing=True)
    def _run(self, images):
        features = self.teacher.encoder(images, training=False)
        if self.teacher.projector is None:
            return features
        return tf.concat([features, self.teacher.projector(features, training=False)], axis=1)


def build_distiller(config, teacher, images):
    """A `Distiller` with fresh objectives; of a cached teacher it knows the widths alone.

    Args:
        config: A validated `RunConfig` with --distill.
        teacher: A `Teacher`.
        images: In the training set.
    """
    made, weights = objectives(config, images), objective_weights(config)
    settings = {"momentum": config.key_momentum}
    if config.cache_teacher:
        settings["teacher_widths"] = Widths(teacher.features, teacher.embeddings)
    else:
        settings |= {"teacher": teacher.encoder, "teacher_projector": teacher.projector}
    return Distiller(made, weights, **settings)


def objectives(config, images):
    """The objectives of --distill with its settings.

    Args:
        config: A validated `RunConfig`.
        images: In the training set.

    Returns:
        A dict from name to a fresh `Objective`.
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
    """The `Teacher` of --teacher, in the present strategy.

    Raises:
        ConfigError: If there is none, it takes other images than those of the run, gives no
            finite features in its precision, or has no maps for the objective at.
    """
    precision = config.teacher_precision
    if precision == "auto":
        precision = "float16" if tf.config.list_physical_devices("GPU") else "float32"
    return _load(
        config.teacher, precision, config.image_size, "at" in objective_weights(config),
        tf.distribute.get_strategy(),
    )  # fmt: skip


@functools.lru_cache(maxsize=1)
def _load(name, precision, image_size, needs_maps, strategy):
    try:
        teacher = load_teacher(name, precision)
    except ValueError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ConfigError(
            "teacher", name,
            f"{reason}; name a .keras file, a run directory, a .pth.tar of a ResNet or "
            "applications:NAME",
        ) from error  # fmt: skip
    if teacher.image_size not in (None, image_size):
        raise ConfigError(
            "teacher", name,
            f"takes images of {teacher.image_size} px; set --image_size to it (it is {image_size})",
        )  # fmt: skip
    if teacher.image_size is None:
        # Of one size, so that its maps are known.
        teacher.encoder = keras.models.clone_model(
            teacher.encoder,
            input_tensors=keras.Input((image_size, image_size, 3)),
            clone_function=lambda layer: layer,
        )
    noise = np.random.default_rng(0).normal(size=(4, image_size, image_size, 3))
    if not np.isfinite(teacher.encoder(noise.astype("float32"), training=False)).all():
        raise ConfigError(
            "teacher", name, f"gives features that are not finite in {precision}; see "
            "--teacher_precision",
        )  # fmt: skip
    if needs_maps:
        try:
            stage_maps(teacher.encoder)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ConfigError("teacher", name, f"has no maps for at: {reason}") from error
    return teacher


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
