"""Rows on disk: written whole, reused, and computed anew where they are not what is asked for."""

import errno
import json
import os

import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.distillation.cache import cached_rows

IMAGES = np.random.default_rng(0).normal(size=(11, 4)).astype("float32")
KEY = {"teacher": "a", "data": "b", "image_size": 32}


class Teacher:
    """Twice its input, and one more column; counts what it is asked."""

    def __init__(self):
        self.seen = 0

    def __call__(self, images):
        self.seen += len(images)
        return tf.concat([2 * images, tf.ones((len(images), 1))], axis=1)


def batches(images=IMAGES):
    labels = np.zeros(len(images), np.int64)
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)


def rows_of(folder, teacher=None, images=IMAGES, key=KEY, say=lambda line: None):
    return cached_rows(teacher or Teacher(), batches(images), len(images), folder, key, say)


def expected(images=IMAGES):
    return np.concatenate([2 * images, np.ones((len(images), 1))], axis=1)


def files(folder):
    return sorted(path.suffix for path in folder.iterdir())


def test_rows_are_those_of_the_images_in_order(tmp_path):
    folder = tmp_path / "not" / "there yet"
    rows = rows_of(folder)
    np.testing.assert_array_equal(rows, expected())
    assert rows.dtype == np.float32 and not rows.flags.writeable
    assert isinstance(rows, np.memmap) and files(folder) == [".json", ".npy"]
    (described,) = folder.glob("*.json")
    kept = json.loads(described.read_text())
    assert {**kept, **KEY, "images": 11} == kept


def test_the_teacher_runs_once(tmp_path):
    teacher, said = Teacher(), []
    first = rows_of(tmp_path, teacher)
    again = rows_of(tmp_path, teacher, say=said.append)
    assert teacher.seen == 11 and said == [f"teacher's embeddings: {first.filename}"]
    np.testing.assert_array_equal(again, expected())


@pytest.mark.parametrize("changed", ["teacher", "data", "image_size"])
def test_other_keys_are_other_rows(tmp_path, changed):
    """Beside the first, which are there when they are asked for again."""
    teacher, other = Teacher(), IMAGES[::-1].copy()
    rows_of(tmp_path, teacher)
    np.testing.assert_array_equal(
        rows_of(tmp_path, teacher, other, {**KEY, changed: "c"}), expected(other)
    )
    assert teacher.seen == 22
    np.testing.assert_array_equal(rows_of(tmp_path, teacher), expected())
    assert teacher.seen == 22


def test_fewer_images_are_other_rows(tmp_path):
    rows_of(tmp_path)
    np.testing.assert_array_equal(rows_of(tmp_path, images=IMAGES[:5]), expected(IMAGES[:5]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:60]),
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(b"nothing of the kind"),
        lambda path: path.unlink(),
        lambda path: np.save(path, np.zeros((3, 5), np.float32)),
    ],
    ids=["empty", "head", "cut", "other", "gone", "shape"],
)
def test_what_is_broken_is_computed_anew(tmp_path, spoil):
    rows_of(tmp_path)
    (path,) = tmp_path.glob("*.npy")
    spoil(path)
    teacher = Teacher()
    for _ in range(2):
        np.testing.assert_array_equal(rows_of(tmp_path, teacher), expected())
    assert teacher.seen == 11


def test_a_teacher_that_fails_leaves_nothing_that_counts(tmp_path):
    class Failing(Teacher):
        def __call__(self, images):
            if self.seen:
                raise RuntimeError("killed")
            return super().__call__(images)

    with pytest.raises(RuntimeError, match="killed"):
        rows_of(tmp_path, Failing())
    assert ".npy" not in files(tmp_path) and ".tmp" not in files(tmp_path)
    teacher = Teacher()
    np.testing.assert_array_equal(rows_of(tmp_path, teacher), expected())
    assert teacher.seen == 11


def test_a_full_disk_leaves_nothing_that_counts(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            rows_of(tmp_path)
    assert not {".npy", ".tmp"} & set(files(tmp_path))
    np.testing.assert_array_equal(rows_of(tmp_path), expected())


def test_runs_that_share_a_folder_do_not_write_into_each_other(tmp_path, monkeypatch):
    """Another process begins, and ends, while the first is writing."""

    class Interrupted(Teacher):
        def __call__(self, images):
            if self.seen == 4:
                with monkeypatch.context() as other:
                    other.setattr(os, "getpid", lambda: 0)
                    np.testing.assert_array_equal(rows_of(tmp_path), expected())
            return super().__call__(images)

    first = rows_of(tmp_path, Interrupted())
    np.testing.assert_array_equal(first, expected())
    np.testing.assert_array_equal(rows_of(tmp_path), expected())
    assert files(tmp_path) == [".json", ".npy"]


def test_rows_in_use_outlive_new_ones(tmp_path):
    rows = rows_of(tmp_path)
    (path,) = tmp_path.glob("*.npy")
    path.unlink()
    rows_of(tmp_path, lambda images: -tf.identity(images))
    np.testing.assert_array_equal(rows, expected())


def test_rows_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`teacher` gives embeddings that are not finite"):
        rows_of(tmp_path, lambda images: np.nan * images)
    assert not list(tmp_path.iterdir())


def test_images_that_are_missing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the data hold 11 images where 12 were counted"):
        cached_rows(Teacher(), batches(), 12, tmp_path, KEY, lambda line: None)
