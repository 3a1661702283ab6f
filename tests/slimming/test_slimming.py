"""SlimMask, pairing and the slimmable encoder, on small networks with every kind of layer."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sacl.slimming import SlimmableEncoder, SlimMask, check_pair, insert_masks
from keras_sacl.slimming.pairing import channel_groups, largest_channels


def network(width, kernel=3, act="relu", stem=8):
    """Convolution, residual, depthwise, squeeze-and-excite with biases, pooling."""
    c = int(8 * width)
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(c, 3, padding="same", use_bias=False, name="stem")(inputs)
    x = layers.BatchNormalization(momentum=0.8, name="stem_bn")(x)
    x = skip = layers.Activation(act, name="stem_act")(x)
    x = layers.DepthwiseConv2D(kernel, padding="same", use_bias=False, name="depthwise")(x)
    x = layers.BatchNormalization(momentum=0.8, name="depthwise_bn")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.Conv2D(c // 2, 1, activation="relu", name="reduce")(gate)
    gate = layers.Conv2D(c, 1, activation="sigmoid", name="expand")(gate)
    x = layers.Multiply(name="excite")([x, gate])
    x = layers.Add(name="residual")([x, skip])
    x = layers.Conv2D(2 * c, 1, use_bias=False, strides=2, name="last")(x)
    x = layers.BatchNormalization(momentum=0.8, name="last_bn")(x)
    x = layers.ReLU(name="last_act")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D(name="pool")(x), name="network")


def randomise(model, seed=0):
    rng = np.random.default_rng(seed)
    for v in model.variables:
        if v.name == "gamma" or "variance" in v.name:
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif len(v.shape) == 1:
            v.assign(rng.normal(0, 0.3, v.shape))
        else:
            v.assign(rng.normal(0, np.prod(v.shape[:-1]) ** -0.5, v.shape))
    return model


def images(n=16, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 8, 8, 3)).astype("float32")


def slim_step(encoder, x):
    """Features, gradients of the host's variables, and the slim statistics after one pass."""
    weights = tf.constant(np.random.default_rng(3).normal(size=encoder.output_shape[1:]), "float32")
    with tf.GradientTape() as tape:
        y = encoder(x, slim=True, training=True)
        loss = tf.reduce_sum(tf.square(y) * weights)
    gradients = tape.gradient(loss, encoder.host.trainable_variables)
    statistics = [v for v in encoder.non_trainable_variables if v.name.startswith("slim_")]
    return np.asarray(y), [np.asarray(tf.convert_to_tensor(g)) for g in gradients], statistics


def test_mask_zeroes_only_while_the_flag_is_on():
    mask = SlimMask(2)
    x = np.ones((3, 5, 4), "float32")
    np.testing.assert_array_equal(mask(x), x)
    np.testing.assert_array_equal(mask(x, slim=True)[0, 0], [1, 1, 0, 0])
    copy = SlimMask.from_config(mask.get_config())
    assert copy.keep == 2 and copy.name == mask.name


@pytest.mark.parametrize("keep", [0, -1, 1.5, 5])
def test_mask_refuses_impossible_numbers_of_channels(keep):
    with pytest.raises(ValueError, match=f"`keep` must be .*Received: keep={keep}"):
        SlimMask(keep)(np.ones((2, 4), "float32"))


@pytest.mark.parametrize("selection", ["leading", "magnitude"])
@pytest.mark.parametrize("act", ["relu", "hard_silu"])
def test_mask_equals_slice(selection, act):
    host, slim = randomise(network(1.5, act=act)), network(1, act=act)
    results = []
    for execution in ("mask", "slice"):
        encoder = SlimmableEncoder(host, slim, execution=execution, selection=selection)
        results.append(slim_step(encoder, images()))
    (y, gradients, statistics), (y2, gradients2, statistics2) = results
    np.testing.assert_allclose(y2, y, atol=1e-5 * np.abs(y).max())
    assert (np.abs(y).max(axis=0) > 0).sum() <= 16
    for g, g2 in zip(gradients, gradients2, strict=True):
        np.testing.assert_allclose(g2, g, atol=1e-4 * max(np.abs(g).max(), 1e-3))
    for s, s2 in zip(statistics, statistics2, strict=True):
        np.testing.assert_allclose(s2, s, rtol=1e-5, atol=1e-6)


def test_a_hand_made_slim_network_is_the_slim_view():
    """The oracle is the narrow network itself, holding leading blocks cut by NumPy."""
    host, slim = randomise(network(1.5)), network(1)
    encoder = SlimmableEncoder(host, slim)
    for h, s in zip(host.variables, slim.variables, strict=True):
        if "moving" not in s.name:
            s.assign(np.asarray(h)[tuple(slice(n) for n in s.shape)])
    x = images()
    expected = np.asarray(slim(x, training=True))
    y = np.asarray(encoder(x, slim=True, training=True))
    np.testing.assert_allclose(y[:, :16], expected, rtol=1e-5, atol=1e-6)
    assert not y[:, 16:].any()
    extracted = encoder.extract_slim()
    for a, b in zip(extracted.variables, slim.variables, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("execution", ["mask", "slice"])
def test_statistics_are_apart(execution):
    host = randomise(network(1.5))
    encoder = SlimmableEncoder(host, network(1), execution=execution)
    before = [np.asarray(v) for v in host.non_trainable_variables]
    encoder(images(), slim=True, training=True)
    for v, old in zip(host.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)
    slim_before = [np.asarray(v) for v in encoder.extract_slim().variables]
    encoder(images(seed=1), training=True)
    changed = [
        not np.array_equal(np.asarray(v), old)
        for v, old in zip(host.non_trainable_variables, before, strict=True)
    ]
    assert all(changed)
    for v, old in zip(encoder.extract_slim().variables, slim_before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)


@pytest.mark.parametrize("selection", ["leading", "magnitude"])
def test_a_frozen_layer_is_the_same_in_host_and_slim_network(selection):
    host, slim = randomise(network(1.5)), network(1)
    frozen = ("stem", "stem_bn")
    for model in (host, slim):
        for name in frozen:
            model.get_layer(name).trainable = False
    before = [np.asarray(v) for name in frozen for v in host.get_layer(name).variables]
    results = []
    for execution in ("mask", "slice"):
        encoder = SlimmableEncoder(host, slim, execution=execution, selection=selection)
        y, gradients, statistics = slim_step(encoder, images())
        assert len(statistics) == 4  # of the two BatchNorms that learn
        extracted = encoder.extract_slim()
        results.append([y, *gradients, *map(np.asarray, statistics), extracted(images())])
    for masked, sliced in zip(*results, strict=True):
        np.testing.assert_allclose(sliced, masked, rtol=1e-4, atol=1e-4 * np.abs(masked).max())
    after = [v for name in frozen for v in host.get_layer(name).variables]
    for v, old in zip(after, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)


@pytest.mark.parametrize("execution", ["mask", "slice"])
@pytest.mark.parametrize("selection", ["leading", "magnitude"])
def test_save_and_load(tmp_path, execution, selection):
    encoder = SlimmableEncoder(
        randomise(network(1.5)), network(1), execution=execution, selection=selection
    )
    encoder(images(), slim=True, training=True)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras")
    assert (loaded.execution, loaded.selection) == (execution, selection)
    for slim in (False, True):
        np.testing.assert_allclose(
            loaded(images(seed=1), slim=slim), encoder(images(seed=1), slim=slim), rtol=1e-6
        )
    np.testing.assert_allclose(
        loaded.extract_slim()(images()), encoder.extract_slim()(images()), rtol=1e-6
    )


def test_extracted_network_is_deployable(tmp_path):
    encoder = SlimmableEncoder(randomise(network(1.5)), network(1))
    extracted = encoder.extract_slim()
    assert extracted.count_params() == network(1).count_params()
    x = images()
    np.testing.assert_allclose(
        extracted(x), np.asarray(encoder(x, slim=True))[:, :16], rtol=1e-5, atol=1e-6
    )
    extracted.save(tmp_path / "slim.keras")
    loaded = keras.models.load_model(tmp_path / "slim.keras", safe_mode=True)
    np.testing.assert_allclose(loaded(x), extracted(x), rtol=1e-6)


def test_magnitude_keeps_the_largest_filters_of_coupled_layers():
    host, slim = randomise(network(1.5)), network(1)
    kernel = np.asarray(host.get_layer("stem").kernel).copy()
    kernel[..., [0, 3, 5, 7]] *= 1e-3
    host.get_layer("stem").kernel.assign(kernel)
    _, pairs = check_pair(host, slim)
    groups = channel_groups(host, pairs)
    # The residual ties stem and squeeze-and-excite output together: one group of 12 keeps 8.
    assert groups.outputs["stem_bn"] == groups.outputs["residual"] == groups.outputs["expand"]
    assert groups.outputs["last"] != groups.outputs["stem"] != groups.outputs["reduce"]
    expand = np.abs(np.asarray(host.get_layer("expand").kernel)).sum((0, 1, 2))
    stem = np.abs(kernel).sum((0, 1, 2))
    score = expand / expand.mean() + stem / stem.mean()
    expected = np.zeros(12)
    expected[np.argsort(-score)[:8]] = 1
    masks = largest_channels(pairs, groups)
    np.testing.assert_array_equal(masks[groups.outputs["stem"]], expected)


def test_mask_needs_no_second_network():
    host = randomise(network(1.5))
    masked = insert_masks(host, keep=lambda layer: layer.output.shape[-1] * 2 // 3)
    x = images()
    np.testing.assert_array_equal(masked(x), host(x))
    y = np.asarray(masked(x, slim=True))
    assert np.abs(y[:, :16]).max() > 0 and not y[:, 16:].any()


def test_a_pair_that_does_not_correspond_names_the_first_layer_that_differs():
    with pytest.raises(ValueError, match=r"'depthwise' .*kernel_size is \(3, 3\) against \(5, 5\)"):
        SlimmableEncoder(network(1.5), network(1, kernel=5))
    with pytest.raises(ValueError, match="'stem'.*kernel has shape"):
        SlimmableEncoder(network(1), network(1.5))
    with pytest.raises(ValueError, match="'stem_act'.*activation"):
        SlimmableEncoder(network(1.5), network(1, act="silu"))
    x = keras.Input((8, 8, 3))
    deeper = keras.Model(x, layers.Dense(4, name="extra")(network(1)(x)))
    with pytest.raises(ValueError, match="first layer that differs is 'extra'"):
        SlimmableEncoder(deeper, keras.Model(x, network(1)(x)))


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`execution` must be one of.*Received: execution='x'"):
        SlimmableEncoder(network(1.5), network(1), execution="x")
    with pytest.raises(ValueError, match="`selection` must be one of.*Received: selection='x'"):
        SlimmableEncoder(network(1.5), network(1), selection="x")
    with pytest.raises(ValueError, match="`trains` must be one of.*Received: trains='slimm'"):
        SlimmableEncoder(network(1.5), network(1)).trains = "slimm"
    x = keras.Input((8, 8, 4))
    normalised = keras.Model(x, layers.LayerNormalization(name="norm")(x))
    with pytest.raises(ValueError, match="LayerNormalization 'norm'"):
        insert_masks(normalised, keep=lambda layer: 2)
    tokens = keras.Input((4, 6))
    attending = keras.Model(tokens, layers.MultiHeadAttention(2, 3, name="heads")(tokens, tokens))
    with pytest.raises(ValueError, match="use execution=\"slice\" .*MultiHeadAttention 'heads'"):
        insert_masks(attending, keep=lambda layer: 2)
