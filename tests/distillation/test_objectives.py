"""The objectives: their heads, queues and settings, and what they make of `Encodings`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.distillation import (
    CC,
    CRD,
    OBJECTIVES,
    RKD,
    SEED,
    CompRess1Q,
    CompRess2Q,
    DisCo,
    Objective,
    Reg,
    RegBN,
    Widths,
    cluster_centres,
    cluster_loss,
    seed_loss,
)
from keras_sacl.encodings import Encodings
from tests.distillation.oracles import (
    compress_oracle,
    crd_oracle,
    regression_oracle,
    rkd_oracle,
    unit,
)


def encodings(seed, features=5, embeddings=None, n=6):
    rng = np.random.default_rng(seed)
    f = tf.constant(rng.normal(size=(n, features)), tf.float32)
    if embeddings is None:
        return Encodings(f)
    d = tf.constant(rng.normal(size=(n, embeddings)), tf.float32)
    return Encodings(f, lambda _: d)


@pytest.mark.parametrize("objective", [DisCo, SEED])
def test_the_projector_is_the_head_where_widths_agree(objective):
    shared = objective(hidden=16)
    shared.connect(Widths(7, 4), Widths(9, 4))
    assert shared.head is None and not shared.trainable_variables
    student = encodings(0, 7, 4)
    assert shared.embed(student) is student.embeddings
    for student in (Widths(7, 5), Widths(7, None), Widths(4, None)):
        own = objective(hidden=16)
        own.connect(student, Widths(9, 4))
        # linear - ReLU - linear, with biases.
        shapes = [tuple(v.shape) for v in own.trainable_variables]
        assert shapes == [(student.features, 16), (16,), (16, 4), (4,)]


def test_seed_forgets_the_oldest_of_the_teachers():
    objective = SEED(queue_size=8, hidden=16, teacher_temperature=0.1, student_temperature=0.3)
    objective.connect(Widths(7, 5), Widths(5, 5))
    objective.head = None
    student, teacher = encodings(0, 7, 5), encodings(1, 5)
    queue = np.array(objective.queue.embeddings, np.float64)
    found = objective.loss(student, teacher)
    expected = seed_loss(student.embeddings, teacher.features, queue, 0.3, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    queue[:6] = unit(np.asarray(teacher.embeddings))
    np.testing.assert_allclose(objective.queue.embeddings, queue, atol=1e-6)


def test_compress_with_one_queue_and_with_two():
    one = CompRess1Q(8, temperature=0.2)
    one.connect(Widths(7, None), Widths(5, 5))
    student, teacher = encodings(0, 7), encodings(1, 5)
    queue = np.array(one.queue.embeddings, np.float64)
    mapped = np.asarray(one.map(student.features), np.float64)
    expected = compress_oracle(mapped, np.asarray(teacher.features, float), queue, queue, 0.2)
    np.testing.assert_allclose(one.loss(student, teacher), expected, rtol=1e-5)

    two = CompRess2Q(8, temperature=0.2)
    two.connect(Widths(7, None), Widths(5, 5))
    assert not two.trainable_variables
    student.mean = encodings(2, 7)
    queues = [np.array(q.embeddings, np.float64) for q in (two.student_queue, two.queue)]
    assert [q.shape for q in queues] == [(8, 7), (8, 5)]
    z = (np.asarray(x.features, np.float64) for x in (student, teacher))
    np.testing.assert_allclose(
        two.loss(student, teacher), compress_oracle(*z, *queues, 0.2), rtol=1e-5
    )
    # The queue of the student is filled by its mean, and row by row as the teacher's.
    for queue, filled in ((two.student_queue, student.mean), (two.queue, teacher)):
        own = unit(np.asarray(filled.features))
        np.testing.assert_allclose(np.asarray(queue.embeddings)[:6], own, atol=1e-6)


def test_crd_keeps_the_normalisers_of_its_first_step():
    objective = CRD(queue_size=20, temperature=0.3, width=4)
    objective.connect(Widths(7, None), Widths(5, 5))
    normalisers = None
    for seed in range(3):
        student, teacher = encodings(seed, 7), encodings(10 + seed, 5)
        s = unit(np.asarray(objective.student_map(student.features), np.float64))
        t = unit(np.asarray(objective.teacher_map(teacher.features), np.float64))
        queues = [
            np.array(q.embeddings, np.float64)
            for q in (objective.teacher_queue, objective.student_queue)
        ]
        if normalisers is None:
            normalisers = [
                np.exp(z @ queue.T / 0.3).mean() for z, queue in zip((s, t), queues, strict=True)
            ]
        expected = crd_oracle(s, t, queues[0], 0.3, normalisers[0])
        expected += crd_oracle(t, s, queues[1], 0.3, normalisers[1])
        with tf.GradientTape() as tape:
            tape.watch(teacher.features)
            found = objective.loss(student, teacher)
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        assert tape.gradient(found, teacher.features) is None
        np.testing.assert_allclose(
            np.exp(np.asarray(objective.log_normalisers)), normalisers, rtol=1e-5
        )
    assert len(objective.trainable_variables) == 4  # the kernels and biases of two maps
    # As many of the student's in its queue as of the teacher's, row by row.
    assert int(objective.student_queue.cursor) == int(objective.teacher_queue.cursor) == 18


@pytest.mark.parametrize("made, whiten", [(Reg, False), (RegBN, True)])
def test_regression_is_by_a_linear_map(made, whiten):
    objective = made()
    objective.connect(Widths(7, None), Widths(5, 5))
    student, teacher = encodings(0, 7), encodings(1, 5)
    kernel, bias = (np.asarray(v, np.float64) for v in objective.trainable_variables)
    mapped = np.asarray(student.features, np.float64) @ kernel + bias
    expected = regression_oracle(mapped, np.asarray(teacher.features, np.float64), whiten)
    np.testing.assert_allclose(objective.loss(student, teacher), expected, rtol=1e-5)


def test_cc_classifies_the_clusters_that_it_was_given():
    objective = CC(clusters=3)
    objective.connect(Widths(7, None), Widths(5, 5))
    features = np.random.default_rng(0).normal(size=(40, 5))
    objective.set_centres(features)
    np.testing.assert_array_equal(np.asarray(objective.centres), cluster_centres(features, 3))
    assert all(v is not objective.centres for v in objective.trainable_variables)
    student, teacher = encodings(0, 7), encodings(1, 5)
    expected = cluster_loss(
        objective.classifier(student.features), teacher.features, objective.centres.value
    )
    np.testing.assert_allclose(objective.loss(student, teacher), expected)


def test_rkd_weighs_angles_twice():
    student, teacher = encodings(0, 7), encodings(1, 5)
    distance, angle = rkd_oracle(*(np.asarray(x.features, np.float64) for x in (student, teacher)))
    np.testing.assert_allclose(RKD().loss(student, teacher), distance + 2 * angle, rtol=1e-5)


CHANGES = {
    "disco": {"hidden": 9}, "at": {}, "rkd": {}, "reg": {}, "reg_bn": {}, "cc": {"clusters": 7},
    "seed": {"hidden": 9, "queue_size": 7, "teacher_temperature": 0.3, "student_temperature": 0.4},
    "compress_1q": {"queue_size": 7, "temperature": 0.3},
    "compress_2q": {"queue_size": 7, "temperature": 0.3},
    "crd": {"queue_size": 7, "temperature": 0.3, "width": 6},
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTIVES)
def test_settings_survive_serialising(name):
    objective = OBJECTIVES[name](**CHANGES[name])
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(objective))
    assert type(again) is OBJECTIVES[name]
    assert {key: again.get_config()[key] for key in CHANGES[name]} == CHANGES[name]


def test_an_objective_of_ones_own_needs_a_loss():
    with pytest.raises(AttributeError, match="Objective must define `loss"):
        Objective().loss(None, None)
