"""ResNets at any width.

"Deep Residual Learning for Image Recognition" (2015); in bottlenecks the 3 x 3 convolution
strides ("v1.5"), and small images get a 3 x 3 stem without pooling, as SimCLR (2020) does.
"""

import keras
from keras import layers

from keras_sacl.encoders.stem import strides_to_remove


def resnet18(width, image_size):
    """Basic blocks, 2-2-2-2."""
    return _imagenet_resnet(width, image_size, (2, 2, 2, 2), _basic)


def resnet34(width, image_size):
    """Basic blocks, 3-4-6-3."""
    return _imagenet_resnet(width, image_size, (3, 4, 6, 3), _basic)


def resnet50(width, image_size):
    """Bottlenecks, 3-4-6-3."""
    return _imagenet_resnet(width, image_size, (3, 4, 6, 3), _bottleneck)


def resnet20_cifar(width, image_size):
    """Three stages of three basic blocks at 16-32-64 channels, for images of about 32 px."""
    x = inputs = keras.Input((image_size, image_size, 3))
    x = _convolution(x, channels(16, width), 3, 1, "stem")
    strides = (1, *_strides(image_size, 2))
    for stage, (base, stride) in enumerate(zip((16, 32, 64), strides, strict=True), start=1):
        x = _stage(x, channels(base, width), 3, stride, _basic, stage)
    return keras.Model(inputs, x)


def channels(base, width):
    """`base * width`, rounded to a multiple of 8 and at least 8."""
    return max(8, int(base * width / 8 + 0.5) * 8)


def _imagenet_resnet(width, image_size, repeats, block):
    strides = _strides(image_size, 5)
    stem, pool = strides[:2]
    x = inputs = keras.Input((image_size, image_size, 3))
    x = _convolution(x, channels(64, width), 7 if stem == 2 else 3, stem, "stem")
    if pool == 2:
        x = layers.MaxPooling2D(3, strides=2, padding="same", name="stem_pool")(x)
    bases = (64, 128, 256, 512)
    for stage, (base, count, stride) in enumerate(
        zip(bases, repeats, (1, *strides[2:]), strict=True), start=1
    ):
        x = _stage(x, channels(base, width), count, stride, block, stage)
    return keras.Model(inputs, x)


def _strides(image_size, number):
    """The strides from stem to last stage, the first of them 1 where the image is small."""
    ones = min(number, strides_to_remove(image_size, 2**number, smallest_map=4))
    return [1] * ones + [2] * (number - ones)


def _stage(x, width, repeats, stride, block, stage):
    for i in range(repeats):
        # Whether a shortcut projects is a matter of the topology as published, not of whether
        # channels or sizes happen to agree at this width: a slim network has the same layers.
        project = i == 0 and (stage > 1 or block is _bottleneck)
        x = block(x, width, stride if i == 0 else 1, project, f"stage{stage}_block{i + 1}")
    return x


def _basic(x, width, stride, project, name):
    y = _convolution(x, width, 3, stride, f"{name}_conv1")
    y = _convolution(y, width, 3, 1, f"{name}_conv2", activation=False)
    return _residual(x, y, stride, project, name)


def _bottleneck(x, width, stride, project, name):
    y = _convolution(x, width, 1, 1, f"{name}_conv1")
    y = _convolution(y, width, 3, stride, f"{name}_conv2")
    y = _convolution(y, 4 * width, 1, 1, f"{name}_conv3", activation=False)
    return _residual(x, y, stride, project, name)


def _residual(x, y, stride, project, name):
    if project:
        x = _convolution(x, y.shape[-1], 1, stride, f"{name}_shortcut", activation=False)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))


def _convolution(x, filters, kernel, stride, name, activation=True):
    x = layers.Conv2D(filters, kernel, strides=stride, padding="same", use_bias=False, name=name)(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x
