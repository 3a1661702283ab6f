"""Every way to resample against the library's antialiased resize, and against each other."""

import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.data.crops import centre_crop
from keras_sacl.data.photometric import from_planes, to_planes
from keras_sacl.data.resampling import crop_batch, crop_image, crop_together


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


# From an enlarged crop to one shrunk so much that the library's operation takes over.
@pytest.mark.parametrize("size", [40, 17, 16, 9, 6, 5, 3])
@pytest.mark.parametrize("flip", [False, True])
def test_a_photo_is_cropped_as_by_the_library(size, flip):
    rng = np.random.default_rng(size)
    photo = tf.constant(rng.integers(0, 256, (24, 31, 3), np.uint8))
    cropped = tf.function(lambda crop: crop_image(photo, crop, flip, size))
    for crop in ([0, 0, 24, 31], [2.3, 4.6, 17.2, 16.9], [0, 13.5, 8.1, 17.5], [23, 30, 1, 1]):
        crop = np.float32(crop)
        expected = crop_together(photo[None], crop, size) / 255
        expected = expected[:, :, ::-1] if flip else expected
        found = cropped(crop)
        assert found.shape == (3, size, size)
        np.testing.assert_allclose(from_planes(found[None]), expected, atol=1e-5)
