"""What an exported file holds, read from the file itself: operations, types, precision."""

import struct


def tflite_ops(content):
    """The operations of a TFLite file, as (all names, those that are not TFLite's own).

    Read from the file itself, so that a file that no interpreter here can run is named for what
    it holds.

    Args:
        content: The file's bytes.

    Returns:
        Two sorted lists of names.

    Raises:
        ValueError: If it is no TFLite file, or a broken one.
    """
    from ai_edge_litert import schema_py_generated as schema

    builtins = _names(schema.BuiltinOperator)

    def read(model):
        names, foreign = set(), set()
        for i in range(model.OperatorCodesLength()):
            entry = model.OperatorCodes(i)
            code = _code(entry)
            if code == schema.BuiltinOperator.CUSTOM:
                foreign.add(entry.CustomCode().decode())
            else:
                names.add(builtins[code])
        return sorted(names | foreign), sorted(foreign)

    return _read_tflite(content, read)


def float_tensors(content):
    """Names of the floating-point tensors of a TFLite file; a full-integer file has none."""
    return [name for name, kind, _ in _tensors(content) if kind in _FLOATS]


def tensor_names(content):
    """Names of all tensors of a TFLite file."""
    return [name for name, _, _ in _tensors(content)]


def tflite_precision(content):
    """What a TFLite file computes and stores in.

    Args:
        content: The file's bytes.

    Returns:
        "int8" (its layers compute in integers), "dynamic" (floats, but weights of 8 bits),
        "float16" (weights of 16 bits) or "float32".

    Raises:
        ValueError: If it is no TFLite file, or a broken one.
    """
    tensors = _tensors(content)
    if not any(kind in _FLOATS for _, kind, _ in tensors):
        return "int8"
    layers = _layer_types(content)
    if layers and layers <= {"INT8", "UINT8"}:
        return "int8"
    # Indices and shapes are integers too, but of 32 bits.
    weights = {kind for _, kind, constant in tensors if constant}
    if weights & {"INT8", "UINT8", "INT4"}:
        return "dynamic"
    return "float16" if "FLOAT16" in weights else "float32"


def onnx_ops(content):
    """The operations of an ONNX file, as `tflite_ops`; foreign are those of no ONNX domain.

    Raises:
        ValueError: If it is no ONNX file.
    """
    nodes = _onnx_graph(content).node
    foreign = {f"{n.domain}.{n.op_type}" for n in nodes if n.domain not in ("", "ai.onnx")}
    own = {n.op_type for n in nodes if n.domain in ("", "ai.onnx")}
    return sorted(own | foreign), sorted(foreign)


def onnx_precision(content):
    """Of an ONNX file: "int8" if it quantises, "float16" for 16-bit weights, or "float32"."""
    import onnx

    graph = _onnx_graph(content)
    if any("Quantize" in node.op_type for node in graph.node):
        return "int8"
    halves = any(w.data_type == onnx.TensorProto.FLOAT16 for w in graph.initializer)
    return "float16" if halves else "float32"


_FLOATS = ("FLOAT16", "BFLOAT16", "FLOAT32", "FLOAT64")


def _tensors(content):
    """(name, type, whether it is constant) of each tensor of a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    types = _names(schema.TensorType)

    def read(model):
        graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
        tensors = [graph.Tensors(i) for graph in graphs for i in range(graph.TensorsLength())]
        return [
            (t.Name().decode(), types[t.Type()], model.Buffers(t.Buffer()).DataLength() > 0)
            for t in tensors
        ]

    return _read_tflite(content, read)


def _layer_types(content):
    """The types that the convolutions and dense layers of a TFLite file compute in."""
    from ai_edge_litert import schema_py_generated as schema

    types = _names(schema.TensorType)
    kinds = schema.BuiltinOperator
    layers = {kinds.CONV_2D, kinds.DEPTHWISE_CONV_2D, kinds.FULLY_CONNECTED}

    def read(model):
        codes = [_code(model.OperatorCodes(i)) for i in range(model.OperatorCodesLength())]
        graphs = [model.Subgraphs(i) for i in range(model.SubgraphsLength())]
        return {
            types[graph.Tensors(graph.Operators(i).Inputs(0)).Type()]
            for graph in graphs
            for i in range(graph.OperatorsLength())
            if codes[graph.Operators(i).OpcodeIndex()] in layers
        }

    return _read_tflite(content, read)


def _names(kind):
    """Code to name of an enumeration of TFLite's schema."""
    return {code: name for name, code in vars(kind).items() if name.isupper()}


def _code(entry):
    # Codes below 127 may stand in the older, one-byte field only.
    return max(entry.BuiltinCode(), entry.DeprecatedBuiltinCode())


def _read_tflite(content, read):
    from ai_edge_litert import schema_py_generated as schema

    if content[4:8] != b"TFL3":
        raise ValueError("is no TFLite file")
    try:
        return read(schema.Model.GetRootAsModel(content, 0))
    except (struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError) as error:
        # What following an offset into nowhere ends in.
        raise ValueError("is a TFLite file that is broken or cut short") from error


def _onnx_graph(content):
    import onnx
    from google.protobuf.message import DecodeError

    try:
        graph = onnx.load_from_string(content).graph
    except DecodeError as error:
        raise ValueError("is no ONNX file, or a broken one") from error
    if not graph.output:
        raise ValueError("is no ONNX file: it has no graph with an output")
    return graph
