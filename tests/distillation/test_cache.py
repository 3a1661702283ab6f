"""Rows on disk: written whole, reused, and computed anew where they are not what is asked for."""

import json

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


def test_rows_are_those_of_the_images_in_order(tmp_path):
    folder = tmp_path / "not" / "there yet"
    rows = rows_of(folder)
    np.testing.assert_array_equal(rows, expected())
    assert rows.dtype == np.float32 and not rows.flags.writeable
    assert sorted(p.name for p in folder.iterdir()) == ["rows.json", "rows.npy"]
    kept = json.loads((folder / "rows.json").read_text())
    assert kept == {"format": 1, "images": 11, **KEY}


def test_the_teacher_runs_once(tmp_path):
    teacher, said = Teacher(), []
    rows_of(tmp_path, teacher)
    before = (tmp_path / "rows.npy").stat().st_mtime_ns
    again = rows_of(tmp_path, teacher, say=said.append)
    assert teacher.seen == 11 and (tmp_path / "rows.npy").stat().st_mtime_ns == before
    np.testing.assert_array_equal(again, expected())
    assert said == [f"teacher's embeddings: {tmp_path / 'rows.npy'}"]


@pytest.mark.parametrize("changed", ["teacher", "data", "image_size"])
def test_other_keys_are_other_rows(tmp_path, changed):
    rows_of(tmp_path)
    teacher, said = Teacher(), []
    other = IMAGES[::-1].copy()
    rows = rows_of(tmp_path, teacher, other, {**KEY, changed: "c"}, said.append)
    np.testing.assert_array_equal(rows, expected(other))
    assert teacher.seen == 11 and "of another teacher or of other images" in said[0]


def test_fewer_images_are_other_rows(tmp_path):
    rows_of(tmp_path)
    np.testing.assert_array_equal(rows_of(tmp_path, images=IMAGES[:5]), expected(IMAGES[:5]))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: (f / "rows.npy").write_bytes(b""),
        lambda f: (f / "rows.npy").write_bytes((f / "rows.npy").read_bytes()[:60]),
        lambda f: (f / "rows.npy").write_bytes((f / "rows.npy").read_bytes()[:-7]),
        lambda f: (f / "rows.npy").write_bytes(b"nothing of the kind"),
        lambda f: (f / "rows.npy").unlink(),
        lambda f: np.save(f / "rows.npy", np.zeros((3, 5), np.float32)),
        lambda f: (f / "rows.json").write_text('{"format": 1'),
        lambda f: (f / "rows.json").write_bytes(b"\xff\xfe"),
        lambda f: (f / "rows.json").unlink(),
    ],
    ids=["empty", "head", "cut", "other", "gone", "shape", "half a key", "bytes", "no key"],
)
def test_what_is_broken_is_computed_anew(tmp_path, spoil):
    rows_of(tmp_path)
    spoil(tmp_path)
    teacher = Teacher()
    np.testing.assert_array_equal(rows_of(tmp_path, teacher), expected())
    assert teacher.seen == 11
    np.testing.assert_array_equal(rows_of(tmp_path, teacher), expected())
    assert teacher.seen == 11


def test_a_teacher_that_fails_leaves_nothing_that_counts(tmp_path):
    rows_of(tmp_path)

    class Failing(Teacher):
        def __call__(self, images):
            if self.seen:
                raise RuntimeError("killed")
            return super().__call__(images)

    with pytest.raises(RuntimeError, match="killed"):
        rows_of(tmp_path, Failing(), key={**KEY, "teacher": "c"})
    assert [p.name for p in tmp_path.iterdir()] == ["rows.npy"]  # the old rows, without a key
    teacher = Teacher()
    np.testing.assert_array_equal(rows_of(tmp_path, teacher), expected())
    assert teacher.seen == 11


def test_runs_that_share_a_folder_do_not_write_into_each_other(tmp_path):
    """A second run begins, and ends, while the first is writing."""

    class Interrupted(Teacher):
        def __call__(self, images):
            if self.seen == 4:
                np.testing.assert_array_equal(rows_of(tmp_path), expected())
            return super().__call__(images)

    first = rows_of(tmp_path, Interrupted())
    np.testing.assert_array_equal(first, expected())
    np.testing.assert_array_equal(rows_of(tmp_path), expected())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.json", "rows.npy"]


def test_rows_in_use_outlive_other_rows(tmp_path):
    rows = rows_of(tmp_path)
    rows_of(tmp_path, images=IMAGES[:5])
    np.testing.assert_array_equal(rows, expected())


def test_rows_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the teacher gives embeddings that are not finite"):
        rows_of(tmp_path, lambda images: np.nan * images)
    assert not list(tmp_path.iterdir())


def test_images_that_are_missing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="the data hold 11 images where 12 were counted"):
        cached_rows(Teacher(), batches(), 12, tmp_path, KEY, lambda line: None)
