"""The hash of a data set: of what decides the rows of a teacher, and of no more."""

import dataclasses
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.data import ImageSource, content_hash

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), np.uint8)
FILES = [tf.io.encode_png(image).numpy() for image in PIXELS]


def on_disk(folder, contents=FILES):
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.png" for i in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return ImageSource([str(path) for path in paths])


@pytest.fixture(params=["pixels", "bytes", "paths"])
def source(request, tmp_path):
    if request.param == "paths":
        return on_disk(tmp_path / "images")
    return ImageSource(PIXELS if request.param == "pixels" else FILES)


def changed(source, index):
    """The same images but one, of which a byte is another."""
    if source.decoded:
        images = source.images.copy()
        images[index, 2, 3, 1] ^= 1
        return dataclasses.replace(source, images=images)
    images = list(source.images)
    if source.paths:
        with open(images[index], "rb") as file:
            content = bytearray(file.read())
        content[40] ^= 1
        images[index] += ".other"
        with open(images[index], "wb") as file:
            file.write(content)
    else:
        content = bytearray(images[index])
        content[40] ^= 1
        images[index] = bytes(content)
    return dataclasses.replace(source, images=images)


def test_it_is_a_function_of_the_images(source):
    found = content_hash(source)
    assert len(found) == 64 and int(found, 16) >= 0
    assert found == content_hash(dataclasses.replace(source, labels=np.arange(5), greyscale=True))
    assert found == content_hash(source.select(np.arange(5)))


def test_any_image_counts(source):
    hashes = {content_hash(source), *(content_hash(changed(source, i)) for i in range(5))}
    assert len(hashes) == 6


def test_order_and_number_count(source):
    for chosen in ([1, 0, 2, 3, 4], [0, 1, 2, 3], [0, 1, 2, 3, 4, 4]):
        assert content_hash(source.select(np.array(chosen))) != content_hash(source)


def test_where_files_lie_does_not_count(tmp_path):
    here, there = (on_disk(tmp_path / name) for name in ("here", "there"))
    os.utime(here.images[0], (0, 0))
    assert content_hash(here) == content_hash(there) == content_hash(here)


def test_the_shape_of_pixels_counts():
    a, b = ImageSource(PIXELS), ImageSource(PIXELS.reshape(5, 7, 6, 3))
    assert content_hash(a) != content_hash(b)
    # Not how they lie in memory.
    turned = np.asfortranarray(PIXELS)
    assert content_hash(ImageSource(turned)) == content_hash(a)


def test_where_one_file_ends_and_the_next_begins_counts():
    assert content_hash(ImageSource([b"ab", b"c"])) != content_hash(ImageSource([b"a", b"bc"]))


def test_the_way_up_counts():
    plain = ImageSource(FILES)
    hashes = [
        content_hash(dataclasses.replace(plain, orientations=codes))
        for codes in (None, np.ones(5, np.int64), np.array([1, 1, 6, 1, 1]))
    ]
    assert len(set(hashes)) == 3


def test_of_large_files_the_size_and_the_head_count(tmp_path):
    large = [bytes(100_000)]
    first = content_hash(on_disk(tmp_path / "a", large))
    head, tail = bytearray(large[0]), bytearray(large[0])
    head[60_000], tail[90_000] = 1, 1
    assert content_hash(on_disk(tmp_path / "b", [bytes(head)])) != first
    assert content_hash(on_disk(tmp_path / "c", [bytes(tail)])) == first  # as documented
    assert content_hash(on_disk(tmp_path / "d", [bytes(100_001)])) != first
