import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.data import PRESETS, ViewPreset, all_presets, augment_view, get_preset, normalise
from keras_sacl.data.views import Draws, change_pixels, draw_table

NOTHING = ViewPreset(
    crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0
)


def only(**changes):
    return dataclasses.replace(NOTHING, **changes)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).uniform(size=(64, 16, 16, 3)).astype(np.float32)


def view(images, preset, seed=(1, 2), size=16):
    return augment_view(images, preset, seed, size).numpy()


def test_nothing_changes_nothing(images):
    np.testing.assert_allclose(view(images, NOTHING), images, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_keeps_shape_and_range(images, name):
    for preset in get_preset(name):
        found = view(images, preset, size=24)
        assert found.shape == (64, 24, 24, 3) and found.dtype == np.float32
        assert found.min() >= 0 and found.max() <= 1
        assert np.abs(found[0] - found[1]).max() > 0.05


@pytest.mark.parametrize("name", PRESETS)
def test_a_view_is_a_function_of_the_seed(images, name):
    preset = get_preset(name)[1]
    compiled = tf.function(lambda x, seed: augment_view(x, preset, seed, 16))
    first = compiled(images, tf.constant([3, 4])).numpy()
    np.testing.assert_array_equal(first, compiled(images, tf.constant([3, 4])))
    np.testing.assert_allclose(first, view(images, preset, (3, 4)), atol=1e-5)
    assert np.abs(first - view(images, preset, (3, 5))).max() > 0.1


def test_images_do_not_see_each_other(images):
    preset = ViewPreset(blur=0.5, solarize=0.5)
    other = images.copy()
    other[1:] = 0.5
    np.testing.assert_allclose(view(images, preset)[0], view(other, preset)[0], atol=1e-6)


def test_equal_images_get_views_of_their_own(images):
    same = np.repeat(images[:1], 64, axis=0)
    found = view(same, ViewPreset())
    assert len(np.unique(found.reshape(64, -1).round(5), axis=0)) == 64


def test_what_is_left_out_changes_nothing_else(images):
    without = view(images, only(flip=0.5, solarize=0.0))
    with_it = view(images, only(flip=0.5, solarize=0.3))
    kept = np.all(np.isclose(without, with_it), axis=(1, 2, 3))
    assert 0.4 < kept.mean() < 0.95


@pytest.mark.parametrize(
    "changes",
    [{"flip": 0.5}, {"grayscale": 0.2}, {"blur": 0.1}, {"solarize": 0.2}, {"jitter": 0.8}],
    ids=lambda c: next(iter(c)),
)
def test_probabilities(changes):
    count = 2000
    rng = np.random.default_rng(0)
    images = np.repeat(rng.uniform(0.2, 0.8, size=(1, 8, 8, 3)), count, axis=0).astype(np.float32)
    found = view(images, only(blur_sigma=(0.9, 2.0), **changes), size=8)
    changed = np.any(np.abs(found - images) > 1e-3, axis=(1, 2, 3)).mean()
    probability = next(iter(changes.values()))
    # Four standard deviations of a share of `count`, and the rare factor too near to 1 to see.
    assert abs(changed - probability) < 4 * np.sqrt(probability * (1 - probability) / count) + 2e-3


def test_strengths():
    images = np.full((2000, 4, 4, 3), 0.5, np.float32)
    jitter = {"jitter": 1.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    factors = view(images, only(brightness=0.4, **jitter), size=4)[:, 0, 0, 0] / 0.5
    assert 0.6 <= factors.min() < 0.61 and 1.39 < factors.max() <= 1.4
    assert abs(factors.mean() - 1) < 0.02
    draws = Draws(draw_table((1, 2), 2000))
    planes = tf.constant(images.transpose(0, 3, 1, 2))
    expected = change_pixels(planes, only(brightness=0.4, **jitter), draws)
    np.testing.assert_allclose(factors, expected[:, 0, 0, 0] / 0.5, atol=1e-5)


def test_hue_turns_within_its_strength():
    images = np.tile(np.float32([0.8, 0.4, 0.3]), (1000, 4, 4, 1))
    colour = only(jitter=1.0, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.1)
    hue = tf.image.rgb_to_hsv(view(images, colour, size=4))[:, 0, 0, 0].numpy()
    start = tf.image.rgb_to_hsv(images[:1, 0, 0])[0, 0].numpy()
    turns = (hue - start + 0.5) % 1 - 0.5
    assert np.abs(turns).max() <= 0.1 + 1e-5 and turns.min() < -0.095 and turns.max() > 0.095


def test_presets_of_the_paper():
    for name, blurs in {
        "imagenet1k": (1.0, 0.1),
        "imagenet100": (1.0, 0.1),
        "cifar10": (0, 0),
    }.items():
        views = get_preset(name)
        assert tuple(v.blur for v in views) == blurs
        assert tuple(v.solarize for v in views) == (0.0, 0.2)
        for v in views:
            assert (v.flip, v.jitter, v.brightness, v.contrast, v.hue) == (0.5, 0.8, 0.4, 0.4, 0.1)
            assert v.crop_area == (0.08, 1.0) and v.grayscale == 0.2
    assert [v.saturation for v in get_preset("imagenet100")] == [0.0, 0.2]
    assert [v.saturation for v in get_preset("imagenet1k")] == [0.2, 0.2]


def test_presets_of_other_papers():
    """As published: MoCo-v2's code, ssl-small's appendix, CompRess, SwAV's code."""
    moco, aug_plus, swav, compress = (
        get_preset(name) for name in ("moco_v2", "aug_plus", "swav", "compress")
    )
    for a, b in (moco, aug_plus, swav, compress):
        assert a == b and a.solarize == 0 and a.flip == 0.5 and a.crop_aspect == (3 / 4, 4 / 3)
    for preset, area, strengths, grayscale, blur in (
        (moco[0], (0.2, 1.0), (0.4, 0.4, 0.4, 0.1), 0.2, 0.5),
        (aug_plus[0], (0.2, 1.0), (0.8, 0.8, 0.8, 0.4), 0.5, 0.5),
        (swav[0], (0.14, 1.0), (0.8, 0.8, 0.8, 0.2), 0.2, 0.5),
    ):
        assert preset.crop_area == area and preset.jitter == 0.8
        found = preset.brightness, preset.contrast, preset.saturation, preset.hue
        assert found == strengths
        assert (preset.grayscale, preset.blur) == (grayscale, blur)
        assert preset.blur_sigma == (0.1, 2.0)
    plain = compress[0]
    assert plain.crop_area == (0.08, 1.0) and not plain.uses_colour
    assert plain.jitter == plain.blur == plain.grayscale == 0


@pytest.mark.parametrize("name", PRESETS)
def test_small_views_differ_from_view_a_by_their_crops(name):
    pair = get_preset(name)
    *both, first, second = all_presets(pair, 2)
    assert tuple(both) == pair and first == second
    assert first == dataclasses.replace(pair[0], crop_area=(0.05, 0.14))
    assert all_presets(pair, 0) == pair


def test_greyscale_presets_use_no_colour():
    assert not any(v.uses_colour for name in ("digits", "grayscale") for v in get_preset(name))
    assert all(v.uses_colour for name in ("imagenet1k", "cifar10") for v in get_preset(name))
    assert all(v.flip == 0 and v.crop_area == (0.5, 1.0) for v in get_preset("digits"))


def test_bad_input():
    with pytest.raises(ValueError, match="`augmentation` must be one of .*cifar10.*cifar11"):
        get_preset("cifar11")
    for changes in ({"flip": 1.5}, {"hue": 0.6}, {"crop_area": (0.5, 1.2)}, {"contrast": -1}):
        with pytest.raises(ValueError, match=f"`{next(iter(changes))}` must be .*Received"):
            ViewPreset(**changes)
    with pytest.raises(ValueError, match="`std` must be three positive"):
        normalise(np.zeros((1, 2, 2, 3)), std=(1.0, 0.0, 1.0))


def test_normalise_is_its_formula(images):
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.4, 0.3)
    expected = (images.astype(np.float64) - mean) / std
    np.testing.assert_allclose(normalise(tf.constant(images), mean, std), expected, atol=1e-5)
