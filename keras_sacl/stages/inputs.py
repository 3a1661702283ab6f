"""The images of a run: loaded once, checked before any work, shared by the stages."""

import functools
import os

import numpy as np

from keras_sacl.config import ConfigError
from keras_sacl.data import (
    decode_all,
    get_preset,
    labelled_share,
    load_source,
    two_view_dataset,
)
from keras_sacl.evaluation import PROTOCOLS, fitting, label_kind
from keras_sacl.keras_files import load_keras
from keras_sacl.stages.build import encoder_of
from keras_sacl.stages.distilling import load as load_teacher
from keras_sacl.stages.strategy import make_strategy


def check_inputs(config):
    """Loads what the stages of `config` will need, so that what is missing is refused first.

    Raises:
        ConfigError, ValueError: In one line, naming the flag and what would do.
    """
    folder = config.data_dir
    if folder and "://" not in folder and not config.download and not os.path.isdir(folder):
        raise ConfigError("data_dir", folder, "is no directory")
    if "pretrain" in config.stages:
        augmented_images(config)
        if config.distill:
            with make_strategy(config).scope():
                load_teacher(config)
            clusters = config.distill_clusters
            if clusters is not None and clusters > len(training_images(config)):
                raise ConfigError(
                    "distill_clusters", clusters,
                    f"must be at most the {len(training_images(config))} training images",
                )  # fmt: skip
        if config.init_from is not None and not config.resume:
            initial_encoder(config)
    encoder_file(config)
    if "evaluate" in config.stages or "export" in config.stages:
        train, test = labelled_images(config)
        if config.eval_dataset and (train.labels is None or test.labels is None):
            raise ConfigError("eval_dataset", config.eval_dataset, "has no labels")
    if "evaluate" in config.stages:
        evaluated_protocols(config)
    if "finetune" in config.stages:
        finetuning_images(config)
        if config.finetune_teacher is not None:
            finetuning_teacher(config)


# Images whose two views are compared: among N, one's own is found by chance once in N times, so
# that a fixed number makes the figure comparable between data sets.
VIEWED = 1000


@functools.lru_cache(maxsize=1)
def training_images(config):
    """The images to pretrain on.

    Raises:
        ConfigError: If there are fewer than a batch of them, or they are greyscale and the
            augmentation changes colours.
    """
    source = _load(config, config.dataset, config.train_split)
    if len(source) < config.batch_size:
        raise ConfigError(
            "batch_size", config.batch_size, f"must be at most the {len(source)} training images"
        )
    if source.greyscale and any(view.uses_colour for view in get_preset(config.augmentation)):
        raise ConfigError(
            "augmentation", config.augmentation,
            f"changes saturation and hue, but the images of --dataset={config.dataset} are "
            "greyscale; use digits or grayscale",
        )  # fmt: skip
    return source


@functools.lru_cache(maxsize=1)
def augmented_images(config):
    """`training_images` for the two views: with --cache_images, decoded.

    For the views alone: what is evaluated is resized as files or as pixels according to where it
    comes from, which a flag about memory must not change.

    Raises:
        ConfigError: If images that are to be decoded once are not of one size.
    """
    source = training_images(config)
    if not config.cache_images:
        return source
    try:
        return decode_all(source)
    except ValueError as error:
        raise ConfigError("cache_images", True, str(error)) from error


def initial_encoder(config):
    """The encoder that --init_from starts from.

    Raises:
        ConfigError: If there is none, or it is not of the run's architecture.
    """
    path = os.path.join(config.init_from, "encoder.keras")
    expected = "name a run directory with an encoder.keras of the same encoder, width and size"
    try:
        found = load_keras(path)
    except ValueError as error:
        raise ConfigError("init_from", config.init_from, f"{error}; {expected}") from error
    own = encoder_of(config, config.width)
    if [v.shape for v in found.variables] != [v.shape for v in own.variables]:
        raise ConfigError("init_from", config.init_from, f"holds another encoder; {expected}")
    return found


@functools.lru_cache(maxsize=1)
def encoder_file(config):
    """The runner of --eval_encoder; None without that flag.

    Raises:
        ConfigError: If the file holds no encoder.
    """
    if config.eval_encoder is None:
        return None
    from keras_sacl.export import open_encoder  # its converters take seconds to import

    try:
        return open_encoder(config.eval_encoder)
    except ValueError as error:
        raise ConfigError("eval_encoder", config.eval_encoder, str(error)) from error


def evaluation_size(config):
    """Side in pixels of the images that are evaluated: that which the encoder takes."""
    file = encoder_file(config)
    return (file and file.input_shape[1]) or config.image_size


def evaluated_protocols(config):
    """Those of --eval_protocols that can be measured; without labels, those that need none.

    Raises:
        ConfigError: On one that the images or the encoder do not allow.
    """
    sources = labelled_images(config)
    labels = label_kind(*(source.labels for source in sources))
    file = encoder_file(config)
    pixels = file is not None and file.takes_pixels
    fit = fitting(
        labels,
        views=not pixels and min(map(len, sources)) > 1,
        encoder=file is None or hasattr(file, "model"),
    )
    if "all" in config.eval_protocols:
        return fit
    for name in config.eval_protocols:
        if name not in fit and (labels != "none" or PROTOCOLS[name].labels == "none"):
            can = ", ".join(fit) or "nothing"
            raise ConfigError("eval_protocols", name, f"cannot be measured here; {can} can")
    return tuple(name for name in config.eval_protocols if name in fit)


@functools.lru_cache(maxsize=1)
def labelled_images(config):
    """(training, test) images that evaluation and export use: --eval_dataset, or --dataset."""
    dataset = config.eval_dataset or config.dataset
    train_split = config.eval_train_split or config.train_split
    test_split = config.eval_test_split or config.test_split
    if (
        dataset == config.dataset
        and train_split == config.train_split
        and ("pretrain" in config.stages)
    ):
        return training_images(config), _load(config, dataset, test_split)
    return _load(config, dataset, train_split), _load(config, dataset, test_split)


def fixed_views(config, source, image_size=None):
    """Two views of each image by the preset of the training, the same ones every time.

    Args:
        config: A validated `RunConfig`.
        source: `ImageSource` of few images. A rest of less than a batch is left out, where no
            handy batch divides them.
        image_size: Side of the views in pixels; that of `config` by default.

    Returns:
        `tf.data.Dataset` of (a, b), as `two_view_dataset`.
    """
    return two_view_dataset(
        source,
        get_preset(config.augmentation),
        image_size=image_size or config.image_size,
        batch_size=_handy_batch(len(source)),
        seed=config.seed,
        epochs=1,
    )


@functools.lru_cache(maxsize=1)
def finetuning_images(config):
    """(training, test, number of classes) to fine-tune with: those that have a label.

    Of the training images --finetune_labels of each class.

    Raises:
        ConfigError: If there are no labels of one class each, or of one class alone.
    """
    train, test = labelled_images(config)
    flag = "eval_dataset" if config.eval_dataset else "dataset"
    dataset = getattr(config, flag)
    try:
        chosen = labelled_share(train, config.finetune_labels, seed=config.seed)
        test = labelled_share(test)
    except ValueError as error:
        raise ConfigError(
            flag, dataset,
            "has no labels of one class each for --stages=finetune; name a labelled data set with "
            "--eval_dataset",
        ) from error  # fmt: skip
    if len(np.unique(chosen.labels)) < 2:
        raise ConfigError(
            flag, dataset, "has labels of one class alone; --stages=finetune needs at least 2"
        )
    return chosen, test, len(train.class_names or ()) or int(train.labels.max()) + 1


@functools.lru_cache(maxsize=1)
def finetuning_teacher(config):
    """The classifier of --finetune_teacher.

    Raises:
        ConfigError: If the file is missing or broken, holds code (Keras' safe mode is on), or
            holds something else than a classifier of these images into these classes.
    """
    path = config.finetune_teacher

    def refuse(expected):
        return ConfigError("finetune_teacher", path, expected)

    if not os.path.isfile(path):
        raise refuse("is no file; name the .keras file of a classifier")
    try:
        teacher = load_keras(path)
    except ValueError as error:
        raise refuse(f"{error}; name another") from error
    size, classes = config.image_size, finetuning_images(config)[2]
    taken, given = getattr(teacher, "input_shape", None), getattr(teacher, "output_shape", None)
    if taken not in ((None, size, size, 3), (None, None, None, 3)):
        raise refuse(
            f"must take images (None, {size}, {size}, 3), as --image_size says; takes {taken}"
        )
    if given != (None, classes):
        raise refuse(f"must give logits of the {classes} classes, (None, {classes}); gives {given}")
    noise = np.random.default_rng(0).normal(size=(8, size, size, 3)).astype("float32")
    outputs = np.asarray(teacher(noise, training=False))
    if not np.isfinite(outputs).all():
        raise refuse("gives logits that are not finite; name another")
    if (outputs >= 0).all() and np.allclose(outputs.sum(axis=1), 1, atol=1e-3):
        raise refuse("must give logits, not probabilities; save it without its softmax")
    return teacher


def _handy_batch(count):
    """A divisor of `count` from 50 to 250 images; as many as there are, up to 250, without one."""
    return max((n for n in range(50, 251) if count % n == 0), default=min(count, 250))


def _load(config, dataset, split):
    return load_source(
        dataset,
        split,
        data_dir=config.data_dir,
        download=config.download,
        image_size=evaluation_size(config),
    )
