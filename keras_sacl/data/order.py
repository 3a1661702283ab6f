"""Which images make the batch of a step: a function of (seed, step)."""

import tensorflow as tf

_ORDER = 0  # what a random number is for, as the second half of its seed


def total_steps(count, batch_size, epochs, start_step, seed):
    """The number of steps of a whole run.

    Raises:
        ValueError: On an argument out of its range.
    """
    if not 2 <= batch_size <= count:
        raise ValueError(
            f"`batch_size` must be at least 2 and at most the number of images, {count}. "
            f"Received: batch_size={batch_size}"
        )
    if epochs < 1:
        raise ValueError(f"`epochs` must be at least 1. Received: epochs={epochs}")
    if seed < 0:
        raise ValueError(f"`seed` must be at least 0. Received: seed={seed}")
    total = epochs * (count // batch_size)
    if not 0 <= start_step <= total:
        raise ValueError(
            f"`start_step` must be in [0, {total}], the steps of {epochs} epochs. "
            f"Received: start_step={start_step}"
        )
    return total


def ordered_steps(count, batch_size, seed, epochs, start_step, splittable=False):
    """The steps of a run from `start_step` on, with a new permutation for each epoch.

    Args:
        count: Number of images.
        batch_size, seed, epochs, start_step: As in `two_view_dataset`.
        splittable: Makes the steps the source of the data set, so that a data service can share
            them out among its workers. Each step then permutes its epoch anew, which costs a
            millisecond for 50,000 images.

    Returns:
        `tf.data.Dataset` of (step, indices): int64 () and int32 (batch_size,).
    """
    per_epoch = count // batch_size

    # A true shuffle: the permutations of tf.random.experimental.index_shuffle, which needs no
    # memory, are far from uniform (chi-square of the first index 17,000 where 1,441 is expected).
    def epoch_order(epoch):
        key = tf.random.experimental.stateless_fold_in(tf.constant([seed, _ORDER], tf.int64), epoch)
        order = tf.random.experimental.stateless_shuffle(tf.range(count), key, alg="philox")
        return tf.reshape(order[: per_epoch * batch_size], [per_epoch, batch_size])

    if splittable:
        return tf.data.Dataset.range(start_step, epochs * per_epoch).map(
            lambda step: (step, epoch_order(step // per_epoch)[step % per_epoch])
        )

    def epoch_steps(epoch):
        numbers = epoch * per_epoch + tf.range(per_epoch, dtype=tf.int64)
        return tf.data.Dataset.from_tensor_slices((numbers, epoch_order(epoch)))

    first_epoch = start_step // per_epoch
    data = tf.data.Dataset.range(first_epoch, epochs).flat_map(epoch_steps)
    return data.skip(start_step - first_epoch * per_epoch)
