"""RetinaNet from keras-cv on one of our encoders."""

import math

import keras
from keras import layers

from keras_sacl.batch_norm import training_pass
from keras_sacl.stage_maps import stage_maps

LEVELS = {"P3": 8, "P4": 16, "P5": 32}  # pyramid level to stride, in pixels of the input
_STRIDES = (8, 16, 32, 64, 128)
_ANCHORS = 9  # at each position: three scales of three aspects
_PRIOR = 0.01  # score of every anchor before training


def build_detector(encoder, num_classes, image_size, *, head_width=256):
    """RetinaNet with a copy of an encoder as its backbone.

    The pyramid reads the encoder's last maps of strides 8, 16 and 32, among those through which
    everything passes (so that no map within a residual block is taken). An encoder with a
    small-image stem has no stride of 32: its last map is max-pooled to the strides that lack.
    Convolutions do not depend on the size of the image, so that the weights fit.

    Anchors, matching and decoding are keras-cv's; anchors, pyramid and heads of four convolutions
    are the paper's. Those convolutions start by He's rule: on coloured shapes at 64 px, 120 steps
    brought the loss to 0.38, and to 0.67 from the paper's standard deviation of 0.01. Weights that
    the encoder does not give are drawn from Keras' global random state, see
    `keras.utils.set_random_seed`.

    "Focal Loss for Dense Object Detection" (2017).

    Args:
        encoder: A functional `keras.Model`, (B, S', S', 3) normalised pixels to features. It is
            left as it is.
        num_classes: Number of classes, at least 1.
        image_size: Side S of the detector's square input in pixels, a multiple of 32.
        head_width: Channels of pyramid and heads; 256 in the paper.

    Returns:
        A `keras_cv.models.RetinaNet`, not compiled, for boxes x1, y1, x2, y2 in pixels. Its
        `backbone` gives the maps P3, P4, P5: (B, S/8, S/8, C3), (B, S/16, S/16, C4) and
        (B, S/32, S/32, C5).

    Raises:
        ValueError: If a number is out of range or the encoder cannot be a backbone.
    """
    import keras_cv

    if num_classes < 1:
        raise ValueError(f"`num_classes` must be at least 1. Received: num_classes={num_classes}")
    if head_width < 1:
        raise ValueError(f"`head_width` must be at least 1. Received: head_width={head_width}")
    box_format = "xyxy"
    backbone = pyramid_backbone(encoder, image_size)
    return keras_cv.models.RetinaNet(
        backbone=backbone,
        num_classes=num_classes,
        bounding_box_format=box_format,
        # Given, not left to a preset or a default: presets download their configuration, and
        # keras-cv's own pyramid and heads are 256 wide whatever the encoder.
        anchor_generator=keras_cv.layers.AnchorGenerator(
            bounding_box_format=box_format,
            strides=list(_STRIDES),
            sizes=[4.0 * stride for stride in _STRIDES],
            scales=[2 ** (i / 3) for i in range(3)],
            aspect_ratios=[0.5, 1.0, 2.0],
            clip_boxes=True,
        ),
        feature_pyramid=_feature_pyramid(backbone, head_width),
        classification_head=_head(
            "classification_head",
            head_width,
            _ANCHORS * num_classes,
            math.log(_PRIOR / (1 - _PRIOR)),
        ),
        box_head=_head("box_head", head_width, _ANCHORS * 4, 0.0),
        # For each class by itself and down to low scores, as average precision needs it: left to
        # itself, keras-cv lets a horse suppress its rider, and drops all scores below 0.5.
        prediction_decoder=keras_cv.layers.MultiClassNonMaxSuppression(
            bounding_box_format=box_format,
            from_logits=True,
            iou_threshold=0.5,
            confidence_threshold=0.01,
            max_detections=100,
            max_detections_per_class=100,
        ),
    )


def pyramid_backbone(encoder, image_size):
    """A copy of an encoder that gives the maps of `LEVELS`.

    Args:
        encoder, image_size: As in `build_detector`.

    Returns:
        A functional `keras.Model`, (B, S, S, 3) to a list of three maps; `pyramid_level_inputs`
        names their layers, as keras-cv wants it.

    Raises:
        ValueError: As `build_detector`.
    """
    if not (isinstance(image_size, int) and image_size >= 64 and image_size % 32 == 0):
        raise ValueError(
            "`image_size` must be a multiple of 32 and at least 64. "
            f"Received: image_size={image_size}"
        )
    copy = _resized(encoder, image_size, keep_weights=True)
    copy = training_pass(copy)  # batch normalisation in one kernel, see there
    maps = {
        image_size // x.shape[1]: x
        for x in stage_maps(copy).values()
        if x.shape[1] == x.shape[2] and image_size % x.shape[1] == 0
    }
    if min(maps, default=math.inf) > LEVELS["P3"]:
        raise ValueError(
            f"`encoder` must have a feature map (B, H, W, C) of stride {LEVELS['P3']} or less. "
            f"Received: encoder={encoder.name} with strides {sorted(maps)}"
        )
    outputs = []
    for name, stride in LEVELS.items():
        if stride in maps:
            outputs.append(layers.Identity(name=name)(maps[stride]))
            continue
        finer = outputs[-1] if outputs else maps[max(s for s in maps if s < stride)]
        factor = stride * finer.shape[1] // image_size
        outputs.append(layers.MaxPooling2D(factor, padding="same", name=name)(finer))
    backbone = keras.Model(copy.inputs[0], outputs, name=encoder.name)
    backbone.pyramid_level_inputs = {name: name for name in LEVELS}
    return backbone


def untrained(encoder, image_size):
    """The same encoder with fresh weights, drawn by its layers' own initialisers.

    Args:
        encoder: A functional `keras.Model` from images.
        image_size: Side of the images it will take, in pixels.

    Returns:
        A `keras.Model` of the same graph. Its moving statistics know nothing yet: see
        `settle_statistics`.

    Raises:
        ValueError: If the encoder does not take normalised images, or only of one size.
    """
    return _resized(encoder, image_size, keep_weights=False)


def settle_statistics(model, batches):
    """Sets the moving statistics of a model to their means over batches; changes no weight.

    Just initialised, they would make an untrained backbone that is frozen give nearly nothing.

    Args:
        model: A `keras.Model`.
        batches: Iterable of inputs of the model.
    """
    norms = [
        layer for layer in model._flatten_layers() if isinstance(layer, layers.BatchNormalization)
    ]
    momentums = [norm.momentum for norm in norms]
    for i, images in enumerate(batches):
        for norm in norms:
            norm.momentum = i / (i + 1)  # Eager: each batch sees its own.
        model(images, training=True)
    for norm, momentum in zip(norms, momentums, strict=True):
        norm.momentum = momentum


def _resized(encoder, image_size, keep_weights):
    """A copy of an encoder for images of another size."""
    _check_input(encoder)
    images = keras.Input((image_size, image_size, 3), name="images")

    def clone_function(layer):
        if not isinstance(layer, layers.Layer):
            return layer  # An operation of keras.ops: it has no state.
        return type(layer).from_config(layer.get_config())

    try:
        copy = keras.models.clone_model(
            encoder,
            input_tensors=[images] if isinstance(encoder.input, (list, tuple)) else images,
            clone_function=clone_function,
        )
        if keep_weights:
            copy.set_weights(encoder.get_weights())
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`encoder` must be convolutional up to its pooling, to take {image_size} px. "
            f"Received: encoder={encoder.name} ({reason})"
        ) from error
    return copy


def _check_input(encoder):
    if not hasattr(encoder, "operations") or len(encoder.inputs) != 1:
        raise ValueError(
            "`encoder` must be a functional keras.Model with one input. "
            f"Received: encoder={encoder.name}, a {type(encoder).__name__}"
        )
    (images,) = encoder.inputs
    if len(images.shape) != 4 or images.shape[-1] != 3 or "float" not in images.dtype:
        raise ValueError(
            "`encoder` must take normalised float pixels (B, S, S, 3), as the encoder.keras of a "
            f"run does. Received: encoder={encoder.name} for {images.dtype} {images.shape}"
        )


def _feature_pyramid(backbone, width):
    maps = {
        name: keras.Input(tensor.shape[1:], name=name)
        for name, tensor in zip(LEVELS, backbone.outputs, strict=True)
    }
    merged = {name: layers.Conv2D(width, 1, name=f"{name}_lateral")(x) for name, x in maps.items()}
    for name, above in (("P4", "P5"), ("P3", "P4")):
        upsampled = layers.UpSampling2D(2, name=f"{above}_upsampled")(merged[above])
        merged[name] = layers.Add(name=f"{name}_merged")([merged[name], upsampled])
    outputs = [
        layers.Conv2D(width, 3, padding="same", name=f"{name}_out")(merged[name]) for name in LEVELS
    ]
    down = {"strides": 2, "padding": "same"}
    p6 = layers.Conv2D(width, 3, **down, name="P6_out")(maps["P5"])
    p7 = layers.Conv2D(width, 3, **down, name="P7_out")(layers.ReLU(name="P6_relu")(p6))
    return keras.Model(maps, [*outputs, p6, p7], name="feature_pyramid")


def _head(name, width, filters, bias):
    """Four convolutions and the predictions of each position, for maps of any size."""
    last = layers.Conv2D(
        filters,
        3,
        padding="same",
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        bias_initializer=keras.initializers.Constant(bias),
        name=f"{name}_predictions",
    )
    hidden = [
        layers.Conv2D(
            width, 3, padding="same", activation="relu", kernel_initializer="he_normal",
            name=f"{name}_conv{i}",
        )
        for i in range(1, 5)
    ]  # fmt: skip
    return keras.Sequential([keras.Input((None, None, width)), *hidden, last], name=name)
