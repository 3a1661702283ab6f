"""A file that learns on the phone: against the same descent in NumPy and in Keras."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD, load_source, raw_batches
from keras_sacl.encoders import build_encoder
from keras_sacl.export import convert_tflite, personal, tflite_ops
from keras_sacl.export.personal import PersonalRunner, export_personal, unit_features
from keras_sacl.export.personal.__main__ import main

NORMALISATION = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}
CLASSES, SIDE = 10, 32


@pytest.fixture(scope="module")
def encoder():
    """MobileNet-V1 with moving statistics that are not those of an identity."""
    keras.utils.set_random_seed(0)
    model = build_encoder("mobilenet_v1", width=0.25, image_size=SIDE)
    rng = np.random.default_rng(0)
    for v in model.variables:
        if v.name in ("gamma", "moving_variance"):
            v.assign(rng.uniform(0.5, 1.5, v.shape))
        elif v.name in ("beta", "moving_mean"):
            v.assign(rng.normal(0, 0.1, v.shape))
    return model


@pytest.fixture(scope="module")
def path(encoder, tmp_path_factory):
    path = tmp_path_factory.mktemp("personal") / "pixels.tflite"
    export_personal(encoder, path, classes=CLASSES, **NORMALISATION)
    return path


@pytest.fixture(scope="module")
def floats_path(encoder, tmp_path_factory):
    """Of normalised floats, and of two classes."""
    path = tmp_path_factory.mktemp("personal") / "floats.tflite"
    export_personal(encoder, path, classes=2, **NORMALISATION, preprocessing=False)
    return path


@pytest.fixture(scope="module")
def small_encoder():
    """Random filters: they know colours, and so groceries, and are converted in a second."""
    keras.utils.set_random_seed(0)
    images = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(32, 5, strides=4, activation="relu")(images)
    return keras.Model(images, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture
def runner(path):
    return PersonalRunner(path)


@pytest.fixture(scope="module")
def pixels(digit_images):
    images, labels = digit_images
    return (255 * images[:300]).round().astype("uint8"), labels[:300]


def normalised(images):
    return ((images / 255.0 - IMAGENET_MEAN) / IMAGENET_STD).astype("float32")


def in_keras(encoder, images):
    """What the head sees, in float64 from the features of Keras."""
    x = np.asarray(encoder(normalised(images), training=False), "float64")
    x -= x.mean(axis=1, keepdims=True)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def softmax(logits):
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


class Descent:
    """The rule of `export_personal` in float64."""

    def __init__(self, num_features, classes):
        self.w, self.b = np.zeros((num_features, classes)), np.zeros(classes)

    def step(self, x, labels, rate):
        p = softmax(x @ self.w + self.b)
        y = np.eye(len(self.b))[labels]
        loss = -np.log(p[np.arange(len(x)), labels]).mean()
        self.w -= rate * x.T @ (p - y) / len(x)
        self.b -= rate * (p - y).mean(axis=0)
        return loss


def test_the_signatures_are_those_of_the_docstring(path, runner):
    f = runner.num_features
    found = {}
    interpreter = Interpreter(model_path=str(path))
    for name in interpreter.get_signature_list():
        signature = interpreter.get_signature_runner(name)
        both = signature.get_input_details(), signature.get_output_details()
        found[name] = tuple(
            {k: (tuple(v["shape_signature"].tolist()), v["dtype"].__name__) for k, v in d.items()}
            for d in both
        )
    head = {"kernel": ((f, CLASSES), "float32"), "bias": ((CLASSES,), "float32")}
    images, number = {"images": ((1, SIDE, SIDE, 3), "uint8")}, ((), "int32")
    photos = {"features": ((-1, f), "float32"), "labels": ((-1,), "int32")}
    rate, unused = {"learning_rate": ((), "float32")}, {"unused": number}
    assert found == {
        "features": (images, {"features": ((1, f), "float32")}),
        "train": ({**photos, **rate}, {"loss": ((), "float32")}),
        "infer": (images, {"probabilities": ((1, CLASSES), "float32")}),
        "save": (unused, {**head, "encoder": number}),
        "restore": (head, {"classes": number}),
        "reset": (unused, {"classes": number}),
    }
    assert runner.takes_pixels and runner.classes == CLASSES


def test_builtin_operations_and_one_copy_of_the_weights(encoder, path):
    content = path.read_bytes()
    assert tflite_ops(content)[1] == []
    assert len(content) < 1.5 * 4 * encoder.count_params()


def test_features_are_those_of_keras_from_pixels_and_from_floats(
    encoder, runner, floats_path, pixels
):
    images = pixels[0][:8]
    expected = in_keras(encoder, images)
    np.testing.assert_allclose(runner.features(images), expected, atol=1e-5)
    other = PersonalRunner(floats_path)
    assert not other.takes_pixels and other.classes == 2
    np.testing.assert_allclose(other.features(normalised(images)), expected, atol=1e-5)


def test_steps_are_those_of_numpy_for_any_number_of_photos(runner, pixels):
    images, labels = pixels
    descent = Descent(runner.num_features, CLASSES)
    for count, rate in ((50, 1.0), (1, 0.3), (7, 1.9), (50, 1.0)):
        runner.forget_photos()
        runner.add_photos(images[: count // 2], labels[: count // 2])
        runner.add_photos(images[count // 2 : count], labels[count // 2 : count])
        x = runner.features(images[:count]).astype("float64")
        expected = [descent.step(x, labels[:count], rate) for _ in range(20)]
        np.testing.assert_allclose(runner.train(20, rate), expected, rtol=1e-4)
    kernel, bias = runner.head()
    np.testing.assert_allclose(kernel, descent.w, atol=1e-5 * np.abs(descent.w).max())
    np.testing.assert_allclose(bias, descent.b, atol=1e-5)
    new = images[200:210]
    logits = runner.features(new).astype("float64") @ descent.w + descent.b
    np.testing.assert_allclose(runner.infer(new), softmax(logits), atol=1e-5)


def test_training_leaves_the_encoder_alone(runner, pixels):
    before = runner.features(pixels[0][:4])
    runner.add_photos(pixels[0][:20], pixels[1][:20])
    runner.train(10)
    np.testing.assert_array_equal(runner.features(pixels[0][:4]), before)


@pytest.mark.parametrize("rate", [1.0, 1.99])
def test_no_step_below_2_raises_the_loss(floats_path, pixels, rate):
    """Two classes: the curvature is the largest there is, 1, for photos that look alike."""
    runner = PersonalRunner(floats_path)
    runner.add_photos(normalised(pixels[0][:100]), pixels[1][:100] % 2)
    losses = runner.train(100, rate)
    assert losses[0] == pytest.approx(np.log(2))
    assert np.diff(losses).max() < 1e-6 and losses[-1] < losses[0] - 0.01
    # The bound is no idle one: these photos are alike enough for it.
    runner.reset()
    assert np.diff(runner.train(100, 2.2)).max() > 1e-3


def test_a_head_survives_a_restart(runner, path, pixels, tmp_path):
    images, labels = pixels
    runner.add_photos(images[:50], labels[:50])
    runner.train(50)
    expected = runner.infer(images[100:120])
    runner.save(tmp_path / "head.bin")
    again = PersonalRunner(path)
    again.restore(tmp_path / "head.bin")
    np.testing.assert_array_equal(again.infer(images[100:120]), expected)
    # And it learns on, as the one that was not interrupted.
    again.add_photos(images[:50], labels[:50])
    np.testing.assert_allclose(again.train(5), runner.train(5), rtol=1e-6)
    runner.save(tmp_path / "head.bin")
    again.restore(tmp_path / "head.bin")
    np.testing.assert_array_equal(again.head()[0], runner.head()[0])
    assert [p.name for p in tmp_path.iterdir()] == ["head.bin"]


def test_the_bytes_of_a_head(runner, pixels, tmp_path):
    runner.add_photos(pixels[0][:5], pixels[1][:5])
    runner.train(3)
    runner.save(tmp_path / "head.bin")
    content = (tmp_path / "head.bin").read_bytes()
    kernel, bias = runner.head()
    assert content[4:] == kernel.astype("<f4").tobytes() + bias.astype("<f4").tobytes()


def test_a_new_interpreter_and_reset_know_nothing(runner, path, pixels):
    np.testing.assert_allclose(PersonalRunner(path).infer(pixels[0][:2]), 1 / CLASSES)
    runner.add_photos(pixels[0][:5], pixels[1][:5])
    runner.train(3)
    assert runner.head()[0].any()
    runner.reset()
    assert not runner.head()[0].any() and not runner.head()[1].any()
    np.testing.assert_allclose(runner.infer(pixels[0][:2]), 1 / CLASSES)


def test_tiny_features_learn_as_others_do(small_encoder, pixels, tmp_path):
    """1e-19, as an untrained network gives: their squares underflow."""

    def export(factor):
        outputs = keras.layers.Rescaling(factor)(small_encoder.output)
        file = tmp_path / f"{factor}.tflite"
        model = keras.Model(small_encoder.input, outputs)
        return export_personal(model, file, classes=2, **NORMALISATION)

    images = pixels[0][:6]
    usual, tiny = export(1.0).features(images), export(1e-19).features(images)
    np.testing.assert_allclose(np.linalg.norm(tiny, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(tiny, usual, atol=1e-5)
    assert not unit_features(np.zeros((2, 3))).any()


def read(source, rows):
    """(pixels, labels) of some images of a source of JPEG files."""
    images = [source.images[i] for i in rows]
    part = dataclasses.replace(source, images=images, labels=source.labels[rows])
    batches = raw_batches(part, image_size=SIDE, batch_size=64)
    return [np.concatenate(side) for side in zip(*batches, strict=True)]


def test_unseen_groceries_as_well_as_in_keras(small_encoder, tfds_dir, tmp_path):
    """5 photos of each of 10 classes; the head of Keras on the features of Keras."""
    encoder, path = small_encoder, tmp_path / "a.tflite"
    runner = export_personal(encoder, path, classes=CLASSES, **NORMALISATION)
    sources = [
        load_source("grocery_store", split, data_dir=tfds_dir, image_size=SIDE, limit=700)
        for split in ("train", "test")
    ]
    train, test = sources
    enough = [c for c in np.unique(test.labels) if (train.labels == c).sum() >= 5]
    classes = np.random.default_rng(0).choice(enough, CLASSES, replace=False)
    chosen = [np.flatnonzero(train.labels == c)[:5] for c in classes]
    photos, labels = read(train, np.concatenate(chosen))
    new, new_labels = read(test, np.flatnonzero(np.isin(test.labels, classes)))
    slots, truth = ((labels[:, None] == classes).argmax(axis=1) for labels in (labels, new_labels))

    runner.add_photos(photos, slots)
    runner.train()
    runner.save(tmp_path / "head.bin")
    again = PersonalRunner(path)
    again.restore(tmp_path / "head.bin")
    accuracy = (again.infer(new).argmax(axis=1) == truth).mean()

    head = keras.layers.Dense(CLASSES, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((runner.num_features,)), head])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1.0), loss)
    data = tf.data.Dataset.from_tensors((in_keras(encoder, photos), slots))
    model.fit(data.repeat(300), shuffle=False, verbose=0)
    logits = model.predict(in_keras(encoder, new), verbose=0)
    assert accuracy == pytest.approx((logits.argmax(axis=1) == truth).mean(), abs=0.01)
    assert accuracy > 2 / CLASSES


def test_a_head_that_is_not_this_encoder_s_is_refused(runner, pixels, tmp_path):
    runner.add_photos(pixels[0][:5], pixels[1][:5])
    runner.train(3)
    before, file = runner.head()[0], tmp_path / "head.bin"
    runner.save(file)
    whole = file.read_bytes()
    other = np.frombuffer(whole, "<i4", 1) + 1
    broken = {
        "of another encoder": other.astype("<i4").tobytes() + whole[4:],
        "of 40 bytes and not": whole[:40],
        "NaN or infinity": whole[:-4] + np.array(np.nan, "<f4").tobytes(),
    }
    for words, content in broken.items():
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"`file` must be a head that .*{words}"):
            runner.restore(file)
    with pytest.raises(ValueError, match="`file` must be .*which is no file"):
        runner.restore(tmp_path / "none.bin")
    np.testing.assert_array_equal(runner.head()[0], before)


def test_the_check_number_knows_weights_and_normalisation(small_encoder):
    encoder, other = small_encoder, keras.models.clone_model(small_encoder)
    number = personal._number(encoder, **NORMALISATION)
    assert number == personal._number(encoder, **NORMALISATION)
    assert number != personal._number(encoder, mean=(0.5, 0.5, 0.5), std=IMAGENET_STD)
    assert number != personal._number(other, **NORMALISATION)
    assert 0 <= number < 2**31


def test_bad_photos_are_named(runner, pixels):
    images, labels = pixels[0][:3], pixels[1][:3]
    with pytest.raises(ValueError, match="`labels` must be integers .* from 0 to 9. .*10"):
        runner.add_photos(images, [0, 10, 1])
    with pytest.raises(ValueError, match="`labels` must be integers"):
        runner.add_photos(images, [0.0, 1.0, 2.0])
    with pytest.raises(ValueError, match="`labels` must be one for each image. .*2 labels of 3"):
        runner.add_photos(images, labels[:2])
    with pytest.raises(ValueError, match=r"`images` must be uint8 \(M, 32, 32, 3\). .*float32"):
        runner.infer(images.astype("float32"))
    with pytest.raises(ValueError, match=r"`images` must be .*\(3, 16, 16, 3\)"):
        runner.features(images[:, ::2, ::2])
    with pytest.raises(ValueError, match="`add_photos` must come first"):
        runner.train()
    runner.add_photos(images, labels)
    with pytest.raises(ValueError, match="`epochs` must be .*Received: epochs=0"):
        runner.train(epochs=0)
    with pytest.raises(ValueError, match="`learning_rate` must be positive. .*nan"):
        runner.train(learning_rate=float("nan"))


def test_features_that_are_not_finite_are_refused(floats_path, pixels):
    runner = PersonalRunner(floats_path)
    images = normalised(pixels[0][:2])
    images[1, 0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="`images` must give finite features"):
        runner.add_photos(images, [0, 1])
    with pytest.raises(ValueError, match="`add_photos` must come first"):
        runner.train()


def test_a_file_of_another_kind_is_refused(small_encoder, path, tmp_path):
    (tmp_path / "encoder.tflite").write_bytes(convert_tflite(small_encoder))
    (tmp_path / "text.tflite").write_text("text")
    (tmp_path / "half.tflite").write_bytes(path.read_bytes()[:5000])
    for name in ("encoder", "text", "half"):
        with pytest.raises(ValueError, match="`path` must be .*which cannot be used"):
            PersonalRunner(tmp_path / f"{name}.tflite")
    with pytest.raises(ValueError, match="`path` must be .*which is no file"):
        PersonalRunner(tmp_path / "none.tflite")


def test_bad_exports_are_named_and_leave_nothing(small_encoder, tmp_path, monkeypatch):
    encoder = small_encoder
    good = {"classes": 2, **NORMALISATION}
    file = tmp_path / "a.tflite"
    for changed, words in (
        ({"classes": 1}, "`classes` must be .*Received: classes=1"),
        ({"classes": 2.5}, "`classes` must be .*Received: classes=2.5"),
        ({"mean": (0.5, 0.5)}, "`mean` must be three numbers"),
        ({"std": (1, 0, 1)}, "`std` must be three positive numbers"),
    ):
        with pytest.raises(ValueError, match=words):
            export_personal(encoder, file, **good | changed)
    inputs = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    with pytest.raises(ValueError, match="`encoder` must take images .*from"):
        export_personal(keras.Model(inputs, inputs), file, **good)
    with pytest.raises(ValueError, match="`encoder` must take images .*from"):
        export_personal(keras.Model(inputs, [x, x]), file, **good)
    odd = keras.Model(inputs, keras.ops.erfinv(keras.ops.tanh(x) * 0.5))
    with pytest.raises(ValueError, match="`encoder` must hold only operations that TFLite has"):
        export_personal(odd, file, **good)
    other = keras.models.clone_model(encoder)  # with weights of its own
    convert = personal.convert_personal
    monkeypatch.setattr(personal, "convert_personal", lambda model, *rest: convert(other, *rest))
    with pytest.raises(ValueError, match="`encoder` must give the same features .*differs by"):
        export_personal(encoder, file, **good, preprocessing=False)
    assert not list(tmp_path.iterdir())


def test_the_command(small_encoder, tmp_path, capsys):
    keras_file, file = tmp_path / "encoder.keras", tmp_path / "personal.tflite"
    small_encoder.save(keras_file)

    def run(**changed):
        options = {"encoder": keras_file, "output": file, "classes": 4} | changed
        code = main([*(f"--{k}={v}" for k, v in options.items()), "--preprocessing"])
        return code, capsys.readouterr()

    code, said = run()
    assert code == 0 and PersonalRunner(file).classes == 4
    assert said.out.startswith(f"{file}: ") and "images of 32 px (uint8 pixels)" in said.out
    before, new = file.read_bytes(), tmp_path / "b.tflite"
    for changed, words in (
        ({}, f"`output` must be a new file .*Received: output={file}, which exists"),
        ({"output": tmp_path / "a.onnx"}, "`output` must be .*ends in .tflite"),
        ({"output": tmp_path / "no" / "a.tflite"}, "`output` must be in a directory that exists"),
        ({"encoder": file, "output": new}, "`encoder` must be .*cannot be loaded"),
        ({"encoder": "none.keras", "output": new}, "`encoder` must be .*no file"),
        (
            {"encoder": file, "output": new},
            "`encoder` must be .*cannot be loaded",
        ),
        ({"classes": 1, "output": new}, "`classes` must be .*classes=1"),
    ):
        code, said = run(**changed)
        assert code == 2 and said.out == ""
        (line,) = said.err.splitlines()
        assert line.startswith("personal: ")
        with pytest.raises(ValueError, match=words):
            raise ValueError(line)
    assert file.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["encoder.keras", "personal.tflite"]
    with pytest.raises(SystemExit) as stopped:
        run(classes="many")
    assert stopped.value.code == 2
    assert capsys.readouterr().err == ("personal: argument --classes: invalid int value: 'many'\n")
