"""Fine-tuning: what it reaches, what it records, and what an interruption leaves."""

import dataclasses
import json
import re
import zipfile

import absl.flags
import keras
import numpy as np
import pytest
import tensorflow as tf

import train as train_py
from keras_sacl import callbacks, stages
from keras_sacl.config import RunConfig
from keras_sacl.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageSource,
    ViewPreset,
    labelled_share,
    labelled_view_dataset,
    load_source,
)
from keras_sacl.data.order import ordered_steps
from keras_sacl.finetuning import Classifier, build_classifier
from keras_sacl.stages.build import build_networks
from keras_sacl.stages.finetune import finetune, protocol, train_classifier
from keras_sacl.stages.summary import summary

SETTINGS = {
    "method": "barlow_twins",
    "encoder": "resnet20_cifar",
    "width": 0.25,
    "image_size": 16,
    "augmentation": "digits",
    "projector": "16-16",
    "dataset": "digits",
    "stages": ("finetune",),
    "finetune_steps": 70,
    "verbose": "quiet",
}
STILL = ViewPreset(
    crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0
)


def configured(folder, **changes):
    return RunConfig(**{**SETTINGS, "run_dir": str(folder), **changes}).validated()


def started(folder, **changes):
    """(config, run directory) with an encoder that has learned nothing."""
    config = configured(folder, **changes)
    run_dir = stages.RunDir(folder)
    build_networks(config)[0].save(run_dir.encoder)
    return config, run_dir


def accuracy(path):
    """Top-1 of a classifier file on the digits for testing, by NumPy and Keras alone."""
    test = load_source("digits", "test")
    pixels = tf.image.resize(test.images, (16, 16), antialias=True)
    images = (np.round(pixels) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    model = keras.saving.load_model(path, safe_mode=True)
    return float(np.mean(model.predict(images, verbose=0).argmax(axis=1) == test.labels))


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """(config, run directory, result, lines said) after a fine-tuning, with the baseline."""
    config, run_dir = started(tmp_path_factory.mktemp("run"))
    before, said = run_dir.encoder.read_bytes(), []
    result = finetune(config, run_dir, say=said.append)
    assert run_dir.encoder.read_bytes() == before
    return config, run_dir, result, said


@pytest.mark.long
def test_learns_and_is_compared_with_scratch(fine_tuned):
    _, run_dir, result, said = fine_tuned
    assert result["top1"] > 0.6
    # The encoder had learned nothing: both are one and the same training.
    assert result["top1"] == result["top1_from_scratch"]
    assert result["protocol"] == "finetune-sgd-lr0.1-70steps-b64-v1"
    assert (result["num_train"], result["num_test"], result["num_classes"]) == (1442, 355, 10)
    assert run_dir.results() == {"finetune": [json.loads(json.dumps(result))]}
    assert not list(run_dir.checkpoints.glob("*"))
    assert "1442 labelled images of 10 classes, 16 px" in said[0]
    table = summary(run_dir.results())
    assert f"{result['top1']:.4f}" in table and "1442" in table
    assert result["protocol"] in table


def test_the_file_is_an_ordinary_model_of_the_recorded_accuracy(fine_tuned):
    _, run_dir, result, _ = fine_tuned
    with zipfile.ZipFile(run_dir.classifier) as file:
        config = file.read("config.json").decode()
    assert set(re.findall(r'"module": "([^."]*)', config)) == {"keras"}  # no object of ours
    # Of 355 images one may lie on the border, where pixels are rounded otherwise.
    assert accuracy(run_dir.classifier) == pytest.approx(result["top1"], abs=1.5 / 355)


@pytest.mark.long
def test_a_teacher_is_measured_and_imitated(fine_tuned, tmp_path):
    _, taught_by, earlier, _ = fine_tuned
    config, run_dir = started(
        tmp_path,
        finetune_teacher=str(taught_by.classifier),
        finetune_labels=0.01,
        finetune_baseline=False,
        finetune_steps=60,
    )
    run_dir.record("finetune", [earlier])
    said = []
    stages.check_inputs(config)
    result = finetune(config, run_dir, say=said.append)
    assert result["protocol"] == "finetune-sgd-lr0.1-60steps-b64-1pct-kd0.9-t4-v1"
    assert result["teacher_top1"] == earlier["top1"] and result["top1_from_scratch"] is None
    assert 10 <= result["num_train"] <= 20 and result["top1"] > 0.2
    assert any(line.startswith("fewer labelled images than") for line in said)
    rows = run_dir.results()["finetune"]
    # One row for each protocol; the file is that of the newest.
    assert [row["classifier"] for row in rows] == [None, "classifier.keras"]
    assert rows[0]["top1"] == earlier["top1"]
    assert accuracy(run_dir.classifier) == pytest.approx(result["top1"], abs=1.5 / 355)


def test_the_protocol_names_what_differs(tmp_path):
    config = configured(tmp_path, finetune_labels=0.1, finetune_weight_decay=1e-4)
    assert protocol(config) == "finetune-sgd-lr0.1-70steps-b64-wd0.0001-10pct-v1"
    assert protocol(RunConfig().validated()) == "finetune-sgd-lr0.1-10000steps-b64-v1"


def test_divergence_is_one_line_and_recorded(tmp_path, capsys):
    config, run_dir = started(tmp_path, finetune_learning_rate=1e30, finetune_baseline=False)
    run_dir.classifier.write_bytes(b"of before")
    holder = absl.flags.FlagValues()
    train_py.define_flags(holder)
    assert train_py.main(["train.py", *config.flag_lines()], holder) == 4
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "Traceback" not in error, error
    assert "training stopped: fine-tuning: the " in error and "helps" in error
    (row,) = run_dir.results()["finetune"]
    assert row["top1"] is None and "helps" in row["diverged"]["pretrained"]
    assert row["classifier"] is None and run_dir.classifier.read_bytes() == b"of before"
    assert summary(run_dir.results()).splitlines()[1].split()[-3:] == ["-", "-", "-"]


def small_network(classes=10):
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(8, 3, name="conv"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.ReLU(name="relu"),
            keras.layers.GlobalAveragePooling2D(name="pool"),
        ],
        name="encoder",
    )
    return build_classifier(encoder, classes)


@pytest.mark.parametrize("rate, warned", [(1e-3, False), (3.0, True)])
def test_a_rate_that_overshoots_is_named(rate, warned, tmp_path):
    network, said = build_classifier(wide_features(), 10), []
    config = configured(tmp_path, finetune_steps=50, finetune_learning_rate=rate)
    train_classifier(config, network, None, load_source("digits", "train"), tmp_path, said.append)
    assert [line for line in said if "a lower --finetune_learning_rate" in line] == said
    assert len(said) == warned


def wide_features():
    """Features of length 10: a head on them has a curvature of 50."""
    x = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.ReLU()(x * 10))
    return keras.Model(x, keras.ops.concatenate([pooled, pooled + 7, pooled + 7], axis=-1))


def test_an_interrupted_fine_tuning_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    settings = {"image_size": 8, "finetune_steps": 50, "finetune_batch_size": 32}
    source = load_source("digits", "train")

    def tune(folder, **changes):
        network, said = small_network(), []
        config = configured(tmp_path, **settings, **changes)
        train_classifier(config, network, None, source, tmp_path / folder, said.append)
        return network.get_weights(), said

    expected, _ = tune("whole")

    class Interrupted(callbacks.RunCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 2:
                raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(callbacks, "RunCheckpoint", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune("cut")
    assert [path.name for path in (tmp_path / "cut").glob("*")] == ["step-000000015.npz"]
    found, said = tune("cut", resume=True)
    assert "resuming after step 15 of 50" in said
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    # What is done is not done again.
    found, _ = tune("cut", resume=True)
    np.testing.assert_array_equal(found[0], expected[0])


class Counted(keras.layers.Layer):
    """The identity; counts its calls, all in inference mode."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x, training=None):
        assert not training
        self.calls.assign_add(1.0)
        return x


def trained(teacher, **settings):
    network = small_network()
    rng = np.random.default_rng(0)
    images = rng.normal(size=(48, 8, 8, 3)).astype("float32")
    labels = rng.integers(0, 10, 48)
    classifier = Classifier(network, teacher, **settings)
    classifier.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(16)
    logs = classifier.fit(data, epochs=2, verbose=0, shuffle=False).history
    return network.get_weights(), logs, classifier


def test_a_weight_of_zero_is_no_distillation():
    teacher = small_network()
    teacher.layers[-1].set_weights([np.random.default_rng(1).normal(size=(8, 10)), np.zeros(10)])
    plain, taught = trained(None)[0], trained(teacher, kd_weight=0.0)[0]
    imitating = trained(teacher, kd_weight=0.5)[0]
    for a, b in zip(plain, taught, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(plain[-1] - imitating[-1]).max() > 1e-3


def test_a_teacher_runs_once_a_step_and_stays_as_it_is():
    inputs = keras.Input((8, 8, 3))
    teacher = keras.Model(inputs, small_network()(Counted()(inputs)))
    before = teacher.get_weights()
    _, logs, classifier = trained(teacher)
    counter, *others = teacher.get_weights()
    assert counter == before[0] + 6
    for a, b in zip(others, before[1:], strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(classifier.variables) == len(classifier.network.variables)
    assert np.isfinite(logs["loss"]).all() and 0 <= logs["top1"][-1] <= 1


def test_the_loss_is_the_weighted_sum():
    network, rng = small_network(), np.random.default_rng(0)
    images = rng.normal(size=(6, 8, 8, 3)).astype("float32")
    z, t = rng.normal(size=(2, 6, 10)).astype("float32")
    labels = np.arange(6)
    inputs = keras.Input((8, 8, 3))
    # A teacher that gives t, by way of its biases, for every image.
    constant = keras.layers.Dense(10, kernel_initializer="zeros", name="constant")
    teacher = keras.Model(inputs, constant(keras.layers.Flatten()(inputs)))
    teacher.get_layer("constant").bias.assign(t[0])
    classifier = Classifier(network, teacher, temperature=2.0, kd_weight=0.3)

    def log_softmax(x):
        x = x.astype("float64")
        return x - np.log(np.exp(x).sum(axis=1, keepdims=True))

    p, q = log_softmax(np.tile(t[:1], (6, 1)) / 2), log_softmax(z / 2)
    hard = -log_softmax(z)[np.arange(6), labels].mean()
    expected = 0.7 * hard + 0.3 * 4 * np.sum(np.exp(p) * (p - q), axis=1).mean()
    loss = classifier.loss_of(tf.constant(z), images, tf.constant(labels))
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_classifiers_refuse_what_does_not_fit():
    network = small_network()
    with pytest.raises(ValueError, match="`teacher` must give the network's 10 logits. Received"):
        Classifier(network, small_network(classes=7))
    with pytest.raises(ValueError, match="`kd_weight` must be in .*kd_weight=2"):
        Classifier(network, kd_weight=2)
    with pytest.raises(ValueError, match="`temperature` must be positive.*temperature=0"):
        Classifier(network, temperature=0)
    with pytest.raises(ValueError, match="`classes` must be at least 2.*classes=1"):
        small_network(classes=1)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 1.0])
def test_the_share_is_of_each_class(share):
    source = load_source("digits", "train")
    labels = source.labels.copy()
    labels[::7] = -1
    source = dataclasses.replace(source, labels=labels)
    chosen = labelled_share(source, share, seed=3)
    for label in range(10):
        of_class = max(1, round(share * np.sum(labels == label)))
        assert np.sum(chosen.labels == label) == of_class
    assert chosen.labels.min() == 0
    # Images keep their labels and their order, and none comes twice.
    codes = [image.tobytes() for image in source.images]
    found = [codes.index(image.tobytes()) for image in chosen.images]
    assert found == sorted(set(found))
    np.testing.assert_array_equal(labels[found], chosen.labels)
    again, other = (labelled_share(source, share, seed=seed) for seed in (3, 4))
    np.testing.assert_array_equal(again.images, chosen.images)
    assert share == 1 or not np.array_equal(other.images, chosen.images)


def test_a_share_needs_labels():
    images = np.zeros((4, 8, 8, 3), np.uint8)
    for labels in (None, np.full(4, -1), np.ones((4, 3), np.int64)):
        with pytest.raises(ValueError, match="`source` must have images labelled with one class"):
            labelled_share(ImageSource(images, labels))
    for share in (0, 1.5):
        with pytest.raises(ValueError, match=f"`share` must be .*share={share}"):
            labelled_share(ImageSource(images, np.arange(4)), share)


def test_images_come_in_the_order_of_the_seed_with_their_labels():
    levels = np.arange(21, dtype=np.uint8) * 10
    pixels = np.tile(levels[:, None, None, None], (1, 16, 16, 3))
    files = [tf.io.encode_png(image).numpy() for image in pixels]
    settings = {"image_size": 16, "batch_size": 8, "seed": 5, "mean": (0, 0, 0), "std": (1, 1, 1)}
    order = [rows.numpy() for _, rows in ordered_steps(21, 8, 5, epochs=3, start_step=0)]
    for images in (pixels, files):
        source = ImageSource(images, np.arange(21) + 100)
        # Five steps of six: an epoch has two, so that the last one is cut.
        data = labelled_view_dataset(source, STILL, steps=5, **settings)
        found = list(data.as_numpy_iterator())
        assert data.cardinality() == len(found) == 5
        for (view, labels), rows in zip(found, order[:5], strict=True):
            assert view.shape == (8, 16, 16, 3) and labels.dtype == np.int64
            np.testing.assert_array_equal(labels, rows + 100)
            np.testing.assert_array_equal(np.round(view[:, 3, 5, 0] * 25.5), rows)
        resumed = labelled_view_dataset(source, STILL, steps=5, start_step=3, **settings)
        for (a, b), (c, d) in zip(resumed.as_numpy_iterator(), found[3:], strict=True):
            np.testing.assert_array_equal(a, c)
            np.testing.assert_array_equal(b, d)


def test_bad_settings_of_the_views():
    images, settings = np.zeros((9, 8, 8, 3), np.uint8), {"image_size": 8, "seed": 0}
    with pytest.raises(ValueError, match="`source` must have labels"):
        labelled_view_dataset(ImageSource(images), STILL, batch_size=2, steps=3, **settings)
    source = ImageSource(images, np.arange(9))
    for batch_size in (1, 10):
        with pytest.raises(ValueError, match=f"`batch_size` must .*batch_size={batch_size}"):
            labelled_view_dataset(source, STILL, batch_size=batch_size, steps=3, **settings)
    for steps, start in ((0, 0), (3, 4)):
        with pytest.raises(ValueError, match=f"`steps` must .*steps={steps}, start_step={start}"):
            labelled_view_dataset(
                source, STILL, batch_size=2, steps=steps, start_step=start, **settings
            )
