"""Swift for iOS: TensorFlowLiteSwift for .tflite, ONNX Runtime for .onnx."""

_SWIFT = {"float32": "Float32", "int8": "Int8", "uint8": "UInt8"}


def write(contract):
    """The lines for a `snippets.Contract`."""
    return "\n".join([*_head(contract), "", *_class(contract), ""])


def _head(contract):
    yield from (f"// {line}" for line in contract.lines())
    if contract.runtime == "tflite":
        yield "// Podfile: pod 'TensorFlowLiteSwift'"
        yield "import Foundation"
        yield "import TensorFlowLite"
    else:
        yield "// Package: https://github.com/microsoft/onnxruntime-swift-package-manager"
        yield "// or Podfile: pod 'onnxruntime-objc', and then: import onnxruntime_objc"
        yield "import Foundation"
        yield "import OnnxRuntimeBindings"


def _class(contract):
    found = contract.found
    logits = found.name == "logits"
    count = found.shape[-1]
    name, method = ("Classifier", "classify") if logits else ("Encoder", "encode")
    what = f"Probabilities of the {count} classes" if logits else f"The {count} features"
    yield f"final class {name} {{"
    if contract.runtime == "tflite":
        yield "    private let signature: SignatureRunner"
        if contract.named:
            yield f"    // Names of the classes: unzip -p {contract.file} labels.txt"
    else:
        yield "    private let environment: ORTEnv  // it must live as long as the session"
        yield "    private let session: ORTSession"
    if contract.normalised:
        for key in ("mean", "std"):
            numbers = ", ".join(repr(float(x)) for x in contract.card[key])
            yield f"    private let {key}: [Float32] = [{numbers}]"
    yield ""
    yield "    init(modelPath: String) throws {"
    if contract.runtime == "tflite":
        yield "        let interpreter = try Interpreter(modelPath: modelPath)"
        yield f'        signature = try interpreter.signatureRunner(with: "{contract.signature}")'
    else:
        yield "        environment = try ORTEnv(loggingLevel: .warning)"
        yield "        session = try ORTSession("
        yield "            env: environment, modelPath: modelPath, sessionOptions: nil)"
    yield "    }"
    yield ""
    yield f"    /// {what} of a photo."
    yield f"    /// `rgb` is {contract.pixels()}:"
    yield "    /// a byte for each of red, green and blue, row by row."
    sides = ", height: Int, width: Int" if contract.any_size else ""
    yield f"    func {method}(rgb: [UInt8]{sides}) throws -> [Float32] {{"
    yield from (f"        {line}" for line in _input(contract))
    yield from (f"        {line}" for line in _run(contract))
    yield "    }"
    if logits:
        yield ""
        yield "    private func softmax(_ logits: [Float32]) -> [Float32] {"
        yield "        let most = logits.max()!"
        yield "        let grown = logits.map { exp($0 - most) }"
        yield "        let sum = grown.reduce(0, +)"
        yield "        return grown.map { $0 / sum }"
        yield "    }"
    yield "}"


def _input(contract):
    """Makes an array that is named as the input."""
    given = contract.given
    if not contract.normalised and not contract.planes:
        yield f"let {given.name} = rgb"
        return
    yield f"var {given.name}: [{_SWIFT[given.dtype]}] = []"
    loops = ["for pixel in stride(from: 0, to: rgb.count, by: 3) {", "for c in 0..<3 {"]
    outer, inner = loops[::-1] if contract.planes else loops
    yield outer
    yield f"    {inner}"
    number = "rgb[pixel + c]"
    if contract.normalised:
        number = f"(Float32({number}) / 255 - mean[c]) / std[c]"
    if given.quantised:
        low, high = given.limits
        yield f"        let x = {number}"
        yield f"        let q = (x / {given.scale}).rounded(){given.plus_zero_point()}"
        number = f"{_SWIFT[given.dtype]}(max({low}, min({high}, q)))"
    yield f"        {given.name}.append({number})"
    yield "    }"
    yield "}"


def _run(contract):
    given, found = contract.given, contract.found
    data = f"{given.name}.withUnsafeBytes {{ Data($0) }}"
    if contract.runtime == "tflite":
        if contract.any_size:
            shape = "[1, height, width, 3]"
            yield f'try signature.resizeInput(named: "{given.name}", toShape: {shape})'
        yield f'try signature.invoke(with: ["{given.name}": {data}])'
        yield f'let data = try signature.output(named: "{found.name}").data'
    else:
        height = width = contract.card["size"]
        if contract.any_size:
            height, width = "NSNumber(value: height)", "NSNumber(value: width)"
        sides = f"3, {height}, {width}" if contract.planes else f"{height}, {width}, 3"
        shape = f"[1, {sides}]"
        kind = ".float" if given.dtype == "float32" else ".uInt8"
        yield "let tensor = try ORTValue("
        yield f"    tensorData: NSMutableData(data: {data}),"
        yield f"    elementType: {kind},"
        yield f"    shape: {shape})"
        yield "let outputs = try session.run("
        yield f'    withInputs: ["{given.name}": tensor], outputNames: ["{found.name}"],'
        yield "    runOptions: nil)"
        yield f'let data = try outputs["{found.name}"]!.tensorData() as Data'
    kind = _SWIFT[found.dtype]
    yield f"let {found.name} = data.withUnsafeBytes {{ Array($0.bindMemory(to: {kind}.self)) }}"
    values = found.name
    if found.dtype != "float32":
        values = f"{found.name}.map {{ {found.scale} * (Float32($0){found.plus_zero_point(-1)}) }}"
    yield f"return softmax({values})" if found.name == "logits" else f"return {values}"
