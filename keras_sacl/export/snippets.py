"""The lines of an app that call an exported file, with what they must know read from the file.

python -m keras_sacl.export.snippets runs/mine/export/classifier_int8.tflite --language=kotlin

Names, shapes, types, scale and zero point are the file's; mean, std and crop those of its model
card. Exit codes: 0; 2 bad input.
"""

import dataclasses
import sys
from pathlib import Path

import numpy as np

from keras_sacl.command_line import OneLineParser
from keras_sacl.export import snippets_kotlin, snippets_swift
from keras_sacl.export.metadata import read_metadata

LANGUAGES = {"kotlin": snippets_kotlin, "swift": snippets_swift}


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a file.

    Attributes:
        name: As the signature of TFLite, or the graph of ONNX, has it.
        dtype: "float32", "int8" or "uint8".
        shape: Integers, None for what is open; of one image.
        scale, zero_point: Of quantised numbers, x = scale (q - zero_point); None of others.
    """

    name: str
    dtype: str
    shape: tuple
    scale: float | None = None
    zero_point: int | None = None

    @property
    def quantised(self):
        """Whether its integers stand for other numbers than themselves."""
        return self.scale is not None and (self.scale, self.zero_point) != (1, 0)

    @property
    def limits(self):
        """Its lowest and highest integer."""
        return {"int8": (-128, 127), "uint8": (0, 255)}[self.dtype]

    def plus_zero_point(self, sign=1):
        """How a line ends that adds the zero point, or with sign -1 takes it away."""
        number = sign * self.zero_point
        return "" if number == 0 else f" {'+' if number > 0 else '-'} {abs(number)}"

    def __str__(self):
        sides = ", ".join("any" if n is None else str(n) for n in self.shape)
        scale = "" if self.scale is None else f", scale {self.scale}, zero point {self.zero_point}"
        return f"{self.name} {self.dtype} [{sides}]{scale}"


@dataclasses.dataclass(frozen=True)
class Contract:
    """How a file is called.

    Attributes:
        file: Its name.
        runtime: "tflite" or "onnx".
        signature: Key of TFLite's signature; None of ONNX.
        given, found: The `Tensor`s of input and output.
        card: The entry "input" of the model card.
        named: Whether the file holds the names of its classes.
    """

    file: str
    runtime: str
    signature: str | None
    given: Tensor
    found: Tensor
    card: dict
    named: bool

    @property
    def planes(self):
        """Whether channels come first."""
        return self.card["layout"] == "nchw"

    @property
    def any_size(self):
        """Whether it takes whole photos."""
        return None in self.given.shape

    @property
    def normalised(self):
        """Whether the app normalises."""
        return self.given.name == "images"

    def lines(self):
        """What the file takes and gives, and which pixels they are, a line each."""
        signature = f", signature {self.signature}" if self.signature else ""
        yield f"{self.file}{signature}"
        yield f"  takes {self.given}"
        yield f"        {self.card['values']}"
        yield f"  gives {self.found}"

    def pixels(self):
        """Which pixels of a photo it takes, in words."""
        if self.any_size:
            return "the whole photo, upright"
        size = self.card["size"]
        share = self.card.get("crop_share", 0.875)
        of = "" if share == 1 else f" with {share:g} of the shorter side"
        return f"its centred square{of}, resized to {size} x {size}"


def contract(path):
    """Reads how a file is called.

    Args:
        path: A .tflite or .onnx file with a model card, of one input and one output.

    Returns:
        A `Contract`.

    Raises:
        ValueError: If it is no such file.
    """
    path = Path(path)
    if path.suffix not in (".tflite", ".onnx"):
        raise ValueError(f"{path}: must end in .tflite or .onnx")
    if not path.is_file():
        raise ValueError(f"{path}: is no file")
    try:
        card, labels = read_metadata(path)
        signature, given, found = (_tflite if path.suffix == ".tflite" else _onnx)(str(path))
    except Exception as error:  # each runtime has its own kinds for a broken file
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: cannot be read ({reason})") from error
    if card is None:
        raise ValueError(f"{path}: holds no model card")
    return Contract(
        path.name, path.suffix[1:], signature, given, found, card["input"], labels is not None
    )  # fmt: skip


def _tflite(path):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path)
    signatures = interpreter.get_signature_list()
    if len(signatures) != 1:
        raise ValueError(f"has {len(signatures)} signatures, and must have one")
    ((key, names),) = signatures.items()
    details = (*interpreter.get_input_details(), *interpreter.get_output_details())
    tensors = []
    for tensor, name in zip(details, (*names["inputs"], *names["outputs"]), strict=True):
        scale, zero_point = tensor["quantization"]
        shape = tuple(None if n < 0 else int(n) for n in tensor["shape_signature"])
        # The shortest text that is this number in float32, which the file holds.
        numbers = (float(str(np.float32(scale))), zero_point) if scale else ()
        tensors.append(Tensor(name, np.dtype(tensor["dtype"]).name, shape, *numbers))
    given, found = tensors
    return key, given, found


def _onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    types = {"tensor(float)": "float32", "tensor(uint8)": "uint8"}
    given, found = (
        Tensor(
            tensor.name,
            types[tensor.type],
            (1, *(n if isinstance(n, int) else None for n in tensor.shape[1:])),
        )
        for tensor in (*session.get_inputs(), *session.get_outputs())
    )
    return None, given, found


def snippet(path, language):
    """The lines for a file, as one text.

    Args:
        path: See `contract`.
        language: One of `LANGUAGES`.

    Raises:
        ValueError: As `contract`, or on another language.
    """
    if language not in LANGUAGES:
        raise ValueError(
            f"`language` must be one of {', '.join(LANGUAGES)}. Received: language={language!r}"
        )
    return LANGUAGES[language].write(contract(path))


def main(argv=None):
    """Returns the exit code."""
    parser = OneLineParser("snippets", __doc__)
    parser.add_argument("file", metavar="FILE", help=".tflite or .onnx")
    parser.add_argument("--language", choices=tuple(LANGUAGES), default="kotlin")
    options = parser.parse_args(argv)
    try:
        print(snippet(options.file, options.language), end="")
    except ValueError as error:
        print(f"snippets: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
