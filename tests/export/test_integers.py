"""int8: the layers that lose, and remedies that leave the float network as it is."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD
from keras_sacl.encoders import build_encoder
from keras_sacl.export import TFLiteRunner, convert_tflite, export_encoder
from keras_sacl.export.integers import (
    equalise,
    layer_errors,
    worst_layers,
)
from tests.networks import truncated


@pytest.fixture(scope="module")
def pixels(digit_images):
    images, labels = digit_images
    return (255 * images[:400]).round().astype("uint8"), labels[:400]


@pytest.fixture(scope="module")
def inputs(pixels):
    return ((pixels[0] / 255 - IMAGENET_MEAN) / IMAGENET_STD).astype("float32")


@pytest.fixture(scope="module")
def unbalanced(inputs):
    """A third of MobileNet-V1, its channels of ranges from 1 to 1/300, as training can leave."""
    keras.utils.set_random_seed(0)
    whole = build_encoder("mobilenet_v1", width=0.25, image_size=32, batch_norm_momentum=0.0)
    model = truncated(whole, "conv_pw_4_relu")
    model(inputs, training=True)  # the moving statistics are those of these images
    rng = np.random.default_rng(0)
    for norm, after in zip(model.layers, model.layers[2:], strict=False):
        if isinstance(norm, layers.BatchNormalization) and hasattr(after, "kernel"):
            scale = np.exp(rng.uniform(np.log(1 / 300), 0, norm.gamma.shape))
            for variable in (norm.gamma, norm.beta):
                variable.assign(variable.numpy() * scale)
            # The next kernel makes up for it, so that small channels count as much.
            after.kernel.assign(after.kernel.numpy() / scale[:, None])
    return model


def outputs_of(tmp_path, inputs, calibration):
    def run(model):
        path = tmp_path / "trial.tflite"
        path.write_bytes(convert_tflite(model, "int8", calibration))
        return TFLiteRunner(path)(inputs)

    return run


def test_equalisation_leaves_the_float_network_as_it_is(unbalanced, inputs):
    expected = unbalanced.predict(inputs[:200], verbose=0)
    found = equalise(unbalanced, inputs[:200]).predict(inputs[:200], verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("bound", [None, 6.0])
def test_channels_in_front_of_a_depthwise_kernel_reach_equally_far(bound):
    rng = np.random.default_rng(0)
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 1, use_bias=False)(images)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(max_value=bound, name="relu")(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    model = keras.Model(images, layers.GlobalAveragePooling2D()(x))
    gamma = np.array([1e-2, 0.1, 0.3, 1, 2, 100]) if bound else np.array([1e-2, 0.1, 0.3, 1, 2, 5])
    model.get_layer("norm").gamma.assign(gamma)
    x = rng.normal(size=(64, 8, 8, 3)).astype("float32")
    equal = equalise(model, x)
    relu = keras.Model(equal.inputs[0], equal.get_layer("relu").output)
    reach = relu.predict(x, verbose=0).max(axis=(0, 1, 2))
    # With a bound, the channel that is clipped stays, and the others grow up to it.
    np.testing.assert_allclose(reach, bound or reach.max(), rtol=1e-5)
    np.testing.assert_allclose(
        equal.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-4, atol=1e-5
    )


def test_what_others_read_too_or_bends_is_left_alone():
    images = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 1)(images))
    x = layers.Activation("silu")(x)  # not homogeneous
    x = y = layers.BatchNormalization()(layers.Conv2D(4, 1)(x))  # read twice
    x = layers.Add()([layers.Conv2D(4, 1)(x), y])
    model = keras.Model(images, layers.GlobalAveragePooling2D()(x))
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    x = rng.normal(size=(8, 8, 8, 3)).astype("float32")
    for a, b in zip(equalise(model, x).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def with_odd_places(kind):
    """A network in which equalisation has a place by the look of it, and none in fact."""
    images = keras.Input((8, 8, 3))
    axis = 1 if kind == "another axis" else -1
    norm, relu = layers.BatchNormalization(axis=axis), layers.ReLU()
    reader = layers.Conv2D(3, 1)
    x = first = norm(layers.Conv2D(3, 1)(images))
    outputs = []
    if kind == "another kernel":

        class Shifted(layers.Conv2D):
            def call(self, x):
                return super().call(x + 1)

        reader = Shifted(3, 1)
    if kind == "a layer called twice":
        outputs.append(layers.GlobalAveragePooling2D()(reader(images)))
    if kind == "an activation called twice":
        outputs.append(layers.GlobalAveragePooling2D()(relu(images)))
    if kind == "an output":
        outputs.append(first)
    outputs.append(layers.GlobalAveragePooling2D()(reader(relu(x))))
    return keras.Model(images, outputs)


@pytest.mark.parametrize(
    "kind",
    ["a layer called twice", "an activation called twice", "an output", "another axis",
     "another kernel"],
)  # fmt: skip
def test_odd_places_are_left_alone(kind):
    model = with_odd_places(kind)
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, w.shape) for w in model.get_weights()])
    x = rng.normal(size=(8, 8, 8, 3)).astype("float32")
    expected, found = (m.predict(x, verbose=0) for m in (model, equalise(model, x)))
    if not isinstance(expected, list):
        expected, found = [expected], [found]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_operations_and_inner_models_are_named_and_the_dead_left_out(inputs):
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, name="inside")(images)
    inner = keras.Model(images, x * keras.ops.sigmoid(x), name="inner")
    images = keras.Input((32, 32, 3))
    dead = layers.Conv2D(4, 3, kernel_initializer="zeros", name="dead")(images)
    x = layers.Concatenate(name="both")([inner(images), dead])
    model = keras.Model(images, layers.GlobalAveragePooling2D(name="pool")(x))
    found = {error.layer for error in layer_errors(model, inputs[:10])}
    assert {"inside", "both", "pool"} <= found and not found & {"inner", "dead"}
    assert all(np.isfinite(error.snr_db) for error in layer_errors(model, inputs[:10]))


def exported(model, pixels, folder, calibration):
    """(row of the int8 file, what was said) of an export with so many calibration images."""
    images, labels = pixels
    said = []
    rows = export_encoder(
        model, folder, formats=("tflite_int8",), mean=IMAGENET_MEAN, std=IMAGENET_STD,
        calibration=images[:calibration], bank=(images[:200], labels[:200]),
        queries=(images[200:], labels[200:]), say=said.append,
    )  # fmt: skip
    return rows["encoder_int8.tflite"], said


def test_a_remedy_that_fails_leaves_the_file(unbalanced, pixels, tmp_path, monkeypatch):
    def fail(*arguments):
        raise RuntimeError("no runtime")

    monkeypatch.setattr("keras_sacl.export.job.layer_errors", fail)
    row, said = exported(unbalanced, pixels, tmp_path, calibration=50)
    assert row["cosine"] < 1 and "RuntimeError" not in (row["reason"] or "")
    assert said[-1] == "encoder_int8.tflite: no remedy (no runtime)"
    assert (tmp_path / "encoder_int8.tflite").is_file()


def test_equalisation_brings_back_what_8_bits_lose(unbalanced, inputs, tmp_path):
    run = outputs_of(tmp_path, inputs[:100], inputs[:100])
    expected = unbalanced.predict(inputs[:100], verbose=0)
    plain, better = (
        np.sqrt(np.mean((run(model) - expected) ** 2)) / expected.std()
        for model in (unbalanced, equalise(unbalanced, inputs[:100]))
    )
    assert better < plain / 4


def test_the_layer_that_loses_is_named(inputs):
    """Of 100, 1 and 0 the second has a step of 200 / 255 where it needs one of 2 / 255."""
    images = keras.Input((32, 32, 3))
    x = layers.Conv2D(3, 1, use_bias=False, name="first")(images)
    x = layers.BatchNormalization(name="first_norm", epsilon=0)(x)
    x = layers.ReLU(name="first_relu")(x)
    x = layers.DepthwiseConv2D(1, use_bias=False, name="second")(x)
    model = keras.Model(images, layers.GlobalAveragePooling2D(name="features")(x))
    model.get_layer("first").kernel.assign(np.eye(3)[None, None])
    model.get_layer("first_norm").gamma.assign([100, 1, 0])
    model.get_layer("second").kernel.assign(np.array([1, 100, 1]).reshape(1, 1, 3, 1))
    x = inputs[:50]
    errors = layer_errors(model, x)
    assert [error.layer for error in errors] == ["first_relu", "second", "features"]
    first, second, _ = errors
    # A rounding to steps of s has an error of variance s^2 / 12, if the step is small.
    values = np.maximum(x.astype("float64") * [100, 1, 0], 0)
    step = values.max() / 255
    rounded = np.round(values / step) * step
    shares = ((rounded - values) ** 2).mean(axis=(0, 1, 2)) / values.var(axis=(0, 1, 2)).clip(1e-9)
    assert shares[1] > 0.01 and shares[0] < 1e-5
    assert first.snr_db == pytest.approx(-10 * np.log10(shares[:2].mean()), abs=1)
    assert second.snr_db > first.snr_db + 5
    assert worst_layers(errors, 1) == {"first_relu": round(first.snr_db, 1)}
    assert layer_errors(equalise(model, x), x)[0].snr_db > first.snr_db + 20


@pytest.mark.long
def test_the_export_mends_an_int8_file_that_loses(unbalanced, pixels, tmp_path):
    row, said = exported(unbalanced, pixels, tmp_path, calibration=100)
    noise = row["int8_noise"]
    assert row["remedy"] == "equalisation" and noise["equalised"] < noise["plain"] / 3
    assert len(row["worst_layers_db"]) == 5
    assert any("loses accuracy, most in " in line for line in said)
    assert [path.name for path in tmp_path.iterdir()] == ["encoder_int8.tflite"]
