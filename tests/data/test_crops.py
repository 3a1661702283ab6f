import dataclasses

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from keras_sacl.data.crops import (
    CROP_ATTEMPTS,
    centre_crop,
    crop_batch,
    crop_together,
    flip_batch,
    random_crops,
)
from keras_sacl.data.photometric import from_planes, to_planes
from keras_sacl.data.presets import ViewPreset


def draws(count, seed=0):
    numbers = np.random.default_rng(seed).uniform(size=(count, 2 * CROP_ATTEMPTS + 2))
    return tf.constant(numbers, tf.float32)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(size=(5, 12, 16, 3)).astype(np.float32)


def whole(images):
    return np.tile([[0, 0, *images.shape[1:3]]], (len(images), 1)).astype(np.float32)


def crop(images, crops, size, flips=None):
    flips = np.zeros(len(images), bool) if flips is None else flips
    return from_planes(crop_batch(to_planes(images), crops, flips, size)).numpy()


def test_the_whole_square_image_is_itself_and_flips_as_the_library_does(images):
    square = images[:, :, :12]
    np.testing.assert_allclose(crop(square, whole(square), 12), square, atol=1e-6)
    flips = np.array([True, False, True, False, False])
    expected = np.where(flips[:, None, None, None], tf.image.flip_left_right(square), square)
    np.testing.assert_allclose(crop(square, whole(square), 12, flips), expected, atol=1e-6)
    np.testing.assert_array_equal(from_planes(flip_batch(to_planes(square), flips)), expected)


@pytest.mark.parametrize("size", [5, 9, 32])
def test_resizing_is_the_librarys(images, size):
    antialiased = tf.image.resize(images, (size, size), antialias=True)
    np.testing.assert_allclose(crop(images, whole(images), size), antialiased, atol=1e-5)
    square = images[:, :, :12]
    antialiased = tf.image.resize(square, (size, size), antialias=True)
    got = crop_together(square, centre_crop(12, 12), size)
    np.testing.assert_allclose(got, antialiased, atol=1e-6)


def test_any_crop_is_the_librarys(images):
    """Of every image another crop, against one call of the library for each."""
    rng = np.random.default_rng(2)
    low, side = rng.uniform(0, 5, (5, 2)), rng.uniform(3, 7, (5, 2))
    crops = np.concatenate([low, side], axis=1).astype(np.float32)
    got = crop(images, crops, 6)
    for image, box, own in zip(images, crops, got, strict=True):
        np.testing.assert_allclose(crop_together(image[None], box, 6)[0], own, atol=1e-5)


def test_whole_pixel_crops_are_slices(images):
    crops = np.tile([[3.0, 5.0, 8.0, 8.0]], (5, 1)).astype(np.float32)
    np.testing.assert_allclose(crop(images, crops, 8), images[:, 3:11, 5:13], atol=1e-5)
    together = crop_together(images, crops[0], 8)
    np.testing.assert_allclose(together, images[:, 3:11, 5:13], atol=1e-5)
    np.testing.assert_allclose(
        crop_together(images, centre_crop(12, 16), 12), images[:, :, 2:14], atol=1e-5
    )


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
