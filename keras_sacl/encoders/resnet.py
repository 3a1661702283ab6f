"""ResNets at any width.

"Deep Residual Learning for Image Recognition" (2015); in bottlenecks the 3 x 3 convolution
strides ("v1.5"), and small images get a 3 x 3 stem without pooling, as SimCLR (2020) does.
"""

import functools

import keras
from keras import layers

from keras_sacl.encoders.stem import strides_to_remove

# Blocks of the four stages, and whether these are bottlenecks: table 1 of the paper.
LAYOUTS = {
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}


def resnet18(width, image_size):
    """Basic blocks, 2-2-2-2."""
    return _resnet("resnet18", width, image_size)


def resnet34(width, image_size):
    """Basic blocks, 3-4-6-3."""
    return _resnet("resnet34", width, image_size)


def resnet50(width, image_size):
    """Bottlenecks, 3-4-6-3."""
    return _resnet("resnet50", width, image_size)


def resnet101(width, image_size):
    """Bottlenecks, 3-4-23-3."""
    return _resnet("resnet101", width, image_size)


def resnet152(width, image_size):
    """Bottlenecks, 3-8-36-3."""
    return _resnet("resnet152", width, image_size)


def torch_resnet(name, width=1.0, small_stem=False, border=0):
    """A ResNet as PyTorch computes it, for weights that were trained there.

    Windows that stride are padded by kernel // 2 on both sides, where TensorFlow's "same" pads
    one pixel less at the start on maps of even size and so sees another alignment; BatchNorm adds
    1e-5 to the variance. Layers have the names of the others here.

    Args:
        name: One of `LAYOUTS`.
        width: Multiplier of all channels: 2 and 4 are the "w2" and "w4" of SimCLR and SwAV.
        small_stem: A 3 x 3 stem without stride and pooling, in place of 7 x 7 with both.
        border: Rings of zeros around the image.

    Returns:
        A `keras.Model`, (B, H, W, 3) of any size to the last map.
    """
    strides = [1, 1, 2, 2, 2] if small_stem else [2] * 5
    return _resnet(name, width, None, strides=strides, border=border, torch=True)


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


def _resnet(name, width, image_size, strides=None, border=0, torch=False):
    repeats, bottleneck = LAYOUTS[name]
    strides = strides or _strides(image_size, 5)
    stem, pool = strides[:2]
    convolution = functools.partial(_convolution, torch=torch)
    x = inputs = keras.Input((image_size, image_size, 3))
    if border:
        x = layers.ZeroPadding2D(border, name="border")(x)
    x = convolution(x, channels(64, width), 7 if stem == 2 else 3, stem, "stem")
    if pool == 2:
        # Of rectified maps, so that zeros at the border do what -infinity would.
        x, padding = _padded(x, 3, 2, "stem_pool") if torch else (x, "same")
        x = layers.MaxPooling2D(3, strides=2, padding=padding, name="stem_pool")(x)
    bases = (64, 128, 256, 512)
    block = _bottleneck if bottleneck else _basic
    for stage, (base, count, stride) in enumerate(
        zip(bases, repeats, (1, *strides[2:]), strict=True), start=1
    ):
        x = _stage(x, channels(base, width), count, stride, block, stage, convolution)
    return keras.Model(inputs, x)


def _strides(image_size, number):
    """The strides from stem to last stage, the first of them 1 where the image is small."""
    ones = min(number, strides_to_remove(image_size, 2**number, smallest_map=4))
    return [1] * ones + [2] * (number - ones)


def _convolution(x, filters, kernel, stride, name, activation=True, torch=False):
    x, padding = _padded(x, kernel, stride, name) if torch else (x, "same")
    settings = {"strides": stride, "padding": padding, "use_bias": False}
    x = layers.Conv2D(filters, kernel, **settings, name=name)(x)
    x = layers.BatchNormalization(epsilon=1e-5 if torch else 1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x) if activation else x


def _padded(x, kernel, stride, name):
    """(x, padding): what PyTorch pads before a window strides, and what is left to Keras."""
    if stride == 1 or kernel == 1:
        return x, "same"  # which is symmetric then
    return layers.ZeroPadding2D(kernel // 2, name=f"{name}_padding")(x), "valid"


def _stage(x, width, repeats, stride, block, stage, convolution=_convolution):
    for i in range(repeats):
        # Whether a shortcut projects is a matter of the topology as published, not of whether
        # channels or sizes happen to agree at this width: a slim network has the same layers.
        project = i == 0 and (stage > 1 or block is _bottleneck)
        name = f"stage{stage}_block{i + 1}"
        x = block(x, width, stride if i == 0 else 1, project, name, convolution)
    return x


def _basic(x, width, stride, project, name, convolution):
    y = convolution(x, width, 3, stride, f"{name}_conv1")
    y = convolution(y, width, 3, 1, f"{name}_conv2", activation=False)
    return _residual(x, y, stride, project, name, convolution)


def _bottleneck(x, width, stride, project, name, convolution):
    y = convolution(x, width, 1, 1, f"{name}_conv1")
    y = convolution(y, width, 3, stride, f"{name}_conv2")
    y = convolution(y, 4 * width, 1, 1, f"{name}_conv3", activation=False)
    return _residual(x, y, stride, project, name, convolution)


def _residual(x, y, stride, project, name, convolution):
    if project:
        x = convolution(x, y.shape[-1], 1, stride, f"{name}_shortcut", activation=False)
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([x, y]))
