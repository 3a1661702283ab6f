"""Projectors: from features to the embeddings that the losses see."""

import keras
from keras import layers


def build_projector(input_dim, widths=(2048, 2048, 2048)):
    """(Dense - BatchNorm - ReLU) for each width but the last, then a Dense; none has a bias.

    "Barlow Twins: Self-Supervised Learning via Redundancy Reduction" (2021), section 2.2.

    Args:
        input_dim: Number of features F.
        widths: Output width of each layer; the last is the embedding's D.

    Returns:
        A `keras.Model` named "projector", (B, F) to (B, D) float32, or float64 under that policy.

    Raises:
        ValueError: If there is no layer or a width is below 2.
    """
    widths = tuple(widths)
    if not widths or min(widths) < 2:
        raise ValueError(
            f"`widths` must be at least one number of at least 2. Received: widths={widths}"
        )
    x = features = keras.Input((input_dim,), name="features")
    for i, width in enumerate(widths[:-1], start=1):
        x = layers.Dense(width, use_bias=False, name=f"dense{i}")(x)
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"dense{i}_bn")(x)
        x = layers.ReLU(name=f"dense{i}_relu")(x)
    x = layers.Dense(widths[-1], use_bias=False, name=f"dense{len(widths)}")(x)
    precise = "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"
    x = layers.Activation("linear", dtype=precise, name="embeddings")(x)
    return keras.Model(features, x, name="projector")


def parse_projector(text):
    """The widths in a text such as "2048-2048-2048".

    Raises:
        ValueError: If it is none.
    """
    parts = text.split("-")
    if not all(part.isdigit() and int(part) > 1 for part in parts):
        raise ValueError(
            "`projector` must be layer widths joined by '-', such as 2048-2048-2048. "
            f"Received: projector={text!r}"
        )
    return tuple(int(part) for part in parts)
