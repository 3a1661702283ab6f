"""The pipelines of training: pairs of views, and views with labels."""

import numpy as np
import tensorflow as tf

from keras_sacl.data.crops import random_crops
from keras_sacl.data.normalisation import IMAGENET_MEAN, IMAGENET_STD, normalise
from keras_sacl.data.order import ordered_steps, total_steps
from keras_sacl.data.photometric import from_planes
from keras_sacl.data.presets import all_presets
from keras_sacl.data.reading import PARALLEL_CALLS, reader, untuned
from keras_sacl.data.resampling import crop_batch, crop_image
from keras_sacl.data.views import Draws, change_pixels, draw_table

AUGMENT_ON = ("host", "device")
# What a random number is for, as the second half of its seed; 0 is the order.
_VIEWS, _LABELLED_VIEW, _SMALL_VIEWS = (1, 2), (3,), 4
# Steps ready ahead of time. Left to itself the buffer grows to hundreds, whose making takes the
# cores from the training step on a CPU, and whose memory nobody needs.
_PREFETCHED = 4
# Side in pixels up to which dense products of matrices are the fastest way to crop.
_LARGEST_SMALL = 160


def two_view_dataset(
    source,
    preset_pair,
    *,
    image_size,
    batch_size,
    seed,
    epochs,
    start_step=0,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    augment_on="host",
    service=None,
    part=(0, 1),
    small_views=0,
    small_size=None,
    rows=None,
):
    """Two augmented views of each image, in an order shuffled anew every epoch.

    An epoch has N // batch_size steps. The batch of step t is a function of (seed, t) alone, so a
    run that goes on at `start_step` sees, bit for bit, what one never interrupted would have seen.

    Args:
        source: `ImageSource` of N images.
        preset_pair: (`ViewPreset`, `ViewPreset`) of view A and view B.
        image_size: Side of the views, in pixels.
        batch_size: Images per step, 2 to N.
        seed: Integer of at least 0; of the order and of the augmentations.
        epochs: Passes over the images.
        start_step: Steps to leave out, counted from the start of the run.
        mean, std: See `normalise`.
        augment_on: "host" makes the views here. "device" makes the crops alone and leaves the
            rest to `view_finisher`, inside the training step on the accelerator.
        service: Address of a `tf.data` service ("grpc://HOST:PORT") whose workers make the
            views. Every step is made exactly once, but their order depends on the workers.
        part: (i, n): only the i-th n-th of every batch, for the i-th of n processes that train
            together; `batch_size` stays that of all.
        small_views: Number of small views beside the two: see `presets.all_presets`.
        small_size: Their side, in pixels.
        rows: Array (N, W), or a memory map, one row for each image; not with `service`.

    Returns:
        `tf.data.Dataset` of (a, b) with epochs * (N // batch_size) - start_step elements. With B
        images of each batch here, a and b are on the host views, float32 (B, image_size,
        image_size, 3). On the device they are pairs (crops, random numbers): float32 (B, 3,
        image_size, image_size) in [0, 1], planes as `photometric.to_planes` makes them, and
        (B, columns). With small views or rows, (a, b, extras): a dict of "small_views", a tuple
        like a and b, and "teacher", (B, W) float32.

    Raises:
        ValueError: On a `batch_size`, `epochs`, `start_step`, `seed`, `augment_on` or `part` out
            of its range.
    """
    if augment_on not in AUGMENT_ON:
        raise ValueError(
            f"`augment_on` must be one of {AUGMENT_ON}. Received: augment_on={augment_on!r}"
        )
    index, count = part
    if not 0 <= index < count or batch_size % count:
        raise ValueError(
            f"`part` must be (i, n) with i below n and n a divisor of batch_size={batch_size}. "
            f"Received: part={part}"
        )
    size = batch_size // count
    own = slice(index * size, (index + 1) * size)
    total = total_steps(len(source), batch_size, epochs, start_step, seed)
    steps = ordered_steps(
        len(source), batch_size, seed, epochs, start_step, splittable=service is not None
    )
    steps = steps.map(lambda step, indices: (step, indices[own]))

    roles = *_VIEWS, *range(_SMALL_VIEWS, _SMALL_VIEWS + small_views)
    presets = all_presets(preset_pair, small_views)
    sizes = (image_size,) * 2 + (small_size,) * small_views

    def tables(step):
        return tuple(_draws(seed, role, step, batch_size)[own] for role in roles)

    finish = _unfinished
    if augment_on == "host":
        finish = view_finisher(presets, mean=mean, std=std)
    data = _make_views(source, presets, steps, tables, sizes, finish)
    if small_views:
        data = data.map(lambda a, b, *small: (a, b, {"small_views": small}))
    if rows is not None:
        data = _with_rows(data, steps, rows)
    if service is not None:
        dynamic = tf.data.experimental.service.ShardingPolicy.DYNAMIC
        data = data.apply(tf.data.experimental.service.distribute(dynamic, service))
    # Known to Keras, which then neither guesses nor warns about the end.
    data = data.apply(tf.data.experimental.assert_cardinality(total - start_step))
    return untuned(data.prefetch(_PREFETCHED))


def labelled_view_dataset(
    source,
    preset,
    *,
    image_size,
    batch_size,
    seed,
    steps,
    start_step=0,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
):
    """One augmented view of each image with its label, in an order shuffled anew every epoch.

    Order and randomness are functions of (seed, step), as in `two_view_dataset`.

    Args:
        source: `ImageSource` of N labelled images.
        preset: `ViewPreset`.
        image_size: Side of the views, in pixels.
        batch_size: Images per step, 2 to N.
        seed: Integer of at least 0; of the order and of the augmentations.
        steps: Steps of the whole run, of which an epoch has N // batch_size.
        start_step: Steps to leave out, counted from the start of the run.
        mean, std: See `normalise`.

    Returns:
        `tf.data.Dataset` of (view, labels) with steps - start_step elements: float32 (batch_size,
        image_size, image_size, 3) and int64 (batch_size,).

    Raises:
        ValueError: If there are no labels, or on a `batch_size`, `steps`, `start_step` or `seed`
            out of its range.
    """
    if source.labels is None:
        raise ValueError("`source` must have labels. Received: labels=None")
    if not 0 <= start_step <= steps or steps < 1:
        raise ValueError(
            "`steps` must be at least 1 and `start_step` in [0, steps]. "
            f"Received: steps={steps}, start_step={start_step}"
        )
    count = len(source)
    epochs = -(-steps // max(count // batch_size, 1))
    total_steps(count, batch_size, epochs, start_step, seed)  # checks
    order = ordered_steps(count, batch_size, seed, epochs, start_step)

    def tables(step):
        return tuple(_draws(seed, role, step, batch_size) for role in _LABELLED_VIEW)

    finish = view_finisher((preset,), mean=mean, std=std)
    views = _make_views(source, (preset,), order, tables, (image_size,), finish)
    with tf.device("CPU"):
        all_labels = tf.constant(source.labels)
    # Of the same steps: shuffling indices twice costs less than carrying labels past the pixels.
    labels = order.map(lambda step, indices: tf.gather(all_labels, indices))
    data = tf.data.Dataset.zip(views, labels).map(lambda views, labels: (views[0], labels))
    data = data.take(steps - start_step)
    data = data.apply(tf.data.experimental.assert_cardinality(steps - start_step))
    return untuned(data.prefetch(_PREFETCHED))


def view_finisher(preset_pair, *, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """What is left to do after `two_view_dataset(..., augment_on="device")`.

    Args:
        preset_pair, mean, std: As there; or any number of presets.

    Returns:
        A function of a and b, pairs (crops, random numbers), to the two views.
    """

    # Compiled, the views take a third of the time: a few passes over the pixels do it all.
    @tf.function(jit_compile=True, autograph=False)
    def finish_planes(*pairs):
        finished = []
        for (crops, table), preset in zip(pairs, preset_pair, strict=True):
            planes = change_pixels(crops, preset, Draws(table))
            finished.append(normalise(planes, mean, std, planes=True))
        return finished

    # By itself: XLA would merge it with the last operation, and write number by number.
    @tf.function(jit_compile=True, autograph=False)
    def interleave(planes):
        return tuple(from_planes(x) for x in planes)

    def finish(*pairs):
        return interleave(finish_planes(*pairs))

    return finish


def _unfinished(*pairs):
    return pairs


def _draws(seed, role, step, batch_size):
    """The random numbers of the views of one role in one step."""
    key = tf.constant([seed, role], tf.int64)
    return draw_table(tf.random.experimental.stateless_fold_in(key, step), batch_size)


def _with_rows(data, steps, rows):
    """Adds to each batch of views the rows of its images."""

    def read(indices):
        return rows[indices].astype(np.float32)

    def gather(step, indices):
        found = tf.numpy_function(read, [indices], tf.float32)
        found.set_shape([indices.shape[0], rows.shape[1]])
        return found

    # Of the same steps: shuffling indices twice costs less than carrying rows past the pixels.
    batches = steps.map(gather, num_parallel_calls=1, deterministic=True)

    def join(views, found):
        a, b, *extras = views
        return a, b, {**(extras[0] if extras else {}), "teacher": found}

    return tf.data.Dataset.zip(data, batches).map(join)


def _make_views(source, presets, steps, tables, sizes, finish):
    """The views of each step, one for each preset, as a tuple."""
    small = source.decoded and max(source.images.shape[1:3]) <= _LARGEST_SMALL
    make = _views_of_small_images if small else _views_of_photos
    return make(source, presets, steps, tables, sizes, finish)


def _views_of_small_images(source, presets, steps, tables, sizes, finish):
    """All views of a batch at a time, of small images in memory."""
    with tf.device("CPU"):
        planes = tf.constant(np.ascontiguousarray(source.images.transpose(0, 3, 2, 1)))

    def make(step, indices):
        images = tf.cast(tf.gather(planes, indices), tf.float32) * (1 / 255)
        pairs = []
        for table, preset, size in zip(tables(step), presets, sizes, strict=True):
            draws = Draws(table)
            crops = random_crops(draws.crop, preset, *source.images.shape[1:3])
            pairs.append((crop_batch(images, crops, draws.flips(preset), size), table))
        return finish(*pairs)

    return steps.map(make, num_parallel_calls=PARALLEL_CALLS, deterministic=True)


def _views_of_photos(source, presets, steps, tables, sizes, finish):
    """The same of images of any size, one at a time: what lies in a core's cache stays there."""
    read = reader(source)

    @tf.function(jit_compile=True, autograph=False)
    def plan(shape, rows):
        crops = []
        for row, preset in zip(rows, presets, strict=True):
            draws = Draws(row[None])
            crop = random_crops(draws.crop, preset, shape[0], shape[1])
            crops.append((crop[0], draws.flips(preset)[0]))
        return crops

    def make(index, *rows):
        image = read(index)
        pairs = []
        crops = plan(tf.shape(image), rows)
        for (crop, flip), row, size in zip(crops, rows, sizes, strict=True):
            pairs.append((crop_image(image, crop, flip, size)[None], row[None]))
        return tf.nest.map_structure(lambda x: x[0], finish(*pairs))

    batch_size = steps.element_spec[1].shape[0]
    return (
        steps.map(lambda step, indices: (indices, *tables(step)))
        .unbatch()
        .map(make, num_parallel_calls=PARALLEL_CALLS, deterministic=True)
        .batch(batch_size, drop_remainder=True)
    )
