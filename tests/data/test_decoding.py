"""Pixels of files are those that Pillow, and with it a phone or a browser, decodes."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.datasets import load_sample_image

from keras_sacl.data import load_source, original_images, raw_batches
from keras_sacl.data.decoding import decode, exif_orientation, pixel_count


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


def test_photos_of_a_folder_are_turned_upright(tmp_path):
    photo = Image.fromarray(load_sample_image("china.jpg")).resize((60, 40))
    expected = []
    for code in (None, *range(1, 9), 9):  # 9 is no code
        exif = Image.Exif()
        if code is not None:
            exif[0x0112] = code
        path = tmp_path / f"{code}.{'jpg' if code != 6 else 'png'}"
        photo.save(path, exif=exif)
        assert exif_orientation(path.read_bytes()) == (code if code in range(1, 9) else 1)
        with Image.open(path) as opened:
            expected.append((path.name, np.asarray(ImageOps.exif_transpose(opened))))
    source = load_source(f"folder:{tmp_path}", "all")
    for image, (_, pixels) in zip(original_images(source), sorted(expected), strict=True):
        np.testing.assert_array_equal(image, pixels)
    upright = load_source(f"folder:{tmp_path}", "all[:1]")  # 1.jpg alone
    assert upright.orientations is None and source.orientations is not None
    part = source.select(np.array([5, 0]))  # 6.png lies on its side
    ((turned, _),) = raw_batches(part, image_size=8, batch_size=2)
    ((straight, _),) = raw_batches(upright, image_size=8, batch_size=1)
    assert np.abs(turned[1].numpy().astype(int) - straight[0].numpy()).max() == 0
    assert np.abs(turned[0].numpy().astype(int) - straight[0].numpy()).mean() > 10


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe1\0\x08Exif"])
def test_what_has_no_orientation_is_upright(content):
    assert exif_orientation(content) == 1
