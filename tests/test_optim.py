"""LARS against NumPy, the schedule by hand, and what is decayed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.optim import (
    LARS,
    OPTIMIZERS,
    SGD,
    AdamW,
    WarmupCosine,
    WarmupSteps,
    build_optimizer,
)


def lars_oracle(w, gradients, lr, momentum, decay, trust):
    """Written from the published update rule, in float64."""
    m = np.zeros_like(w)
    for g in gradients:
        if w.ndim > 1:
            g = g + decay * w
            w_norm, g_norm = np.sqrt((w**2).sum()), np.sqrt((g**2).sum())
            if w_norm > 0 and g_norm > 0:
                g = g * trust * w_norm / g_norm
        m = momentum * m + g
        w = w - lr * m
    return w


@pytest.mark.parametrize("shape", [(4, 3), (3, 3, 2, 5), (7,)])
def test_lars_equals_numpy(shape):
    rng = np.random.default_rng(0)
    w = rng.normal(size=shape)
    gradients = rng.normal(size=(5, *shape))
    variable = keras.Variable(w.astype("float32"))
    optimizer = LARS(0.3, momentum=0.9, weight_decay=0.01, trust=0.02)
    for g in gradients:
        optimizer.apply([tf.constant(g, "float32")], [variable])
    expected = lars_oracle(w, gradients, 0.3, 0.9, 0.01, 0.02)
    np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-5, atol=1e-6)


def test_lars_with_zero_norms_stays_finite():
    for w, g in ((np.zeros((2, 2)), np.ones((2, 2))), (np.ones((2, 2)), np.zeros((2, 2)))):
        variable = keras.Variable(w.astype("float32"))
        LARS(0.1).apply([tf.constant(g, "float32")], [variable])
        np.testing.assert_allclose(np.asarray(variable), w - 0.1 * g)


def test_schedule_by_hand():
    schedule = WarmupCosine(2.0, warmup_steps=4, total_steps=12)
    expected = {0: 0.5, 1: 1.0, 3: 2.0, 4: 2.0, 8: 1.0, 12: 0.0, 20: 0.0}
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-6), step
    again = WarmupCosine.from_config(schedule.get_config())
    assert [float(again(s)) for s in range(14)] == [float(schedule(s)) for s in range(14)]
    assert float(WarmupCosine(1.0, warmup_steps=0, total_steps=10)(0)) == 1.0
    with pytest.raises(ValueError, match="`warmup_steps` must be .*Received: warmup_steps=11"):
        WarmupCosine(1.0, warmup_steps=11, total_steps=10)


def test_steps_by_hand():
    """CompRess: a fifth at each drop, and a warm-up before."""
    schedule = WarmupSteps(2.0, warmup_steps=4, drops=[8, 10], factor=0.2)
    expected = {0: 0.5, 1: 1.0, 3: 2.0, 4: 2.0, 7: 2.0, 8: 0.4, 9: 0.4, 10: 0.08, 500: 0.08}
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate, rel=1e-6), step
    again = WarmupSteps.from_config(schedule.get_config())
    assert [float(again(s)) for s in range(14)] == [float(schedule(s)) for s in range(14)]
    assert float(WarmupSteps(1.0, warmup_steps=0, drops=[], factor=0.5)(0)) == 1.0
    # A drop within the warm-up counts from there on.
    early = WarmupSteps(1.0, warmup_steps=4, drops=[2], factor=0.5)
    assert [float(early(s)) for s in range(6)] == [0.25, 0.5, 0.375, 0.5, 0.5, 0.5]
    for factor in (0, 1.5, -1):
        with pytest.raises(ValueError, match=f"`factor` must be .*Received: factor={factor}"):
            WarmupSteps(1.0, warmup_steps=0, drops=[1], factor=factor)


def sgd_oracle(w, gradients, lr, momentum, decay):
    """torch.optim.SGD, as its documentation lists it, in float64."""
    buffer = None
    for g in gradients:
        g = g + decay * w
        buffer = g if buffer is None else momentum * buffer + g
        w = w - lr * buffer
    return w


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("scaled", [False, True])
def test_sgd_equals_pytorchs_rule(momentum, scaled):
    rng = np.random.default_rng(0)
    w, gradients = rng.normal(size=(4, 3)), rng.normal(size=(6, 4, 3))
    variable = keras.Variable(w.astype("float32"), name="kernel")
    optimizer = SGD(0.1, momentum=momentum, weight_decay=0.05)
    if scaled:  # float16: the gradient is scaled, the decay is not
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1024.0)
    for g in gradients:
        scale = 1024.0 if scaled else 1.0
        optimizer.apply([tf.constant(scale * g, "float32")], [variable])
    expected = sgd_oracle(w, gradients, 0.1, momentum, 0.05)
    np.testing.assert_allclose(np.asarray(variable), expected, rtol=1e-5, atol=1e-6)
    assert np.abs(expected - sgd_oracle(w, gradients, 0.1, momentum, 0.0)).max() > 0.01


def test_decay_is_not_clipped():
    """Clipping is of gradients: PyTorch clips before the step."""
    w, g = np.ones((2, 2)), np.full((2, 2), 100.0)
    variable = keras.Variable(w.astype("float32"), name="kernel")
    SGD(0.1, weight_decay=0.5, clipnorm=1.0).apply([tf.constant(g, "float32")], [variable])
    np.testing.assert_allclose(np.asarray(variable), w - 0.1 * (0.5 * w + 0.5), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adamw_equals_keras(dtype):
    rng = np.random.default_rng(0)
    w = rng.normal(size=(6, 5))
    ours, keras_own = keras.Variable(w, dtype=dtype), keras.Variable(w, dtype=dtype)
    schedule = WarmupCosine(0.1, warmup_steps=2, total_steps=9)
    settings = {"weight_decay": 0.2, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4}
    a, b = AdamW(schedule, **settings), keras.optimizers.AdamW(schedule, **settings)
    for _ in range(6):
        g = tf.constant(rng.normal(size=w.shape), dtype)
        a.apply([g], [ours])
        b.apply([g], [keras_own])
    # The schedule is float32 whatever the variable.
    np.testing.assert_allclose(np.asarray(ours), np.asarray(keras_own), rtol=1e-5)
    assert np.abs(np.asarray(ours) - w).max() > 0.1
    with pytest.raises(ValueError, match="`amsgrad` must be False"):
        AdamW(0.1, amsgrad=True).build([ours])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_biases_and_norms_are_not_decayed(name):
    """With a gradient of zero, only decay can move a weight."""
    model = keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(4), keras.layers.BatchNormalization()]
    )
    for v in model.trainable_variables:
        v.assign(tf.ones(v.shape))
    optimizer = build_optimizer(name, 0.1, weight_decay=0.5)
    variables = model.trainable_variables
    optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
    for v in variables:
        if len(v.shape) == 1:
            np.testing.assert_array_equal(np.asarray(v), 1.0)
        else:
            assert np.asarray(v).max() < 1.0


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_in_a_step_variables_go_by_their_own_names(name):
    """Not by those of their layers; and the biases of attention have a rank of 2."""
    inputs = keras.Input((4, 6))
    x = keras.layers.MultiHeadAttention(2, 3, name="attention")(inputs, inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="beta_bias")(x))
    model.compile(build_optimizer(name, 0.1, weight_decay=0.5), loss=lambda y, z: 0.0 * z)
    for v in model.trainable_variables:
        v.assign(tf.ones(v.shape))
    model.train_on_batch(np.ones((3, 4, 6), "float32"), np.ones((3, 4, 2), "float32"))
    ranks = set()
    for v in model.trainable_variables:
        if v.name == "bias":
            ranks.add(len(v.shape))
            np.testing.assert_array_equal(np.asarray(v), 1.0)
        else:
            assert np.asarray(v).max() < 1.0, v.path
    assert ranks == {1, 2}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_survive_saving(name, tmp_path):
    """A loaded model goes on exactly as the one that was saved."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    schedule = WarmupCosine(0.1, warmup_steps=2, total_steps=9)
    model.compile(build_optimizer(name, schedule, weight_decay=0.1), "mse")
    x, y = np.ones((8, 3), "float32"), np.zeros((8, 4), "float32")
    model.fit(x, y, epochs=3, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for m in (model, loaded):
        m.fit(x, y, epochs=2, verbose=0)
    assert type(loaded.optimizer) is type(model.optimizer)
    np.testing.assert_allclose(*(m.get_weights()[0] for m in (model, loaded)), rtol=1e-6)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`optimizer` must be one of .*did you mean adamw"):
        build_optimizer("adam", 0.1)
    for settings in ({"momentum": 1.0}, {"trust": 0}, {"weight_decay": -1}):
        with pytest.raises(ValueError, match=f"`{next(iter(settings))}` must"):
            LARS(0.1, **settings)
