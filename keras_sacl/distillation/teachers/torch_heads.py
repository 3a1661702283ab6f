"""Projection heads of PyTorch checkpoints."""

import keras
from keras import layers

HEADS = ("fc", "projection_head", "projector")


def projector_from_torch(tensors, prefix, features):
    """The projection head that a state dict holds.

    It is a chain of linear layers, BatchNorm and, wherever the numbers of its layers leave a gap,
    ReLU: `fc.*` of MoCo-v2 and SimSiam, `projection_head.*` of SwAV, `projector.*` of Barlow Twins
    and solo-learn. A single linear `fc` is one in MoCo (v1); anywhere else it is a classifier, and
    left out, as are heads of any other kind.

    Args:
        tensors: A dict from names to arrays.
        prefix: What precedes the encoder's own names; a head is looked for inside and beside it.
        features: F of the encoder.

    Returns:
        A `keras.Model`, (B, F) to (B, D), or None.

    Raises:
        ValueError: In one line, the end of a sentence about the checkpoint, if a layer does not
            fit the one before.
    """
    beside = prefix[: prefix[:-1].rfind(".") + 1]
    for head in (f"{base}{name}" for base in (prefix, beside) for name in HEADS):
        classifier = head.endswith("fc") and "encoder_q" not in prefix
        if f"{head}.weight" in tensors and classifier:
            continue
        chain = _chain(tensors, f"{head}.")
        if chain and all(_is_known(parts) for parts in chain.values()):
            return _build(chain, features, head)
    return None


def _chain(tensors, start):
    """Maps the number of each layer to its tensors; None if there are modules within modules."""
    chain = {}
    for name in tensors:
        if name.startswith(start):
            *number, part = name.removeprefix(start).split(".")
            number = ".".join(number) or "0"  # one layer alone has none
            if not number.isdecimal():
                return None
            chain.setdefault(int(number), {})[part] = tensors[name]
    return chain


def _is_known(parts):
    norm = parts.keys() >= {"running_mean", "running_var"}
    return norm or ("weight" in parts and parts["weight"].ndim == 2)


def _build(chain, features, head):
    x = inputs = keras.Input((features,), name="features")
    previous = min(chain) - 1
    for number, parts in sorted(chain.items()):
        if number > previous + 1:
            x = layers.ReLU(name=f"relu{previous + 1}")(x)
        previous = number
        if "running_mean" in parts:
            # Without scale and offset where PyTorch has `affine=False`, as SimSiam's last.
            present = {"scale": "weight" in parts, "center": "bias" in parts}
            layer = layers.BatchNormalization(epsilon=1e-5, **present, name=f"norm{number}")
            names = ("weight", "bias", "running_mean", "running_var")
            values = [parts[name] for name in names if name in parts]
        else:
            kernel = parts["weight"].T
            layer = layers.Dense(kernel.shape[1], use_bias="bias" in parts, name=f"dense{number}")
            values = [kernel, *([parts["bias"]] if "bias" in parts else [])]
        x = layer(x)
        found, expected = [value.shape for value in values], [tuple(v.shape) for v in layer.weights]
        if found != expected:
            raise ValueError(f"has shapes {found} in layer {number} of {head}, not {expected}")
        layer.set_weights(values)
    return keras.Model(inputs, x, name="projector")
