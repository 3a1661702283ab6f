"""One TFLite file that learns the user's own classes on the phone, from a few photos of each."""

import hashlib
import os
from pathlib import Path

import numpy as np

from keras_sacl.export.checking import compare
from keras_sacl.export.personal.graph import convert_personal, unit_features
from keras_sacl.export.personal.runner import PersonalRunner
from keras_sacl.export.preprocessing import with_preprocessing
from keras_sacl.fingerprint import fingerprint

__all__ = ["PersonalRunner", "check_path", "export_personal", "unit_features"]

# Of the file's features to Keras': more than for an encoder alone, since without their mean the
# features are smaller and their rounding is not.
_MAX_DIFFERENCE = 1e-3


def export_personal(encoder, path, *, classes, mean, std, preprocessing=True):
    """Writes a frozen encoder and a linear softmax head that learns, as one TFLite file.

    The file has six signatures. S is the side of the images in pixels, F the encoder's features,
    N the classes, B any number of photos; all are float32 where nothing else is said.

        features  images (1, S, S, 3)                                      -> features (1, F)
        train     features (B, F), labels (B,) int32, learning_rate ()     -> loss ()
        infer     images (1, S, S, 3)                                      -> probabilities (1, N)
        save      unused () int32                -> kernel (F, N), bias (N,), encoder () int32
        restore   kernel (F, N), bias (N,)                                 -> classes () int32
        reset     unused () int32                                          -> classes () int32

    `train` is one step of gradient descent on the cross entropy of softmax(x W + b), averaged
    over the B photos: with p the probabilities and y the one-hot labels,

        W <- W - rate x^T (p - y) / B        b <- b - rate sum(p - y) / B

    and gives the loss before the step. `features` subtracts from each feature vector its own
    mean and divides by its length. A length of 1 bounds the curvature of the loss by
    1/2 (|x|^2 + 1) = 1, so that a step of any rate below 2 on all photos together lowers their
    loss, whatever encoder is inside: 1 is the rate to use. `reset` sets the head to zeros, as it
    is in a new interpreter; `encoder` is a check number that ties a saved head to its encoder;
    `unused` may be any number, and is there because Android's `runSignature` wants an input.

    The head is a resource variable, and every operation one of TFLite's own. That is why `save`
    and `restore` take and give tensors, which the app keeps in a file: `tf.raw_ops.Save` and
    `Restore`, as in TensorFlow's guide "On-device training", need the Flex delegate, which
    is a second library in the app, and none in ai-edge-litert.

    Args:
        encoder: A `keras.Model`, (B, S, S, 3) normalised pixels to (B, F). It runs in inference
            mode and is not trained.
        path: The file to write, ending in .tflite. It must not exist.
        classes: Slots for classes, at least 2; an app need not use them all.
        mean, std: Of the normalisation, three numbers each, for pixels in [0, 1].
        preprocessing: Whether `images` are uint8 pixels, normalised inside the file, and not
            float32 ones that the app has normalised.

    Returns:
        The `PersonalRunner` of the new file.

    Raises:
        ValueError: If an argument is not as above, if the encoder holds operations that TFLite
            lacks, or if the file's features are not those of Keras.
    """
    check_path("path", path)
    _check(encoder, classes, mean, std)
    number = _number(encoder, mean, std)
    model = with_preprocessing(encoder, mean, std) if preprocessing else encoder
    try:
        content = convert_personal(model, classes, number)
    except Exception as error:  # the converter has several kinds, of many lines
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            "`encoder` must hold only operations that TFLite has. "
            f"Received: encoder={encoder.name}, which cannot be converted ({reason})"
        ) from error
    path = Path(path)
    temporary = path.with_name(f"tmp-{path.name}")
    try:
        temporary.write_bytes(content)
        _compare(model, PersonalRunner(temporary))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return PersonalRunner(path)


def _number(encoder, mean, std):
    """What `save` gives as `encoder`: 31 bits of a SHA-256 over weights and normalisation."""
    text = fingerprint(encoder) + np.asarray([mean, std], "<f8").tobytes().hex()
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") >> 1


def _compare(model, runner):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, *model.input_shape[1:])).astype("uint8")
    if not runner.takes_pixels:
        images = ((images / 255 - 0.5) / 0.25).astype("float32")
    expected = unit_features(model(images, training=False))
    difference = compare(expected, runner.features(images))["max_abs_diff"]
    if not difference <= _MAX_DIFFERENCE:
        raise ValueError(
            "`encoder` must give the same features in the file and in Keras. "
            f"Received: encoder={model.name}, which differs by {difference:.2g}"
        )


def _check(encoder, classes, mean, std):
    given, features = (getattr(encoder, f"{side}_shape", ()) for side in ("input", "output"))
    sizes = [isinstance(n, int) for n in (*given[1:], *features[1:])]
    if sizes != 4 * [True] or given[1] != given[2] or given[3] != 3 or features[1] < 2:
        raise ValueError(
            "`encoder` must take images (None, S, S, 3) of one size and give features (None, F) "
            f"of at least 2. Received: encoder={encoder.name}, from {given} to {features}"
        )
    if not encoder.inputs[0].dtype.startswith("float"):
        raise ValueError(
            "`encoder` must take normalised pixels: `preprocessing` puts the normalisation before "
            f"it. Received: encoder={encoder.name}, which takes {encoder.inputs[0].dtype}"
        )
    if isinstance(classes, bool) or not isinstance(classes, int | np.integer) or classes < 2:
        raise ValueError(
            f"`classes` must be a whole number of at least 2. Received: classes={classes}"
        )
    for name, numbers in (("mean", mean), ("std", std)):
        right = np.shape(numbers) == (3,) and np.isfinite(numbers).all()
        if not right or (name == "std" and min(numbers) <= 0):
            kind = "three positive numbers" if name == "std" else "three numbers"
            raise ValueError(f"`{name}` must be {kind}. Received: {name}={numbers}")


def check_path(name, path):
    """Refuses a path that `export_personal` cannot or must not write; `name` is for the message.

    Raises:
        ValueError: If it does not end in .tflite, exists, or its directory cannot be written.
    """
    path = Path(path)
    if path.suffix != ".tflite" or path.exists():
        raise ValueError(
            f"`{name}` must be a new file that ends in .tflite. Received: {name}={path}"
            f"{', which exists' if path.exists() else ''}"
        )
    if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise ValueError(
            f"`{name}` must be in a directory that exists and can be written. "
            f"Received: {name}={path}"
        )
