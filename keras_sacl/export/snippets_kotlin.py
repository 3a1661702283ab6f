"""Kotlin for Android: LiteRT's Interpreter for .tflite, ONNX Runtime for .onnx."""

_DEPENDENCIES = {
    "tflite": "com.google.ai.edge.litert:litert:1.4.1",
    "onnx": "com.microsoft.onnxruntime:onnxruntime-android:1.27.0",
}


def write(contract):
    """The lines for a `snippets.Contract`."""
    return "\n".join([*_head(contract), "", *_class(contract), ""])


def _head(contract):
    yield from (f"// {line}" for line in contract.lines())
    yield f'// build.gradle.kts: implementation("{_DEPENDENCIES[contract.runtime]}")'
    names = ["android.graphics.Bitmap", "java.nio.ByteBuffer", "java.nio.ByteOrder"]
    if contract.runtime == "tflite":
        names.append("org.tensorflow.lite.Interpreter")
    else:
        names += ["ai.onnxruntime.OnnxTensor", "ai.onnxruntime.OrtEnvironment"]
        if contract.given.dtype == "uint8":
            names.append("ai.onnxruntime.OnnxJavaType")
    if contract.found.name == "logits":
        names.append("kotlin.math.exp")
    if contract.given.quantised:
        names.append("kotlin.math.roundToInt")
    yield from (f"import {name}" for name in sorted(names))


def _class(contract):
    given, found = contract.given, contract.found
    logits = found.name == "logits"
    count = found.shape[-1]
    name, method = ("Classifier", "classify") if logits else ("Encoder", "encode")
    what = f"Probabilities of the {count} classes" if logits else f"The {count} features"
    if contract.runtime == "tflite":
        yield f"class {name}(model: ByteBuffer) {{  // the mapped file"
        yield "    private val tflite = Interpreter(model)"
        if contract.named:
            yield f"    // Names of the classes: unzip -p {contract.file} labels.txt"
    else:
        yield f"class {name}(model: ByteArray) {{"
        yield "    private val environment = OrtEnvironment.getEnvironment()"
        yield "    private val session = environment.createSession(model)"
        if contract.named:
            yield "    val labels ="
            texts = 'session.metadata.customMetadata.getValue("labels.txt")'
            yield f"        {texts}.trimEnd().lines()"
    if contract.normalised:
        for key in ("mean", "std"):
            numbers = ", ".join(f"{float(x)!r}f" for x in contract.card[key])
            yield f"    private val {key} = floatArrayOf({numbers})"
    yield ""
    yield "    /**"
    yield f"     * {what} of a photo."
    yield f"     * `bitmap` is {contract.pixels()}."
    yield "     */"
    yield f"    fun {method}(bitmap: Bitmap): FloatArray {{"
    yield from (f"        {line}" for line in _input(contract))
    yield from (f"        {line}" for line in _run(contract))
    yield "    }"
    if given.quantised:
        low, high = given.limits
        yield ""
        yield "    private fun quantise(x: Float) ="
        yield (
            f"        ((x / {given.scale}f).roundToInt(){given.plus_zero_point()})"
            f".coerceIn({low}, {high}).toByte()"
        )
    if logits:
        yield ""
        yield "    private fun softmax(logits: FloatArray): FloatArray {"
        yield "        val most = logits.max()"
        yield "        val grown = FloatArray(logits.size) { exp(logits[it] - most) }"
        yield "        val sum = grown.sum()"
        yield "        return FloatArray(logits.size) { grown[it] / sum }"
        yield "    }"
    yield "}"


def _input(contract):
    """Puts the numbers of the bitmap into a direct buffer that is named as the input."""
    given = contract.given
    if contract.any_size:
        width, height = "bitmap.width", "bitmap.height"
    else:
        width = height = contract.card["size"]
    size = {"float32": "4 * "}.get(given.dtype, "")
    yield f"val argb = IntArray({width} * {height})"
    yield f"bitmap.getPixels(argb, 0, {width}, 0, 0, {width}, {height})"
    yield f"val {given.name} = ByteBuffer.allocateDirect({size}argb.size * 3)"
    yield "    .order(ByteOrder.nativeOrder())"
    loops = ["for (pixel in argb)", "for (c in 0..2)"]
    yield f"{' '.join(loops[::-1] if contract.planes else loops)} {{  // red, green, blue"
    yield "    val value = pixel shr (16 - 8 * c) and 255"
    number = "value.toByte()"
    if contract.normalised:
        number = "(value / 255f - mean[c]) / std[c]"
        number = f"quantise({number})" if given.quantised else number
    yield f"    {given.name}.put{'Float' if given.dtype == 'float32' else ''}({number})"
    yield "}"
    yield f"{given.name}.rewind()"


def _run(contract):
    given, found = contract.given, contract.found
    count = found.shape[-1]
    if contract.runtime == "tflite":
        if contract.any_size:
            yield "tflite.resizeInput(0, intArrayOf(1, bitmap.height, bitmap.width, 3))"
        kind = "FloatArray" if found.dtype == "float32" else "ByteArray"
        yield f"val {found.name} = Array(1) {{ {kind}({count}) }}"
        yield "tflite.runSignature("
        yield f'    mapOf("{given.name}" to {given.name}), mapOf("{found.name}" to {found.name}),'
        yield f'    "{contract.signature}",'
        yield ")"
        values = f"{found.name}[0]"
        if found.dtype != "float32":
            integer = f"{values}[it]"
            if found.dtype == "uint8":  # Kotlin's bytes are signed
                integer = f"({integer}.toInt() and 255)"
            zero = found.plus_zero_point(-1)
            values = f"FloatArray({count}) {{ {found.scale}f * ({integer}{zero}) }}"
        yield f"return {_result(found, values)}"
        return
    sides = "3, H, W" if contract.planes else "H, W, 3"
    height, width = ("bitmap.height.toLong()", "bitmap.width.toLong()")
    if not contract.any_size:
        height = width = str(contract.card["size"])
    shape = f"longArrayOf(1, {sides})".replace("H", height).replace("W", width)
    buffer, kind = f"{given.name}.asFloatBuffer()", ""
    if given.dtype == "uint8":
        buffer, kind = given.name, ", OnnxJavaType.UINT8"
    yield f"val shape = {shape}"
    yield f"val tensor = OnnxTensor.createTensor(environment, {buffer}, shape{kind})"
    yield f"val {found.name} = FloatArray({count})"
    yield "tensor.use {"
    names = f'mapOf("{given.name}" to tensor), setOf("{found.name}")'
    yield f"    session.run({names}).use {{ outputs ->"
    yield f"        (outputs[0] as OnnxTensor).floatBuffer.get({found.name})"
    yield "    }"
    yield "}"
    yield f"return {_result(found, found.name)}"


def _result(found, values):
    return f"softmax({values})" if found.name == "logits" else values
