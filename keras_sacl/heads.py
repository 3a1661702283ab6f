"""Projectors: from features to the embeddings that the losses see."""

import keras
from keras import layers


def build_projector(input_dim, widths=(2048, 2048, 2048), batch_norm=True, dropout=0.0):
    """(Dense - BatchNorm - ReLU) for each width but the last, then a Dense.

    With BatchNorm no Dense layer has a bias, as in "Barlow Twins: Self-Supervised Learning via
    Redundancy Reduction" (2021), section 2.2; without it all have one, as in "Improved Baselines
    with Momentum Contrastive Learning" (2020).

    Args:
        input_dim: Number of features F.
        widths: Output width of each layer; the last is the embedding's D.
        batch_norm: Whether the layers but the last are normalised.
        dropout: Share of the units behind each ReLU that a training step drops, below 1.

    Returns:
        A `keras.Model` named "projector", (B, F) to (B, D) float32, or float64 under that policy.

    Raises:
        ValueError: If there is no layer, a width is below 2, or `dropout` is out of its range.
    """
    widths = tuple(widths)
    if not widths or min(widths) < 2:
        raise ValueError(
            f"`widths` must be at least one number of at least 2. Received: widths={widths}"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"`dropout` must be in [0, 1). Received: dropout={dropout}")
    x = features = keras.Input((input_dim,), name="features")
    for i, width in enumerate(widths[:-1], start=1):
        x = layers.Dense(width, use_bias=not batch_norm, name=f"dense{i}")(x)
        if batch_norm:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"dense{i}_bn")(x)
        x = layers.ReLU(name=f"dense{i}_relu")(x)
        if dropout:
            x = layers.Dropout(dropout, name=f"dense{i}_dropout")(x)
    x = layers.Dense(widths[-1], use_bias=not batch_norm, name=f"dense{len(widths)}")(x)
    x = layers.Activation("linear", dtype=_precise(), name="embeddings")(x)
    return keras.Model(features, x, name="projector")


def build_linear(input_dim, width):
    """One linear map with a bias: (B, F) to (B, D) float32, or float64 under that policy.

    Args:
        input_dim: F.
        width: D, at least 1.

    Returns:
        A `keras.Model` named "linear".
    """
    features = keras.Input((input_dim,), name="features")
    x = layers.Dense(width, name="dense")(features)
    x = layers.Activation("linear", dtype=_precise(), name="embeddings")(x)
    return keras.Model(features, x, name="linear")


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


def _precise():
    return "float64" if keras.config.dtype_policy().compute_dtype == "float64" else "float32"
