"""Slim networks of transformers: the first heads of the host, and nothing else of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.encoders import build_encoder
from keras_sacl.slimming import SlimmableEncoder
from tests.networks import with_statistics


def pair(name="deit_tiny"):
    """A host of two heads and a slim network of one."""
    heads = {"deit_tiny": 6, "vit_tiny": 3}[name]
    keras.utils.set_random_seed(0)
    return [build_encoder(name, width=n / heads, image_size=8) for n in (2, 1)]


def images(n=4):
    return np.random.default_rng(0).normal(size=(n, 8, 8, 3)).astype("float32")


def leading(value, like):
    return np.asarray(value)[tuple(slice(n) for n in like.shape)]


@pytest.mark.parametrize("name", ["deit_tiny", "vit_tiny"])
def test_the_slice_is_the_slim_network_of_copied_blocks(name):
    """Outputs and gradients; the oracle is the slim network itself, of blocks cut by NumPy."""
    host, slim = pair(name)
    encoder = SlimmableEncoder(with_statistics(host), slim)
    for h, s in zip(host.variables, slim.variables, strict=True):
        s.assign(leading(h, s))
    before = [np.asarray(v) for v in host.variables]
    scale = np.random.default_rng(1).normal(size=slim.output_shape[-1]).astype("float32")

    def step(encode, features, variables):
        with tf.GradientTape() as tape:
            y = encode(images())
            loss = tf.reduce_sum(tf.square(y[:, : len(scale)]) * scale)
        return np.asarray(y)[:, :features], tape.gradient(loss, variables)

    expected, slim_gradients = step(slim, None, slim.trainable_variables)
    y, gradients = step(
        lambda x: encoder(x, slim=True, training=True), None, host.trainable_variables
    )
    np.testing.assert_allclose(y[:, : len(scale)], expected, rtol=1e-5, atol=1e-6)
    assert y.shape[1] == 2 * len(scale) and not y[:, len(scale) :].any()
    for v, g, s in zip(host.trainable_variables, gradients, slim_gradients, strict=True):
        s, padded = np.asarray(s), np.zeros(v.shape)
        padded[tuple(slice(n) for n in s.shape)] = s
        np.testing.assert_allclose(g, padded, atol=1e-4 * max(np.abs(s).max(), 1e-3))
    for v, old in zip(host.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)  # the patches of deit_tiny among them


def test_the_extracted_network_and_its_file(tmp_path):
    host, slim = pair()
    encoder = SlimmableEncoder(host, slim)
    extracted = encoder.extract_slim()
    assert not extracted.get_layer("patches").trainable
    x = images()
    expected = np.asarray(encoder(x, slim=True))[:, : slim.output_shape[-1]]
    encoder.save(tmp_path / "encoder.keras")
    extracted.save(tmp_path / "slim.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras")
    alone = keras.saving.load_model(tmp_path / "slim.keras", safe_mode=True)
    for y in (extracted(x), alone(x), loaded(x, slim=True)[:, : slim.output_shape[-1]]):
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


def test_what_a_transformer_cannot_do_is_refused():
    host, slim = pair()
    with pytest.raises(ValueError, match=r"use execution=\"slice\".*LayerNormalization 'block1_no"):
        SlimmableEncoder(host, slim, execution="mask")
    with pytest.raises(ValueError, match=r"PReLU 'positions'; use selection=\"leading\""):
        SlimmableEncoder(host, slim, selection="magnitude")
    learned = build_encoder("vit_tiny", width=1 / 3, image_size=8)
    other = build_encoder("deit_tiny", width=1 / 3, image_size=8)
    with pytest.raises(ValueError, match="'block1_attention' .* shape"):
        SlimmableEncoder(learned, other)
