"""Images by name: a TFDS data set, a folder, or the digits inside scikit-learn."""

import os

import numpy as np
import tensorflow as tf

from keras_sacl.data.decoding import decode, is_grey
from keras_sacl.data.folder import load_folder
from keras_sacl.data.source import ImageSource, evenly_spread, parse_split

_WHAT_WOULD_DO = (
    "`dataset` must be digits, a folder of images (folder:PATH), or a TFDS data set that lies in "
    "`data_dir` or may be fetched (`download`)"
)
_DECODED_BYTES = 2**30
_GREY_SAMPLES = 32


def load_source(dataset, split, *, data_dir=None, download=False, image_size=224, limit=None):
    """Loads the images of a split.

    Args:
        dataset: "digits"; "folder:PATH" or the path of a directory (see `load_folder`); or the
            name of a TFDS data set with images, such as "cifar10". If it has a list of classes
            for each image, such as "voc/2007", the labels are multi-hot, and -1 for the classes
            of which there are difficult objects only.
        split: "train", "test", ... or a part, such as "train[:20000]". A TFDS data set without
            a test split gives its validation split for "test".
        data_dir: Where TFDS data sets lie. Default: TFDS' own.
        download: Whether TFDS may download and prepare what is missing.
        image_size: Side of the images that will be asked for, in pixels. TFDS images of one
            fixed size up to twice this are kept decoded in memory (if they fit into 1 GiB), larger
            ones encoded; either way the split must fit into memory.
        limit: Use at most so many images, evenly spread over the split (in TFDS the first ones:
            it shuffles when it prepares a data set).

    Returns:
        `ImageSource`.

    Raises:
        ValueError: If the data set, the split or the data are missing; names `dataset`, `split`
            or `data_dir` and what would do.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1. Received: limit={limit}")
    if dataset == "digits":
        return _load_digits(split).take(limit)
    if dataset.startswith("folder:"):
        return load_folder(dataset.removeprefix("folder:"), split, limit)
    in_data_dir = data_dir and os.path.isdir(os.path.join(data_dir, dataset))
    if os.path.isdir(os.path.expanduser(dataset)) and not in_data_dir:
        return load_folder(dataset, split, limit)
    return _load_tfds(dataset, split, data_dir, download, image_size, limit)


def _load_digits(split):
    """1,797 handwritten digits, 8 x 8; every fifth of each class is for testing."""
    from sklearn.datasets import load_digits

    name, part = parse_split(split)
    if name not in ("train", "test", "all"):
        raise ValueError(
            f"`split` must be train, test or all for dataset=digits. Received: split={split}"
        )
    data = load_digits()
    labels = data.target.astype(np.int64)
    # 17 levels, 0 to 16, to 0 to 255.
    pixels = np.round(data.images * (255 / 16)).astype(np.uint8)
    rank = np.zeros(len(labels), np.int64)  # of an image among those of its class
    for label in range(10):
        rank[labels == label] = np.arange(np.sum(labels == label))
    held_out = rank % 5 == 4
    chosen = np.flatnonzero({"train": ~held_out, "test": held_out}.get(name, rank >= 0))
    chosen = chosen[part(len(chosen))]
    if not len(chosen):
        raise ValueError(f"`split` must hold at least one image. Received: split={split}")
    return ImageSource(
        images=np.repeat(pixels[chosen][..., None], 3, axis=-1),
        labels=labels[chosen],
        class_names=[str(digit) for digit in range(10)],
        greyscale=True,
    )


def _load_tfds(dataset, split, data_dir, download, image_size, limit):
    builder = tfds_builder(dataset, data_dir, download)
    import tensorflow_datasets as tfds

    where = f"dataset={dataset}, split={split}, data_dir={data_dir}"
    image_key, label_key = _tfds_keys(builder.info.features, where)
    kind = builder.info.features[label_key] if label_key else None
    several = isinstance(kind, tfds.features.Sequence)
    splits = builder.info.splits
    if split.split("[")[0] == "test" and "test" not in splits and "validation" in splits:
        split = split.replace("test", "validation", 1)
    feature = builder.info.features[image_key]
    try:
        count = splits[split].num_examples
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"`split` must be one of {', '.join(splits)}, or a part such as "
            f"{next(iter(splits))}[:1000]. Received: {where}"
        ) from error
    if not count:
        raise ValueError(f"`split` must hold at least one image. Received: {where}")
    count = min(count, limit or count)
    # VOC's: the classes without those of difficult objects alone.
    certain_key = f"{label_key}_no_difficult"
    if not several or certain_key not in builder.info.features:
        certain_key = label_key
    keys = {key: True for key in (image_key, label_key, certain_key) if key}
    decoded = _keep_decoded(feature, count, image_size)
    decoders = None if decoded else {image_key: tfds.decode.SkipDecoding()}
    data = builder.as_dataset(
        split=split, decoders=tfds.decode.PartialDecoding(keys, decoders=decoders)
    ).take(count)
    if several:

        def hot(row):
            labels = _multi_hot(row[label_key], row[certain_key], kind.feature.num_classes)
            return {image_key: row[image_key], label_key: labels}

        data = data.map(hot)
    if decoded:
        batches = list(data.batch(1000).as_numpy_iterator())
        images = np.concatenate([batch[image_key] for batch in batches])
        images = np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images[..., :3]
        labels = np.concatenate([batch[label_key] for batch in batches]) if label_key else None
    else:
        rows = list(data.as_numpy_iterator())
        images = [row[image_key] for row in rows]
        labels = np.array([row[label_key] for row in rows]) if label_key else None
    # How TFDS marks images without a label; a list of classes is empty then (VOC 2012's test).
    if labels is not None and (np.all(labels < 0) or (several and not labels.any())):
        labels = None
    return ImageSource(
        images=images,
        labels=None if labels is None else labels.astype(np.int64),
        class_names=None if kind is None else (kind.feature if several else kind).names,
        greyscale=feature.shape[-1] == 1 or _looks_grey(images),
    )


def tfds_builder(dataset, data_dir, download, expected=_WHAT_WOULD_DO):
    """The builder of a TFDS data set that is prepared, or is now.

    Args:
        dataset: Its TFDS name.
        data_dir: Where TFDS data sets lie; None for TFDS' own place.
        download: Whether TFDS may fetch what is missing.
        expected: What `dataset` must be, as the beginning of an error.

    Returns:
        A `tfds.core.DatasetBuilder`.

    Raises:
        ValueError: In one line, if there is no such data set.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ValueError(
            f"{expected}; TFDS needs `pip install tensorflow-datasets`. Received: dataset={dataset}"
        ) from error
    received = f"Received: dataset={dataset}, data_dir={data_dir}, download={download}"
    try:
        builder = tfds.builder(dataset, data_dir=data_dir)
    except (ValueError, AssertionError, TypeError) as error:
        # Only its first line: TFDS goes on with a list of a thousand names.
        reason = (str(error).splitlines() or [""])[0]
        raise ValueError(f"{expected}. {received}. TFDS says: {reason}") from error
    if builder.is_prepared():
        return builder
    if not download:
        raise ValueError(
            f"{expected}. {received}: TFDS knows it, but {builder.data_path} does not exist; "
            "name the directory it lies in with --data_dir, or pass --download"
        )
    try:
        builder.download_and_prepare()
    except Exception as error:  # Of any kind: network, disk, manual downloads, beam.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"`download` of {dataset} failed: {reason}. {received}. Prepare it elsewhere, and "
            "name the directory it lies in with --data_dir"
        ) from error
    return builder


def _tfds_keys(features, where):
    """Names of the image and of the label (or None) among the features of a TFDS data set."""
    import tensorflow_datasets as tfds

    def first(kind, preferred):
        keys = [key for key, value in features.items() if isinstance(value, kind)]
        return preferred if preferred in keys else next(iter(keys), None)

    image_key = first(tfds.features.Image, "image") if hasattr(features, "items") else None
    if image_key is None:
        raise ValueError(f"`dataset` must have images at its top level. Received: {where}")
    label_key = first(tfds.features.ClassLabel, "label")
    if label_key is None:
        lists = [
            key
            for key, value in features.items()
            if isinstance(value, tfds.features.Sequence)
            and isinstance(value.feature, tfds.features.ClassLabel)
        ]
        label_key = "labels" if "labels" in lists else next(iter(lists), None)
    return image_key, label_key


def _multi_hot(present, certain, classes):
    """(C,) int64 from lists of classes: 1 for certain ones, -1 for the others that are present."""

    def among(labels):
        hot = tf.one_hot(labels, classes, on_value=True, off_value=False, dtype=tf.bool)
        return tf.reduce_any(hot, axis=0)

    present, certain = among(present), among(certain)
    return tf.where(present & ~certain, tf.constant(-1, tf.int64), tf.cast(present, tf.int64))


def _keep_decoded(feature, count, image_size):
    shape = feature.shape
    if None in shape or feature.np_dtype != np.uint8:
        return False
    # Of larger images decoding is a small part of the work, and pixels take ten times the memory.
    return max(shape[:2]) <= 2 * image_size and count * int(np.prod(shape)) <= _DECODED_BYTES


def _looks_grey(images):
    chosen = evenly_spread(len(images), _GREY_SAMPLES)
    if isinstance(images, np.ndarray):
        return is_grey(images[chosen])
    return all(is_grey(decode(images[i]).numpy()) for i in chosen)
