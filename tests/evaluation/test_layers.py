"""Stages against the graphs they are of, grids against Keras' pooling, the probe on digits."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_sacl.encoders import build_encoder
from keras_sacl.evaluation import SGDSettings, extract_features, linear_sgd_probe
from keras_sacl.evaluation.layers import layer_features, layer_probe
from keras_sacl.fingerprint import fingerprint
from keras_sacl.stage_maps import stage_maps


@pytest.fixture(scope="module")
def encoder():
    keras.utils.set_random_seed(0)
    return build_encoder("mobilenet_v1", width=0.25, image_size=32)


@pytest.fixture(scope="module")
def sets(digit_images):
    images, labels = digit_images
    cuts = [slice(start, start + 100) for start in range(0, 400, 100)]
    parts = [(images[cut], labels[cut]) for cut in cuts]
    return parts[:3], parts[3:]


def shapes(encoder):
    return {name: tuple(x.shape[1:]) for name, x in stage_maps(encoder).items()}


def test_stages_of_a_resnet_are_its_stages():
    assert shapes(build_encoder("resnet20_cifar", image_size=32)) == {
        "stage1_block3_out": (32, 32, 16),
        "stage2_block3_out": (16, 16, 32),
        "stage3_block3_out": (8, 8, 64),
    }
    # The first convolution of a bottleneck still has the size of the stage before, but a shortcut
    # leads around it.
    assert list(shapes(build_encoder("resnet50", width=0.125, image_size=64))) == [
        "stem_relu", "stage1_block3_out", "stage2_block4_out", "stage3_block6_out",
        "stage4_block3_out",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["mobilenet_v1", "mobilenet_v3_small", "efficientnet_b0"])
def test_stages_of_other_encoders(name):
    model = build_encoder(name, width=0.25, image_size=32)
    readers = [len(layer._outbound_nodes) for layer in model.layers]
    found = shapes(model)
    assert [size[:2] for size in found.values()] == [(n, n) for n in (32, 16, 8, 4, 2)]
    assert list(found)[-1] == model.layers[-2].name  # what the features are pooled from
    assert [len(layer._outbound_nodes) for layer in model.layers] == readers


def test_only_maps_that_all_paths_run_through():
    x = inputs = keras.Input((8, 8, 3))
    x = a = layers.Conv2D(4, 3, padding="same", name="a")(x)
    gate = layers.Conv2D(4, 1, name="gate")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Multiply(name="scaled")([layers.Conv2D(4, 3, padding="same")(x), gate])
    x = layers.Add(name="sum")([a, x])
    shared = layers.Conv2D(4, 1, name="shared")
    x = shared(layers.Conv2D(4, 3, strides=2, name="half")(x))
    layers.Conv2D(2, 3, name="aside")(x)
    x = layers.ReLU(name="relu")(shared(x))
    model = keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))
    assert shapes(model) == {"sum": (8, 8, 4), "relu": (3, 3, 4)}


def test_what_has_no_stages_is_refused():
    x = keras.Input((8, 8, 3))
    flat = keras.Model(x, layers.Dense(2)(layers.Flatten()(x)))
    unknown = keras.Input((None, None, 3))
    y = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(unknown))
    for model in (flat, keras.Model(unknown, y)):
        with pytest.raises(ValueError, match=r"`encoder` must have maps \(B, H, W, C\)"):
            stage_maps(model)
    for model in (keras.Model([x, keras.Input((2,))], x), lambda images: images):
        with pytest.raises(ValueError, match="`encoder` must be a functional keras.Model of one"):
            stage_maps(model)


@pytest.mark.parametrize(
    "size, channels, grid",
    # The last two of ResNet-50 by "Scaling and Benchmarking ..." (2019), and small ones.
    [((14, 14), 1024, (3, 3)), ((7, 7), 2048, (2, 2)), ((8, 8), 16, (8, 8)),
     ((9, 5), 1000, (3, 3)), ((2, 9), 700, (2, 6)), ((3, 3), 10_000, (1, 1))],
)  # fmt: skip
def test_grids_equal_adaptive_pooling(size, channels, grid):
    inputs = keras.Input((*size, channels))
    encoder = keras.Model(inputs, layers.GlobalMaxPooling2D()(layers.ReLU(name="map")(inputs)))
    images = np.random.default_rng(0).normal(size=(3, *size, channels)).astype("float32")
    labels = np.arange(3)
    found, same = layer_features(encoder, [(images, labels)], stage_maps(encoder)["map"])
    pooled = layers.AdaptiveAveragePooling2D(grid)(np.maximum(images, 0))
    np.testing.assert_allclose(found, np.reshape(pooled, [3, -1]), atol=1e-5)
    np.testing.assert_array_equal(same, labels)


def test_a_grid_of_one_cell_at_the_last_stage_gives_the_features(encoder, sets):
    train = sets[0]
    last = list(stage_maps(encoder).values())[-1]
    found, labels = layer_features(encoder, train, last, max_dim=last.shape[-1])
    features, same = extract_features(encoder, train)
    np.testing.assert_allclose(found, features, rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(labels, same)


def test_of_more_images_a_fair_sample_is_drawn():
    inputs = keras.Input((2, 2, 1))
    encoder = keras.Model(inputs, layers.GlobalAveragePooling2D()(layers.ReLU(name="map")(inputs)))
    images = np.ones((200, 2, 2, 1), "float32") * np.arange(200)[:, None, None, None]
    batches = [(images[i : i + 30], np.arange(200)[i : i + 30]) for i in range(0, 200, 30)]
    stage = stage_maps(encoder)["map"]
    drawn = np.zeros(200)
    for seed in range(300):
        found, labels = layer_features(encoder, batches, stage, max_images=40, seed=seed)
        assert found.shape == (40, 4) and len(set(labels)) == 40
        np.testing.assert_array_equal(found, np.repeat(labels[:, None], 4, axis=1))
        drawn[labels] += 1
    # Each image 300 x 40 / 200 = 60 times, with a standard deviation of 7.
    assert np.abs(drawn - 60).max() < 5 * np.sqrt(300 * 0.2 * 0.8)
    assert np.abs(drawn.reshape(4, 50).mean(axis=1) - 60).max() < 3


def test_the_probe_is_that_of_each_stage(encoder, sets):
    settings = SGDSettings((1e-3, 1e-2), (1e-4,), epochs=5, batch_size=64, milestones=(3,))
    before = fingerprint(encoder)
    found = layer_probe(encoder, *sets, settings, max_dim=500, seed=2)
    assert fingerprint(encoder) == before
    stages = stage_maps(encoder)
    assert [row["layer"] for row in found] == list(stages)
    for row, stage in zip(found, stages.values(), strict=True):
        assert row["size"] == stage.shape[1:3] and row["feature_dim"] <= 500
        assert (row["num_train"], row["num_test"]) == (300, 100)
    train, test = (layer_features(encoder, s, stages["conv_pw_3_relu"], max_dim=500) for s in sets)
    probe = linear_sgd_probe(*train, *test, settings, seed=2)
    assert found[1]["top1"] == probe["top1"]
    assert found[1]["held_out_top1"] == max(row["top1"] for row in probe["held_out"])
    assert found[1]["learning_rate"] == probe["learning_rate"]
    assert found[0]["top1"] > 0.7  # hardly more than pixels, which are enough for digits


def test_bad_features(encoder, sets):
    stage = next(iter(stage_maps(encoder).values()))
    with pytest.raises(ValueError, match="at least one batch"):
        layer_features(encoder, [], stage)
    with pytest.raises(ValueError, match="not finite"):
        layer_features(encoder, [(sets[0][0][0] * np.nan, sets[0][0][1])], stage)
    hot = [(images, np.eye(10, dtype=int)[labels]) for images, labels in sets[0]]
    with pytest.raises(ValueError, match="`labels` must be one class for each image"):
        layer_probe(encoder, hot, hot)
