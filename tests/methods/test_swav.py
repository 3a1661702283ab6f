"""SwAV against its equations in float64 NumPy, its small views and its prototypes."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector
from keras_sacl.methods import SwAV
from keras_sacl.optim import LARS
from keras_sacl.slimming import SlimmableEncoder
from tests.methods.small_networks import Counter, make, network, values, views


def with_small(n=16, seed=0, small=2):
    """Data of two views and small ones of 5 px."""
    extras = {"small_views": tuple(views(n, seed + 1 + i, size=5)[0] for i in range(small))}
    return *views(n, seed), extras


def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def oracle(method, large, small, temperature=0.1, epsilon=0.05, iterations=3):
    c = np.asarray(method.prototypes, np.float64)
    c = c / np.linalg.norm(c, axis=0)
    scores = []
    for x in (*large, *small):
        z = np.asarray(method.projector(method.encoder_of_any_size(x), training=True), np.float64)
        scores.append(z / np.linalg.norm(z, axis=1, keepdims=True) @ c)
    losses = []
    for a in range(2):
        q = np.exp(scores[a] / epsilon)
        q /= q.sum()
        for _ in range(iterations):  # as the released code has it, images in rows
            q /= q.sum(axis=0, keepdims=True) * q.shape[1]
            q /= q.sum(axis=1, keepdims=True) * q.shape[0]
        q *= len(q)
        for v, s in enumerate(scores):
            if v != a:
                losses.append(-(q * log_softmax(s / temperature)).sum(axis=1).mean())
    return np.mean(losses)


@pytest.mark.parametrize("small", [0, 1, 3])
def test_the_loss_is_that_of_the_paper(small):
    method = make("swav", temperature=0.2, iterations=4, epsilon=0.1)
    keras.utils.set_random_seed(1)
    inputs = keras.Input((None, None, 3))
    x = inputs
    for layer in method.encoder.layers[1:]:
        x = layer(x)
    free = keras.Model(inputs, x)
    method.encoder_of_any_size = lambda images: free(images, training=True)
    a, b, extras = with_small(small=small)
    expected = oracle(method, (a, b), extras["small_views"], 0.2, 0.1, 4)
    Counter.reset()
    found = method.loss_terms(a, b, *extras["small_views"])["loss"]
    assert Counter.calls == 2 + small
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_no_gradient_flows_through_the_assignments():
    """Of one prototype each assignment is 1, and so is each prediction."""
    method = make("swav", prototypes=1)
    with tf.GradientTape() as tape:
        loss = method.loss_terms(*views())["loss"]
    for g in tape.gradient(loss, method.trainable_variables):
        np.testing.assert_allclose(g, 0.0, atol=1e-7)


@pytest.mark.parametrize("optimizer", ["lars", "adamw", "sgd"])
def test_prototypes_stay_as_they_are_at_first(optimizer):
    """Whatever the optimizer would do with them: decay, momentum, adaptation."""
    made = {
        "lars": LARS(30.0, weight_decay=0.1),
        "adamw": keras.optimizers.AdamW(0.1, weight_decay=0.1),
        "sgd": keras.optimizers.SGD(0.5, momentum=0.9, weight_decay=0.1),
    }
    method = make("swav", frozen_steps=6)
    method.compile(made[optimizer])
    start = np.array(method.prototypes)
    start /= np.linalg.norm(start, axis=0)
    encoder = values(method.encoder.trainable_variables)
    data = tf.data.Dataset.from_tensors(views())
    method.fit(data.repeat(6), verbose=0)
    np.testing.assert_allclose(np.asarray(method.prototypes), start, atol=1e-6)
    assert np.abs(np.asarray(method.encoder.trainable_variables[0]) - encoder[0]).max() > 1e-4
    method.fit(data, verbose=0)
    moved = np.array(method.prototypes)
    assert np.abs(moved - start).max() > 1e-4
    np.testing.assert_allclose(np.linalg.norm(moved, axis=0), 1.0, atol=1e-6)


def test_small_views_are_trained_on_and_saved(tmp_path):
    method = make("swav", frozen_steps=1, temperature=0.3, epsilon=0.07, iterations=2)
    method.compile(keras.optimizers.AdamW(1e-3))
    data = tf.data.Dataset.from_tensors(with_small())
    logs = method.fit(data.repeat(3), verbose=0).history
    assert np.isfinite(logs["swav"][0]) and logs["loss"] == logs["swav"]
    method.save(tmp_path / "method.keras")
    loaded = keras.models.load_model(tmp_path / "method.keras")
    names = ("prototypes", "temperature", "epsilon", "iterations", "frozen_steps")
    configs = [m.get_config() for m in (method, loaded)]
    assert all(configs[0][name] == configs[1][name] for name in names)
    assert int(loaded.seen_steps) == 3
    found = [m.evaluate(data, verbose=0, return_dict=True)["loss"] for m in (method, loaded)]
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_a_step_of_evaluation_is_not_counted():
    method = make("swav", frozen_steps=2)
    method.compile(keras.optimizers.SGD(0.1))
    method.evaluate(tf.data.Dataset.from_tensors(with_small()).repeat(3), verbose=0)
    assert int(method.seen_steps) == 0


def test_a_transformer_takes_views_of_its_own_size():
    keras.utils.set_random_seed(0)
    encoder = build_encoder("deit_tiny", width=0.1, image_size=8)
    method = SwAV(encoder, build_projector(encoder.output_shape[-1], (8, 8)), prototypes=10)
    x_a, x_b = views()
    assert np.isfinite(method.loss_terms(x_a, x_b)["loss"])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`encoder` of SwAV must be one network"):
        SwAV(SlimmableEncoder(network(1.5), network(1)), build_projector(12, (4,)))
    for name in ("temperature", "epsilon"):
        with pytest.raises(ValueError, match=f"`{name}` must be positive. Received: {name}=0"):
            make("swav", **{name: 0})
