"""The projector: its layers, its float32 output, its errors."""

import keras
import numpy as np
import pytest

from keras_sacl.heads import build_linear, build_projector, parse_projector


def test_layers_are_those_of_barlow_twins():
    projector = build_projector(10, (16, 12, 8))
    kinds = [type(layer).__name__ for layer in projector.layers[1:]]
    assert kinds == ["Dense", "BatchNormalization", "ReLU"] * 2 + ["Dense", "Activation"]
    # No bias anywhere; gamma and beta of the two norms.
    assert sum(v.shape.num_elements() for v in projector.trainable_variables) == (
        10 * 16 + 16 * 12 + 12 * 8 + 2 * (16 + 12)
    )


def test_output_equals_numpy():
    rng = np.random.default_rng(0)
    projector = build_projector(5, (7, 3))
    x = rng.normal(size=(11, 5))
    first, last = (np.asarray(projector.get_layer(f"dense{i}").kernel, "float64") for i in (1, 2))
    hidden = x @ first
    hidden = (hidden - hidden.mean(axis=0)) / np.sqrt(hidden.var(axis=0) + 1e-5)
    found = projector(x.astype("float32"), training=True)
    np.testing.assert_allclose(found, np.maximum(hidden, 0) @ last, atol=1e-5)


def test_without_batch_norm_layers_have_biases():
    """The head of MoCo-v2: linear, ReLU, linear."""
    rng = np.random.default_rng(0)
    projector = build_projector(5, (7, 6, 3), batch_norm=False)
    kinds = [type(layer).__name__ for layer in projector.layers[1:]]
    assert kinds == ["Dense", "ReLU"] * 2 + ["Dense", "Activation"]
    for v in projector.trainable_variables:
        v.assign(rng.normal(size=v.shape))
    expected = x = rng.normal(size=(11, 5))
    for i in (1, 2, 3):
        layer = projector.get_layer(f"dense{i}")
        expected = expected @ np.asarray(layer.kernel, "float64") + np.asarray(layer.bias)
        expected = np.maximum(expected, 0) if i < 3 else expected
    np.testing.assert_allclose(projector(x.astype("float32"), training=True), expected, atol=1e-4)


def test_dropout_is_behind_each_relu_and_in_training_alone():
    projector = build_projector(5, (4000, 3), batch_norm=False, dropout=0.25)
    kinds = [type(layer).__name__ for layer in projector.layers[1:]]
    assert kinds == ["Dense", "ReLU", "Dropout", "Dense", "Activation"]
    x = np.ones((2, 5), "float32")
    hidden = keras.Model(projector.inputs[0], projector.get_layer("dense1_dropout").output)
    units, kept = (np.asarray(hidden(x, training=mode)) for mode in (False, True))
    active = units > 0
    assert abs((kept[active] == 0).mean() - 0.25) < 0.05
    np.testing.assert_allclose(kept[kept > 0], units[kept > 0] / 0.75, rtol=1e-5)
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match=r"`dropout` must be in \[0, 1\). Received: dropout="):
            build_projector(4, (8, 8), dropout=share)


def test_a_linear_map_equals_numpy():
    rng = np.random.default_rng(0)
    linear, x = build_linear(5, 1), rng.normal(size=(3, 5))
    kernel, bias = linear.trainable_variables
    bias.assign([2.0])
    np.testing.assert_allclose(
        linear(x.astype("float32")), x @ np.asarray(kernel, "float64") + 2, atol=1e-5
    )


@pytest.mark.parametrize(
    "policy, precise",
    [("mixed_bfloat16", "float32"), ("mixed_float16", "float32"), ("float64", "float64")],
)
def test_embeddings_are_precise_whatever_the_policy(policy, precise):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        heads = build_projector(4, (8, 8)), build_linear(4, 8)
    finally:
        keras.config.set_dtype_policy(before)
    for head in heads:
        assert head(np.ones((2, 4), "float32"), training=True).dtype == precise


def test_texts_to_widths():
    assert parse_projector("2048-512") == (2048, 512)
    for text in ("", "2048-", "a-b", "1-2", "2048,2048", "-5"):
        with pytest.raises(ValueError, match="`projector` must be .*Received: projector="):
            parse_projector(text)
    with pytest.raises(ValueError, match="`widths` must be at least one number"):
        build_projector(4, ())
