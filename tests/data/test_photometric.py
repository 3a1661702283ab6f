"""Each operation against the library's, or a float64 NumPy version of torchvision's definition."""

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from keras_sacl.data import photometric

GREY = np.array([0.2989, 0.587, 0.114])


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(6, 12, 16, 3)).astype(np.float32)


FACTORS = np.array([1.0, 0.6, 1.4, 0.0, 0.9, 2.0], np.float32)


def blend(images, other, factors):
    factors = factors.astype(np.float64)[:, None, None, None]
    return np.clip(factors * images + (1 - factors) * other, 0, 1)


def test_brightness(images):
    got = photometric.adjust_brightness(images, FACTORS)
    np.testing.assert_allclose(got, blend(images.astype(np.float64), 0, FACTORS), atol=1e-6)


def test_contrast_blends_with_the_mean_grey_of_each_image(images):
    wide = images.astype(np.float64)
    mean = (wide @ GREY).mean(axis=(1, 2))[:, None, None, None]
    got = photometric.adjust_contrast(images, FACTORS)
    np.testing.assert_allclose(got, blend(wide, mean, FACTORS), atol=1e-6)


def test_saturation_blends_with_grey(images):
    wide = images.astype(np.float64)
    got = photometric.adjust_saturation(images, FACTORS)
    np.testing.assert_allclose(got, blend(wide, (wide @ GREY)[..., None], FACTORS), atol=1e-6)


def test_saturation_is_pillows(images):
    pillow = pytest.importorskip("PIL.Image")
    enhance = pytest.importorskip("PIL.ImageEnhance")
    pixels = np.round(images * 255).astype(np.uint8)
    got = photometric.adjust_saturation(pixels.astype(np.float32) / 255, FACTORS).numpy() * 255
    for image, factor, own in zip(pixels, FACTORS, got, strict=True):
        expected = np.asarray(enhance.Color(pillow.fromarray(image)).enhance(float(factor)))
        assert np.abs(own - expected).max() <= 2  # Pillow rounds twice


@pytest.mark.parametrize("grey", [False, True])
def test_hue_is_the_librarys(images, grey):
    turns = np.array([0.0, 0.1, -0.1, 0.5, -0.37, 0.25], np.float32)
    images = np.repeat(images[..., :1], 3, axis=-1) if grey else images.copy()
    images[:, :2], images[:, 2, :, 0] = 1.0, 0.0  # white, and pure colours
    got = photometric.adjust_hue(images, turns).numpy()
    for image, turn, own in zip(images, turns, got, strict=True):
        np.testing.assert_allclose(own, tf.image.adjust_hue(image, turn), atol=3e-6)


def test_remove_colour_is_the_librarys_for_the_chosen(images):
    chosen = np.array([True, False, True, False, False, True])
    got = photometric.remove_colour(images, chosen).numpy()
    grey = np.repeat(tf.image.rgb_to_grayscale(images), 3, axis=-1)
    np.testing.assert_allclose(got, np.where(chosen[:, None, None, None], grey, images), atol=1e-6)


def test_solarize(images):
    thresholds = photometric.thresholds(np.array([True] * 5 + [False]), 0.5)
    got = photometric.solarize(images, thresholds).numpy()
    np.testing.assert_array_equal(got[:5], np.where(images[:5] < 0.5, images[:5], 1 - images[:5]))
    np.testing.assert_array_equal(got[5], images[5])


@pytest.mark.parametrize("taps", [3, 7])
def test_blur_is_scipys_with_the_same_taps(images, taps):
    sigmas = np.array([0.1, 0.5, 1.0, 1.5, 2.0, 0.8], np.float32)
    got = photometric.gaussian_blur(images, sigmas, taps).numpy()
    for image, sigma, own in zip(images, sigmas, got, strict=True):
        expected = scipy.ndimage.gaussian_filter(
            image.astype(np.float64), (sigma, sigma, 0), radius=(taps // 2, taps // 2, 0),
            mode="mirror",
        )  # fmt: skip
        np.testing.assert_allclose(own, expected, atol=1e-5)


def test_blur_some_blurs_the_chosen_only(images):
    sigmas = np.full(6, 1.0, np.float32)
    chosen = np.array([False, True, False, False, True, False])
    every = photometric.gaussian_blur(images, sigmas, 5).numpy()
    got = photometric.blur_some(images, chosen, sigmas, 5).numpy()
    np.testing.assert_array_equal(got[~chosen], images[~chosen])
    np.testing.assert_allclose(got[chosen], every[chosen], atol=1e-6)
    none = photometric.blur_some(images, np.zeros(6, bool), sigmas, 5)
    np.testing.assert_array_equal(none, images)


def test_the_kernel_is_a_tenth_of_the_image():
    sizes = {8: 3, 32: 3, 64: 7, 96: 9, 224: 23}
    assert {s: photometric.blur_kernel_size(s) for s in sizes} == sizes
