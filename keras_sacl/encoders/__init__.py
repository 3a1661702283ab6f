"""Encoders by name: small image networks at any width and image size, from pixels to features."""

import difflib
import math

import keras

from keras_sacl.encoders import alexnet, efficientnet, mobilenet, resnet, vit
from keras_sacl.encoders.adapt import ACTIVATIONS, adapt
from keras_sacl.encoders.stem import strides_to_remove

_LIBRARY = {
    "mobilenet_v1": mobilenet.mobilenet_v1,
    "mobilenet_v2": mobilenet.mobilenet_v2,
    "mobilenet_v3_small": mobilenet.mobilenet_v3_small,
    "mobilenet_v3_large": mobilenet.mobilenet_v3_large,
    "efficientnet_b0": efficientnet.efficientnet_b0,
    "efficientnet_b1": efficientnet.efficientnet_b1,
}
_OURS = {
    "resnet18": resnet.resnet18,
    "resnet34": resnet.resnet34,
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnet20_cifar": resnet.resnet20_cifar,
    "alexnet": alexnet.alexnet,
}
_TRANSFORMERS = {"deit_tiny": vit.deit_tiny, "vit_tiny": vit.vit_tiny}
ENCODERS = (*_LIBRARY, *_OURS, *_TRANSFORMERS)
TRANSFORMERS = tuple(_TRANSFORMERS)
FIXED_SIZE = ("alexnet", *TRANSFORMERS)  # whose weights fit one size of images
__all__ = ["ACTIVATIONS", "ENCODERS", "FIXED_SIZE", "TRANSFORMERS", "build_encoder"]

_LIBRARY_STRIDE = 32
# A map of 4 x 4 costs four times as much: 32 px training of a MobileNet then takes as long as
# 128 px training without a small-image stem.
_SMALLEST_MAP = 2


def build_encoder(
    name, *, width=1.0, image_size=224, batch_norm_momentum=0.9, activation="default"
):
    """An image encoder with fresh weights, as a plain functional model.

    The same name at two widths gives two models whose variables correspond one to one. Small
    images get a small-image stem: the first strides are left out, so that the last feature map
    is at least 2 x 2 (32 px: a total stride of 16 in place of 32), or 4 x 4 for ResNets, as the
    field trains them on CIFAR (32 px: 8), and 3 x 3 for AlexNet. Transformers get smaller patches,
    so that there are at least 8 x 8 of them.

    Convolutions start for ReLU (He, normal; depthwise ones with a fan of k x k), and BatchNorm
    has momentum 0.9: with the usual 0.99 or 0.999 the moving statistics of a short run lag so
    far behind that features at inference are noise. In the MobileNets and EfficientNets, beta of
    a BatchNorm in front of an activation starts at 1, without which deep plain networks hardly
    begin to learn (see `adapt`). Transformers have no BatchNorm and start as `vit` says.

    Args:
        name: One of `ENCODERS`.
        width: Multiplier of all channels, above 0. Channels are rounded as the backbone's
            authors do, mostly to multiples of 8; those of transformers to whole heads.
        image_size: Side of the square input in pixels, at least 8.
        batch_norm_momentum: Share of the old value that a moving statistic keeps each step.
        activation: One of `ACTIVATIONS`. "default": as published. "relu6": min(max(x, 0), 6) in
            the place of every ReLU, swish and hard-swish, of which transformers have none. The
            gates of squeeze-and-excitation are bounded and stay.

    Returns:
        A `keras.Model` named `name`: (B, image_size, image_size, 3) normalised pixels to (B, F)
        float32 features: the global average of the last map, or the class token of a transformer.

    Raises:
        ValueError: On an unknown name or activation, or an impossible width, size or momentum.
            On "relu6" for a transformer.
    """
    if name not in ENCODERS:
        close = difflib.get_close_matches(str(name), ENCODERS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(
            f"`encoder` must be one of {', '.join(ENCODERS)}{hint}. Received: encoder={name!r}"
        )
    if not (0 < width < math.inf):
        raise ValueError(f"`width` must be above 0. Received: width={width}")
    if not (isinstance(image_size, int) and image_size >= 8):
        raise ValueError(
            f"`image_size` must be an integer of at least 8. Received: image_size={image_size}"
        )
    if not 0 <= batch_norm_momentum < 1:
        raise ValueError(
            "`batch_norm_momentum` must be in [0, 1). "
            f"Received: batch_norm_momentum={batch_norm_momentum}"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(
            f"`activation` must be one of {', '.join(ACTIVATIONS)}. "
            f"Received: activation={activation!r}"
        )
    if name in _TRANSFORMERS:
        if activation != "default":
            raise ValueError(
                f"`activation` must be default for {name}, which has no ReLU, swish or hard-swish. "
                f"Received: activation={activation!r}"
            )
        return _TRANSFORMERS[name](width, image_size)
    # What is ours is built for the image size; the library's nets are cut to it.
    build, removed = _OURS.get(name), 0
    if build is None:
        build = _LIBRARY[name]
        removed = strides_to_remove(image_size, _LIBRARY_STRIDE, _SMALLEST_MAP)
    images, last_map = adapt(
        lambda w: build(w, image_size),
        width,
        image_size=image_size,
        removed_strides=removed,
        batch_norm_momentum=batch_norm_momentum,
        activation=activation,
        # Residuals keep the ResNets healthy without, and AlexNet's few layers.
        shift_activations=name in _LIBRARY,
    )
    # float32 whatever the policy: features are compared, normalised and exported.
    pool = keras.layers.GlobalAveragePooling2D(dtype="float32", name="features")
    return keras.Model(images, pool(last_map), name=name)
