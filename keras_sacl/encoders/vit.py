"""Vision transformers at any width, of Keras' own layers; the features are the class token."""

import math

import keras
from keras import initializers, layers

from keras_sacl.encoders.stem import strides_to_remove

_DIM, _BLOCKS, _MLP_RATIO = 192, 12, 4
_PATCH = 16
# 64 patches of an image of 32 px; half the patch would make 256, at more than four times the cost.
_SMALLEST_GRID = 8


def deit_tiny(width, image_size):
    """As "On the Efficacy of Small Self-Supervised Contrastive Models ..." (2022) trains it.

    DeiT-Tiny of "Training data-efficient image transformers" (2020) with six heads in place of
    three, and with the random patch projection that it starts with: not trained, as "An Empirical
    Study of Training Self-Supervised Vision Transformers" (2021) found to be stable.
    """
    return _transformer(width, image_size, heads=6, learned_patches=False, name="deit_tiny")


def vit_tiny(width, image_size):
    """The ViT-Ti/16 of "How to train your ViT?" (2021): three heads, all of it learned.

    The supplement of "Slimmed Asymmetrical Contrastive Learning and Cross Distillation" (2023)
    trains "the lightweight ViT model" on ImageNet-100 and says no more of it. That it is this one,
    the smallest ViT that has a name of its own, is an assumption.
    """
    return _transformer(width, image_size, heads=3, learned_patches=True, name="vit_tiny")


def _transformer(width, image_size, heads, learned_patches, name):
    """A transformer whose width is a number of heads, each as wide as at width 1.

    So a slim network has the first heads of its host, whole. Patches are 16 px a side, and half as
    much as often as it takes for a grid of 8 x 8 (32 px: 4), the last ones padded if need be.
    """
    head_dim = _DIM // heads
    heads = max(1, int(heads * width + 0.5))
    dim = heads * head_dim
    patch = _PATCH >> strides_to_remove(image_size, _PATCH, _SMALLEST_GRID)
    images = keras.Input((image_size, image_size, 3), name="images")
    x = layers.Conv2D(
        dim,
        patch,
        strides=patch,
        padding="same",
        kernel_initializer=_xavier(3 * patch**2, dim),
        trainable=learned_patches,
        name="patches",
    )(images)
    x = layers.Reshape((x.shape[1] * x.shape[2], dim), name="tokens")(x)
    x = _with_positions(layers.ZeroPadding1D((1, 0), name="class_token")(x))
    for i in range(1, _BLOCKS + 1):
        x = _block(x, heads, head_dim, f"block{i}")
    x = layers.Cropping1D((0, x.shape[1] - 1), name="last_class_token")(x)
    # float32 whatever the policy: features are compared, normalised and exported.
    x = layers.LayerNormalization(epsilon=1e-6, dtype="float32", name="norm")(x)
    return keras.Model(images, layers.Flatten(dtype="float32", name="features")(x), name=name)


def _with_positions(x):
    """Adds a learned vector at every place; at the first, where x is zero, it is the class token.

    PReLU of -1 is -alpha, a weight for each place and channel. A layer made for it would keep
    files from opening in Keras alone.
    """
    minus_one = layers.Rescaling(0.0, offset=-1.0, name="minus_one")(x)
    # As large as patches, where the papers have 0.02: untrained, 20-NN on 600 digits is then 0.4 to
    # 0.5 and not 0.15, and 200 steps of Barlow Twins on CIFAR-10 (32 px, deit_tiny at width 0.5)
    # come to a loss of 19.6 and 20-NN 0.297 in place of 22.8 and 0.285.
    start = initializers.RandomNormal(stddev=1.0)
    positions = layers.PReLU(alpha_initializer=start, name="positions")(minus_one)
    return layers.Add(name="positions_add")([x, positions])


def _block(x, heads, head_dim, name):
    dim = heads * head_dim
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm1")(x)
    # Keras would take the heads for pixels of a kernel, and start with a quarter of this.
    start = _xavier(dim, dim)
    y = layers.MultiHeadAttention(
        heads, head_dim, kernel_initializer=start, name=f"{name}_attention"
    )(y, y)
    x = layers.Add(name=f"{name}_add1")([x, y])
    y = layers.LayerNormalization(epsilon=1e-6, name=f"{name}_norm2")(x)
    y = layers.Dense(_MLP_RATIO * dim, name=f"{name}_expand")(y)
    # By tanh: Keras makes the exact one of an Erfc, which ONNX has not.
    y = layers.Dense(dim, name=f"{name}_project")(keras.ops.gelu(y, approximate=True))
    return layers.Add(name=f"{name}_add2")([x, y])


def _xavier(inputs, outputs):
    limit = math.sqrt(6 / (inputs + outputs))
    return initializers.RandomUniform(-limit, limit)
