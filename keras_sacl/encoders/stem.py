"""The small-image stem: how many strides an encoder can afford."""

import math


def strides_to_remove(image_size, total_stride, smallest_map):
    """How many strides of 2 to leave out, for a last feature map that is not too small.

    Args:
        image_size: Side of the input in pixels.
        total_stride: Product of all strides of the encoder as published.
        smallest_map: Pixels a side that the last map keeps.

    Returns:
        The number of strides, counted from the input.
    """
    return max(0, math.ceil(math.log2(smallest_map * total_stride / image_size)))
