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


def on_planes(operation, images, *arguments):
    """An operation on planes, called and answered with the colours last."""
    planes = photometric.to_planes(images)
    return photometric.from_planes(operation(planes, *arguments)).numpy()


FACTORS = np.array([1.0, 0.6, 1.4, 0.0, 0.9, 2.0], np.float32)


def blend(images, other, factors):
    factors = factors.astype(np.float64)[:, None, None, None]
    return np.clip(factors * images + (1 - factors) * other, 0, 1)


def test_brightness(images):
    got = on_planes(photometric.adjust_brightness, images, FACTORS)
    np.testing.assert_allclose(got, blend(images.astype(np.float64), 0, FACTORS), atol=1e-6)


def test_contrast_blends_with_the_mean_grey_of_each_image(images):
    wide = images.astype(np.float64)
    mean = (wide @ GREY).mean(axis=(1, 2))[:, None, None, None]
    got = on_planes(photometric.adjust_contrast, images, FACTORS)
    np.testing.assert_allclose(got, blend(wide, mean, FACTORS), atol=1e-6)


def test_saturation_blends_with_grey(images):
    wide = images.astype(np.float64)
    got = on_planes(photometric.adjust_saturation, images, FACTORS)
    np.testing.assert_allclose(got, blend(wide, (wide @ GREY)[..., None], FACTORS), atol=1e-6)


def test_saturation_is_pillows(images):
    pillow = pytest.importorskip("PIL.Image")
    enhance = pytest.importorskip("PIL.ImageEnhance")
    pixels = np.round(images * 255).astype(np.uint8)
    got = on_planes(photometric.adjust_saturation, pixels.astype(np.float32) / 255, FACTORS) * 255
    for image, factor, own in zip(pixels, FACTORS, got, strict=True):
        expected = np.asarray(enhance.Color(pillow.fromarray(image)).enhance(float(factor)))
        assert np.abs(own - expected).max() <= 2  # Pillow rounds twice


@pytest.mark.parametrize("grey", [False, True])
def test_hue_is_the_librarys(images, grey):
    turns = np.array([0.0, 0.1, -0.1, 0.5, -0.37, 0.25], np.float32)
    images = np.repeat(images[..., :1], 3, axis=-1) if grey else images.copy()
    images[:, :2], images[:, 2, :, 0] = 1.0, 0.0  # white, and pure colours
    got = on_planes(photometric.adjust_hue, images, turns)
    for image, turn, own in zip(images, turns, got, strict=True):
        np.testing.assert_allclose(own, tf.image.adjust_hue(image, turn), atol=3e-6)


def test_remove_colour_is_the_librarys(images):
    grey = np.repeat(tf.image.rgb_to_grayscale(images), 3, axis=-1)
    np.testing.assert_allclose(on_planes(photometric.remove_colour, images), grey, atol=1e-6)


def test_solarize(images):
    got = on_planes(photometric.solarize, images, 0.5)
    np.testing.assert_array_equal(got, np.where(images < 0.5, images, 1 - images))


@pytest.mark.parametrize("taps", [3, 7])
def test_blur_is_scipys_with_the_same_taps(images, taps):
    sigmas = np.array([0.1, 0.5, 1.0, 1.5, 2.0, 0.8], np.float32)
    got = on_planes(photometric.gaussian_blur, images, sigmas, taps)
    for image, sigma, own in zip(images, sigmas, got, strict=True):
        expected = scipy.ndimage.gaussian_filter(
            image.astype(np.float64), (sigma, sigma, 0), radius=(taps // 2, taps // 2, 0),
            mode="mirror",
        )  # fmt: skip
        np.testing.assert_allclose(own, expected, atol=1e-5)


def test_on_chosen_changes_the_chosen_only(images):
    sigmas = np.array([0.3, 1.0, 0.5, 2.0, 1.5, 0.7], np.float32)
    chosen = np.array([False, True, False, False, True, False])

    def blur(planes):
        return photometric.gaussian_blur(planes, sigmas, 5)

    def on_chosen(planes, chosen):
        return photometric.on_chosen(chosen, blur, planes)

    every = on_planes(blur, images)
    got = on_planes(on_chosen, images, chosen)
    np.testing.assert_array_equal(got[~chosen], images[~chosen])
    np.testing.assert_allclose(got[chosen], every[chosen], atol=1e-6)
    np.testing.assert_array_equal(on_planes(on_chosen, images, np.zeros(6, bool)), images)


def test_the_kernel_is_a_tenth_of_the_image():
    sizes = {8: 3, 32: 3, 64: 7, 96: 9, 224: 23}
    assert {s: photometric.blur_kernel_size(s) for s in sizes} == sizes
