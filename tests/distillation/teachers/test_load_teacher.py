"""Teachers by name: .keras files, runs, keras.applications; precision; errors of one line."""

import sys

import keras
import numpy as np
import pytest

from keras_sacl.data.normalisation import normalise
from keras_sacl.distillation.teachers import content_hash, load_teacher
from keras_sacl.encoders import build_encoder
from keras_sacl.heads import build_projector
from tests.distillation.teachers.torch_files import resnet_state, write_checkpoint
from tests.networks import small_encoder, with_statistics


def images(side=32, count=3):
    return np.random.default_rng(0).normal(size=(count, side, side, 3)).astype("float32")


def features(model, x):
    return np.asarray(model(x, training=False))


def saved(model, path):
    with_statistics(model)
    model.save(path)
    return model


@pytest.fixture
def encoder_file(tmp_path):
    path = tmp_path / "mine.keras"
    return saved(small_encoder("small", width=1.0, image_size=32), path), path


def test_an_encoder(encoder_file):
    encoder, path = encoder_file
    teacher = load_teacher(path)
    assert (teacher.image_size, teacher.features, teacher.embeddings) == (32, 32, 32)
    assert teacher.name == str(path) and teacher.projector is None
    assert not teacher.encoder.trainable and not teacher.encoder.trainable_variables
    np.testing.assert_allclose(features(teacher.encoder, images()), features(encoder, images()))


@pytest.mark.parametrize("structure", ["map", "list", "dict", "sequential"])
def test_the_last_map_is_averaged(structure, tmp_path):
    inputs = keras.Input((16, 16, 3))
    first = keras.layers.Conv2D(4, 3, strides=2, activation="relu")(inputs)
    last = keras.layers.Conv2D(6, 3, strides=2)(first)
    outputs = {"map": last, "list": [first, last], "dict": {"P2": last, "P1": first}}
    if structure == "sequential":
        model = keras.Sequential([inputs, keras.layers.Conv2D(6, 3)])
        last = model.outputs[0]
    else:
        model = keras.Model(inputs, outputs[structure])
    saved(model, tmp_path / "backbone.keras")
    teacher = load_teacher(tmp_path / "backbone.keras")
    expected = features(keras.Model(model.inputs[0], last), images(16)).mean(axis=(1, 2))
    assert teacher.features == 6
    np.testing.assert_allclose(
        features(teacher.encoder, images(16)), expected, rtol=1e-5, atol=1e-6
    )


def test_a_backbone_of_keras_cv(tmp_path):
    import keras_cv

    backbone = keras_cv.models.MobileNetV3Backbone(
        stackwise_expansion=[1, 4],
        stackwise_filters=[8, 16],
        stackwise_kernel_size=[3, 3],
        stackwise_stride=[2, 2],
        stackwise_se_ratio=[0.25, None],
        stackwise_activation=["relu", "hard_swish"],
        include_rescaling=False,
        input_shape=(32, 32, 3),
    )
    saved(backbone, tmp_path / "backbone.keras")
    expected = features(backbone, images()).mean(axis=(1, 2))
    teacher = load_teacher(tmp_path / "backbone.keras")
    np.testing.assert_allclose(features(teacher.encoder, images()), expected, rtol=1e-5, atol=1e-6)


def test_a_run_directory(tmp_path):
    encoder = saved(small_encoder("small", width=1.0, image_size=32), tmp_path / "encoder.keras")
    assert load_teacher(tmp_path).projector is None
    projector = saved(build_projector(32, (16, 24)), tmp_path / "projector.keras")
    teacher = load_teacher(str(tmp_path))
    assert (teacher.image_size, teacher.features, teacher.embeddings) == (32, 32, 24)
    assert not teacher.projector.trainable
    found = features(teacher.projector, features(teacher.encoder, images()))
    np.testing.assert_allclose(
        found, features(projector, features(encoder, images())), rtol=1e-5, atol=1e-6
    )


# One of each kind of preprocessing: to [-1, 1]; BGR less the mean; ImageNet's; none.
@pytest.mark.parametrize("name", ["MobileNet", "VGG16", "DenseNet121", "MobileNetV3Small"])
def test_applications_see_their_own_pixels(name, monkeypatch):
    build = getattr(keras.applications, name)
    module = sys.modules[build.__module__]
    if name in ("VGG16", "DenseNet121"):  # their first layers; all of them take long to build
        small = keras.applications.MobileNet

        def build(**settings):
            return small(alpha=0.25, **settings)

        build.__module__ = module.__name__
        monkeypatch.setattr(keras.applications, name, build)
    keras.utils.set_random_seed(3)
    teacher = load_teacher(f"applications:{name}")
    network = build(include_top=False, weights=None, pooling="avg")
    with_statistics(teacher.encoder)
    network.set_weights(teacher.encoder.get_weights())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 40, 3)).astype("float32")
    expected = features(network, module.preprocess_input(pixels.copy()))
    found = features(teacher.encoder, normalise(pixels / 255).astype("float32"))
    assert teacher.image_size is None and np.abs(expected).max() > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def test_an_application_with_a_file_and_as_a_file(tmp_path):
    network = keras.applications.MobileNet(include_top=False, weights=None, pooling="avg")
    with_statistics(network)
    network.save_weights(tmp_path / "mobilenet.weights.h5")
    teacher = load_teacher(f"applications:MobileNet:{tmp_path / 'mobilenet.weights.h5'}")
    for found, expected in zip(teacher.encoder.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    teacher.encoder.save(tmp_path / "teacher.keras")
    again = load_teacher(tmp_path / "teacher.keras")
    assert again.image_size is None
    np.testing.assert_array_equal(
        features(again.encoder, images()), features(teacher.encoder, images())
    )


@pytest.mark.parametrize(
    "kind, precision",
    [
        ("torch", "float16"),
        ("torch", "bfloat16"),
        ("library", "float16"),
        ("nested", "float16"),
        ("vector", "bfloat16"),
    ],
)
def test_precision(kind, precision, tmp_path):
    path = tmp_path / "teacher.keras"
    if kind == "torch":
        path = write_checkpoint(tmp_path / "resnet.pth", resnet_state((2, 2, 2, 2)))
    elif kind == "library":
        saved(build_encoder("mobilenet_v3_small", width=0.25, image_size=32), path)
    elif kind == "nested":
        inner = small_encoder("small", width=1.0, image_size=32)
        saved(keras.Sequential([keras.Input((32, 32, 3)), inner, keras.layers.Dense(8)]), path)
    else:
        inputs = keras.Input((32, 32, 3))
        x = keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0])(inputs)
        x = keras.layers.Conv2D(8, 3, strides=4)(x)
        saved(keras.Model(inputs, keras.layers.Flatten()(keras.ops.relu(x))), path)
    full, fast = load_teacher(path), load_teacher(path, precision)
    for a, b in zip(full.encoder.get_weights(), fast.encoder.get_weights(), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    dtypes = {layer.compute_dtype for layer in fast.encoder._flatten_layers()}
    assert precision in dtypes
    assert not fast.encoder.trainable_variables
    expected, found = features(full.encoder, images()), features(fast.encoder, images())
    assert found.dtype == np.float32
    error = np.abs(found - expected).max() / np.abs(expected).max()
    assert 0 < error < (0.01 if precision == "float16" else 0.08)
    assert keras.config.dtype_policy().name == "float32"


def test_an_encoder_trained_in_mixed_precision(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder = saved(
            build_encoder("resnet20_cifar", width=0.5, image_size=16), tmp_path / "e.keras"
        )
        teacher = load_teacher(tmp_path / "e.keras")
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    assert {layer.compute_dtype for layer in teacher.encoder.layers} == {"float32"}
    exact = build_encoder("resnet20_cifar", width=0.5, image_size=16)
    exact.set_weights(encoder.get_weights())
    np.testing.assert_allclose(
        features(teacher.encoder, images(16)), features(exact, images(16)), rtol=1e-5, atol=1e-6
    )


def test_content_hash(encoder_file, tmp_path):
    _, path = encoder_file
    first = content_hash(load_teacher(path))
    assert len(first) == 64 and content_hash(load_teacher(path)) == first
    assert content_hash(load_teacher(path, "float16")) != first
    changed = load_teacher(path)
    (norm,) = [x for x in changed.encoder.layers if isinstance(x, keras.layers.BatchNormalization)]
    norm.moving_mean.assign(norm.moving_mean + 1e-6)
    assert content_hash(changed) != first
    with_projector = load_teacher(path)
    with_projector.projector = build_projector(32, (16, 24))
    assert content_hash(with_projector) != first


def classifier_of_numbers(path):
    inputs = keras.Input((10,))
    keras.Model(inputs, keras.layers.Dense(3)(inputs)).save(path)


def grayscale(path):
    inputs = keras.Input((32, 32, 1))
    keras.Model(inputs, keras.layers.Flatten()(inputs)).save(path)


def sequences(path):
    inputs = keras.Input((32, 32, 3))
    keras.Model(inputs, keras.layers.Reshape((1024, 3))(inputs)).save(path)


def foreign_projector(path):
    small_encoder("small", width=1.0, image_size=32).save(path.parent / "encoder.keras")
    build_projector(33, (16, 24)).save(path.parent / "projector.keras")


def code(path):
    inputs = keras.Input((32, 32, 3))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x[:, 0, 0])(inputs)).save(path)


@pytest.mark.parametrize(
    "name, write, text",
    [
        ("none.keras", None, "which does not exist"),
        ("none.pth.tar", None, "which does not exist"),
        ("", None, "which is a directory without encoder.keras"),
        ("weights.npz", lambda path: path.write_bytes(b"x"), "which has another ending"),
        ("broken.keras", lambda path: path.write_bytes(b"x"), "which cannot be loaded"),
        ("broken.pth", lambda path: path.write_bytes(b"x"), "which cannot be read as a PyTorch"),
        ("numbers.keras", classifier_of_numbers, r"takes \(None, 10\) and not square images"),
        ("gray.keras", grayscale, r"takes \(None, 32, 32, 1\) and not square images"),
        ("sequences.keras", sequences, r"gives \(None, 1024, 3\) and neither features"),
        ("code.keras", code, "which cannot be loaded"),
        ("", foreign_projector, r"projector.keras from \(None, 33\) to .* gives \(None, 32\)"),
    ],
)
def test_what_is_no_teacher(name, write, text, tmp_path):
    path = tmp_path / name if name else tmp_path
    if write:
        write(path if name else path / "any")
    with pytest.raises(ValueError, match=text) as caught:
        load_teacher(path)
    message = str(caught.value)
    assert message.startswith("`teacher` must be a .keras file, a run directory, ")
    assert f"Received: teacher={path}, which" in message and "\n" not in message


@pytest.mark.parametrize(
    "name, text",
    [
        ("applications:ResNet5", "no network of keras.applications; did you mean applications:Res"),
        ("applications:", "no network of keras.applications"),
        ("applications:MobileNet:none.h5", "cannot be built with the weights none.h5"),
        ("ResNet50", "does not exist; did you mean applications:ResNet50"),
        ("http://somewhere/resnet.pth", "does not exist"),
    ],
)
def test_names_that_are_none(name, text):
    with pytest.raises(ValueError, match=text) as caught:
        load_teacher(name)
    assert "\n" not in str(caught.value) and f"Received: teacher={name}, which" in str(caught.value)


def test_unknown_precision(encoder_file):
    with pytest.raises(ValueError, match="`precision` must be one of float32, .*='int8'"):
        load_teacher(encoder_file[1], "int8")
