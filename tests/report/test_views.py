"""Pictures of views: what is where in them, and the command that writes them."""

import sys

import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.data import ImageSource, get_preset
from keras_sacl.report import views


@pytest.mark.long
def test_a_row_is_the_image_and_its_pairs(digit_images):
    images = (255 * digit_images[0][:3]).astype("uint8")
    settings = {"image_size": 32, "pairs": 2}

    def draw(seed):
        source, preset = ImageSource(images), get_preset("digits")
        return views.views_picture(views.view_rows(source, preset, seed=seed, **settings))

    picture = draw(1)
    assert picture.dtype == np.uint8
    assert picture.shape == (3 * 32 + 2 * 4, 32 + 2 * (12 + 2 * 32), 3)
    for row, image in enumerate(images):
        np.testing.assert_array_equal(picture[row * 36 : row * 36 + 32, :32], image)
    view_a, view_b = picture[:32, 44:76], picture[:32, 76:108]
    assert view_a.std() > 10 and view_b.std() > 10 and not np.array_equal(view_a, view_b)
    np.testing.assert_array_equal(picture, draw(1))
    assert not np.array_equal(picture, draw(2))


def call(monkeypatch, *flags):
    monkeypatch.setattr(sys, "argv", ["views", *flags])
    return views.main()


@pytest.mark.long
def test_the_command_writes_a_picture_of_each_preset(monkeypatch, tmp_path):
    flags = f"--output={tmp_path} --presets=cifar10,imagenet1k --image_size=24 --pairs=2".split()
    assert call(monkeypatch, *flags) == 0
    for name in ("cifar10", "imagenet1k"):
        picture = tf.io.decode_png((tmp_path / f"views_{name}.png").read_bytes())
        assert picture.shape == (2 * 24 + 4, 24 + 2 * (12 + 48), 3)  # scikit-learn's photographs


@pytest.mark.parametrize(
    "flag, text", [("--presets=cifar", "did you mean cifar10"), ("--pairs=1", "`pairs` must be")]
)
def test_bad_input_is_named(monkeypatch, capsys, tmp_path, flag, text):
    assert call(monkeypatch, f"--output={tmp_path}", flag) == 2
    assert text in capsys.readouterr().err.replace("Did", "did")
    assert not list(tmp_path.iterdir())
