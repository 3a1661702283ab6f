"""MoCo-v2 against Algorithm 1 in float64 NumPy, its key encoder, its orders and its queue."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl import replicas
from keras_sacl.heads import build_projector
from keras_sacl.methods import MoCoV2, moco_v2
from keras_sacl.slimming import SlimmableEncoder
from tests.methods.small_networks import make, network, values, views


def unit(z):
    z = np.asarray(z, np.float64)
    return z / np.linalg.norm(z, axis=1, keepdims=True)


def test_a_step_is_algorithm_1():
    """The loss, the key encoder's update before the keys, and the queue after them."""
    method = make("moco_v2", temperature=0.3, key_momentum=0.75)
    x_a, x_b = views()
    for v in method.key_encoder.variables + method.key_projector.variables:
        v.assign(v + 0.1)  # a mean that is not the present network
    before = values(method.key_encoder.variables + method.key_projector.variables)
    queue = np.array(method.queue.embeddings, np.float64)
    terms = method.loss_terms(x_a, x_b)

    weights = {id(v) for v in method.trainable_variables}
    means = method.key_encoder.variables + method.key_projector.variables
    own = method.encoder.variables + method.projector.variables
    for old, v, present in zip(before, means, own, strict=True):
        expected = 0.75 * old + 0.25 * np.asarray(present) if id(present) in weights else old
        np.testing.assert_allclose(np.asarray(v), expected, rtol=1e-6)

    key_encoder, key_projector = method.key_encoder.mean, method.key_projector.mean
    q = unit(method.projector(method.encoder(x_a, training=True), training=True))
    k = unit(key_projector(key_encoder(x_b, training=True), training=True))
    logits = np.concatenate([(q * k).sum(1, keepdims=True), q @ queue.T], axis=1)
    powers = np.exp(logits / 0.3)
    np.testing.assert_allclose(terms["loss"], -np.log(powers[:, 0] / powers.sum(1)).mean(), 1e-5)
    nearest = (logits.argmax(axis=1) == 0).mean()
    np.testing.assert_allclose(terms["pretext_accuracy"], nearest)

    queue[:16] = k  # the oldest are those at the front
    np.testing.assert_allclose(method.queue.embeddings, queue, atol=1e-6)


def test_a_compiled_step_reads_the_queue_before_it_writes():
    """The backward pass too, though the queue is written in place."""
    method = make("moco_v2", queue_size=16)
    method.compile(keras.optimizers.SGD(1.0))
    x_a, x_b = views()
    with tf.GradientTape() as tape:
        queue = np.array(method.queue.embeddings)
        # A copy, since the step is to begin with the same queue and key encoder.
        other = make("moco_v2", queue_size=16)
        other.queue.rows.assign(queue)
        loss = other.loss_terms(x_a, x_b)["loss"]
    gradients = tape.gradient(loss, other.trainable_variables)
    before = values(method.trainable_variables)
    method.train_on_batch(x_a, x_b)
    for old, v, g in zip(before, method.trainable_variables, gradients, strict=True):
        np.testing.assert_allclose(np.asarray(v), old - np.asarray(g), rtol=1e-4, atol=1e-6)
    assert np.abs(np.asarray(method.queue.embeddings) - queue).max() > 0.1


def test_no_gradient_reaches_the_keys():
    method = make("moco_v2")
    with tf.GradientTape() as tape:
        tape.watch([v.value for v in method.key_encoder.variables])
        keys = tf.reduce_sum(method.key_embed(views()[1]) ** 2)
    watched = [v.value for v in method.key_encoder.variables + method.key_projector.variables]
    assert all(g is None for g in tape.gradient(keys, watched))
    trained = {id(v) for v in method.trainable_variables}
    own = {id(v) for v in method.encoder.variables + method.projector.variables}
    assert trained <= own
    # The statistics of the key encoder are those of the batch; its own stand still.
    before = values(method.key_encoder.variables)
    method.key_embed(views(seed=1)[1])
    for v, old in zip(method.key_encoder.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)


@pytest.mark.parametrize("groups, images", [(2, 16), (4, 16), (4, 32), (8, 64)])
def test_each_group_of_keys_has_as_many_images_of_each_group_of_queries(groups, images):
    method = make("moco_v2", key_batch_norm="split", batch_norm_groups=groups)
    order = np.asarray(method._order(images))
    np.testing.assert_array_equal(np.sort(order), np.arange(images))
    size = images // groups
    for part in order.reshape(groups, size):
        counts = np.bincount(part // size, minlength=groups)
        assert counts.max() - counts.min() <= (size % groups > 0)


def test_split_keys_are_those_of_their_groups_in_the_order_of_the_batch():
    method = make("moco_v2", key_batch_norm="split", batch_norm_groups=4)
    x = np.asarray(views()[1])
    encode, project = method.key_encoder.mean, method.key_projector.mean
    expected = np.empty((16, 16))
    for first in range(4):  # every fourth image
        own = slice(first, None, 4)
        expected[own] = project(encode(x[own], training=True), training=True)
    np.testing.assert_allclose(method.key_embed(tf.constant(x)), expected, atol=1e-5)
    queries = np.concatenate(
        [
            method.projector(method.encoder(part, training=True), training=True)
            for part in np.split(x, 4)
        ]
    )
    np.testing.assert_allclose(method.embed(tf.constant(x)), queries, atol=1e-5)


def test_sync_and_one_replica_shuffled_are_one():
    x = views()[1]
    found = [make("moco_v2", key_batch_norm=name).key_embed(x) for name in ("sync", "shuffle")]
    np.testing.assert_allclose(*found, atol=1e-5)


def test_groups_are_shared_out_to_replicas(monkeypatch):
    monkeypatch.setattr(moco_v2, "replica_count", lambda: 4)
    for settings, own in (
        ({"key_batch_norm": "split", "batch_norm_groups": 8}, 2),
        ({"key_batch_norm": "shuffle"}, 1),
        ({"key_batch_norm": "sync"}, None),
    ):
        assert make("moco_v2", **settings).groups_per_replica == own
    with pytest.raises(ValueError, match="`batch_norm_groups` must be a multiple of the 4 repl"):
        make("moco_v2", key_batch_norm="split", batch_norm_groups=6)
    assert replicas.replica_count() == 1


@pytest.mark.parametrize("count, known", [(10, True), (4, True), (10, False), (4, False)])
def test_a_batch_that_is_not_of_whole_groups_is_named(count, known):
    method = make("moco_v2", key_batch_norm="split", batch_norm_groups=4)
    method.compile(keras.optimizers.SGD(0.1))
    signature = tf.TensorSpec((count if known else None, 8, 8, 3))
    step = tf.function(lambda *views: method.train_step(views), input_signature=[signature] * 2)
    error = ValueError if known else tf.errors.InvalidArgumentError
    with pytest.raises(error, match="must be 4 whole groups of at least 2 images"):
        step(*views(count))


def test_every_setting_survives_saving(tmp_path):
    settings = {
        "temperature": 0.3, "queue_size": 24, "key_momentum": 0.5, "key_batch_norm": "split",
        "batch_norm_groups": 4, "seed": 3, "loss_scale": 0.5,
    }  # fmt: skip
    method = make("moco_v2", **settings)
    method.compile(keras.optimizers.SGD(0.1))
    method.train_on_batch(*views())
    method.save(tmp_path / "method.keras")
    loaded = keras.models.load_model(tmp_path / "method.keras")
    config = loaded.get_config()
    assert {name: config[name] for name in settings} == settings
    assert int(loaded.queue.cursor) == 16
    for a, b in zip(method.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    found = [m.train_on_batch(*views(seed=1), return_dict=True)["loss"] for m in (method, loaded)]
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_start_from_copies_to_the_key_encoder():
    method = make("moco_v2")
    keras.utils.set_random_seed(9)
    other = network(1)
    method.start_from(other)
    for own in (method.encoder, method.key_encoder.mean):
        for v, expected in zip(own.variables, other.variables, strict=True):
            np.testing.assert_array_equal(np.asarray(v), np.asarray(expected))


def test_bad_arguments_are_named():
    projector = build_projector(8, (4,))
    with pytest.raises(ValueError, match="`encoder` of MoCoV2 must be one network"):
        encoder = SlimmableEncoder(network(1.5), network(1))
        MoCoV2(encoder, build_projector(12, (4,)), queue_size=8)
    for settings in (
        {"key_batch_norm": "none"}, {"temperature": 0.0}, {"key_momentum": 1.5}, {"queue_size": 0},
    ):  # fmt: skip
        ((name, value),) = settings.items()
        with pytest.raises(ValueError, match=f"`{name}` must .*Received: {name}={value!r}"):
            MoCoV2(network(1), projector, **{"queue_size": 8, **settings})
