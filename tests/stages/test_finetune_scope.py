"""Fine-tuning of a part of the network, against Keras' own training and against what must stay."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sacl import callbacks, stages
from keras_sacl.config import RunConfig
from keras_sacl.data import load_source
from keras_sacl.encoders import build_encoder
from keras_sacl.evaluation import fingerprint
from keras_sacl.finetuning import SCOPES, Classifier, build_classifier
from keras_sacl.stages.build import build_networks
from keras_sacl.stages.finetune import finetune, protocol, train_classifier

SLOW = pytest.mark.slow
PARTS = [scope for scope in SCOPES if scope != "full"]
NAMES = ("", "-last-blocks", "-frozen")  # in a protocol


def small_encoder(spy=None):
    """Two resolutions, each with a BatchNorm and dropout; statistics and biases that matter."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3))
    for name, strides in (("early", 1), ("late", 2)):
        x = layers.Conv2D(8, 3, strides, "same", use_bias=False, name=f"{name}_conv")(x)
        x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
        x = layers.ReLU(name=f"{name}_relu")(x)
        if spy and name == "early":
            x = spy(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    encoder = keras.Model(inputs, x, name="encoder")
    rng = np.random.default_rng(1)
    for v in encoder.variables:
        if len(v.shape) == 1:
            v.assign(rng.uniform(0.5, 1.5, v.shape))
    return encoder


def labelled(seed=0):
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(48, 8, 8, 3)).astype("float32")
    return images, rng.integers(0, 10, 48)


def trained(network, **settings):
    classifier = Classifier(network, **settings)
    classifier.compile(optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    data = tf.data.Dataset.from_tensor_slices(labelled()).batch(16)
    classifier.fit(data, epochs=3, verbose=0, shuffle=False)
    return classifier


def trained_by_keras(model, inputs):
    model.compile(
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(inputs, labelled()[1], batch_size=16, epochs=3, verbose=0, shuffle=False)
    return model


def weights(model):
    return {(layer.name, v.name): np.asarray(v) for layer in model.layers for v in layer.weights}


def test_a_head_on_a_frozen_encoder_is_a_head_on_its_features():
    encoder = small_encoder(layers.Dropout(0.5, name="dropout"))
    before = fingerprint(encoder)
    classifier = trained(build_classifier(encoder, 10, "frozen"))
    assert fingerprint(encoder) == before
    head = classifier.network.get_layer("logits")
    # Momenta of the two, the step and the rate: nothing of the encoder.
    assert [v.shape for v in classifier.trainable_variables] == [(8, 10), (10,)]
    assert len(classifier.optimizer.variables) == 4
    inputs = keras.Input((8,))
    alone = keras.Model(inputs, layers.Dense(10, kernel_initializer="zeros")(inputs))
    trained_by_keras(alone, np.asarray(encoder(labelled()[0], training=False)))
    assert np.abs(head.bias).max() > 0.01
    for found, expected in zip(head.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_the_last_blocks_train_as_keras_trains_them():
    encoder = small_encoder()
    before = weights(encoder)
    classifier = trained(build_classifier(encoder, 10, "last_blocks"))
    by_keras = small_encoder()
    for name in ("early_conv", "early_norm"):
        by_keras.get_layer(name).trainable = False
    by_keras = trained_by_keras(build_classifier(by_keras, 10), labelled()[0])
    found, expected = weights(classifier.network), weights(by_keras)
    assert len(classifier.optimizer.variables) == 2 + 5  # kernel, gamma, beta and the head's two
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5)
        if name in before:
            stayed = np.array_equal(found[name], before[name])
            assert stayed == name[0].startswith("early"), name


class NoWayBack(layers.Layer):
    """The identity; has no gradient, and is never in training mode."""

    def call(self, x, training=None):
        assert not training

        @tf.custom_gradient
        def identity(x):
            def gradient(dy):
                raise RuntimeError("a gradient was asked for")

            return tf.identity(x), gradient

        return identity(x)


@pytest.mark.parametrize("scope", PARTS)
def test_there_is_no_backward_pass_through_what_is_frozen(scope):
    trained(build_classifier(small_encoder(NoWayBack()), 10, scope))


@pytest.mark.parametrize(
    "name, size, first",
    [
        ("resnet20_cifar", 16, "stage3_block1_conv1"),
        ("mobilenet_v1", 32, "conv_dw_12"),
        pytest.param("mobilenet_v3_small", 32, "expanded_conv_8_depthwise", marks=SLOW),
        pytest.param("efficientnet_b0", 8, None, marks=SLOW),
    ],
)
def test_the_last_blocks_are_those_of_the_last_resolution(name, size, first):
    encoder = build_encoder(name, width=0.25, image_size=size)
    last = encoder.layers[-2].output.shape[1]
    build_classifier(encoder, 10, "last_blocks")
    weighted = [layer for layer in encoder.layers if layer.weights]
    for layer in weighted:
        small = layer.output.shape[1] in (last, 1)  # 1: in a squeeze-and-excitation
        assert layer.trainable == small or "squeeze" in layer.name or "_se_" in layer.name
    trained = [layer.trainable for layer in weighted]
    assert trained == sorted(trained) and not trained[0]
    assert first in (None, weighted[trained.index(True)].name)


def test_bad_scopes_are_named():
    with pytest.raises(ValueError, match="`scope` must be one of full, .*Received: scope='head'"):
        build_classifier(small_encoder(), 10, "head")
    x = keras.Input((8, 8, 3))
    one = keras.Model(x, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(x)), name="one")
    with pytest.raises(ValueError, match="two resolutions .*Received: encoder=one, with"):
        build_classifier(one, 10, "last_blocks")


SETTINGS = {
    "method": "barlow_twins",
    "encoder": "resnet20_cifar",
    "width": 0.25,
    "image_size": 8,
    "augmentation": "digits",
    "projector": "16-16",
    "dataset": "digits",
    "stages": ("finetune",),
    "finetune_batch_size": 32,
    "finetune_baseline": False,
    "verbose": "quiet",
}


@pytest.mark.parametrize("scope", ["last_blocks", pytest.param("frozen", marks=SLOW)])
def test_an_interrupted_training_of_a_part_goes_on_as_if_it_had_not_been(
    scope, tmp_path, monkeypatch
):
    source = load_source("digits", "train")

    def tune(folder, **changes):
        network = build_classifier(small_encoder(), 10, scope)
        config = RunConfig(**SETTINGS, finetune_steps=10, finetune_scope=scope, **changes)
        train_classifier(config.validated(), network, None, source, tmp_path / folder, print)
        return network.get_weights()

    class Interrupted(callbacks.RunCheckpoint):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            if epoch == 4:
                raise KeyboardInterrupt

    expected = tune("whole")
    with monkeypatch.context() as patched:
        patched.setattr(callbacks, "RunCheckpoint", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune("cut")
    assert [path.name for path in (tmp_path / "cut").glob("*")] == ["step-000000005.npz"]
    for a, b in zip(tune("cut", resume=True), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_stage_leaves_the_encoder_and_records_the_scope(tmp_path):
    def configured(scope):
        return RunConfig(
            **SETTINGS, run_dir=str(tmp_path), finetune_steps=10, finetune_scope=scope
        ).validated()

    names = [protocol(configured(scope)) for scope in SCOPES]
    assert names == [f"finetune-sgd-lr0.1-10steps-b32{part}-v1" for part in NAMES]
    config, run_dir, said = configured("frozen"), stages.RunDir(tmp_path), []
    build_networks(config)[0].save(run_dir.encoder)
    same = {"dataset": "digits", "num_train": 1442, "num_test": 355, "teacher": None}
    run_dir.record("finetune", [{**same, "protocol": n, "classifier": None} for n in names])
    result = finetune(config, run_dir, say=said.append)
    assert "the linear layer alone" in said[0]
    # It takes the place of the row of its own scope.
    rows = run_dir.results()["finetune"]
    assert [row["protocol"] for row in rows] == names
    assert rows[-1] == json.loads(json.dumps(result)) and "top1" not in rows[0]
    # The file is an ordinary model: all of it can be trained on, and the encoder is the run's.
    classifier = keras.saving.load_model(run_dir.classifier, safe_mode=True)
    encoder = keras.saving.load_model(run_dir.encoder)
    assert all(layer.trainable for layer in classifier.layers)
    assert len(classifier.trainable_variables) == len(encoder.trainable_variables) + 2
    for name, value in weights(encoder).items():
        np.testing.assert_array_equal(weights(classifier)[name], value)
