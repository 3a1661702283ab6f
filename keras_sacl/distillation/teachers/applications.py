"""Networks of keras.applications as teachers, each with the preprocessing it was trained with."""

import difflib
import sys

import keras

from keras_sacl.data.normalisation import IMAGENET_MEAN, IMAGENET_STD

APPLICATIONS = sorted(
    name for name, f in vars(keras.applications).items() if callable(f) and name[0].isupper()
)


@keras.saving.register_keras_serializable("keras_sacl")
class ApplicationPixels(keras.layers.Layer):
    """Brings ImageNet-normalised images to what a network of keras.applications takes.

    255 (x std + mean), the pixels from 0 to 255, through the network's own `preprocess_input`. In
    float32: float16 would round the pixels.

    Args:
        application: One of `APPLICATIONS`.
    """

    keeps_float32 = True  # for `with_precision`

    def __init__(self, application, **kwargs):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.application = application

    def call(self, images):
        """(B, H, W, 3) to the same shape."""
        pixels = 255.0 * (images * keras.ops.array(IMAGENET_STD) + keras.ops.array(IMAGENET_MEAN))
        return _module(self.application).preprocess_input(pixels, data_format="channels_last")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "application": self.application}


def load_application(name, weights=None):
    """A network of keras.applications, without its classifier.

    Args:
        name: One of `APPLICATIONS`.
        weights: "imagenet", which Keras downloads unless it has them; a file of weights without
            the classifier; None for random ones.

    Returns:
        A `keras.Model`, (B, H, W, 3) images of any size, normalised by ImageNet's mean and
        deviation, to (B, F).

    Raises:
        ValueError: In one line, the end of a sentence about the teacher, on an unknown name, or
            weights that are missing or another network's.
    """
    if name not in APPLICATIONS:
        close = difflib.get_close_matches(name, APPLICATIONS, n=1, cutoff=0.4)
        hint = f"; did you mean applications:{close[0]}?" if close else ""
        raise ValueError(f"is no network of keras.applications{hint}")
    images = keras.Input((None, None, 3), name="images")
    pixels = ApplicationPixels(name, name="pixels")(images)
    try:
        network = getattr(keras.applications, name)(
            include_top=False, weights=weights, pooling="avg", input_tensor=pixels
        )
    # Keras raises a bare Exception where a download fails.
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"cannot be built with the weights {weights} ({reason})") from error
    return keras.Model(images, network.outputs[0], name=network.name)


def _module(name):
    return sys.modules[getattr(keras.applications, name).__module__]
