"""Pixels of files are those that Pillow, and with it a phone or a browser, decodes."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from keras_sacl.data.decoding import decode, pixel_count


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pixels_are_those_of_pillow(kind, mode):
    image = Image.fromarray(load_sample_image("china.jpg")).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **({"lossless": True} if kind == "WEBP" else {}))
    found = decode(file.getvalue()).numpy()
    with Image.open(io.BytesIO(file.getvalue())) as opened:
        np.testing.assert_array_equal(found, np.asarray(opened.convert("RGB")))
    assert pixel_count(file.getvalue()) == 427 * 640
