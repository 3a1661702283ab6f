import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.data import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageSource,
    ViewPreset,
    all_presets,
    decode_all,
    get_preset,
    load_source,
    normalise,
    plain_batches,
    raw_batches,
    two_view_dataset,
    view_finisher,
)

SETTINGS = {"image_size": 16, "batch_size": 8, "seed": 5}
STILL = ViewPreset(
    crop_area=(1.0, 1.0), crop_aspect=(1.0, 1.0), flip=0.0, jitter=0.0, grayscale=0.0
)


def pixels(count, height=16, width=16):
    return np.random.default_rng(count).integers(0, 256, (count, height, width, 3), np.uint8)


def encoded(count):
    return [tf.io.encode_png(pixels(1, 20 + i, 30)[0]).numpy() for i in range(count)]


@pytest.fixture(params=["decoded", "bytes", "paths"])
def source(request, tmp_path):
    if request.param == "decoded":
        return ImageSource(pixels(21))
    if request.param == "bytes":
        return ImageSource(encoded(21))
    paths = [tmp_path / f"{i}.png" for i in range(21)]
    for path, content in zip(paths, encoded(21), strict=True):
        path.write_bytes(content)
    return ImageSource([str(path) for path in paths])


def views(source, name="imagenet1k", **changes):
    data = two_view_dataset(source, get_preset(name), **{"epochs": 3, **SETTINGS, **changes})
    return list(data.as_numpy_iterator())


def test_shapes_and_steps(source):
    data = two_view_dataset(source, get_preset("imagenet1k"), epochs=3, **SETTINGS)
    assert data.cardinality() == 3 * 2
    assert [tuple(s.shape) for s in data.element_spec] == [(8, 16, 16, 3)] * 2
    found = list(data.as_numpy_iterator())
    assert len(found) == 6
    for a, b in found:
        assert (
            a.dtype == b.dtype == np.float32 and np.all(np.isfinite(a)) and np.all(np.isfinite(b))
        )
        assert np.abs(a - b).max() > 0.5


@pytest.mark.long
@pytest.mark.parametrize("start_step", [2, 5])
def test_a_resumed_stream_is_the_uninterrupted_one(source, start_step):
    whole = views(source)
    resumed = views(source, start_step=start_step)
    assert len(resumed) == 6 - start_step
    for (a, b), (c, d) in zip(whole[start_step:], resumed, strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_the_seed_changes_everything(source):
    (a, b), (c, d) = views(source)[0], views(source, seed=6)[0]
    assert np.abs(a - c).max() > 0.5 and np.abs(b - d).max() > 0.5


def test_more_epochs_do_not_change_the_first():
    source = ImageSource(pixels(21))
    np.testing.assert_array_equal(views(source)[1][0], views(source, epochs=9)[1][0])


def seen(source, epochs=4, **changes):
    data = two_view_dataset(source, (STILL, STILL), epochs=epochs, **{**SETTINGS, **changes})
    return list(data.as_numpy_iterator())


def test_each_epoch_is_a_permutation_of_its_own():
    levels = np.arange(20, dtype=np.uint8) * 10
    source = ImageSource(np.tile(levels[:, None, None, None], (1, 16, 16, 3)))
    found = seen(source, batch_size=10, mean=(0, 0, 0), std=(1, 1, 1))
    values = np.array([np.round(a[:, 0, 0, 0] * 25.5).astype(int) for a, _ in found])
    epochs = values.reshape(4, 20)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(20), (4, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_still_views_are_the_normalised_images_twice():
    source = ImageSource(pixels(8))
    (a, b), *_ = seen(source, epochs=1)
    np.testing.assert_allclose(a, b, atol=1e-5)
    expected = (source.images / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    order = [np.abs(expected - image).mean(axis=(1, 2, 3)).argmin() for image in a]
    assert sorted(order) == list(range(8))
    np.testing.assert_allclose(a, expected[order], atol=1e-4)


# Small images in memory are cropped by the batch, large ones and files one at a time.
@pytest.mark.long
@pytest.mark.parametrize(("side", "size"), [(32, 12), (32, 32), (32, 64), (170, 40)])
def test_photos_and_pixels_get_the_same_views(side, size):
    images = pixels(8, side, side)
    files = ImageSource([tf.io.encode_png(image).numpy() for image in images])
    # No solarizing: it is not continuous, so that rounding decides on pixels at the threshold.
    presets = (ViewPreset(), ViewPreset(blur=0.5))
    settings = {**SETTINGS, "image_size": size, "epochs": 1}
    both = [two_view_dataset(s, presets, **settings) for s in (ImageSource(images), files)]
    for of_pixels, of_files in zip(*both, strict=True):
        for expected, found in zip(of_pixels, of_files, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-3)


def test_decode_all():
    images = pixels(5, 20, 30)
    files = ImageSource([tf.io.encode_png(image).numpy() for image in images], np.arange(5))
    found = decode_all(files)
    np.testing.assert_array_equal(found.images, images)
    np.testing.assert_array_equal(found.labels, files.labels)
    assert decode_all(found) is found
    with pytest.raises(ValueError, match="one size.*20 x 30 .*21 x 30 for image 1"):
        decode_all(ImageSource(encoded(3)))


@pytest.mark.long
def test_views_finished_on_the_device_are_those_of_the_host(source):
    presets = get_preset("imagenet1k")
    crops = two_view_dataset(source, presets, epochs=1, augment_on="device", **SETTINGS)
    finish = view_finisher(presets)
    for pairs, expected in zip(crops, views(source, epochs=1), strict=True):
        for (found, table), view, finished in zip(pairs, expected, finish(*pairs), strict=True):
            assert found.shape == (8, 3, 16, 16) and table.shape[0] == 8
            np.testing.assert_allclose(finished, view, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("workers", [1, 2])
def test_a_data_service_makes_every_step_once(workers):
    service = tf.data.experimental.service
    dispatcher = service.DispatchServer()
    address = dispatcher.target
    configuration = service.WorkerConfig(dispatcher_address=address.split("://")[1])
    running = [service.WorkerServer(configuration) for _ in range(workers)]
    source = ImageSource(pixels(21))
    found = views(source, service=address)
    expected = views(source)
    assert len(found) == len(expected) and len(running) == workers

    # The same steps, and so the same randomness, in whatever order; none is made by two workers.
    def key(step):
        return tuple(view.sum(dtype="float64").round(3) for view in step)

    assert sorted(map(key, found)) == sorted(map(key, expected))
    assert len({key(step) for step in found}) == len(found)


def levels(kind):
    """21 images, each of one grey, ten times its number."""
    images = [np.full((16 + i, 20, 3), 10 * i, np.uint8) for i in range(21)]
    if kind == "pixels":
        return ImageSource(np.stack([image[:16, :16] for image in images]))
    return ImageSource([tf.io.encode_png(image).numpy() for image in images])


def with_rows(source, presets=(STILL, STILL), **changes):
    """With each image a row: its number, and half of it."""
    rows = np.arange(len(source))[:, None] * np.float64([1, 0.5])
    settings = {"epochs": 3, "mean": (0, 0, 0), "std": (1, 1, 1), "rows": rows, **SETTINGS}
    return two_view_dataset(source, presets, **{**settings, **changes})


@pytest.mark.parametrize(
    "kind, changes",
    [
        ("pixels", {}),
        ("pixels", {"start_step": 3, "small_views": 1}),
        ("pixels", {"start_step": 1, "part": (1, 4)}),
        ("files", {"start_step": 1, "part": (1, 2)}),
    ],
)
def test_rows_are_those_of_the_images(kind, changes):
    count = 8 // changes.get("part", (0, 1))[1]
    changes = {"small_size": 8, **changes}
    data = with_rows(levels(kind), **changes)
    assert data.cardinality() == 6 - changes.get("start_step", 0)
    assert data.element_spec[2]["teacher"] == tf.TensorSpec((count, 2), tf.float32)
    found = []
    for a, b, extras in data.as_numpy_iterator():
        numbers, halves = extras["teacher"].T
        np.testing.assert_array_equal(halves, numbers / 2)
        for view in (a, b, *extras.get("small_views", ())):
            np.testing.assert_allclose(view.mean(axis=(1, 2, 3)) * 25.5, numbers, atol=0.01)
        found.append(numbers)
    assert len(found) == len(data) and len(set(map(tuple, found))) == len(found)


def test_rows_change_nothing_else():
    source = levels("pixels")
    for (a, b), (c, d, _) in zip(
        seen(source, epochs=3, mean=(0, 0, 0), std=(1, 1, 1)), with_rows(source), strict=True
    ):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_rows_are_read_from_a_file_as_they_are_needed(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.arange(42, dtype=np.float32).reshape(21, 2))
    rows = np.load(path, mmap_mode="r")
    for a, _, extras in with_rows(levels("pixels"), rows=rows).as_numpy_iterator():
        numbers = np.round(a[:, 0, 0, 0] * 25.5).astype(int)
        np.testing.assert_array_equal(
            extras["teacher"], np.stack([2 * numbers, 2 * numbers + 1], 1)
        )


def test_rows_with_views_that_are_finished_on_the_device():
    source, presets = levels("pixels"), get_preset("digits")
    settings = {"augment_on": "device", "small_views": 2, "small_size": 8}
    data = with_rows(source, presets, **settings)
    finish = view_finisher(all_presets(presets, 2))
    host = with_rows(
        source, presets, small_views=2, small_size=8, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )
    for (a, b, extras), (c, d, expected) in zip(data, host, strict=True):
        np.testing.assert_array_equal(extras["teacher"], expected["teacher"])
        finished = finish(a, b, *extras["small_views"])
        for own, other in zip(finished, (c, d, *expected["small_views"]), strict=True):
            np.testing.assert_allclose(own, other, atol=1e-4)


@pytest.mark.parametrize("source", ["decoded", "bytes"], indirect=True)
def test_small_views_have_their_size_and_differ(source):
    found = views(source, "compress", small_views=3, small_size=10)
    for a, b, extras in found:
        assert a.shape == b.shape == (8, 16, 16, 3) and set(extras) == {"small_views"}
        small = extras["small_views"]
        assert [x.shape for x in small] == [(8, 10, 10, 3)] * 3
        for i, x in enumerate(small):
            assert x.dtype == np.float32 and np.isfinite(x).all()
            for other in small[:i]:
                assert np.abs(x - other).max(axis=(1, 2, 3)).min() > 0.01
    assert np.abs(found[0][2]["small_views"][0] - found[1][2]["small_views"][0]).max() > 0.1
    # The large views are those without them, and fewer of them are the first of more.
    few = views(source, "compress", small_views=1, small_size=10, start_step=4)
    for (a, b, extras), (c, d, less) in zip(found[4:], few, strict=True):
        np.testing.assert_array_equal(extras["small_views"][0], less["small_views"][0])
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)
    for (a, b, _), (c, d) in zip(found, views(source, "compress"), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, d)


def test_small_views_are_of_small_parts():
    """5 to 14 % of the area, by the columns that a square crop has in it."""
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :, 0] = np.arange(64)[None] * 4  # red counts them
    source = ImageSource(np.stack([image] * 16))
    preset = dataclasses.replace(STILL, crop_area=(0.5, 1.0))
    data = two_view_dataset(
        source, (preset, preset), image_size=32, batch_size=16, seed=0, epochs=4, small_views=2,
        small_size=16, mean=(0, 0, 0), std=(1, 1, 1),
    )  # fmt: skip
    for a, _, extras in data.as_numpy_iterator():
        for x, least, most in ((a, 0.5, 1.0), *((s, 0.05, 0.14) for s in extras["small_views"])):
            seen_columns = (x[..., 0].max(axis=(1, 2)) - x[..., 0].min(axis=(1, 2))) * 255 / 252
            share = (seen_columns * 63 + 1) / 64
            assert np.all(share > np.sqrt(least) - 0.05) and np.all(share < np.sqrt(most) + 0.05)


def test_bad_settings(source):
    for batch_size in (0, 1, 22):
        with pytest.raises(ValueError, match=f"`batch_size` must .*batch_size={batch_size}"):
            views(source, batch_size=batch_size)
    with pytest.raises(ValueError, match="`start_step` must be in .*start_step=7"):
        views(source, start_step=7)
    with pytest.raises(ValueError, match="`epochs`"):
        views(source, epochs=0)
    with pytest.raises(ValueError, match="`seed`"):
        views(source, seed=-1)
    with pytest.raises(ValueError, match="`batch_size`"):
        raw_batches(source, image_size=16, batch_size=0)


def test_plain_batches_keep_order_and_the_last_images(source):
    batches = list(plain_batches(source, image_size=16, batch_size=8).as_numpy_iterator())
    assert [len(x) for x, _ in batches] == [8, 8, 5]
    assert all(np.all(y == -1) and y.dtype == np.int64 for _, y in batches)
    one = list(plain_batches(source, image_size=16, batch_size=1).as_numpy_iterator())
    np.testing.assert_array_equal(
        np.concatenate([x for x, _ in batches]), np.concatenate([x for x, _ in one])
    )


def test_plain_is_raw_normalised(source):
    settings = {"image_size": 12, "batch_size": 21}
    (raw, _), *_ = raw_batches(source, **settings).as_numpy_iterator()
    (plain, _), *_ = plain_batches(source, **settings).as_numpy_iterator()
    assert raw.dtype == np.uint8 and raw.shape == (21, 12, 12, 3)
    np.testing.assert_allclose(plain, normalise(raw / np.float32(255)), atol=1e-6)


def test_small_images_are_resized_whole():
    source = load_source("digits", "test").take(6)
    (raw, labels), *_ = raw_batches(source, image_size=32, batch_size=6).as_numpy_iterator()
    expected = np.round(tf.image.resize(source.images, (32, 32), antialias=True))
    assert np.abs(raw - expected).max() <= 1  # a half may be rounded either way
    np.testing.assert_array_equal(labels, source.labels)
    (same, _), *_ = raw_batches(source, image_size=8, batch_size=6).as_numpy_iterator()
    np.testing.assert_array_equal(same, source.images)


def test_photos_are_resized_then_cropped_to_the_centre():
    gradient = np.tile(np.linspace(0, 255, 512)[None, :, None], (256, 1, 3)).astype(np.uint8)
    source = ImageSource([tf.io.encode_png(gradient).numpy()])
    (raw, _), *_ = raw_batches(source, image_size=224, batch_size=1).as_numpy_iterator()
    np.testing.assert_array_equal(raw[0], gradient[16:240, 144:368])
    (half, _), *_ = raw_batches(source, image_size=112, batch_size=1).as_numpy_iterator()
    expected = tf.image.resize(gradient, (128, 256), antialias=True)[8:120, 72:184]
    assert np.abs(half[0] - expected).max() <= 1


def test_real_photos(tfds_dir):
    source = load_source("grocery_store", "train", data_dir=tfds_dir, image_size=64, limit=16)
    found = views(source, image_size=64, epochs=1)
    assert len(found) == 2 and found[0][0].shape == (8, 64, 64, 3)
    assert 0.3 < np.std(found[0][0]) < 3
