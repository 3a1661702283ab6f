"""The methods: losses against NumPy, passes counted, gradients, fit, saving."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.heads import build_projector
from keras_sacl.methods import METHODS, SACL, SACLXD, XD, BarlowTwins, Distillation, TwoViewMethod
from keras_sacl.optim import build_optimizer
from keras_sacl.slimming import SlimmableEncoder
from tests.methods.small_networks import (
    Counter,
    TeacherCounter,
    distiller,
    make,
    network,
    values,
    views,
)


def correlation(a, b):
    def standard(z):
        z = np.asarray(z, "float64")
        return (z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5)

    return standard(a).T @ standard(b) / len(a)


def off(c):
    return (c**2).sum() - (np.diag(c) ** 2).sum()


def barlow(c, lambd=0.005):
    return ((1 - np.diag(c)) ** 2).sum() + lambd * off(c)


@pytest.mark.parametrize("pairs", ["same_input", "same_encoder"])
def test_sacl_xd_is_algorithm_1(pairs):
    method = make(
        "sacl_xd", sacl_contrast="across", xd_pairs=pairs, xd_form="correlation", alpha=0.7
    )
    x_a, x_b = views()

    def z(x, slim):
        return method.projector(method.encoder(x, slim=slim, training=True), training=True)

    z1, z2, z1t, z2t = z(x_a, False), z(x_b, True), z(x_b, False), z(x_a, True)
    if pairs == "same_input":  # the embeddings of one view by host and slim network
        c_a, c_b = correlation(z1, z2t), correlation(z2, z1t)
    else:  # the listing: z1 with z1t, z2 with z2t
        c_a, c_b = correlation(z1, z1t), correlation(z2, z2t)
    expected = 0.7 * barlow(correlation(z1, z2)) + 0.3 * 0.5 * 0.005 * (off(c_a) + off(c_b))
    terms = method.loss_terms(x_a, x_b)
    np.testing.assert_allclose(terms["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("form", ["barlow_twins", "correlation"])
def test_own_contrast_is_xd_of_each_network_and_of_the_slim_one_with_the_host(form):
    method = make("sacl_xd", xd_form=form, alpha=0.7)
    x_a, x_b = views()

    def z(x, slim):
        return method.projector(method.encoder(x, slim=slim, training=True), training=True)

    def pairs(z_a, z_b, frozen_a, frozen_b):
        pair = barlow if form == "barlow_twins" else lambda c: 0.005 * off(c)
        return (pair(correlation(z_a, frozen_a)) + pair(correlation(z_b, frozen_b))) / 2

    def xd(*z):
        return 0.7 * barlow(correlation(*z)) + 0.3 * pairs(*z, *z)

    host, slim = ([z(x, slim) for x in (x_a, x_b)] for slim in (False, True))
    terms = method.loss_terms(x_a, x_b)
    np.testing.assert_allclose(terms["xd"], pairs(*slim, *host), rtol=1e-5)
    np.testing.assert_allclose(terms["barlow_twins"], barlow(correlation(*slim)), rtol=1e-5)
    expected = xd(*host) + 0.5 * (xd(*slim) + pairs(*slim, *host))
    np.testing.assert_allclose(terms["loss"], expected, rtol=1e-5)


@pytest.mark.parametrize("contrast", ["own", "across"])
def test_what_the_host_alone_has_learns_from_the_slim_network_only_across(contrast):
    method = make("sacl_xd", sacl_contrast=contrast)
    alone = XD(method.encoder.host, method.projector, lambd=method.lambd)
    kernel = method.encoder.host.get_layer("conv").kernel
    found = []
    for model in (method, alone):
        with tf.GradientTape() as tape:
            loss = model.loss_terms(*views())["loss"]
        found.append(tape.gradient(loss, kernel.value)[..., 8:])  # that the host alone has
    same = np.allclose(*found, rtol=1e-4, atol=1e-6)
    assert np.abs(found[1]).max() > 1e-3 and same == (contrast == "own")


def test_a_method_that_was_saved_before_it_could_be_told_contrasts_across():
    method = make("sacl_xd")
    assert SACLXD.from_config(method.get_config()).sacl_contrast == "own"
    config = method.get_config()
    del config["sacl_contrast"]
    assert SACLXD.from_config(config).sacl_contrast == "across"


def test_neg_log_adds_to_the_whole_contrastive_loss():
    method = make("sacl_xd", sacl_contrast="across", xd_form="neg_log", gamma=0.5, alpha=0.1)
    terms = method.loss_terms(*views())
    np.testing.assert_allclose(terms["loss"], terms["barlow_twins"] + 0.5 * terms["xd"], rtol=1e-6)


def test_xd_without_passes_of_its_own_equals_xd_with_them():
    method = make("xd")
    x_a, x_b = views()
    z_a, z_b = method.embed(x_a), method.embed(x_b)
    with_passes = method.combine(z_a, z_b, method.frozen_embed(x_a), method.frozen_embed(x_b))
    np.testing.assert_allclose(method.loss_terms(x_a, x_b)["loss"], with_passes["loss"], rtol=1e-6)


def test_the_whole_loss_of_the_pairs_pulls_host_and_slim_network_together():
    x_a, x_b = views()
    off_diagonal, whole = (
        make("sacl_xd", sacl_contrast="across", xd_form=form, alpha=0.7).loss_terms(x_a, x_b)
        for form in ("correlation", "barlow_twins")
    )
    method = make("sacl_xd")
    pairs = [
        [method.frozen_embed(x, slim=slim).numpy() for slim in (False, True)] for x in (x_a, x_b)
    ]
    diagonal = sum(((1 - np.diag(correlation(*pair))) ** 2).sum() for pair in pairs)
    expected = off_diagonal["loss"] + 0.3 * 0.5 * diagonal
    np.testing.assert_allclose(whole["loss"], expected, rtol=1e-5)
    assert diagonal > 1


def test_of_one_network_the_diagonal_of_the_pairs_is_none():
    terms = [
        make("xd", xd_form=form).loss_terms(*views())["xd"]
        for form in ("correlation", "barlow_twins")
    ]
    np.testing.assert_allclose(*terms, rtol=1e-4)


@pytest.mark.parametrize(
    "name, dropout, passes",
    [
        ("barlow_twins", 0, 2),
        ("xd", 0, 2),
        ("xd", 0.5, 4),
        ("sacl", 0, 2),
        ("sacl_xd", 0, 4),
        ("sacl_xd", 0.5, 8),
        ("sacl_xd across", 0, 4),
        ("sacl_xd across", 0.5, 4),
        ("moco_v2", 0, 2),  # a query, a key
        ("swav", 0, 2),
    ],
)
def test_each_network_runs_as_often_as_the_method_says(name, dropout, passes):
    name, *contrast = name.split()
    settings = {"sacl_contrast": contrast[0]} if contrast else {}
    method = make(name, dropout=dropout, **settings)
    method.compile(keras.optimizers.SGD(0.1))
    method.train_step(views())
    Counter.reset()
    method.train_step(views())
    assert Counter.calls == Counter.training_calls == passes


@pytest.mark.parametrize(
    "name, passes",
    [
        ("barlow_twins", 2),  # what the method encodes is not encoded again
        ("moco_v2", 3),  # both views, and a key
        ("sacl", 3),  # the host view A, the slim network both
        ("swav", 2),
        ("distill", 2),
    ],
)
def test_distilling_adds_the_passes_that_are_missing(name, passes):
    method = make(name, distiller=distiller())
    method.compile(keras.optimizers.SGD(0.1))
    Counter.reset()
    TeacherCounter.reset()
    method.train_step(views())
    assert Counter.calls == Counter.training_calls == passes
    # Each view once, in inference mode.
    assert TeacherCounter.calls == 2 and TeacherCounter.training_calls == 0


def test_frozen_passes_give_no_gradient_and_leave_the_statistics():
    method = make("sacl_xd")
    x_a, _ = views()
    before = [np.asarray(v) for v in method.non_trainable_variables]
    with tf.GradientTape() as tape:
        z = method.frozen_embed(x_a, slim=True) + method.frozen_embed(x_a, slim=False)
        loss = tf.reduce_sum(z**2)
    assert all(g is None for g in tape.gradient(loss, method.trainable_variables))
    for v, old in zip(method.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)


def test_with_dropout_each_frozen_pass_is_its_own():
    method = make("xd", dropout=0.5)
    x_a, _ = views()
    assert not np.allclose(method.frozen_embed(x_a), method.frozen_embed(x_a))


@pytest.mark.parametrize(
    "optimizer, selection, trains",
    [("sgd", "leading", "both"), ("lamb", "magnitude", "both"), ("lamb", "magnitude", "slim")],
)
def test_both_executions_take_the_same_steps(optimizer, selection, trains):
    """Three steps from one start: weights and slim statistics end alike."""
    results = []
    for execution in ("slice", "mask"):
        method = make("sacl_xd", execution=execution, selection=selection)
        method.encoder.trains = trains
        method.compile(build_optimizer(optimizer, 1e-3, 0.0))
        for seed in range(3):
            method.train_on_batch(*views(seed=seed))
        results.append([np.asarray(v) for v in method.deployed_encoder().variables])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_fit_lowers_the_loss_and_survives_saving(name, tmp_path):
    method = make(name)
    method.compile(keras.optimizers.AdamW(3e-3))
    # Of several batches, so that no image is among its own negatives in moco_v2's queue.
    dataset = tf.data.Dataset.from_tensor_slices(views(128)).batch(32, True).repeat(10)
    history = method.fit(dataset.take(4), verbose=0).history
    later = method.fit(dataset, verbose=0).history
    assert later["loss"][-1] < history["loss"][0]
    assert 0 < later["embedding_std"][-1] <= 1.01
    method.save(tmp_path / "method.keras")
    loaded = keras.models.load_model(tmp_path / "method.keras")
    assert type(loaded) is type(method)
    x = views(4)[0]
    np.testing.assert_allclose(loaded.predict(x, verbose=0), method.predict(x, verbose=0))
    np.testing.assert_allclose(
        loaded.deployed_encoder()(x), method.deployed_encoder()(x), rtol=1e-6
    )
    assert loaded.evaluate(dataset.take(1), verbose=0, return_dict=True).keys() >= {"loss"}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        method = make("sacl_xd")
        optimizer = keras.optimizers.AdamW(1e-3)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        method.compile(optimizer)
        logs = method.train_on_batch(*views(32), return_dict=True)
    finally:
        keras.config.set_dtype_policy(before)
    assert np.isfinite(logs["loss"])
    assert all(v.dtype == "float32" for v in method.trainable_variables)
    assert method.deployed_encoder()(views(4)[0]).shape == (4, 8)


@pytest.mark.parametrize("name", ["sacl_xd", "moco_v2", "swav"])
def test_test_step_changes_nothing(name):
    method = make(name)
    method.compile(keras.optimizers.SGD(0.1))
    before = values(method.variables)
    method.evaluate(tf.data.Dataset.from_tensors(views()), verbose=0)
    for v, old in zip(method.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)


def test_a_method_of_ones_own_is_one_method():
    class Mine(TwoViewMethod):
        def loss_terms(self, x_a, x_b):
            z_a, z_b = self.embed(x_a), self.embed(x_b)
            return {"loss": tf.reduce_mean((z_a - z_b) ** 2), "z": z_b}

    encoder = network(1)
    method = Mine(encoder, build_projector(8, (4,)))
    method.compile("adam")
    assert method.fit(tf.data.Dataset.from_tensors(views()), verbose=0).history["loss"]


@pytest.mark.parametrize("dimensions, expected", [(256, 0.12), (1024, 0.03), (4096, 0.0075)])
def test_lambd_of_xd_keeps_the_weight_of_a_dimension(dimensions, expected):
    encoder = network(1)
    method = XD(encoder, build_projector(8, (4, dimensions)))
    assert method.lambd == method.get_config()["lambd"] == pytest.approx(expected)
    assert XD(encoder, method.projector, lambd=0).lambd == 0
    for settings in ({"xd_pairs": "same_encoder"}, {"xd_form": "neg_log"}):
        assert XD(encoder, method.projector, **settings).lambd == 0.005


def test_bad_arguments_are_named():
    encoder, projector = network(1), build_projector(8, (4,))
    with pytest.raises(ValueError, match="`encoder` of SACLXD must be a SlimmableEncoder"):
        SACLXD(encoder, projector)
    with pytest.raises(ValueError, match="`encoder` of SACL must be a SlimmableEncoder"):
        SACL(encoder, projector)
    with pytest.raises(ValueError, match="`projector` must take the encoder's 8 features"):
        BarlowTwins(encoder, build_projector(9, (4,)))
    for settings in ({"alpha": 1.5}, {"xd_pairs": "x"}, {"xd_form": "x"}, {"gamma": -1}):
        ((name, value),) = settings.items()
        with pytest.raises(ValueError, match=f"`{name}` must .*Received: {name}={value!r}"):
            XD(encoder, projector, **settings)
    slimmable = SlimmableEncoder(network(1.5), encoder)
    with pytest.raises(ValueError, match="`sacl_contrast` must be .*Received: sacl_contrast='x'"):
        SACLXD(slimmable, build_projector(12, (4,)), sacl_contrast="x")
    for settings, expected in (
        ({"xd_pairs": "same_encoder"}, "`xd_pairs` must not be 'same_encoder'"),
        ({"xd_form": "neg_log"}, "`xd_form` must not be 'neg_log'"),
    ):
        with pytest.raises(ValueError, match=f'{expected} with sacl_contrast="own"'):
            SACLXD(slimmable, build_projector(12, (4,)), **settings)
    with pytest.raises(ValueError, match="`distiller` must be a Distiller"):
        Distillation(encoder)
    with pytest.raises(ValueError, match="`loss_scale` must be positive"):
        XD(encoder, projector, loss_scale=0)
    with pytest.raises(ValueError, match="`lambd` must not be negative"):
        XD(encoder, projector, lambd=-1)
