"""Which variable of the slim network is which block of which variable of the host."""

import dataclasses

import keras
import numpy as np

# What two layers of one topology must share; everything else may follow from the width.
_SHARED_SETTINGS = (
    "kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier", "activation",
    "pool_size", "axis", "epsilon", "use_bias", "max_value", "shared_axes",
)  # fmt: skip
# Their kernels have heads and channels for axes, and no positions.
_WITHOUT_POSITIONS = (keras.layers.MultiHeadAttention, keras.layers.EinsumDense)


@dataclasses.dataclass(frozen=True)
class VariablePair:
    """A slim variable and the host variable whose block it is.

    Attributes:
        host, slim: The `keras.Variable`s, of equal rank.
        sliced_axes: The axes along which the slim one is shorter.
        layer: Name of the host's layer.
    """

    host: keras.Variable
    slim: keras.Variable
    sliced_axes: tuple
    layer: str


@dataclasses.dataclass(frozen=True)
class ChannelGroups:
    """Narrowed axes that must keep the same channels.

    Attributes:
        axes: (id of host variable, axis) to the number of a group.
        outputs: A layer's name to the group of its output.
        sizes: A group's number to its (channels, kept channels).
    """

    axes: dict
    outputs: dict
    sizes: dict


def check_pair(host, slim):
    """Pairs the layers and variables of a host with those of its slim network.

    Args:
        host, slim: Two `keras.Model`s of one topology, built by the same code at two widths.

    Returns:
        (layer pairs, variable pairs): a list of (host layer, slim layer) and a list of
        `VariablePair`, both in the order of the host.

    Raises:
        ValueError: If they do not correspond; it names the first layer that differs.
    """
    host_layers, slim_layers = flatten(host), flatten(slim)
    pairs = []
    for host_layer, slim_layer in zip(host_layers, slim_layers, strict=False):
        reason = _difference(host_layer, slim_layer)
        if reason:
            raise ValueError(_message(host, slim, host_layer, slim_layer, reason))
        pairs += [
            VariablePair(h, s, _narrowed_axes(h, s), host_layer.name)
            for h, s in zip(host_layer.variables, slim_layer.variables, strict=True)
        ]
    if len(host_layers) != len(slim_layers):
        longer = host_layers if len(host_layers) > len(slim_layers) else slim_layers
        extra = longer[min(len(host_layers), len(slim_layers))]
        owner = "host" if longer is host_layers else "slim"
        reason = f"only the {owner} network has this layer"
        raise ValueError(_message(host, slim, extra, extra, reason))
    if host.input_shape != slim.input_shape:
        raise ValueError(
            "`host` and `slim` must take inputs of one shape. "
            f"Received: host takes {host.input_shape}, slim takes {slim.input_shape}"
        )
    return list(zip(host_layers, slim_layers, strict=True)), pairs


def moving_statistics(model):
    """The moving statistics of a model, by id: BatchNorm's means and variances.

    Seeds of random layers are variables but not weights, so they are not among them. Nor is
    anything of a frozen layer, which is the same layer for the host and the slim network.
    """
    learning = [layer for layer in flatten(model) if layer.trainable]
    return {id(v) for layer in learning for v in layer.non_trainable_weights}


def channel_groups(host, pairs):
    """Groups the narrowed axes that must keep the same channels.

    A channel is one thing from the convolution that makes it, through BatchNorm, activation,
    depthwise convolution and pooling, to the input axis of every layer that reads it; additions
    and products tie their operands together.

    Args:
        host: A flat functional `keras.Model`.
        pairs: The `VariablePair`s of `check_pair`.

    Returns:
        `ChannelGroups`.

    Raises:
        ValueError: At a layer that joins channels in a way groups cannot follow.
    """
    parent = []

    def new_group():
        parent.append(len(parent))
        return len(parent) - 1

    def find(g):
        while parent[g] != g:
            parent[g] = parent[parent[g]]
            g = parent[g]
        return g

    def union(groups):
        roots = sorted({find(g) for g in groups})
        for root in roots[1:]:
            parent[root] = roots[0]
        return roots[0]

    group_of, axis_groups, outputs = {}, {}, {}
    for depth in sorted(host._nodes_by_depth, reverse=True):
        for node in host._nodes_by_depth[depth]:
            layer = node.operation
            inputs = [group_of[id(x)] for x in node.input_tensors]
            out = _output_group(layer, node, inputs, new_group, union)
            for y in node.output_tensors:
                group_of[id(y)] = out
            outputs[layer.name] = out
            for variable in getattr(layer, "variables", ()):  # operations have none
                for axis in range(len(variable.shape)):
                    from_input = axis == len(variable.shape) - 2 and inputs
                    axis_groups[id(variable), axis] = inputs[0] if from_input else out
    sizes, axes = {}, {}
    for pair in pairs:
        for axis in pair.sliced_axes:
            group = find(axis_groups[id(pair.host), axis])
            axes[id(pair.host), axis] = group
            size = (pair.host.shape[axis], pair.slim.shape[axis])
            if sizes.setdefault(group, size) != size:
                raise ValueError(
                    f"`host` ties channels of different number together at layer {pair.layer!r}, "
                    f"which magnitude selection cannot follow. Received: {sizes[group]} and {size}"
                )
    return ChannelGroups(axes, {name: find(g) for name, g in outputs.items()}, sizes)


def largest_channels(pairs, groups):
    """Scores every channel by the L1 norm of the filters that make it, and keeps the largest.

    Args:
        pairs, groups: As `check_pair` and `channel_groups` give them.

    Returns:
        A dict from group to a float32 mask of (channels,) ones and zeros. Of equal scores the
        leading one stays.
    """
    scores = {group: np.zeros(channels) for group, (channels, _) in groups.sizes.items()}
    for pair in pairs:
        last = len(pair.host.shape) - 1
        if last >= 1 and (id(pair.host), last) in groups.axes:
            kernel = np.abs(np.asarray(pair.host, dtype="float64"))
            norm = kernel.sum(axis=tuple(range(last)))
            # Sets of filters of different size count alike in a group that several layers feed.
            scores[groups.axes[id(pair.host), last]] += norm / max(norm.mean(), 1e-30)
    masks = {}
    for group, (channels, kept) in groups.sizes.items():
        mask = np.zeros(channels, "float32")
        mask[np.argsort(-scores[group], kind="stable")[:kept]] = 1.0
        masks[group] = mask
    return masks


def _output_group(layer, node, inputs, new_group, union):
    out_channels = node.output_tensors[0].shape[-1]
    mixes = getattr(layer, "variables", ()) and not isinstance(
        layer, (keras.layers.BatchNormalization, keras.layers.DepthwiseConv2D)
    )
    if not inputs or (mixes and hasattr(layer, "kernel")):
        return new_group()
    if isinstance(layer, keras.layers.Concatenate) or mixes:
        raise ValueError(
            'selection="magnitude" cannot follow channels through '
            f'{type(layer).__name__} {layer.name!r}; use selection="leading".'
        )
    same = [
        g for g, x in zip(inputs, node.input_tensors, strict=True) if x.shape[-1] == out_channels
    ]
    return union(same) if same else new_group()


def flatten(model):
    """The layers of a model in order, those of models inside it in their place."""
    layers = []
    for layer in model.layers:
        layers += flatten(layer) if isinstance(layer, keras.Model) else [layer]
    return layers


def _difference(host_layer, slim_layer):
    """What makes two layers not correspond, in words; None if they do."""
    if type(host_layer) is not type(slim_layer):
        return "the layers are of different types"
    if len(host_layer.variables) != len(slim_layer.variables):
        return "they hold different numbers of variables"
    host_config, slim_config = host_layer.get_config(), slim_layer.get_config()
    for key in _SHARED_SETTINGS:
        if host_config.get(key) != slim_config.get(key):
            return f"{key} is {host_config.get(key)} against {slim_config.get(key)}"
    for h, s in zip(host_layer.variables, slim_layer.variables, strict=True):
        if len(h.shape) != len(s.shape):
            return f"{h.name} has shape {h.shape} against {s.shape}"
        # All but the last two axes of a kernel are positions: they do not slim.
        last = 0 if isinstance(host_layer, _WITHOUT_POSITIONS) else -2
        if h.shape[:last] != s.shape[:last] or any(a < b for a, b in zip(h.shape, s.shape)):  # noqa: B905
            return f"{h.name} has shape {h.shape} against {s.shape}"
    return None


def _narrowed_axes(host_variable, slim_variable):
    shapes = zip(host_variable.shape, slim_variable.shape, strict=True)
    return tuple(axis for axis, (h, s) in enumerate(shapes) if h != s)


def _message(host, slim, host_layer, slim_layer, reason):
    return (
        "`slim` must be the host's topology at a smaller width, with variables that correspond "
        f"one to one. The first layer that differs is {host_layer.name!r} "
        f"({type(host_layer).__name__}) against {slim_layer.name!r} "
        f"({type(slim_layer).__name__}): {reason}. "
        f"Received: host={host.name!r}, slim={slim.name!r}"
    )
