"""The small-image stem: how many strides an encoder can afford."""

import math

_SMALLEST_MAP = 4  # pixels a side that the last feature map keeps


def strides_to_remove(image_size, total_stride):
    """How many strides of 2 to leave out, for a last map of at least 4 x 4.

    Args:
        image_size: Side of the input in pixels.
        total_stride: Product of all strides of the encoder as published.

    Returns:
        The number of strides, counted from the input.
    """
    return max(0, math.ceil(math.log2(_SMALLEST_MAP * total_stride / image_size)))
