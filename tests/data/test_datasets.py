import os

import numpy as np
import pytest
import tensorflow as tf

from keras_sacl.data import load_source, plain_batches
from keras_sacl.evaluation import extract_features


def write(path, shape=(20, 24, 3), seed=0, grey=False):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    pixels = np.repeat(pixels[..., :1], 3, axis=-1) if grey else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    encode = tf.io.encode_png if path.suffix == ".png" else tf.io.encode_jpeg
    path.write_bytes(encode(pixels).numpy())


@pytest.fixture
def folder(tmp_path):
    for name in ("b_cat", "a_dog"):
        for i in range(20):
            write(tmp_path / name / "deeper" / f"{i:02}.{'png' if i % 2 else 'JPG'}", seed=i)
    return tmp_path


def test_digits_are_split_once_and_for_all():
    train, test = (load_source("digits", split, image_size=32) for split in ("train", "test"))
    assert len(train) + len(test) == 1797 and abs(len(test) - 359) < 10
    assert train.images.dtype == np.uint8 and train.images.shape[1:] == (8, 8, 3)
    assert train.images.max() == 255 and train.images.min() == 0
    assert train.greyscale and not train.skipped
    counts = np.bincount(test.labels)
    assert counts.shape == (10,) and counts.min() >= 34
    assert len(load_source("digits", "train[:100]")) == 100
    assert len(load_source("digits", "train", limit=50)) == 50


def test_take_keeps_all_classes():
    source = load_source("digits", "train")
    order = np.argsort(source.labels, kind="stable")
    few = type(source)(source.images[order], source.labels[order]).take(20)
    assert np.abs(np.bincount(few.labels, minlength=10) - 2).max() <= 1
    assert source.take(10**6) is source and source.take(None) is source


def test_folder_with_classes(folder):
    train, test = (load_source(f"folder:{folder}", split) for split in ("train", "test"))
    assert train.class_names == ["a_dog", "b_cat"] and not train.greyscale
    np.testing.assert_array_equal(np.bincount(train.labels), [18, 18])
    np.testing.assert_array_equal(np.bincount(test.labels), [2, 2])
    assert not set(train.images) & set(test.images)
    assert all(
        train.class_names[label] in path
        for label, path in zip(train.labels, train.images, strict=True)
    )
    assert len(load_source(str(folder), "all")) == 40
    np.testing.assert_array_equal(load_source(str(folder), "train[:50%]").labels, [0] * 18)
    np.testing.assert_array_equal(
        np.bincount(load_source(str(folder), "train", limit=10).labels), [5, 5]
    )


def test_folder_with_split_directories(tmp_path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("x", "y"):
            for i in range(count):
                write(tmp_path / split / name / f"{i}.png", seed=i)
    for name in ("x", "y"):
        os.rename(tmp_path / "train" / name / "2.png", tmp_path / "train" / name / "2.PNG")
    train = load_source(str(tmp_path), "train")
    assert len(train) == 6 and train.class_names == ["x", "y"]
    test = load_source(str(tmp_path), "test")  # val stands in
    assert test.images == load_source(str(tmp_path), "validation").images
    np.testing.assert_array_equal(test.labels, [0, 0, 1, 1])
    assert len(load_source(str(tmp_path), "all")) == 10


@pytest.mark.parametrize("where", ["", "one"])
def test_folder_without_classes(tmp_path, where):
    for i in range(12):
        write(tmp_path / where / f"{i}.jpg", seed=i, grey=True)
    source = load_source(str(tmp_path), "train")
    assert source.labels is None and source.class_names is None and source.greyscale
    assert len(source) == 11 and len(load_source(str(tmp_path), "test")) == 1


def test_broken_files_are_skipped_and_named(folder):
    good = sorted((folder / "a_dog" / "deeper").glob("*.JPG"))
    good[0].write_bytes(b"")
    good[1].write_bytes(good[2].read_bytes()[:200])
    good[3].write_text("no image at all")
    (folder / "a_dog" / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "a_dog" / ".hidden.jpg").write_text("not looked at")
    (folder / "a_dog" / "notes.txt").write_text("not looked at")
    (folder / "b_cat" / "loop").symlink_to(folder)
    source = load_source(str(folder), "all")
    assert len(source) == 37
    reasons = dict(source.skipped)
    assert set(reasons) == {
        str(good[0]),
        str(good[1]),
        str(good[3]),
        str(folder / "a_dog/gone.png"),
    }
    assert (
        "empty" in reasons[str(good[0])]
        and "No such file" in reasons[str(folder / "a_dog/gone.png")]
    )
    assert all("{{" not in reason and "[Op" not in reason for reason in reasons.values())


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="`dataset` must name a folder that exists"):
        load_source(f"folder:{tmp_path}/none", "train")
    with pytest.raises(ValueError, match="`dataset` must name a folder with images"):
        load_source(str(tmp_path), "train")
    (tmp_path / "a.jpg").write_text("no")
    with pytest.raises(ValueError, match="none of 1 files could: .*a.jpg"):
        load_source(str(tmp_path), "all")
    with pytest.raises(ValueError, match="`split` must be train, test"):
        load_source(str(tmp_path), "holdout")
    with pytest.raises(ValueError, match="`split` must be a name such as"):
        load_source(str(tmp_path), "train[")
    with pytest.raises(ValueError, match="`limit` must be at least 1"):
        load_source("digits", "train", limit=0)
    with pytest.raises(ValueError, match="`split` must be train, test or all for dataset=digits"):
        load_source("digits", "validation")


def test_missing_tfds_data(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(ValueError, match="`dataset` must be digits, a folder.*dataset=cifra10"):
        load_source("cifra10", "train", data_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match="does not exist.*--data_dir, or pass --download"
    ) as caught:
        load_source("cifar10", "train", data_dir=str(tmp_path))
    assert f"data_dir={tmp_path}" in str(caught.value) and "\n" not in str(caught.value)


def test_cifar10(tfds_dir):
    test = load_source("cifar10", "test", data_dir=tfds_dir, image_size=32)
    assert test.images.shape == (10000, 32, 32, 3) and test.images.dtype == np.uint8
    np.testing.assert_array_equal(np.bincount(test.labels), [1000] * 10)
    assert test.class_names[:2] == ["airplane", "automobile"] and not test.greyscale
    part = load_source("cifar10", "train[:300]", data_dir=tfds_dir, image_size=32, limit=200)
    assert len(part) == 200 and part.labels.dtype == np.int64
    with pytest.raises(ValueError, match="`split` must be one of train, test.*split=tst"):
        load_source("cifar10", "tst", data_dir=tfds_dir)


def test_photos_stay_encoded(tfds_dir):
    source = load_source("grocery_store", "test", data_dir=tfds_dir, image_size=64, limit=30)
    assert len(source) == 30 and isinstance(source.images[0], bytes)
    assert len(source.class_names) == 81 and source.labels.shape == (30,)
    assert not source.greyscale


CLASSES = ("bird", "boat", "car", "dog")
# The classes in six images, and those of them that have an object that is not difficult.
SHOWN = [([0, 2], [0, 2]), ([1], []), ([0, 1, 3], [1]), ([3], [3]), ([], []), ([2, 3], [2])]
PRESENT = [[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 0, 1], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 1]]
HOT = [[1, 0, 1, 0], [0, -1, 0, 0], [-1, 1, 0, -1], [0, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, -1]]


@pytest.fixture(scope="module")
def voc_dir(tmp_path_factory):
    """TFDS data sets on disk: voc_like/photos with the features of voc/2007, voc_like/small."""
    tfds = pytest.importorskip("tensorflow_datasets")
    labels = tfds.features.Sequence(tfds.features.ClassLabel(names=CLASSES))

    class VocLike(tfds.core.GeneratorBasedBuilder):
        # TFDS would look for the package that the tests are in, by importlib_resources.
        __module__ = "__main__"

        BUILDER_CONFIGS = [
            tfds.core.BuilderConfig(name=name, version="1.0.0") for name in ("photos", "small")
        ]

        @property
        def photos(self):
            return self.builder_config.name == "photos"

        def _info(self):
            boxes = {"label": labels.feature, "bbox": tfds.features.BBoxFeature()}
            features = {"labels": labels, "image": tfds.features.Image(shape=(16, 16, 3))}
            if self.photos:
                features |= {
                    "image": tfds.features.Image(),
                    "image/filename": tfds.features.Text(),
                    "objects": tfds.features.Sequence(boxes),
                    "labels_no_difficult": labels,
                }
            features = tfds.features.FeaturesDict(features)
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, dl_manager):
            return {name: self._generate_examples(name) for name in ("train", "val", "test")}

        def _generate_examples(self, split):
            for i, (present, certain) in enumerate(SHOWN):
                if split == "test":  # without annotations, as VOC 2012's
                    present = certain = []
                # The grey of an image says which one it is: TFDS shuffles them.
                row = {"image": np.full((16, 16 + 4 * self.photos, 3), 40 * i, np.uint8)}
                if self.photos:
                    box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
                    row["image/filename"] = f"{i}.jpg"
                    row["objects"] = [{"label": label, "bbox": box} for label in present]
                    row["labels_no_difficult"] = certain
                yield i, row | {"labels": present}

    directory = tmp_path_factory.mktemp("tfds")
    for config in ("photos", "small"):
        VocLike(data_dir=directory, config=config).download_and_prepare()
    return str(directory)


@pytest.mark.parametrize("name, hot", [("voc_like/photos", HOT), ("voc_like/small", PRESENT)])
def test_several_classes_an_image(voc_dir, name, hot):
    source = load_source(name, "train", data_dir=voc_dir, image_size=16)
    assert source.labels.ndim == 2 and source.labels.dtype == np.int64
    assert source.class_names == list(CLASSES)
    assert source.decoded == (name == "voc_like/small")
    features, labels = extract_features(
        lambda images: images[:, 0, 0], plain_batches(
            source, image_size=16, batch_size=4, mean=(0, 0, 0), std=(1, 1, 1)
        )
    )  # fmt: skip
    np.testing.assert_array_equal(labels, source.labels)
    shown = np.round(features[:, 0] * 255 / 40).astype(int)
    assert sorted(shown) == list(range(6))
    np.testing.assert_array_equal(labels, np.array(hot)[shown])
    np.testing.assert_array_equal(source.take(3).labels, source.labels[::2])


def test_splits_of_several_classes(voc_dir):
    both = load_source("voc_like/photos", "train+val", data_dir=voc_dir)
    assert both.labels.shape == (12, 4) and (both.labels.sum(axis=0) == 2 * np.sum(HOT, 0)).all()
    assert load_source("voc_like/small", "train", data_dir=voc_dir, limit=2).labels.shape == (2, 4)
    bare = load_source("voc_like/photos", "test", data_dir=voc_dir)
    assert bare.labels is None and len(bare) == 6
