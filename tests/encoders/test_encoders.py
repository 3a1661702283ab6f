"""Every encoder by name: size, initialisation, correspondence of widths, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.neighbors import KNeighborsClassifier

from keras_sacl.encoders import build_encoder
from keras_sacl.evaluation import l2_normalise
from keras_sacl.slimming import check_pair
from tests.encoders.names import ALL, MOST, TRANSFORMERS, slow
from tests.networks import difference, with_statistics

# Parameters without the classifier, in millions. MobileNet-V1: "MobileNets" (2017), 4.2 M with
# it; V2 and V3: keras.applications' tables; EfficientNet (2019): 5.3 and 7.8 M with it; ResNets and
# AlexNet: torchvision's tables; ResNet-20: "Deep Residual Learning" (2015), table 6; transformers:
# timm's table, of both.
PARAMETERS = {
    "mobilenet_v1": 4.25 - 1.025,
    "mobilenet_v2": 3.54 - 1.281,
    "mobilenet_v3_small": 0.94,
    "mobilenet_v3_large": 3.00,
    "efficientnet_b0": 5.33 - 1.281,
    "efficientnet_b1": 7.86 - 1.281,
    "resnet18": 11.69 - 0.513,
    "resnet34": 21.80 - 0.513,
    "resnet50": 25.56 - 2.049,
    "resnet101": 44.55 - 2.049,
    "resnet152": 60.19 - 2.049,
    "resnet20_cifar": 0.27,
    "alexnet": 61.10 - 4.097,
    "deit_tiny": 5.717 - 0.193,
    "vit_tiny": 5.717 - 0.193,
}


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_parameters_are_the_published_ones(name):
    assert build_encoder(name).count_params() / 1e6 == pytest.approx(PARAMETERS[name], rel=0.03)


def test_parameters_to_the_last_one():
    alexnet = build_encoder("alexnet")
    kernels = 64 * 11**2 * 3 + 192 * 25 * 64 + 9 * (384 * 192 + 256 * 384 + 256 * 256)
    kernels += 4096 * 256 * 36 + 4096**2
    outputs = 64 + 192 + 384 + 256 + 256 + 4096 + 4096
    assert kernels + outputs == 61_100_840 - 4096 * 1000 - 1000  # torchvision's, with biases
    assert alexnet.count_params() == kernels + 4 * outputs  # BatchNorm's four in their place
    for name in TRANSFORMERS:
        # DeiT's, less those of the classifier; the class token and its position are one here.
        assert build_encoder(name).count_params() == 5_717_416 - 193_000 - 192


@pytest.mark.parametrize(
    "name, stock",
    [
        ("mobilenet_v1", keras.applications.MobileNet),
        ("mobilenet_v2", keras.applications.MobileNetV2),
        ("mobilenet_v3_small", keras.applications.MobileNetV3Small),
    ],
)
def test_large_images_see_the_librarys_network(name, stock, digits):
    """Other initial values, other padding layers, the same function of the weights."""
    settings = {"include_preprocessing": False} if "v3" in name else {}
    stock = stock(
        input_shape=(64, 64, 3), include_top=False, weights=None, pooling="avg", **settings
    )
    with_statistics(stock)
    encoder = build_encoder(name, image_size=64)
    encoder.set_weights(stock.get_weights())
    images = tf.repeat(tf.repeat(digits[0][:4], 2, axis=1), 2, axis=2)
    expected = np.asarray(stock(images))
    assert difference(np.asarray(encoder(images)), expected) <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize("name", MOST)
def test_small_images_keep_a_map(name):
    smallest = {"alexnet": 3} | dict.fromkeys(TRANSFORMERS, 8)
    reader = {"alexnet": "fc6"} | dict.fromkeys(TRANSFORMERS, "tokens")
    for image_size in (8, 16, 32, 64, 96):
        encoder = build_encoder(name, width=0.25, image_size=image_size)
        _, height, width, _ = encoder.get_layer(reader.get(name, "features")).input.shape
        at_least = smallest.get(name, 4 if name.startswith("resnet") else 2)
        assert at_least <= height == width, image_size
        assert encoder.output_shape[-1] == encoder.get_layer("features").output.shape[-1]


def test_alexnet_is_the_published_one_at_224_pixels():
    encoder = build_encoder("alexnet", width=0.125)
    sizes = [encoder.get_layer(f"pool{i}").output.shape[1:3] for i in (1, 2, 3)]
    assert sizes == [(27, 27), (13, 13), (6, 6)]
    conv1, fc6 = encoder.get_layer("conv1"), encoder.get_layer("fc6")
    assert conv1.kernel_size == (11, 11) and conv1.strides == (4, 4)
    maps = np.random.default_rng(0).normal(size=(2, 6, 6, 32)).astype("float32")
    expected = maps.reshape(2, -1) @ np.asarray(fc6.kernel).reshape(6 * 6 * 32, -1)  # a dense layer
    np.testing.assert_allclose(np.asarray(fc6(maps)).reshape(2, -1), expected, atol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["alexnet", "deit_tiny"])
def test_features_are_float32_whatever_the_policy(name, policy, digits):
    encoder = build_encoder(name, width=0.25, image_size=32)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        mixed = build_encoder(name, width=0.25, image_size=32)
    finally:
        keras.config.set_dtype_policy(before)
    mixed.set_weights(encoder.get_weights())
    features, expected = (np.asarray(model(digits[0][:4])) for model in (mixed, encoder))
    assert features.dtype == np.float32 and mixed.layers[4].compute_dtype == policy[6:]
    assert 0 < difference(features, expected) < 0.05


@pytest.mark.parametrize("name", MOST)
def test_widths_correspond(name):
    models = [build_encoder(name, width=w, image_size=32) for w in (0.25, 0.5, 0.75, 1.5)]
    for slim, host in zip(models, models[1:], strict=False):
        check_pair(host, slim)
        names = [[layer.name for layer in m.layers] for m in (host, slim)]
        assert names[0] == names[1]


@pytest.mark.parametrize("name", MOST)
def test_features_are_healthy_at_initialisation(name, digits):
    images, labels = digits
    keras.utils.set_random_seed(0)
    encoder = build_encoder(name, width=0.5, image_size=32)
    encode = tf.function(encoder)  # which drops maps once they are used
    features = np.asarray(encode(images, training=True))
    assert features.dtype == np.float32
    assert 0.01 <= features.std(axis=0).mean() <= 10
    # In inference mode too, where stock networks give features of 1e-19.
    features = l2_normalise(encode(images, training=False))
    neighbours = KNeighborsClassifier(20).fit(features[:240], labels[:240])
    assert neighbours.score(features[240:], labels[240:]) > 0.15  # chance is 0.1


@pytest.mark.long
@pytest.mark.parametrize("name", ALL)
def test_save_and_load(name, digits, tmp_path):
    encoder = build_encoder(name, width=0.25, image_size=32)
    # So that its file opens where this library is not installed.
    assert all(type(layer).__module__.startswith("keras.") for layer in encoder.operations)
    with_statistics(encoder)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.models.load_model(tmp_path / "encoder.keras", safe_mode=True)
    x = digits[0][:2]
    np.testing.assert_allclose(loaded(x), encoder(x), rtol=1e-6)


# The attention of 12 blocks takes the converters most of a minute.
@pytest.mark.parametrize("name", slow(("alexnet", "deit_tiny"), ("deit_tiny",)))
def test_files_are_of_the_builtins_and_compute_the_same(name, digits, tmp_path):
    from keras_sacl.export import convert_onnx, convert_tflite, tflite_ops
    from keras_sacl.export.runtimes import OnnxRunner, TFLiteRunner

    images = digits[0][:4]
    encoder = with_statistics(build_encoder(name, width=0.25, image_size=32))
    expected = np.asarray(encoder(images))
    for ending, content, runner, limit in (
        ("tflite", convert_tflite(encoder), TFLiteRunner, 1e-5),
        ("int8.tflite", convert_tflite(encoder, "int8", images), TFLiteRunner, 0.3),
        ("onnx", convert_onnx(encoder), OnnxRunner, 1e-5),
    ):
        assert runner is OnnxRunner or not tflite_ops(content)[1]
        path = tmp_path / f"encoder.{ending}"
        path.write_bytes(content)
        assert difference(runner(path)(images), expected) <= limit, ending


def test_seed_decides_the_weights():
    def weights(seed):
        keras.utils.set_random_seed(seed)
        return build_encoder("mobilenet_v2", width=0.25, image_size=32).get_weights()

    first, again, other = weights(3), weights(3), weights(4)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    kernels = [i for i, w in enumerate(first) if w.ndim == 4]
    assert not any(np.array_equal(first[i], other[i]) for i in kernels)


@pytest.mark.parametrize(
    "settings, text",
    [
        ({"name": "mobilenet"}, "`encoder` must be one of .*did you mean mobilenet_v"),
        ({"width": 0}, "`width` must be above 0. Received: width=0"),
        ({"width": -1.0}, "`width` must be above 0. Received: width=-1.0"),
        ({"image_size": 7}, "`image_size` must be .* at least 8. Received: image_size=7"),
        ({"batch_norm_momentum": 1}, "`batch_norm_momentum` must be in"),
        ({"activation": "relu"}, "`activation` must be one of default, relu6. .*='relu'"),
        (
            {"name": "deit_tiny", "activation": "relu6"},
            "`activation` must be default for deit_tiny, .*Received: activation='relu6'",
        ),
    ],
)
def test_bad_arguments_are_named(settings, text):
    with pytest.raises(ValueError, match=text):
        build_encoder(**{"name": "mobilenet_v1", **settings})
