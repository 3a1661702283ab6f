"""AlexNet at any width, with BatchNorm and without dropout."""

import keras
from keras import layers

from keras_sacl.encoders.resnet import channels
from keras_sacl.encoders.stem import strides_to_remove

_STRIDES = 5
# Pools without padding leave 3 x 3 of it, or more.
_SMALLEST_MAP = 4


def alexnet(width, image_size):
    """From "One weird trick for parallelizing convolutional neural networks" (2014), one column.

    That is torchvision's, and the student of "CompRess" (2020), whose features are those of the
    second dense layer behind its ReLU. Each of the seven layers has a BatchNorm in place of its
    bias. At 224 px the first convolution gives 56 x 56 in place of 55 x 55 pixels, padded as Keras
    does; the maps behind the three pools are the published 27 x 27, 13 x 13 and 6 x 6.

    The dense layers are convolutions: of the whole last map, and of 1 x 1. It is the same
    function, and the leading channels of that map are a leading block of the kernel, which they
    are not once pixels and channels lie in one axis.
    """
    ones = min(_STRIDES, strides_to_remove(image_size, 2**_STRIDES, _SMALLEST_MAP))
    # The first convolution has two of the strides.
    stem, pools = 2 ** max(0, 2 - ones), (ones < 3, ones < 4, ones < 5)
    x = inputs = keras.Input((image_size, image_size, 3))
    x = _convolution(x, 64, {4: 11, 2: 7, 1: 3}[stem], width, "conv1", strides=stem)
    x = _pool(x, pools[0], "pool1")
    x = _convolution(x, 192, 5, width, "conv2")
    x = _pool(x, pools[1], "pool2")
    x = _convolution(x, 384, 3, width, "conv3")
    x = _convolution(x, 256, 3, width, "conv4")
    x = _convolution(x, 256, 3, width, "conv5")
    x = _pool(x, pools[2], "pool3")
    x = _convolution(x, 4096, x.shape[1], width, "fc6", padding="valid")
    x = _convolution(x, 4096, 1, width, "fc7", padding="valid")
    return keras.Model(inputs, x)


def _pool(x, strided, name):
    return layers.MaxPooling2D(3, strides=2, name=name)(x) if strided else x


def _convolution(x, base, kernel, width, name, strides=1, padding="same"):
    x = layers.Conv2D(
        channels(base, width), kernel, strides=strides, padding=padding, use_bias=False, name=name
    )(x)
    x = layers.BatchNormalization(name=f"{name}_bn")(x)
    return layers.ReLU(name=f"{name}_relu")(x)
