"""ResNets of PyTorch checkpoints: which one it is, and its weights into ours, layer by layer."""

import keras
from keras import layers

from keras_sacl.distillation.teachers.torch_heads import HEADS, projector_from_torch
from keras_sacl.encoders.resnet import LAYOUTS, torch_resnet

# Every ResNet with torchvision's names has this tensor; what precedes it says where the network is.
_LANDMARK = "layer1.0.conv1.weight"
# Networks that follow another: the mean encoders of MoCo, BYOL and their like.
_FOLLOWERS = ("encoder_k.", "momentum_", "target_")
_LEFTOVERS = (*HEADS, "classifier", "head", "predictor", "prototypes", "queue", "queue_ptr")
# In the order of Keras' BatchNormalization.
_NORM = ("weight", "bias", "running_mean", "running_var")


def resnet_from_torch(tensors):
    """A ResNet and its projection head, from a state dict.

    Understood are the names of torchvision's ResNets after any prefix (`module.encoder_q.` of
    MoCo, `module.` of SwAV, `backbone.` of Barlow Twins and solo-learn, ...); of two networks, the
    one that is not the mean of the other. Depth, width (w2: all channels doubled) and stem follow
    from names and shapes. A 3 x 3 stem is taken to have neither stride nor pooling, as for CIFAR;
    solo-learn's pads two pixels there, others one.

    Args:
        tensors: A dict from names to arrays, as of `read_torch_checkpoint`.

    Returns:
        (encoder, projector): `keras.Model`s, (B, H, W, 3) images of any size, normalised by
        ImageNet's mean and deviation, to (B, F); and (B, F) to (B, D), or None.

    Raises:
        ValueError: In one line, the end of a sentence about the checkpoint, which names the first
            tensor that is missing, unknown or of another shape.
    """
    prefix = _prefix(tensors)
    name, planes, stem = _architecture(tensors, prefix)
    plan = dict(_layers(prefix, name, planes, stem))
    shapes = {tensor: shape for parts in plan.values() for tensor, shape in parts.items()}
    # All of it before the first layer is built: a false width could ask for any amount of memory.
    for tensor, shape in shapes.items():
        found = _shape(tensors, tensor)
        if found != shape:
            raise ValueError(f"has {tensor} of shape {found} where the others ask for {shape}")
    _check_leftovers(tensors, prefix, shapes)

    small = stem == 3
    # It trains a linear classifier beside every method.
    solo_learn = prefix in ("backbone.", "encoder.") and "classifier.weight" in tensors
    backbone = torch_resnet(name, planes / 64, small_stem=small, border=int(small and solo_learn))
    for layer, parts in plan.items():
        values = [tensors[tensor] for tensor in parts]
        kernel = values[0].ndim == 4
        backbone.get_layer(layer).set_weights(
            [values[0].transpose(2, 3, 1, 0)] if kernel else values
        )
    pool = layers.GlobalAveragePooling2D(dtype="float32", name="features")
    encoder = keras.Model(backbone.inputs[0], pool(backbone.outputs[0]), name=name)
    return encoder, projector_from_torch(tensors, prefix, encoder.output_shape[-1])


def _prefix(tensors):
    found = [name.removesuffix(_LANDMARK) for name in tensors if name.endswith(_LANDMARK)]
    if not found:
        raise ValueError(
            f"holds no ResNet with PyTorch's names: no tensor's name ends with {_LANDMARK} (the "
            f"first one is {next(iter(tensors))})"
        )
    leaders = [prefix for prefix in found if not any(f in prefix for f in _FOLLOWERS)]
    return (leaders or found)[0]


def _architecture(tensors, prefix):
    """The name in `LAYOUTS`, the filters of the stem, and the side of its kernel in pixels."""
    counts = []
    for stage in range(1, 5):
        start = f"{prefix}layer{stage}."
        blocks = {n[len(start) :].split(".")[0] for n in tensors if n.startswith(start)}
        counts.append(max((int(block) + 1 for block in blocks if block.isdecimal()), default=0))
    bottleneck = f"{prefix}layer1.0.conv3.weight" in tensors
    names = [name for name, layout in LAYOUTS.items() if layout == (tuple(counts), bottleneck)]
    if not names:
        kind = "bottlenecks" if bottleneck else "basic blocks"
        raise ValueError(
            f"has {'-'.join(map(str, counts))} {kind} in {prefix}layer1 to 4, which is none of "
            f"{', '.join(LAYOUTS)}"
        )
    stem = _shape(tensors, f"{prefix}conv1.weight")
    if stem[1:] not in ((3, 7, 7), (3, 3, 3)) or stem[0] % 8:
        raise ValueError(
            f"has {prefix}conv1.weight of shape {stem} where a ResNet has (64, 3, 7, 7), or for "
            "small images (64, 3, 3, 3), or another multiple of 8 filters"
        )
    return names[0], stem[0], stem[-1]


def _layers(prefix, name, planes, stem):
    """(name of our layer, its tensors in Keras' order with their shapes), of each with weights."""
    for theirs, norm, ours, shape in _convolutions(name, planes, stem):
        yield ours, {f"{prefix}{theirs}.weight": shape}
        yield f"{ours}_bn", {f"{prefix}{norm}.{part}": shape[:1] for part in _NORM}


def _convolutions(name, planes, stem):
    """(convolution, BatchNorm, our layer, shape of the kernel (out, in, k, k)) of each one."""
    repeats, bottleneck = LAYOUTS[name]
    yield "conv1", "bn1", "stem", (planes, 3, stem, stem)
    inputs = planes
    for stage, blocks in enumerate(repeats, start=1):
        width = planes * 2 ** (stage - 1)
        outputs = 4 * width if bottleneck else width
        for i in range(blocks):
            theirs, ours = f"layer{stage}.{i}", f"stage{stage}_block{i + 1}"
            if bottleneck:
                shapes = [(width, inputs, 1), (width, width, 3), (outputs, width, 1)]
            else:
                shapes = [(width, inputs, 3), (width, width, 3)]
            for j, (out, into, k) in enumerate(shapes, start=1):
                yield f"{theirs}.conv{j}", f"{theirs}.bn{j}", f"{ours}_conv{j}", (out, into, k, k)
            if i == 0 and (stage > 1 or bottleneck):
                shape = (outputs, inputs, 1, 1)
                yield f"{theirs}.downsample.0", f"{theirs}.downsample.1", f"{ours}_shortcut", shape
            inputs = outputs


def _shape(tensors, name):
    if name not in tensors:
        raise ValueError(f"lacks the tensor {name}")
    return tensors[name].shape


def _check_leftovers(tensors, prefix, used):
    """Outside the prefix there are other networks; inside, all must be known."""
    for name in tensors:
        module = name.removeprefix(prefix).split(".")[0].rstrip("0123456789")
        known = module in _LEFTOVERS or name.endswith(".num_batches_tracked")
        if name.startswith(prefix) and name not in used and not known:
            raise ValueError(f"has the tensor {name}, which is no part of a ResNet")
