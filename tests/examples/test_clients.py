"""The clients find in a photo what Keras finds in the pixels of `raw_batches`."""

import importlib
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from keras_sacl.data import IMAGENET_MEAN, IMAGENET_STD, ImageSource, raw_batches
from keras_sacl.export import open_encoder, with_preprocessing
from tests.tiny_classifier import NAMES, SIZE

CLIENTS = {
    ".keras": "classify_keras",
    ".tflite": "classify_tflite",
    ".onnx": "classify_onnx",
    "": "classify_saved_model",
}


def pixels_of(paths):
    """(N, SIZE, SIZE, 3) uint8 of photos."""
    source = ImageSource([path.read_bytes() for path in paths])
    ((pixels, _),) = raw_batches(source, image_size=SIZE, batch_size=8)
    return pixels.numpy()


def by_keras(classifier, paths):
    """Probabilities (N, classes) of photos."""
    images = (pixels_of(paths) / 255.0 - IMAGENET_MEAN) / IMAGENET_STD
    return np.asarray(keras.ops.softmax(classifier(images.astype("float32"), training=False)))


def by_file(path, contract, photo):
    """Probabilities (classes,) of a photo, by a TFLite file in this library's own hands."""
    pixels = pixels_of([photo])
    images = {
        "images": ((pixels / 255.0 - IMAGENET_MEAN) / IMAGENET_STD).astype("float32"),
        "pixels": pixels,
    }[contract]
    logits = open_encoder(path)(images)[0].astype("float64")
    return np.exp(logits) / np.exp(logits).sum()


def printed(text):
    """(names, probabilities) that a client printed."""
    rows = re.findall(r"^(\d\.\d{4})  (.+)$", text, re.M)
    return [name for _, name in rows], [float(p) for p, _ in rows]


@pytest.mark.slow
@pytest.mark.parametrize(
    "contract, name, tolerance",
    [
        ("images", "classifier.keras", 2e-4),
        ("images", "classifier.tflite", 2e-4),
        ("images", "classifier_int8.tflite", None),
        ("images", "classifier.onnx", 2e-4),
        ("images", "classifier_saved_model", 2e-4),
        ("pixels", "classifier.keras", 2e-4),
        ("pixels", "classifier_uint8.tflite", None),
        ("pixels", "classifier.onnx", 2e-4),
        ("photos", "classifier.tflite", 2e-3),
        ("photos", "classifier.onnx", 2e-3),
    ],
)
def test_a_client_is_keras(
    contract, name, tolerance, classifier, files, photos, examples, tmp_path, capsys
):
    path = files[contract, name]
    client = importlib.import_module(CLIENTS[path.suffix])
    more = []
    if path.suffix == ".keras":
        (tmp_path / "labels.txt").write_text("".join(f"{n}\n" for n in NAMES), "utf-8")
        more = [f"--labels={tmp_path / 'labels.txt'}"]
    for photo, expected in zip(photos, by_keras(classifier, photos), strict=True):
        client.main([str(path), str(photo), *more])
        names, probabilities = printed(capsys.readouterr().out)
        if tolerance is None:  # of 8 bits: near to Keras, and equal to the file run from here
            shown = expected[[NAMES.index(name) for name in names]]
            assert np.abs(probabilities - shown).max() <= 0.15
            expected = by_file(path, contract, photo)
        best = np.argsort(-expected, kind="stable")[:5]
        assert names == [NAMES[i] for i in best]
        assert np.abs(probabilities - expected[best]).max() <= (tolerance or 2e-4)


def test_the_pixels_are_those_of_training(photos, examples):
    import photo

    for path, expected in zip(photos, pixels_of(photos), strict=True):
        found = photo.crop_and_resize(photo.load_photo(path), SIZE)
        # Sums in another order: what lies on a half may be rounded the other way.
        assert np.abs(found.astype(int) - expected).max() <= 1
        assert (found != expected).mean() < 1e-3


def test_small_pictures_are_taken_whole_and_enlarged(examples):
    import photo
    import tensorflow as tf

    picture = np.random.default_rng(0).integers(0, 256, (24, 20, 3), "uint8")
    square = picture[2:22].astype("float32")
    expected = np.rint(tf.image.resize(square, (48, 48), antialias=True))
    inside = slice(4, -4)  # at the edge the crop knows what lies beyond it
    found = photo.crop_and_resize(picture, 48, share=1.0)
    np.testing.assert_allclose(found[inside, inside], expected[inside, inside], atol=1)


def test_a_photo_is_turned_upright(photos, examples, tmp_path):
    import photo

    upright = Image.open(photos[1])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.rotate(90, expand=True).save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(photo.load_photo(tmp_path / "turned.png"), upright)


@pytest.mark.long
def test_clients_need_only_their_runtime(files, photos, examples):
    """As an app has it: no keras_sacl, no TensorFlow, and a file is all there is."""
    script = f"""
import runpy, sys
sys.argv = ["classify", {str(files["images", "classifier.onnx"])!r}, {str(photos[0])!r}]
runpy.run_path({str(examples / "classify_onnx.py")!r}, run_name="__main__")
assert not {{"keras_sacl", "tensorflow", "keras", "onnx"}} & set(sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[0] = {str(examples)!r}\n{script}"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(printed(done.stdout)[0]) == 5
    for path in (*examples.glob("classify_*.py"), examples / "photo.py"):
        assert not re.search(r"^\s*(from|import) keras_sacl", path.read_text("utf-8"), re.M)


@pytest.mark.parametrize("client", sorted(CLIENTS.values()))
def test_bad_input_is_one_line(client, files, photos, examples, tmp_path, capsys):
    main = importlib.import_module(client).main
    (tmp_path / "broken.png").write_bytes(b"no photo")
    suffix = next(ending for ending, name in CLIENTS.items() if name == client)
    (tmp_path / f"broken{suffix}").write_bytes(b"no model")
    model = next(
        str(p) for (kind, _), p in files.items() if kind == "images" and p.suffix == suffix
    )
    photo = str(photos[0])
    for arguments, part in [
        ([str(tmp_path / f"broken{suffix}"), photo], f"broken{suffix}: "),
        ([str(tmp_path / f"none{suffix}"), photo], f"none{suffix}: "),
        ([model, str(tmp_path / "broken.png")], "broken.png: "),
        ([model, str(tmp_path / "none.png")], "none.png: "),
        ([model], "required: photo"),
    ]:
        with pytest.raises(SystemExit) as stopped:
            main(arguments)
        error = capsys.readouterr().err.strip()
        assert stopped.value.code == 2
        assert error.startswith("classify: ") and part in error and len(error.splitlines()) == 1


@pytest.mark.parametrize("contract", ["images", "pixels"])
@pytest.mark.parametrize(
    "flag, part",
    [
        ("--crop_share=2", "argument --crop_share: must be above 0 and at most 1. Received: 2"),
        ("--crop_share=0", "argument --crop_share: must be above 0 and at most 1. Received: 0"),
        ("--crop_share=nan", "argument --crop_share: must be above 0 and at most 1. Received: nan"),
        ("--crop_share=half", "argument --crop_share: invalid share value: 'half'"),
        ("--labels=TMP/none", "--labels=TMP/none: [Errno 2]"),
        ("--labels=TMP", "--labels=TMP: [Errno 21]"),
        ("--labels=TMP/binary", "--labels=TMP/binary: 'utf-8' codec"),
        ("--labels=TMP/three", "has 10 classes, and the file of --labels 3 names"),
        ("--labels=TMP/empty", "has 10 classes, and the file of --labels 0 names"),
    ],
)
def test_flags_of_keras(contract, flag, part, files, photos, examples, tmp_path, capsys):
    client = importlib.import_module("classify_keras")
    for name, content in (("binary", b"\xff"), ("three", b"a\nb\nc\n"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
    flag, part = (text.replace("TMP", str(tmp_path)) for text in (flag, part))
    part = f"{files[contract, 'classifier.keras']}: {part}" if part.startswith("has") else part
    with pytest.raises(SystemExit) as stopped:
        client.main([str(files[contract, "classifier.keras"]), str(photos[0]), flag])
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and len(error.splitlines()) == 1
    assert error.startswith(f"classify: {part}")


def test_labels_are_read_before_the_model(photos, examples, tmp_path, capsys):
    client = importlib.import_module("classify_keras")
    with pytest.raises(SystemExit):
        client.main([str(tmp_path / "none.keras"), str(photos[0]), "--labels=none"])
    assert capsys.readouterr().err.startswith("classify: --labels=none: [Errno 2]")


@pytest.mark.parametrize("pixels", [False, True])
def test_a_keras_encoder_is_no_classifier(pixels, classifier, photos, examples, tmp_path, capsys):
    client = importlib.import_module("classify_keras")
    path = tmp_path / "encoder.keras"
    encoder = keras.Model(classifier.inputs, classifier.layers[-1].input)
    encoder = with_preprocessing(encoder, IMAGENET_MEAN, IMAGENET_STD) if pixels else encoder
    encoder.save(path)
    with pytest.raises(SystemExit) as stopped:
        client.main([str(path), str(photos[0])])
    expected = f"classify: {path}: its last layer is not `logits`: it is no classifier\n"
    assert stopped.value.code == 2 and capsys.readouterr().err == expected


@pytest.mark.parametrize("name", ["classifier.tflite", "classifier.onnx", "classifier_saved_model"])
def test_a_file_without_a_card(name, files, photos, examples, tmp_path, capsys):
    whole, path = files["images", name], tmp_path / name
    if path.suffix == ".tflite":  # the archive is behind the model
        content = whole.read_bytes()
        path.write_bytes(content[: content.index(b"PK\x03\x04")])
    elif path.suffix == ".onnx":
        model = onnx.load(whole)
        del model.metadata_props[:]
        onnx.save(model, path)
    else:
        shutil.copytree(whole, path, ignore=shutil.ignore_patterns("assets.extra"))
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(CLIENTS[path.suffix]).main([str(path), str(photos[0])])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"classify: {path}: holds no model card\n"


def test_a_runtime_that_fails_is_one_line(photos, examples, capsys):
    import photo

    def run(batch):
        raise RuntimeError("no room\nfor the tensors")

    contract = {"name": "pixels", "size": 8, "layout": "nhwc"}
    with pytest.raises(SystemExit) as stopped:
        photo.classify(lambda path: (contract, None, run), "a.onnx", photos[0])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "classify: a.onnx: no room for the tensors\n"


def test_an_encoder_is_no_classifier(examples):
    import photo

    with pytest.raises(ValueError, match="gives features: it is no classifier"):
        photo.card_and_labels({"model_card.json": '{"output": {"name": "features"}}'})
    with pytest.raises(ValueError, match="holds no model card"):
        photo.card_and_labels({})
