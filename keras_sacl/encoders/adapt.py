"""What every backbone needs here: stem, initialisation, BatchNorm, activations, topology."""

import re

import keras
from keras import layers

_AUTOMATIC_NAME = re.compile(r"(re_lu|activation|add|multiply|concatenate)(_\d+)?")

ACTIVATIONS = ("default", "relu6")


def adapt(
    build,
    width,
    *,
    image_size,
    removed_strides,
    batch_norm_momentum,
    activation,
    shift_activations,
):
    """Rebuilds a library backbone, layer by layer.

    - The first strides are left out.
    - Convolutions that stride pad by themselves ("same"), in place of a padding layer that copies
      the map: the same numbers on maps of even size.
    - Convolutions and BatchNorm start as `build_encoder` says.
    - The graph is that of width 1, the channels are those of `width`. (MobileNet-V2 and -V3 add
      a residual wherever two stages happen to be rounded to the same channels, so that a network
      and its slim version would not be of one topology.)
    - Activations without an upper bound get one, if `activation` says so.
    - Layers named by Keras' global counter are numbered within the model.

    Args:
        build: Maps a width to a functional backbone, (B, S, S, 3) to (B, H, W, C).
        width: The width to build.
        image_size: S.
        removed_strides: How many strides of 2 to leave out, from the input on.
        batch_norm_momentum: Momentum of every BatchNorm.
        activation: One of `ACTIVATIONS`; see `build_encoder`.
        shift_activations: Whether a BatchNorm in front of an activation starts with beta = 1.

    Returns:
        (input, output) Keras tensors of the new graph, with fresh weights.
    """
    backbone = build(1.0)
    narrow = {layer.name: layer for layer in build(width).layers}
    strided = _strided(backbone)
    unstrided = set(list(strided)[:removed_strides])
    paddings = {padding for padding in strided.values() if padding}
    counts = {}

    def clone_function(layer):
        if not isinstance(layer, layers.Layer):
            return layer  # An operation of keras.ops: it has no state.
        config = narrow.get(layer.name, layer).get_config()
        automatic = _AUTOMATIC_NAME.fullmatch(layer.name)
        if automatic:
            kind = automatic.group(1)
            counts[kind] = counts.get(kind, 0) + 1
            config["name"] = f"{kind}_{counts[kind]}"
        config["dtype"] = keras.config.dtype_policy()
        if activation == "relu6":
            _bound(config, layer)
        if layer.name in strided:
            config["padding"] = "same"
        if layer.name in unstrided:
            config["strides"] = 1
        if isinstance(layer, layers.BatchNormalization):
            config["momentum"] = batch_norm_momentum
            if shift_activations and _feeds_activation(layer):
                # A stack of centring and rectifying makes all images equally far apart after 27
                # layers: at initialisation MobileNet-V1's 20-NN was at chance in training mode.
                # Shifted by one standard deviation, most units start in their linear part.
                # Barlow Twins, 156 steps on CIFAR-10: 20-NN 0.151 without, 0.319 with it.
                config["beta_initializer"] = "ones"
        elif isinstance(layer, layers.DepthwiseConv2D):
            # Keras counts k * k * C inputs for a depthwise kernel; a filter has k * k.
            channels = narrow[layer.name].input.shape[-1]
            config["depthwise_initializer"] = keras.initializers.VarianceScaling(2.0 * channels)
        elif isinstance(layer, layers.Conv2D):
            config["kernel_initializer"] = "he_normal"
        return type(layer).from_config(config)

    def call_function(layer, *args, **kwargs):
        if layer.name in paddings or _is_linear_bottleneck_activation(layer.name):
            return args[0]
        return layer(*args, **kwargs)

    images = keras.Input((image_size, image_size, 3), name="images")
    # One tensor or a list of one, as the backbone has it.
    inputs = [images] if isinstance(backbone.input, list) else images
    clone = keras.models.clone_model(
        backbone, input_tensors=inputs, clone_function=clone_function, call_function=call_function
    )
    return images, clone.outputs[0]


def _strided(backbone):
    """Maps the name of each strided convolution to that of the padding in front of it, or None."""
    found = {}
    for layer in backbone.layers:
        convolution = isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D))
        if convolution and tuple(layer.strides) == (2, 2):
            source = layer.input._keras_history.operation
            found[layer.name] = source.name if isinstance(source, layers.ZeroPadding2D) else None
    return found


def _bound(config, layer):
    """Puts ReLU6 into a layer's configuration, in the place of what has no upper bound.

    Not a clipped hard-swish, which would be nearer to MobileNet-V3: at random weights its int8
    file was no nearer to Keras than that of hard-swish, and XNNPACK ran it in as many pieces.
    """
    if isinstance(layer, layers.ReLU):
        config["max_value"] = 6.0
    elif config.get("activation") in ("relu", "silu", "hard_silu"):
        config["activation"] = "relu6"


def _is_linear_bottleneck_activation(name):
    # keras-cv's EfficientNet activates the projection of each block; the paper's is linear.
    return name.endswith("project_activation")


def _feeds_activation(layer):
    readers = [node.operation for node in layer._outbound_nodes]
    return any(
        isinstance(reader, (layers.ReLU, layers.Activation))
        and not _is_linear_bottleneck_activation(reader.name)
        for reader in readers
    )
