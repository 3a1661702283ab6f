"""The projector: its layers, its float32 output, its errors."""

import keras
import numpy as np
import pytest

from keras_sacl.heads import build_projector, parse_projector


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


def test_embeddings_are_float32_under_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        projector = build_projector(4, (8, 8))
    finally:
        keras.config.set_dtype_policy(before)
    assert projector(np.ones((2, 4), "float32"), training=True).dtype == "float32"


def test_texts_to_widths():
    assert parse_projector("2048-512") == (2048, 512)
    for text in ("", "2048-", "a-b", "1-2", "2048,2048", "-5"):
        with pytest.raises(ValueError, match="`projector` must be .*Received: projector="):
            parse_projector(text)
    with pytest.raises(ValueError, match="`widths` must be at least one number"):
        build_projector(4, ())
