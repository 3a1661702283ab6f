import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_sacl.data.crops import CROP_ATTEMPTS, centre_crop, random_crops
from keras_sacl.data.presets import ViewPreset


def draws(count, seed=0):
    numbers = np.random.default_rng(seed).uniform(size=(count, 2 * CROP_ATTEMPTS + 2))
    return tf.constant(numbers, tf.float32)


@pytest.mark.parametrize("size", [(32, 32), (30, 90)])
def test_crops_lie_in_the_image_and_keep_the_limits(size):
    crops = random_crops(draws(4000), ViewPreset(), *size).numpy().astype(np.float64)
    top, left, height, width = crops.T
    assert np.all(top >= 0) and np.all(top + height <= size[0] + 1e-3)
    assert np.all(left >= 0) and np.all(left + width <= size[1] + 1e-3)
    aspect, area = width / height, width * height / (size[0] * size[1])
    assert np.all((aspect > 3 / 4 - 1e-4) & (aspect < 4 / 3 + 1e-4))
    assert np.all((area > 0.08 - 1e-4) & (area <= 1 + 1e-6))


def test_distribution_is_torchvisions():
    """Against a literal loop over attempts, in the words of RandomResizedCrop.get_params."""
    rng = np.random.default_rng(3)
    expected = []
    for _ in range(4000):
        for _ in range(10):
            area = rng.uniform(0.08, 1.0) * 32 * 32
            aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            width, height = np.sqrt(area * aspect), np.sqrt(area / aspect)
            if width <= 32 and height <= 32:
                break
        else:
            width = height = 32
        top, left = rng.uniform(0, 32 - height), rng.uniform(0, 32 - width)
        expected.append((top, left, height, width))
    got = random_crops(draws(4000), ViewPreset(), 32, 32).numpy()
    for own, other in zip(got.T, np.transpose(expected), strict=True):
        assert scipy.stats.ks_2samp(own, other).pvalue > 1e-3


def test_full_area_is_the_whole_image():
    preset = dataclasses.replace(ViewPreset(), crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0))
    for side in (8, 31, 33, 224):
        crops = random_crops(draws(50), preset, side, side).numpy()
        np.testing.assert_allclose(crops, [[0, 0, side, side]] * 50, rtol=1e-5, atol=1e-3)


def test_without_a_fit_the_largest_centred_crop():
    preset = dataclasses.replace(ViewPreset(), crop_area=(1.0, 1.0))
    crops = random_crops(draws(20), preset, 30, 90).numpy()
    np.testing.assert_allclose(crops, [[0, 25, 30, 40]] * 20, rtol=1e-5)


def test_sizes_may_differ_within_a_batch():
    numbers = draws(3)
    got = random_crops(numbers, ViewPreset(), tf.constant([32, 50, 64]), tf.constant([32, 70, 40]))
    one = random_crops(numbers[1:2], ViewPreset(), 50, 70)
    np.testing.assert_array_equal(got[1], one[0])


def test_the_centred_square():
    np.testing.assert_array_equal(centre_crop(12, 16), [0, 2, 12, 12])
    np.testing.assert_allclose(centre_crop(256, 300, 224 / 256), [16, 38, 224, 224])
