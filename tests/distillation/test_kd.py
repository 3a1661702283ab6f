import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.distillation import kd_loss


def random_logits(seed, scale=3.0):
    return np.random.default_rng(seed).normal(0, scale, (6, 5))


def softmax(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def loss_and_gradient(student, teacher, temperature):
    z, t = tf.constant(student), tf.constant(teacher)
    with tf.GradientTape() as tape:
        tape.watch([z, t])
        loss = kd_loss(z, t, temperature)
    dz, dt = tape.gradient(loss, [z, t])
    assert dt is None
    return float(loss), dz.numpy()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-5)])
def test_is_the_divergence_of_the_softened_outputs(temperature, dtype, tolerance):
    student, teacher = random_logits(0), random_logits(1)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * np.mean(np.sum(p * (np.log(p) - np.log(q)), axis=1))
    loss, gradient = loss_and_gradient(student.astype(dtype), teacher.astype(dtype), temperature)
    assert gradient.dtype == dtype
    np.testing.assert_allclose(loss, expected, rtol=tolerance)
    np.testing.assert_allclose(
        gradient, temperature * (q - p) / len(student), rtol=tolerance, atol=tolerance
    )


def test_a_high_temperature_matches_the_centred_logits():
    """Equation 4 of the paper, times T^2: the gradient tends to (z - t) / C."""
    student, teacher = random_logits(2), random_logits(3)
    gradient = loss_and_gradient(student, teacher, 1e5)[1]
    z, t = (x - x.mean(axis=1, keepdims=True) for x in (student, teacher))
    np.testing.assert_allclose(gradient, (z - t) / 5 / len(student), atol=1e-4)


def test_the_teacher_itself_is_the_minimum():
    teacher = random_logits(4)
    loss, gradient = loss_and_gradient(teacher + 7.0, teacher, 4.0)  # a constant changes nothing
    assert abs(loss) < 1e-12 and np.abs(gradient).max() < 1e-12


def test_confident_logits_stay_finite():
    student, teacher = random_logits(5, 1e4), random_logits(6, 1e4)
    for dtype in ("float32", "float16"):
        loss, gradient = loss_and_gradient(student.astype(dtype), teacher.astype(dtype), 1.0)
        assert np.isfinite(loss) and np.isfinite(gradient).all()


@pytest.mark.parametrize("temperature", [0, -1, float("nan")])
def test_a_temperature_is_positive(temperature):
    with pytest.raises(ValueError, match="`temperature` must be positive. Received: temperature="):
        kd_loss(random_logits(0), random_logits(1), temperature)
