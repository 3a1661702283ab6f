"""Pixels in [0, 1] to what the encoder sees: (x - mean) / std, per channel."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(images, mean=IMAGENET_MEAN, std=IMAGENET_STD, planes=False):
    """Standardises each channel.

    Args:
        images: Float tensor or array (..., 3) with values in [0, 1]; (..., 3, W, H) with `planes`.
        mean, std: Three numbers each, in the unit of the images. Default: ImageNet's.
        planes: Whether the channels come before width and height.

    Returns:
        (images - mean) / std, of the same shape and type.

    Raises:
        ValueError: If `mean` or `std` is not three numbers, or a `std` is not positive.
    """
    if len(mean) != 3:
        raise ValueError(f"`mean` must be three numbers, one per channel. Received: mean={mean}")
    if len(std) != 3 or not all(s > 0 for s in std):
        raise ValueError(f"`std` must be three positive numbers. Received: std={std}")
    scale = [1.0 / s for s in std]
    shift = [-m * s for m, s in zip(mean, scale, strict=True)]
    if planes:
        scale, shift = ([[[value]] for value in values] for values in (scale, shift))
    # One multiplication and one addition: a division per pixel is slower, and this is on the path
    # of every training image.
    return images * scale + shift
