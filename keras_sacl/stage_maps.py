"""Where the stages of an encoder end, found in its graph."""

import keras


def stage_maps(encoder):
    """The last map of each resolution, among those that all paths to the features run through.

    So the sum at the end of a residual block is one, what is inside a block or a squeeze-and-
    excitation branch is not.

    Args:
        encoder: A functional `keras.Model` of one input of fixed size, channels last.

    Returns:
        A dict from the name of the layer to its output, a Keras tensor (None, H, W, C), from the
        input on.

    Raises:
        ValueError: If the model is none of that, has no map, or makes tokens of its last one, as
            a transformer of its patches.
    """
    inputs, outputs = (getattr(encoder, name, None) or () for name in ("inputs", "outputs"))
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "`encoder` must be a functional keras.Model of one input and one output. "
            f"Received: encoder={encoder!r}"
        )
    inner = [layer.name for layer in encoder.layers if isinstance(layer, keras.Model)]
    if inner:
        raise ValueError(
            "`encoder` must hold its layers itself: the maps inside a model that is one of its "
            f"layers cannot be seen. Received: encoder={encoder.name}, with {', '.join(inner)}"
        )
    last, tokens = {}, None
    for x in trunk(outputs[0]):
        if _node(x).input_tensors and len(x.shape) == 4:
            size = tuple(x.shape[1:3])
            last.pop(size, None)  # to stand where the later one does
            last[size] = _node(x).operation.name, x
            tokens = None
        elif len(x.shape) == 3:
            tokens = tokens or _node(x).operation.name
    if tokens:
        raise ValueError(
            "`encoder` must have maps (B, H, W, C) on the way to its features, which a transformer "
            f"makes of tokens. Received: encoder={encoder.name}, with tokens from {tokens!r} on"
        )
    if not last or any(None in size for size in last):
        raise ValueError(
            "`encoder` must have maps (B, H, W, C) of fixed size on the way to its features. "
            f"Received: encoder={encoder.name}, with {[x.shape for _, x in last.values()]}"
        )
    return dict(last.values())


def trunk(output):
    """What all paths to an output run through.

    Args:
        output: A Keras tensor of a functional model.

    Returns:
        A list of Keras tensors, each the one output of the call of a layer, from the input on.
    """
    nodes = _nodes(output)
    position = {id(node): i for i, node in enumerate(nodes)}
    reach = list(range(len(nodes)))  # the last node that reads one
    for i, node in enumerate(nodes):
        for x in node.input_tensors:
            source = position[id(_node(x))]
            reach[source] = max(reach[source], i)
    found, furthest = [], 0
    for i, node in enumerate(nodes):
        # A node is on every path if nothing before it is read by anything after it.
        if furthest <= i and len(node.outputs) == 1:
            found.append(node.outputs[0])
        furthest = max(furthest, reach[i])
    return found


def layers_before(output):
    """All layers that an output depends on, the one it comes from included; no input layers.

    Args:
        output: A Keras tensor of a functional model.

    Returns:
        A list of `keras.layers.Layer`, each behind those it reads from.
    """
    operations = [node.operation for node in _nodes(output) if node.input_tensors]
    return [layer for layer in operations if isinstance(layer, keras.layers.Layer)]


def _node(x):
    """The call of a layer that a Keras tensor comes from."""
    return x._keras_history.operation._inbound_nodes[x._keras_history.node_index]


def _nodes(output):
    """All calls that an output depends on, each behind those it reads from."""
    order, found, stack = [], set(), [(_node(output), False)]
    while stack:
        node, all_read = stack.pop()
        if all_read:
            order.append(node)
        elif id(node) not in found:
            found.add(id(node))
            stack.append((node, True))
            stack.extend((_node(x), False) for x in node.input_tensors)
    return order
