"""DeiT-Tiny and ViT-Tiny."""

import numpy as np
import pytest

from keras_sacl.encoders import build_encoder
from tests.networks import with_statistics


@pytest.mark.parametrize("image_size, patch", [(224, 16), (128, 16), (96, 8), (32, 4), (8, 1)])
def test_patches_of_small_images_are_small(image_size, patch):
    patches = build_encoder("deit_tiny", width=0.25, image_size=image_size).get_layer("patches")
    assert patches.kernel_size == patches.strides == (patch, patch)


@pytest.mark.parametrize("name, heads", [("deit_tiny", 4), ("vit_tiny", 2)])
def test_a_transformer_is_what_numpy_computes(name, heads, digits):
    encoder = with_statistics(build_encoder(name, width=2 / 3, image_size=20))
    images = digits[0][:2, 6:26, 6:26]
    expected = vision_transformer(encoder, images.astype("float64"), heads)
    np.testing.assert_allclose(encoder(images), expected, atol=1e-4)


def vision_transformer(encoder, images, heads):
    """Equations 1 to 4 of "An Image is Worth 16x16 Words" (2020), in float64."""

    def weights(name):
        return [np.asarray(w, "float64") for w in encoder.get_layer(name).weights]

    def norm(x, name):
        gamma, beta = weights(name)
        x = x - x.mean(-1, keepdims=True)
        return gamma * x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) + beta

    def attend(x, name):
        q, q0, k, k0, v, v0, out, out0 = weights(name)
        y = out0
        for h in range(heads):
            queries, keys = x @ q[:, h] + q0[h], x @ k[:, h] + k0[h]
            scores = np.exp(queries @ keys.swapaxes(1, 2) / np.sqrt(q.shape[-1]))
            scores /= scores.sum(-1, keepdims=True)
            y = y + scores @ (x @ v[:, h] + v0[h]) @ out[h]
        return y

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    kernel, bias = weights("patches")
    p = len(kernel)
    n = images.shape[1] // p
    patches = images.reshape(-1, n, p, n, p, 3).transpose(0, 1, 3, 2, 4, 5)
    tokens = patches.reshape(-1, n * n, 3 * p * p) @ kernel.reshape(3 * p * p, -1) + bias
    (positions,) = weights("positions")
    x = np.pad(tokens, [(0, 0), (1, 0), (0, 0)]) - positions
    for i in range(1, 13):
        x = x + attend(norm(x, f"block{i}_norm1"), f"block{i}_attention")
        (kernel, bias), (kernel2, bias2) = weights(f"block{i}_expand"), weights(f"block{i}_project")
        x = x + gelu(norm(x, f"block{i}_norm2") @ kernel + bias) @ kernel2 + bias2
    return norm(x[:, 0], "norm")


def test_only_the_patches_of_deit_tiny_are_not_learned():
    for name, frozen in (("deit_tiny", ["patches"]), ("vit_tiny", [])):
        encoder = build_encoder(name, width=0.1, image_size=8)
        assert [layer.name for layer in encoder.layers if not layer.trainable] == frozen
