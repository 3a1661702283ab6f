"""The networks whose passes are counted."""

import dataclasses
import functools

import keras

from keras_sacl.costs.flops import forward_flops
from keras_sacl.encoders import build_encoder
from keras_sacl.frozen import is_deterministic


@dataclasses.dataclass(frozen=True)
class Network:
    """An encoder as this package sees it.

    Attributes:
        name: Of the encoder.
        width: Its multiplier of channels; None where nobody knows it.
        image_size: Side of its images, in pixels.
        features: F, the width of its output.
        flops: FLOPs of the forward pass of one image.
        deterministic: Whether a training-mode pass draws no random numbers.
    """

    name: str
    width: float | None
    image_size: int
    features: int
    flops: int
    deterministic: bool = True

    @property
    def macs(self):
        """Multiply-adds of the forward pass of one image."""
        return self.flops // 2


@functools.cache
def measure(name, width=1.0, image_size=224, view_size=None):
    """Builds an encoder and counts it. Each is built once in a process.

    Args:
        name, width, image_size: As in `build_encoder`, which raises ValueError on bad ones.
        view_size: Side in pixels of what it sees, where that is not what it was built for.

    Returns:
        A `Network`.
    """
    model = build_encoder(name, width=width, image_size=image_size)
    if view_size is not None:  # not an encoder built for that size: its stem may be another
        return measure_model(model, name, view_size, width)
    flops, features = forward_flops(model), model.output_shape[-1]
    return Network(name, width, image_size, features, flops, is_deterministic(model))


def measure_model(model, name, image_size, width=None):
    """Counts a model on images of a size, whatever it was built for.

    Args:
        model: A functional `keras.Model` of images that takes those of that size.
        name, width: As in `Network`.
        image_size: Side in pixels.

    Returns:
        A `Network`.

    Raises:
        ValueError: If a model that is one of its layers is of any size.
    """
    # Made anew: layers know the maps of their first call alone, which may be of any size.
    images = keras.Input((image_size, image_size, 3))
    sized = keras.models.clone_model(model, input_tensors=images)
    try:
        flops = forward_flops(sized)
    except TypeError as error:
        raise ValueError(
            "`model` must not hold models of images of any size as layers. "
            f"Received: model={model.name}"
        ) from error
    features = model.output_shape[-1]
    return Network(name, width, image_size, features, flops, is_deterministic(model))
