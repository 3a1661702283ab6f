"""Teachers: networks that were trained elsewhere, as Keras models."""

import dataclasses
import hashlib
import json
import pathlib

import keras

from keras_sacl.distillation.teachers.applications import APPLICATIONS, load_application
from keras_sacl.distillation.teachers.keras_models import encoder_from_keras, run_from_keras
from keras_sacl.distillation.teachers.resnet_weights import resnet_from_torch
from keras_sacl.distillation.teachers.torch_checkpoint import read_torch_checkpoint
from keras_sacl.fingerprint import fingerprint
from keras_sacl.precision import PRECISIONS, dtype_policy, with_precision

__all__ = ["PRECISIONS", "Teacher", "content_hash", "load_teacher"]

_TORCH = (".pth", ".pth.tar", ".pt")
_EXPECTED = (
    "a .keras file, a run directory, a PyTorch checkpoint of a ResNet (.pth, .pth.tar, .pt), or "
    "applications:NAME, applications:NAME:imagenet or applications:NAME:FILE.h5 of "
    "keras.applications"
)


@dataclasses.dataclass
class Teacher:
    """A frozen network to learn from.

    Attributes:
        encoder: A `keras.Model`, (B, S, S, 3) normalised by ImageNet's mean and deviation, to
            (B, F) float32.
        projector: A `keras.Model`, (B, F) to (B, D), or None.
        name: What it was loaded from.
    """

    encoder: keras.Model
    projector: keras.Model | None
    name: str

    @property
    def image_size(self):
        """S in pixels; None where any will do."""
        return self.encoder.input_shape[1]

    @property
    def features(self):
        """F."""
        return self.encoder.output_shape[-1]

    @property
    def embeddings(self):
        """D of the projector; F without one."""
        return (self.projector or self.encoder).output_shape[-1]


def load_teacher(path_or_name, precision="float32"):
    """A teacher by the name of what holds it.

    - A .keras file: a functional model from images to features, or to a map, whose global average
      is taken. It sees images that are normalised by ImageNet's mean and deviation; a model that
      brings pixels from 0 to 255 to its own scale would need them, which a file does not tell.
    - A run directory of this project: encoder.keras, and projector.keras if it is there.
    - .pth, .pth.tar or .pt: a PyTorch checkpoint of a ResNet, read without PyTorch (see
      `resnet_from_torch` and `projector_from_torch`).
    - applications:NAME[:WEIGHTS]: a network of keras.applications without its classifier, with
      its own preprocessing; random weights, or `imagenet` (Keras downloads them), or a file.

    Args:
        path_or_name: One of these.
        precision: The dtype it computes in, one of `PRECISIONS`. Weights, the global average and
            features are float32 in any case, and so is the projector.

    Returns:
        A `Teacher`, not trainable.

    Raises:
        ValueError: In one line, on an unknown precision, or if there is no such teacher or it
            cannot be read.
    """
    if precision not in PRECISIONS:
        raise ValueError(
            f"`precision` must be one of {', '.join(PRECISIONS)}. Received: precision={precision!r}"
        )
    name = str(path_or_name)
    try:
        with dtype_policy("float32"):
            encoder, projector = _load(name)
        encoder = with_precision(encoder, precision)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"`teacher` must be {_EXPECTED}. Received: teacher={name}, which {reason}"
        ) from error
    for model in (encoder, projector):
        if model is not None:
            model.trainable = False
    return Teacher(encoder, projector, name)


def content_hash(teacher):
    """SHA-256 over what decides a teacher's embeddings, as a hexadecimal string.

    Those are the weights and statistics of both networks, and the settings of their layers, of
    which some have no weights: strides, paddings, activations, dtypes.

    Args:
        teacher: A `Teacher`.
    """
    digest = hashlib.sha256()
    for model in (teacher.encoder, teacher.projector):
        if model is not None:
            for layer in model._flatten_layers(include_self=False):
                digest.update(type(layer).__name__.encode())
                if not isinstance(layer, keras.Model):
                    digest.update(_settings(layer).encode())
            digest.update(fingerprint(model).encode())
    return digest.hexdigest()


def _settings(layer):
    """Its configuration but for names, which count up within a process."""
    config = {k: v for k, v in layer.get_config().items() if k != "name"}
    return json.dumps(config, sort_keys=True, default=str)


def _load(name):
    kind, _, rest = name.partition(":")
    path = pathlib.Path(name)
    if kind == "applications":
        network, _, weights = rest.partition(":")
        return load_application(network, weights or None), None
    if path.is_dir():
        return run_from_keras(path)
    if not path.is_file():
        known = name in APPLICATIONS
        raise ValueError(f"does not exist{f'; did you mean applications:{name}?' if known else ''}")
    if path.suffix == ".keras":
        return encoder_from_keras(path), None
    if name.endswith(_TORCH):
        return _from_torch(path)
    raise ValueError("has another ending")


def _from_torch(path):
    return resnet_from_torch(read_torch_checkpoint(path))
