"""Images with boxes: TFDS data sets for object detection, and the batches made of them."""

import dataclasses
import math

import numpy as np
import tensorflow as tf

from keras_sacl.data.datasets import tfds_builder
from keras_sacl.data.decoding import decode
from keras_sacl.data.normalisation import normalise
from keras_sacl.data.order import ordered_steps
from keras_sacl.data.reading import PARALLEL_CALLS, untuned
from keras_sacl.data.resampling import crop_together

_FLIP = 1  # what a random number is for, as the second half of its seed; 0 is the order
_PREFETCHED = 2
_WHAT_WOULD_DO = (
    "`dataset` must be a TFDS data set with boxes, such as voc/2007, that lies in `data_dir` or "
    "may be fetched (`download`)"
)


@dataclasses.dataclass(frozen=True, eq=False)
class DetectionSource:
    """Images whose objects are marked by boxes.

    Attributes:
        images: List of N encoded images (bytes).
        boxes: List of N float32 (G, 4): y1, x1, y2, x2 in [0, 1], shares of height and width.
        labels: List of N int64 (G,).
        difficult: List of N bool (G,): objects that are not trained on and need not be found.
        class_names: Names of the labels 0, 1, ...
    """

    images: list
    boxes: list
    labels: list
    difficult: list
    class_names: list

    def __len__(self):
        return len(self.images)

    @property
    def truths(self):
        """For each image (boxes, labels, difficult), as `voc_average_precision` takes them."""
        return list(zip(self.boxes, self.labels, self.difficult, strict=True))

    @property
    def num_objects(self):
        """Number of objects that are not difficult."""
        return sum(int(np.sum(~difficult)) for difficult in self.difficult)


def load_detection(dataset, split=None, *, training, data_dir=None, download=False):
    """Loads a split of a TFDS data set with boxes; its encoded images must fit into memory.

    Such a data set has an image and a sequence of objects with a box and a class label: voc/2007,
    coco/2017, kitti, ... Objects with `is_difficult` or `is_crowd` set are difficult.

    Args:
        dataset: Name of a TFDS data set, such as "voc/2007".
        split: In TFDS' syntax, such as "train[:100]+validation". Default: for training
            train, else test, or validation.
        training: Which default it is.
        data_dir: Where TFDS data sets lie. Default: TFDS' own.
        download: Whether TFDS may download and prepare what is missing.

    Returns:
        `DetectionSource`.

    Raises:
        ValueError: If the data set or the split are missing, or have no boxes; names `dataset`,
            `data_dir` or the split's argument, `train_split` or `test_split`.
    """
    import tensorflow_datasets as tfds

    builder = tfds_builder(dataset, data_dir, download, _WHAT_WOULD_DO)
    where = f"dataset={dataset}, data_dir={data_dir}"
    image_key, objects_key, box_key, label_key = _keys(builder.info.features, where)
    objects = builder.info.features[objects_key]
    flags = [key for key in ("is_difficult", "is_crowd") if key in objects.feature]
    splits = builder.info.splits
    argument = "train_split" if training else "test_split"
    split = split or _default_split(splits, training)
    try:
        # Decoded later, in parallel, and not before its batch is due.
        data = builder.as_dataset(split=split, decoders={image_key: tfds.decode.SkipDecoding()})
        rows = list(data.as_numpy_iterator())
    except (ValueError, KeyError, AssertionError) as error:
        raise ValueError(
            f"`{argument}` must be one of {', '.join(splits)}, a sum or a part such as "
            f"{next(iter(splits))}[:1000]. Received: {argument}={split}, {where}"
        ) from error
    marked = [row[objects_key] for row in rows]
    source = DetectionSource(
        images=[row[image_key] for row in rows],
        boxes=[np.asarray(o[box_key], "float32").reshape(-1, 4) for o in marked],
        labels=[np.asarray(o[label_key], "int64") for o in marked],
        difficult=[
            np.any([np.asarray(o[key], bool) for key in flags], axis=0)
            if flags
            else np.zeros(len(o[label_key]), bool)
            for o in marked
        ],
        class_names=list(objects.feature[label_key].names),
    )
    if not source.num_objects:
        raise ValueError(
            f"`{argument}` must hold images with boxes ({', '.join(splits)} are there). "
            f"Received: {argument}={split}, {where}"
        )
    return source


def training_batches(source, *, image_size, batch_size, steps, seed=0):
    """Images to train a detector on: resized to a square, half of them mirrored.

    The aspect of an image is lost, as in "SSD: Single Shot MultiBox Detector" (2016); mirroring is
    the only augmentation, as in "Focal Loss for Dense Object Detection" (2017). Order and
    mirroring are functions of (seed, step).

    Args:
        source: `DetectionSource` of N images.
        image_size: S, in pixels.
        batch_size: B, at most N.
        steps: Number of batches.
        seed: Of order and mirroring.

    Returns:
        `tf.data.Dataset` of (images, {"boxes", "classes"}): float32 (B, S, S, 3), normalised;
        float32 (B, M, 4), x1, y1, x2, y2 in pixels of S, and float32 (B, M). Both are -1 where an
        image has less than M objects, the most of any. Difficult objects are left out.

    Raises:
        ValueError: If `batch_size` or `steps` is out of range.
    """
    if not 1 <= batch_size <= len(source):
        raise ValueError(
            f"`batch_size` must be from 1 to the number of training images, {len(source)}. "
            f"Received: batch_size={batch_size}"
        )
    if steps < 1:
        raise ValueError(f"`steps` must be at least 1. Received: steps={steps}")
    boxes, classes = _padded(source, image_size)
    epochs = math.ceil(steps / (len(source) // batch_size))

    def one_by_one(step, indices):
        positions = step * batch_size + tf.range(batch_size, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((positions, indices))

    def load(position, index):
        image = _square(images[index], image_size)
        here, here_classes = tf.gather(boxes, index), tf.gather(classes, index)
        key = tf.random.experimental.stateless_fold_in(
            tf.constant([seed, _FLIP], tf.int64), position
        )
        x1, y1, x2, y2 = tf.unstack(here, axis=-1)
        mirrored = tf.stack([image_size - x2, y1, image_size - x1, y2], axis=-1)
        mirrored = tf.where(here_classes[:, None] < 0, here, mirrored)
        flip = tf.random.stateless_uniform([], key) < 0.5
        image = tf.where(flip, image[:, ::-1], image)
        return image, {"boxes": tf.where(flip, mirrored, here), "classes": here_classes}

    with tf.device("CPU"):
        images = tf.constant(source.images)
    data = ordered_steps(len(source), batch_size, seed, epochs, 0).take(steps)
    data = data.flat_map(one_by_one).map(
        load, num_parallel_calls=PARALLEL_CALLS, deterministic=True
    )
    return untuned(data.batch(batch_size, drop_remainder=True).prefetch(_PREFETCHED))


def evaluation_batches(source, *, image_size, batch_size):
    """All images in order, resized to a square.

    Args:
        source: `DetectionSource`.
        image_size: S, in pixels.
        batch_size: Images per batch; the last one holds what remains.

    Returns:
        `tf.data.Dataset` of normalised images, float32 (B, S, S, 3).

    Raises:
        ValueError: If `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"`batch_size` must be at least 1. Received: batch_size={batch_size}")
    with tf.device("CPU"):
        data = tf.data.Dataset.from_tensor_slices(source.images)
    data = data.map(
        lambda encoded: _square(encoded, image_size),
        num_parallel_calls=PARALLEL_CALLS,
        deterministic=True,
    )
    return untuned(data.batch(batch_size).prefetch(_PREFETCHED))


def _square(encoded, image_size):
    image = decode(encoded)
    extents = tf.cast(tf.shape(image)[:2], tf.float32)
    crop = tf.concat([[0.0, 0.0], extents], axis=0)
    return normalise(crop_together(image[None], crop, image_size)[0] / 255)


def _padded(source, image_size):
    """(N, M, 4) boxes x1, y1, x2, y2 in pixels and (N, M) classes, -1 where there is none."""
    kept = [~difficult for difficult in source.difficult]
    most = max(1, *(int(keep.sum()) for keep in kept))
    boxes = np.full((len(source), most, 4), -1, np.float32)
    classes = np.full((len(source), most), -1, np.float32)
    for i, keep in enumerate(kept):
        count = int(keep.sum())
        boxes[i, :count] = source.boxes[i][keep][:, [1, 0, 3, 2]] * image_size
        classes[i, :count] = source.labels[i][keep]
    return boxes, classes


def _keys(features, where):
    """Names of the image, of the objects, and of box and label within them."""
    import tensorflow_datasets as tfds

    def first(features, kind):
        return next((key for key, value in features.items() if isinstance(value, kind)), None)

    for key, value in features.items() if hasattr(features, "items") else ():
        inner = getattr(value, "feature", None)
        if hasattr(inner, "items"):
            box = first(inner, tfds.features.BBoxFeature)
            label = "label" if "label" in inner else first(inner, tfds.features.ClassLabel)
            image = first(features, tfds.features.Image)
            if None not in (box, label, image):
                return image, key, box, label
    raise ValueError(
        "`dataset` must have images and, in a sequence of objects, boxes and class labels, as "
        f"voc/2007 has. Received: {where}"
    )


def _default_split(splits, training):
    if training:
        return "train"
    return "test" if "test" in splits else "validation"
