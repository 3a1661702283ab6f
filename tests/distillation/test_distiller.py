"""The distiller in a method: passes, gradients, state, saving; a cached teacher against a live."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_sacl.callbacks import RunCheckpoint
from keras_sacl.distillation import (
    AT,
    OBJECTIVES,
    RKD,
    DisCo,
    Distiller,
    Objective,
)
from keras_sacl.heads import build_projector
from keras_sacl.methods import BarlowTwins, Distillation, SwAV
from tests.methods.small_networks import (
    Counter,
    TeacherCounter,
    distiller,
    make,
    network,
    teacher,
    values,
    views,
)

SMALL = {
    "disco": {"hidden": 16}, "at": {}, "rkd": {}, "reg": {}, "reg_bn": {}, "cc": {"clusters": 5},
    "seed": {"hidden": 16, "queue_size": 40}, "compress_1q": {"queue_size": 40},
    "compress_2q": {"queue_size": 40}, "crd": {"queue_size": 40, "width": 8},
}  # fmt: skip


def objective(name):
    return OBJECTIVES[name](**SMALL[name])


def compiled(method, rate=0.05):
    method.compile(keras.optimizers.SGD(rate, momentum=0.9))
    return method


def one(name):
    return compiled(make("distill", distiller=distiller({name: objective(name)})))


def data(count=1, **extras):
    found = [(*views(seed=seed), extras) if extras else views(seed=seed) for seed in range(count)]
    return tf.data.Dataset.from_tensor_slices(tf.nest.map_structure(lambda *x: tf.stack(x), *found))


def fit(method, dataset):
    return method.fit(dataset, verbose=0, shuffle=False).history


@pytest.mark.parametrize(
    "names, passes, seen",
    [
        (["seed"], 1, 1),
        (["disco"], 2, 2),
        (["compress_2q"], 2, 1),  # the student, and its mean
        (["rkd", "reg", "cc", "crd", "at"], 1, 1),
        (list(OBJECTIVES), 3, 2),
    ],
)
def test_each_view_is_encoded_once(names, passes, seen):
    method = compiled(
        make("distill", distiller=distiller({name: objective(name) for name in names}))
    )
    method.train_step(views())
    Counter.reset()
    TeacherCounter.reset()
    method.train_step(views())
    assert Counter.calls == Counter.training_calls == passes
    assert TeacherCounter.calls == seen and TeacherCounter.training_calls == 0


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_lowers_the_loss_and_leaves_the_teacher(name):
    method = make("distill", distiller=distiller({name: objective(name)}))
    frozen, before = values(method.frozen_variables), values(method.encoder.trainable_variables)
    assert len(frozen) == 5
    ids = {id(v) for v in method.frozen_variables}
    assert not any(id(v) in ids for v in method.trainable_variables)
    method.compile(keras.optimizers.AdamW(1e-2))
    many = data(4)
    fit(method, many)  # queues fill
    first = fit(method, many)["loss"][0]
    assert fit(method, many.repeat(15))["loss"][0] < first
    for v, old in zip(method.frozen_variables, frozen, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)
    for v, old in zip(method.encoder.trainable_variables, before, strict=True):
        assert np.abs(np.asarray(v) - old).max() > 0
    # All that is trained is used.
    with tf.GradientTape() as tape:
        loss = method._all_terms(*views())["loss"]
    trained = method.trainable_variables
    for v, g in zip(trained, tape.gradient(loss, trained), strict=True):
        assert g is not None and np.isfinite(g).all(), v.path


def test_weights_weigh_and_logs_show_what_is_not_weighed():
    names = {"disco": 0.5, "rkd": 3.0}
    method = make(
        "barlow_twins",
        distiller=distiller({n: objective(n) for n in ("disco", "rkd", "reg")}, names),
    )
    logs = compiled(method, 0.0).train_step(views())
    own = logs["barlow_twins"] + 0.5 * logs["disco"] + 3 * logs["rkd"] + logs["reg"]
    np.testing.assert_allclose(logs["loss"], own, rtol=1e-5)
    plain = compiled(make("barlow_twins"), 0.0).train_step(views())
    np.testing.assert_allclose(logs["barlow_twins"], plain["barlow_twins"], rtol=1e-5)
    scaled = make("distill", loss_scale=0.1)
    logs = compiled(scaled).train_step(views())
    np.testing.assert_allclose(logs["loss"], 0.1 * logs["disco"], rtol=1e-5)


def test_the_teacher_is_in_inference_mode():
    """Its features are those of its own statistics, and these stand still."""
    seen = {}

    class Spy(Objective):
        def loss(self, student, teacher):
            seen["features"] = teacher.features
            return tf.reduce_mean(student.features)

    own = teacher()
    method = make("distill", distiller=distiller({"spy": Spy()}))
    compiled(method).train_step(views())
    x = views()[0]
    np.testing.assert_allclose(seen["features"], own(x, training=False), atol=1e-6)
    assert np.abs(seen["features"] - own(x, training=True)).max() > 0.05


def test_a_teachers_projector_gives_its_embeddings():
    own = teacher()
    projector = build_projector(12, (6, 5))
    x_a, x_b = views()
    method = make("distill", distiller=Distiller({"disco": DisCo(hidden=16)}, None, own, projector))
    assert method.distiller.teacher_widths == (12, 5)
    before = values(projector.variables)
    logs = compiled(method, 0.0).train_step((x_a, x_b))
    expected = 0
    for x in (x_a, x_b):
        s = method.distiller.objectives["disco"].head(method.encoder(x, training=True))
        t = projector(own(x, training=False), training=False)
        s, t = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in map(np.asarray, (s, t)))
        expected += ((s - t) ** 2).sum(axis=1).mean()
    np.testing.assert_allclose(logs["disco"], expected, rtol=1e-5)
    assert len(method.frozen_variables) == len(own.variables) + len(projector.variables)
    for v, old in zip(projector.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old)


def test_a_projector_of_the_teachers_width_is_trained():
    """DisCo and SEED in the space of the method's own embeddings, as in the papers."""
    own, projector = teacher(), build_projector(12, (16, 16))
    both = Distiller({n: objective(n) for n in ("disco", "seed")}, None, own, projector)
    method = make("moco_v2", distiller=both)
    assert all(o.head is None for o in both.objectives.values())
    with tf.GradientTape() as tape:
        terms = method._all_terms(*views())
        loss = terms["disco"] + terms["seed"]
    weights = method.projector.trainable_variables
    assert all(np.abs(g).max() > 0 for g in tape.gradient(loss, weights))


def test_rows_are_as_good_as_the_teacher():
    """Where both views are the image itself, for all that rows can tell."""
    names = [name for name in OBJECTIVES if name != "at"]
    x, _ = views()
    own, projector = teacher(), build_projector(12, (6, 5))
    rows = own(x, training=False)
    rows = tf.concat([rows, projector(rows, training=False)], axis=1)
    found = []
    for live in (True, False):
        keras.utils.set_random_seed(3)
        made = {name: objective(name) for name in names}
        if live:
            own_distiller = Distiller(made, None, own, projector)
        else:
            own_distiller = Distiller(made, teacher_widths=(12, 5))
            TeacherCounter.reset()
        method = compiled(make("distill", distiller=own_distiller))
        batch = (x, x) if live else (x, x, {"teacher": rows})
        logs = [method.train_step(batch) for _ in range(3)][-1]
        found.append((logs, values(method.encoder.variables)))
    assert TeacherCounter.calls == 0
    (live, weights), (cached, others) = found
    for name in names:
        np.testing.assert_allclose(live[name], cached[name], rtol=1e-4)
    for a, b in zip(weights, others, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_rows_go_with_a_distiller_without_teacher():
    cached = compiled(make("barlow_twins", distiller=distiller(teacher_widths=(12, 5))))
    live = compiled(make("barlow_twins", distiller=distiller()))
    with pytest.raises(ValueError, match='must hold "teacher" if, and only if, the distiller has'):
        cached.train_step(views())
    with pytest.raises(ValueError, match='must hold "teacher" if, and only if, the distiller has'):
        live.train_step((*views(), {"teacher": tf.zeros((16, 17))}))
    with pytest.raises(ValueError, match='must hold "teacher" if, and only if, the distiller has'):
        compiled(make("barlow_twins")).train_step((*views(), {"teacher": tf.zeros((16, 17))}))


@pytest.mark.parametrize("features", ["of the policy", "float32"])
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_every_objective_in_every_precision(policy, features):
    """The teacher's, the student's and the objectives' need not be one."""
    own = teacher()
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        encoder = network(1)
        if features == "float32":  # as the library's own encoders give them
            cast = layers.Activation("linear", dtype="float32", name="features")
            encoder = keras.Model(encoder.inputs[0], cast(encoder.output))
        keras.config.set_dtype_policy("float32" if policy != "float64" else policy)
        made = distiller({name: objective(name) for name in OBJECTIVES}, teacher=own)
        method = Distillation(encoder, distiller=made)
        optimizer = keras.optimizers.SGD(1e-3)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        method.compile(optimizer)
        logs = method.train_step(views())
    finally:
        keras.config.set_dtype_policy(before)
    assert all(np.isfinite(value) for value in logs.values())
    np.testing.assert_allclose(logs["loss"], sum(logs[name] for name in OBJECTIVES), rtol=1e-5)
    assert all(np.isfinite(v).all() for v in values(method.variables))


@pytest.mark.parametrize("name", ["moco_v2", "distill", "sacl"])
def test_a_distilled_method_survives_saving(name, tmp_path):
    names = [n for n in OBJECTIVES if name == "distill" or n not in ("at", "compress_2q")]
    if name != "distill":
        names = ["disco", "crd"]
    own = distiller({n: objective(n) for n in names}, {"crd": 0.1})
    method = compiled(make(name, distiller=own), 1e-3)
    method.train_step(views())
    method.save(tmp_path / "method.keras")
    loaded = keras.models.load_model(tmp_path / "method.keras")
    assert loaded.distiller.weight_of == own.weight_of
    assert list(loaded.distiller.objectives) == names
    assert len(loaded.frozen_variables) == len(method.frozen_variables) == 5
    for a, b in zip(method.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=a.path)
    method.reset_metrics()
    logs = [m.train_step(views(seed=5)) for m in (method, loaded)]
    for key in logs[0]:
        np.testing.assert_allclose(logs[0][key], logs[1][key], rtol=1e-5)


def test_a_cached_distiller_survives_saving(tmp_path):
    method = compiled(make("distill", distiller=distiller(teacher_widths=(12, 5))))
    dataset = data(2, teacher=tf.random.normal((16, 17)))
    fit(method, dataset)
    method.save(tmp_path / "method.keras")
    loaded = keras.models.load_model(tmp_path / "method.keras")
    assert loaded.distiller.teacher is None and not loaded.frozen_variables
    assert tuple(loaded.distiller.teacher_widths) == (12, 5)
    found = [m.evaluate(dataset, verbose=0, return_dict=True)["loss"] for m in (method, loaded)]
    np.testing.assert_allclose(*found, rtol=1e-6)


def test_evaluation_changes_nothing():
    """Queues, normalisers, the mean student and the teacher included."""
    names = ("seed", "compress_2q", "crd", "cc")
    method = compiled(make("distill", distiller=distiller({n: objective(n) for n in names})))
    method.train_step(views())
    before = values(method.variables)
    method.evaluate(data(2), verbose=0)
    for v, old in zip(method.variables, before, strict=True):
        np.testing.assert_array_equal(np.asarray(v), old, err_msg=v.path)


@pytest.mark.parametrize("name", ["moco_v2", "distill"])
def test_resumed_training_ends_where_uninterrupted_training_ends(name, tmp_path):
    def fresh():
        names = ["seed", "cc"] if name == "moco_v2" else ["compress_2q", "crd", "cc"]
        method = make(name, distiller=distiller({n: objective(n) for n in names}))
        return compiled(method, 1e-3)

    whole = fresh()
    features = np.random.default_rng(0).normal(size=(40, 12))
    whole.distiller.objectives["cc"].set_centres(features)
    fit(whole, data(5))
    first = fresh()
    first.distiller.objectives["cc"].set_centres(features)
    first.fit(data(3), verbose=0, shuffle=False, callbacks=[RunCheckpoint(tmp_path)])
    second = fresh()  # its clusters come with the checkpoint
    assert RunCheckpoint(tmp_path).restore(second) == 3
    fit(second, data(5).skip(3))
    for a, b in zip(whole.variables, second.variables, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=a.path)


def test_checkpoints_hold_queues_and_means_but_no_teacher(tmp_path):
    own = distiller({n: objective(n) for n in ("seed", "compress_2q")})
    method = compiled(make("moco_v2", distiller=own), 1e-3)
    saver = RunCheckpoint(tmp_path)
    method.fit(data(1), verbose=0, callbacks=[saver])
    with np.load(saver.paths()[0]) as file:
        kept = [file[n] for n in file.files if n != "meta"]
    named = {
        "queue": method.queue.rows,
        "keys": method.key_encoder.mean.weights[0],
        "mean": own.mean_student.mean.weights[0],
        "seed": own.objectives["seed"].queue.rows,
        "students": own.objectives["compress_2q"].student_queue.rows,
    }
    for what, v in named.items():
        v = np.asarray(v)
        assert any(a.shape == v.shape and np.array_equal(a, v) for a in kept), what
    for v in values(method.frozen_variables):
        assert not any(a.shape == v.shape and np.array_equal(a, v) for a in kept)
    # Before the first step the mean is the student; a restored one is not.
    again = compiled(
        make("moco_v2", distiller=distiller({n: objective(n) for n in own.objectives}))
    )
    saver.restore(again)
    for a, b in zip(values(method.variables), values(again.variables), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_mean_student_starts_from_what_the_student_starts_from():
    method = make("distill", distiller=distiller({"compress_2q": objective("compress_2q")}))
    keras.utils.set_random_seed(9)
    other = network(1)
    method.start_from(other)
    for own in (method.encoder, method.distiller.mean_student.mean):
        for v, expected in zip(own.variables, other.variables, strict=True):
            np.testing.assert_array_equal(np.asarray(v), np.asarray(expected))


def test_attention_of_views_of_any_size():
    """SwAV's encoder takes any size, and its maps have that of the view."""
    projector = build_projector(8, (8, 8))
    swav = SwAV(network(1), projector, prototypes=10, distiller=distiller({"at": AT()}))
    plain = make("distill", distiller=distiller({"at": AT()}))
    plain.encoder.set_weights(swav.encoder.get_weights())
    small = {"small_views": (views(size=6)[0],)}
    found = [
        compiled(method, 0.0).train_step((*views(), extras))["at"]
        for method, extras in ((swav, small), (plain, None))
    ]
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_attention_is_between_the_maps_of_the_one_pass():
    method = make("barlow_twins", distiller=distiller({"at": AT()}))
    x_a, x_b = views()
    compiled(method, 0.0)
    Counter.reset()
    logs = method.train_step((x_a, x_b))
    relu = keras.Model(method.encoder.inputs[0], method.encoder.get_layer("relu").output)
    own = teacher()
    s = np.asarray(relu(x_a, training=True))
    t = keras.Model(own.inputs[0], own.get_layer("relu").output)(x_a, training=False)
    q = [(np.asarray(x, "float64") ** 2).sum(axis=-1).reshape(16, -1) for x in (s, t)]
    q = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in q]
    np.testing.assert_allclose(logs["at"], ((q[0] - q[1]) ** 2).sum(axis=1).mean(), rtol=1e-4)


def test_a_method_and_an_objective_of_ones_own():
    class Mine(Objective):
        views = 2

        def loss(self, student, teacher):
            return tf.reduce_mean(student.features) - tf.reduce_mean(teacher.features)

    method = BarlowTwins(
        network(1), build_projector(8, (4,)), distiller=distiller({"mine": Mine()})
    )
    assert np.isfinite(compiled(method).train_step(views())["mine"])


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="`weights` must be of objectives that are there"):
        Distiller({"rkd": RKD()}, {"disco": 1.0}, teacher())
    with pytest.raises(ValueError, match="`weights` must be of objectives"):
        Distiller({}, None, teacher())
    for settings in ({}, {"teacher": teacher(), "teacher_widths": (12, 12)}):
        with pytest.raises(ValueError, match="Either `teacher` or `teacher_widths` must be given"):
            Distiller({"rkd": RKD()}, **settings)
    inputs = keras.Input((8,))
    dense = keras.Model(inputs, layers.Dense(4)(inputs))
    with pytest.raises(ValueError, match="`encoder` must have maps"):
        Distiller({"at": AT()}, teacher=dense)
